"""Who meets whom: the same as comparing every pair, however boxes are spread."""

import numpy as np
import pytest

from anystar_batch.stars import neighbours
from anystar_batch.stars.neighbours import make_grid, query


def boxes(spread, extents, count=400, seed=5):
    rng = np.random.default_rng(seed)
    low = rng.integers(-spread, spread, (count, 3))
    return low, low + rng.choice(extents, (count, 3))


@pytest.mark.parametrize(
    ("spread", "extents", "has_table"),
    [
        (20, [1, 2, 3, 4], True),
        (30, [1, 4, 5, 8, 9, 16, 17, 33], True),
        (20, [0, 3], True),
        (60, [2, 3, 4, 200], True),
        (2**30, [5, 7], False),
        (2**20, [3, 2**20], False),
    ],
)
def test_every_box_that_meets_is_found_once(spread, extents, has_table):
    low, high = boxes(spread, extents)
    if not has_table:  # far apart, but for a cluster
        low[:100] %= 40
        high[:100] = low[:100] + 6
    grid = make_grid(low, high)
    used = grid.table_at[np.flatnonzero(np.diff(grid.first))]
    assert ((used >= 0) == has_table).any()
    found = np.empty(1, np.int64)  # grows
    for j in range(len(low)):
        found, count = query(grid, low, high, j, found)
        meets = ((low < high[j]) & (low[j] < high)).all(axis=1)
        assert sorted(found[:count]) == np.flatnonzero(meets).tolist()


def test_searched_rows_are_those_of_the_table(monkeypatch):
    low, high = boxes(25, [2, 3, 6, 8, 12])
    tabled = make_grid(low, high)
    monkeypatch.setattr(neighbours, "CELLS_PER_BOX", 0)
    searched = make_grid(low, high)
    assert (searched.table_at == -1).all()
    for j in range(len(low)):
        one, n = query(tabled, low, high, j, np.empty(64, np.int64))
        two, m = query(searched, low, high, j, np.empty(64, np.int64))
        assert one[:n].tolist() == two[:m].tolist()


def test_no_boxes_make_an_empty_grid():
    none = np.empty((0, 3), np.int64)
    assert len(make_grid(none, none).members) == 0
