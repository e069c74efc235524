"""Where a region has voxels, on a lattice of cells: which tiles are wanted, and which candidates.

The region is read once, piece by piece; what is kept is one bit a cell. Cells are voxels of the
region, or some of them where there would be more than `MOST_CELLS`.

An object belongs to a region if its point lies there. Its rivals for that are all candidates
nearby, in the region or not: else an object just outside would be found again, by a lesser point
inside.
So a candidate counts if its cell is *near* the region: within `reach` of a cell with region in it.
What is farther away does not exist, and a tile without a near cell is not looked at::

    . . . n n n n n n n . . .      n  near: candidates count, and suppress each other
    . . . n # # # # n n . . .      #  region: instances have their points here
    . . . n n n n n n n . . .      .  nothing is looked at

All of it is a function of region, image and options: of no tile, and no block.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.errors import ImageError
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx, grid_box, grid_range, grid_shape
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region import Region, extent, piece_step, region_numbers

MOST_CELLS = 1 << 21
"""Cells of a survey: bounds the memory, a quarter of a megabyte a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Where a region has voxels, at one time.

    Parameters
    ----------
    cell : (z, y, x)
        A cell, voxels of the region.
    shape : (z, y, x)
        Cells.
    packed : uint8 [n]
        Bits of the cells that hold a voxel of it; see `grid`.
    voxels : int
        Voxels of the region in the image.
    present : tuple of int
        Which of the region's ranges of numbers are there, by index; empty where none were named.
    """

    cell: ZYX
    shape: ZYX
    packed: NDArray[np.uint8]
    voxels: int
    present: tuple[int, ...]

    @property
    def grid(self) -> NDArray[np.bool_]:
        """Cells that hold a voxel of the region, bool (z, y, x)."""
        bits = np.unpackbits(self.packed, count=math.prod(self.shape))
        return bits.reshape(self.shape).view(np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Which cells of a box of them are near a region; all others are not.

    Parameters
    ----------
    near : bool (z, y, x)
    first : (z, y, x)
        Index of the first one, on the survey's lattice; may be negative.
    cell : (z, y, x)
        A cell, voxels of the region.
    """

    near: NDArray[np.bool_]
    first: ZYX
    cell: ZYX


def survey_region(region: Region, image: ImageSource, time: int) -> Survey:
    """Return where a region has voxels that lie in the image.

    Parameters
    ----------
    region : Region
        Placed.
    image : ImageSource
    time : int
        Of the image.

    Raises
    ------
    ImageError
        If it holds a number below 0.
    DataError
        If a stored chunk cannot be decoded.
    """
    return _surveyed(region, extent(region, image), region.time(time))


@lru_cache(maxsize=512)
def _surveyed(region: Region, box: Box, time: int) -> Survey:
    """The survey of a box of a region, kept."""
    reader = ImageReader(region.source)
    shape = region.source.shape_zyx(0)
    cell = _cell(shape)
    grid = np.zeros(grid_shape(shape, cell), np.bool_)
    voxels, present = 0, set[int]()
    for piece in _pieces(reader, time, box):
        values = reader.read_box(0, time, 0, piece)
        if values.dtype.kind == "i" or values.dtype.itemsize == 8:
            _check_positive(region, values)
        chosen = region.selects(values)
        count = int(np.count_nonzero(chosen))
        if not count:
            continue
        voxels += count
        found = np.unique(values[chosen]) if len(present) < len(region.ids) else np.empty(0)
        for k, (first, last) in enumerate(region.ids):
            if ((found >= first) & (found <= last)).any():
                present.add(k)
        places = []
        for axis, (a, b, edge) in enumerate(zip(piece.start, piece.stop, cell, strict=True)):
            starts = np.arange(a // edge, (b - 1) // edge + 1)
            cuts = np.maximum(starts * edge, a) - a
            chosen = np.logical_or.reduceat(chosen, cuts, axis=axis)
            places.append(slice(int(starts[0]), int(starts[-1]) + 1))
        grid[tuple(places)] |= chosen
    return Survey(cell, as_zyx(grid.shape), np.packbits(grid), voxels, tuple(sorted(present)))


def some_numbers(
    region: Region, image: ImageSource, times: tuple[int, ...], most: int
) -> list[int]:
    """Return some of the numbers that are there, whether they count or not; sorted.

    Parameters
    ----------
    region : Region
        Placed.
    image : ImageSource
    times : tuple of int
        Of the image.
    most : int
        With so many nobody looks further.
    """
    reader, box, numbers = ImageReader(region.source), extent(region, image), set[int]()
    for time in sorted({region.time(time) for time in times}):
        for piece in _pieces(reader, time, box):
            numbers.update(np.unique(reader.read_box(0, time, 0, piece)).tolist())
            numbers.discard(0)
            if len(numbers) >= most:
                return sorted(numbers)[:most]
    return sorted(numbers)


def _check_positive(region: Region, values: NDArray[Any]) -> None:
    least = int(values.astype(np.int64).min())
    if least < 0:
        message = (
            f"--inside {region.name}: found the number {least}; expected 0 outside and positive "
            "numbers inside"
        )
        raise ImageError(message)


def _cell(shape: ZYX) -> ZYX:
    """Voxels of a cell: one, doubled along the axis with most cells until there are few enough."""
    cell = [1, 1, 1]
    while math.prod(counts := grid_shape(shape, as_zyx(cell))) > MOST_CELLS:
        cell[counts.index(max(counts))] *= 2
    return as_zyx(cell)


def _pieces(reader: ImageReader, time: int, box: Box) -> Iterator[Box]:
    """Boxes of a region that together are what of a box may not be 0, each small enough to read."""
    source = reader.source
    shape, step = source.shape_zyx(0), piece_step(source)
    if reader.fill_value(0):
        boxes: Iterator[Box] = iter([box])
    else:
        boxes = (stored for _, stored in reader.existing_chunks(0, time, 0))
    done: set[ZYX] = set()
    for stored in boxes:
        for index in grid_range(stored.intersect(box), step, grid_shape(shape, step)):
            # A piece may hold several stored objects.
            if index not in done:
                done.add(index)
                yield grid_box(index, step, shape).intersect(box)


def reach(plan: Plan) -> int:
    """Return within what distance of a region candidates count, working voxels.

    It is a typical object's diameter at the coarsest scale: whoever has a point in the region has
    its best one nearer than that, unless it is twice as large.
    """
    size = plan.model.max_radius if plan.model.diameter is None else plan.model.diameter
    return math.ceil(size * max(view.step for view in plan.views))


def near_cells(plan: Plan, time: int) -> Cells:
    """Return which cells are near the plan's region.

    Parameters
    ----------
    plan : Plan
        With a region.
    time : int
        Of the image.
    """
    return _near_cells(plan, _region(plan).time(time))


@lru_cache(maxsize=4)
def _near_cells(plan: Plan, time: int) -> Cells:
    region = _region(plan)
    survey = survey_region(region, plan.source, time)
    steps = zip(plan.lattice.scale, region.scale, survey.cell, strict=True)
    margin = as_zyx(max(1, math.ceil(reach(plan) * a * b / edge)) for a, b, edge in steps)
    near = np.pad(survey.grid, [(m, m) for m in margin])
    for axis, m in enumerate(margin):
        lines = np.moveaxis(near, axis, 0)
        sums = np.cumsum(np.pad(lines, [(m + 1, m), (0, 0), (0, 0)]), axis=0, dtype=np.int32)
        near = np.moveaxis(sums[2 * m + 1 :] > sums[: -(2 * m + 1)], 0, axis)
    return Cells(near, as_zyx(-m for m in margin), survey.cell)


def block_cells(plan: Plan, time: int, box: Box) -> Cells:
    """Return the same of what a box of working voxels meets: it travels to a worker.

    Parameters
    ----------
    plan : Plan
        With a region.
    time : int
    box : Box
        Working voxels.
    """
    cells = near_cells(plan, time)
    spans = [
        _cell_range(plan, cells, axis, np.array([a]), np.array([b]))
        for axis, (a, b) in enumerate(zip(box.start, box.stop, strict=True))
    ]
    low = as_zyx(first[0] for first, _ in spans)
    part = Box(low, as_zyx(last[0] for _, last in spans))
    first = as_zyx(a + b for a, b in zip(cells.first, low, strict=True))
    return Cells(np.ascontiguousarray(cells.near[part.slices]), first, cells.cell)


def are_near(plan: Plan, cells: Cells, points: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which candidates count.

    Parameters
    ----------
    plan : Plan
        With a region.
    cells : Cells
        Around them.
    points : int32 [n, 3]
        Working voxels, (z, y, x).
    """
    at = np.empty(points.shape, np.int64)
    for axis in range(3):
        index = _region(plan).index(axis, level0_axis(plan, axis, points[:, axis]))
        at[:, axis] = index // cells.cell[axis] - cells.first[axis]
    known = ((at >= 0) & (at < cells.near.shape)).all(axis=1)
    near = np.zeros(len(points), np.bool_)
    near[known] = cells.near[tuple(at[known].T)]
    return near


def wanted_tiles(plan: Plan, time: int) -> NDArray[np.bool_]:
    """Return which tiles may hold candidates that count: all others are not looked at.

    Parameters
    ----------
    plan : Plan
    time : int
        Of the image.

    Returns
    -------
    bool (z, y, x)
        By index of the tile; all, where the plan has no region.
    """
    if plan.region is None:
        return np.ones(plan.tiles.counts, np.bool_)
    return _wanted_tiles(plan, plan.region.time(time))


@lru_cache(maxsize=256)
def _wanted_tiles(plan: Plan, time: int) -> NDArray[np.bool_]:
    cells = near_cells(plan, time)
    sums = np.zeros(as_zyx(n + 1 for n in cells.near.shape), np.int64)
    sums[1:, 1:, 1:] = cells.near
    for axis in range(3):
        np.cumsum(sums, axis=axis, out=sums)
    spans = []
    for axis, (count, core) in enumerate(zip(plan.tiles.counts, plan.tiles.core, strict=True)):
        start = np.arange(count) * core
        stop = np.minimum(start + core, plan.working.shape[axis])
        spans.append(_cell_range(plan, cells, axis, start, stop))
    total = np.zeros(plan.tiles.counts, np.int64)
    for corner in itertools.product((0, 1), repeat=3):
        sign = (-1) ** (3 - sum(corner))
        total += sign * sums[np.ix_(*(span[k] for span, k in zip(spans, corner, strict=True)))]
    wanted: NDArray[np.bool_] = total > 0
    return wanted


def _cell_range(
    plan: Plan, cells: Cells, axis: int, start: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First cells, and the ones after the last, that spans of working voxels meet; as indices."""
    length = cells.near.shape[axis]
    ends = []
    for at, further in ((start, 0), (stop - 1, 1)):
        index = _region(plan).index(axis, level0_axis(plan, axis, at))
        ends.append(index // cells.cell[axis] - cells.first[axis] + further)
    return np.clip(ends[0], 0, length), np.clip(ends[1], 0, length)


def is_wanted(plan: Plan, time: int, tile: ZYX) -> bool:
    """Return whether a tile is looked at; see `wanted_tiles`."""
    return plan.region is None or bool(wanted_tiles(plan, time)[tile])


def level0_axis(plan: Plan, axis: int, points: NDArray[Any]) -> NDArray[np.float64]:
    """Return coordinates of working voxels along an axis in level 0, float64 [n]."""
    lattice = plan.lattice
    return points.astype(np.float64) * lattice.scale[axis] + lattice.offset[axis]


def region_at(plan: Plan, time: int, points: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return in which region points lie.

    Parameters
    ----------
    plan : Plan
        With a region.
    time : int
        Of the image.
    points : int32 [n, 3]
        Working voxels, (z, y, x).

    Returns
    -------
    int64 [n]
        Number of the region; 0 outside.
    """
    axes = [level0_axis(plan, axis, points[:, axis]) for axis in range(3)]
    return region_numbers(_region(plan), time, np.stack(axes, axis=1))


def inside_region(plan: Plan, time: int, points: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which points lie in the plan's region; all, where it has none. As `region_at`."""
    if plan.region is None:
        return np.ones(len(points), np.bool_)
    return region_at(plan, time, points) > 0


def share(region: Region, image: ImageSource, times: tuple[int, ...]) -> float:
    """Return how much of the image lies in a region at some times, 0 to 1."""
    voxel: ZYXFloat = region.scale
    inside = sum(survey_region(region, image, time).voxels for time in times)
    whole = math.prod(image.shape_zyx(0)) * math.prod(voxel) * len(times)
    return min(1.0, inside / whole)


def _region(plan: Plan) -> Region:
    if plan.region is None:
        message = "the plan has no region"
        raise ValueError(message)
    return plan.region
