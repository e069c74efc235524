"""Inside or outside: the gauge of a star-convex polyhedron, and its table over integer offsets.

A polyhedron has a centre, and on ray k a corner at distance d[k]. Its faces are triangles of rays
(a, b, c). The offset q of a voxel from the centre lies in the cone of exactly one face, and there

    q = w_a v_a + w_b v_b + w_c v_c  with  w >= 0,      gauge(q) = w_a/d_a + w_b/d_b + w_c/d_c,

and the voxel is inside if gauge(q) <= 1 (Minkowski's gauge). Distances stretch the rays but never
turn them, so the face and the weights w belong to q alone: **one table serves all objects**. It
holds three ray ids and three weights, 15 bytes, for every integer offset up to a radius.

Offsets beyond the table, or between voxels, take the same face and the same weights from a lookup
on the direction. The table is filled by that very function, so both give the same bits.

Invariants: offsets to the centre only, never absolute coordinates, so results do not change when
the object moves; weights are found in float64 and rounded to float32 once; the gauge is summed in
float32 in the order a, b, c.

References
----------
The gauge of a convex body: Rockafellar, Convex Analysis, Princeton 1970, section 15,
doi:10.1515/9781400873173; the distance function of a star body: Cassels, An Introduction to the
Geometry of Numbers, chapter IV, doi:10.1007/978-3-642-62035-5.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.jit import inlined, kernel, leaf
from anystar_batch.stars.rays import Rays

CELLS = 64
"""Cells along an edge of the cube on which directions are looked up."""

RADII = (16, 24, 32, 48, 64)
"""Table radii in voxels; 64 takes 32 MB. Larger offsets are looked up by direction."""


class Directions(NamedTuple):
    """Which faces to try for a direction.

    Parameters
    ----------
    faces : int64 [n_faces, 3]
        Ray ids.
    inverse : float64 [n_faces * 9]
        Of each face, the 3 x 3 matrix that gives the weights: w = inverse @ q.
    first : int32 [6 * CELLS**2 + 1]
        Start of each cell's list in `listed`.
    listed : int32
        Faces whose cone may touch the cell, ascending.
    inner, outer : float
        gauge(q) <= inner * |q| / min(d) and gauge(q) >= |q| / (outer * max(d)) for every q.
    octant_rays : bool [8, n_rays]
        The rays whose d these bounds need if q lies in an octant: the corners of all faces that
        may touch it. Octant 4 (z >= 0) + 2 (y >= 0) + (x >= 0).
    """

    faces: NDArray[np.int64]
    inverse: NDArray[np.float64]
    first: NDArray[np.int32]
    listed: NDArray[np.int32]
    inner: float
    outer: float
    octant_rays: NDArray[np.bool_]


class Gauge(NamedTuple):
    """The table, and the lookup it was filled from.

    Parameters
    ----------
    directions : Directions
    radius : int
        Largest offset on any axis that the table holds, voxels.
    ray_a, ray_b, ray_c : uint8 [(2 * radius + 1)**3]
        Ray ids at each integer offset, flat, x fastest.
    weight_a, weight_b, weight_c : float32 [(2 * radius + 1)**3]
        Weights, voxels.
    """

    directions: Directions
    radius: int
    ray_a: NDArray[np.uint8]
    ray_b: NDArray[np.uint8]
    ray_c: NDArray[np.uint8]
    weight_a: NDArray[np.float32]
    weight_b: NDArray[np.float32]
    weight_c: NDArray[np.float32]


def gauge(rays: Rays, radius: int) -> Gauge:
    """Return the table for objects of this radius, made once per process and set of rays.

    Parameters
    ----------
    rays : Rays
    radius : int
        Largest offset that will be asked for, voxels. Any value is right: it only decides what is
        read from the table and what is looked up.

    Returns
    -------
    Gauge
    """
    held = next((r for r in RADII if r >= radius), RADII[-1])
    return _gauge(rays.vertices.tobytes(), rays.faces.tobytes(), held)


@lru_cache(maxsize=16)
def _directions(vertex_bytes: bytes, face_bytes: bytes) -> Directions:
    """Invert every face and list the faces of every cell."""
    vertices = np.frombuffer(vertex_bytes, np.float64).reshape(-1, 3)
    faces = np.frombuffer(face_bytes, np.int64).reshape(-1, 3).copy()
    inverse = np.linalg.inv(np.swapaxes(vertices[faces], 1, 2)).astype(np.float64)
    # Largest and smallest sum of weights per voxel of offset: sum(w) = n . q on a face, so at most
    # |n| |q|; and |q| = |sum(w v)| <= sum(w) max|v|.
    inner = float(np.linalg.norm(inverse.sum(1), axis=1).max())
    outer = float(np.linalg.norm(vertices, axis=1).max())
    first, listed = [0], []
    node = np.linspace(-1.0, 1.0, CELLS + 1)
    for side in range(6):
        axis, sign = side // 2, 1.0 - 2.0 * (side % 2)
        corner = np.empty((CELLS + 1, CELLS + 1, 3))
        corner[..., axis] = sign
        corner[..., (axis + 1) % 3] = node[:, None]
        corner[..., (axis + 2) % 3] = node[None, :]
        weights = np.einsum("fkj,uvj->uvfk", inverse, corner)
        # Weights are linear on the cell, so their largest value is at a corner; a face with a
        # weight negative at all four corners does not touch the cell.
        highest = np.maximum(
            np.maximum(weights[:-1, :-1], weights[1:, :-1]),
            np.maximum(weights[:-1, 1:], weights[1:, 1:]),
        )
        touches = (highest > -1e-9).all(-1).reshape(CELLS * CELLS, len(faces))
        listed.append(np.nonzero(touches)[1])
        first.extend((first[-1] + np.cumsum(touches.sum(1))).tolist())
    return Directions(
        faces,
        inverse.reshape(-1),
        np.array(first, np.int32),
        np.concatenate(listed).astype(np.int32),
        inner,
        outer,
        _octant_rays(len(vertices), faces, inverse),
    )


def _octant_rays(
    n_rays: int, faces: NDArray[np.int64], inverse: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Find the rays of each octant, as the faces of a cell are found."""
    rays = np.zeros((8, n_rays), np.bool_)
    for octant in range(8):
        axes = np.diag([1.0 if octant & bit else -1.0 for bit in (4, 2, 1)])
        weights = np.einsum("fkj,aj->fka", inverse, axes)
        rays[octant, faces[(weights.max(axis=2) > -1e-9).all(axis=1)]] = True
    return rays


@lru_cache(maxsize=8)
def _gauge(vertex_bytes: bytes, face_bytes: bytes, radius: int) -> Gauge:
    """Fill the table of this radius."""
    directions = _directions(vertex_bytes, face_bytes)
    table = _blank(directions, radius, (2 * radius + 1) ** 3)
    _fill(table)
    return table


def _blank(directions: Directions, radius: int, size: int) -> Gauge:
    """Allocate a table of `size` entries."""
    return Gauge(
        directions,
        radius,
        np.zeros(size, np.uint8),
        np.zeros(size, np.uint8),
        np.zeros(size, np.uint8),
        np.zeros(size, np.float32),
        np.zeros(size, np.float32),
        np.zeros(size, np.float32),
    )


@kernel
def _fill(table: Gauge) -> None:
    """Store the face and weights of every integer offset."""
    radius, at = table.radius, 0
    side = 2 * radius + 1
    x = np.empty(side, np.float64)
    for k in range(side):
        x[k] = np.float64(k - radius)
    for z in range(-radius, radius + 1):
        for y in range(-radius, radius + 1):
            look_up(np.float64(z), np.float64(y), x, side, table, at)
            at += side


@leaf
def look_up(z: float, y: float, row_x: NDArray[np.float64], n: int, into: Gauge, at: int) -> None:
    """Write face and weights of the offsets (z, y, row_x[:n]) from entry `at` on.

    On an edge between faces, either gives the gauge.
    """
    faces, inverse = into.directions.faces, into.directions.inverse
    starts, listed = into.directions.first, into.directions.listed
    ray_a, ray_b, ray_c = into.ray_a, into.ray_b, into.ray_c
    weight_a, weight_b, weight_c = into.weight_a, into.weight_b, into.weight_c
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    az, ay = abs(z), abs(y)
    for i in range(n):
        x = row_x[i]
        ax = abs(x)
        # Side of the cube that the direction leaves through, and where; the centre itself gets
        # weights 0 from any face.
        if az >= ay and az >= ax:
            side, u, v, half = 0 if z > 0.0 else 1, y, x, (0.5 * CELLS) / max(az, 1e-300)
        elif ay >= ax:
            side, u, v, half = 2 if y > 0.0 else 3, x, z, (0.5 * CELLS) / ay
        else:
            side, u, v, half = 4 if x > 0.0 else 5, z, y, (0.5 * CELLS) / ax
        row = min(int(u * half + 0.5 * CELLS), CELLS - 1)
        column = min(int(v * half + 0.5 * CELLS), CELLS - 1)
        cell = (side * CELLS + row) * CELLS + column
        best_face, best = 0, -np.inf
        best_a, best_b, best_c = 0.0, 0.0, 0.0
        for k in range(starts[np.uint64(cell)], starts[np.uint64(cell + 1)]):
            f = listed[np.uint64(k)]
            m = np.uint64(9 * f)
            wa = inverse[m] * z + inverse[m + one] * y + inverse[m + two] * x
            m += three
            wb = inverse[m] * z + inverse[m + one] * y + inverse[m + two] * x
            m += three
            wc = inverse[m] * z + inverse[m + one] * y + inverse[m + two] * x
            lowest = min(wa, wb, wc)
            if lowest > best:
                best_face, best = f, lowest
                best_a, best_b, best_c = wa, wb, wc
                if lowest > 0.0:
                    break
        k = at + i
        ray_a[k] = faces[best_face, 0]
        ray_b[k] = faces[best_face, 1]
        ray_c[k] = faces[best_face, 2]
        # On an edge rounding can leave a weight at -1e-16; it is 0.
        weight_a[k] = max(best_a, 0.0)
        weight_b[k] = max(best_b, 0.0)
        weight_c[k] = max(best_c, 0.0)


class Row(NamedTuple):
    """Room for the answers along one row of voxels, and to look up what the table lacks.

    Parameters
    ----------
    inverse_dist : float32 [n_rays]
        1/d of the polyhedron asked about, from `invert`.
    inside : bool [length]
        Answers.
    x : float64 [length]
        Offsets along the row.
    gauge : Gauge
        A table of one row.
    """

    inverse_dist: NDArray[np.float32]
    inside: NDArray[np.bool_]
    x: NDArray[np.float64]
    gauge: Gauge


def make_row(length: int, n_rays: int, directions: Directions) -> Row:
    """Return room for rows of up to `length` voxels.

    Parameters
    ----------
    length, n_rays : int
    directions : Directions

    Returns
    -------
    Row
    """
    return Row(
        np.zeros(n_rays, np.float32),
        np.zeros(length, np.bool_),
        np.zeros(length, np.float64),
        _blank(directions, 0, length),
    )


@inlined
def _judge(
    table: Gauge,
    at: int,
    n: int,
    row: Row,
    into: int,
) -> None:
    """Write whether gauge <= 1 for n entries of a table, from answer `into` on."""
    inverse_dist, inside = row.inverse_dist, row.inside
    ray_a, ray_b, ray_c = table.ray_a, table.ray_b, table.ray_c
    weight_a, weight_b, weight_c = table.weight_a, table.weight_b, table.weight_c
    for i in range(n):
        k = np.uint64(at + i)
        value = weight_a[k] * inverse_dist[ray_a[k]] + weight_b[k] * inverse_dist[ray_b[k]]
        value += weight_c[k] * inverse_dist[ray_c[k]]
        inside[np.uint64(into + i)] = value <= np.float32(1.0)


@inlined
def entry(z: int, y: int, x: int, table: Gauge) -> int:
    """Where an integer offset within the table's radius stands in it."""
    side = 2 * table.radius + 1
    return ((z + table.radius) * side + y + table.radius) * side + x + table.radius


@inlined
def is_inside(table: Gauge, at: int, inverse_dist: NDArray[np.float32]) -> bool:
    """Whether gauge <= 1 for one entry of a table: the sum of `_judge`."""
    k = np.uint64(at)
    value = (
        table.weight_a[k] * inverse_dist[table.ray_a[k]]
        + table.weight_b[k] * inverse_dist[table.ray_b[k]]
    )
    value += table.weight_c[k] * inverse_dist[table.ray_c[k]]
    return bool(value <= np.float32(1.0))


@leaf
def judge_between(z: float, y: float, n: int, row: Row, into: int) -> None:
    """Write whether the real offsets (z, y, row.x[:n]) are inside, from answer `into` on."""
    look_up(z, y, row.x, n, row.gauge, 0)
    _judge(row.gauge, 0, n, row, into)


@inlined
def judge_integer(  # noqa: PLR0913
    z: int,
    y: int,
    x: int,
    n: int,
    table: Gauge,
    row: Row,
    into: int,
) -> None:
    """Write whether the integer offsets (z, y, x), (z, y, x + 1), ... are inside.

    There are n answers, from `row.inside[into]` on.
    """
    radius = table.radius
    if n <= 0:
        return
    if max(abs(z), abs(y), -x, x + n - 1) <= radius:
        _judge(table, entry(z, y, x, table), n, row, into)
        return
    for i in range(n):
        row.x[i] = np.float64(x + i)
    judge_between(np.float64(z), np.float64(y), n, row, into)


@inlined
def mark(row: Row, first: int, last: int) -> None:
    """Answer that voxels [first, last) of the row are inside."""
    for k in range(first, last):
        row.inside[np.uint64(k)] = True


@inlined
def invert(i: int, dist: NDArray[np.float32], row: Row) -> None:
    """Ask about polyhedron i from now on: write its 1/d, rounded to float32."""
    for k in range(dist.shape[1]):
        row.inverse_dist[k] = np.float32(1.0) / dist[i, k]
