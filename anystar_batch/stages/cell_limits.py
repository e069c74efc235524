"""Read the cells of a volume for limits that follow it: once, before work, in bounded memory.

The coarsest level that still shows an object is read, in groups of cells, so that a stored chunk is
decoded few times. Of a very large level only the middle of every cell is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.geometry import (
    ZYX,
    Box,
    ZYXFloat,
    as_zyx,
    grid_box,
    grid_range,
    grid_shape,
    iter_grid,
)
from anystar_batch.network.limits_grid import (
    BOXES,
    Cell,
    LimitsGrid,
    box_means,
    cell_counts,
    make_grid,
    measure_cell,
)

ACROSS = 3.0
"""Voxels across a diameter on every axis of the level that is read, where level 0 has as many."""

MOST_VOXELS = 512 * 10**6
"""Voxels that are read of a volume, about."""

TOGETHER = 256
"""Edge of a group of cells that is read at once, voxels of the level."""

SLAB_VOXELS = 16 * 10**6
"""Voxels of a large cell that are read at once, about; at least the planes of one box."""


def cell_limits(
    reader: ImageReader,
    time: int,
    channel: int,
    limits: tuple[float, float],
    diameter_um: float,
    scale_um: ZYXFloat,
) -> LimitsGrid | None:
    """Return the limits that follow one volume.

    Parameters
    ----------
    reader : ImageReader
        The image.
    time, channel : int
        Which volume.
    limits : (low, high)
        Of the whole volume, see `sampling.intensity_limits`.
    diameter_um : float
        Of the objects, micrometres.
    scale_um : (z, y, x)
        Level-0 voxel size, micrometres; `--voxel-size` applied.

    Returns
    -------
    LimitsGrid or None
        None where the limits of the whole hold everywhere.
    """
    source = reader.source
    level = grid_level(source, diameter_um, scale_um)
    counts = cell_counts(source.shape_zyx(0), scale_um, diameter_um, source.num_times)
    sizes = _level_scale(source, level, scale_um)
    box = as_zyx(max(1, round(diameter_um / s / BOXES)) for s in sizes)
    read = partial(_read_stored, reader, level, time, channel)
    by_index: dict[ZYX, Cell] = {}
    for group, cells in cell_boxes(source, level, counts):
        voxels = read(group) if len(cells) > 1 else None
        for index, cell in cells:
            if voxels is None:
                means = _means(read, cell, box)
            else:
                means = box_means(voxels[cell.relative_to(group.start).slices], box)
            by_index[index] = measure_cell(means)
    ordered = [by_index[index] for index in iter_grid(counts)]
    return make_grid(source.shape_zyx(0), counts, ordered, limits)


def grid_level(source: ImageSource, diameter_um: float, scale_um: ZYXFloat) -> int:
    """Return the level whose cells are measured: the coarsest readable one that shows objects.

    Parameters
    ----------
    source : ImageSource
    diameter_um : float
        Of the objects, micrometres.
    scale_um : (z, y, x)
        Level-0 voxel size, micrometres.
    """
    finest = _level_scale(source, source.readable[0], scale_um)
    chosen = source.readable[0]
    for level in source.readable:
        sizes = _level_scale(source, level, scale_um)
        pairs = zip(sizes, finest, strict=True)
        if all(s * ACROSS <= diameter_um or s <= f * 1.001 for s, f in pairs):
            chosen = max(chosen, level)
    return chosen


def cell_boxes(
    source: ImageSource, level: int, counts: ZYX
) -> Iterator[tuple[Box, list[tuple[ZYX, Box]]]]:
    """Yield what is read together, and the cells in it.

    Parameters
    ----------
    source : ImageSource
    level : int
    counts : (z, y, x)
        Number of cells.

    Yields
    ------
    Box
        Voxels of the level.
    list of (index, Box)
        Index of each cell, and the voxels of the level that are measured of it.
    """
    shape = source.shape_zyx(level)
    share = min(1.0, (MOST_VOXELS / math.prod(map(float, shape))) ** (1 / 3))
    together = [
        1 if share < 1.0 else max(1, TOGETHER * count // n)
        for n, count in zip(shape, counts, strict=True)
    ]
    groups = as_zyx(-(-count // k) for count, k in zip(counts, together, strict=True))
    for group in iter_grid(groups):
        first = [g * k for g, k in zip(group, together, strict=True)]
        number = as_zyx(min(k, c - f) for k, c, f in zip(together, counts, first, strict=True))
        cells: list[tuple[ZYX, Box]] = []
        for inner in iter_grid(number):
            index = as_zyx(f + i for f, i in zip(first, inner, strict=True))
            cells.append((index, _cell_box(index, counts, shape, share)))
        start = as_zyx(min(box.start[k] for _, box in cells) for k in range(3))
        stop = as_zyx(max(box.stop[k] for _, box in cells) for k in range(3))
        yield Box(start, stop), cells


def _read_stored(
    reader: ImageReader, level: int, time: int, channel: int, box: Box
) -> NDArray[np.number]:
    """The voxels of a box; NaN where no chunk is stored, which is background and tells nothing."""
    shape, step = reader.source.shape_zyx(level), reader.source.storage_zyx(level)
    missing = [
        grid_box(index, step, shape).intersect(box)
        for index in grid_range(box, step, grid_shape(shape, step))
        if not reader.chunk_exists(level, time, channel, index)
    ]
    if sum(part.size for part in missing) == box.size:
        return np.full(box.shape, np.nan)
    voxels = reader.read_box(level, time, channel, box)
    if missing:
        voxels = voxels.astype(np.float64)
        for part in missing:
            voxels[part.relative_to(box.start).slices] = np.nan
    return voxels


def _means(read: Callable[[Box], NDArray[np.number]], cell: Box, box: ZYX) -> NDArray[np.float64]:
    """As `box_means` of a cell, read in slabs of whole boxes."""
    edge = min(box[0], cell.shape[0])
    boxes = max(1, SLAB_VOXELS // (edge * cell.shape[1] * cell.shape[2]))
    count = cell.shape[0] // edge
    slabs: list[NDArray[np.float64]] = []
    for first in range(0, count, boxes):
        start = cell.start[0] + first * edge
        stop = cell.start[0] + min(count, first + boxes) * edge
        part = Box((start, *cell.start[1:]), (stop, *cell.stop[1:]))
        slabs.append(box_means(read(part), (edge, *box[1:])))
    return np.concatenate(slabs)


def _cell_box(index: ZYX, counts: ZYX, shape: ZYX, share: float) -> Box:
    """The middle of a cell, voxels of the level; at least one."""
    start, stop = [], []
    for i, count, n in zip(index, counts, shape, strict=True):
        low = min(i * n // count, n - 1)
        high = max(low + 1, (i + 1) * n // count)
        edge = max(1, int((high - low) * share))
        first = low + (high - low - edge) // 2
        start.append(first)
        stop.append(first + edge)
    return Box(as_zyx(start), as_zyx(stop))


def _level_scale(source: ImageSource, level: int, scale_um: ZYXFloat) -> ZYXFloat:
    """Voxel size of a level, in proportion to that of level 0."""
    z, y, x = (
        s * a / b
        for s, a, b in zip(scale_um, source.scale_um(level), source.scale_um(0), strict=True)
    )
    return z, y, x
