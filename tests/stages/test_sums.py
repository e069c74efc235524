from __future__ import annotations

import numpy as np
import pytest

from anystar_batch.measure.partials import INTEGER, Partials, merge, partials
from anystar_batch.stages.workdir import PARTIALS, Sums, save_sums, sums_type

UNITS = ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))
CHANNELS = 2


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


def entries(folder, painted):
    """Two tasks of two units each."""
    return save_sums(folder, "a.npy", UNITS[:2], painted[:2]) | save_sums(
        folder, "b.npy", UNITS[2:], painted[2:]
    )


def merged(rows):
    empty = np.zeros(0, sums_type(INTEGER, CHANNELS))
    return merge([Partials(r["shape"], r["intensity"]) for r in (empty, *rows)])


def assert_equal(found, expected):
    assert found.shape.tobytes() == expected.shape.tobytes()
    assert found.intensity.tobytes() == expected.intensity.tobytes()


@pytest.mark.parametrize("step", [1, 3, 7, 100])
def test_windows_of_labels_are_the_whole(folder, painted, step):
    measured = Sums(folder, entries(folder, painted))
    whole = merge([part for _, part in painted])
    assert measured.last == whole.shape["label"].max()
    found = [merged(measured.between(at, at + step)) for at in range(1, 40, step)]
    together = [
        np.concatenate([getattr(f, name) for f in found]) for name in ("shape", "intensity")
    ]
    assert_equal(type(whole)(*together), whole)


def test_windows_may_come_in_any_order(folder, painted):
    measured = Sums(folder, entries(folder, painted))
    late, early = merged(measured.between(30, 99)), merged(measured.between(1, 30))
    again = Sums(folder, entries(folder, painted))
    assert_equal(merged(again.between(1, 30)), early)
    assert_equal(merged(again.between(30, 99)), late)


def test_units_that_the_ledger_does_not_know_are_left_out(folder, painted):
    noted = entries(folder, painted)
    del noted[UNITS[1]]
    found = merged(Sums(folder, noted).between(1, 99))
    assert_equal(found, merge([part for unit, part in painted if unit != UNITS[1]]))


def test_a_task_without_labels_writes_no_file(folder):
    none = partials(
        np.zeros((8, 8, 8), np.uint32), [np.zeros((8, 8, 8), np.uint16)] * 2, (0,) * 3, 0
    )
    noted = save_sums(folder, "a.npy", UNITS[:1], [(UNITS[0], none)])
    assert noted == {UNITS[0]: {"file": "", "unit": 0, "first": 0, "last": 0}}
    assert not list((folder / PARTIALS).iterdir())
    measured = Sums(folder, noted)
    assert measured.last == 0
    assert measured.between(1, 9) == []


def test_a_unit_without_labels_beside_one_with(folder, painted):
    noted = save_sums(folder, "a.npy", UNITS[:2], painted[1:2])
    assert noted[UNITS[0]]["file"] == ""
    assert noted[UNITS[1]]["file"] == "a.npy"
    assert noted[UNITS[1]]["unit"] == 1
    assert_equal(merged(Sums(folder, noted).between(1, 99)), merge([painted[1][1]]))
