"""Contacts: what NumPy says of the whole volume, from boxes of any grid in any order."""

import numpy as np
import pytest

from anystar_batch.geometry import Box, grid_box, grid_shape, iter_grid
from anystar_batch.measure.contacts import KINDS, Contacts
from anystar_batch.measure.extents import narrowed
from tests.support.dense_labels import cells


def slow(labels):
    """The same counts, by slices of the whole volume."""
    found = []
    for axis, n in enumerate(labels.shape):
        moved = np.moveaxis(labels, axis, 0).reshape(n, -1)
        one, two = moved[:-1], moved[1:]
        objects = (one > 0) & (two > 0)
        counts = np.zeros((n + 1, len(KINDS)), np.int64)
        counts[1:-1, 0] = (objects & (one == two)).sum(axis=1)
        counts[1:-1, 1] = (objects & (one != two)).sum(axis=1)
        counts[1:-1, 2] = ((one > 0) ^ (two > 0)).sum(axis=1)
        found.append(counts)
    return found


def counted(labels, step, order):
    contacts = Contacts(labels.shape)
    boxes = [grid_box(i, step, labels.shape) for i in iter_grid(grid_shape(labels.shape, step))]
    for k in order(len(boxes)):
        part = labels[boxes[k].slices]
        contacts.add(part, narrowed(part)[0], boxes[k])
    contacts.check_complete()
    return contacts.counts


@pytest.mark.parametrize("seed", range(12))
def test_boxes_of_any_grid_in_any_order_give_the_counts_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 23, 3))
    labels = cells(rng, shape, int(rng.integers(1, 40)), rng.uniform(2, 9)).astype(np.uint64)
    labels *= rng.choice(np.array([1, 2**33], np.uint64))
    step = tuple(int(n) for n in rng.integers(1, 12, 3))
    for a, b in zip(counted(labels, step, rng.permutation), slow(labels), strict=True):
        assert np.array_equal(a, b)


def test_an_object_that_is_cut_gives_its_cross_section_to_the_plane():
    labels = np.zeros((6, 8, 8), np.uint32)
    labels[1:3, 2:6, 2:6], labels[3:5, 2:6, 2:6] = 7, 8
    counts = counted(labels, (2, 8, 8), range)
    assert counts[0][:, 1].tolist() == [0, 0, 0, 16, 0, 0, 0]
    assert counts[0][:, 0].tolist() == [0, 0, 16, 0, 16, 0, 0]
    assert counts[0][:, 2].tolist() == [0, 16, 0, 0, 0, 16, 0]
    assert not counts[1][:, 1].any()


def test_a_box_that_never_came_is_noticed():
    contacts = Contacts((4, 4, 8))
    part = np.ones((4, 4, 4), np.uint32)
    contacts.add(part, part, Box((0, 0, 0), (4, 4, 4)))
    with pytest.raises(ValueError, match="1 faces of boxes wait for a box that never came"):
        contacts.check_complete()
