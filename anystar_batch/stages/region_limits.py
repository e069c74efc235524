"""Intensity limits of a run that looks inside a region only: white is of the region.

Black stays the whole image's: a region may be all object, and have no background of its own. White
is the same percentile as ever, over the region's voxels alone: bright debris outside makes no
organoid dim.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import Box, as_zyx, grid_box, grid_shape, iter_grid
from anystar_batch.network.scale import LevelMap
from anystar_batch.stages.region import Region, region_lattice
from anystar_batch.stages.region_survey import Survey, survey_region
from anystar_batch.stages.sampling import limits_level

MOST_VOXELS = 8 * 10**6
"""About so many voxels are read of the image."""

EDGE = 256
"""Longest edge of a box that is read, voxels."""


def region_limits(
    reader: ImageReader,
    region: Region,
    place: LevelMap,
    volume: tuple[int, int],
    limits: tuple[float, float],
    percentile: float,
) -> tuple[float, float]:
    """Return the intensities that become 0 and 1.

    Parameters
    ----------
    reader : ImageReader
        The image.
    region : Region
        Placed.
    place : LevelMap
        Where the level lies that `sampling.limits_level` names.
    volume : (time, channel)
        Which volume.
    limits : (low, high)
        Those of the whole image.
    percentile : float
        Of the region's finite voxels, that becomes 1.

    Returns
    -------
    (low, high)
        Those of the whole image where the region shows nothing brighter than black.
    """
    time, channel = volume
    level = limits_level(reader.source)
    values = [np.empty(0, np.float64)]
    for box in limits_boxes(reader, region, place, volume):
        chosen = region_lattice(region, time, _coordinates(place, box))
        if chosen.any():
            seen = reader.read_box(level, time, channel, box)[chosen]
            values.append(seen[np.isfinite(seen)].astype(np.float64))
    together = np.concatenate(values)
    if not len(together):
        return limits
    white = float(np.percentile(together, percentile))
    return (limits[0], white) if white > limits[0] else limits


def limits_boxes(
    reader: ImageReader, region: Region, place: LevelMap, volume: tuple[int, int]
) -> list[Box]:
    """Return the boxes from which white comes, spread over all that meet the region.

    Parameters
    ----------
    reader : ImageReader
        The image.
    region : Region
        Placed.
    place : LevelMap
        As in `region_limits`.
    volume : (time, channel)

    Returns
    -------
    list of Box
        Voxels of the level.
    """
    time, channel = volume
    source, level = reader.source, limits_level(reader.source)
    shape, stored = source.shape_zyx(level), source.storage_zyx(level)
    step = as_zyx(min(n, EDGE) for n in stored)
    survey = survey_region(region, source, time)
    grid = survey.grid
    boxes = [grid_box(index, step, shape) for index in iter_grid(grid_shape(shape, step))]
    boxes = [box for box in boxes if _meets(region, survey, grid, place, box)]
    count = min(len(boxes), max(1, MOST_VOXELS // math.prod(step)))
    boxes = [boxes[k * len(boxes) // count] for k in range(count)]
    there = [as_zyx(a // s for a, s in zip(box.start, stored, strict=True)) for box in boxes]
    return [
        box
        for box, index in zip(boxes, there, strict=True)
        if reader.chunk_exists(level, time, channel, index)
    ]


def _meets(
    region: Region, survey: Survey, grid: NDArray[np.bool_], place: LevelMap, box: Box
) -> bool:
    """Whether a box of the level meets a cell that holds a voxel of the region."""
    spans = []
    for axis, values in enumerate(_coordinates(place, box)):
        ends = region.index(axis, values[[0, -1]]) // survey.cell[axis]
        # A point that lies a little beyond the region's face takes its outermost voxel.
        low, high = np.clip(ends + np.array([-1, 2]), 0, survey.shape[axis])
        spans.append(slice(int(low), int(high)))
    return bool(grid[tuple(spans)].any())


def _coordinates(place: LevelMap, box: Box) -> list[NDArray[np.float64]]:
    """Coordinates of a box's voxels in level 0, along z, y, x."""
    return [
        np.arange(a, b, dtype=np.float64) * step + offset
        for a, b, step, offset in zip(box.start, box.stop, place.step, place.offset, strict=True)
    ]
