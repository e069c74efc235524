"""Limits that follow the image, against slow formulas and by hand."""

import json
import math

import numpy as np
import pytest
from scipy import ndimage

from anystar_batch.geometry import Box
from anystar_batch.network.intensity import normalise, raised
from anystar_batch.network.limits_field import LimitsField
from anystar_batch.network.limits_grid import (
    MOST_CELLS,
    TEXTURE,
    TOLERANCE,
    LimitsGrid,
    box_means,
    cell_counts,
    make_grid,
    measure_cell,
    texture,
)
from anystar_batch.network.resample import Taps, taps, tile_taps
from anystar_batch.network.window import window_image

UNIT, ZERO = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def balls(brightness, seed=0, edge=36, noise=0.5):
    """Balls of 12 voxels across on a dark ground of 10 with a little noise."""
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(0, edge) for _ in range(3))]
    image = np.zeros((edge,) * 3)
    for place in ((9, 9, 9), (26, 10, 25), (12, 27, 26), (27, 26, 9)):
        away = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, place, strict=True)))
        image = np.maximum(image, np.clip(6.5 - away, 0.0, 1.0))
    return 10.0 + brightness * image + rng.normal(0.0, noise, image.shape)


def grid_of(*crops, limits):
    """Crops of one shape side by side along x, a cell each."""
    cells = [measure_cell(box_means(crop, (3, 3, 3))) for crop in crops]
    z, y, x = crops[0].shape
    return make_grid((z, y, x * len(crops)), (1, 1, len(crops)), cells, limits)


def test_a_dim_cell_is_shown_brighter_by_what_it_lacks_and_the_others_as_ever():
    grid = grid_of(balls(1000), balls(1000, 1), balls(20, 2), limits=(10.0, 1010.0))
    assert grid is not None
    assert grid.low[:2] == (10.0, 10.0)
    assert grid.width[:2] == (1000.0, 1000.0)
    assert grid.width[2] == pytest.approx(TOLERANCE * 20, rel=0.1)
    assert grid.low[2] == pytest.approx(10.0, abs=0.5)


@pytest.mark.parametrize("brightness", [1000, 500, 400])
def test_an_image_without_dim_parts_has_no_grid(brightness):
    assert grid_of(balls(1000), balls(brightness, 1), limits=(10.0, 1010.0)) is None


def test_a_cell_of_noise_alone_takes_what_its_neighbours_have():
    noise = np.random.default_rng(3).normal(10.0, 0.5, (36, 36, 36))
    for alone in (noise, ndimage.gaussian_filter(noise, 0.9)):
        assert (
            texture(box_means(alone, (3, 3, 3)))
            < TEXTURE
            < texture(box_means(balls(20), (3, 3, 3)))
        )
        assert grid_of(balls(1000), alone, limits=(10.0, 1010.0)) is None
    grid = grid_of(balls(1000), balls(20), noise, limits=(10.0, 1010.0))
    assert grid.width[2] == pytest.approx(grid.width[1], rel=0.01)


def test_a_cell_of_strong_noise_is_raised_no_more_than_fits_its_range():
    noise = np.random.default_rng(3).normal(10.0, 250.0, (36, 36, 36))
    grid = grid_of(balls(1000), balls(20), noise, limits=(10.0, 1010.0))
    assert grid.width[2] > 0.9 * 1000.0 / TOLERANCE


def test_empty_constant_and_not_finite_cells_take_their_neighbours():
    empty, constant = np.full((36, 36, 36), np.nan), np.full((36, 36, 36), 10.0)
    grid = grid_of(balls(1000), balls(20), empty, constant, limits=(10.0, 1010.0))
    assert grid.width[2] == pytest.approx(grid.width[1], rel=1e-4)
    assert grid.width[3] == pytest.approx(grid.width[1], rel=1e-4)
    assert all(map(math.isfinite, grid.low + grid.width))
    assert grid_of(empty, empty, limits=(0.0, 1.0)) is None
    assert grid_of(constant, empty, limits=(0.0, 1.0)) is None
    holes = balls(20)
    holes[::5, ::3] = np.nan
    holes[1, 1, 1] = np.inf
    grid = grid_of(balls(1000), holes, limits=(10.0, 1010.0))
    assert grid.width[1] == pytest.approx(TOLERANCE * 20, rel=0.15)


def test_a_haze_keeps_its_height_and_its_contrast_grows():
    haze = balls(20) + 490.0
    grid = grid_of(balls(1000), haze, limits=(10.0, 1010.0))
    height = (500.0 - grid.low[1]) / grid.width[1]
    assert height == pytest.approx(490.0 / 1000.0, abs=0.03)
    bright = balls(20) + 980.0
    grid = grid_of(balls(1000), bright, limits=(10.0, 1010.0))
    assert (1010.0 - grid.low[1]) / grid.width[1] <= 1.02


def test_what_is_said_in_json_is_the_grid():
    grid = grid_of(balls(1000), balls(17), balls(3, 4, noise=0.01), limits=(10.0, 1010.0))
    assert LimitsGrid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


def slow(grid, image, step, offset, at):
    """One voxel by the formula of the module's docstring."""
    low, root = (np.reshape(v, grid.cells) for v in (grid.low, np.array(grid.width) ** 0.125))
    place = []
    for x, s, o, n, count in zip(at, step, offset, grid.shape, grid.cells, strict=True):
        place.append(min(max((x * s + o + 0.5) * count / n - 0.5, 0), count - 1))
    start, power = (
        ndimage.map_coordinates(v, np.array(place)[:, None], order=1, mode="nearest")[0]
        for v in (low, root)
    )
    return min(max((image - start) / power**8, 0.0), 1.0)


def random_grid(seed=0):
    rng = np.random.default_rng(seed)
    cells = (2, 1, 4)
    low, width = rng.uniform(-5, 50, 8), rng.uniform(3, 900, 8)
    return LimitsGrid((60, 50, 97), cells, tuple(low), tuple(width))


def test_every_voxel_lies_between_the_limits_of_its_place():
    grid, rng = random_grid(), np.random.default_rng(1)
    step, offset = (1.0, 2.0, 2.0), (0.0, 0.5, 0.5)
    image = rng.uniform(-10, 600, (9, 7, 8)).astype(np.float32)
    places = [np.arange(n) * 5.5 + 0.25 for n in image.shape]
    field = LimitsField(grid, step, offset)
    above, _ = raised(image, field.floor)
    seen = field.scaled(above, places)
    for index in np.ndindex(image.shape):
        at = [p[i] for p, i in zip(places, index, strict=True)]
        expected = slow(grid, float(image[index]), step, offset, at)
        assert seen[index] == pytest.approx(expected, abs=2e-5)
    part = field.scaled(above[2:5, 3:, 1:2], [places[0][2:5], places[1][3:], places[2][1:2]])
    np.testing.assert_array_equal(part, seen[2:5, 3:, 1:2])


def test_a_window_in_slabs_and_parts_is_the_window_and_nan_is_black(monkeypatch):
    rng = np.random.default_rng(2)
    volume = rng.uniform(0, 500, (60, 50, 97)).astype(np.float32)
    volume[20:24, 10:30, 5:60] = np.nan
    field = LimitsField(random_grid(), UNIT, ZERO)
    zoom, shape = (1.3, 1.3, 1.3), (47, 39, 75)

    def window(box):
        axes = tile_taps(box, shape, volume.shape, zoom)
        return window_image(lambda b: volume[b.slices], axes, (0.0, 1.0), 16, field)[0]

    whole = window(Box((-4, -4, -4), (51, 43, 79)))
    monkeypatch.setattr("anystar_batch.network.window.SLAB_VOXELS", 20_000)
    np.testing.assert_array_equal(window(Box((-4, -4, -4), (51, 43, 79))), whole)
    np.testing.assert_array_equal(window(Box((3, 5, 20), (31, 29, 60))), whole[7:35, 9:33, 24:64])
    # Mirrored beyond the border: the limits with the voxels.
    np.testing.assert_array_equal(whole[3], whole[4])
    field = LimitsField(random_grid(), UNIT, ZERO)
    nothing, is_constant = window_image(
        lambda b: np.full(b.shape, np.nan), tile_taps(
            Box.of_shape((8, 8, 8)), (60, 50, 97), volume.shape, UNIT
        ), (0.0, 1.0), 16, field,
    )  # fmt: skip
    assert is_constant
    assert not nothing.any()


def test_one_cell_is_one_pair_of_limits():
    image = np.random.default_rng(0).uniform(0, 300, (5, 6, 7)).astype(np.float32)
    field = LimitsField(LimitsGrid((5, 6, 7), (1, 1, 1), (20.0,), (200.0,)), UNIT, ZERO)
    above, _ = raised(image, field.floor)
    seen = field.scaled(above, [np.arange(n, dtype=float) for n in image.shape])
    np.testing.assert_allclose(seen, normalise(image, 20.0, 220.0), atol=1e-6)


def test_centres_of_taps_are_where_the_working_voxels_lie():
    for zoom, step in ((1.0, 1), (0.7, 1), (1.9, 1), (1.3, 2)):
        axis = taps(2, 40, 60, 120, zoom, step)
        inside = slice(2, 20)
        expected = (np.arange(2, 40) * step + 0.5) * zoom - 0.5
        np.testing.assert_allclose(axis.centres[inside], expected[inside], atol=1e-4)
    part = Taps(axis.first[5:9], axis.weights[5:9])
    np.testing.assert_array_equal(part.centres, axis.centres[5:9])


def test_a_huge_volume_has_few_cells_and_a_small_one_at_least_one():
    counts = cell_counts((5000, 20000, 20000), UNIT, 8.0)
    assert MOST_CELLS / 2 < math.prod(counts) <= MOST_CELLS
    assert cell_counts((5, 5, 5), UNIT, 30.0) == (1, 1, 1)
    assert cell_counts((1, 300, 300), (2.0, 1.0, 1.0), 10.0) == (1, 10, 10)


def test_box_means_are_means_without_what_is_not_finite():
    values = np.arange(7 * 4 * 5, dtype=float).reshape(7, 4, 5)
    means = box_means(values, (3, 2, 9))
    assert means.shape == (2, 2, 1)
    assert means[1, 1, 0] == values[3:6, 2:4].mean()
    values[0, 0, 0] = np.nan
    assert box_means(values, (1, 1, 2))[0, 0, 0] == values[0, 0, 1]
    assert np.isnan(box_means(np.full((2, 2, 2), np.nan), (2, 2, 2))).all()
