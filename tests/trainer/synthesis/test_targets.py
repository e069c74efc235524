from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from anystar_batch.stars.rays import golden_spiral
from trainer.synthesis.config import ShapesConfig
from trainer.synthesis.shapes import sample_geometry
from trainer.synthesis.targets import GAIN, targets

RAYS = golden_spiral(96)


def paint_by_hand(point, dist, shape):
    """Voxels inside a star polyhedron: for each face cone, the plane through three corners."""
    corners = RAYS.vertices * dist[:, None]
    voxels = np.indices(shape).reshape(3, -1).T - point
    inside = (voxels == 0).all(axis=1)
    near = np.flatnonzero((voxels**2).sum(axis=1) <= dist.max() ** 2)
    for face in RAYS.faces:
        weights = np.linalg.solve(corners[face].T, voxels[near].T)
        hit = (weights >= -1e-9).all(axis=0) & (weights.sum(axis=0) <= 1 + 1e-9)
        inside[near[hit]] = True
    return inside.reshape(shape)


@pytest.mark.parametrize(("radius", "enough"), [(4, 30), (5, 30), (7, 30), (10, 12), (14, 8)])
def test_true_targets_paint_objects_of_the_true_volume(radius, enough):
    config = ShapesConfig(radius=(radius, radius), sparse=0.0, empty_border=0.0)
    edge = 2 * round(max(24, 3.2 * radius))
    grid = (2, 2, 2)
    ratios = []
    for seed in range(40):
        labels = sample_geometry(np.random.default_rng([radius, seed]), (edge,) * 3, config).labels
        prob, dist = targets(labels, RAYS, grid)
        inner = labels[::2, ::2, ::2]
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            low = np.array([b.start for b in box])
            high = np.array([b.stop for b in box])
            mask = labels[box] == label
            grid_box = tuple(slice(-(-b.start // 2), -(-b.stop // 2)) for b in box)
            own = np.where(inner[grid_box] == label, prob[grid_box], 0)
            if low.min() == 0 or high.max() == edge or not own.any() or len(ratios) >= enough:
                continue
            at = np.unravel_index(np.argmax(own), own.shape)
            point = (np.array(at) + [b.start for b in grid_box]) * 2
            rays = dist[tuple(point // 2)]
            painted = paint_by_hand(point - low + 4, rays, tuple(high - low + 8))
            ratios.append(painted.sum() / mask.sum())
        if len(ratios) >= enough:
            break
    assert len(ratios) >= enough
    assert 0.97 <= np.median(ratios) <= 1.03


def ball(radius, centre=(24, 24, 24), edge=48):
    z, y, x = np.indices((edge,) * 3)
    cz, cy, cx = centre
    squared = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2
    return (squared <= radius**2).astype(np.int32)


@pytest.mark.parametrize("radius", [5, 8, 12])
def test_distances_of_a_ball_are_its_radius(radius):
    _, dist = targets(ball(radius), RAYS, (1, 1, 1))
    # Half a voxel of steps, and the stretch that gives the polyhedron the ball's volume.
    assert dist[24, 24, 24].mean() == pytest.approx(radius * 1.02, abs=0.45)


def test_distances_end_at_the_voxels_faces():
    labels = np.zeros((9, 9, 9), np.int32)
    labels[2:7, 3:6, 4] = 1
    _, dist = targets(labels, RAYS, (1, 1, 1))
    pole = int(np.argmax(RAYS.vertices[:, 0]))
    gain = dist[4, 4, 4, pole] / 2.5
    assert GAIN[0] - 1e-6 <= gain <= GAIN[1] + 1e-6
    half = np.array([2.5, 1.5, 0.5])
    with np.errstate(divide="ignore"):
        expected = (half / np.abs(RAYS.vertices)).min(axis=1)
    np.testing.assert_allclose(dist[4, 4, 4], expected * gain, rtol=1e-5)


def test_grid_points_are_the_voxels_at_multiples_of_the_grid():
    labels = ball(9)
    full_prob, full_dist = targets(labels, RAYS, (1, 1, 1))
    prob, dist = targets(labels, RAYS, (2, 2, 4))
    assert prob.shape == (24, 24, 12)
    assert dist.shape == (24, 24, 12, 96)
    np.testing.assert_allclose(dist, full_dist[::2, ::2, ::4], rtol=1e-5)
    np.testing.assert_allclose(prob, full_prob[::2, ::2, ::4], atol=1e-6)


def test_probability_is_1_in_the_middle_and_0_outside():
    labels = ball(7) + 2 * ball(6, (8, 8, 8))
    prob, dist = targets(labels, RAYS, (2, 2, 2))
    inner = labels[::2, ::2, ::2]
    assert (prob[inner == 0] == 0).all()
    assert (dist[inner == 0] == 0).all()
    assert prob[12, 12, 12] == prob[4, 4, 4] == 1
    assert (prob[inner > 0] > 0).all()
    assert prob.max() == 1


def test_the_border_of_a_sample_is_no_surface_and_gives_a_lower_bound():
    labels = ball(10, (0, 24, 24))
    prob, dist = targets(labels, RAYS, (1, 1, 1))
    assert prob[0, 24, 24] == 1
    up = int(np.argmin(RAYS.vertices[:, 0]))
    down = int(np.argmax(RAYS.vertices[:, 0]))
    assert dist[4, 24, 24, up] == pytest.approx(-4.5, rel=0.07)
    assert dist[4, 24, 24, down] == pytest.approx(6.5, rel=0.07)


def test_touching_objects_end_where_the_other_begins():
    labels = np.zeros((10, 10, 20), np.int32)
    labels[2:8, 2:8, 2:10], labels[2:8, 2:8, 10:18] = 1, 2
    prob, dist = targets(labels, RAYS, (1, 1, 1))
    right = int(np.argmax(RAYS.vertices[:, 2]))
    assert dist[5, 5, 6, right] < 4.5 / RAYS.vertices[right, 2]
    assert prob[labels == 1].max() == prob[labels == 2].max() == 1


def test_a_sample_without_objects_has_empty_targets():
    prob, dist = targets(np.zeros((8, 8, 8), np.int32), RAYS, (2, 2, 2))
    assert not prob.any()
    assert not dist.any()
