from __future__ import annotations

import resource

import numpy as np
import pytest

from anystar_batch.measure.partials import INTEGER, Partials, merge, partials
from anystar_batch.stages.label_sums import Sums, load_sums, save_sums, sums_type
from anystar_batch.stages.workdir import PARTIALS

UNITS = ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))
CHANNELS = 2
SCORES = np.dtype([("prob", "<f4"), ("region", "<i8")])
ALL = np.arange(1, 41, dtype=np.uint32)


@pytest.fixture
def volume():
    """Labels that every chunk of 8^3 has in another order, and two channels."""
    rng = np.random.default_rng(4)
    labels = np.kron(rng.integers(0, 40, (4, 8, 8)), np.ones((2, 2, 2), int)).astype(np.uint32)
    return labels, [rng.integers(0, 60000, labels.shape).astype(np.uint16) for _ in range(CHANNELS)]


@pytest.fixture
def painted(volume):
    """Sums of the chunks by write unit."""
    labels, images = volume
    parts = []
    for chunk, unit in enumerate(UNITS):
        box = tuple(slice(8 * a, 8 * a + 8) for a in unit)
        one = partials(labels[box], [i[box] for i in images], tuple(8 * a for a in unit), chunk)
        parts.append((unit, one))
    return parts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / PARTIALS).mkdir()
    return tmp_path


def known():
    """What is said of every label's star."""
    scores = np.zeros(len(ALL), SCORES)
    scores["prob"], scores["region"] = ALL / 64, ALL.astype(np.int64) + 2**40
    return ALL, scores


def save(folder, name, units, parts):
    return save_sums(folder, name, units, parts, known())


def entries(folder, painted):
    """Two tasks of two units each."""
    return save(folder, "a.npy", UNITS[:2], painted[:2]) | save(
        folder, "b.npy", UNITS[2:], painted[2:]
    )


def merged(folder, noted, start, stop):
    rows = load_sums(folder, Sums(noted).between(start, stop), start, stop)
    for some in rows:
        label = some["shape"]["label"]
        assert (some["scores"] == known()[1][label - 1]).all()
    empty = np.zeros(0, sums_type(INTEGER, CHANNELS, SCORES))
    rows = (empty, *rows)
    return merge([Partials(r["shape"], r["intensity"]) for r in rows])


def assert_equal(found, expected):
    assert found.shape.tobytes() == expected.shape.tobytes()
    assert found.intensity.tobytes() == expected.intensity.tobytes()


@pytest.mark.parametrize("step", [1, 3, 7, 100])
def test_windows_of_labels_are_the_whole(folder, painted, step):
    noted = entries(folder, painted)
    whole = merge([part for _, part in painted])
    assert Sums(noted).last == whole.shape["label"].max()
    found = [merged(folder, noted, at, at + step) for at in range(1, 40, step)]
    together = [
        np.concatenate([getattr(f, name) for f in found]) for name in ("shape", "intensity")
    ]
    assert_equal(type(whole)(*together), whole)


def test_units_that_the_ledger_does_not_know_are_left_out(folder, painted):
    noted = entries(folder, painted)
    del noted[UNITS[1]]
    found = merged(folder, noted, 1, 99)
    assert_equal(found, merge([part for unit, part in painted if unit != UNITS[1]]))


def test_a_task_without_labels_writes_no_file(folder):
    none = partials(
        np.zeros((8, 8, 8), np.uint32), [np.zeros((8, 8, 8), np.uint16)] * 2, (0,) * 3, 0
    )
    noted = save(folder, "a.npy", UNITS[:1], [(UNITS[0], none)])
    assert noted == {UNITS[0]: {"file": "", "unit": 0, "first": 0, "last": 0}}
    assert not list((folder / PARTIALS).iterdir())
    measured = Sums(noted)
    assert measured.last == 0
    assert measured.between(1, 9) == ()


def test_a_unit_without_labels_beside_one_with(folder, painted):
    noted = save(folder, "a.npy", UNITS[:2], painted[1:2])
    assert noted[UNITS[0]]["file"] == ""
    assert noted[UNITS[1]]["file"] == "a.npy"
    assert noted[UNITS[1]]["unit"] == 1
    assert_equal(merged(folder, noted, 1, 99), merge([painted[1][1]]))


def test_more_files_than_a_process_may_hold_open(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    noted = {}
    for number in range(96):
        labels = np.full((2, 2, 2), 1 + number % 40, np.uint32)
        unit = (0, 0, number)
        one = partials(labels, [labels.astype(np.uint16)] * 2, (0, 0, 2 * number), number)
        noted |= save(folder, f"{number}.npy", [unit], [(unit, one)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        found = merged(folder, noted, 1, 99)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.shape["num_voxels"].sum() == 8 * 96
