from __future__ import annotations

import numpy as np
import pytest

from anystar_batch.stars import gauge as gauge_module
from anystar_batch.stars.gauge import (
    RADII,
    gauge,
    invert,
    judge_between,
    judge_integer,
    look_up,
    make_row,
)
from anystar_batch.stars.rays import golden_spiral, rays_from_config
from anystar_batch.stars.zones import zones

KINDS = {
    "golden 96": golden_spiral(96),
    "golden 32": golden_spiral(32),
    "golden 64, z 4": golden_spiral(64, (4, 1, 1)),
    "octo 66": rays_from_config({"name": "Rays_Octo", "kwargs": {"n_level": 3}}),
}


def true_weights(rays, offsets):
    """Weights [n, n_rays] from the face whose smallest weight is largest, all faces tried."""
    inverse = np.linalg.inv(np.swapaxes(rays.vertices[rays.faces], 1, 2))
    weights = np.einsum("fkj,nj->nfk", inverse, offsets)
    face = weights.min(2).argmax(1)
    result = np.zeros((len(offsets), len(rays)))
    rows = np.arange(len(offsets))[:, None]
    result[rows, rays.faces[face]] = np.maximum(weights[rows[:, 0], face], 0)
    return result


def table_weights(table, at, n_rays):
    result = np.zeros((len(at), n_rays))
    rows = np.arange(len(at))
    for k in "abc":
        result[rows, getattr(table, f"ray_{k}")[at]] += getattr(table, f"weight_{k}")[at]
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_holds_what_trying_all_faces_gives(kind):
    rays = KINDS[kind]
    table = gauge(rays, 1)
    side = 2 * table.radius + 1
    at = np.random.default_rng(0).choice(side**3, 3000, replace=False)
    offsets = np.stack(np.unravel_index(at, (side,) * 3), 1) - table.radius
    expected = true_weights(rays, offsets)
    # On a border the two faces give the same gauge, so compare that, for a lumpy star.
    lumps = 1 / np.random.default_rng(1).uniform(3, 20, len(rays))
    found = table_weights(table, at, len(rays))
    assert np.abs((found - expected) @ lumps).max() < 1e-5
    assert np.abs(found @ rays.vertices - offsets).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_lookup_by_direction_gives_what_trying_all_faces_gives(kind):
    rays = KINDS[kind]
    row = make_row(4000, len(rays), gauge(rays, 1).directions)
    rng = np.random.default_rng(0)
    lumps = 1 / rng.uniform(3, 20, len(rays))
    for scale in (1e-3, 1.0, 1e3):
        z, y = rng.normal(0, scale, 2)
        row.x[:] = rng.normal(0, scale, 4000)
        look_up(z, y, row.x, 4000, row.gauge, 0)
        offsets = np.stack([np.full(4000, z), np.full(4000, y), row.x], 1)
        found = table_weights(row.gauge, np.arange(4000), len(rays))
        error = np.abs((found - true_weights(rays, offsets)) @ lumps).max()
        assert error < 1e-6 * scale * 10


def test_answers_do_not_depend_on_the_size_of_the_table():
    rays = KINDS["golden 96"]
    dist = np.random.default_rng(0).uniform(20, 40, (1, 96)).astype(np.float32)
    answers = []
    for radius in (RADII[0], RADII[-1]):
        table = gauge(rays, radius)
        row = make_row(101, 96, table.directions)
        invert(0, dist, row)
        volume = []
        for z in range(-45, 46, 3):
            for y in range(-45, 46, 3):
                judge_integer(z, y, -50, 101, table, row, 0)
                volume.append(row.inside.copy())
        answers.append(np.array(volume))
    assert np.array_equal(*answers)
    assert 0 < answers[0].sum() < answers[0].size


def test_the_centre_is_inside_and_a_corner_is_too():
    rays = KINDS["golden 96"]
    dist = np.full((1, 96), 1 / 256, np.float32)
    row = make_row(1, 96, gauge(rays, 1).directions)
    invert(0, dist, row)
    row.x[0] = 0.0
    judge_between(0.0, 0.0, 1, row, 0)
    assert row.inside[0]
    # Ray 0 is the pole (-1, 0, 0): gauge exactly 1 counts as inside.
    dist[:] = 4
    invert(0, dist, row)
    judge_between(-4.0, 0.0, 1, row, 0)
    assert row.inside[0]
    judge_between(-4.000001, 0.0, 1, row, 0)
    assert not row.inside[0]


@pytest.mark.parametrize("kind", KINDS)
def test_sure_balls_are_sure(kind):
    rays = KINDS[kind]
    rng = np.random.default_rng(0)
    dist = rng.uniform(4, 12, (5, len(rays))).astype(np.float32)
    balls = np.sqrt(zones(dist, gauge(rays, 1).directions))
    direction = rng.normal(size=(4000, 3))
    direction = np.concatenate([direction, rays.vertices, rays.vertices[rays.faces].sum(1)])
    direction = np.concatenate([direction, np.eye(3), -np.eye(3)])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    per_voxel = true_weights(rays, direction) @ (1 / dist.T.astype(np.float64))
    octant = (direction >= 0) @ [4, 2, 1]
    assert (per_voxel * balls[:, octant, 0].T < 1).all()
    assert (per_voxel * balls[:, octant, 1].T > 1).all()
    # And not idle: within a few per cent of the best possible for a ball.
    ball = np.sqrt(zones(np.full((1, len(rays)), 10, np.float32), gauge(rays, 1).directions))
    assert (ball[..., 0] > 6).all()
    assert (ball[..., 1] < 10.01).all()


def test_products_and_sums_are_rounded_one_by_one():
    # Values within a rounding of 1: a fused multiply-add would put some on the other side.
    n = 20_000
    rng = np.random.default_rng(0)
    row = make_row(n, 3, gauge(KINDS["golden 96"], 1).directions)
    row.inverse_dist[:] = np.float32(1) / np.array([7.1, 9.3, 8.7], np.float32)
    table = row.gauge
    table.ray_b[:], table.ray_c[:] = 1, 2
    table.weight_a[:], table.weight_b[:] = rng.uniform(0, 3, (2, n))
    a, b, c = row.inverse_dist
    table.weight_c[:] = (1 - table.weight_a * a - table.weight_b * b) / c
    value = table.weight_a * a + table.weight_b * b
    value += table.weight_c * c
    exact = sum(
        w.astype(np.float64) * np.float64(d)
        for w, d in ((table.weight_a, a), (table.weight_b, b), (table.weight_c, c))
    )
    assert value.dtype == np.float32
    assert ((value <= 1) != (exact <= 1)).any()
    gauge_module._judge(table, 0, n, row, 0)
    assert np.array_equal(row.inside, value <= 1)
