"""A predictor that knows nothing and measures what it is shown, and images for it to measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from anystar_batch.stars.polyhedra import volumes
from anystar_batch.stars.rays import golden_spiral

RAYS = golden_spiral(96)
SPHERE_GAIN = float(volumes(np.ones((1, 96), np.float32), RAYS)[0] * 3 / (4 * np.pi)) ** (-1 / 3)
"""By what to stretch a polyhedron with corners on a sphere so that it has the sphere's volume."""


@dataclass(frozen=True)
class Blobs:
    """Measures the bright objects of a tile: rays to half intensity, between voxels."""

    grid: tuple[int, int, int]
    reach: float

    def __call__(self, _model, _threads):
        return self

    def find(self, image, window, core, _prob_thresh):
        pieces, count = ndimage.label(image > 0.5)
        grid, start = np.asarray(self.grid), np.asarray(window.start)
        points, dists = [], []
        for n, where in enumerate(ndimage.find_objects(pieces, count)):
            cut = any(s.start == 0 or s.stop == m for s, m in zip(where, image.shape, strict=True))
            if cut:
                continue
            weight = np.where(pieces[where] == n + 1, image[where], 0)
            centre = ndimage.center_of_mass(weight) + np.asarray([s.start for s in where])
            point = np.rint((centre + start) / grid).astype(int) * grid
            if core.contains(tuple(point)):
                points.append(point)
                dists.append(self.march(image, point - start))
        if not points:
            return (
                np.empty((0, 3), np.int32),
                np.empty(0, np.float32),
                np.empty((0, 96), np.float32),
            )
        return (
            np.asarray(points, np.int32),
            np.full(len(points), 0.9, np.float32),
            np.asarray(dists, np.float32) * SPHERE_GAIN,
        )

    def march(self, image, point):
        """Distance along every ray to where the image falls to one half."""
        t = np.arange(0.0, self.reach, 0.25)
        at = point[:, None, None] + RAYS.vertices.T[:, :, None] * t
        along = ndimage.map_coordinates(image, at, order=1, mode="nearest")
        after = np.argmax(along < 0.5, axis=1)
        assert after.all()
        ray = np.arange(96)
        high, low = along[ray, after - 1], along[ray, after]
        return t[after - 1] + 0.25 * (high - 0.5) / (high - low)


def soft_image(truth, voxel, width=2.0):
    """Objects of intensity 1000 that falls to 100 across the surface, linearly, over `width` um."""
    values = np.zeros(truth.shape)
    axes = np.ogrid[tuple(slice(0, n) for n in truth.shape)]
    for centre, radii in zip(truth.centres, truth.radii, strict=True):
        rho = np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)))
        radius = np.mean(np.asarray(radii) * voxel)
        values = np.maximum(values, np.clip((1 - rho) * radius / width + 0.5, 0, 1))
    return np.rint(100 + 900 * values).astype(np.uint16)
