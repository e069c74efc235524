from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.network.tiles import BORDER, plan_tiles

DIVISORS = st.sampled_from([(8, 8, 8), (16, 16, 16), (4, 16, 16), (8, 16, 8)])
SHAPES = st.tuples(*[st.integers(1, 150)] * 3)
COMMON = settings(max_examples=100, deadline=None)


@COMMON
@given(shape=SHAPES, divisor=DIVISORS, tile=st.sampled_from([16, 32, 48, 96]))
def test_cores_tile_the_volume_and_windows_suit_the_network(shape, divisor, tile):
    lattice = plan_tiles(shape, tile, 16, divisor)
    count = np.zeros(shape, np.uint8)
    widest = np.zeros(3, int)
    for index in iter_grid(lattice.counts):
        core, window = lattice.core_box(index), lattice.window_box(index)
        count[core.slices] += 1
        widest = np.maximum(widest, window.shape)
        assert window.intersect(core) == core
        assert all(n % d == 0 for n, d in zip(window.shape, divisor, strict=True))
        # Pooling cuts the volume at the same places in every tile.
        assert all(a % d == 0 for a, d in zip(window.start, divisor, strict=True))
    assert (count == 1).all()
    assert lattice.window == tuple(widest)


@COMMON
@given(shape=SHAPES, divisor=DIVISORS, tile=st.sampled_from([16, 32, 96]))
def test_every_core_sees_its_context_and_at_the_border_no_more_than_padding(shape, divisor, tile):
    context = 32
    lattice = plan_tiles(shape, tile, context, divisor)
    for index in iter_grid(lattice.counts):
        core, window = lattice.core_box(index), lattice.window_box(index)
        for axis, step in enumerate(divisor):
            before = core.start[axis] - max(window.start[axis], 0)
            after = min(window.stop[axis], shape[axis]) - core.stop[axis]
            assert before == min(context, core.start[axis])
            assert min(context, shape[axis] - core.stop[axis]) <= after < context + step
            assert -window.start[axis] < BORDER + step
            if core.start[axis] == 0:
                assert -window.start[axis] >= BORDER
            beyond = window.stop[axis] - shape[axis]
            assert beyond < BORDER + step
            if core.stop[axis] == shape[axis]:
                assert beyond >= BORDER


@pytest.mark.parametrize("length", [1, 2, 5, 9, 15, 16, 17])
def test_a_thin_axis_is_one_tile_padded_on_both_sides(length):
    lattice = plan_tiles((length, 400, 400), 96, 32, (16, 16, 16))
    assert lattice.counts == (1, 5, 5)
    assert lattice.core == (length, 80, 80)
    assert lattice.window_box((0, 2, 2)).start == (-16, 128, 128)
    assert lattice.window[0] <= length + 2 * BORDER + 2 * 15


def test_an_axis_that_about_one_window_holds_has_one_tile():
    assert plan_tiles((144, 144, 144), 96, 32, (16, 16, 16)).counts == (1, 1, 1)
    assert plan_tiles((153, 153, 153), 96, 32, (16, 16, 16)).counts == (2, 2, 2)


def test_what_is_computed_for_a_volume_of_two_tiles_an_axis():
    lattice = plan_tiles((512, 512, 512), 256, 24, (8, 8, 8))
    windows = [lattice.window_box(index).size for index in iter_grid(lattice.counts)]
    assert sum(windows) / 512**3 == 1.125**3


@COMMON
@given(shape=SHAPES, start=st.tuples(*[st.integers(-20, 150)] * 3), size=st.integers(1, 60))
def test_tiles_near_a_box_are_those_whose_core_meets_it(shape, start, size):
    lattice = plan_tiles(shape, 16, 8, (8, 8, 8))
    box = Box(start, tuple(a + size for a in start)).intersect(Box.of_shape(shape))
    expected = [i for i in iter_grid(lattice.counts) if lattice.core_box(i).intersect(box).size]
    assert lattice.tiles_near(box) == expected


@pytest.mark.parametrize(
    ("tile", "context", "message"),
    [
        (90, 32, "tile: got 90 voxels; expected a multiple of 16"),
        (0, 32, "tile: got 0 voxels"),
        (24, 32, "tile: got 24 voxels"),
        (96, 20, "context: got 20 voxels; expected a multiple of 16"),
        (96, -16, "context: got -16 voxels"),
    ],
)
def test_tile_and_context_that_the_network_cannot_halve_are_refused(tile, context, message):
    with pytest.raises(ConfigError, match=message):
        plan_tiles((100, 100, 100), tile, context, (8, 16, 16))
