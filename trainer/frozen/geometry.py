"""Numbers from hashes, and the labels of a frozen volume. NEVER EDIT (see the package).

A voxel is carried into the space of the lattice by one affine map and one smooth displacement, and
the distances to the few centres nearby decide its label. The zoom of the published recipe is in the
mean radius, which the caller gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Published ranges (METHOD.md); radii and lengths of objects over the mean radius.

    Parameters
    ----------
    radius_spread, spacing, jitter, dropped : float
        Of the lattice of spheres.
    noise, noise_cell : float
        Amplitude and cell of the Perlin noise on the distance.
    paddings : tuple of int
        Voxels that may be added on both sides of the 128 voxels of an axis; zeros or mirrored.
    rotation : float
        Degrees about each axis.
    scale, shear, elastic_sigma, elastic_magnitude
        Of the elastic step, whose padding is 0; voxels.
    mean, std, plain_std : (low, high)
        Intensities.
    texture_scales, class_scales, warp_scales : tuple of float
        Voxels.
    classes : (low, high)
        Of the Perlin background.
    smallest : int
        Pieces of fewer voxels are erased: nothing can be asked of them.
    """

    radius_spread: tuple[float, float] = (0.6, 1.2)
    spacing: float = 2.0
    jitter: float = 0.5
    dropped: float = 0.33
    noise: float = 0.9
    noise_cell: float = 16.0 / 12.0
    paddings: tuple[int, ...] = (0, 32, 64, 96)
    rotation: float = 45.0
    scale: float = 0.3
    shear: float = 0.5
    elastic_sigma: tuple[float, float] = (2.0, 5.0)
    elastic_magnitude: tuple[float, float] = (8.0, 20.0)
    mean: tuple[float, float] = (25.0, 225.0)
    std: tuple[float, float] = (5.0, 25.0)
    plain_std: tuple[float, float] = (0.0, 5.0)
    texture_scales: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    class_scales: tuple[float, ...] = (32.0, 64.0)
    warp_scales: tuple[float, ...] = (16.0, 32.0, 64.0)
    classes: tuple[int, int] = (1, 20)
    smallest: int = 8


class Stream:
    """Numbers that depend on the seed and on how many draws came before, and on nothing else.

    Parameters
    ----------
    seed : int
        64 bits.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed & (2**64 - 1)
        self._draws = 0

    def bits(self, count: int) -> NDArray[np.uint64]:
        """Return 64 random bits, `count` times (splitmix64)."""
        self._draws += 1
        key = (self._seed + 0xD1342543DE82EF95 * self._draws) & (2**64 - 1)
        base = mixed(np.array([key], np.uint64))
        return mixed(base + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN))

    def uniforms(self, low: float, high: float, shape: tuple[int, ...]) -> Float:
        """Return an array of numbers in [low, high)."""
        count = math.prod(shape)
        unit = (self.bits(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (low + (high - low) * unit).reshape(shape)

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return float(self.uniforms(low, high, (1,))[0])

    def below(self, stop: int) -> int:
        """Return an integer from 0 to stop - 1."""
        return int(self.bits(1)[0] % np.uint64(stop))

    def happens(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.uniform(0.0, 1.0) < probability

    def normals(self, shape: tuple[int, ...]) -> Float:
        """Return standard normal numbers (Box and Muller)."""
        radius = np.sqrt(-2.0 * np.log1p(-self.uniforms(0.0, 1.0, shape)))
        normal: Float = radius * np.cos(self.uniforms(0.0, 2.0 * np.pi, shape))
        return normal


_GOLDEN = 0x9E3779B97F4A7C15


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of splitmix64 of every value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def smooth(stream: Stream, shape: tuple[int, int, int], scale: float) -> Float:
    """Return Gaussian noise at every `scale` voxels, upsampled by cubic B-splines; std 0.33."""
    weights = []
    for n in shape:
        position = np.arange(n) / scale + stream.uniform(0.0, 1.0)
        distance = np.abs(position[:, None] + 1.0 - np.arange(int(position[-1]) + 4)[None])
        inner = 2.0 / 3.0 - distance**2 * (1.0 - distance / 2.0)
        weights.append(np.where(distance < 1, inner, np.maximum(2.0 - distance, 0.0) ** 3 / 6.0))
    values = stream.normals((weights[0].shape[1], weights[1].shape[1], weights[2].shape[1]))
    for weight in weights:
        # Contract the first axis and append the result last: three turns restore the order.
        values = np.tensordot(values, weight, axes=(0, 1))
    return values


def labels(
    stream: Stream, edge: int, radius: float, recipe: Recipe
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the labels of a volume (z, y, x), and where the elastic step left nothing.

    Parameters
    ----------
    stream : Stream
    edge : int
        Voxels per axis.
    radius : float
        Mean radius, voxels.
    recipe : Recipe

    Returns
    -------
    labels, void : (z, y, x)
        0 is background; objects are 1..n, each one 6-connected piece.
    """
    shape = (edge, edge, edge)
    turn, bend = _matrices(stream, recipe)
    sigma = stream.uniform(*recipe.elastic_sigma)
    std = stream.uniform(*recipe.elastic_magnitude) / math.sqrt(3.0)
    std *= (2.0 * math.sqrt(math.pi) * sigma) ** -1.5
    # Rounded: a library that adds in another order must not move a label.
    warp = np.stack(
        [np.round(smooth(stream, shape, sigma / 0.577) * (std / 0.33), 6) for _ in range(3)], -1
    )
    bent = bend / np.cbrt(abs(np.linalg.det(bend)))
    matrix: Float = np.round(turn @ bent, 9)
    offset: Float = np.round(stream.uniforms(0.0, 1024.0, (3,)), 6)
    dropped = stream.uniform(0.0, recipe.dropped)
    padding = recipe.paddings[stream.below(len(recipe.paddings))]
    zeros = stream.happens(0.5)
    # The published crop is half of the padded volume's edge; here it is the whole sample.
    share = 128.0 / (128.0 + 2.0 * padding) if zeros else 4.0
    corner = stream.uniforms(0.0, 0.5, (3,))
    low = np.round(((0.5 - share / 2.0) - corner) / 0.5 * edge, 6)
    high = np.round(((0.5 + share / 2.0) - corner) / 0.5 * edge, 6)
    numbers = np.round(
        np.array(
            [
                radius,
                recipe.spacing * radius,
                recipe.jitter / recipe.spacing,
                dropped,
                recipe.radius_spread[0],
                recipe.radius_spread[1],
                recipe.noise * radius,
                1.0 / (recipe.noise_cell * radius),
            ]
        ),
        9,
    )
    seed = stream.bits(1)[0]
    inverse = np.round(np.linalg.inv(matrix), 9)
    owner = _assign(edge, matrix, inverse, offset, warp, numbers, np.stack([low, high]), seed)
    # Where the elastic step, about the middle, reads beyond the sample it reads 0.
    middle = (edge - 1) / 2.0
    index = np.indices(shape, np.float64)
    read = np.tensordot(np.round(bend, 9), index - middle, 1) + middle + np.moveaxis(warp, -1, 0)
    void: NDArray[np.bool_] = ((read < -0.5) | (read > edge - 0.5)).any(axis=0)
    owner[void] = 0
    return pieces(owner, recipe.smallest), void


def pieces(owner: NDArray[np.int64], smallest: int) -> NDArray[np.int32]:
    """Give every 6-connected piece of equal non-zero values its own label, in order of position."""
    found: NDArray[np.int32] = _pieces(np.ascontiguousarray(owner, np.int64), smallest)
    return found


def _matrices(stream: Stream, recipe: Recipe) -> tuple[Float, Float]:
    """Rotation, and the stretch and shear of the elastic step."""
    turn = np.eye(3)
    for axis in range(3):
        angle = math.radians(stream.uniform(-recipe.rotation, recipe.rotation))
        a, b = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = round(math.cos(angle), 9)
        one[a, b], one[b, a] = -round(math.sin(angle), 9), round(math.sin(angle), 9)
        turn = turn @ one
    stretch = np.diag(1.0 + stream.uniforms(-recipe.scale, recipe.scale, (3,)))
    off = stream.uniforms(-recipe.shear, recipe.shear, (3, 3)) * (1.0 - np.eye(3)) / 2.0
    return turn, stretch @ (np.eye(3) + off)


@njit(cache=True)
def _hash(seed: np.uint64, z: int, y: int, x: int) -> np.uint64:
    """64 well-mixed bits of a lattice point."""
    h = seed ^ (np.uint64(z) * np.uint64(0x9E3779B97F4A7C15))
    h ^= np.uint64(y) * np.uint64(0xC2B2AE3D27D4EB4F)
    h ^= np.uint64(x) * np.uint64(0x165667B19E3779F9)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    return h ^ (h >> np.uint64(32))


@njit(cache=True)
def _unit(seed: np.uint64, z: int, y: int, x: int) -> float:
    """Number in [0, 1) of a lattice point."""
    return float(_hash(seed, z, y, x) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _perlin(seed: np.uint64, z: float, y: float, x: float) -> float:
    """Gradient noise (Perlin, Improving Noise, SIGGRAPH 2002), about -1 to 1."""
    iz, iy, ix = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
    fz, fy, fx = z - iz, y - iy, x - ix
    u = fz * fz * fz * (fz * (fz * 6.0 - 15.0) + 10.0)
    v = fy * fy * fy * (fy * (fy * 6.0 - 15.0) + 10.0)
    w = fx * fx * fx * (fx * (fx * 6.0 - 15.0) + 10.0)
    total = 0.0
    for corner in range(8):
        cz, cy, cx = corner >> 2, corner >> 1 & 1, corner & 1
        dz, dy, dx = fz - cz, fy - cy, fx - cx
        h = int(_hash(seed, iz + cz, iy + cy, ix + cx) >> np.uint64(40)) % 12
        first, second = (dy if h >= 8 else dz), (dy if h < 4 else dx)
        value = (first if h & 1 else -first) + (second if h & 2 else -second)
        weight = (u if cz else 1.0 - u) * (v if cy else 1.0 - v) * (w if cx else 1.0 - w)
        total += weight * value
    return total


@njit(cache=True)
def _assign(  # noqa: C901, PLR0913  (a kernel: compiled calls are flat)
    edge: int,
    matrix: Float,
    inverse: Float,
    offset: Float,
    warp: Float,
    numbers: Float,
    box: Float,
    seed: np.uint64,
) -> NDArray[np.int64]:
    """Owner of every voxel: a number per lattice cell, 0 for none."""
    radius, spacing, jitter, dropped = numbers[0], numbers[1], numbers[2], numbers[3]
    thin, thick, amplitude, frequency = numbers[4], numbers[5], numbers[6], numbers[7]
    owner = np.zeros((edge, edge, edge), np.int64)
    s, cell, centre = np.empty(3), np.empty(3, np.int64), np.empty(3)
    for vz in range(edge):
        for vy in range(edge):
            for vx in range(edge):
                p = (vz + warp[vz, vy, vx, 0], vy + warp[vz, vy, vx, 1], vx + warp[vz, vy, vx, 2])
                for k in range(3):
                    s[k] = offset[k] + (
                        matrix[k, 0] * p[0] + matrix[k, 1] * p[1] + matrix[k, 2] * p[2]
                    )
                    cell[k] = int(np.floor(s[k] / spacing + 0.5))
                noise = amplitude * _perlin(
                    seed ^ np.uint64(0x5DEECE66D),
                    s[0] * frequency,
                    s[1] * frequency,
                    s[2] * frequency,
                )
                best, best_at = 1e9, 0
                for near in range(27):
                    z = cell[0] + near // 9 - 1
                    y = cell[1] + near // 3 % 3 - 1
                    x = cell[2] + near % 3 - 1
                    centre[0] = (z + jitter * (2.0 * _unit(seed + 1, z, y, x) - 1.0)) * spacing
                    centre[1] = (y + jitter * (2.0 * _unit(seed + 2, z, y, x) - 1.0)) * spacing
                    centre[2] = (x + jitter * (2.0 * _unit(seed + 3, z, y, x) - 1.0)) * spacing
                    squared = 0.0
                    for k in range(3):
                        squared += (s[k] - centre[k]) ** 2
                    distance = np.sqrt(squared) + noise
                    size = radius * (thin + (thick - thin) * _unit(seed + 5, z, y, x))
                    if distance >= size or distance >= best:
                        continue
                    kept = _unit(seed + 4, z, y, x) >= dropped
                    for k in range(3):
                        at = 0.0
                        for a in range(3):
                            at += inverse[k, a] * (centre[a] - offset[a])
                        kept &= box[0, k] <= at < box[1, k]
                    if kept:
                        best = distance
                        best_at = 1 + ((z & 0xFFFF) << 32 | (y & 0xFFFF) << 16 | (x & 0xFFFF))
                owner[vz, vy, vx] = best_at
    return owner


@njit(cache=True)
def _pieces(owner: NDArray[np.int64], smallest: int) -> NDArray[np.int32]:
    """Flood every piece once; one too small is erased again."""
    nz, ny, nx = owner.shape
    found = np.zeros(owner.shape, np.int32)
    seen = np.zeros(owner.shape, np.bool_)
    queue = np.empty((owner.size, 3), np.int32)
    total = 0
    for start in range(owner.size):
        z, y, x = start // (ny * nx), start // nx % ny, start % nx
        if owner[z, y, x] == 0 or seen[z, y, x]:
            continue
        total += 1
        head, tail = 0, 1
        queue[0, 0], queue[0, 1], queue[0, 2] = z, y, x
        seen[z, y, x] = True
        while head < tail:
            a, b, c = queue[head, 0], queue[head, 1], queue[head, 2]
            head += 1
            found[a, b, c] = total
            for step in range(6):
                move = 1 if step & 1 else -1
                i = a + (move if step < 2 else 0)
                j = b + (move if 2 <= step < 4 else 0)
                k = c + (move if step >= 4 else 0)
                if not (0 <= i < nz and 0 <= j < ny and 0 <= k < nx) or seen[i, j, k]:
                    continue
                if owner[i, j, k] == owner[z, y, x]:
                    seen[i, j, k] = True
                    queue[tail, 0], queue[tail, 1], queue[tail, 2] = i, j, k
                    tail += 1
        if tail < smallest:
            for at in range(tail):
                found[queue[at, 0], queue[at, 1], queue[at, 2]] = 0
            total -= 1
    return found
