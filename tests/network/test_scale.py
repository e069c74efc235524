from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystar_batch.errors import ConfigError
from anystar_batch.network.scale import SLACK, choose_offset, level_map, working_scale
from tests.support.fakes import mean_level

ISOTROPIC = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 4.0, 4.0)]
CUBES = [(64, 64, 64), (32, 32, 32), (16, 16, 16)]
FLAT = [(2.0, 0.5, 0.5), (2.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 4.0, 4.0)]
FLATS = [(20, 128, 128), (20, 64, 64), (20, 32, 32), (10, 16, 16)]


def test_without_a_wanted_size_level_0_is_taken_as_it_is():
    working = working_scale(None, FLAT, FLATS)
    assert (working.level, working.zoom) == (0, (1.0, 1.0, 1.0))
    assert (working.voxel_um, working.shape) == (FLAT[0], FLATS[0])


@pytest.mark.parametrize(
    ("wanted", "level", "zoom"),
    [
        (0.5, 0, 0.5),
        (0.95, 0, 1.0),
        (1.0, 0, 1.0),
        (1.09, 0, 1.0),
        (1.5, 0, 1.5),
        (1.81, 0, 1.81),
        (1.82, 1, 1.0),
        (2.2, 1, 1.0),
        (2.21, 1, 1.105),
        (3.0, 1, 1.5),
        (3.7, 2, 1.0),
        (9.0, 2, 2.25),
    ],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(wanted, level, zoom):
    working = working_scale(wanted, ISOTROPIC, CUBES)
    assert working.level == level
    assert working.zoom == pytest.approx((zoom,) * 3)
    size = wanted if zoom != 1 else ISOTROPIC[level][0]
    assert working.voxel_um == pytest.approx((size,) * 3)


@pytest.mark.parametrize(
    ("wanted", "level", "zoom"),
    [
        (0.5, 0, (0.25, 1.0, 1.0)),
        # z is coarser than wanted at every level: it does not forbid the levels that keep it.
        (1.0, 1, (0.5, 1.0, 1.0)),
        (1.5, 1, (0.75, 1.5, 1.5)),
        (2.0, 2, (1.0, 1.0, 1.0)),
        (3.0, 2, (1.5, 1.5, 1.5)),
        (4.0, 3, (1.0, 1.0, 1.0)),
    ],
)
def test_each_axis_has_its_own_zoom(wanted, level, zoom):
    working = working_scale(wanted, FLAT, FLATS)
    assert working.level == level
    assert working.zoom == pytest.approx(zoom)


@pytest.mark.parametrize("elongation", [0.4, 1.4, 2.0])
def test_objects_longer_along_z_look_round_and_as_large(elongation):
    long = working_scale(1.5, ISOTROPIC, CUBES, elongation=elongation)
    z, y, x = long.voxel_um
    assert y == x
    assert z / x == pytest.approx(elongation)
    assert z * y * x == pytest.approx(1.5**3)
    assert long.zoom == pytest.approx(tuple(v / ISOTROPIC[long.level][0] for v in (z, y, x)))
    assert working_scale(1.5, ISOTROPIC, CUBES, elongation=1.0) == working_scale(
        1.5, ISOTROPIC, CUBES
    )


def test_the_level_must_be_fine_enough_on_every_axis():
    assert working_scale(2.2, ISOTROPIC, CUBES).level == 1
    # Across it is 1.75 um, along z 3.5: level 1, of 2 um, is too coarse across.
    assert working_scale(2.2, ISOTROPIC, CUBES, elongation=2.0).level == 0


def test_what_is_not_rescaled_cannot_be_squeezed():
    with pytest.raises(ConfigError, match=r"got 1.5, .* no known object size.* leave --elongation"):
        working_scale(None, FLAT, FLATS, elongation=1.5)


@settings(max_examples=100, deadline=None)
@given(wanted=st.floats(0.2, 12.0))
def test_no_level_is_coarser_than_a_tenth_above_the_wanted_size(wanted):
    working = working_scale(wanted, ISOTROPIC, CUBES)
    size = ISOTROPIC[working.level][0]
    assert working.level == 0 or size <= SLACK * wanted
    coarser = [s[0] for s in ISOTROPIC[working.level + 1 :]]
    assert all(s > SLACK * wanted for s in coarser)
    assert working.zoom[0] == 1.0 or not 1 / SLACK <= working.zoom[0] <= SLACK


def test_objects_too_small_for_the_image_are_refused():
    with pytest.raises(
        ConfigError, match=r"would need voxels of 0.08 um.*expected at least 0.0833"
    ):
        working_scale(0.08, FLAT, FLATS)


def test_objects_as_large_as_the_volume_are_refused():
    with pytest.raises(ConfigError, match=r"leaves the volume of .* only \(1, 1, 1\) voxels"):
        working_scale(100.0, FLAT, FLATS)


def test_a_thin_stack_may_be_one_working_voxel_deep():
    assert working_scale(2.0, [(1.0, 1.0, 1.0)], [(1, 50, 50)]).shape == (1, 25, 25)


def test_edges_of_working_voxels_and_level_0_coincide():
    working = working_scale(2.6, ISOTROPIC, [(52, 52, 52), (26, 26, 26), (13, 13, 13)])
    level = level_map((2.0, 2.0, 2.0), None, "area average")
    scale, offset = working.to_level0(level)
    # Edge of working voxel 0 (u = -0.5) is the edge of level-0 voxel 0 (x = -0.5).
    np.testing.assert_allclose(np.array(scale) * -0.5 + offset, -0.5)
    np.testing.assert_allclose(scale, 2.6)


@pytest.mark.parametrize(
    ("declared", "how", "offset", "origin"),
    [
        ((0.25, 0.5, 0.75), None, (0.25, 0.5, 0.75), "declared"),
        ((0.25, 0.5, 0.75), "stride", (0.25, 0.5, 0.75), "declared"),
        (None, "area average", (0.0, 0.5, 1.0), "area average"),
        (None, "stride", (0.0, 0.0, 0.0), "stride"),
        (None, None, (0.0, 0.0, 0.0), "level 0"),
    ],
)
def test_a_level_lies_where_declared_or_as_it_was_made(declared, how, offset, origin):
    found = level_map((1.0, 2.0, 3.0), declared, how)
    assert (found.step, found.offset, found.origin) == ((1.0, 2.0, 3.0), offset, origin)


@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 3, 3), (1, 2, 2), (1, 4, 4), (2, 1, 3)])
@pytest.mark.parametrize("made", ["area average", "stride"])
@pytest.mark.parametrize("start", [(0, 0, 0), (2, 3, 1)])
def test_how_a_level_was_made_is_told_from_a_crop(factors, made, start):
    image = np.random.default_rng(5).integers(0, 4000, (36, 48, 48), dtype=np.uint16)
    z, y, x = factors
    level = mean_level(image, factors) if made == "area average" else image[::z, ::y, ::x]
    crop = tuple(slice(a, a + 6) for a in start)
    fine = tuple(slice(a * f, (a + 6) * f) for a, f in zip(start, factors, strict=True))
    step = tuple(map(float, factors))
    assert choose_offset(image[fine], level[crop], start, step) == (made, (0, 0, 0))


@pytest.mark.parametrize("made", ["area average", "stride"])
def test_steps_between_voxels_are_told_apart(made):
    # 50 voxels to 20: each shows two or three.
    image = np.random.default_rng(6).normal(size=(50, 50, 50)).astype(np.float32)
    edges = np.rint(np.arange(21) * 2.5).astype(int)
    level = image
    for axis in range(3):
        if made == "stride":
            level = np.take(level, edges[:-1], axis=axis)
        else:
            level = np.stack(
                [
                    np.take(level, range(a, b), axis=axis).mean(axis=axis)
                    for a, b in pairwise(edges)
                ],
                axis=axis,
            )
    start, step = (4, 4, 4), (2.5, 2.5, 2.5)
    fine = image[10:35, 10:35, 10:35]
    assert choose_offset(fine, level[4:14, 4:14, 4:14], start, step) == (made, (0, 0, 0))


def test_a_crop_that_explains_both_counts_as_an_average():
    flat = np.ones((8, 8, 8), np.uint8)
    found = choose_offset(flat, flat[::2, ::2, ::2], (0, 0, 0), (2.0, 2.0, 2.0))
    assert found == ("area average", (0, 0, 0))


def test_an_undefined_voxel_does_not_hide_how_a_level_was_made():
    image = np.random.default_rng(7).normal(size=(12, 12, 12))
    level = image[::2, ::2, ::2].copy()
    image[4, 4, 4] = level[2, 2, 2] = np.nan
    found = choose_offset(image, level, (0, 0, 0), (2.0, 2.0, 2.0))
    assert found == ("stride", (0, 0, 0))


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (1, 4, 4), (3, 8, 8)])
@pytest.mark.parametrize("name", ["middle", "last"])
def test_a_stride_that_does_not_take_the_first_voxel_is_told_too(factors, name):
    image = np.random.default_rng(5).integers(0, 4000, (24, 64, 64), dtype=np.uint16)
    taken = tuple(f // 2 if name == "middle" else f - 1 for f in factors)
    level = image[tuple(slice(t, None, f) for t, f in zip(taken, factors, strict=True))]
    start = (1, 2, 1)
    crop = tuple(slice(a, a + 5) for a in start)
    fine = tuple(slice(a * f, (a + 5) * f) for a, f in zip(start, factors, strict=True))
    step = tuple(map(float, factors))
    assert choose_offset(image[fine], level[crop], start, step) == ("stride", taken)
    offset = level_map(step, None, "stride", taken).offset
    assert offset == tuple(map(float, taken))
