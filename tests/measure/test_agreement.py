"""Agreement: two volumes are the same partition if their objects are the same sets of voxels."""

import numpy as np
import pytest

from anystar_batch.measure.agreement import EDGES, compare
from anystar_batch.measure.overlaps import match
from tests.support.dense_labels import pair


def objects(labels):
    flat = labels.ravel()
    return [frozenset(np.flatnonzero(flat == v).tolist()) for v in np.unique(flat) if v]


@pytest.mark.parametrize("seed", range(9))
def test_ious_are_those_of_the_sets_of_voxels(seed):
    one, two = pair(seed)
    found = compare(match(one, two))
    ours, theirs = objects(one), objects(two)
    for mine, others, iou in ((ours, theirs, found.iou_ours), (theirs, ours, found.iou_theirs)):
        expected = [max((len(a & b) / len(a | b) for b in others), default=0.0) for a in mine]
        assert iou.tolist() == pytest.approx(expected)
    assert found.equal == len(set(ours) & set(theirs))
    assert found.is_same == (set(ours) == set(theirs))
    told = found.to_json()
    for name, iou in (("labels", found.iou_ours), ("against", found.iou_theirs)):
        parts = [part["objects"] for part in told["iou_of_differing"][name]]
        assert len(parts) == len(EDGES) - 1
        assert sum(parts) == told["differing"][name] == int((iou < 1).sum())


def test_other_numbers_are_the_same_partition_and_one_voxel_is_not():
    labels, _ = pair(0)
    names = np.random.default_rng(0).permutation(np.arange(1, labels.max() + 1)) + 10
    other = np.where(labels > 0, np.concatenate([[0], names])[labels], 0)
    assert compare(match(labels, other)).is_same
    # A split leaves every voxel in some object, and a merger every object with some voxels.
    at = np.argwhere(labels == np.bincount(labels[labels > 0]).argmax())
    other[tuple(at[0])] = 5000
    assert not compare(match(labels, other)).is_same
    assert not compare(match(other, labels)).is_same
