"""What the network should answer: probability and distances to the surface, at the grid's points.

Distances run from a grid point along each ray to where the ray leaves the object's voxels, exactly
(a voxel is a unit cube around its centre). StarDist's own targets run to the first outside voxel's
centre or beyond, and paint back too large (METHOD.md section 5).

A polyhedron whose corners lie on a surface misses what bulges between the rays, and what a ray
cannot see. The distances of an object are therefore stretched by one factor, after which the
polyhedron at its innermost point has the object's volume; `GAIN` bounds it.

::

    point *------------------|    <- the voxel face where the label ends: the distance
          |  .  |  .  |  .  |  .  |

Of a ray that leaves the sample only a lower bound is known, the way to the border: such a distance
is given with its sign turned, and the loss asks for no less (`loss.dist_target`). The probability
is the distance to the nearest surface over the largest such distance in the object, as StarDist's
`edt_prob`; the border of the sample is no surface.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX
from anystar_batch.stars.rays import Rays

GAIN = (0.98, 1.06)
"""Smallest and largest stretch; a sphere of many voxels seen by 96 rays needs 1.021."""


def targets(
    labels: NDArray[np.int32], rays: Rays, grid: ZYX
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the probability and the distances at every grid point.

    Parameters
    ----------
    labels : (z, y, x)
        0 is background; each label is one connected piece.
    rays : Rays
    grid : (z, y, x)
        Voxels per grid point; the first point is voxel (0, 0, 0), as in StarDist.

    Returns
    -------
    prob : (z / grid, y / grid, x / grid)
        0 in the background, 1 at the innermost grid point of each object.
    dist : (z / grid, y / grid, x / grid, n_rays)
        Voxels; 0 in the background; minus the lower bound where the ray leaves the sample.
    """
    dist, nearest = _march(np.ascontiguousarray(labels), rays.vertices, np.array(grid))
    inside = np.ascontiguousarray(labels[:: grid[0], :: grid[1], :: grid[2]])
    largest = np.zeros(int(labels.max()) + 1, np.float32)
    np.maximum.at(largest, inside.ravel(), nearest.ravel())
    prob = np.where(inside > 0, nearest / np.maximum(largest, 1e-6)[inside], 0.0)
    a, b, c = (rays.vertices[rays.faces[:, k]] for k in range(3))
    sixth = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c))) / 6.0
    voxels = np.bincount(labels.ravel(), minlength=largest.size).astype(np.float64)
    _stretch(dist, inside, prob, voxels, rays.faces, sixth, np.array(GAIN))
    return prob.astype(np.float32), dist


@njit(cache=True)
def _march(  # noqa: C901, PLR0912  (one kernel)
    labels: NDArray[np.int32],
    directions: NDArray[np.float64],
    grid: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed distances of every ray, and the shortest that ends at a surface.

    References
    ----------
    Amanatides and Woo, A Fast Voxel Traversal Algorithm for Ray Tracing, Eurographics 1987.
    """
    nz, ny, nx = labels.shape
    gz, gy, gx = -(-nz // grid[0]), -(-ny // grid[1]), -(-nx // grid[2])
    n_rays = directions.shape[0]
    dist = np.zeros((gz, gy, gx, n_rays), np.float32)
    nearest = np.zeros((gz, gy, gx), np.float32)
    for pz in range(gz):
        for py in range(gy):
            for px in range(gx):
                oz, oy, ox = pz * grid[0], py * grid[1], px * grid[2]
                label = labels[oz, oy, ox]
                if label == 0:
                    continue
                shortest = np.inf
                longest = 0.0
                for ray in range(n_rays):
                    dz, dy, dx = directions[ray, 0], directions[ray, 1], directions[ray, 2]
                    step_z, step_y, step_x = 1e30, 1e30, 1e30
                    if dz != 0.0:
                        step_z = abs(1.0 / dz)
                    if dy != 0.0:
                        step_y = abs(1.0 / dy)
                    if dx != 0.0:
                        step_x = abs(1.0 / dx)
                    next_z, next_y, next_x = 0.5 * step_z, 0.5 * step_y, 0.5 * step_x
                    z, y, x = oz, oy, ox
                    surface = True
                    while True:
                        if next_z <= next_y and next_z <= next_x:
                            t = next_z
                            next_z += step_z
                            z += 1 if dz > 0 else -1
                        elif next_y <= next_x:
                            t = next_y
                            next_y += step_y
                            y += 1 if dy > 0 else -1
                        else:
                            t = next_x
                            next_x += step_x
                            x += 1 if dx > 0 else -1
                        if z < 0 or y < 0 or x < 0 or z >= nz or y >= ny or x >= nx:
                            surface = False
                            break
                        if labels[z, y, x] != label:
                            break
                    longest = max(longest, t)
                    if surface:
                        shortest = min(shortest, t)
                        dist[pz, py, px, ray] = t
                    else:
                        dist[pz, py, px, ray] = -t
                nearest[pz, py, px] = shortest if shortest < np.inf else longest
    return dist, nearest


@njit(cache=True)
def _stretch(  # noqa: PLR0913  (a kernel takes arrays, not objects)
    dist: NDArray[np.float32],
    inside: NDArray[np.int32],
    prob: NDArray[np.float32],
    voxels: NDArray[np.float64],
    faces: NDArray[np.int64],
    sixth: NDArray[np.float64],
    bounds: NDArray[np.float64],
) -> None:
    """Stretch each object's distances, in place, to its volume in voxels."""
    gain = np.zeros(voxels.size)
    for apply in (False, True):
        for z in range(inside.shape[0]):
            for y in range(inside.shape[1]):
                for x in range(inside.shape[2]):
                    label = inside[z, y, x]
                    if label == 0:
                        continue
                    d = dist[z, y, x]
                    if apply:
                        factor = np.float32(gain[label])
                        for ray in range(d.size):
                            d[ray] *= factor
                    elif prob[z, y, x] == 1.0 and gain[label] == 0.0:
                        volume = 0.0
                        for f in range(sixth.size):
                            corners = d[faces[f, 0]] * d[faces[f, 1]] * d[faces[f, 2]]
                            volume += sixth[f] * abs(corners)
                        exact_gain = (voxels[label] / volume) ** (1.0 / 3.0)
                        gain[label] = min(max(exact_gain, bounds[0]), bounds[1])
