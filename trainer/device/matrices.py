"""Linear steps along an axis as matrices, one per sample: [b, out, in].

A blur of width 0, an axis that is not touched and a coarser grid with fewer voxels are matrices of
one shape, so samples that differ in all of these go through one product.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from trainer.device.draws import Draws, Tensor


def along(image: Tensor, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Multiply one matrix onto every axis.

    Parameters
    ----------
    image : (b, z, y, x)
    matrices : three of (b, out, in)
        For z, y, x.
    """
    image = ops.einsum("nij,njyx->niyx", matrices[0], image)
    image = ops.einsum("nij,nzjx->nzix", matrices[1], image)
    return ops.einsum("nij,nzyj->nzyi", matrices[2], image)


def gaussian(sigma: Tensor, n: int, truncate: float) -> Tensor:
    """Gaussian blur as `scipy.ndimage.gaussian_filter1d` does it, borders mirrored.

    Parameters
    ----------
    sigma : (b)
        Voxels; 0 gives the identity.
    n : int
        Voxels.
    truncate : float
        Where the Gaussian ends, in sigmas.

    Returns
    -------
    (b, n, n)
    """
    sigma = ops.reshape(sigma, (-1, 1, 1))
    reach = ops.floor(truncate * sigma + 0.5)
    out, into = np.arange(n)[:, None], np.arange(n)[None]
    total: Tensor = 0.0
    # Voxel j is met at j and, mirrored at the borders, at -1 - j, with a period of 2 n.
    for position in (into, -1 - into):
        for turn in (-1, 0, 1):
            distance = np.abs(out - position - 2 * n * turn).astype(np.float32)[None]
            weight = ops.exp(-0.5 * (distance / ops.maximum(sigma, 1e-3)) ** 2)
            total = total + ops.where(distance <= reach, weight, 0.0)
    return total / ops.sum(total, axis=2, keepdims=True)


def box(width: Tensor, n: int) -> Tensor:
    """Mean of `width` voxels as `scipy.ndimage.uniform_filter1d` has it, borders repeated.

    Parameters
    ----------
    width : (b)
        Voxels; the part after the point is dropped.
    n : int
        Voxels.

    Returns
    -------
    (b, n, n)
    """
    width = ops.reshape(ops.floor(width), (-1, 1, 1))
    voxel = np.arange(n, dtype=np.float32)
    first = voxel[None, :, None] - ops.floor(width / 2.0)
    last = first + width - 1.0
    into = voxel[None, None, :]
    weight = ops.cast(ops.logical_and(into >= first, into <= last), "float32")
    before, after = ops.maximum(-first, 0.0), ops.maximum(last - (n - 1.0), 0.0)
    weight = weight + before * (into == 0.0) + after * (into == n - 1.0)
    return weight / width


def kept_planes(step: Tensor, n: int) -> Tensor:
    """Keep every `step`-th plane, interpolate linearly.

    Parameters
    ----------
    step : (b)
        Voxels; 1 or less gives the identity.
    n : int
        Voxels.

    Returns
    -------
    (b, n, n)
    """
    step = ops.reshape(ops.maximum(step, 1.0), (-1, 1, 1))
    voxel = np.arange(n, dtype=np.float32)
    position = voxel[None, :, None] / step
    below = ops.floor(position)
    share = position - below
    into = voxel[None, None, :]

    def plane(number: Tensor) -> Tensor:
        at = ops.minimum(ops.round(number * step), n - 1.0)
        return ops.cast(into == at, "float32")

    return plane(below) * (1.0 - share) + plane(below + 1.0) * share


def coarser(factor: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Average n voxels into ones `factor` times as long, and interpolate back.

    Parameters
    ----------
    factor : (b)
        1 or more.
    n : int
        Voxels.

    Returns
    -------
    down, up : (b, n, n)
        Rows of `down` and columns of `up` beyond the last coarse voxel are 0.
    real : float32 (b, n)
        1 for coarse voxels that exist.
    """
    factor = ops.reshape(factor, (-1, 1, 1))
    voxel = np.arange(n, dtype=np.float32)
    # A quotient just above a whole number is that number: float32 has no more to say.
    count = ops.maximum(ops.ceil(n / factor - 1e-5), 2.0)
    coarse, fine = voxel[None, :, None], voxel[None, None, :]
    centre = (coarse + 0.5) * factor - 0.5
    overlap = ops.clip(0.5 + factor / 2.0 - ops.abs(fine - centre), 0.0, 1.0)
    nearest = ops.clip(ops.ceil(centre - 0.5), 0.0, n - 1.0)
    overlap = overlap + 1e-6 * ops.cast(fine == nearest, "float32")
    real = ops.cast(coarse < count, "float32")
    down = overlap / ops.sum(overlap, axis=2, keepdims=True) * real
    position = ops.clip((voxel[None, :, None] + 0.5) / factor - 0.5, 0.0, count - 1.0)
    up = ops.maximum(1.0 - ops.abs(position - fine), 0.0)
    return down, up, real[:, :, 0]


def splines(scale: Tensor, phase: Tensor, n: int, knots: int) -> Tensor:
    """Weights of the cubic B-splines centred every `scale` voxels.

    Parameters
    ----------
    scale, phase : (b)
        Voxels between knots; shift of the knots, 0 to 1 of that.
    n, knots : int
        Voxels, and knots, as many as the smallest scale needs.

    Returns
    -------
    (b, n, knots)
    """
    voxel = np.arange(n, dtype=np.float32)[None, :, None]
    position = voxel / ops.reshape(scale, (-1, 1, 1)) + ops.reshape(phase, (-1, 1, 1))
    distance = ops.abs(position + 1.0 - np.arange(knots, dtype=np.float32)[None, None])
    inner = 2.0 / 3.0 - distance**2 * (1.0 - distance / 2.0)
    outer = ops.maximum(2.0 - distance, 0.0) ** 3 / 6.0
    return ops.where(distance < 1.0, inner, outer)


def smooth(draws: Draws, n: int, scale: Tensor, finest: float) -> Tensor:
    """Return Gaussian noise of one scale per sample, as `trainer.synthesis.noise.smooth`.

    Parameters
    ----------
    draws : Draws
    n : int
        Voxels an axis.
    scale : (b)
        Distance of the random values, voxels.
    finest : float
        A lower bound of `scale`, which decides how many values are drawn.

    Returns
    -------
    (b, n, n, n)
        Mean 0, standard deviation about 0.33.
    """
    return fields(draws, n, scale, finest, 1)[:, 0]


def fields(draws: Draws, n: int, scale: Tensor, finest: float, count: int) -> Tensor:
    """Return several fields of one scale per sample, as `smooth`: (b, count, n, n, n)."""
    knots = int((n - 1) / finest + 1.0) + 4
    scales = ops.repeat(scale, count)
    phases = ops.reshape(draws.uniform(shape=(count, 3)), (-1, 3))
    z, y, x = (splines(scales, phases[:, axis], n, knots) for axis in range(3))
    values = ops.reshape(draws.normal((count, knots, knots, knots)), (-1, knots, knots, knots))
    return ops.reshape(along(values, (z, y, x)), (-1, count, n, n, n))
