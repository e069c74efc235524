"""Smooth random volumes: gradient noise at any point, and spline noise on a grid.

Both are pure functions of their seed or generator, cheap enough to be made anew for every sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

_PRIME_Z = np.uint64(0x9E3779B97F4A7C15)
_PRIME_Y = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_X = np.uint64(0x165667B19E3779F9)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


@njit(cache=True, inline="always")
def _hash(seed: np.uint64, z: int, y: int, x: int) -> np.uint64:
    """64 well-mixed bits of a lattice point (the finaliser of MurmurHash3)."""
    h = seed ^ (np.uint64(z) * _PRIME_Z) ^ (np.uint64(y) * _PRIME_Y) ^ (np.uint64(x) * _PRIME_X)
    h ^= h >> np.uint64(33)
    h *= _MIX
    h ^= h >> np.uint64(29)
    h *= _MIX
    h ^= h >> np.uint64(32)
    return h


@njit(cache=True, inline="always")
def uniform(seed: np.uint64, z: int, y: int, x: int) -> float:
    """Return a number in [0, 1) that belongs to a lattice point."""
    return float(_hash(seed, z, y, x) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True, inline="always")
def _corner(  # noqa: PLR0913  (a kernel)
    seed: np.uint64, z: int, y: int, x: int, dz: float, dy: float, dx: float
) -> float:
    """One corner's gradient times the offset from it; gradients are the 12 edges of a cube."""
    h = int(_hash(seed, z, y, x) >> np.uint64(40)) % 12
    if h < 4:
        return (dz if h & 1 else -dz) + (dy if h & 2 else -dy)
    if h < 8:
        return (dz if h & 1 else -dz) + (dx if h & 2 else -dx)
    return (dy if h & 1 else -dy) + (dx if h & 2 else -dx)


@njit(cache=True, inline="always")
def perlin(seed: np.uint64, z: float, y: float, x: float) -> float:
    """Return gradient noise at a point in cells, about -1 to 1, 0 at every lattice point.

    References
    ----------
    Perlin, Improving Noise, SIGGRAPH 2002.
    """
    iz, iy, ix = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
    z, y, x = z - iz, y - iy, x - ix
    u = z * z * z * (z * (z * 6.0 - 15.0) + 10.0)
    v = y * y * y * (y * (y * 6.0 - 15.0) + 10.0)
    w = x * x * x * (x * (x * 6.0 - 15.0) + 10.0)
    a = _corner(seed, iz, iy, ix, z, y, x)
    a += w * (_corner(seed, iz, iy, ix + 1, z, y, x - 1.0) - a)
    b = _corner(seed, iz, iy + 1, ix, z, y - 1.0, x)
    b += w * (_corner(seed, iz, iy + 1, ix + 1, z, y - 1.0, x - 1.0) - b)
    c = _corner(seed, iz + 1, iy, ix, z - 1.0, y, x)
    c += w * (_corner(seed, iz + 1, iy, ix + 1, z - 1.0, y, x - 1.0) - c)
    d = _corner(seed, iz + 1, iy + 1, ix, z - 1.0, y - 1.0, x)
    d += w * (_corner(seed, iz + 1, iy + 1, ix + 1, z - 1.0, y - 1.0, x - 1.0) - d)
    a += v * (b - a)
    c += v * (d - c)
    return a + u * (c - a)


def smooth(
    rng: np.random.Generator, shape: tuple[int, int, int], scale: float
) -> NDArray[np.float32]:
    """Return Gaussian noise of one scale, upsampled by cubic B-splines.

    Parameters
    ----------
    rng : Generator
    shape : (z, y, x)
    scale : float
        Distance of the random values, voxels; the noise looks like white noise after a Gaussian
        of about 0.58 `scale`.

    Returns
    -------
    (z, y, x)
        Mean 0, standard deviation about 0.33.
    """
    matrices = [_spline_matrix(n, scale, rng.uniform()) for n in shape]
    values = rng.standard_normal([m.shape[1] for m in matrices], dtype=np.float32)
    return along_axes(values, matrices)


def along_axes(
    values: NDArray[np.float32], matrices: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Multiply one matrix onto every axis.

    Parameters
    ----------
    values : (z, y, x)
    matrices : sequence of three (n, axis length)

    Returns
    -------
    (nz, ny, nx)

    Notes
    -----
    NumPy's own loops and no BLAS, whose sums depend on the number of threads: a sample would too.
    """
    for matrix in matrices:
        # The first axis is contracted and the result appended last: three turns restore the order.
        values = np.moveaxis(np.einsum("na,ayx->nyx", matrix, values), 0, -1)
        values = np.ascontiguousarray(values)
    return values


def displacement(
    rng: np.random.Generator, shape: tuple[int, int, int], scale: float, std: float
) -> NDArray[np.float32]:
    """Return a smooth displacement of every voxel.

    Parameters
    ----------
    rng : Generator
    shape : (z, y, x)
    scale : float
        As in `smooth`, voxels.
    std : float
        Spread per axis, voxels.

    Returns
    -------
    (z, y, x, 3)
        Displacement along z, y, x, voxels.
    """
    gain = np.float32(std / 0.33)
    return np.stack([smooth(rng, shape, scale) * gain for _ in range(3)], axis=-1)


def _spline_matrix(n: int, scale: float, phase: float) -> NDArray[np.float32]:
    """Weights [n, knots] of the cubic B-splines centred every `scale` voxels."""
    position = np.arange(n) / scale + phase
    knots = int(position[-1]) + 4
    distance = np.abs(position[:, None] + 1.0 - np.arange(knots)[None])
    inner = 2.0 / 3.0 - distance**2 * (1.0 - distance / 2.0)
    outer = np.maximum(2.0 - distance, 0.0) ** 3 / 6.0
    return np.where(distance < 1.0, inner, outer).astype(np.float32)
