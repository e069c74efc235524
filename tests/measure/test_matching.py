"""Scores of labels: StarDist's, from any blocks, at any size."""

import itertools

import numpy as np
import pytest
from stardist.matching import intersection_over_union, label_overlap, matching_dataset
from stardist.matching import matching as stardist_matching

from anystar_batch.errors import ImageError
from anystar_batch.measure import assignment, merger
from anystar_batch.measure.assignment import Graph, assign
from anystar_batch.measure.matching import IOUS, merges, scores, splits
from anystar_batch.measure.overlaps import match, merge, pool
from tests.support.dense_labels import cells, pair

COUNTS = ("tp", "fp", "fn", "n_true")
RATIOS = (
    "precision",
    "recall",
    "accuracy",
    "f1",
    "panoptic_quality",
    "mean_true_score",
    "mean_matched_score",
)


def same_as_stardist(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert [getattr(ours, k) for k in COUNTS] == [getattr(theirs, k) for k in COUNTS]
        assert ours.n_found == theirs.n_pred
        for name in RATIOS:
            # StarDist sums in float32.
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=2e-6), name


def same_table(a, b):
    for name in ("true", "found", "voxels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype


def greedy(truth, labels, iou):
    """Pairs when the best pair is taken first: what an assignment improves on."""
    overlap = label_overlap(truth, labels, check=False)
    left = intersection_over_union(overlap)[1:, 1:].copy()
    count = 0
    while left.size and left.max() >= np.float32(iou):
        a, b = np.unravel_index(left.argmax(), left.shape)
        left[a], left[:, b] = 0, 0
        count += 1
    return count


def random_boxes(rng, shape):
    """Slices that tile a volume, in random order."""
    cuts = [sorted({0, n, *map(int, rng.integers(0, n + 1, rng.integers(0, 4)))}) for n in shape]
    spans = [[slice(a, b) for a, b in itertools.pairwise(c)] for c in cuts]
    boxes = list(itertools.product(*spans))
    rng.shuffle(boxes)
    return [tuple(b) for b in boxes]


@pytest.mark.parametrize("start", range(0, 90, 30))
def test_every_score_is_stardists_at_all_nine_thresholds(start):
    assert IOUS == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    contested = 0
    for seed in range(start, start + 30):
        truth, labels = pair(seed)
        found = scores(match(truth, labels))
        same_as_stardist(found, stardist_matching(truth, labels, thresh=IOUS))
        contested += greedy(truth, labels, 0.1) < found[0].tp
    assert contested > 0


@pytest.mark.parametrize(("dense", "rounds"), [(0, 50), (10**6, 0), (0, 0), (30, 1)])
def test_neither_solver_nor_step_one_changes_a_score(monkeypatch, dense, rounds):
    monkeypatch.setattr(assignment, "DENSE", dense)
    monkeypatch.setattr(assignment, "ROUNDS", rounds)
    for seed in range(18):
        truth, labels = pair(seed)
        found = scores(match(truth, labels))
        same_as_stardist(found, stardist_matching(truth, labels, thresh=IOUS))


def test_step_one_and_components_leave_only_small_matrices(monkeypatch):
    """A matrix of all objects would have 10^10 entries."""
    sizes = []
    solve = assignment._solve
    monkeypatch.setattr(
        assignment, "_solve", lambda g, w, e: sizes.append(len(e)) or solve(g, w, e)
    )
    rng = np.random.default_rng(3)
    tile = match(*(cells(rng, (16, 16, 16), 40, 5.0) for _ in range(2)))
    one = [s.tp for s in scores(tile)]
    many = scores(pool([tile] * 2000))
    assert many[0].n_true > 60_000
    assert [s.tp for s in many] == [2000 * n for n in one]
    assert 0 < max(sizes) <= len(tile)


def test_pairs_are_one_to_one_and_reach_the_threshold():
    truth, labels = pair(1)
    for score in scores(match(truth, labels)):
        assert len(set(score.true.tolist())) == len(set(score.found.tolist())) == score.tp
        for a, b, iou, ratio in zip(
            score.true, score.found, score.ious, score.volume_ratios, strict=True
        ):
            one, other = truth == a, labels == b
            assert iou == pytest.approx((one & other).sum() / (one | other).sum(), rel=1e-6)
            assert iou >= np.float32(score.iou)
            assert ratio == other.sum() / one.sum()


def test_an_iou_on_the_threshold_counts():
    truth = np.repeat([1, 2, 0], 10)
    labels = np.where(np.arange(30) % 10 < 3, truth, 0)
    assert [s.tp for s in scores(match(truth, labels), (0.3, 0.30001))] == [2, 0]


def test_a_pair_below_the_threshold_decides_between_two_above():
    """0 could go to either found object; the sum over all assigned pairs says to the worse."""
    graph = Graph(
        2, 2, np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0.3, 0.4, 0.2], np.float32)
    )
    assert assign(graph, 0.25).tolist() == [0]
    assert assign(graph, 0.35).tolist() == [1]


@pytest.mark.parametrize("pending", [0, 50, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_any_blocks_in_any_order_give_the_table_of_the_whole(monkeypatch, seed, pending):
    monkeypatch.setattr(merger, "PENDING", pending)
    truth, labels = pair(seed)
    whole = match(truth, labels)
    rng = np.random.default_rng(seed)
    tables = [match(truth[b], labels[b]) for b in random_boxes(rng, truth.shape)]
    same_table(merge(tables), whole)
    total = tables[0]
    for table in tables[1:]:
        total = total + table
    same_table(total, whole)


def test_the_table_is_the_counts_of_pairs():
    truth, labels = pair(0)
    table = match(truth, labels)
    keys, counts = np.unique(np.stack([truth.ravel(), labels.ravel()]), axis=1, return_counts=True)
    seen = keys.any(axis=0)
    np.testing.assert_array_equal(np.stack([table.true, table.found]), keys[:, seen])
    np.testing.assert_array_equal(table.voxels, counts[seen])
    objects = table.true_objects()
    np.testing.assert_array_equal(objects.labels, np.unique(truth[truth > 0]))
    np.testing.assert_array_equal(objects.voxels, np.bincount(truth.ravel())[objects.labels])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64, ">u2"])
def test_any_integer_type_and_labels_of_64_bits(dtype):
    truth, labels = (v % 120 for v in pair(1))
    expected = match(truth, labels)
    same_table(match(truth.astype(dtype), labels.astype(dtype)), expected)
    top = np.uint64(2**64 - 200)
    high = [np.where(v > 0, v.astype(np.uint64) + top, 0) for v in (truth, labels)]
    found = match(*high)
    np.testing.assert_array_equal(found.voxels, expected.voxels)
    assert int(found.true.max()) == int(top) + int(truth.max())
    assert [s.tp for s in scores(found)] == [s.tp for s in scores(expected)]


def test_arrays_that_are_not_contiguous():
    truth, labels = pair(1)
    same_table(match(truth.T, labels.T), match(truth, labels))


def test_pooled_volumes_are_stardists_data_set():
    volumes = [pair(seed) for seed in range(6)]
    found = scores(pool(match(*v) for v in volumes))
    truths, labels = zip(*volumes, strict=True)
    expected = matching_dataset(truths, labels, thresh=IOUS, show_progress=False)
    same_as_stardist(found, expected)


def test_nothing_on_either_side():
    nothing, one = np.zeros((3, 3, 3), int), np.ones((3, 3, 3), int)
    for truth, labels in itertools.product((nothing, one), repeat=2):
        found = scores(match(truth, labels))
        same_as_stardist(found, stardist_matching(truth, labels, thresh=IOUS))
    empty = match(nothing[:0], nothing[:0])
    assert len(empty) == len(merge([])) == len(pool([])) == 0
    assert splits(empty) == merges(empty) == 0


def line(text):
    """Labels of a row of voxels, one digit each."""
    return np.array([int(c) for c in text])


@pytest.mark.parametrize(
    ("truth", "labels", "expected"),
    [
        ("1111111111", "1111122222", 1),
        ("1111111111", "1111111111", 0),
        ("1111111111", "1111111112", 1),  # a tenth of it
        ("11111111111", "11111111112", 0),  # less: a crumb
        ("1111110000", "1112222222", 0),  # 2 lies half outside
        ("1111110000", "1112222200", 1),
        ("1111110000", "1112222220", 0),  # exactly half is not more than half
        ("1111122222", "1122334455", 2),
        ("1111122222", "1111111111", 0),
    ],
)
def test_split_objects_and_merges_are_their_mirror_image(truth, labels, expected):
    assert splits(match(line(truth), line(labels))) == expected
    assert merges(match(line(labels), line(truth))) == expected


def test_splits_and_merges_tell_each_other_apart():
    table = match(line("1111222233"), line("1122333300"))
    assert (splits(table), merges(table)) == (1, 0)
    table = match(line("1122333300"), line("1111222233"))
    assert (splits(table), merges(table)) == (0, 1)


@pytest.mark.parametrize(
    ("truth", "labels", "words"),
    [
        (np.ones((2, 3), int), np.ones((3, 2), int), r"differ in shape: \(2, 3\) and \(3, 2\)"),
        (np.ones(3), np.ones(3, int), "truth: got type float64; expected integer labels"),
        (np.ones(3, int), np.ones(3, bool), "labels: got type bool; expected integer labels"),
        (np.array([1, -4]), np.ones(2, int), "truth: got label -4; expected 0"),
        (np.ones(2, int), np.array([-1, 1]), "labels: got label -1; expected 0"),
    ],
)
def test_what_are_no_labels(truth, labels, words):
    with pytest.raises(ImageError, match=words):
        match(truth, labels)
