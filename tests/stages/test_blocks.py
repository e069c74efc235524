from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystar_batch.geometry import Box, BoxIndex, grid_box, grid_shape, iter_grid
from anystar_batch.stages.blocks import plan_blocks, units_per_block

TRIPLES = st.tuples(*[st.integers(1, 40)] * 3)
UNITS = st.tuples(*[st.integers(1, 17)] * 3)
GROUPS = st.tuples(*[st.integers(1, 4)] * 3)


@settings(max_examples=100, deadline=None)
@given(shape=TRIPLES, unit=UNITS, group=GROUPS)
def test_blocks_tile_the_volume_and_share_out_the_units(shape, unit, group):
    count = np.zeros(shape, np.uint8)
    units = []
    blocks = plan_blocks(shape, unit, group)
    for block in blocks:
        count[block.box.slices] += 1
        units.extend(block.units)
        own = np.zeros(shape, np.uint8)
        for index in block.units:
            own[grid_box(index, unit, shape).slices] += 1
        assert own.sum() == own[block.box.slices].sum() == block.box.size
        assert own.max() == 1
    assert (count == 1).all()
    assert sorted(units) == list(iter_grid(grid_shape(shape, unit)))
    assert len({block.name for block in blocks}) == len(blocks)


def test_blocks_come_z_slowest_and_are_named_by_index():
    blocks = plan_blocks((4, 8, 8), (2, 4, 4), (1, 1, 2))
    assert [b.name for b in blocks] == ["0.0.0", "0.1.0", "1.0.0", "1.1.0"]
    assert blocks[1].units == ((0, 1, 0), (0, 1, 1))
    assert blocks[1].box == Box((0, 4, 0), (2, 8, 8))


@pytest.mark.parametrize(
    ("wanted", "unit", "step", "expected"),
    [
        ((64, 64, 64), (64, 64, 64), (1.0, 1.0, 1.0), (1, 1, 1)),
        ((65, 64, 1), (64, 64, 64), (1.0, 1.0, 1.0), (2, 1, 1)),
        ((128, 128, 128), (32, 32, 32), (2.0, 2.0, 0.5), (2, 2, 8)),
        ((10, 10, 10), (3, 3, 3), (0.1, 0.1, 0.1), (10, 10, 10)),
    ],
)
def test_a_block_shape_is_rounded_up_to_whole_units(wanted, unit, step, expected):
    assert units_per_block(wanted, unit, step) == expected


@pytest.mark.parametrize("order", ["z slowest", "any"])
def test_who_meets_a_box_does_not_depend_on_the_boxes_asked_before(order):
    rng = np.random.default_rng(3)
    start = rng.integers(-5, 30, (300, 3))
    boxes = np.stack([start, start + rng.integers(0, 12, (300, 3))], axis=1)
    index = BoxIndex(boxes)
    asked = [grid_box(unit, (8, 5, 11), (30, 22, 33)) for unit in iter_grid((4, 5, 3))]
    if order == "any":
        rng.shuffle(asked)
    for box in asked:
        meets = (boxes[:, 0] < box.stop) & (boxes[:, 1] > box.start)
        assert index.meeting(box).tolist() == np.flatnonzero(meets.all(axis=1)).tolist()
