from __future__ import annotations

import numpy as np
import pytest

from anystar_batch.errors import ImageError
from anystar_batch.network.intensity import limits, normalise


def test_limits_are_percentiles_of_the_finite_values():
    image = np.concatenate([np.arange(1001.0), [np.nan, np.inf, -np.inf]])
    assert limits(image, 10.0, 90.0) == (100.0, 900.0)


def test_limits_of_integers_and_floats_agree():
    image = np.random.default_rng(0).integers(0, 4096, (8, 9, 10), dtype=np.uint16)
    assert limits(image) == limits(image.astype(np.float64))


def test_limits_fall_back_to_the_extremes_when_objects_are_few():
    image = np.zeros(10_000, np.uint8)
    image[:5] = 200
    assert limits(image, 1.0, 99.9) == (0.0, 200.0)


def test_a_constant_image_is_refused():
    with pytest.raises(ImageError, match="every voxel is 7"):
        limits(np.full((4, 4, 4), 7, np.uint16))


def test_an_image_without_a_finite_voxel_is_refused():
    with pytest.raises(ImageError, match="no voxel is finite"):
        limits(np.full(5, np.nan))


def test_normalise_maps_clips_and_fills():
    image = np.array([-5.0, 10.0, 15.0, 20.0, 99.0, np.nan, np.inf, -np.inf])
    expected = np.array([0, 0, 0.5, 1, 1, 0, 1, 0], np.float32)
    result = normalise(image, 10.0, 20.0)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_normalise_keeps_large_integers_apart():
    image = np.array([2**31, 2**31 + 1, 2**31 + 2], np.uint32)
    np.testing.assert_array_equal(normalise(image, 2**31, 2**31 + 2), [0, 0.5, 1])


def test_normalise_gives_a_block_what_the_whole_image_gets():
    image = np.random.default_rng(1).normal(size=(6, 7, 8)).astype(np.float32)
    low, high = limits(image)
    whole = normalise(image, low, high)
    np.testing.assert_array_equal(normalise(image[2:4, 1:, ::2], low, high), whole[2:4, 1:, ::2])


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_normalise_refuses_limits_that_do_not_rise(low, high):
    with pytest.raises(ImageError, match="expected high above low"):
        normalise(np.zeros(3), low, high)
