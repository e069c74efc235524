"""Numbers by which stars are told apart: contrast to their surroundings, shape of the polyhedron.

A star is measured as it was found, whoever covers a part of it. Each is a function of one star (and
of the image of its tile), summed in fixed order: it does not depend on which other stars are
measured in the same call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from anystar_batch.geometry import ZYX, Box, ZYXFloat
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.jit import kernel, ready
from anystar_batch.stars.polyhedra import volumes
from anystar_batch.stars.rays import Rays

SAMPLES = 4
"""Samples along a ray inside the star, and as many outside."""

INSIDE = (0.0, 0.9)
"""Where the inside is sampled, in multiples of a ray's distance: the surface itself is blurred."""

SHELL = (1.1, 1.4)
"""Where the surroundings are sampled, likewise."""

COLUMNS = {
    "solidity": "solidity",
    "sphericity": "sphericity",
    "surface": "surface_area_um2",
    "feret": "feret_diameter_max_um",
}
"""Names of the measures, and of their columns."""


def regularity(dist: NDArray[np.float32], rays: Rays) -> NDArray[np.float32]:
    """Return the share of its convex hull that each star fills: its solidity.

    Parameters
    ----------
    dist : float32 [n, n_rays]
        Working voxels, positive.
    rays : Rays

    Returns
    -------
    float32 [n]
        1 for a convex star; less for a ragged or bent one. The star of a long ellipsoid is not
        quite convex, as few rays meet its ends: 0.99 at 2 : 1, 0.94 at 4 : 2 : 1.
    """
    corners = dist.astype(np.float64)[:, :, None] * rays.vertices
    hulls = np.array([ConvexHull(c).volume for c in corners], np.float64)
    # Rounding may leave a convex star just above 1.
    return np.minimum(volumes(dist, rays) / hulls, 1.0).astype(np.float32)


def contrasts(
    image: NDArray[np.float32], start: ZYX, seen: Box, candidates: Candidates, rays: Rays
) -> NDArray[np.float32]:
    """Return how much each star differs from a shell around it, in standard deviations.

    ::

        |mean inside - mean in the shell| / sqrt((variance inside + variance in the shell) / 2)

    Both are sampled along the star's own rays, nearest voxels: `SAMPLES` distances in `INSIDE` and
    as many in `SHELL`, so chosen that each stands for the same volume of its cone. Rays count
    alike.

    Parameters
    ----------
    image : float32 (z, y, x)
        A tile's window, normalised, working voxels.
    start : (z, y, x)
        Index of `image[0, 0, 0]` in the volume.
    seen : Box
        Part of the window that lies in the volume; nothing else is sampled.
    candidates : Candidates
    rays : Rays

    Returns
    -------
    float32 [n]
        Not negative. NaN where nothing of the star or of its shell is in `seen`, infinite where
        two constants differ.

    References
    ----------
    The sensitivity index d' of signal detection theory (d_a, for unequal variances).
    """
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES
    # Equal volumes of a cone between two radii: equal steps of the radius cubed.
    factors = [np.cbrt((1.0 - steps) * low**3 + steps * high**3) for low, high in (INSIDE, SHELL)]
    return _contrasts(
        ready(image, np.float32),
        np.array(start, np.int64),
        np.array([seen.start, seen.stop], np.int64),
        ready(candidates.points, np.int32),
        ready(candidates.dist, np.float32),
        ready(rays.vertices, np.float64),
        np.stack(factors),
    )


@kernel
def _contrasts(  # noqa: PLR0913
    image: NDArray[np.float32],
    start: NDArray[np.int64],
    seen: NDArray[np.int64],
    points: NDArray[np.int32],
    dist: NDArray[np.float32],
    vertices: NDArray[np.float64],
    factors: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Sample, then mean and variance in two passes, in the order of rays and samples."""
    result = np.empty(len(points), np.float32)
    values = np.empty(dist.shape[1] * factors.shape[1], np.float64)
    mean = np.zeros(2, np.float64)
    variance = np.zeros(2, np.float64)
    for i in range(len(points)):
        is_seen = True
        for part in range(2):
            count = 0
            total = 0.0
            for k in range(dist.shape[1]):
                for j in range(factors.shape[1]):
                    reach = np.float64(dist[i, k]) * factors[part, j]
                    z = points[i, 0] + np.int64(np.floor(reach * vertices[k, 0] + 0.5))
                    y = points[i, 1] + np.int64(np.floor(reach * vertices[k, 1] + 0.5))
                    x = points[i, 2] + np.int64(np.floor(reach * vertices[k, 2] + 0.5))
                    if (
                        seen[0, 0] <= z < seen[1, 0]
                        and seen[0, 1] <= y < seen[1, 1]
                        and seen[0, 2] <= x < seen[1, 2]
                    ):
                        value = np.float64(image[z - start[0], y - start[1], x - start[2]])
                        values[count] = value
                        count += 1
                        total += value
            if count == 0:
                is_seen = False
                break
            mean[part] = total / count
            squares = 0.0
            for n in range(count):
                squares += (values[n] - mean[part]) ** 2
            variance[part] = squares / count
        if not is_seen:
            result[i] = np.nan
            continue
        difference = abs(mean[0] - mean[1])
        spread = np.sqrt((variance[0] + variance[1]) / 2.0)
        if spread > 0.0:
            result[i] = difference / spread
        else:
            result[i] = np.inf if difference > 0.0 else 0.0
    return result


def shapes(
    dist: NDArray[np.float32], rays: Rays, step_um: ZYXFloat, names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return some measures of stars.

    Parameters
    ----------
    dist : float32 [n, n_rays]
        Working voxels, positive.
    rays : Rays
    step_um : (z, y, x)
        Micrometres per working voxel.
    names : sequence of str
        Out of `COLUMNS`.

    Returns
    -------
    dict
        Column to float32 [n]. `solidity`: volume over that of the convex hull. `sphericity`:
        surface of a ball of the same volume over the surface, 1 for a ball (0.99 for the
        polyhedron of 96 rays). `surface_area_um2`. `feret_diameter_max_um`: the largest distance
        of two corners.
    """
    columns: dict[str, NDArray[np.float32]] = {}
    step = np.asarray(step_um, np.float64)
    corners = ready(rays.vertices * step, np.float64)
    dist = ready(dist, np.float32)
    for name in names:
        values: NDArray[np.floating]
        if name == "solidity":
            values = regularity(dist, rays)
        elif name == "feret":
            values = _feret(dist, corners)
        else:
            values = _areas(dist, corners, ready(rays.faces, np.int64))
            if name == "sphericity":
                volume = volumes(dist, rays) * step.prod()
                values = np.cbrt(np.pi) * np.cbrt(6 * volume) ** 2 / np.where(values > 0, values, 1)
        columns[COLUMNS[name]] = np.asarray(values, np.float32)
    return columns


@kernel
def _areas(
    dist: NDArray[np.float32], corners: NDArray[np.float64], faces: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Surface of every star: half the cross products of its faces' edges, in order."""
    areas = np.zeros(len(dist), np.float64)
    for i in range(len(dist)):
        total = 0.0
        for f in range(len(faces)):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            p = dist[i, b] * corners[b] - dist[i, a] * corners[a]
            q = dist[i, c] * corners[c] - dist[i, a] * corners[a]
            z = p[1] * q[2] - p[2] * q[1]
            y = p[2] * q[0] - p[0] * q[2]
            x = p[0] * q[1] - p[1] * q[0]
            total += 0.5 * np.sqrt(z * z + y * y + x * x)
        areas[i] = total
    return areas


@kernel
def _feret(dist: NDArray[np.float32], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest distance of two corners of every star."""
    diameters = np.zeros(len(dist), np.float64)
    at = np.empty(corners.shape, np.float64)
    for i in range(len(dist)):
        for a in range(len(corners)):
            for k in range(3):
                at[a, k] = dist[i, a] * corners[a, k]
        largest = 0.0
        for a in range(len(corners)):
            for b in range(a):
                z, y, x = at[a, 0] - at[b, 0], at[a, 1] - at[b, 1], at[a, 2] - at[b, 2]
                largest = max(largest, z * z + y * y + x * x)
        diameters[i] = np.sqrt(largest)
    return diameters
