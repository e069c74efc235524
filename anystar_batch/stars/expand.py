"""Cells around nuclei: what surfaces gain when they move outward, shared without overlaps.

A voxel that a star contains stays that star's. Any other voxel, if stars reach it once their
surfaces have moved, goes to the one whose surface is nearest along its own ray::

    excess = |v - c| (1 - 1 / gauge(v - c))     physical length from the surface out to the voxel

So a nucleus is never overrun by its neighbour, and cells meet half way. What a voxel gets depends
on the stars that reach it, not on the box that is painted.

References
----------
For round objects this is the expansion of labels by Euclidean distance of scikit-image
(`segmentation.expand_labels`); the tests compare with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box, ZYXFloat
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import Gauge, look_up, make_row
from anystar_batch.stars.jit import inlined, kernel, ready
from anystar_batch.stars.polyhedra import LatticeMap, Placed, bounding_boxes, place
from anystar_batch.stars.rays import Rays


def paint_around(  # noqa: PLR0913
    out: NDArray[np.uint32],
    box: Box,
    stars: Candidates,
    expanded: Candidates,
    labels: NDArray[np.uint32],
    rays: Rays,
    lattice: LatticeMap,
    voxel_um: ZYXFloat,
) -> None:
    """Paint what stars gain by expansion into an array where they are painted themselves.

    Parameters
    ----------
    out : uint32 (z, y, x)
        Changed where it is 0 and an expanded star contains the voxel's centre.
    box : Box
        What `out` shows, level-0 voxels.
    stars, expanded : Candidates
        The same stars before and after expansion: all that reach the box, in any order.
    labels : uint32 [n]
        Label of each, above 0.
    rays : Rays
    lattice : LatticeMap
    voxel_um : (z, y, x)
        Size of a working voxel, micrometres: what nearest means.
    """
    boxes = bounding_boxes(expanded, rays, lattice)
    meets = (boxes[:, 1] > box.start) & (boxes[:, 0] < box.stop)
    order = stars.order()
    order = order[np.asarray(meets.all(axis=1))[order]]
    if len(order) == 0 or box.size == 0:
        return
    placed, table = place(expanded.take(order), rays, lattice, boxes[order])
    target = np.require(out, np.uint32, ["C", "W"])
    flat = target.reshape(-1)
    _paint_around(
        flat,
        np.where(flat == 0, np.inf, -np.inf).astype(np.float32),
        (box.shape[0], box.shape[1], box.shape[2]),
        np.array(box.start, np.int64),
        ready(labels[order], np.uint32),
        placed,
        ready(1.0 / stars.dist[order], np.float32),
        ready(1.0 / placed.dist, np.float32),
        make_row(box.shape[2], len(rays), table.directions).gauge,
        np.asarray(voxel_um, np.float64),
    )
    if target is not out:
        out[...] = target


@inlined
def _gauge_at(row: Gauge, k: int, inverse_dist: NDArray[np.float32]) -> float:
    """Gauge of entry k of a looked-up row; summed as everywhere, a, b, c in float32."""
    value = row.weight_a[k] * inverse_dist[row.ray_a[k]]
    value += row.weight_b[k] * inverse_dist[row.ray_b[k]]
    value += row.weight_c[k] * inverse_dist[row.ray_c[k]]
    return float(value)


@kernel
def _paint_around(  # noqa: PLR0913
    flat: NDArray[np.uint32],
    nearest: NDArray[np.float32],
    shape: tuple[int, int, int],
    start: NDArray[np.int64],
    labels: NDArray[np.uint32],
    placed: Placed,
    inverse_dist: NDArray[np.float32],
    inverse_expanded: NDArray[np.float32],
    row: Gauge,
    voxel_um: NDArray[np.float64],
) -> None:
    """Give free voxels to the star of the least excess; of equal ones to the first in priority.

    `nearest` holds the least excess so far, and minus infinity where a star itself is.
    """
    _, height, width = shape
    low, high, scale = placed.low, placed.high, placed.scale
    row_x = np.empty(width, np.float64)
    for i in range(len(labels)):
        z0, z1 = max(low[i, 0], start[0]), min(high[i, 0], start[0] + shape[0])
        y0, y1 = max(low[i, 1], start[1]), min(high[i, 1], start[1] + shape[1])
        x0, x1 = max(low[i, 2], start[2]), min(high[i, 2], start[2] + shape[2])
        n = x1 - x0
        for z in range(z0, z1):
            qz = (np.float64(z - placed.whole[i, 0]) - placed.fraction[i, 0]) / scale[0]
            for y in range(y0, y1):
                qy = (np.float64(y - placed.whole[i, 1]) - placed.fraction[i, 1]) / scale[1]
                at = ((z - start[0]) * height + (y - start[1])) * width + x0 - start[2]
                for k in range(n):
                    q = np.float64(x0 + k - placed.whole[i, 2]) - placed.fraction[i, 2]
                    row_x[k] = q / scale[2]
                look_up(qz, qy, row_x, n, row, 0)
                for k in range(n):
                    if _gauge_at(row, k, inverse_expanded[i]) > 1.0:
                        continue
                    gauge = _gauge_at(row, k, inverse_dist[i])
                    z_um, y_um = qz * voxel_um[0], qy * voxel_um[1]
                    x_um = row_x[k] * voxel_um[2]
                    length = np.sqrt(z_um * z_um + y_um * y_um + x_um * x_um)
                    excess = np.float32(length - length / max(gauge, 1e-12))
                    if excess < nearest[at + k]:
                        nearest[at + k] = excess
                        flat[at + k] = labels[i]
