"""What a review knows: right ones, background beside them, and nothing else."""

import itertools

import numpy as np

from anystar_batch.geometry import Box
from anystar_batch.measure.partial_truth import BACKGROUND, Judged, partial_truth


def scene():
    """Four objects in a row: 1 and 2 near each other, 3 far away, 4 beside 3."""
    labels = np.zeros((5, 7, 40), np.uint32)
    for name, x in ((1, 3), (2, 9), (3, 24), (4, 29)):
        labels[1:4, 2:5, x : x + 3] = name
    return labels


def judged(label, start, stop, *, is_right=True, is_complete=True):
    return Judged(label, Box((0, 0, start), (5, 7, stop)), is_right, is_complete)


WHOLE = Box((0, 0, 0), (5, 7, 40))


def test_right_ones_are_known_with_their_surroundings_and_nobody_else():
    labels = scene()
    known = partial_truth(labels, WHOLE, [judged(3, 22, 31)])
    expected = np.zeros_like(labels)
    expected[:, :, 22:31] = BACKGROUND
    expected[labels == 4] = 0  # nobody has said what it is
    expected[labels == 3] = 3
    assert np.array_equal(known, expected)


def test_where_one_was_missed_or_is_wrong_only_right_ones_are_known():
    labels = scene()
    for other in (
        judged(2, 7, 14, is_right=False),
        judged(2, 7, 14, is_complete=False),
    ):
        known = partial_truth(labels, WHOLE, [judged(1, 1, 10), other])
        assert (known[labels == 1] == 1).all()
        assert (known[labels == 2] == (2 if other.is_right else 0)).all()
        beside = labels == 0
        assert (known[:, :, 1:7][beside[:, :, 1:7]] == BACKGROUND).all()
        assert (known[:, :, 7:][beside[:, :, 7:]] == 0).all()


def test_neither_the_order_nor_the_box_changes_a_voxel():
    labels = scene()
    every = [
        judged(1, 1, 10, is_complete=False),
        judged(2, 5, 16),
        judged(3, 20, 31),
        judged(4, 27, 36, is_right=False),
    ]
    whole = partial_truth(labels, WHOLE, every)
    assert set(np.unique(whole)) == {0, 1, 2, 3, BACKGROUND}
    for order in itertools.permutations(every):
        assert np.array_equal(partial_truth(labels, WHOLE, order), whole)
    for at in (6, 11, 25):
        for box in (Box((0, 0, 0), (5, 7, at)), Box((0, 0, at), (5, 7, 40))):
            part = partial_truth(labels[box.slices], box, every)
            assert np.array_equal(part, whole[box.slices])
