"""Polyhedra on a lattice: where their centres lie, the boxes that hold them, their volumes.

Survivors live on the working lattice; `LatticeMap` takes them to level 0. The gauge does not change
when space and polyhedron are stretched alike, so rays and distances stay in working voxels and only
offsets are mapped. Level-0 centres are held as an integer plus a fraction of 1/2**24 voxel: offsets
are exact, and do not depend on where in the volume the object lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYXFloat
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import Gauge, gauge
from anystar_batch.stars.jit import kernel, ready
from anystar_batch.stars.rays import Rays
from anystar_batch.stars.zones import zones

FRACTION = float(1 << 24)
"""Steps per level-0 voxel in which the fractional part of a centre is held."""

BOX_SLACK = 1e-3
"""Margin of bounding boxes, voxels: what float32 can add to a radius of thousands of voxels."""


@dataclass(frozen=True, slots=True)
class LatticeMap:
    """Where a working voxel lies in level 0.

    Level-0 coordinate = working coordinate * `scale` + `offset`, per axis; an integer coordinate is
    the centre of a voxel.

    Parameters
    ----------
    scale : (z, y, x)
        Level-0 voxels per working voxel, positive.
    offset : (z, y, x)
        Level-0 coordinate of the centre of working voxel (0, 0, 0).

    Examples
    --------
    >>> LatticeMap((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)).is_integer
    True
    >>> LatticeMap((2.0, 2.0, 2.0), (0.5, 0.5, 0.5)).is_integer
    False
    """

    scale: ZYXFloat
    offset: ZYXFloat

    @property
    def is_integer(self) -> bool:
        """Whether every working voxel centre is a level-0 voxel centre, one to one."""
        return all(s == 1 for s in self.scale) and all(float(o).is_integer() for o in self.offset)

    def centres(self, points: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return level-0 centres as a whole voxel and a fraction.

        Parameters
        ----------
        points : int32 [n, 3]
            Axes (z, y, x), working voxels.

        Returns
        -------
        whole : int64 [n, 3]
            Level-0 voxels.
        fraction : float64 [n, 3]
            0 to 1, a multiple of 1/2**24 level-0 voxel.
        """
        centre = points.astype(np.float64) * np.asarray(self.scale, np.float64)
        centre += np.asarray(self.offset, np.float64)
        whole = np.floor(centre)
        return whole.astype(np.int64), np.rint((centre - whole) * FRACTION) / FRACTION


IDENTITY = LatticeMap((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
"""The working lattice itself."""


class Placed(NamedTuple):
    """Polyhedra on level 0, as kernels read them.

    Parameters
    ----------
    whole, fraction : int64, float64 [n, 3]
        Centres, from `LatticeMap.centres`.
    low, high : int64 [n, 3]
        Bounding boxes, level-0 voxels, half-open.
    dist : float32 [n, n_rays]
        Working voxels.
    zones : float64 [n, 8, 2]
        Balls surely inside and surely holding it, from `zones.zones`.
    scale : float64 [3]
        Level-0 voxels per working voxel.
    """

    whole: NDArray[np.int64]
    fraction: NDArray[np.float64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    dist: NDArray[np.float32]
    zones: NDArray[np.float64]
    scale: NDArray[np.float64]


def bounding_boxes(candidates: Candidates, rays: Rays, lattice: LatticeMap) -> NDArray[np.int64]:
    """Return boxes that hold every level-0 voxel of each polyhedron.

    Parameters
    ----------
    candidates : Candidates
    rays : Rays
    lattice : LatticeMap

    Returns
    -------
    int64 [n, 2, 3]
        Start and stop (exclusive), axes (z, y, x), level-0 voxels; not clipped to any volume. At
        most a voxel too large where a corner comes within 1/1000 voxel of a voxel centre.
    """
    whole, fraction = lattice.centres(candidates.points)
    extents = _extents(ready(candidates.dist, np.float32), ready(rays.vertices, np.float64))
    reach = extents * np.asarray(lattice.scale, np.float64)
    low = whole + np.ceil(fraction - reach[:, 0] - BOX_SLACK).astype(np.int64)
    high = whole + np.floor(fraction + reach[:, 1] + BOX_SLACK).astype(np.int64) + 1
    return np.stack([low, high], axis=1)


def volumes(dist: NDArray[np.float32], rays: Rays) -> NDArray[np.float64]:
    """Return the continuous volume of each polyhedron.

    Parameters
    ----------
    dist : float32 [n, n_rays]
        Working voxels.
    rays : Rays

    Returns
    -------
    float64 [n]
        Cubic working voxels; tetrahedra summed in the order of the faces, so always the same bits.
    """
    a, b, c = (rays.vertices[rays.faces[:, k]] for k in range(3))
    sixth = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c))) / 6.0
    return _volumes(ready(dist, np.float32), ready(rays.faces, np.int64), sixth)


def spreads(dist: NDArray[np.float32], rays: Rays) -> NDArray[np.float64]:
    """Return how far the volume of each polyhedron spreads along each axis.

    Parameters
    ----------
    dist : float32 [n, n_rays]
        Working voxels, positive.
    rays : Rays

    Returns
    -------
    float64 [n, 3]
        Standard deviation along z, y, x, working voxels: for an ellipsoid its half axis over the
        root of 5. Exact moments of the tetrahedra between the centre and each face.
    """
    corners = dist.astype(np.float64)[:, :, None] * rays.vertices
    a, b, c = (corners[:, rays.faces[:, k]] for k in range(3))
    weights = np.abs(np.einsum("ijk,ijk->ij", a, np.cross(b, c)))[:, :, None]
    total, sums = weights.sum(axis=1), a + b + c
    mean = (weights * sums).sum(axis=1) / (4.0 * total)
    squares = (weights * (a**2 + b**2 + c**2 + sums**2)).sum(axis=1) / (20.0 * total)
    deviation: NDArray[np.float64] = np.sqrt(squares - mean**2)
    return deviation


def place(
    ordered: Candidates, rays: Rays, lattice: LatticeMap, boxes: NDArray[np.int64]
) -> tuple[Placed, Gauge]:
    """Gather what the kernels read, and a table that covers it."""
    whole, fraction = lattice.centres(ordered.points)
    dist = ready(ordered.dist, np.float32)
    table = gauge(rays, int(np.ceil(np.max(dist, initial=1.0))))
    placed = Placed(
        whole,
        fraction,
        np.ascontiguousarray(boxes[:, 0]),
        np.ascontiguousarray(boxes[:, 1]),
        dist,
        zones(dist, table.directions),
        np.array(lattice.scale, np.float64),
    )
    return placed, table


@kernel
def _extents(dist: NDArray[np.float32], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each polyhedron reaches down and up each axis; at least 0, its centre is inside."""
    result = np.zeros((len(dist), 2, 3), np.float64)
    for i in range(len(dist)):
        for k in range(dist.shape[1]):
            d = np.float64(dist[i, k])
            for axis in range(3):
                reach = d * vertices[k, axis]
                result[i, 0, axis] = max(result[i, 0, axis], -reach)
                result[i, 1, axis] = max(result[i, 1, axis], reach)
    return result


@kernel
def _volumes(
    dist: NDArray[np.float32], faces: NDArray[np.int64], sixth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum det/6 * d_a * d_b * d_c over the faces, in their order."""
    result = np.empty(len(dist), np.float64)
    for i in range(len(dist)):
        total = 0.0
        for f in range(len(faces)):
            total += (
                sixth[f]
                * np.float64(dist[i, faces[f, 0]])
                * np.float64(dist[i, faces[f, 1]])
                * np.float64(dist[i, faces[f, 2]])
            )
        result[i] = total
    return result
