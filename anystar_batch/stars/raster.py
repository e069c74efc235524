"""Polyhedra to labels: boxes, volumes, painting, and who owns a voxel.

A voxel of level 0 shows the label of the highest-priority survivor that contains its centre::

    label(v) = label of the first i in priority order (-prob, z, y, x) with gauge_i(v - c_i) <= 1

The right-hand side knows nothing of boxes, so a block painted alone equals the same voxels of the
volume painted whole. Survivors live on the working lattice; `LatticeMap` takes them to level 0.
Where both lattices agree up to an integer shift, offsets are integers and the table decides.
Elsewhere the same gauge is evaluated at the real offset, in working voxels: the gauge does not
change when space and polyhedron are stretched alike, so rays are never scaled.

Level-0 centres are held as an integer plus a fraction of 1/2**24 voxel, so offsets are exact and do
not depend on where in the volume the object lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box, ZYXFloat
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import (
    Gauge,
    face_weights,
    gauge,
    is_inside,
    is_inside_integer,
    zones,
)
from anystar_batch.stars.kernel import kernel, ready
from anystar_batch.stars.neighbours import Grid, insert, make_grid, query
from anystar_batch.stars.rays import Rays

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
    zones : float64 [n, 2]
        Squared radii surely inside and surely outside, working voxels.
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


def paint(  # noqa: PLR0913  (the interface of the pipeline)
    out: NDArray[np.uint32],
    box: Box,
    survivors: Candidates,
    labels: NDArray[np.uint32],
    rays: Rays,
    lattice: LatticeMap,
) -> None:
    """Paint survivors into an array that shows a box of level 0.

    Parameters
    ----------
    out : uint32 (z, y, x)
        Changed where it is 0 and a survivor contains the voxel's centre.
    box : Box
        What `out` shows, level-0 voxels.
    survivors : Candidates
        All that reach the box, in any order; others do no harm.
    labels : uint32 [n]
        Label of each survivor, above 0.
    rays : Rays
    lattice : LatticeMap

    Raises
    ------
    ValueError
        If `out` has another shape than `box`.

    Notes
    -----
    What a voxel gets depends on the survivors that contain it, not on the box.
    """
    if out.shape != box.shape:
        message = f"paint: the array has shape {out.shape}, its box {box.shape}; expected the same"
        raise ValueError(message)
    boxes = bounding_boxes(survivors, rays, lattice)
    reaches = ((boxes[:, 1] > box.start) & (boxes[:, 0] < box.stop)).all(axis=1)
    order = survivors.order()
    order = order[reaches[order]]
    if len(order) == 0 or box.size == 0:
        return
    placed, table = _place(survivors.take(order), rays, lattice, boxes[order])
    target = np.require(out, np.uint32, ["C", "W"])
    start = np.asarray(box.start, np.int64)
    ids = ready(labels[order], np.uint32)
    if lattice.is_integer:
        _paint_integer(target, start, ids, placed, table)
    else:
        _paint_between(target, start, ids, placed, table)
    if target is not out:
        out[...] = target


def owns_voxel(  # noqa: PLR0913  (the interface of the pipeline)
    survivors: Candidates,
    rays: Rays,
    lattice: LatticeMap,
    volume: Box,
    subset: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Return which survivors would show in level 0 when all are painted.

    A small survivor can lie wholly inside others of higher priority, between voxel centres, or
    outside the volume: it would get a label that no voxel has.

    Parameters
    ----------
    survivors : Candidates
        Those asked about, and all whose boxes meet theirs.
    rays : Rays
    lattice : LatticeMap
    volume : Box
        Level 0.
    subset : bool [n], optional
        Whom to ask about; None is everyone.

    Returns
    -------
    bool [n]
        False outside `subset`.
    """
    owns = np.zeros(len(survivors), np.bool_)
    asked = np.ones(len(survivors), np.bool_) if subset is None else subset
    if not asked.any():
        return owns
    order = survivors.order()
    boxes = bounding_boxes(survivors, rays, lattice)[order]
    placed, table = _place(survivors.take(order), rays, lattice, boxes)
    owns[order] = _owns(
        placed,
        table,
        make_grid(len(order)),
        np.array([volume.start, volume.stop], np.int64),
        ready(asked[order], np.bool_),
    )
    return owns


def _place(
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


@kernel
def _paint_integer(
    out: NDArray[np.uint32],
    start: NDArray[np.int64],
    labels: NDArray[np.uint32],
    placed: Placed,
    table: Gauge,
) -> None:
    """Paint in order where offsets are integers."""
    shape = out.shape
    flat = out.reshape(-1)
    inverse_dist = np.empty(placed.dist.shape[1], np.float32)
    for i in range(len(labels)):
        label = labels[i]
        for k in range(len(inverse_dist)):
            inverse_dist[k] = np.float32(1.0) / placed.dist[i, k]
        cz, cy, cx = placed.whole[i, 0], placed.whole[i, 1], placed.whole[i, 2]
        inner, outer = placed.zones[i, 0], placed.zones[i, 1]
        x_low, x_high = placed.low[i, 2], placed.high[i, 2]
        for z in range(
            max(placed.low[i, 0], start[0]), min(placed.high[i, 0], start[0] + shape[0])
        ):
            for y in range(
                max(placed.low[i, 1], start[1]), min(placed.high[i, 1], start[1] + shape[1])
            ):
                across = np.float64((z - cz) * (z - cz) + (y - cy) * (y - cy))
                if across > outer:
                    continue
                half = np.int64(np.sqrt(outer - across))
                first = max(x_low, start[2], cx - half)
                last = min(x_high, start[2] + shape[2], cx + half + 1)
                sure_first, sure_last = last, last
                if across <= inner:
                    half = np.int64(np.sqrt(inner - across))
                    sure_first = min(max(cx - half, first), last)
                    sure_last = max(min(cx + half + 1, last), sure_first)
                row = ((z - start[0]) * shape[1] + (y - start[1])) * shape[2] - start[2]
                for x in range(first, sure_first):
                    at = np.uint64(row + x)
                    if flat[at] == 0 and is_inside_integer(
                        z - cz, y - cy, x - cx, inverse_dist, table
                    ):
                        flat[at] = label
                for x in range(sure_first, sure_last):
                    at = np.uint64(row + x)
                    if flat[at] == 0:
                        flat[at] = label
                for x in range(sure_last, last):
                    at = np.uint64(row + x)
                    if flat[at] == 0 and is_inside_integer(
                        z - cz, y - cy, x - cx, inverse_dist, table
                    ):
                        flat[at] = label


@kernel
def _paint_between(
    out: NDArray[np.uint32],
    start: NDArray[np.int64],
    labels: NDArray[np.uint32],
    placed: Placed,
    table: Gauge,
) -> None:
    """Paint in order where centres lie between voxels or the lattice is stretched."""
    shape = out.shape
    flat = out.reshape(-1)
    directions = table.directions
    inverse_dist = np.empty(placed.dist.shape[1], np.float32)
    scale_z, scale_y, scale_x = placed.scale[0], placed.scale[1], placed.scale[2]
    for i in range(len(labels)):
        label = labels[i]
        for k in range(len(inverse_dist)):
            inverse_dist[k] = np.float32(1.0) / placed.dist[i, k]
        cz, cy, cx = placed.whole[i, 0], placed.whole[i, 1], placed.whole[i, 2]
        fz, fy, fx = placed.fraction[i, 0], placed.fraction[i, 1], placed.fraction[i, 2]
        inner, outer = placed.zones[i, 0], placed.zones[i, 1]
        x_low, x_high = max(placed.low[i, 2], start[2]), min(placed.high[i, 2], start[2] + shape[2])
        for z in range(
            max(placed.low[i, 0], start[0]), min(placed.high[i, 0], start[0] + shape[0])
        ):
            qz = (np.float64(z - cz) - fz) / scale_z
            for y in range(
                max(placed.low[i, 1], start[1]), min(placed.high[i, 1], start[1] + shape[1])
            ):
                qy = (np.float64(y - cy) - fy) / scale_y
                across = qz * qz + qy * qy
                if across > outer:
                    continue
                half = np.sqrt(outer - across) * scale_x
                first = max(x_low, cx + np.int64(np.ceil(fx - half)))
                last = min(x_high, cx + np.int64(np.floor(fx + half)) + 1)
                row = ((z - start[0]) * shape[1] + (y - start[1])) * shape[2] - start[2]
                for x in range(first, last):
                    at = np.uint64(row + x)
                    if flat[at] != 0:
                        continue
                    qx = (np.float64(x - cx) - fx) / scale_x
                    if across + qx * qx <= inner or is_inside(qz, qy, qx, inverse_dist, directions):
                        flat[at] = label


@kernel
def _contains(i: int, voxel: tuple[int, int, int], placed: Placed, table: Gauge) -> bool:
    """Whether polyhedron i contains the centre of a level-0 voxel; the same answer as painting."""
    qz = (np.float64(voxel[0] - placed.whole[i, 0]) - placed.fraction[i, 0]) / placed.scale[0]
    qy = (np.float64(voxel[1] - placed.whole[i, 1]) - placed.fraction[i, 1]) / placed.scale[1]
    qx = (np.float64(voxel[2] - placed.whole[i, 2]) - placed.fraction[i, 2]) / placed.scale[2]
    square = qz * qz + qy * qy + qx * qx
    if square <= placed.zones[i, 0]:
        return True
    if square > placed.zones[i, 1]:
        return False
    face, wa, wb, wc = face_weights(qz, qy, qx, table.directions)
    faces, one = table.directions.faces, np.float32(1.0)
    value = wa * (one / placed.dist[i, faces[face, 0]]) + wb * (
        one / placed.dist[i, faces[face, 1]]
    )
    return value + wc * (one / placed.dist[i, faces[face, 2]]) <= one


@kernel
def _owns_at(
    i: int,
    voxel: tuple[int, int, int],
    above: NDArray[np.int64],
    placed: Placed,
    table: Gauge,
) -> bool:
    """Whether i contains the voxel and nobody in `above` does."""
    if not _contains(i, voxel, placed, table):
        return False
    for k in range(len(above)):
        if _contains(above[k], voxel, placed, table):
            return False
    return True


@kernel
def _owns(
    placed: Placed,
    table: Gauge,
    grid: Grid,
    volume: NDArray[np.int64],
    asked: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Ask in priority order, entering each survivor in the grid after it was asked about."""
    result = np.zeros(len(asked), np.bool_)
    found = np.empty(64, np.int64)
    low, high = placed.low, placed.high
    for i in range(len(asked)):
        if asked[i]:
            found, count = query(grid, low, high, i, found)
            above = found[:count]
            z, y, x = placed.whole[i, 0], placed.whole[i, 1], placed.whole[i, 2]
            z += placed.fraction[i, 0] >= 0.5
            y += placed.fraction[i, 1] >= 0.5
            x += placed.fraction[i, 2] >= 0.5
            z0, z1 = max(low[i, 0], volume[0, 0]), min(high[i, 0], volume[1, 0])
            y0, y1 = max(low[i, 1], volume[0, 1]), min(high[i, 1], volume[1, 1])
            x0, x1 = max(low[i, 2], volume[0, 2]), min(high[i, 2], volume[1, 2])
            owns = z0 <= z < z1 and y0 <= y < y1 and x0 <= x < x1
            owns = owns and _owns_at(i, (z, y, x), above, placed, table)
            z = z0
            while z < z1 and not owns:
                y = y0
                while y < y1 and not owns:
                    x = x0
                    while x < x1 and not owns:
                        owns = _owns_at(i, (z, y, x), above, placed, table)
                        x += 1
                    y += 1
                z += 1
            result[i] = owns
        insert(grid, low, high, i)
    return result
