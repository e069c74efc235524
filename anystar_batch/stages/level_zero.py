"""What is wrong with level 0 itself: told, never repaired.

A bounded sample is looked at: some chunks of a lattice (are they stored?) and, of floating-point
images, some columns along every axis (are there planes without a number?).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from anystar_batch.address import is_remote
from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import Box, as_zyx, grid_box, grid_shape, iter_grid

MISSING = 0.05
"""Share of missing chunks that is told."""

CHUNKS_SEEN, REMOTE_CHUNKS_SEEN = 6, 3
"""Most chunks an axis that are asked for."""

TIMES_SEEN = 3
"""Most times that are looked at."""

COLUMN = 8
"""Edge of a column, voxels."""

DECODED = 1 << 27
"""Voxels that may be decoded for the columns along an axis."""


def level_zero_faults(
    reader: ImageReader, channel: int, limits: Mapping[int, tuple[float, float] | None]
) -> list[str]:
    """Return what is wrong with level 0, one sentence each.

    Parameters
    ----------
    reader : ImageReader
        The image.
    channel : int
    limits : mapping of int to (low, high) or None
        Intensity limits of the times that are segmented; without any a time is not looked at.

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded, or the storage does not say what is stored.
    """
    times = [t for t, pair in limits.items() if pair is not None]
    step = max(1, -(-len(times) // TIMES_SEEN))
    texts = []
    for time in times[::step]:
        pair = limits[time]
        texts += [] if pair is None else _missing_chunks(reader, time, channel, pair)
        if reader.source.dtype.kind == "f":
            texts += [text for axis in range(3) if (text := _planes(reader, time, channel, axis))]
    return texts


def _missing_chunks(
    reader: ImageReader, time: int, channel: int, limits: tuple[float, float]
) -> list[str]:
    """Chunks that are not stored, where what stands for them is no intensity of the image."""
    source = reader.source
    shape, step = source.shape_zyx(0), source.storage_zyx(0)
    counts = grid_shape(shape, step)
    most = REMOTE_CHUNKS_SEEN if is_remote(source.path) else CHUNKS_SEEN
    seen = as_zyx(min(n, most) for n in counts)
    missing: list[Box] = []
    for pick in iter_grid(seen):
        at = zip(pick, counts, seen, strict=True)
        index = as_zyx(k * (n - 1) // max(1, m - 1) for k, n, m in at)
        if not reader.chunk_exists(0, time, channel, index):
            missing.append(grid_box(index, step, shape))
    share = len(missing) / math.prod(seen)
    if share < MISSING:
        return []
    first = missing[0].start
    value = float(
        reader.read_box(0, time, channel, Box(first, as_zyx(a + 1 for a in first))).item()
    )
    if limits[0] <= value <= limits[1]:
        return []  # the background of a sparse volume
    return [
        f"level 0{_at(reader, time)}: {len(missing)} of {math.prod(seen)} chunks that were looked "
        f"for are not stored and read as {value:g}, although what is stored lies between "
        f"{limits[0]:g} and {limits[1]:g} (first at voxel {first}): nothing is found there; if "
        "they were lost, restore them from their source and segment again with --overwrite"
    ]


def _planes(reader: ImageReader, time: int, channel: int, axis: int) -> str:
    """Planes across an axis in which no voxel that was looked at is a number."""
    source = reader.source
    shape, chunk = source.shape_zyx(0), source.chunks_zyx(0)
    count = -(-shape[axis] // chunk[axis])
    stride = max(1, -(-4 * count * math.prod(chunk) // DECODED))
    others = [a for a in range(3) if a != axis]
    empty = np.zeros(shape[axis], bool)
    for k in range(0, count, stride):
        first, last = k * chunk[axis], min((k + 1) * chunk[axis], shape[axis])
        without = np.ones(last - first, bool)
        for corner in ((1, 1), (1, 3), (3, 1), (3, 3)):
            start, stop = [first] * 3, [last] * 3
            for a, quarter in zip(others, corner, strict=True):
                start[a] = max(0, min(shape[a] * quarter // 4, shape[a] - COLUMN))
                stop[a] = min(shape[a], start[a] + COLUMN)
            box = Box(as_zyx(start), as_zyx(stop))
            finite = np.isfinite(reader.read_box(0, time, channel, box))
            without &= ~finite.any(axis=(others[0], others[1]))
        empty[first:last] = without
    if not empty.any():
        return ""
    named = _ranges(np.flatnonzero(empty))
    return (
        f"level 0{_at(reader, time)}: planes {'zyx'[axis]} = {named} hold no number (NaN or "
        "infinite) where they were looked at; they count as 0, and nothing is found there"
    )


def _at(reader: ImageReader, time: int) -> str:
    return f", time {time}" if reader.source.num_times > 1 else ""


def _ranges(index: NDArray[np.intp]) -> str:
    """Numbers as ranges; the first few."""
    runs = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
    texts = [f"{r[0]}" if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs[:5]]
    return ", ".join(texts) + (f" and {len(runs) - 5} more ranges" if len(runs) > 5 else "")
