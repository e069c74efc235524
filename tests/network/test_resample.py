from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anystar_batch.geometry import Box
from anystar_batch.network.resample import (
    reflected,
    resample,
    source_box,
    taps,
    tile_taps,
    working_shape,
)

ZOOMS = st.floats(0.17, 9.0) | st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0])
LENGTHS = st.integers(1, 60)
COMMON = settings(max_examples=80, deadline=None)


def whole(image, zoom):
    """The whole volume in working voxels."""
    shape = working_shape(image.shape, zoom)
    return resample(image, (0, 0, 0), tile_taps(Box.of_shape(shape), shape, image.shape, zoom))


def line(values, zoom, start=0, stop=None):
    """One axis of working voxels, as float64 sums of the taps."""
    length = working_shape((len(values), 1, 1), (zoom, 1, 1))[0]
    axis = taps(start, length if stop is None else stop, length, len(values), zoom)
    index = axis.first[:, None] + np.arange(axis.weights.shape[1])
    return (axis.weights.astype(np.float64) * np.asarray(values, np.float64)[index]).sum(1)


@COMMON
@given(level=LENGTHS, zoom=ZOOMS, start=st.integers(-90, 90), count=st.integers(1, 40))
def test_weights_sum_to_one_are_not_negative_and_lie_in_the_level(level, zoom, start, count):
    length = working_shape((level, 1, 1), (zoom, 1, 1))[0]
    axis = taps(start, start + count, length, level, zoom)
    np.testing.assert_allclose(axis.weights.sum(axis=1, dtype=np.float64), 1.0, atol=1e-6)
    assert axis.weights.min() >= 0.0
    assert axis.first.min() >= 0
    assert axis.first.max() + axis.weights.shape[1] <= level
    assert axis.span == (axis.first.min(), axis.first.max() + axis.weights.shape[1])


@COMMON
@given(
    shape=st.tuples(LENGTHS, st.integers(1, 30), st.integers(1, 30)),
    zoom=st.tuples(ZOOMS, ZOOMS, ZOOMS),
    data=st.data(),
)
def test_a_window_has_the_bits_of_the_whole_volume_whatever_was_read(shape, zoom, data):
    rng = np.random.default_rng(sum(shape))
    image = rng.normal(size=shape).astype(np.float32)
    full = whole(image, zoom)
    start = [data.draw(st.integers(0, n - 1)) for n in full.shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, full.shape, strict=True)]
    window = Box(tuple(start), tuple(stop))
    axes = tile_taps(window, full.shape, shape, zoom)
    box = source_box(axes)
    alone = resample(image[box.slices], box.start, axes)
    assert alone.shape == window.shape
    assert alone.flags.c_contiguous
    assert alone.tobytes() == np.ascontiguousarray(full[window.slices]).tobytes()
    assert resample(image, (0, 0, 0), axes).tobytes() == alone.tobytes()


@COMMON
@given(shape=st.tuples(LENGTHS, LENGTHS, LENGTHS), zoom=st.tuples(ZOOMS, ZOOMS, ZOOMS))
def test_beyond_the_border_the_volume_is_mirrored(shape, zoom):
    image = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    full = whole(image, zoom)
    margin = tuple(min(9, 2 * n) for n in full.shape)
    window = Box.of_shape(full.shape).grow(margin)
    axes = tile_taps(window, full.shape, shape, zoom)
    box = source_box(axes)
    assert box.intersect(Box.of_shape(shape)) == box
    seen = resample(image[box.slices], box.start, axes)
    expected = np.pad(full, [(m, m) for m in margin], mode="symmetric")
    assert seen.tobytes() == expected.tobytes()


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_a_window_beyond_the_border_is_a_mirror_image(zoom):
    image = np.random.default_rng(1).normal(size=(8, 6, 4)).astype(np.float32)
    full = whole(image, (zoom, 1.0, 1.0))
    axes = tile_taps(Box((-4, 0, 0), (0, 6, 4)), full.shape, image.shape, (zoom, 1.0, 1.0))
    box = source_box(axes)
    seen = resample(image[box.slices], box.start, axes)
    assert seen.tobytes() == np.ascontiguousarray(full[3::-1]).tobytes()


def test_index_minus_one_shows_index_zero_however_far_beyond():
    index = np.arange(-7, 8, dtype=np.int64)
    assert reflected(index, 3).tolist() == [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]
    assert reflected(index, 1).tolist() == [0] * 15


def test_zoom_one_is_a_copy():
    image = np.random.default_rng(2).normal(size=(5, 6, 7)).astype(np.float32)
    assert whole(image, (1.0, 1.0, 1.0)).tobytes() == image.tobytes()


def test_a_copied_axis_beside_resampled_ones_is_not_mixed():
    image = np.random.default_rng(2).normal(size=(5, 16, 16)).astype(np.float32)
    full = whole(image, (1.0, 1.7, 0.6))
    alone = whole(image[3:4], (1.0, 1.7, 0.6))
    np.testing.assert_array_equal(full[3], alone[0])


@COMMON
@given(zoom=ZOOMS, level=st.integers(30, 120))
def test_a_ramp_stays_that_ramp_away_from_the_border(zoom, level):
    result = line(np.arange(level), zoom)
    expected = (np.arange(len(result)) + 0.5) * zoom - 0.5
    reach = max(1.0, zoom)
    inside = (expected - reach >= 0) & (expected + reach <= level - 1)
    np.testing.assert_allclose(result[inside], expected[inside], atol=2e-4)


@COMMON
@given(shape=st.tuples(*[st.integers(1, 5)] * 3), zoom=st.tuples(ZOOMS, ZOOMS, ZOOMS))
def test_a_constant_image_stays_constant_on_thin_axes_too(shape, zoom):
    full = whole(np.full(shape, 7.25, np.float32), zoom)
    np.testing.assert_allclose(full, 7.25, rtol=1e-6)


@pytest.mark.parametrize("zoom", [0.2, 0.37, 0.5, 0.8])
def test_enlarging_is_linear_interpolation(zoom):
    image = np.random.default_rng(3).normal(size=(9, 11, 13)).astype(np.float32)
    full = whole(image, (zoom, zoom, zoom))
    at = np.meshgrid(*[(np.arange(n) + 0.5) * zoom - 0.5 for n in full.shape], indexing="ij")
    expected = ndimage.map_coordinates(image.astype(np.float64), at, order=1, mode="nearest")
    np.testing.assert_allclose(full, expected, atol=1e-5)


def test_halving_weighs_four_voxels_symmetrically():
    axis = taps(3, 4, 10, 20, 2.0)
    at = axis.first[0] + np.arange(axis.weights.shape[1])
    weights = dict(zip(at.tolist(), axis.weights[0].tolist(), strict=True))
    assert {k: v for k, v in weights.items() if v} == {5: 0.125, 6: 0.375, 7: 0.375, 8: 0.125}


@pytest.mark.parametrize("zoom", [1.3, 2.0, 2.7, 4.4, 8.0])
def test_white_noise_loses_the_variance_that_has_no_room(zoom):
    # A triangle of half-width z over unit noise leaves 2 / (3 z); picking voxels would leave 1.
    noise = np.random.default_rng(4).normal(size=40_000)
    assert line(noise, zoom).var() == pytest.approx(2 / (3 * zoom), rel=0.12)


@pytest.mark.parametrize("zoom", [2.0, 3.0, 4.5])
def test_a_wave_too_fast_for_the_working_voxels_does_not_come_back_slow(zoom):
    x = np.arange(4000)
    for cycles in (0.85 / zoom, 0.95 / zoom, 1.05 / zoom):
        wave = np.cos(2 * np.pi * min(cycles, 0.49) * x)
        amplitude = np.abs(line(wave, zoom)[10:-10]).max()
        assert amplitude < 0.04


@COMMON
@given(level=LENGTHS, zoom=ZOOMS)
def test_working_voxels_cover_the_level(level, zoom):
    length = working_shape((level, 1, 1), (zoom, 1, 1))[0]
    assert length >= 1
    assert length * zoom >= level - 0.0101 * zoom
    assert length == 1 or (length - 1) * zoom < level


def test_a_rest_under_a_hundredth_of_a_voxel_gets_none_of_its_own():
    assert working_shape((10, 10, 10), (2.0, 10 / 3.005, 10 / 3.02)) == (5, 3, 4)
