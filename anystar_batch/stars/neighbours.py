"""Which boxes meet a box: a hash grid with one level per size class.

A box of extent up to 2**l is entered once, at level l, in the cell (of 2**l voxels) of its low
corner. Then it reaches into the next cell at most, and a query looks at its own range of cells plus
one more below, on each level. One large outlier costs its own level only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.kernel import inlined, kernel, leaf

LEVELS = 40


class Grid(NamedTuple):
    """Linked lists in arrays; -1 ends a list.

    Parameters
    ----------
    heads : int64 [buckets]
        First box of each bucket. Cells share buckets; whoever walks one compares cells.
    following : int64 [n]
        Next box of the bucket.
    level : int64 [n]
        Size class of each box entered.
    level_heads, level_following : int64 [LEVELS], [n]
        The same boxes by level alone, for queries larger than a level is worth.
    level_count : int64 [LEVELS]
        Boxes on each level.
    """

    heads: NDArray[np.int64]
    following: NDArray[np.int64]
    level: NDArray[np.int64]
    level_heads: NDArray[np.int64]
    level_following: NDArray[np.int64]
    level_count: NDArray[np.int64]


def make_grid(n: int) -> Grid:
    """Return an empty grid.

    Parameters
    ----------
    n : int
        Boxes that may be entered.

    Returns
    -------
    Grid
    """
    buckets = 1 << max(4, int(n).bit_length())
    none = np.full(n, -1, np.int64)
    return Grid(
        np.full(buckets, -1, np.int64),
        none,
        none.copy(),
        np.full(LEVELS, -1, np.int64),
        none.copy(),
        np.zeros(LEVELS, np.int64),
    )


@inlined
def _bucket(level: int, z: int, y: int, x: int, buckets: int) -> int:
    """Bucket of a cell; `buckets` is a power of two. Eight cells along x share a cache line."""
    mixed = (z * 73856093) ^ (y * 19349663) ^ ((x >> 3) * 83492791) ^ (level * 15485863)
    return (((mixed ^ (mixed >> 17)) << 3) | (x & 7)) & (buckets - 1)


@leaf
def insert(grid: Grid, low: NDArray[np.int64], high: NDArray[np.int64], i: int) -> None:
    """Enter box i; `low`, `high` int64 [n, 3] are all boxes, half-open."""
    extent = max(high[i, 0] - low[i, 0], high[i, 1] - low[i, 1], high[i, 2] - low[i, 2])
    level = 2
    while (1 << level) < extent:
        level += 1
    b = _bucket(level, low[i, 0] >> level, low[i, 1] >> level, low[i, 2] >> level, len(grid.heads))
    grid.level[i] = level
    grid.following[i] = grid.heads[b]
    grid.heads[b] = i
    grid.level_following[i] = grid.level_heads[level]
    grid.level_heads[level] = i
    grid.level_count[level] += 1


@inlined
def _meet(low: NDArray[np.int64], high: NDArray[np.int64], i: int, j: int) -> bool:
    """Whether two boxes share a voxel."""
    meets = low[i, 0] < high[j, 0] and low[j, 0] < high[i, 0]
    meets = meets and low[i, 1] < high[j, 1] and low[j, 1] < high[i, 1]
    return bool(meets and low[i, 2] < high[j, 2] and low[j, 2] < high[i, 2])


@kernel
def _append(found: NDArray[np.int64], count: int, i: int) -> tuple[NDArray[np.int64], int]:
    """Append to a growing list."""
    if count == len(found):
        grown = np.empty(2 * count, np.int64)
        grown[:count] = found
        found = grown
    found[count] = i
    return found, count + 1


@kernel
def query(  # noqa: C901  (levels, cells, lists)
    grid: Grid,
    low: NDArray[np.int64],
    high: NDArray[np.int64],
    j: int,
    found: NDArray[np.int64],
) -> tuple[NDArray[np.int64], int]:
    """List the entered boxes that meet box j: the list (perhaps a longer one) and its length."""
    count = 0
    for level in range(LEVELS):
        if grid.level_count[level] == 0:
            continue
        size = 1 << level
        z0, z1 = (low[j, 0] - size + 1) >> level, (high[j, 0] - 1) >> level
        y0, y1 = (low[j, 1] - size + 1) >> level, (high[j, 1] - 1) >> level
        x0, x1 = (low[j, 2] - size + 1) >> level, (high[j, 2] - 1) >> level
        if (z1 - z0 + 1) * (y1 - y0 + 1) * (x1 - x0 + 1) >= grid.level_count[level]:
            i = grid.level_heads[level]
            while i >= 0:
                if _meet(low, high, i, j):
                    found, count = _append(found, count, i)
                i = grid.level_following[i]
            continue
        for z in range(z0, z1 + 1):
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    i = grid.heads[_bucket(level, z, y, x, len(grid.heads))]
                    while i >= 0:
                        cell = low[i, 0] >> level, low[i, 1] >> level, low[i, 2] >> level
                        mine = grid.level[i] == level and cell == (z, y, x)
                        if mine and _meet(low, high, i, j):
                            found, count = _append(found, count, i)
                        i = grid.following[i]
    return found, count
