"""Polyhedra to labels: painting, and who owns a voxel.

A voxel of level 0 shows the label of the highest-priority survivor that contains its centre::

    label(v) = label of the first i in priority order (-prob, z, y, x) with gauge_i(v - c_i) <= 1

The right-hand side knows nothing of boxes, so a block painted alone equals the same voxels of the
volume painted whole. Where the working lattice is level 0 up to an integer shift, offsets are
integers and the table decides; elsewhere the same gauge is evaluated at the real offset.

References
----------
StarDist paints by the same priority, one tetrahedron after the other: Weigert et al., WACV 2020,
doi:10.1109/WACV45572.2020.9093435, arXiv:1908.03636. Where the two differ: docs/geometry.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import (
    Gauge,
    Row,
    invert,
    judge_between,
    judge_integer,
    make_row,
    mark,
)
from anystar_batch.stars.jit import inlined, kernel, leaf, ready
from anystar_batch.stars.neighbours import Grid, make_grid, query
from anystar_batch.stars.polyhedra import LatticeMap, Placed, bounding_boxes, place, volumes
from anystar_batch.stars.rays import Rays
from anystar_batch.stars.zones import span, span_between

__all__ = ["LatticeMap", "bounding_boxes", "owns_voxel", "paint", "volumes"]


def paint(
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
    meets = (boxes[:, 1] > box.start) & (boxes[:, 0] < box.stop)
    reaches = np.asarray(meets.all(axis=1))
    order = survivors.order()
    order = order[reaches[order]]
    if len(order) == 0 or box.size == 0:
        return
    placed, table = place(survivors.take(order), rays, lattice, boxes[order])
    target = np.require(out, np.uint32, ["C", "W"])
    flat = target.reshape(-1)
    start = np.array(box.start, np.int64)
    ids = ready(labels[order], np.uint32)
    row = make_row(box.shape[2], len(rays), table.directions)
    if lattice.is_integer:
        _paint_integer(flat, box.shape, start, ids, placed, table, row)
    else:
        _paint_between(flat, box.shape, start, ids, placed, row)
    if target is not out:
        out[...] = target


def owns_voxel(
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
    placed, table = place(survivors.take(order), rays, lattice, boxes)
    owns[order] = _owns(
        placed,
        make_grid(placed.low, placed.high),
        np.array([volume.start, volume.stop], np.int64),
        ready(asked[order], np.bool_),
        make_row(1, len(rays), table.directions),
    )
    return owns


@inlined
def _clip(
    placed: Placed, i: int, z: int, y: int, x: int, shape: tuple[int, int, int]
) -> tuple[int, int, int, int, int, int]:
    """Return the box of polyhedron i inside an array that starts at (z, y, x)."""
    low, high = placed.low, placed.high
    return (
        max(low[i, 0], z),
        min(high[i, 0], z + shape[0]),
        max(low[i, 1], y),
        min(high[i, 1], y + shape[1]),
        max(low[i, 2], x),
        min(high[i, 2], x + shape[2]),
    )


@inlined
def _write(
    flat: NDArray[np.uint32], at: int, n: int, label: np.uint32, inside: NDArray[np.bool_]
) -> None:
    """Write the label where the row is inside and nobody of higher priority was."""
    for k in range(n):
        voxel = np.uint64(at + k)
        there = flat[voxel]
        # No branch: the compiler does eight at a time.
        flat[voxel] = label if inside[np.uint64(k)] and there == 0 else there


@leaf
def _paint_integer(  # noqa: PLR0913
    flat: NDArray[np.uint32],
    shape: tuple[int, int, int],
    start: NDArray[np.int64],
    labels: NDArray[np.uint32],
    placed: Placed,
    table: Gauge,
    row: Row,
) -> None:
    """Paint in order where offsets are integers."""
    _, height, width = shape
    for i in range(len(labels)):
        invert(i, placed.dist, row)
        cz, cy, cx = placed.whole[i, 0], placed.whole[i, 1], placed.whole[i, 2]
        z0, z1, y0, y1, x0, x1 = _clip(placed, i, start[0], start[1], start[2], shape)
        for z in range(z0, z1):
            for y in range(y0, y1):
                qz, qy = z - cz, y - cy
                first, left, right, last = span(i, qz, qy, placed.zones, x0 - cx, x1 - cx)
                if last <= first:
                    continue
                judge_integer(qz, qy, first, left - first, table, row, 0)
                mark(row, left - first, right - first)
                judge_integer(qz, qy, right, last - right, table, row, right - first)
                at = ((z - start[0]) * height + (y - start[1])) * width + cx + first - start[2]
                _write(flat, at, last - first, labels[i], row.inside)


@leaf
def _paint_between(
    flat: NDArray[np.uint32],
    shape: tuple[int, int, int],
    start: NDArray[np.int64],
    labels: NDArray[np.uint32],
    placed: Placed,
    row: Row,
) -> None:
    """Paint in order where centres lie between voxels or the lattice is stretched."""
    _, height, width = shape
    for i in range(len(labels)):
        invert(i, placed.dist, row)
        cz, cy, cx = placed.whole[i, 0], placed.whole[i, 1], placed.whole[i, 2]
        fz, fy, fx = placed.fraction[i, 0], placed.fraction[i, 1], placed.fraction[i, 2]
        z0, z1, y0, y1, x0, x1 = _clip(placed, i, start[0], start[1], start[2], shape)
        for z in range(z0, z1):
            qz = (np.float64(z - cz) - fz) / placed.scale[0]
            for y in range(y0, y1):
                qy = (np.float64(y - cy) - fy) / placed.scale[1]
                first, left, right, last = span_between(
                    i, qz, qy, placed.zones, x0 - cx, x1 - cx, fx, placed.scale[2]
                )
                if last <= first:
                    continue
                _offsets(row, first, left - first, fx, placed.scale[2])
                judge_between(qz, qy, left - first, row, 0)
                mark(row, left - first, right - first)
                _offsets(row, right, last - right, fx, placed.scale[2])
                judge_between(qz, qy, last - right, row, right - first)
                at = ((z - start[0]) * height + (y - start[1])) * width + cx + first - start[2]
                _write(flat, at, last - first, labels[i], row.inside)


@inlined
def _offsets(row: Row, x: int, n: int, fraction: float, scale: float) -> None:
    """Write the offsets of n voxels from x on, in working voxels."""
    for k in range(n):
        row.x[k] = (np.float64(x + k) - fraction) / scale


@leaf
def _contains(
    i: int,
    voxel: tuple[int, int, int],
    placed: Placed,
    row: Row,
) -> bool:
    """Whether polyhedron i contains the centre of a level-0 voxel; the same answer as painting."""
    qz = (np.float64(voxel[0] - placed.whole[i, 0]) - placed.fraction[i, 0]) / placed.scale[0]
    qy = (np.float64(voxel[1] - placed.whole[i, 1]) - placed.fraction[i, 1]) / placed.scale[1]
    qx = (np.float64(voxel[2] - placed.whole[i, 2]) - placed.fraction[i, 2]) / placed.scale[2]
    square = qz * qz + qy * qy + qx * qx
    octant = (4 if qz >= 0.0 else 0) + (2 if qy >= 0.0 else 0) + (1 if qx >= 0.0 else 0)
    if square <= placed.zones[i, octant, 0]:
        return True
    if square > placed.zones[i, octant, 1]:
        return False
    invert(i, placed.dist, row)
    row.x[0] = qx
    judge_between(qz, qy, 1, row, 0)
    return bool(row.inside[0])


@leaf
def _owns_at(
    i: int,
    voxel: tuple[int, int, int],
    above: NDArray[np.int64],
    placed: Placed,
    row: Row,
) -> bool:
    """Whether i contains the voxel and nobody in `above` does."""
    if not _contains(i, voxel, placed, row):
        return False
    free = True
    for k in range(len(above)):
        free = free and not _contains(above[k], voxel, placed, row)
    return free


@leaf
def _owns_any(
    i: int,
    above: NDArray[np.int64],
    volume: NDArray[np.int64],
    placed: Placed,
    row: Row,
) -> bool:
    """Whether i owns a voxel: its centre most likely, else look at every voxel of its box."""
    shape = (
        volume[1, 0] - volume[0, 0],
        volume[1, 1] - volume[0, 1],
        volume[1, 2] - volume[0, 2],
    )
    z0, z1, y0, y1, x0, x1 = _clip(placed, i, volume[0, 0], volume[0, 1], volume[0, 2], shape)
    z, y, x = placed.whole[i, 0], placed.whole[i, 1], placed.whole[i, 2]
    z += placed.fraction[i, 0] >= 0.5
    y += placed.fraction[i, 1] >= 0.5
    x += placed.fraction[i, 2] >= 0.5
    is_seen = z0 <= z < z1 and y0 <= y < y1 and x0 <= x < x1
    if is_seen and _owns_at(i, (z, y, x), above, placed, row):
        return True
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                if _owns_at(i, (z, y, x), above, placed, row):
                    return True
    return False


@kernel
def _owns(
    placed: Placed,
    grid: Grid,
    volume: NDArray[np.int64],
    asked: NDArray[np.bool_],
    row: Row,
) -> NDArray[np.bool_]:
    """Ask everyone, in priority order, about himself and who comes before him."""
    result = np.zeros(len(asked), np.bool_)
    neighbours = np.empty(64, np.int64)
    for i in range(len(asked)):
        if asked[i]:
            neighbours, count = query(grid, placed.low, placed.high, i, neighbours)
            above = 0
            for k in range(count):
                if neighbours[k] < i:
                    neighbours[above] = neighbours[k]
                    above += 1
            result[i] = _owns_any(i, neighbours[:above], volume, placed, row)
    return result
