from __future__ import annotations

import numpy as np
import pytest

from anystar_batch.errors import ImageError
from anystar_batch.network.intensity import limits, normalise, raised


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


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, 3, 3], 3.0),
        ([3, 3, 4], None),
        ([4, 3, 3], None),
        ([np.nan, np.nan], np.nan),
        ([np.nan, 1.0], None),
        ([1.0, np.nan], None),
        ([np.inf, np.inf], np.inf),
    ],
)
def test_one_value_alone_is_constant(values, expected):
    _, found = raised(np.asarray(values).reshape(-1, 1, 1), 0.0)
    assert found == expected or (found != found and expected != expected)


@pytest.mark.parametrize("kind", ["u1", "i2", ">u2", "u8", "i8", "f2", "f4", ">f4", "f8", "?"])
def test_the_low_limit_goes_in_float64(kind):
    values = np.random.default_rng(2).normal(100.0, 60.0, (5, 6, 7)).astype(kind)
    expected = (values.astype(np.float64) - 33.3).astype(np.float32)
    assert raised(values, 33.3)[0].tobytes() == expected.tobytes()
    assert raised(values[:, ::2], 33.3)[0].tobytes() == expected[:, ::2].tobytes()


def test_large_integers_keep_what_little_contrast_they_have():
    values = (1 << 40) + np.arange(27).reshape(3, 3, 3)
    assert raised(values, float(1 << 40))[0].ravel().tolist() == list(range(27))


def test_a_missing_intensity_is_nothing():
    assert raised(np.array([np.nan, 9.0]), 4.0)[0].tolist() == [0.0, 5.0]
