from __future__ import annotations

import numpy as np
import pytest

from anystar_batch.errors import ConfigError
from anystar_batch.stars.candidates import Candidates, decode, encode, is_storable, quantise


def some(n: int, n_rays: int = 5) -> Candidates:
    rng = np.random.default_rng(n)
    return Candidates(
        rng.integers(-5, 50, (n, 3)).astype(np.int32),
        rng.uniform(size=n).astype(np.float32),
        quantise(rng.uniform(0, 40, (n, n_rays)), 40),
    )


def test_order_is_falling_prob_then_rising_position():
    points = np.array([[1, 0, 0], [0, 9, 9], [0, 1, 5], [0, 1, 4], [7, 7, 7]], np.int32)
    prob = np.array([0.5, 0.5, 0.5, 0.5, 0.9], np.float32)
    candidates = Candidates(points, prob, np.ones((5, 4), np.float32))
    assert candidates.order().tolist() == [4, 3, 2, 1, 0]
    assert candidates.order().dtype == np.int64


def test_order_does_not_depend_on_how_candidates_were_collected():
    candidates = some(200)
    candidates.prob[:] = np.round(candidates.prob, 1)
    shuffle = np.random.default_rng(0).permutation(200)
    shuffled = candidates.take(shuffle)
    assert np.array_equal(shuffled.points[shuffled.order()], candidates.points[candidates.order()])


def test_parts_come_back_together():
    candidates = some(7)
    parts = [candidates.take(np.arange(3)), candidates.take(np.arange(7) >= 3)]
    whole = Candidates.concatenate(parts, 5)
    assert np.array_equal(whole.points, candidates.points)
    assert np.array_equal(whole.prob, candidates.prob)
    assert np.array_equal(whole.dist, candidates.dist)


def test_contrasts_go_where_their_candidates_go():
    candidates = some(7)
    contrast = np.arange(7, dtype=np.float32)
    measured = Candidates(candidates.points, candidates.prob, candidates.dist, contrast)
    parts = [measured.take(np.array([4, 2])), Candidates.empty(5), measured.take(contrast > 4)]
    assert Candidates.concatenate(parts, 5).contrast.tolist() == [4, 2, 5, 6]
    assert decode(encode(measured)).contrast.tolist() == contrast.tolist()
    # Half of them measured is not measured.
    assert Candidates.concatenate([*parts, candidates], 5).contrast is None
    assert Candidates.concatenate([], 5).contrast is None
    assert decode(encode(candidates)).contrast is None


def test_none_is_empty_of_the_right_types():
    none = Candidates.concatenate([], 5)
    assert len(none) == 0
    assert none.dist.shape == (0, 5)
    assert (none.points.dtype, none.prob.dtype, none.dist.dtype) == ("int32", "float32", "float32")
    assert len(none.order()) == 0


def test_quantised_distances_survive_storage_bit_by_bit():
    candidates = some(500, 96)
    stored = encode(candidates)
    assert (stored["dist"].dtype, stored["step"].dtype) == ("uint8", "int8")
    # Every candidate uses its byte: the longest ray takes more than half of the steps.
    assert stored["dist"].max(axis=1).min() >= 128
    back = decode(stored)
    assert np.array_equal(back.dist.view(np.uint32), candidates.dist.view(np.uint32))
    assert np.array_equal(back.points, candidates.points)
    assert np.array_equal(back.prob, candidates.prob)


@pytest.mark.parametrize("longest", [0.3, 0.9, 1.0, 3.0, 3.985, 7.97, 30.0])
def test_quantise_rounds_to_the_nearest_step_and_is_idempotent(longest):
    dist = np.random.default_rng(0).uniform(longest / 50, longest, (50, 8))
    quantised = quantise(dist, 30)
    bound = np.maximum(dist.max(axis=1, keepdims=True) / 255, 1 / 512)
    assert (np.abs(quantised - dist) <= bound).all()
    assert np.array_equal(quantise(quantised, 30), quantised)


@pytest.mark.parametrize(
    ("longest", "step"),
    [(0.0, -8), (0.99, -8), (255 / 256, -8), (0.997, -7), (3.98, -6), (3.985, -5), (31.8, -3)],
)
def test_step_is_the_least_power_of_two_that_holds_the_longest_ray(longest, step):
    dist = quantise(np.array([[0.5 * longest, longest]]), 40)
    one = Candidates(np.zeros((1, 3), np.int32), np.ones(1, np.float32), dist)
    assert encode(one)["step"].tolist() == [step]


def test_quantise_keeps_a_star_around_its_centre_and_below_the_radius():
    # 20.3 takes a step of 1/8: 162 of them are 20.25, 163 would be beyond.
    quantised = quantise(np.array([[-3.0, 0.0, 0.001, 20.3]]), 20.3)
    assert quantised.tolist() == [[1 / 8, 1 / 8, 1 / 8, 20.25]]


def test_quantise_treats_every_candidate_alone():
    dist = np.random.default_rng(1).uniform(0.5, 30, (40, 8))
    dist[::2] /= 10
    alone = np.concatenate([quantise(row[None], 30) for row in dist])
    assert np.array_equal(quantise(dist, 30), alone)


@pytest.mark.parametrize("dist", [20.4, np.inf, np.nan])
def test_quantise_refuses_what_should_have_been_dropped(dist):
    rows = np.array([[1.0, 2.0], [1.0, dist]])
    assert is_storable(rows, 20.3).tolist() == [True, False]
    with pytest.raises(ValueError, match="exceed the declared maximal radius"):
        quantise(rows, 20.3)


@pytest.mark.parametrize("max_radius", [0.5, 256.5, np.nan])
def test_quantise_refuses_a_radius_that_cannot_be_stored(max_radius):
    with pytest.raises(ConfigError, match="largest distance that can be stored"):
        quantise(np.ones((1, 4)), max_radius)


@pytest.mark.parametrize("dist", [0.0, 1 / 512, 1.001])
def test_encode_refuses_distances_off_the_fixed_point(dist):
    candidates = Candidates(
        np.zeros((1, 3), np.int32), np.ones(1, np.float32), np.full((1, 4), dist, np.float32)
    )
    with pytest.raises(ValueError, match="quantise before encoding"):
        encode(candidates)
