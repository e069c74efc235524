"""What is read of an image before it is planned: a bounded sample of voxels, always the same.

Intensity limits come from one coarse level, of a large one from a fixed lattice of its chunks.
Where a level's voxels lie is told from one textured crop, where the image does not say.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.errors import ImageError
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx, grid_box, grid_shape, iter_grid
from anystar_batch.network import intensity
from anystar_batch.network.model import Model
from anystar_batch.network.scale import LevelMap, choose_offset, level_map

LIMITS_MIN_VOXELS = 10**6
"""Intensity limits come from the coarsest level with at least so many voxels."""


LIMITS_MAX_VOXELS = 32 * 10**6
"""Where that level is larger, a fixed lattice of its chunks, about so many voxels, is read."""


CROP = 24
"""Edge of the crops that tell how an undeclared level was made, voxels of the level."""


FINE_CROP = 192
"""Most level-0 voxels along an edge of such a crop, as far as 4 voxels of the level allow."""


FEW_CHUNKS = 8
"""A lattice that meets fewer stored chunks says too little; all that is stored is listed then."""


def intensity_limits(
    reader: ImageReader, time: int, channel: int, percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the intensities of one time and channel that become 0 and 1, for the whole volume.

    Parameters
    ----------
    reader : ImageReader
        The image.
    time, channel : int
        Which volume.
    percentiles : (low, high)
        Percentiles over the finite voxels of existing chunks.

    Returns
    -------
    (low, high) or None
        None where all voxels are equal or none is finite: nothing can be found there.
    """
    level = limits_level(reader.source)
    boxes = _sample_boxes(reader, level, time, channel)
    if not boxes:
        return None
    values = np.concatenate([reader.read_box(level, time, channel, b).ravel() for b in boxes])
    try:
        return intensity.limits(values, *percentiles)
    except ImageError:
        return None


def all_limits(
    reader: ImageReader, model: Model, channel: int, times: tuple[int, ...]
) -> tuple[tuple[float, float] | None, ...]:
    """Return the intensity limits of every selected time.

    Raises
    ------
    ImageError
        If no selected time has any contrast.
    """
    percentiles = (model.low_percentile, model.high_percentile)
    limits = tuple(intensity_limits(reader, t, channel, percentiles) for t in times)
    if all(pair is None for pair in limits):
        name = reader.source.channels[channel]
        message = (
            f"{reader.source.path}: channel {name} is constant or empty at every selected time; "
            "expected an image with contrast; check --channel and --time"
        )
        raise ImageError(message)
    return limits


def reference_time(
    reader: ImageReader,
    model: Model,
    channel: int,
    limits: Mapping[int, tuple[float, float] | None],
    is_wanted: Callable[[int], bool] = lambda _: True,
) -> tuple[int, tuple[float, float]]:
    """Return the first time of the whole series with any contrast, and its intensity limits.

    What is decided once for a series (the probed scale, how a level was made) is decided there,
    whichever times are selected: a time gives the same instances alone as with the others.

    Parameters
    ----------
    reader : ImageReader
        The image.
    model : Model
    channel : int
        Channel that is segmented.
    limits : mapping of int to (low, high) or None
        Limits of the selected times; at least one has contrast.
    is_wanted : callable, optional
        Whether a time may be taken.

    Raises
    ------
    ImageError
        If no time that may be taken has any contrast.
    """
    percentiles = (model.low_percentile, model.high_percentile)
    for time in range(reader.source.num_times):
        pair = (
            limits[time] if time in limits else intensity_limits(reader, time, channel, percentiles)
        )
        if pair is not None and is_wanted(time):
            return time, pair
    message = f"{reader.source.path}: no time of the series has any contrast"
    raise ImageError(message)


def level_position(reader: ImageReader, level: int, time: int, channel: int) -> LevelMap:
    """Return where a level's voxels lie in level 0: declared, or told from a textured crop.

    Parameters
    ----------
    reader : ImageReader
        The image.
    level : int
        Level that will be read.
    time, channel : int
        Where to look for texture.
    """
    source = reader.source
    scale, finest = source.scale_um(level), source.scale_um(0)
    step = _divided(scale, finest)
    if level == 0:
        return level_map(step, None, None)
    if source.levels[level].has_translation:
        shift = [
            b - a
            for a, b in zip(source.translation_um(0), source.translation_um(level), strict=True)
        ]
        return level_map(step, _divided(shift, finest), None)
    crop = _textured_crop(reader, level, time, channel, step)
    start = as_zyx(round(a * s) for a, s in zip(crop.start, step, strict=True))
    stop = as_zyx(
        min(n, round(b * s)) for b, s, n in zip(crop.stop, step, source.shape_zyx(0), strict=True)
    )
    fine = reader.read_box(0, time, channel, Box(start, stop))
    coarse = reader.read_box(level, time, channel, crop)
    return level_map(step, None, *choose_offset(fine, coarse, crop.start, step))


def limits_level(source: ImageSource) -> int:
    """Return the coarsest readable level with at least `LIMITS_MIN_VOXELS`, or level 0."""
    sizes = {k: np.prod(source.shape_zyx(k), dtype=np.float64) for k in source.readable}
    return max((k for k, size in sizes.items() if size >= LIMITS_MIN_VOXELS), default=0)


def _sample_boxes(reader: ImageReader, level: int, time: int, channel: int) -> list[Box]:
    """Stored chunks to take the limits from: all, or of a large level a fixed lattice of them."""
    shape, step = reader.source.shape_zyx(level), reader.source.storage_zyx(level)
    counts = grid_shape(shape, step)
    most = max(1, LIMITS_MAX_VOXELS // _middle(Box.of_shape(step)).size)
    # An axis has at least n // stride - 1 picks: strides with too many by that are left out.
    stride = 1 + bisect_left(
        range(1, 2**32),
        True,
        key=lambda s: math.prod(max(1, n // s - 1) for n in counts) <= most,
    )
    while math.prod(len(axis) for axis in _every(counts, stride)) > most:
        stride += 1
    axes = _every(counts, stride)
    boxes = []
    for picks in iter_grid(as_zyx(len(axis) for axis in axes)):
        index = as_zyx(axis[i] for axis, i in zip(axes, picks, strict=True))
        if reader.chunk_exists(level, time, channel, index):
            boxes.append(_middle(grid_box(index, step, shape)))
    if stride > 1 and len(boxes) < FEW_CHUNKS:
        # A sparse volume that the lattice misses.
        stored = [box for _, box in reader.existing_chunks(level, time, channel)]
        count = min(len(stored), most)
        boxes = [_middle(stored[k * len(stored) // count]) for k in range(count)]
    return boxes


def _every(counts: ZYX, stride: int) -> tuple[range, range, range]:
    """Every `stride`-th chunk of each axis; of an axis with fewer, the middle one."""
    z, y, x = (range(min(stride, n) // 2, n, stride) for n in counts)
    return z, y, x


def _middle(box: Box) -> Box:
    """At most 256 voxels an axis of a huge chunk or shard, from its middle."""
    edge = 256
    start = as_zyx(a + max(0, (n - edge) // 2) for a, n in zip(box.start, box.shape, strict=True))
    stop = as_zyx(a + min(n, edge) for a, n in zip(start, box.shape, strict=True))
    return Box(start, stop)


def _textured_crop(reader: ImageReader, level: int, time: int, channel: int, step: ZYXFloat) -> Box:
    """The crop of a level with the largest variance, among up to 5 an axis on a fixed lattice."""
    shape = reader.source.shape_zyx(level)
    edge = as_zyx(
        min(n, max(4, min(CROP, int(FINE_CROP / s)))) for n, s in zip(shape, step, strict=True)
    )
    best, most = Box((0, 0, 0), edge), 0.0
    starts: list[list[int]] = [
        sorted({round(k * (n - e) / 4) for k in range(5)}) for n, e in zip(shape, edge, strict=True)
    ]
    lattice = (
        as_zyx(s[i] for s, i in zip(starts, index, strict=True))
        for index in iter_grid(as_zyx(len(s) for s in starts))
    )
    # Where the lattice sees nothing, as in a sparse volume, the first stored chunks.
    stored = (box.start for _, box in reader.existing_chunks(level, time, channel))
    for corners in (lattice, itertools.islice(stored, 64)):
        for corner in corners:
            start = as_zyx(min(a, n - e) for a, n, e in zip(corner, shape, edge, strict=True))
            box = Box(start, as_zyx(a + e for a, e in zip(start, edge, strict=True)))
            variance = _variance(reader.read_box(level, time, channel, box))
            if variance > most:
                best, most = box, variance
        if most > 0.0:
            break
    return best


def _variance(values: NDArray[np.number]) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(finite.var()) if finite.size else 0.0


def _divided(values: ZYXFloat | list[float], by: ZYXFloat) -> ZYXFloat:
    z, y, x = (v / b for v, b in zip(values, by, strict=True))
    return z, y, x
