"""A synthetic volume of any size: every voxel is a function of the seed and its position alone.

Objects sit on a jittered lattice; every property of one is a hash of its cell. An object is the
body around its centre that no neighbour is nearer to, cut at a bumpy ellipsoid::

    winner(x)  = the cell with the least  |x - c_i| - r_i         (cells star-shaped about c_i)
    inside(x)  = |x - c| < r * ellipsoid(u) * (1 + bumps(u)),     u = (x - c) / |x - c|

Both are star-shaped about the centre, so the truth is what a star-convex method can find. A
label is the number of its cell plus 1: unique, not consecutive. The image is fluorescence-like: one
stain, chromatin, a mild blur, out-of-focus light, and noise that is hashed voxel by voxel.

Any box computed alone has the voxels that the whole volume has there: sums run in the same order
whatever the box. There is a test for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX, Box, as_zyx
from trainer.synthesis.noise import perlin, uniform

DENSITIES = {"sparse": (4.0, 0.5), "dense": (1.75, 0.05)}
"""Lattice spacing over the mean radius, and the share of cells that stay empty."""

SPREAD = (0.7, 1.15)
"""Radius over the mean radius, smallest and largest."""

STRETCH = 1.25
"""Largest elongation of an ellipsoid's long axis."""

BUMPS = 0.15
"""Amplitude of the bumps over the radius."""

OFFSET, SIGNAL = 100.0, 1200.0
"""Grey levels: of the camera, and of a middling object."""

COARSE = 4
"""Voxels per axis over which out-of-focus light is averaged."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """A volume that is computed where it is asked for.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels.
    radius : float
        Mean radius of the objects, voxels.
    density : str
        One of `DENSITIES`.
    seed : int
        Not negative.
    """

    shape: ZYX
    radius: float = 6.0
    density: str = "dense"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 2:
            message = f"phantom: got shape {self.shape}; expected 2 voxels or more on every axis"
            raise ConfigError(message)
        if not 2.0 <= self.radius <= 64.0:
            message = f"phantom: got radius {self.radius:g}; expected 2 to 64 voxels"
            raise ConfigError(message)
        if self.density not in DENSITIES:
            message = f"phantom: got density {self.density!r}; expected {' or '.join(DENSITIES)}"
            raise ConfigError(message)
        if self.seed < 0:
            message = f"phantom: got seed {self.seed}; expected 0 or more"
            raise ConfigError(message)
        if math.prod(self.cells) >= 2**32 - 1:
            message = (
                f"phantom: {self.shape} holds {math.prod(self.cells)} cells of objects; expected "
                "fewer than 2^32, the labels' range; give a larger radius"
            )
            raise ConfigError(message)

    @property
    def spacing(self) -> float:
        """Edge of a lattice cell, voxels."""
        return DENSITIES[self.density][0] * self.radius

    @property
    def cells(self) -> ZYX:
        """Lattice cells per axis."""
        return as_zyx(math.ceil(n / self.spacing) for n in self.shape)

    @property
    def _key(self) -> np.uint64:
        """The seed, multiplied so that the streams of neighbouring seeds are apart."""
        return np.uint64((self.seed + 1) * 0x9E3779B97F4A7C15 % 2**64)

    def labels(self, box: Box) -> NDArray[np.uint32]:
        """Return the labels of a box inside the volume, (z, y, x)."""
        return self._labels(box)[0]

    def image(self, box: Box) -> NDArray[np.uint16]:
        """Return the intensities of a box inside the volume, (z, y, x)."""
        return self.both(box)[0]

    def both(self, box: Box) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
        """Return intensities and labels of a box inside the volume.

        Parameters
        ----------
        box : Box
            Voxels.

        Returns
        -------
        image, labels : (z, y, x)

        Notes
        -----
        Memory: about 20 bytes for each voxel of the box grown by three radii.
        """
        far = _gauss(self.radius / COARSE, widths=2.0)
        reach = (len(far) // 2 + 1) * COARSE
        # Whole coarse voxels, also beyond the volume: nothing is there.
        start = as_zyx((a - reach) // COARSE * COARSE for a in box.start)
        stop = as_zyx(-(-(b + reach) // COARSE) * COARSE for b in box.stop)
        outer = Box(start, stop)
        labels, sharp = self._labels(outer)
        hazed = sharp
        for axis in range(3):
            parts = np.moveaxis(hazed, axis, 0)
            mean = ((parts[0::4] + parts[1::4]) + (parts[2::4] + parts[3::4])) * np.float32(0.25)
            hazed = np.moveaxis(mean, 0, axis)
        haze = _correlated(hazed, (far, far, far))
        inner = box.relative_to(start)
        near = (_gauss(1.2, widths=3.0), _gauss(0.7, widths=3.0), _gauss(0.7, widths=3.0))
        margin = as_zyx(len(w) // 2 for w in near)
        blurred = _correlated(sharp[inner.grow(margin).slices], near)
        out = np.empty(box.shape, np.uint16)
        _expose(
            blurred, haze, np.array(inner.start) - len(far) // 2 * COARSE,
            np.array(box.start), self._key, out,
        )  # fmt: skip
        return out, np.ascontiguousarray(labels[inner.slices])

    def _labels(self, box: Box) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Labels and sharp intensities of any box, also beyond the volume."""
        spacing, empty = self.spacing, DENSITIES[self.density][1]
        numbers = np.array(
            [self.radius, spacing, empty, SPREAD[0], SPREAD[1], STRETCH, BUMPS, SIGNAL]
        )
        labels = np.zeros(box.shape, np.uint32)
        sharp = np.zeros(box.shape, np.float32)
        _draw(np.array(box.start), np.array(self.cells), numbers, self._key, labels, sharp)
        return labels, sharp


def _gauss(sigma: float, widths: float) -> NDArray[np.float32]:
    """Weights of a Gaussian up to so many widths; their sum is 1."""
    reach = max(1, math.ceil(widths * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    scaled: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return scaled


def _correlated(
    values: NDArray[np.float32], weights: tuple[NDArray[np.float32], ...]
) -> NDArray[np.float32]:
    """Weighted sums along the three axes, without the margin where a weight has no voxel."""
    for axis in range(3):
        moved = np.ascontiguousarray(np.moveaxis(values, axis, 0))
        n = len(moved) - len(weights[axis]) + 1
        flat = np.zeros((n, moved[0].size), np.float32)
        _weigh(moved.reshape(len(moved), -1), weights[axis], flat)
        values = np.moveaxis(flat.reshape(n, *moved.shape[1:]), 0, axis)
    return np.ascontiguousarray(values)


@njit(cache=True)
def _unit(key: np.uint64, z: int, y: int, x: int) -> float:
    """`noise.uniform`, compiled once: inlined nine times it takes a minute."""
    value: float = uniform(key, z, y, x)
    return value


@njit(cache=True)
def _noise(key: np.uint64, z: float, y: float, x: float) -> float:
    """`noise.perlin`, compiled once."""
    value: float = perlin(key, z, y, x)
    return value


@njit(cache=True)
def _weigh(
    rows: NDArray[np.float32], weights: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Sums of weighted rows, in order: the same bits whatever the box."""
    for i in range(out.shape[0]):
        for k in range(weights.size):
            for j in range(out.shape[1]):
                out[i, j] += weights[k] * rows[i + k, j]


@njit(cache=True)
def _draw(  # noqa: C901, PLR0912, PLR0915  (one kernel: compiled calls are flat)
    start: NDArray[np.int64],
    cells: NDArray[np.int64],
    numbers: NDArray[np.float64],
    seed: np.uint64,
    labels: NDArray[np.uint32],
    sharp: NDArray[np.float32],
) -> None:
    """Draw every object near the box: first who is nearest, then where its surface is."""
    radius, spacing, empty, thin, thick = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    stretch, bumps, signal = numbers[5], numbers[6], numbers[7]
    bulge = radius * thick * (stretch * (1.0 + bumps) - 1.0)
    reach = radius * thick + bulge + 1.0
    shape = labels.shape
    first, count = np.empty(3, np.int64), np.empty(3, np.int64)
    for k in range(3):
        first[k] = int(np.floor((start[k] - reach) / spacing)) - 1
        count[k] = int(np.floor((start[k] + shape[k] + reach) / spacing)) + 2 - first[k]
    table = np.empty((count[0] * count[1] * count[2], 9))
    nearest = np.full(shape, np.float32(1e9))
    winner = np.full(shape, -1, np.int32)
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for at in range(len(table)):
        z = first[0] + at // (count[1] * count[2])
        y = first[1] + at // count[2] % count[1]
        x = first[2] + at % count[2]
        row = table[at]
        inside = 0 <= z < cells[0] and 0 <= y < cells[1] and 0 <= x < cells[2]
        if not inside or _unit(seed + np.uint64(4), z, y, x) < empty:
            continue
        row[0] = (z + 0.5 + 0.5 * (_unit(seed + np.uint64(1), z, y, x) - 0.5)) * spacing
        row[1] = (y + 0.5 + 0.5 * (_unit(seed + np.uint64(2), z, y, x) - 0.5)) * spacing
        row[2] = (x + 0.5 + 0.5 * (_unit(seed + np.uint64(3), z, y, x) - 0.5)) * spacing
        row[3] = radius * (thin + (thick - thin) * _unit(seed + np.uint64(5), z, y, x))
        row[4] = 1.0 + (stretch - 1.0) * _unit(seed + np.uint64(6), z, y, x)
        along = 2.0 * _unit(seed + np.uint64(7), z, y, x) - 1.0
        turn = 2.0 * np.pi * _unit(seed + np.uint64(8), z, y, x)
        across = np.sqrt(1.0 - along * along)
        row[5], row[6], row[7] = along, across * np.cos(turn), across * np.sin(turn)
        row[8] = signal * (0.6 + 0.8 * _unit(seed + np.uint64(9), z, y, x))
        # Whoever's surface may reach a voxel, and whoever may be nearer there, is asked.
        most = row[3] + bulge + 1.0
        for k in range(3):
            low[k] = max(int(np.ceil(row[k] - most)) - start[k], 0)
            high[k] = min(int(np.floor(row[k] + most)) + 1 - start[k], shape[k])
        for vz in range(low[0], high[0]):
            dz = (start[0] + vz) - row[0]
            for vy in range(low[1], high[1]):
                dy = (start[1] + vy) - row[1]
                for vx in range(low[2], high[2]):
                    dx = (start[2] + vx) - row[2]
                    squared = dz * dz + dy * dy + dx * dx
                    if squared > most * most:
                        continue
                    depth = np.float32(np.sqrt(squared) - row[3])
                    # Cells come in the same order in every box: the first of two equals wins.
                    if depth < nearest[vz, vy, vx]:
                        nearest[vz, vy, vx] = depth
                        winner[vz, vy, vx] = at
    for vz in range(shape[0]):
        for vy in range(shape[1]):
            for vx in range(shape[2]):
                at = winner[vz, vy, vx]
                if at < 0:
                    continue
                row = table[at]
                pz, py, px = float(start[0] + vz), float(start[1] + vy), float(start[2] + vx)
                dz, dy, dx = pz - row[0], py - row[1], px - row[2]
                distance = np.sqrt(dz * dz + dy * dy + dx * dx)
                inverse = 1.0 / max(distance, 1e-6)
                axial = (dz * row[5] + dy * row[6] + dx * row[7]) * inverse
                # A prolate ellipsoid along its axis: long axis r * s, the others r / sqrt(s).
                s = row[4]
                surface = row[3] / np.sqrt(s + axial * axial * (1.0 / (s * s) - s))
                z = first[0] + at // (count[1] * count[2])
                y = first[1] + at // count[2] % count[1]
                x = first[2] + at % count[2]
                # Bumps: noise on the unit sphere, each object's at a place of its own.
                own = 64.0 * (1 + (z * 31 + y * 17 + x * 7) % 4096)
                bump = _noise(
                    seed + np.uint64(10),
                    own + 1.4 * dz * inverse,
                    own + 1.4 * dy * inverse,
                    own + 1.4 * dx * inverse,
                )
                if distance >= surface * (1.0 + bumps * max(-1.0, min(1.0, bump))):
                    continue
                chromatin = _noise(
                    seed + np.uint64(11), pz * 2.5 / radius, py * 2.5 / radius, px * 2.5 / radius
                )
                sharp[vz, vy, vx] = np.float32(row[8] * (1.0 + 0.35 * chromatin))
                labels[vz, vy, vx] = np.uint32(1 + (z * cells[1] + y) * cells[2] + x)


@njit(cache=True)
def _expose(
    blurred: NDArray[np.float32],
    haze: NDArray[np.float32],
    inner: NDArray[np.int64],
    start: NDArray[np.int64],
    seed: np.uint64,
    out: NDArray[np.uint16],
) -> None:
    """Add out-of-focus light, photon and read-out noise; round to grey levels.

    `inner` is the box's first voxel counted from the first voxel of `haze`, whose voxels hold
    `COARSE` voxels per axis; `start` is the same voxel counted from the volume's.
    """
    nz, ny, nx = out.shape
    p, i, f = np.empty(3), np.empty(3, np.int64), np.empty(3)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                v = (inner[0] + z, inner[1] + y, inner[2] + x)
                for k in range(3):
                    p[k] = (v[k] - (COARSE - 1) / 2.0) / COARSE
                    i[k] = int(np.floor(p[k]))
                    f[k] = p[k] - i[k]
                far = 0.0
                for corner in range(8):
                    a, b, c = corner >> 2, corner >> 1 & 1, corner & 1
                    weight = (f[0] if a else 1.0 - f[0]) * (f[1] if b else 1.0 - f[1])
                    weight *= f[2] if c else 1.0 - f[2]
                    far += weight * haze[i[0] + a, i[1] + b, i[2] + c]
                light = blurred[z, y, x] + 0.25 * far + 20.0
                # Four uniforms of 13 bits, out of one hash, make a normal number good enough.
                bits = _unit(seed + np.uint64(12), start[0] + z, start[1] + y, start[2] + x)
                normal = 0.0
                for _ in range(4):
                    bits *= 8192.0
                    normal += np.floor(bits) / 8192.0
                    bits -= np.floor(bits)
                normal = (normal - 2.0) * 1.7320508
                grey = OFFSET + light + normal * np.sqrt(64.0 + 4.0 * light)
                out[z, y, x] = np.uint16(min(max(grey + 0.5, 0.0), 65535.0))
