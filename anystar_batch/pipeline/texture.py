"""Where an image shows most: tiles with texture, for the probe, and for why nothing was found.

Texture is looked up on a coarse level. With a region only what lies inside counts.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.errors import ImageError
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx
from anystar_batch.network.imports import lean_imports
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region import region_lattice
from anystar_batch.stages.region_survey import level0_axis, survey_region, wanted_tiles

TILES = 2
"""Tiles of each trial scale."""

TILES_SEEN = 128
"""Most tiles an axis among which they are chosen."""

COARSE_VOXELS = 10**5
"""Texture is looked up on the coarsest level with at least so many voxels."""

COARSE_LIMIT = 64 * 10**6
"""Largest level on which texture is computed; of a larger one, the middle."""

MOST_VOXELS = 8 * COARSE_VOXELS
"""Of a level that is larger, means of cubes are looked at: about so many."""

TEXTURE_SIGMA = 2.0
"""Width of the Gaussian that texture is measured against, voxels of that level."""


Texture = tuple[NDArray[np.float32], Box, int]
"""Of each voxel of a coarse level, float32 (z, y, x); the box that it shows; the level."""

LATTICE = 64
"""Points an axis by which the part of a tile is told that lies in a region."""


def texture(
    reader: ImageReader, time: int, channel: int, middle: ZYXFloat = (0.5, 0.5, 0.5)
) -> Texture:
    """Return how much each voxel of a coarse level differs from its surroundings.

    Parameters
    ----------
    reader : ImageReader
        The image.
    time, channel : int
        Which volume.
    middle : (z, y, x)
        Around where to look in a level that is too large, in shares of the volume's edges.

    Returns
    -------
    float32 (z, y, x)
        Absolute difference from a Gaussian average, in the image's unit.
    Box
        What it shows, voxels of the level.
    int
        The level.
    """
    with lean_imports():  # seconds; a given diameter needs none of it
        import dask.array as da  # noqa: PLC0415
        import dask.threaded  # noqa: PLC0415
        from dask_image.ndfilters import gaussian_filter  # noqa: PLC0415
    source = reader.source
    sizes = {k: float(np.prod(source.shape_zyx(k), dtype=np.float64)) for k in source.readable}
    level = max((k for k, size in sizes.items() if size >= COARSE_VOXELS), default=0)
    shape = source.shape_zyx(level)
    shrink = min(1.0, (COARSE_LIMIT / sizes[level]) ** (1 / 3))
    edges = as_zyx(max(1, int(n * shrink)) for n in shape)
    start = as_zyx(
        min(max(0, math.floor(n * m - e / 2)), n - e)
        for n, e, m in zip(shape, edges, middle, strict=True)
    )
    box = Box(start, as_zyx(a + e for a, e in zip(start, edges, strict=True)))
    image = np.nan_to_num(reader.read_box(level, time, channel, box).astype(np.float32))
    # A large image without coarse levels shows as much in means of its voxels, in less time.
    step = max(1, int(np.cbrt(image.size / MOST_VOXELS)))
    image = _means(image, step)
    # Dask refuses an axis thinner than the filter reaches.
    reach = math.ceil(4 * TEXTURE_SIGMA)
    margin = as_zyx(reach if n < 2 * reach else 0 for n in image.shape)
    padded = np.pad(image, [(m, m) for m in margin], mode="symmetric")
    lazy = da.from_array(padded, chunks=128)  # type: ignore[no-untyped-call]
    difference = da.fabs(lazy - gaussian_filter(lazy, TEXTURE_SIGMA))
    # By a scheduler's name Dask would load `distributed`, to ask whether it is meant.
    values: NDArray[np.float32] = difference.compute(scheduler=dask.threaded.get).astype(np.float32)
    values = values[Box.of_shape(as_zyx(image.shape)).shift(margin).slices]
    for axis, length in enumerate(box.shape):
        at = np.arange(length) // step
        values = values if step == 1 else np.take(values, at, axis)
    return values, box, level


def _means(image: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Means of cubes of so many voxels an edge; at the end of an axis the last voxel goes on."""
    if step == 1:
        return image
    padded = np.pad(image, [(0, -n % step) for n in image.shape], mode="edge")
    z, y, x = (n // step for n in padded.shape)
    means: NDArray[np.float32] = padded.reshape(z, step, y, step, x, step).mean(axis=(1, 3, 5))
    return means


def texture_inside(plan: Plan, reader: ImageReader, time: int) -> Texture:
    """Return the texture around the middle of a plan's region, and only in there, if that is any.

    It is the same for all plans over one image, channel and region, whatever their scale.

    Parameters
    ----------
    plan : Plan
    reader : ImageReader
        The image.
    time : int
    """
    region, source = plan.region, plan.source
    if region is None:
        return texture(reader, time, plan.channel)
    survey = survey_region(region, source, time)
    filled = np.argwhere(survey.grid)
    middle = (0.5, 0.5, 0.5)
    if len(filled):
        cells = (filled.min(axis=0) + filled.max(axis=0) + 1) / 2 * survey.cell
        level0 = (cells - 0.5 - np.array(region.offset)) / region.scale
        z, y, x = ((level0 + 0.5) / source.shape_zyx(0)).tolist()
        middle = (z, y, x)
    sums, box, level = texture(reader, time, plan.channel, middle)
    shapes = zip(source.shape_zyx(0), source.shape_zyx(level), strict=True)
    axes = [
        (np.arange(a, b, dtype=np.float64) + 0.5) * (n / m) - 0.5
        for a, b, (n, m) in zip(box.start, box.stop, shapes, strict=True)
    ]
    chosen = region_lattice(region, time, axes)
    return (sums * chosen if chosen.any() else sums), box, level


def textured_tiles(
    plan: Plan, reader: ImageReader, time: int, seen_texture: Texture | None = None
) -> list[ZYX]:
    """Return the tiles with most texture, ties by position; of very many, from a lattice.

    With a region it is the texture within that counts, and only tiles near it are returned.

    Parameters
    ----------
    plan : Plan
    reader : ImageReader
        The image.
    time : int
    seen_texture : Texture, optional
        From `texture_inside`; None looks for it.

    Returns
    -------
    list of (z, y, x)
        At most `TILES`.

    Raises
    ------
    ImageError
        If the image has no voxels.
    """
    sums, box, level = seen_texture or texture_inside(plan, reader, time)
    level_shape, shape = reader.source.shape_zyx(level), plan.working.shape
    tiles: list[NDArray[np.int64]] = []
    for axis in range(3):
        count, core = plan.tiles.counts[axis], plan.tiles.core[axis]
        ratio = level_shape[axis] / shape[axis]
        low = int(box.start[axis] / (ratio * core))
        high = min(count, math.ceil(box.stop[axis] / (ratio * core)))
        index = np.arange(low, high, max(1, -(-(high - low) // TILES_SEEN)))
        first = (index * core * ratio).astype(np.int64)
        last = (np.minimum((index + 1) * core, shape[axis]) * ratio).astype(np.int64)
        last = np.clip(np.maximum(last, first + 1), None, box.stop[axis]) - box.start[axis]
        first = np.maximum(first - box.start[axis], 0)
        seen = last > first
        tiles.append(index[seen])
        # The sum, so that a sliver at the volume's end does not win.
        planes = np.moveaxis(sums, axis, 0)
        parts = [
            planes[a:b].sum(axis=0, dtype=np.float64)
            for a, b in zip(first[seen], last[seen], strict=True)
        ]
        if not parts:
            message = f"{plan.source.path}: the image has no voxels to probe"
            raise ImageError(message)
        sums = np.moveaxis(np.stack(parts), 0, axis)
    if plan.region is not None:
        sums = np.where(wanted_tiles(plan, time)[np.ix_(*tiles)], sums, -1.0)
    best = np.argsort(-sums, axis=None, kind="stable")[:TILES]
    best = best[sums.reshape(-1)[best] >= 0.0]
    picks = np.stack(np.unravel_index(best, sums.shape), axis=1)
    return [as_zyx(t[k] for t, k in zip(tiles, pick, strict=True)) for pick in picks]


def searched_voxels(plan: Plan, time: int, tile: ZYX) -> int:
    """Return how many working voxels of a tile lie in the plan's region; all, where it has none.

    It is told from a lattice of at most some `LATTICE` points an axis.

    Parameters
    ----------
    plan : Plan
    time : int
    tile : (z, y, x)
        Index of the tile.
    """
    box = plan.tiles.core_box(tile)
    if plan.region is None:
        return box.size
    steps = [max(1, n // LATTICE) for n in box.shape]
    axes = [
        level0_axis(plan, axis, np.arange(a, b, step))
        for axis, (a, b, step) in enumerate(zip(box.start, box.stop, steps, strict=True))
    ]
    found = region_lattice(plan.region, time, axes)
    return round(box.size * np.count_nonzero(found) / found.size)
