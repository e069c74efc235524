"""Label volumes: perturbed, stretched spheres on a jittered lattice, deformed without resampling.

A voxel of the sample is carried into the space of the lattice by one affine map and one smooth
displacement; there its distance to the few centres nearby decides the label::

    sample voxel --(affine + displacement)--> lattice space
                       |  distance to each centre of the 27 cells around
                       |  + Perlin noise * amplitude
                       v
             nearest object whose (relative) distance is below 1, or background

So zoom, rotation, shear, stretch and elastic deformation cost nothing and blur nothing. Every
property of an object is a hash of its cell and the sample's seed: nothing is stored.

References
----------
METHOD.md section 2 (arXiv 2307.07044, section 3.1) and, for the deformations, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trainer.synthesis.config import ShapesConfig
from trainer.synthesis.noise import displacement, perlin, uniform


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """What is where in a sample, before it has any intensity.

    Parameters
    ----------
    labels : int32 (z, y, x)
        0 is background, objects are 1..n, each one 6-connected piece.
    depth : float32 (z, y, x)
        Distance from the object's centre over its radius, 0 to 1 inside; 1 outside.
    void : bool (z, y, x)
        Where the sample holds no data at all (zero padding).
    radius : float
        Mean radius of the objects, voxels.
    """

    labels: NDArray[np.int32]
    depth: NDArray[np.float32]
    void: NDArray[np.bool_]
    radius: float


def sample_geometry(
    rng: np.random.Generator, shape: tuple[int, int, int], config: ShapesConfig
) -> Geometry:
    """Draw the shapes of one sample.

    Parameters
    ----------
    rng : Generator
    shape : (z, y, x)
    config : ShapesConfig

    Returns
    -------
    Geometry
    """
    radius = float(np.exp(rng.uniform(*np.log(config.radius))))
    spacing = radius * rng.uniform(*config.spacing)
    most = 1.0 if rng.random() < config.sparse else config.dropped
    lattice = np.array(
        [
            radius,
            spacing,
            config.jitter * radius / spacing,
            rng.uniform(0.0, most),
            config.radius_spread[0],
            config.radius_spread[1],
            np.log(config.elongation[0]),
            np.log(config.elongation[1]),
            radius * rng.uniform(*config.noise),
            1.0 / (radius * rng.uniform(*config.noise_cell)),
        ]
    )
    matrix = _affine(rng, config)
    offset = rng.uniform(0.0, 1024.0, 3)
    warp = _elastic(rng, shape, config)
    seed = np.uint64(rng.integers(0, 2**63))
    owner, depth = _assign(np.array(shape), matrix, offset, warp, lattice, seed)
    void = np.zeros(shape, np.bool_)
    if rng.random() < config.empty_border:
        axis = int(rng.integers(3))
        cut = int(rng.integers(1, shape[axis] // 2))
        beyond = [slice(None)] * 3
        beyond[axis] = slice(None, cut) if rng.random() < 0.5 else slice(-cut, None)
        void[tuple(beyond)] = True
        owner[void] = 0
    smallest = config.smallest * 4.0 / 3.0 * np.pi * radius**3
    labels = connected_pieces(owner, smallest, 0.4 * smallest)
    depth[labels == 0] = 1.0
    return Geometry(labels, depth, void, radius)


def connected_pieces(
    owner: NDArray[np.int64], smallest: float = 0.0, smallest_cut: float = 0.0
) -> NDArray[np.int32]:
    """Give every 6-connected piece of equal non-zero values a label of its own.

    Parameters
    ----------
    owner : (z, y, x)
        Any integers; 0 is background.
    smallest, smallest_cut : float
        Pieces of fewer voxels are erased: of those inside, of those that touch the border.

    Returns
    -------
    (z, y, x)
        Labels 1..n in the order of each piece's first voxel; 0 is background.
    """
    labels: NDArray[np.int32] = _pieces(np.ascontiguousarray(owner), smallest, smallest_cut)
    return labels


def _affine(rng: np.random.Generator, config: ShapesConfig) -> NDArray[np.float64]:
    """Matrix from offsets in the sample to offsets in lattice space."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-config.rotation, config.rotation, 3))):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    stretch = np.diag(1.0 + rng.uniform(-config.scale, config.scale, 3))
    shear = np.eye(3) + rng.uniform(-config.shear, config.shear, (3, 3)) * (1 - np.eye(3)) / 2.0
    matrix = matrix @ stretch @ shear
    # The mean radius is drawn on its own: the deformation keeps volumes.
    matrix /= np.cbrt(abs(np.linalg.det(matrix)))
    return matrix


def _elastic(
    rng: np.random.Generator, shape: tuple[int, int, int], config: ShapesConfig
) -> NDArray[np.float32]:
    """Displacement of MONAI's Rand3DElastic: uniform noise times magnitude, after a Gaussian."""
    sigma, magnitude = rng.uniform(*config.elastic_sigma), rng.uniform(*config.elastic_magnitude)
    std = magnitude / np.sqrt(3.0) * (2.0 * np.sqrt(np.pi) * sigma) ** -1.5
    return displacement(rng, shape, sigma / 0.577, std)


@njit(cache=True)
def _assign(  # noqa: C901, PLR0912, PLR0915  (one kernel: compiled calls are flat)
    shape: NDArray[np.int64],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    warp: NDArray[np.float32],
    lattice: NDArray[np.float64],
    seed: np.uint64,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Owner (a number per lattice cell, 0 for none) and relative depth of every voxel."""
    radius, spacing, jitter, dropped = lattice[0], lattice[1], lattice[2], lattice[3]
    thin, thick, log_low, log_high = lattice[4], lattice[5], lattice[6], lattice[7]
    amplitude, frequency = lattice[8], lattice[9]
    owner = np.zeros((shape[0], shape[1], shape[2]), np.int64)
    depth = np.ones((shape[0], shape[1], shape[2]), np.float32)
    noise_seed = seed ^ np.uint64(0x5DEECE66D)
    # Hashing a cell costs more than a distance: cells are kept in a table over the lattice box.
    low = np.full(3, 1e9)
    high = np.full(3, -1e9)
    for corner in range(8):
        for k in range(3):
            value = offset[k]
            for a in range(3):
                value += matrix[k, a] * (shape[a] if corner >> a & 1 else 0)
            low[k], high[k] = min(low[k], value), max(high[k], value)
    first = np.empty(3, np.int64)
    count = np.empty(3, np.int64)
    reach = 4.0 + spacing
    for k in range(3):
        first[k] = int(np.floor((low[k] - reach) / spacing)) - 2
        count[k] = int(np.ceil((high[k] + reach) / spacing)) + 3 - first[k]
    table = np.empty((count[0] * count[1] * count[2], 9))
    for iz in range(count[0]):
        for iy in range(count[1]):
            for ix in range(count[2]):
                z, y, x = iz + first[0], iy + first[1], ix + first[2]
                row = table[(iz * count[1] + iy) * count[2] + ix]
                row[0] = (z + jitter * (2.0 * uniform(seed + 1, z, y, x) - 1.0)) * spacing
                row[1] = (y + jitter * (2.0 * uniform(seed + 2, z, y, x) - 1.0)) * spacing
                row[2] = (x + jitter * (2.0 * uniform(seed + 3, z, y, x) - 1.0)) * spacing
                kept = uniform(seed + 4, z, y, x) >= dropped
                size = radius * (thin + (thick - thin) * uniform(seed + 5, z, y, x))
                row[3] = 1.0 / size if kept else -1.0
                stretch = np.exp(log_low + (log_high - log_low) * uniform(seed + 6, z, y, x))
                if uniform(seed + 7, z, y, x) < 0.4:
                    stretch = 1.0 / stretch
                along = 2.0 * uniform(seed + 8, z, y, x) - 1.0
                turn = 2.0 * np.pi * uniform(seed + 9, z, y, x)
                across = np.sqrt(1.0 - along * along)
                row[4], row[5], row[6] = along, across * np.cos(turn), across * np.sin(turn)
                row[7] = stretch ** (2.0 / 3.0)
                row[8] = stretch ** (-4.0 / 3.0) - row[7]
    for vz in range(shape[0]):
        for vy in range(shape[1]):
            for vx in range(shape[2]):
                pz, py, px = (
                    vz + warp[vz, vy, vx, 0],
                    vy + warp[vz, vy, vx, 1],
                    vx + warp[vz, vy, vx, 2],
                )
                sz = offset[0] + matrix[0, 0] * pz + matrix[0, 1] * py + matrix[0, 2] * px
                sy = offset[1] + matrix[1, 0] * pz + matrix[1, 1] * py + matrix[1, 2] * px
                sx = offset[2] + matrix[2, 0] * pz + matrix[2, 1] * py + matrix[2, 2] * px
                noise = amplitude * perlin(
                    noise_seed, sz * frequency, sy * frequency, sx * frequency
                )
                iz = int(np.round(sz / spacing)) - first[0]
                iy = int(np.round(sy / spacing)) - first[1]
                ix = int(np.round(sx / spacing)) - first[2]
                best, best_at = 1.0, 0
                for jz in range(max(iz - 1, 0), min(iz + 2, count[0])):
                    for jy in range(max(iy - 1, 0), min(iy + 2, count[1])):
                        for jx in range(max(ix - 1, 0), min(ix + 2, count[2])):
                            at = (jz * count[1] + jy) * count[2] + jx
                            row = table[at]
                            if row[3] < 0.0:
                                continue
                            dz, dy, dx = sz - row[0], sy - row[1], sx - row[2]
                            axial = dz * row[4] + dy * row[5] + dx * row[6]
                            squared = (dz * dz + dy * dy + dx * dx) * row[7]
                            squared += axial * axial * row[8]
                            relative = (np.sqrt(max(squared, 0.0)) + noise) * row[3]
                            if relative < best:
                                best, best_at = relative, at + 1
                owner[vz, vy, vx] = best_at
                depth[vz, vy, vx] = max(best, 0.0)
    return owner, depth


@njit(cache=True)
def _pieces(  # noqa: C901  (one kernel)
    owner: NDArray[np.int64], smallest: float, smallest_cut: float
) -> NDArray[np.int32]:
    """Flood every piece once; a piece too small is flooded again with 0."""
    nz, ny, nx = owner.shape
    labels = np.zeros((nz, ny, nx), np.int32)
    queue = np.empty((nz * ny * nx, 3), np.int32)
    seen = np.zeros((nz, ny, nx), np.bool_)
    steps = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
    total = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                value = owner[z, y, x]
                if value == 0 or seen[z, y, x]:
                    continue
                total += 1
                head, tail = 0, 1
                queue[0, 0], queue[0, 1], queue[0, 2] = z, y, x
                seen[z, y, x] = True
                cut = False
                while head < tail:
                    a, b, c = queue[head, 0], queue[head, 1], queue[head, 2]
                    head += 1
                    labels[a, b, c] = total
                    for da, db, dc in steps:
                        i, j, k = a + da, b + db, c + dc
                        if i < 0 or j < 0 or k < 0 or i >= nz or j >= ny or k >= nx:
                            cut = True
                        elif owner[i, j, k] == value and not seen[i, j, k]:
                            seen[i, j, k] = True
                            queue[tail, 0], queue[tail, 1], queue[tail, 2] = i, j, k
                            tail += 1
                if tail < (smallest_cut if cut else smallest):
                    for at in range(tail):
                        labels[queue[at, 0], queue[at, 1], queue[at, 2]] = 0
                    total -= 1
    return labels
