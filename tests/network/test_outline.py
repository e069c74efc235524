"""Where surfaces are put along the mean profile: known profiles, whatever the first look said."""

from __future__ import annotations

import numpy as np
import pytest

from anystar_batch.geometry import Box
from anystar_batch.network.outline import fall_factors
from anystar_batch.network.profiles import (
    CHANNELS,
    SAMPLES,
    SCALARS,
    centres,
    neighbours,
    profiles,
)
from anystar_batch.network.refiner import from_arrays
from anystar_batch.stars.rays import golden_spiral
from tests.network.test_refiner import random_arrays

DIRECTIONS = golden_spiral(96).vertices
SHAPE = (64, 64, 64)
CENTRE = np.array([31.25, 32.0, 30.5])


def ball(radius, blur, sign=1.0):
    """An image that falls from 100 to 20 around a radius, as a logistic function."""
    z, y, x = np.indices(SHAPE)
    r = np.sqrt((z - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 + (x - CENTRE[2]) ** 2)
    return (sign * (20.0 + 80.0 / (1.0 + np.exp((r - radius) / blur)))).astype(np.float32)


def factor(image, given, refined, share):
    whole, fraction = centres(CENTRE[None])
    values = np.empty((1, SAMPLES, CHANNELS, 96), np.float32)
    scalars = np.empty((1, SCALARS, 96), np.float32)
    near, given = neighbours(DIRECTIONS), np.broadcast_to(np.float32(given), (1, 96)).copy()
    origin = np.zeros(3, np.int64)
    profiles(
        image, origin, np.array(SHAPE), whole, fraction, given, DIRECTIONS, near, values, scalars
    )
    refined = np.broadcast_to(np.float32(refined), (1, 96)).copy()
    out = np.empty(1, np.float32)
    fall_factors(values, given, refined, share, out)
    return float(out[0])


@pytest.mark.parametrize("share", [0.8, 0.5, 0.2])
@pytest.mark.parametrize("given", [8.0, 10.0, 12.5])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_surface_is_put_where_the_profile_has_fallen_to_the_share(share, given, sign):
    image = ball(10.0, 0.8, sign)
    expected = 10.0 + 0.8 * np.log(1.0 / share - 1.0)
    assert factor(image, given, 10.0, share) * 10.0 == pytest.approx(expected, abs=0.15)


def test_what_the_first_look_said_of_single_rays_does_not_matter():
    image = ball(10.0, 0.8)
    uneven = np.random.default_rng(3).uniform(8.5, 11.5, (1, 96)).astype(np.float32)
    assert factor(image, uneven, 10.0, 0.5) == pytest.approx(1.0, abs=0.02)


def test_a_smaller_share_lies_farther_out():
    found = [
        factor(ball(10.0, 1.5), 10.0, 10.0, share) for share in (0.9, 0.7, 0.5, 0.3, 0.1, 0.02)
    ]
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.3


def test_without_a_fall_the_surface_stays():
    assert factor(np.full(SHAPE, 7.0, np.float32), 10.0, 10.0, 0.5) == 1.0
    # A shell: brighter than its core all the way out.
    z, y, x = np.indices(SHAPE)
    r = np.sqrt((z - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 + (x - CENTRE[2]) ** 2)
    values = np.zeros((1, SAMPLES, CHANNELS, 96), np.float32)
    values[:, :, 0] = np.linspace(-1, 1, SAMPLES, dtype=np.float32)[None, :, None]
    out, even = np.empty(1, np.float32), np.full((1, 96), 10.0, np.float32)
    fall_factors(values, even, even, 0.5, out)
    assert out[0] == 1.0
    # The volume ends before anything is known of what lies around.
    assert factor(r.astype(np.float32), 40.0, 40.0, 0.5) == 1.0


def test_the_refiner_answers_the_same_with_and_without_it():
    refiner = from_arrays(random_arrays())
    dist = np.random.default_rng(1).uniform(7, 12, (5, 96)).astype(np.float32)
    points = CENTRE + np.arange(5)[:, None]
    image, box, even = ball(10.0, 0.8), Box.of_shape(SHAPE), (1.0, 1.0, 1.0)
    plain = refiner.refine(image, box, SHAPE, points, dist, even, DIRECTIONS)
    asked = refiner.outline(image, box, SHAPE, points, dist, even, DIRECTIONS, 0.5)
    np.testing.assert_array_equal(asked[0], plain[0])
    np.testing.assert_array_equal(asked[1], plain[1])
    assert (asked[2] != 1.0).all()
    alone = refiner.outline(image, box, SHAPE, points[3:4], dist[3:4], even, DIRECTIONS, 0.5)
    assert alone[2][0] == asked[2][3]
    assert (refiner.outline(image, box, SHAPE, points, dist, even, DIRECTIONS)[2] == 1.0).all()
