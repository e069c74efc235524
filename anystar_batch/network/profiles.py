"""What the second look sees of an object: intensities along its rays, as the object's own shape.

Every ray is sampled at `SAMPLES` places, from near the centre to `REACH` times the distance that
the first look gave it, so a sample's place means the same in objects of any size::

    point  .  .  .  .  .  |  .  .  .  .  .  .        sample k at (k + 1) / 15 of the distance
                          first look's surface (k = 14)

The samples of an object are brought to mean 0 and spread 1, far values are bent, and the sign is
turned so that the core is brighter than what lies around it: contrast, dimness and inversion are
gone. Offsets are taken from the fraction of the centre alone, never from the box: the same bytes
wherever the image was cut.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box, ZYXFloat
from anystar_batch.kernel_cache import compiled
from anystar_batch.network.row_products import EIGHT, mean_of_six, turn_rows

SAMPLES = 33
"""Samples of a ray."""

PER_DIST = 15
"""Samples up to the first look's surface."""

REACH = SAMPLES / PER_DIST
"""Farthest sample, times the distance."""

CHANNELS = 4
"""Of a sample: the ray's own, its neighbours' mean, the mean of all rays, outside the volume."""

SCALARS = 4
"""Of a ray: its distance against the object's mean and against its neighbours' mean, its length in
voxels (all as logarithms), and its share of samples outside."""

NEAREST = 6
"""Rays that count as neighbours."""

FRACTION = float(1 << 24)
"""Steps per voxel in which the fractional part of a centre is held."""

_NEAR = 21
"""Samples that set mean and spread: up to 1.4 times the distance. Farther lies somebody else."""

_CORE, _AROUND = 11, (17, 25)
"""Samples of the core (up to 0.73), and of what lies around it (1.2 to 1.67)."""

_TOGETHER = 3
"""Places whose sums over the rays go on side by side, and do not wait for each other."""

_BEND = 3.0
"""Spreads at which a value is halved: a ten times brighter neighbour must not hide the object."""


def neighbours(directions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rays nearest to each ray by angle, nearest first; ties by number.

    Parameters
    ----------
    directions : float64 [n_rays, 3]
        Unit vectors.

    Returns
    -------
    int64 [n_rays, 6]
    """
    cosine = np.round(directions @ directions.T, 9)
    np.fill_diagonal(cosine, -2.0)
    order = np.argsort(-cosine, axis=1, kind="stable")
    return np.ascontiguousarray(order[:, :NEAREST]).astype(np.int64)


def centres(points: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Split centres into whole voxels and fractions of 1/2**24 voxel.

    Parameters
    ----------
    points : [n, 3]
        Axes (z, y, x), voxels; integers are voxel centres.

    Returns
    -------
    whole : int64 [n, 3]
    fraction : float64 [n, 3]
        0 to 1.
    """
    exact = np.asarray(points, np.float64)
    whole = np.floor(exact)
    return whole.astype(np.int64), np.rint((exact - whole) * FRACTION) / FRACTION


def window(
    points: NDArray[np.floating], dist: NDArray[np.float32], step: ZYXFloat, shape: ZYX
) -> Box:
    """Return the box of voxels that the profiles of these objects read.

    Parameters
    ----------
    points : [n, 3]
        Centres, axes (z, y, x), voxels of the image.
    dist : float32 [n, n_rays]
        Working voxels.
    step : (z, y, x)
        Voxels of the image per working voxel.
    shape : (z, y, x)
        The whole volume, voxels of the image.

    Returns
    -------
    Box
        Inside the volume; never empty.
    """
    if len(points) == 0:
        return Box((0, 0, 0), (1, 1, 1))
    reach = REACH * dist.max(axis=1).astype(np.float64)[:, None] * np.asarray(step)
    low = np.floor((points - reach).min(axis=0)).astype(int) - 1
    high = np.ceil((points + reach).max(axis=0)).astype(int) + 2
    last = [n - 1 for n in shape]
    start = [min(max(int(a), 0), n) for a, n in zip(low, last, strict=True)]
    stop = [max(min(int(b), n + 1), a + 1) for a, b, n in zip(start, high, last, strict=True)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


@compiled(error_model="numpy")
def profiles(  # noqa: PLR0913  (a kernel takes arrays, not objects)
    image: NDArray[np.float32],
    origin: NDArray[np.int64],
    shape: NDArray[np.int64],
    whole: NDArray[np.int64],
    fraction: NDArray[np.float64],
    dist: NDArray[np.float32],
    spokes: NDArray[np.float64],
    near: NDArray[np.int64],
    values: NDArray[np.float32],
    scalars: NDArray[np.float32],
) -> None:
    """Fill the profiles of some objects, one after the other.

    Parameters
    ----------
    image : float32 (z, y, x)
        A box of the volume, finite.
    origin : int64 [3]
        Voxel of the volume that is the box's first one.
    shape : int64 [3]
        The whole volume; samples beyond it repeat its border and are marked.
    whole, fraction : [n, 3]
        From `centres`.
    dist : float32 [n, n_rays]
        Working voxels, positive.
    spokes : float64 [n_rays, 3]
        Directions times the voxels per working voxel.
    near : int64 [n_rays, 6]
        From `neighbours`.
    values : float32 [n, SAMPLES, CHANNELS, n_rays]
        Written. All 0 where the object's samples are all alike.
    scalars : float32 [n, SCALARS, n_rays]
        Written.
    """
    n_rays = dist.shape[1]
    room = (np.empty((3, n_rays)), np.empty(n_rays, np.int64), np.empty((3, n_rays), np.float32))
    n_places = -(-SAMPLES // EIGHT) * EIGHT
    by_ray, means = (
        np.zeros((n_rays, n_places), np.float32),
        np.empty((n_rays, n_places), np.float32),
    )
    for i in range(len(dist)):
        if _is_inside(shape, whole[i], dist[i], spokes):
            _sample_inside(image, origin, whole[i], fraction[i], dist[i], spokes, room, values[i])
        else:
            _sample(image, origin, shape, whole[i], fraction[i], dist[i], spokes, values[i])
        _standardise(values[i])
        _mean_of_all(values[i])
        _surround(values[i], near, by_ray, means)
        _measure(dist[i], spokes, near, values[i], scalars[i])


@compiled(error_model="numpy", _nrt=False)
def _is_inside(
    shape: NDArray[np.int64],
    whole: NDArray[np.int64],
    dist: NDArray[np.float32],
    spokes: NDArray[np.float64],
) -> bool:
    """Whether no sample of an object comes near the volume's border."""
    for axis in range(3):
        farthest = 0.0
        for ray in range(len(dist)):
            farthest = max(farthest, abs(spokes[ray, axis]) * np.float64(dist[ray]))
        reach = np.int64(farthest * REACH) + 3
        if whole[axis] - reach < 0 or whole[axis] + reach >= shape[axis]:
            return False
    return True


@compiled(error_model="numpy", _nrt=False)
def _sample_inside(  # noqa: PLR0913
    image: NDArray[np.float32],
    origin: NDArray[np.int64],
    whole: NDArray[np.int64],
    fraction: NDArray[np.float64],
    dist: NDArray[np.float32],
    spokes: NDArray[np.float64],
    room: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float32]],
    values: NDArray[np.float32],
) -> None:
    """The same as `_sample`, where no sample comes near the volume's border.

    All rays at a place before the next: what is counted needs no memory and goes several rays at a
    time, what is read then waits for nothing.
    """
    n_rays = len(dist)
    pixels, rows, plane = image.reshape(-1), image.shape[2], image.shape[1] * image.shape[2]
    cz, cy, cx = whole[0] - origin[0], whole[1] - origin[1], whole[2] - origin[2]
    centre = cz * plane + cy * rows + cx
    step, corner, weight = room
    for ray in range(n_rays):
        part = np.float64(dist[ray]) / PER_DIST
        for axis in range(3):
            step[axis, ray] = spokes[ray, axis] * part
    for k in range(SAMPLES):
        for ray in range(n_rays):
            fz = fraction[0] + step[0, ray] * (k + 1)
            fy = fraction[1] + step[1, ray] * (k + 1)
            fx = fraction[2] + step[2, ray] * (k + 1)
            lz, ly, lx = np.floor(fz), np.floor(fy), np.floor(fx)
            weight[0, ray], weight[1, ray] = np.float32(fz - lz), np.float32(fy - ly)
            weight[2, ray] = np.float32(fx - lx)
            corner[ray] = np.int64(lz * plane + ly * rows + lx)
        for ray in range(n_rays):
            wz, wy, wx = weight[0, ray], weight[1, ray], weight[2, ray]
            i = np.uint64(centre + corner[ray])
            j = i + np.uint64(rows)
            a, b = pixels[i], pixels[j]
            a += wx * (pixels[i + np.uint64(1)] - a)
            b += wx * (pixels[j + np.uint64(1)] - b)
            a += wy * (b - a)
            i += np.uint64(plane)
            j += np.uint64(plane)
            c, d = pixels[i], pixels[j]
            c += wx * (pixels[i + np.uint64(1)] - c)
            d += wx * (pixels[j + np.uint64(1)] - d)
            c += wy * (d - c)
            values[k, 0, ray] = a + wz * (c - a)
            values[k, 3, ray] = np.float32(0.0)


@compiled(error_model="numpy")
def _sample(  # noqa: PLR0913
    image: NDArray[np.float32],
    origin: NDArray[np.int64],
    shape: NDArray[np.int64],
    whole: NDArray[np.int64],
    fraction: NDArray[np.float64],
    dist: NDArray[np.float32],
    spokes: NDArray[np.float64],
    values: NDArray[np.float32],
) -> None:
    """Trilinear intensities in channel 0, marks in channel 3."""
    high_z, high_y, high_x = shape[0] - 1, shape[1] - 1, shape[2] - 1
    for ray in range(len(dist)):
        part = np.float64(dist[ray]) / PER_DIST
        dz, dy, dx = spokes[ray, 0] * part, spokes[ray, 1] * part, spokes[ray, 2] * part
        for k in range(SAMPLES):
            fz = fraction[0] + dz * (k + 1)
            fy = fraction[1] + dy * (k + 1)
            fx = fraction[2] + dx * (k + 1)
            iz, iy, ix = math.floor(fz), math.floor(fy), math.floor(fx)
            wz, wy, wx = np.float32(fz - iz), np.float32(fy - iy), np.float32(fx - ix)
            z, y, x = whole[0] + np.int64(iz), whole[1] + np.int64(iy), whole[2] + np.int64(ix)
            beyond = (
                (z < 0 and (z < -1 or wz < 0.5))
                or (y < 0 and (y < -1 or wy < 0.5))
                or (x < 0 and (x < -1 or wx < 0.5))
                or (z >= high_z and (z > high_z or wz > 0.5))
                or (y >= high_y and (y > high_y or wy > 0.5))
                or (x >= high_x and (x > high_x or wx > 0.5))
            )
            z0, z1 = min(max(z, 0), high_z) - origin[0], min(max(z + 1, 0), high_z) - origin[0]
            y0, y1 = min(max(y, 0), high_y) - origin[1], min(max(y + 1, 0), high_y) - origin[1]
            x0, x1 = min(max(x, 0), high_x) - origin[2], min(max(x + 1, 0), high_x) - origin[2]
            a = image[z0, y0, x0] + wx * (image[z0, y0, x1] - image[z0, y0, x0])
            b = image[z0, y1, x0] + wx * (image[z0, y1, x1] - image[z0, y1, x0])
            c = image[z1, y0, x0] + wx * (image[z1, y0, x1] - image[z1, y0, x0])
            d = image[z1, y1, x0] + wx * (image[z1, y1, x1] - image[z1, y1, x0])
            a += wy * (b - a)
            c += wy * (d - c)
            values[k, 0, ray] = a + wz * (c - a)
            values[k, 3, ray] = np.float32(1.0) if beyond else np.float32(0.0)


@compiled(error_model="numpy")
def _standardise(values: NDArray[np.float32]) -> None:
    """Bring channel 0 to mean 0, spread 1 and a bright core, bend far values; sums in one order."""
    n_rays = values.shape[2]
    shift = np.float64(values[0, 0, 0])
    total, square, core, around = 0.0, 0.0, 0.0, 0.0
    for k in range(_AROUND[1]):
        row = 0.0
        for ray in range(n_rays):
            value = np.float64(values[k, 0, ray]) - shift
            row += value
            if k < _NEAR:
                square += value * value
        if k < _NEAR:
            total += row
        if k < _CORE:
            core += row
        if k >= _AROUND[0]:
            around += row
    count = _NEAR * n_rays
    mean = total / count
    spread = math.sqrt(max(square / count - mean * mean, 0.0))
    contrast = core / (_CORE * n_rays) - around / ((_AROUND[1] - _AROUND[0]) * n_rays)
    gain = 0.0
    if spread > 1e-6 * (abs(shift) + abs(mean)):
        gain = (1.0 if contrast >= 0.0 else -1.0) / spread
    scale, middle = np.float32(gain), np.float32(shift + mean)
    bend = np.float32(1.0 / _BEND)
    for k in range(SAMPLES):
        for ray in range(n_rays):
            value = (values[k, 0, ray] - middle) * scale
            values[k, 0, ray] = value / (np.float32(1.0) + abs(value) * bend)


@compiled(error_model="numpy", _nrt=False)
def _mean_of_all(values: NDArray[np.float32]) -> None:
    """Mean of all rays in channel 2: sums in order, those of some places side by side."""
    n_rays = values.shape[2]
    share = np.float32(1.0 / n_rays)
    for k in range(0, SAMPLES, _TOGETHER):
        a, b, c = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for ray in range(n_rays):
            a += values[k, 0, ray]
            b += values[k + 1, 0, ray]
            c += values[k + 2, 0, ray]
        values[k, 2], values[k + 1, 2], values[k + 2, 2] = a * share, b * share, c * share


@compiled(error_model="numpy", _nrt=False)
def _surround(
    values: NDArray[np.float32],
    near: NDArray[np.int64],
    by_ray: NDArray[np.float32],
    means: NDArray[np.float32],
) -> None:
    """Mean of the neighbours in channel 1.

    Ray by ray in `by_ray` first: there all samples of a neighbour lie side by side.
    """
    n_rays = len(near)
    rows = values.reshape(-1, n_rays)
    turn_rows(rows, 0, CHANNELS, SAMPLES, by_ray, 0, 1, n_rays)
    for ray in range(n_rays):
        for k in range(0, by_ray.shape[1], EIGHT):
            mean_of_six(by_ray, near, ray, k, means)
    turn_rows(means, 0, 1, n_rays, rows, 1, CHANNELS, SAMPLES)


@compiled(error_model="numpy")
def _measure(
    dist: NDArray[np.float32],
    spokes: NDArray[np.float64],
    near: NDArray[np.int64],
    values: NDArray[np.float32],
    scalars: NDArray[np.float32],
) -> None:
    """What is known of a ray as a whole; logarithms in float64, then rounded."""
    n_rays = len(dist)
    total = 0.0
    for ray in range(n_rays):
        total += np.float64(dist[ray])
    for ray in range(n_rays):
        around = 0.0
        for k in range(NEAREST):
            around += np.float64(dist[near[ray, k]])
        own = np.float64(dist[ray])
        z, y, x = spokes[ray, 0], spokes[ray, 1], spokes[ray, 2]
        voxels = own * math.sqrt(z * z + y * y + x * x)
        scalars[0, ray] = np.float32(math.log(own * n_rays / total))
        scalars[1, ray] = np.float32(math.log(own * NEAREST / around))
        scalars[2, ray] = np.float32(0.5 * math.log(min(max(voxels, 1.0), 24.0) / 5.0))
    outside = scalars[3]
    outside[:] = np.float32(0.0)
    for k in range(SAMPLES):
        for ray in range(n_rays):
            outside[ray] += values[k, 3, ray]
    for ray in range(n_rays):
        outside[ray] *= np.float32(1.0 / SAMPLES)
