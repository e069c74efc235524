"""One time is segmented, all are measured; further columns; tables as Parquet."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.errors import ConfigError, OutputExistsError
from anystar_batch.measure import table
from anystar_batch.measure.table_files import courses_path
from anystar_batch.parsing import parse_measures
from tests.support import tiny_volume
from tests.support.tiny_volume import Spheres

WHOLE = {"block_shape": (64, 64, 64)}
PARTS = {"block_shape": (12, 16, 16)}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return tiny_volume.small_series(tmp_path_factory.mktemp("courses") / "a.zarr")


@pytest.fixture(scope="module")
def course(image):
    return tiny_volume.segment(image, factory=Spheres(), reference_time=1, run=WHOLE)


def test_a_course_is_what_the_image_shows_at_every_time_within_the_labels_of_one(image, course):
    labels = zarr.open_array(f"{course.label}/0", mode="r")[1]
    data = zarr.open_array(f"{image}/0", mode="r")
    found = tiny_volume.rows(courses_path(course.stats))
    keys = [(int(row["label"]), int(row["t"])) for row in found]
    assert keys == [(n, t) for n in range(1, course.instances + 1) for t in range(3)]
    for row in found:
        for channel in range(2):
            values = data[int(row["t"]), channel][labels == int(row["label"])].astype(np.float64)
            for what in ("mean", "std", "min", "max", "sum"):
                number = float(row[f"intensity_{what}_{channel}"])
                assert number == pytest.approx(getattr(values, what)(), rel=1e-8), what


def test_beside_it_stand_the_label_and_table_of_that_time_alone(image, course):
    alone = tiny_volume.segment(image, factory=Spheres(), time="1", label="alone", run=WHOLE)
    assert Path(alone.stats).read_bytes() == Path(course.stats).read_bytes()
    one, other = (zarr.open_array(f"{s.label}/0", mode="r")[...] for s in (alone, course))
    assert np.array_equal(one, other)
    assert not Path(courses_path(alone.stats)).exists()


def test_blocks_and_batches_change_no_byte_and_chosen_times_are_rows_of_all(
    image, course, monkeypatch
):
    monkeypatch.setattr(table, "ROWS", 4)
    options = {"factory": Spheres(), "reference_time": 1, "measure": ("feret",)}
    other = tiny_volume.segment(image, label="other", run=PARTS, **options)
    every = Path(courses_path(course.stats)).read_bytes()
    assert Path(courses_path(other.stats)).read_bytes() == every
    some = tiny_volume.segment(image, label="some", time="0,2", run=PARTS, **options)
    kept = [line for line in every.splitlines() if line.split(b",")[1] != b"1"]
    assert Path(courses_path(some.stats)).read_bytes().splitlines() == kept


def test_a_course_of_a_label_that_is_replaced_goes_with_it(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.zarr", times=2, channels=1)
    first = tiny_volume.segment(image, factory=Spheres(), reference_time=0, run=WHOLE)
    assert Path(courses_path(first.stats)).exists()
    again = tiny_volume.segment(image, factory=Spheres(), run=WHOLE | {"overwrite": True})
    assert Path(again.stats).exists()
    assert not Path(courses_path(first.stats)).exists()


def test_a_change_at_a_time_that_is_only_measured_is_noticed(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.zarr", times=2, channels=1)

    def change(event):
        if getattr(event, "stage", "") == "table" and not changed:
            changed.append(1)
            (chunk,) = Path(image).glob("0/c/1/0/0/0/0")
            chunk.write_bytes(chunk.read_bytes()[:-1])

    changed: list[int] = []
    with pytest.raises(Exception, match="has changed"):
        tiny_volume.segment(image, change, factory=Spheres(), reference_time=0, run=WHOLE)


def test_a_time_that_is_not_there_is_refused(image):
    with pytest.raises(ConfigError, match=r"--reference-time: got 3; the image has times 0 to 2"):
        tiny_volume.segment(image, factory=Spheres(), reference_time=3)
    with pytest.raises(ConfigError, match=r"--reference-time: got -1"):
        tiny_volume.config(image, reference_time=-1)


@pytest.mark.parametrize("more", [{"measure": ("feret",)}, {"time": "0,2"}, {"time": "1"}])
def test_another_table_is_another_result(image, course, more):
    options = {"reference_time": 1} | more
    if more.get("time") == "1":
        options.pop("reference_time")
    with pytest.raises(OutputExistsError):
        tiny_volume.segment(image, factory=Spheres(), run=WHOLE, **options)


def test_measures_are_read_in_their_own_order():
    assert parse_measures("feret, solidity,feret") == ("solidity", "feret")
    assert parse_measures("") == ()
    with pytest.raises(ConfigError, match=r"got 'girth'; expected some of solidity"):
        parse_measures("feret,girth")


def test_shapes_of_balls_are_those_of_balls(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.zarr", times=1, channels=1)
    found = tiny_volume.segment(
        image,
        factory=Spheres(),
        run=PARTS,
        stats=tmp_path / "a.csv",
        measure=("solidity", "sphericity", "surface", "feret"),
    )
    for row in tiny_volume.rows(found.stats):
        assert float(row["solidity"]) == pytest.approx(1.0, abs=1e-6)
        assert 0.97 < float(row["sphericity"]) < 1.0
        diameter = float(row["feret_diameter_max_um"])
        assert diameter == pytest.approx(float(row["equivalent_diameter_um"]), rel=0.1)
        assert float(row["surface_area_um2"]) == pytest.approx(np.pi * diameter**2, rel=0.05)


def test_parquet_holds_what_csv_holds(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    image = tiny_volume.small_series(tmp_path / "a.zarr", times=2, channels=1)
    options = {"factory": Spheres(), "reference_time": 0, "run": WHOLE}
    text = tiny_volume.segment(image, stats=tmp_path / "a.csv", label="a", **options)
    found = tiny_volume.segment(image, stats=tmp_path / "b.parquet", label="b", **options)
    assert not any("report" in text for text in found.warnings)
    assert list(tmp_path.glob("b*.html"))
    for one, other in (
        (text.stats, found.stats),
        (courses_path(text.stats), courses_path(found.stats)),
    ):
        rows, columns = tiny_volume.rows(one), parquet.read_table(other).to_pydict()
        assert list(columns) == list(rows[0])
        for name, values in columns.items():
            expected = [float(row[name]) for row in rows]
            assert values == pytest.approx(expected, rel=1e-6), name
    assert Path(courses_path(found.stats)).name == "b.courses.parquet"


def test_parquet_without_its_library_is_refused_before_work(tmp_path, monkeypatch):
    original = builtins.__import__

    def missing(name, *arguments, **more):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *arguments, **more)

    image = tiny_volume.small_image(tmp_path / "a.zarr")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"needs pyarrow.*anystar-batch\[parquet\]"):
        tiny_volume.segment(image, stats=tmp_path / "a.parquet")
    assert not (Path(image) / "labels").exists()
