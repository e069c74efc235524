from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import regionprops

from anystar_batch.geometry import Box
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.measures import shapes
from anystar_batch.stars.polyhedra import IDENTITY, spreads
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral

STEP = (0.7, 0.25, 0.4)


@pytest.fixture(scope="module")
def rays():
    return golden_spiral(96)


def test_convex_stars_have_surface_and_width_of_their_hulls(rays):
    radii = np.array([[3.0, 3.0, 3.0], [4.0, 3.0, 3.5]])
    dist = np.stack([1 / np.sqrt(((rays.vertices / r) ** 2).sum(1)) for r in radii])
    dist = dist.astype(np.float32)
    found = shapes(dist, rays, STEP, ("surface", "feret", "sphericity", "solidity"))
    assert list(found) == [
        "surface_area_um2",
        "feret_diameter_max_um",
        "sphericity",
        "solidity",
    ]
    for i, corners in enumerate(dist[:, :, None].astype(np.float64) * rays.vertices * STEP):
        hull = ConvexHull(corners)
        assert found["surface_area_um2"][i] == pytest.approx(hull.area, rel=2e-3)
        assert found["feret_diameter_max_um"][i] == pytest.approx(pdist(corners).max(), rel=1e-6)
        ball = np.cbrt(np.pi) * np.cbrt(6 * hull.volume) ** 2
        assert found["sphericity"][i] == pytest.approx(ball / hull.area, rel=3e-3)


def test_spreads_are_those_of_the_voxels_inside(rays):
    """Painted large, as scikit-image measures it: its covariance is of points, ours of volume."""
    dist = np.random.default_rng(3).uniform(14.0, 22.0, (2, 96)).astype(np.float32)
    dist[1] = 1 / np.sqrt(((rays.vertices / (28.0, 16.0, 20.0)) ** 2).sum(1))
    stars = Candidates(np.full((2, 3), 32, np.int32), np.full(2, 0.9, np.float32), dist)
    for i, found in enumerate(spreads(dist, rays)):
        out, one = np.zeros((64, 64, 64), np.uint32), stars.take([i])
        paint(out, Box.of_shape(out.shape), one, np.ones(1, np.uint32), rays, IDENTITY)
        # The trace of the inertia is twice that of the covariance.
        inertia = regionprops(out.astype(np.uint8))[0].inertia_tensor
        covariance = np.trace(inertia) / 2 * np.eye(3) - inertia
        assert found == pytest.approx(np.sqrt(np.diag(covariance)), rel=3e-3)


def test_a_rough_star_has_more_surface_than_its_hull(rays):
    dist = np.random.default_rng(0).uniform(2.0, 6.0, (3, 96)).astype(np.float32)
    found = shapes(dist, rays, (1.0, 1.0, 1.0), ("surface", "solidity", "feret"))
    for i, corners in enumerate(dist[:, :, None].astype(np.float64) * rays.vertices):
        faces = corners[rays.faces]
        crossed = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
        area = np.linalg.norm(crossed, axis=1).sum() / 2
        assert found["surface_area_um2"][i] == pytest.approx(area, rel=1e-6)
        assert area > ConvexHull(corners).area
        assert found["solidity"][i] < 0.6
        assert found["feret_diameter_max_um"][i] == pytest.approx(pdist(corners).max(), rel=1e-6)


def test_no_stars_have_no_shapes(rays):
    found = shapes(np.empty((0, 96), np.float32), rays, STEP, ("feret", "surface", "solidity"))
    assert [len(values) for values in found.values()] == [0, 0, 0]
