from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystar_batch.geometry import Box, grid_box, grid_shape, iter_grid
from anystar_batch.pyramid import downsample_mode, level_factors, source_box, windows

SHAPES = [
    ((16, 20, 24), (8, 10, 12)),  # halves
    ((15, 21, 25), (7, 10, 12)),  # floor
    ((15, 21, 25), (8, 11, 13)),  # ceil
    ((9, 21, 24), (9, 10, 12)),  # xy only
    ((15, 15, 30), (10, 7, 20)),  # not an integer
    ((11, 23, 31), (3, 6, 8)),  # ceil of a quarter
    ((11, 23, 31), (2, 5, 7)),  # floor of a quarter
    ((5, 5, 5), (1, 2, 5)),  # to one voxel
    ((4, 6, 5), (6, 6, 6)),  # the coarse level is the larger one
]


def expected(labels: np.ndarray, shape_to) -> np.ndarray:
    """Count every window in plain Python: the definition, written a second time."""
    spans = []
    for n, m in zip(labels.shape, shape_to, strict=True):
        f = n / m
        near = max(1, round(f))
        if abs(n - near * m) <= max(1, near - 1):
            f = near
        axis = []
        for i in range(m):
            first = min(round(i * f), n - 1)
            axis.append(slice(first, max(first + 1, min(round((i + 1) * f), n))))
        spans.append(axis)
    coarse = np.zeros(shape_to, np.uint32)
    for k, j, i in np.ndindex(*shape_to):
        counts = Counter(labels[spans[0][k], spans[1][j], spans[2][i]].ravel().tolist())
        coarse[k, j, i] = min(counts, key=lambda v: (-counts[v], v == 0, v))
    return coarse


def whole(labels: np.ndarray, shape_to) -> np.ndarray:
    factors = level_factors(labels.shape, shape_to)
    target = Box.of_shape(shape_to)
    box = source_box(target, factors, labels.shape)
    return downsample_mode(labels[box.slices], target, factors, labels.shape)


@pytest.mark.parametrize(
    ("length_from", "length_to", "factor"),
    [
        (100, 50, 2.0),
        (101, 50, 2.0),
        (99, 50, 2.0),
        (103, 25, 4.0),
        (97, 25, 4.0),
        (7, 7, 1.0),
        (8, 7, 1.0),
        (7, 8, 1.0),
        (150, 100, 1.5),
        (110, 25, 4.4),
        (4, 8, 0.5),
        (2, 1, 2.0),
    ],
)
def test_factors_are_snapped_to_integers_within_one_voxel(length_from, length_to, factor):
    assert level_factors((length_from, 4, 4), (length_to, 4, 4)) == (factor, 1.0, 1.0)


@pytest.mark.parametrize(("shape_from", "shape_to"), SHAPES)
@pytest.mark.parametrize("num_labels", [2, 4, 2**32 - 1])
def test_mode_is_the_definition(shape_from, shape_to, num_labels):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, num_labels, shape_from, dtype=np.uint32, endpoint=True)
    labels[rng.random(shape_from) < 0.4] = 0
    assert np.array_equal(whole(labels, shape_to), expected(labels, shape_to))


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ([0, 0, 0, 0, 5, 5, 5, 5], 5),  # a tie: foreground
        ([0, 0, 0, 0, 0, 5, 5, 5], 0),  # background counts
        ([9, 9, 7, 7, 8, 8, 0, 0], 7),  # a tie: the smallest
        ([2**32 - 1] * 4 + [0] * 4, 2**32 - 1),
        ([1, 2, 3, 4, 5, 6, 7, 0], 1),
        ([0] * 8, 0),
    ],
)
def test_ties_go_to_the_foreground_then_to_the_smallest(values, mode):
    rng = np.random.default_rng(1)
    for _ in range(10):
        labels = rng.permutation(np.array(values, np.uint32)).reshape(2, 2, 2)
        assert whole(labels, (1, 1, 1))[0, 0, 0] == mode


@pytest.mark.parametrize(("shape_from", "shape_to"), SHAPES)
@pytest.mark.parametrize("block", [(3, 4, 5), (1, 100, 2)])
def test_blocks_give_what_the_whole_gives(shape_from, shape_to, block):
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 3, shape_from).astype(np.uint32)
    factors = level_factors(shape_from, shape_to)
    found = np.empty(shape_to, np.uint32)
    for index in iter_grid(grid_shape(shape_to, block)):
        target = grid_box(index, block, shape_to)
        box = source_box(target, factors, shape_from)
        assert box.intersect(Box.of_shape(shape_from)) == box
        found[target.slices] = downsample_mode(labels[box.slices], target, factors, shape_from)
    assert np.array_equal(found, whole(labels, shape_to))


@given(st.integers(1, 60), st.integers(1, 60), st.data())
@settings(max_examples=200, deadline=None)
def test_windows_are_in_order_and_never_empty(length_from, length_to, data):
    (factor, _, _) = level_factors((length_from, 1, 1), (length_to, 1, 1))
    first, stop = windows(0, length_to, factor, length_from)
    assert (first < stop).all()
    assert first.min() == 0
    assert stop.max() <= length_from
    assert (np.diff(first) >= 0).all()
    if factor >= 1 and length_from >= length_to:
        assert (first[1:] == stop[:-1]).all()
    # Nothing is left over but the remainder of a floor, less than one window.
    assert length_from - stop[-1] < max(2.0, factor)
    a = data.draw(st.integers(0, length_to - 1))
    part = windows(a, length_to, factor, length_from)
    assert np.array_equal(part[0], first[a:])
    assert np.array_equal(part[1], stop[a:])


def test_labels_of_a_coarse_level_are_labels_of_the_fine_one():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 50, (13, 17, 19)).astype(np.uint32)
    assert set(np.unique(whole(labels, (6, 8, 9)))) <= set(np.unique(labels))


def test_labels_of_another_box_are_refused():
    target = Box.of_shape((2, 2, 2))
    with pytest.raises(ValueError, match=r"expected \(4, 4, 4\)"):
        downsample_mode(np.zeros((4, 4, 3), np.uint32), target, (2.0, 2.0, 2.0), (4, 4, 4))
