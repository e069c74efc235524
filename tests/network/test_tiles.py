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
    for index in iter_grid(lattice.counts):
        core, window = lattice.core_box(index), lattice.window_box(index)
        count[core.slices] += 1
        assert window.shape == lattice.window
        assert window.intersect(core) == core
        assert all(n % d == 0 for n, d in zip(window.shape, divisor, strict=True))
        # Outputs of a grid up to 4 lie on the same voxels of the volume in every tile.
        assert all(a % 4 == 0 for a in window.start)
    assert (count == 1).all()


@COMMON
@given(shape=SHAPES, divisor=DIVISORS, tile=st.sampled_from([16, 32, 96]))
def test_every_core_sees_its_context(shape, divisor, tile):
    context = 32
    lattice = plan_tiles(shape, tile, context, divisor)
    for index in iter_grid(lattice.counts):
        core, window = lattice.core_box(index), lattice.window_box(index)
        for axis in range(3):
            least = BORDER if lattice.counts[axis] == 1 else context
            assert core.start[axis] - window.start[axis] >= min(least, context)
            assert window.stop[axis] - core.stop[axis] >= min(least, context)


@pytest.mark.parametrize("length", [1, 2, 5, 9, 15, 16, 17])
def test_a_thin_axis_is_one_tile_padded_on_both_sides(length):
    lattice = plan_tiles((length, 400, 400), 96, 32, (16, 16, 16))
    assert lattice.counts == (1, 5, 5)
    assert lattice.core[0] == length
    assert lattice.before[0] >= BORDER
    assert lattice.window[0] - lattice.before[0] - length >= BORDER
    assert lattice.window[0] <= length + 2 * BORDER + 15
    assert lattice.before[1:] == (32, 32)


def test_an_axis_that_one_window_holds_has_one_tile():
    assert plan_tiles((144, 144, 144), 96, 32, (16, 16, 16)).counts == (1, 1, 1)
    assert plan_tiles((145, 145, 145), 96, 32, (16, 16, 16)).counts == (2, 2, 2)


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
