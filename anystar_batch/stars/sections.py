"""Sections of stars: where a plane cuts the surface, as closed loops of points.

A face that the plane passes has one edge that goes down through it and one that goes up. Walking
from face to face over the edge that goes down closes a loop, as every edge has two faces; loops run
around what is inside in one sense, and around a hole in the other. A corner on the plane itself
counts as above, so that no loop is cut open.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.jit import kernel, ready
from anystar_batch.stars.rays import Rays


def across(rays: Rays) -> NDArray[np.int64]:
    """Return the face beyond every edge, int64 [n_faces, 3]: edge k goes from corner k to k + 1."""
    owner = {
        (int(face[k]), int(face[(k + 1) % 3])): n
        for n, face in enumerate(rays.faces)
        for k in range(3)
    }
    return np.array(
        [[owner[int(face[(k + 1) % 3]), int(face[k])] for k in range(3)] for face in rays.faces],
        np.int64,
    )


def section(
    corners: NDArray[np.float64], height: float, rays: Rays, beyond: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Return the loops in which a plane cuts a star.

    Parameters
    ----------
    corners : float64 [n_rays, 3]
        Of the star, axes (z, y, x), any unit.
    height : float
        The plane's z, of the same unit.
    rays : Rays
    beyond : int64 [n_faces, 3]
        From `across`.

    Returns
    -------
    list of float64 [m, 2]
        Points (x, y) of each loop, the first not repeated; anticlockwise around what is inside,
        clockwise around holes.
    """
    places, ends, count = _section(
        ready(corners, np.float64), height, ready(rays.faces, np.int64), ready(beyond, np.int64)
    )
    return np.split(places[: ends[count - 1]], ends[: count - 1]) if count else []


@kernel
def _section(
    corners: NDArray[np.float64],
    height: float,
    faces: NDArray[np.int64],
    beyond: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Walk every loop once; return points (x, y), the end of each loop among them, their number."""
    seen = np.zeros(len(faces), np.bool_)
    places = np.empty((len(faces), 2), np.float64)
    ends = np.empty(len(faces), np.int64)
    used, loops = 0, 0
    for first in range(len(faces)):
        face = first
        begun = used
        while not seen[face]:
            seen[face] = True
            following = -1
            for k in range(3):
                a, b = faces[face, k], faces[face, (k + 1) % 3]
                if corners[a, 0] >= height and corners[b, 0] < height:
                    share = (height - corners[b, 0]) / (corners[a, 0] - corners[b, 0])
                    places[used, 0] = corners[b, 2] + share * (corners[a, 2] - corners[b, 2])
                    places[used, 1] = corners[b, 1] + share * (corners[a, 1] - corners[b, 1])
                    used += 1
                    following = beyond[face, k]
            if following < 0:
                break
            face = following
        if used > begun:
            ends[loops] = used
            loops += 1
    return places, ends, loops
