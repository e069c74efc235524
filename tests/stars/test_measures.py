"""Contrast and regularity against code that shares nothing with theirs."""

import numpy as np
import pytest

from anystar_batch.geometry import Box
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.measures import contrasts, regularity
from tests.support.slow_filters import RAYS, contrast_by_hand, regularity_by_hand


def stars(points, dist):
    dist = np.broadcast_to(np.asarray(dist, np.float32).reshape(len(points), -1), (len(points), 96))
    return Candidates(
        np.asarray(points, np.int32), np.full(len(points), 0.9, np.float32), quantise(dist, 60)
    )


def ellipsoid(radii, centre=(0.0, 0.0, 0.0)):
    """Distances from the origin to an ellipsoid's surface."""
    u, q = RAYS.vertices / radii, -np.asarray(centre) / radii
    a, b, c = (u**2).sum(1), u @ q, q @ q - 1
    return (-b + np.sqrt(b**2 - a * c)) / a


# Contrast


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(3)
    window = Box((-8, 10, 20), (32, 50, 60))
    image = rng.uniform(0, 1, window.shape).astype(np.float32)
    points = rng.integers((2, 14, 24), (30, 46, 56), (40, 3))
    dist = quantise(rng.uniform(2, 12, (40, 96)), 60)
    return image, window, Candidates(points.astype(np.int32), np.ones(40, np.float32), dist)


def test_contrast_is_that_of_samples_taken_by_hand_inside_window_and_volume(scene):
    image, window, candidates = scene
    seen = window.intersect(Box((0, 0, 0), (30, 47, 70)))
    found = contrasts(image, window.start, seen, candidates, RAYS)
    expected = [
        contrast_by_hand(image, window.start, seen, p, d.astype(np.float64))
        for p, d in zip(candidates.points, candidates.dist, strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_star_has_the_same_contrast_alone(scene):
    image, window, candidates = scene
    together = contrasts(image, window.start, window, candidates, RAYS)
    for i in range(len(candidates)):
        alone = contrasts(image, window.start, window, candidates.take(np.array([i])), RAYS)
        assert alone.tobytes() == together[i : i + 1].tobytes()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_contrast_is_the_step_in_units_of_the_noise_bright_or_dark(sign, noise):
    rng = np.random.default_rng(0)
    away = np.indices((48, 48, 48)) - 24
    ball = np.sqrt((away**2).sum(0)) <= 10.4
    image = 0.5 + sign * 0.2 * ball + rng.normal(0, noise, ball.shape)
    window = Box.of_shape(image.shape)
    (found,) = contrasts(
        image.astype(np.float32), window.start, window, stars([[24, 24, 24]], [10.0]), RAYS
    )
    assert found == pytest.approx(0.2 / noise, rel=0.15)


def test_constants_and_what_cannot_be_seen():
    shape = (56, 56, 56)
    window, star = Box.of_shape(shape), stars([[28, 28, 28]], [20.0])
    flat = np.full(shape, 0.25, np.float32)
    assert contrasts(flat, window.start, window, star, RAYS).tolist() == [0.0]
    away = np.sqrt(((np.indices(shape) - 28) ** 2).sum(0))
    two = np.where(away < 20.0, np.float32(1.0), np.float32(0.5))
    assert contrasts(two, window.start, window, star, RAYS).tolist() == [np.inf]
    middle = Box((20, 20, 20), (36, 36, 36))
    assert np.isnan(contrasts(two, window.start, middle, star, RAYS)).all()
    corner = Box((0, 0, 0), (5, 5, 5))
    assert np.isnan(contrasts(two, window.start, corner, star, RAYS)).all()


# Regularity


@pytest.mark.parametrize(
    "dist",
    [
        np.full(96, 7.0),
        ellipsoid((6.0, 6.0, 12.0)),
        ellipsoid((6.0, 6.0, 12.0), centre=(2.0, 0.0, 6.0)),
    ],
)
def test_a_convex_object_is_regular_also_if_long_or_seen_from_beside_its_centre(dist):
    (found,) = regularity(dist[None].astype(np.float32), RAYS)
    assert 0.985 < found <= 1.0


def test_regularity_is_volume_over_that_of_the_hull():
    rng = np.random.default_rng(1)
    dist = quantise(rng.uniform(3, 12, (8, 96)), 60)
    found = regularity(dist, RAYS)
    expected = [regularity_by_hand(d.astype(np.float64)) for d in dist]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.max() < 0.6


def test_the_more_ragged_the_less_regular():
    rng = np.random.default_rng(2)
    ragged = rng.normal(0, 1, 96)
    dist = np.stack([8 * np.exp(s * ragged) for s in (0.0, 0.05, 0.1, 0.2, 0.4)])
    found = regularity(dist.astype(np.float32), RAYS)
    assert (np.diff(found) < -0.02).all()
    assert regularity(np.empty((0, 96), np.float32), RAYS).shape == (0,)
