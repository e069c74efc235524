"""What a table comes to: against plain sums, in any order, in pieces, with little memory."""

from dataclasses import replace

import numpy as np
import pytest

from anystar_batch.errors import DataError
from anystar_batch.report import digest
from anystar_batch.report import table_rows as rows
from anystar_batch.report.table_rows import read_rows
from tests.support.tables import FRAME, digest_of, random_rows, write_table

EVERY = 300


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces, samples and questions so small that a table of 300 rows needs many."""
    monkeypatch.setattr(rows, "PIECE", 17)
    monkeypatch.setattr(digest, "SAMPLE", 40)
    monkeypatch.setattr(digest, "ASKED", 25)


def same(a, b):
    for name in ("sample", "smallest", "largest", "least_certain"):
        mine, other = getattr(a, name), getattr(b, name)
        assert {k: v.tolist() for k, v in mine.items()} == {k: v.tolist() for k, v in other.items()}
    assert sorted(a.neighbour_um) == sorted(b.neighbour_um)
    assert [x.count.tolist() for x in a.profiles.axes] == [
        x.count.tolist() for x in b.profiles.axes
    ]


def test_counts_and_extremes_are_those_of_plain_sums(tmp_path, small_pieces):
    made = random_rows(EVERY)
    found = digest_of(tmp_path, made)
    whole = [r for r in made if not r["touches_border"]]
    assert found.instances == EVERY
    assert found.touching == EVERY - len(whole)
    assert found.doubtful == sum(r["prob"] < 0.55 for r in made)
    assert found.volume_um3 == pytest.approx(sum(r["volume_um3"] for r in made))
    assert found.brightest == max(r["intensity_max_0"] for r in made)
    by_size = sorted(made, key=lambda r: (-r["num_voxels"], r["label"]))
    assert found.largest["label"].tolist() == [r["label"] for r in by_size[:6]]
    small_first = sorted(whole, key=lambda r: (r["num_voxels"], r["label"]))
    assert found.smallest["label"].tolist() == [r["label"] for r in small_first[:6]]
    doubtful_first = sorted(made, key=lambda r: (r["prob"], r["label"]))
    assert found.least_certain["label"].tolist() == [r["label"] for r in doubtful_first[:6]]
    assert found.profiles.instances == EVERY
    assert found.is_sampled
    assert len(found.sample["label"]) == 40


def test_the_order_of_the_rows_and_of_the_reading_does_not_matter(tmp_path, small_pieces):
    made = random_rows(EVERY)
    shuffled = [made[k] for k in np.random.default_rng(1).permutation(EVERY)]
    same(digest_of(tmp_path, made), digest_of(tmp_path, shuffled))


def test_the_pieces_do_not_matter(tmp_path, monkeypatch, small_pieces):
    made = random_rows(EVERY)
    before = digest_of(tmp_path, made)
    monkeypatch.setattr(rows, "PIECE", 1000)
    same(before, digest_of(tmp_path, made))


def test_pyarrow_reads_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    made = random_rows(EVERY, times=3)
    odd = "with\nbreak, and comma"
    for number, row in enumerate(made):
        row["intensity_max_0"] *= float("nan") if number == 5 else 1
        row[odd] = [1e-30, float("inf"), -float("inf"), 2.0**63, 123456789.0][number % 5]
    path = write_table(tmp_path / "a.csv", made)
    names = [odd, *(name for name in rows.column_names(path) if name != odd)]
    for piece in (17, 300, 1000):
        monkeypatch.setattr(rows, "PIECE", piece)
        monkeypatch.setattr(rows, "LARGE", 10**9)
        plain = list(read_rows(path, names))
        monkeypatch.setattr(rows, "LARGE", 0)
        fast = list(read_rows(path, names))
        assert len(plain) == len(fast) == -(-EVERY // piece)
        for one, other in zip(plain, fast, strict=True):
            assert list(one) == list(other) == names
            for name in names:
                assert one[name].tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("kept", [100, 1000], ids=["read twice", "kept"])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("times", [None, 3])
def test_nearest_neighbours_are_exact_and_of_one_time(tmp_path, monkeypatch, sampled, times, kept):
    monkeypatch.setattr(digest, "KEPT", kept)
    if sampled:
        monkeypatch.setattr(rows, "PIECE", 17)
        monkeypatch.setattr(digest, "SAMPLE", 40)
        monkeypatch.setattr(digest, "ASKED", 25)
    made = random_rows(120, times=times)
    found = digest_of(tmp_path, made, replace(FRAME, times=times or 1))
    at = np.array([[r[f"centroid_{a}"] for a in "zyx"] for r in made]) * FRAME.scale_um
    when = np.array([r.get("t", 0) for r in made])
    apart = np.linalg.norm(at[:, None] - at, axis=-1)
    apart[(when[:, None] != when) | np.eye(len(made), dtype=bool)] = np.inf
    nearest = apart.min(axis=1)
    assert len(found.neighbour_um) == (25 if sampled else 120)
    # The time is a coordinate that is far away: it costs some digits.
    gaps = np.abs(found.neighbour_um[:, None] - nearest).min(axis=1)
    assert gaps.max() < 1e-3
    assert found.per_time.tolist() == np.bincount(when, minlength=times or 1).tolist()


def test_how_many_would_touch_the_border_is_what_chance_makes(tmp_path):
    # Boxes as they would be anywhere, also where little of them shows.
    shape, edge = FRAME.shape, 7
    rng = np.random.default_rng(3)
    made = random_rows(4000)
    for row in made:
        for a, n in zip("zyx", shape, strict=True):
            start = int(rng.integers(1 - edge, n))
            row[f"bbox_{a}_min"], row[f"bbox_{a}_max"] = max(start, 0), min(start + edge, n)
        row["touches_border"] = int(
            any(
                row[f"bbox_{a}_min"] == 0 or row[f"bbox_{a}_max"] == n
                for a, n in zip("zyx", shape, strict=True)
            )
        )
    found = digest_of(tmp_path, made)
    # The mean extent is that of boxes that the border has cut.
    assert found.touching_expected == pytest.approx(found.touching, rel=0.15)


def test_a_table_without_instances(tmp_path):
    path = write_table(tmp_path / "t.csv", random_rows(1))
    path.write_text(path.read_text().splitlines()[0] + "\n")
    found = digest.digest_table(path, FRAME)
    assert (found.instances, found.touching, len(found.neighbour_um)) == (0, 0, 0)
    assert np.isnan(found.brightest)


def test_the_brightest_is_counted_where_it_is_reached(tmp_path, small_pieces):
    made = random_rows(EVERY)
    for k, row in enumerate(made):
        row["intensity_max_0"] = 4095.0 if k % 3 == 0 else 10.0 + k
    found = digest_of(tmp_path, made)
    assert (found.brightest, found.at_brightest) == (4095.0, 100)


@pytest.fixture(params=["numpy", "pyarrow"])
def reader(request, monkeypatch):
    if request.param == "pyarrow":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(rows, "LARGE", 0 if request.param == "pyarrow" else 10**9)


def test_a_table_that_is_none(tmp_path, reader):
    path = tmp_path / "t.csv"
    path.write_text("")
    with pytest.raises(DataError, match="the table has no header; segment again"):
        digest.digest_table(path, FRAME)
    path.write_text("label,prob\n1,0.5\n")
    with pytest.raises(DataError, match=r"found no column centroid_z, .*intensity_max_0; segment"):
        digest.digest_table(path, FRAME)
    for row, said in (("1,x", ".*'x'"), ("1", "")):
        path.write_text(f"a,b\n1,2\n{row}\n")
        with pytest.raises(DataError, match=rf"a row cannot be read \({said}"):
            list(read_rows(path, ["a", "b"]))


def test_a_header_with_a_line_break_in_quotes_is_one_line(tmp_path, reader):
    path = tmp_path / "t.csv"
    path.write_text('"two\nlines",b\n1,2\n3,4\n')
    (found,) = read_rows(path, ["two\nlines"])
    assert found["two\nlines"].tolist() == [1.0, 3.0]
