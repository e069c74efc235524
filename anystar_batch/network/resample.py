"""Resample a level to working voxels with separable kernels of at most order 1.

Positions are computed from global indices in float64, so a voxel's value is a function of the
volume and the scale alone, never of the box it was asked in. Beyond the volume's border the image
is reflected (working index -1 shows what index 0 shows), so every tile has the same shape.

::

    level voxels     |  0  |  1  |  2  |  3  |        edges of the volumes coincide:
    working voxels   |    0    |    1    | ..         v = (u + 0.5) * zoom - 0.5
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx
from anystar_batch.kernel_cache import compiled


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Weights of one axis: output `i` is the sum of `weights[i, k] * input[first[i] + k]`.

    Parameters
    ----------
    first : int64 [n_out]
        First input voxel of each output voxel, index in the level.
    weights : float32 [n_out, n_taps]
        Non-negative, each row sums to 1; unused taps are 0 and lie inside the level.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def span(self) -> tuple[int, int]:
        """First input voxel used, and the first one after the last used."""
        return int(self.first.min()), int(self.first.max()) + self.weights.shape[1]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Where each output voxel lies, level voxels [n_out]: the mean place of what it weighs."""
        centre = self.first.astype(np.float64)
        # One tap after another: the same bits, however many outputs are asked for.
        for k in range(1, self.weights.shape[1]):
            centre += k * self.weights[:, k].astype(np.float64)
        return centre


def working_shape(level_shape: ZYX, zoom: ZYXFloat) -> ZYX:
    """Return the shape of the volume in working voxels.

    Parameters
    ----------
    level_shape : (z, y, x)
        Shape of the level that is read.
    zoom : (z, y, x)
        Level voxels per working voxel.

    Returns
    -------
    (z, y, x)
        Enough working voxels to cover the level; a rest under 1 % of a voxel is left out.
    """
    return as_zyx(
        max(1, int(np.ceil(n / z - 0.01))) for n, z in zip(level_shape, zoom, strict=True)
    )


def reflected(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return indices beyond `[0, length)` mirrored at the volume's edges, however far beyond."""
    wrapped = np.mod(index, 2 * length)
    return np.where(wrapped < length, wrapped, 2 * length - 1 - wrapped)


def taps(start: int, stop: int, length: int, level_length: int, zoom: float, step: int = 1) -> Taps:
    """Return the weights of every `step`-th working voxel of one axis, `[start, stop)` of those.

    Parameters
    ----------
    start, stop : int
        Range of indices, in units of `step` working voxels; may reach beyond the volume, which is
        then mirrored.
    length : int
        Working voxels of the whole axis.
    level_length : int
        Level voxels of the whole axis.
    zoom : float
        Level voxels per working voxel. 1 copies; below 1 interpolates linearly; above 1 averages
        with a triangle of half-width `zoom`, truncated there, so that nothing aliases. Away from
        the volume's border a linear ramp stays that ramp, at any zoom.
    step : int
        Working voxels from one output to the next, which averages as much more: output `i` lies at
        working voxel `i * step`.

    Returns
    -------
    Taps
    """
    index = reflected(np.arange(start, stop, dtype=np.int64) * step, length)
    if zoom == 1.0 and step == 1:
        return Taps(np.minimum(index, level_length - 1), np.ones((len(index), 1), np.float32))
    position = (index + 0.5) * zoom - 0.5
    half = max(1.0, zoom * step)
    n_taps = min(level_length, 2 * int(np.ceil(half)) + 1)
    first = np.floor(position - half).astype(np.int64) + 1
    first = np.clip(first, 0, level_length - n_taps)
    offsets = first[:, None] + np.arange(n_taps)[None, :] - position[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(offsets) / half)
    # Outside the level there is nothing to weigh: repeat the border voxel.
    empty = weights.sum(axis=1) <= 0.0
    weights[empty, np.argmin(np.abs(offsets[empty]), axis=1)] = 1.0
    weights /= weights.sum(axis=1, keepdims=True)
    inside = (position - half >= -1.0) & (position + half <= level_length)
    weights[inside] = _centred(weights[inside], offsets[inside])
    return Taps(first, weights.astype(np.float32))


def _centred(weights: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tilt weights so that their mean offset is 0: a sampled triangle's is up to 0.07 voxels."""
    mean = (weights * offsets).sum(axis=1, keepdims=True)
    spread = (weights * (offsets - mean) ** 2).sum(axis=1, keepdims=True)
    # Where one voxel has all the weight there is nothing to tilt.
    tilt = np.where(spread > 0.0, mean / np.where(spread > 0.0, spread, 1.0), 0.0)
    tilted: NDArray[np.float64] = weights * (1.0 - tilt * (offsets - mean))
    return tilted


def tile_taps(
    window: Box, shape: ZYX, level_shape: ZYX, zoom: ZYXFloat, step: int = 1
) -> tuple[Taps, Taps, Taps]:
    """Return the weights of the three axes of a tile.

    Parameters
    ----------
    window : Box
        The tile with its context, in units of `step` working voxels; may reach beyond the volume.
    shape : (z, y, x)
        The volume in working voxels.
    level_shape : (z, y, x)
        The volume in voxels of the level that is read.
    zoom : (z, y, x)
        Level voxels per working voxel.
    step : int
        See `taps`.
    """
    z, y, x = (
        taps(window.start[k], window.stop[k], shape[k], level_shape[k], zoom[k], step)
        for k in range(3)
    )
    return z, y, x


def source_box(axes: tuple[Taps, Taps, Taps]) -> Box:
    """Return the box of the level that a tile reads."""
    spans = [axis.span for axis in axes]
    return Box(as_zyx(a for a, _ in spans), as_zyx(b for _, b in spans))


def resample(
    image: NDArray[np.float32], origin: ZYX, axes: tuple[Taps, Taps, Taps]
) -> NDArray[np.float32]:
    """Return a tile in working voxels.

    Parameters
    ----------
    image : float32 (z, y, x)
        Voxels of the level; must hold `source_box(axes)`.
    origin : (z, y, x)
        Index of `image[0, 0, 0]` in the level.
    axes : Taps of z, y, x

    Returns
    -------
    float32 (z, y, x)
        Shape of the window that `axes` was made for.

    Notes
    -----
    Sums run over the taps in order, one axis after another, in float32: the same bits whatever the
    image around the source box, the number of threads or the BLAS.
    """
    box = source_box(axes).relative_to(origin)
    result = np.ascontiguousarray(image[box.slices], np.float32)
    # x first would touch most voxels; z first shrinks or grows contiguous planes.
    for axis in range(3):
        weights = axes[axis].weights
        first = axes[axis].first - axes[axis].span[0]
        if weights.shape[1] == 1:
            if len(first) != result.shape[axis] or (np.diff(first) != 1).any():
                result = np.take(result, first, axis=axis)
        else:
            moved = np.ascontiguousarray(np.moveaxis(result, axis, 0))
            flat = _weigh(moved.reshape(moved.shape[0], -1), first, weights)
            result = np.moveaxis(flat.reshape(len(first), *moved.shape[1:]), 0, axis)
    return np.ascontiguousarray(result)


@compiled()
def _weigh(
    rows: NDArray[np.float32], first: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weighted sums of rows, taps in order; a weight of 0 leaves its row out."""
    n_out, n_taps = weights.shape
    width = rows.shape[1]
    out = np.zeros((n_out, width), np.float32)
    for i in range(n_out):
        for k in range(n_taps):
            weight = weights[i, k]
            if weight != 0.0:
                row = first[i] + k
                for j in range(width):
                    out[i, j] += weight * rows[row, j]
    return out
