"""What the filters measure, computed anew: slow, one star at a time, without our geometry."""

import numpy as np
from scipy.spatial import Delaunay

from anystar_batch.stars.rays import golden_spiral

RAYS = golden_spiral(96)


def volume_by_hand(dist):
    """Sum of the tetrahedra between the centre and each face."""
    return _cells_volume((dist[:, None] * RAYS.vertices)[RAYS.faces], np.zeros(3))


def regularity_by_hand(dist):
    """Volume over the hull's, and that from a tetrahedralisation."""
    corners = dist[:, None] * RAYS.vertices
    cells = Delaunay(corners).simplices
    return volume_by_hand(dist) / _cells_volume(corners[cells[:, 1:]], corners[cells[:, :1]])


def contrast_by_hand(image, start, seen, point, dist):
    """Difference of means over the pooled deviation, four samples a ray inside and four outside.

    `image[0, 0, 0]` is voxel `start`; only voxels in the box `seen` count.
    """
    parts = []
    for low, high in ((0.0, 0.9), (1.1, 1.4)):
        values = []
        for share in (0.125, 0.375, 0.625, 0.875):
            factor = ((1 - share) * low**3 + share * high**3) ** (1 / 3)
            at = np.floor(point + (dist * factor)[:, None] * RAYS.vertices + 0.5).astype(int)
            at = at[((at >= seen.start) & (at < seen.stop)).all(axis=1)] - start
            values.extend(image[tuple(at.T)].astype(np.float64))
        parts.append(np.array(values))
    inside, shell = parts
    return abs(inside.mean() - shell.mean()) / np.sqrt((inside.var() + shell.var()) / 2)


def _cells_volume(corners, apex):
    return np.abs(np.linalg.det(corners - apex)).sum() / 6
