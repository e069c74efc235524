"""Which boxes meet a box: cells sorted along x, one lattice of cells per size class.

A box of extent up to 2**l belongs to level l, to the cell (of 2**l voxels) of its low corner. So it
reaches into the next cell at most, and a query looks at its own range of cells plus one more below,
on each level. One large outlier costs its own level only. The boxes of a row of cells lie side by
side in memory::

    level l:   row (z, y)  | cell x0 | cell x0 + 1 | ... | cell x1 |   one run of `boxes`

Where a row begins is looked up in a table, or searched for where the cells are too many for one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.jit import inlined, kernel, leaf

LEVELS = 40

SMALLEST = 2
"""Level of the smallest boxes: cells of four voxels."""

CELLS_PER_BOX = 8
"""Cells that a level's table may have for each box of a whole grid; beyond, rows are searched."""


class Grid(NamedTuple):
    """All boxes, sorted by level and cell.

    Parameters
    ----------
    members : int64 [n]
        Index of each box.
    boxes : int64 [n, 6]
        Low and high corner of each, half-open, voxels.
    keys : int64 [n]
        Cell of each within its level, z slowest.
    first : int64 [LEVELS + 1]
        Where each level begins in the arrays above.
    origin, counts : int64 [LEVELS, 3]
        First cell and number of cells of each level, (z, y, x).
    table : int64 [k]
        For levels that have one: where each cell begins, and after the last one where it ends.
    table_at : int64 [LEVELS]
        Where a level's part of the table begins; -1 without one.
    """

    members: NDArray[np.int64]
    boxes: NDArray[np.int64]
    keys: NDArray[np.int64]
    first: NDArray[np.int64]
    origin: NDArray[np.int64]
    counts: NDArray[np.int64]
    table: NDArray[np.int64]
    table_at: NDArray[np.int64]


def make_grid(low: NDArray[np.int64], high: NDArray[np.int64]) -> Grid:
    """Return a grid that holds boxes.

    Parameters
    ----------
    low, high : int64 [n, 3]
        Half-open, voxels.

    Returns
    -------
    Grid
    """
    n = len(low)
    extent = np.maximum((high - low).max(axis=1, initial=1), 1)
    # frexp is exact: 2**(l-1) <= extent - 1 < 2**l is what a box of level l says.
    levels = np.maximum(np.frexp((extent - 1).astype(np.float64))[1], SMALLEST)
    origin, counts = np.zeros((LEVELS, 3), np.int64), np.zeros((LEVELS, 3), np.int64)
    first = np.zeros(LEVELS + 1, np.int64)
    np.cumsum(np.bincount(levels, minlength=LEVELS), out=first[1:])
    members, keys = np.empty(n, np.int64), np.empty(n, np.int64)
    tables, table_at, used = [np.empty(0, np.int64)], np.full(LEVELS, -1, np.int64), 0
    for level in np.flatnonzero(np.diff(first)):
        mine = np.flatnonzero(levels == level)
        cells = low[mine] >> level
        origin[level] = cells.min(axis=0)
        cells -= origin[level]
        counts[level] = rows = cells.max(axis=0) + 1
        key = (cells[:, 0] * rows[1] + cells[:, 1]) * rows[2] + cells[:, 2]
        order = np.argsort(key, kind="stable")
        here = slice(first[level], first[level + 1])
        members[here], keys[here] = mine[order], key[order]
        size = int(rows[0]) * int(rows[1]) * int(rows[2])
        if size <= CELLS_PER_BOX * n:
            begins = np.zeros(size + 1, np.int64)
            np.cumsum(np.bincount(key, minlength=size), out=begins[1:])
            tables.append(begins + first[level])
            table_at[level], used = used, used + size + 1
    boxes = np.concatenate([low[members], high[members]], axis=1)
    return Grid(members, boxes, keys, first, origin, counts, np.concatenate(tables), table_at)


@leaf
def _search(keys: NDArray[np.int64], first: int, last: int, key: int) -> int:
    """Return the first place in [first, last) whose key is not smaller; `last` without any."""
    while first < last:
        middle = (first + last) >> 1
        if keys[middle] < key:
            first = middle + 1
        else:
            last = middle
    return first


@leaf
def _run(grid: Grid, level: int, key: int, last: int) -> tuple[int, int]:
    """Return where the boxes of the cells [key, last] of a level lie."""
    at = grid.table_at[level]
    if at >= 0:
        return grid.table[at + key], grid.table[at + last + 1]
    begin, end = grid.first[level], grid.first[level + 1]
    begin = _search(grid.keys, begin, end, key)
    return begin, _search(grid.keys, begin, end, last + 1)


@leaf
def _collect(
    grid: Grid,
    run: tuple[int, int],
    box: tuple[int, int, int, int, int, int],
    neighbours: NDArray[np.int64],
    count: int,
) -> int:
    """Append who of a run meets a box, while there is room; return how many there are.

    The last place is written to by those who do not meet: there is room for one less.
    """
    boxes = grid.boxes
    last = len(neighbours) - 1
    for k in range(np.uint64(run[0]), np.uint64(run[1])):
        # No branch: who meets cannot be foretold.
        meets = (boxes[k, 0] < box[3]) & (box[0] < boxes[k, 3])
        meets &= (boxes[k, 1] < box[4]) & (box[1] < boxes[k, 4])
        meets &= (boxes[k, 2] < box[5]) & (box[2] < boxes[k, 5])
        neighbours[np.uint64(min(count, last))] = grid.members[k]
        count += int(meets)
    return count


@inlined
def _cells(low: int, high: int, level: int, origin: int, count: int) -> tuple[int, int]:
    """First and last cell of one axis whose boxes may meet [low, high)."""
    first = ((low - (1 << level) + 1) >> level) - origin
    return max(first, 0), min(((high - 1) >> level) - origin, count - 1)


@leaf
def fill(
    grid: Grid,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    j: int,
    neighbours: NDArray[np.int64],
) -> int:
    """List the boxes that meet box j; return how many there are.

    All are listed if they are fewer than the places of `neighbours`.
    """
    count = 0
    box = low[j, 0], low[j, 1], low[j, 2], high[j, 0], high[j, 1], high[j, 2]
    origin, counts = grid.origin, grid.counts
    for level in range(SMALLEST, LEVELS):
        begin, end = grid.first[level], grid.first[level + 1]
        if begin == end:
            continue
        z0, z1 = _cells(box[0], box[3], level, origin[level, 0], counts[level, 0])
        y0, y1 = _cells(box[1], box[4], level, origin[level, 1], counts[level, 1])
        x0, x1 = _cells(box[2], box[5], level, origin[level, 2], counts[level, 2])
        if z1 < z0 or y1 < y0 or x1 < x0:
            continue
        if (z1 - z0 + 1) * (y1 - y0 + 1) >= end - begin:
            count = _collect(grid, (begin, end), box, neighbours, count)
            continue
        for z in range(z0, z1 + 1):
            for y in range(y0, y1 + 1):
                row = (z * counts[level, 1] + y) * counts[level, 2]
                run = _run(grid, level, row + x0, row + x1)
                count = _collect(grid, run, box, neighbours, count)
    return count


@kernel
def query(
    grid: Grid,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    j: int,
    neighbours: NDArray[np.int64],
) -> tuple[NDArray[np.int64], int]:
    """List the boxes that meet box j, itself too: the list (perhaps a longer one) and its length.

    `low`, `high` int64 [n, 3] are the boxes of which the grid was made.
    """
    count = fill(grid, low, high, j, neighbours)
    if count >= len(neighbours):
        neighbours = np.empty(2 * count, np.int64)
        count = fill(grid, low, high, j, neighbours)
    return neighbours, count
