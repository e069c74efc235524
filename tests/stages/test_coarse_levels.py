"""Coarse levels grown from painted boxes are those of the whole volume."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anystar_batch.geometry import Box, grid_box, grid_shape, iter_grid
from anystar_batch.pyramid import downsample_mode, level_factors, source_box
from anystar_batch.stages.pyramid import CoarseLevels


def whole(labels, shape_to):
    factors = level_factors(labels.shape, shape_to)
    target = Box.of_shape(shape_to)
    source = source_box(target, factors, labels.shape)
    return downsample_mode(labels[source.slices], target, factors, labels.shape)


def lattice(shape, unit):
    return [grid_box(index, unit, shape) for index in iter_grid(grid_shape(shape, unit))]


AXIS = st.integers(5, 40)


@st.composite
def pyramids(draw):
    shapes = [tuple(draw(AXIS) for _ in range(3))]
    for _ in range(draw(st.integers(1, 3))):
        rounding = draw(st.sampled_from([np.floor, np.ceil]))
        factors = [draw(st.sampled_from([1.0, 1.5, 2.0, 2.0, 3.0])) for _ in range(3)]
        ratios = zip(shapes[-1], factors, strict=True)
        shapes.append(tuple(max(1, int(rounding(n / f))) for n, f in ratios))
    return shapes


@settings(max_examples=60, deadline=None)
@given(
    pyramids(),
    st.tuples(*[st.sampled_from([4, 6, 8])] * 3),
    st.tuples(*[st.sampled_from([4, 5, 8])] * 3),
    st.randoms(use_true_random=False),
)
def test_what_is_known_is_what_the_whole_volume_gives(shapes, unit, coarse_unit, random):
    labels = np.random.default_rng(random.randrange(2**32)).integers(0, 3, shapes[0], np.uint32)
    levels = [labels]
    for shape in shapes[1:]:
        levels.append(whole(levels[-1], shape))
    boxes = lattice(shapes[0], unit)
    random.shuffle(boxes)
    coarse = CoarseLevels(shapes, Box.of_shape(shapes[0]))
    added = np.zeros(shapes[0], bool)
    for box in boxes[: random.randint(0, len(boxes))]:
        coarse.add(box, labels[box.slices])
        added[box.slices] = True
    for level, shape in enumerate(shapes[1:], 1):
        factors = level_factors(shapes[level - 1], shape)
        for box in lattice(shape, coarse_unit):
            found = coarse.take(level, box)
            if found is not None:
                np.testing.assert_array_equal(found, levels[level][box.slices])
            source = source_box(box, factors, shapes[level - 1])
            if level == 1 and not added[source.slices].all():
                assert found is None, "nobody has seen all of its windows"


def test_a_block_that_holds_all_windows_makes_every_level():
    shapes = [(32, 64, 64), (32, 32, 32), (16, 16, 16), (8, 8, 8)]
    labels = np.random.default_rng(0).integers(0, 3, shapes[0], np.uint32)
    coarse = CoarseLevels(shapes, Box.of_shape(shapes[0]))
    for box in lattice(shapes[0], (8, 16, 16)):
        coarse.add(box, labels[box.slices])
    expected = labels
    for level, shape in enumerate(shapes[1:], 1):
        expected = whole(expected, shape)
        for box in lattice(shape, (8, 8, 8)):
            np.testing.assert_array_equal(coarse.take(level, box), expected[box.slices])


def test_a_block_makes_its_own_coarse_units_and_no_others():
    shapes = [(64, 64, 64), (32, 32, 32)]
    block = Box((0, 0, 16), (64, 64, 64))
    coarse = CoarseLevels(shapes, block)
    coarse.add(block, np.ones(block.shape, np.uint32))
    assert coarse.box(1) == Box((0, 0, 8), (32, 32, 32))
    known = [coarse.take(1, box) is not None for box in lattice(shapes[1], (32, 32, 16))]
    assert known == [False, True]
