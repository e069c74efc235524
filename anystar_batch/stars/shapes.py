"""Shapes of whole stars: of the polyhedron as it was found, whoever covers a part of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYXFloat
from anystar_batch.stars.kernel import kernel, ready
from anystar_batch.stars.measures import regularity
from anystar_batch.stars.polyhedra import volumes
from anystar_batch.stars.rays import Rays

COLUMNS = {
    "solidity": "solidity",
    "sphericity": "sphericity",
    "surface": "surface_area_um2",
    "feret": "feret_diameter_max_um",
}
"""Names of the measures, and of their columns."""


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
    found: dict[str, NDArray[np.float32]] = {}
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
        found[COLUMNS[name]] = np.asarray(values, np.float32)
    return found


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
    found = np.zeros(len(dist), np.float64)
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
        found[i] = np.sqrt(largest)
    return found
