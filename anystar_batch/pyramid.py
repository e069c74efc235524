"""Coarser levels of a label image: the most frequent label of each window, never an average.

Voxel i of level n stands for the window of level n-1, on every axis::

    [round(i f), round((i+1) f))      f = shape(n-1) / shape(n), snapped to an integer

The shapes are the image's own, so a label lies on the image at every level. Windows follow from the
position in the volume alone: blocks give what the whole gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx
from anystar_batch.kernel_cache import compiled


def level_factors(shape_from: ZYX, shape_to: ZYX) -> ZYXFloat:
    """Return how many voxels of one level go into one of the next, per axis.

    A ratio is snapped to the integer f when f times the coarse length comes within one coarse
    voxel of the fine length: floor and ceil of every integer factor give that factor.

    Parameters
    ----------
    shape_from, shape_to : (z, y, x)
        Voxels of level n-1 and of level n.

    Returns
    -------
    (z, y, x)

    Examples
    --------
    >>> level_factors((21, 100, 101), (21, 50, 51))
    (1.0, 2.0, 2.0)
    >>> level_factors((30, 30, 30), (20, 20, 20))
    (1.5, 1.5, 1.5)
    """
    z, y, x = (_factor(a, b) for a, b in zip(shape_from, shape_to, strict=True))
    return z, y, x


def _factor(length_from: int, length_to: int) -> float:
    ratio = length_from / length_to
    nearest = max(1, round(ratio))
    return (
        float(nearest) if abs(length_from - nearest * length_to) <= max(1, nearest - 1) else ratio
    )


def windows(
    start: int, stop: int, factor: float, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first and last-but-one source voxel of each target voxel on one axis.

    Parameters
    ----------
    start, stop : int
        Target voxels, level n.
    factor : float
        Voxels of level n-1 in one of level n.
    length : int
        Voxels of level n-1 on this axis: the last windows are clipped to it.

    Returns
    -------
    first, stop : int64 [stop - start]
        Half-open windows of level n-1, none empty: a factor below 1 repeats voxels.
    """
    edges = np.rint(np.arange(start, stop + 1) * factor).astype(np.int64)
    first = np.minimum(edges[:-1], length - 1)
    return first, np.maximum(np.minimum(edges[1:], length), first + 1)


def source_box(target: Box, factors: ZYXFloat, shape_from: ZYX) -> Box:
    """Return the voxels of level n-1 that a box of level n is made of.

    Parameters
    ----------
    target : Box
        Voxels of level n, not empty.
    factors : (z, y, x)
        `level_factors` of the two levels.
    shape_from : (z, y, x)
        Voxels of level n-1.

    Returns
    -------
    Box
        The union of the windows. Voxels after the last window (floor shapes) are in none.
    """
    spans = [
        windows(a, b, f, n)
        for a, b, f, n in zip(target.start, target.stop, factors, shape_from, strict=True)
    ]
    (z0, z1), (y0, y1), (x0, x1) = ((int(first[0]), int(stop[-1])) for first, stop in spans)
    return Box((z0, y0, x0), (z1, y1, x1))


def inner_box(box: Box, shape_from: ZYX, shape_to: ZYX) -> Box:
    """Return the voxels of level n whose windows lie wholly in a box of level n-1.

    Parameters
    ----------
    box : Box
        Voxels of level n-1.
    shape_from, shape_to : (z, y, x)
        Voxels of level n-1 and of level n.

    Returns
    -------
    Box
        Perhaps empty.

    Examples
    --------
    >>> inner_box(Box((0, 3, 4), (8, 8, 8)), (8, 8, 8), (4, 4, 8))
    Box(start=(0, 2, 4), stop=(4, 4, 8))
    """
    factors = level_factors(shape_from, shape_to)
    starts, stops = [], []
    for a, b, f, n, m in zip(box.start, box.stop, factors, shape_from, shape_to, strict=True):
        first, stop = windows(0, m, f, n)
        starts.append(int(np.searchsorted(first, a)))
        stops.append(max(starts[-1], int(np.searchsorted(stop, b, "right"))))
    return Box(as_zyx(starts), as_zyx(stops))


def downsample_mode(
    labels: NDArray[np.uint32], target: Box, factors: ZYXFloat, shape_from: ZYX
) -> NDArray[np.uint32]:
    """Return the most frequent label of each window.

    Parameters
    ----------
    labels : (z, y, x)
        Level n-1 in `source_box(target, factors, shape_from)`.
    target : Box
        Voxels of level n.
    factors : (z, y, x)
        `level_factors` of the two levels.
    shape_from : (z, y, x)
        Voxels of the whole level n-1.

    Returns
    -------
    (z, y, x)
        Level n in `target`.

    Raises
    ------
    ValueError
        If the labels have another shape than the source box.

    Notes
    -----
    Ties go to the foreground, then to the smallest label. Background counts like any other label.
    A label that is nowhere the most frequent one is not in the coarse level.
    """
    box = source_box(target, factors, shape_from)
    if labels.shape != box.shape:
        message = f"got labels of shape {labels.shape}, expected {box.shape} for {target}"
        raise ValueError(message)
    (z0, z1), (y0, y1), (x0, x1) = (
        _relative(windows(a, b, f, n), origin)
        for a, b, f, n, origin in zip(
            target.start, target.stop, factors, shape_from, box.start, strict=True
        )
    )
    coarse = np.zeros(target.shape, np.uint32)
    if labels.any():
        _mode(np.ascontiguousarray(labels), z0, z1, y0, y1, x0, x1, coarse)
    return coarse


def _relative(
    span: tuple[NDArray[np.int64], NDArray[np.int64]], origin: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return span[0] - origin, span[1] - origin


@compiled()
def _mode(  # noqa: PLR0912, PLR0913, C901 - one loop nest: a call per voxel would cost more
    labels: NDArray[np.uint32],
    z0: NDArray[np.int64],
    z1: NDArray[np.int64],
    y0: NDArray[np.int64],
    y1: NDArray[np.int64],
    x0: NDArray[np.int64],
    x1: NDArray[np.int64],
    coarse: NDArray[np.uint32],
) -> None:
    """Fill `coarse`; windows of one label, nearly all of them, are found without counting."""
    largest = np.max(z1 - z0) * np.max(y1 - y0) * np.max(x1 - x0)
    values = np.empty(largest, np.uint32)
    counts = np.empty(largest, np.int64)
    for k in range(coarse.shape[0]):
        for j in range(coarse.shape[1]):
            for i in range(coarse.shape[2]):
                first = labels[z0[k], y0[j], x0[i]]
                is_one = True
                for z in range(z0[k], z1[k]):
                    for y in range(y0[j], y1[j]):
                        for x in range(x0[i], x1[i]):
                            is_one &= labels[z, y, x] == first
                if is_one:
                    coarse[k, j, i] = first
                    continue
                num = 0
                last = 0
                for z in range(z0[k], z1[k]):
                    for y in range(y0[j], y1[j]):
                        for x in range(x0[i], x1[i]):
                            value = labels[z, y, x]
                            if num == 0 or values[last] != value:
                                last = 0
                                while last < num and values[last] != value:
                                    last += 1
                                if last == num:
                                    values[num] = value
                                    counts[num] = 0
                                    num += 1
                            counts[last] += 1
                best = 0
                for n in range(1, num):
                    # Minus one turns 0 into the largest number: background loses every tie.
                    if counts[n] > counts[best] or (
                        counts[n] == counts[best]
                        and np.uint32(values[n] - np.uint32(1))
                        < np.uint32(values[best] - np.uint32(1))
                    ):
                        best = n
                coarse[k, j, i] = values[best]
