from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from anystar_batch.stars.measures import shapes
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
