from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stardist.nms import non_maximum_suppression_3d_inds
from stardist.rays3d import Rays_GoldenSpiral

from anystar_batch.geometry import Box
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.polyhedra import LatticeMap, bounding_boxes, volumes
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral
from anystar_batch.stars.suppress import Status, resolve, suppress, suppress_region
from tests.support.star_scenes import SAME, blobs, blockwise, ranks, real_labels, seen

RAYS = golden_spiral(96)
FEW = golden_spiral(32)


def plain(candidates, rays, nms_thresh):
    """The rule, read out loud: paint each, count the common voxels, no shortcut anywhere."""
    volume = volumes(candidates.dist, rays)
    boxes = bounding_boxes(candidates, rays, SAME)
    frame = Box(tuple(boxes[:, 0].min(0).tolist()), tuple(boxes[:, 1].max(0).tolist()))
    masks = {}
    kept = np.zeros(len(candidates), bool)
    for j in candidates.order():
        out = np.zeros(frame.shape, np.uint32)
        paint(out, frame, candidates.take(np.array([j])), np.ones(1, np.uint32), rays, SAME)
        mask = out.astype(bool)
        kept[j] = all(
            np.sum(mask & masks[i]) <= nms_thresh * min(volume[i], volume[j]) for i in masks
        )
        if kept[j]:
            masks[j] = mask
    return kept


def stardists(candidates, nms_thresh, anisotropy=None):
    return non_maximum_suppression_3d_inds(
        candidates.dist,
        candidates.points,
        Rays_GoldenSpiral(96, anisotropy),
        ranks(candidates),
        thresh=nms_thresh,
        verbose=0,
    )


@pytest.mark.parametrize("nms_thresh", [0.0, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("radii", [(2, 4), (3, 11)])
def test_survivors_are_those_of_the_plain_rule(nms_thresh, radii):
    candidates = blobs(FEW, 25, 6, 36, radii, seed=3, prob_steps=4)
    ours = suppress(candidates, FEW, nms_thresh)
    assert np.array_equal(ours, plain(candidates, FEW, nms_thresh))
    assert 0 < ours.sum() < len(candidates)


def test_rows_longer_than_a_word_and_stars_beyond_the_table_follow_the_plain_rule():
    # Boxes of 130 to 190 voxels: three words a row, offsets beyond the largest table.
    thin = golden_spiral(32, (6, 6, 1))
    candidates = blobs(thin, 3, 3, 60, (40, 60), seed=1)
    dist = np.where(np.abs(thin.vertices[:, 2]) > 0.9, 1.6, 0.12) * candidates.dist
    candidates = Candidates(candidates.points, candidates.prob, dist.astype(np.float32))
    assert candidates.dist.max() > 64
    for nms_thresh in (0.1, 0.4):
        assert np.array_equal(
            suppress(candidates, thin, nms_thresh), plain(candidates, thin, nms_thresh)
        )


@pytest.mark.parametrize("count", [63, 64, 65, 128, 129, 5000])
def test_no_rival_is_lost_where_rooms_are_full_or_grow(count):
    # The best alone suppresses a crowd: who misses him, survives. The crowd's boxes all meet and
    # fill the kernel's first room to the last place, the best comes last, and behind him a lone one
    # in the same cell of the grid, whom no box of theirs meets.
    rng = np.random.default_rng(count)
    at = [
        np.append(rng.integers(44, 48, count), 73),
        np.full(count + 1, 44),
        np.full(count + 1, 44),
    ]
    points = np.stack(at[::-1], axis=1).astype(np.int32)
    prob = np.append(rng.uniform(0.1, 0.5, count - 1), [0.9, 0.8]).astype(np.float32)
    dist = np.full((count + 1, len(FEW)), 12, np.float32)
    survives = suppress(Candidates(points, prob, dist), FEW, 0.3)
    assert np.flatnonzero(survives).tolist() == [count - 1, count]


@pytest.mark.parametrize("nms_thresh", [0.3, 0.5])
def test_survivors_of_dense_blobs_are_stardists(nms_thresh):
    candidates = blobs(RAYS, 40, 15, 90)
    ours = suppress(candidates, RAYS, nms_thresh)
    assert np.array_equal(ours, stardists(candidates, nms_thresh))
    assert 10 < ours.sum() < 60


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("tgmm_mini_drosophila/t0_labels.tif", 0.5),
        ("bbbc050_train/Emb01_t401_labels.tif", 0.75),
        ("gonuclear_1135_mini/labels.tif", 0.85),
    ],
)
def test_survivors_of_real_objects_are_stardists(name, share):
    candidates = seen(real_labels(name), RAYS, share=share)
    middle = np.median(candidates.points, axis=0)
    near = np.abs(candidates.points - middle).max(1) < 30
    candidates = candidates.take(np.flatnonzero(near)[:900])
    ours = suppress(candidates, RAYS, 0.3)
    assert np.array_equal(ours, stardists(candidates, 0.3))
    assert 3 < ours.sum() < len(candidates) / 3


cuts = st.tuples(*[st.lists(st.integers(5, 45), min_size=1, max_size=3).map(tuple)] * 3)


@settings(max_examples=60, deadline=None)
@given(
    cuts=cuts,
    margin=st.tuples(*[st.sampled_from([0, 2, 5, 12, 25, 60])] * 3),
    radii=st.sampled_from([(2, 4), (4, 7), (3, 14)]),
    prob_steps=st.sampled_from([0, 1, 5]),
    each=st.sampled_from([1, 5]),
    nms_thresh=st.sampled_from([0.0, 0.1, 0.3, 0.5]),
    seed=st.integers(0, 10_000),
)
def test_survivors_do_not_depend_on_the_partition(
    cuts, margin, radii, prob_steps, each, nms_thresh, seed
):
    # Clusters around each object, or a crowd in which all sorts of pairs overlap.
    candidates = blobs(FEW, 200 // each, each, 50, radii, seed=seed, prob_steps=prob_steps)
    volume = Box.of_shape((50, 50, 50))
    reach = int(np.ceil(candidates.dist.max()))
    expected = suppress(candidates, FEW, nms_thresh)
    status, survivors = blockwise(candidates, FEW, nms_thresh, volume, cuts, margin, reach=reach)
    assert (status >= 0).all()
    # What a block says for certain is true of the whole.
    assert expected[status == Status.KEPT].all()
    assert not expected[status == Status.SUPPRESSED].any()
    assert np.array_equal(survivors, expected)


def test_objects_larger_than_a_block():
    candidates = blobs(FEW, 12, 8, 50, (10, 18), seed=5)
    every_eight = (tuple(range(8, 50, 8)),) * 3
    expected = suppress(candidates, FEW, 0.2)
    for margin in (0, 20, 40):
        status, survivors = blockwise(
            candidates,
            FEW,
            0.2,
            Box.of_shape((50, 50, 50)),
            every_eight,
            (margin,) * 3,
            reach=int(np.ceil(candidates.dist.max())),
        )
        assert np.array_equal(survivors, expected)
        assert (margin > 0) or (status == Status.UNDECIDED).all()


def chain(n):
    """Balls in a row, each overlapping the next, falling in priority: every other one survives."""
    points = np.zeros((n, 3), np.int32)
    points[:, 2] = 6 * np.arange(n)
    return Candidates(
        points,
        np.linspace(0.99, 0.5, n).astype(np.float32),
        np.full((n, 32), 5.0, np.float32),
    )


@pytest.mark.parametrize("margin", [0, 4, 12, 30])
@pytest.mark.parametrize("flip", [False, True])
def test_a_chain_over_many_blocks(margin, flip):
    links = chain(60)
    if flip:
        links = Candidates(links.points, links.prob[::-1].copy(), links.dist)
    volume = Box((-5, -5, -5), (6, 6, 360))
    expected = np.arange(60) % 2 == (1 if flip else 0)
    assert np.array_equal(suppress(links, FEW, 0.01), expected)
    cuts = ((), (), tuple(range(40, 360, 40)))  # nine blocks
    status, survivors = blockwise(links, FEW, 0.01, volume, cuts, (0, 0, margin), reach=5)
    assert np.array_equal(survivors, expected)
    # No margin can end the chain: only the block where it begins is certain.
    assert (status == Status.UNDECIDED).sum() >= 50


def test_a_lone_candidate_is_certain_as_soon_as_nothing_unseen_can_touch_it():
    one = Candidates(
        np.array([[50, 50, 50]], np.int32), np.ones(1, np.float32), np.full((1, 32), 5, np.float32)
    )
    volume = Box.of_shape((100, 100, 100))
    # It reaches z = 45 to 55, so unseen ones at 36 and 64 that reach 8 voxels just miss it.
    known = Box((37, 0, 0), (64, 100, 100))
    assert suppress_region(one, FEW, 0.3, known, volume, 8)[0] == Status.KEPT
    for near in (Box((38, 0, 0), (64, 100, 100)), Box((37, 0, 0), (63, 100, 100))):
        assert suppress_region(one, FEW, 0.3, near, volume, 8)[0] == Status.UNDECIDED
    # Where the volume ends nothing is unseen.
    assert suppress_region(one, FEW, 0.3, volume, volume, 80)[0] == Status.KEPT
    edge = Box((0, 0, 0), (51, 100, 100))
    assert suppress_region(one, FEW, 0.3, edge, edge, 80)[0] == Status.KEPT


def test_statuses_are_small_integers_in_the_order_given():
    candidates = blobs(FEW, 10, 4, 40, (3, 6))
    volume = Box.of_shape((40, 40, 40))
    status = suppress_region(candidates, FEW, 0.3, volume, volume, 9)
    assert status.dtype == np.int8
    assert np.array_equal(status == Status.KEPT, suppress(candidates, FEW, 0.3))
    assert (status != Status.UNDECIDED).all()


def test_a_candidate_beyond_the_declared_bound_is_refused():
    candidates = blobs(FEW, 3, 1, 40, (6, 8))
    volume = Box.of_shape((40, 40, 40))
    with pytest.raises(ValueError, match="the declared bound is 5"):
        suppress_region(candidates, FEW, 0.3, volume, volume, 5)


def test_the_order_of_candidates_does_not_matter():
    candidates = blobs(FEW, 30, 6, 40, (3, 8), prob_steps=2)
    shuffle = np.random.default_rng(0).permutation(len(candidates))
    assert np.array_equal(
        suppress(candidates.take(shuffle), FEW, 0.3), suppress(candidates, FEW, 0.3)[shuffle]
    )


@pytest.mark.parametrize("far", [(1_000, -10_000, 50_000), (1_000_000_000, 0, -2_000_000_000)])
def test_nothing_changes_when_everything_moves(far):
    candidates = blobs(FEW, 30, 6, 40, (3, 8))
    moved = Candidates(
        (candidates.points + np.array(far)).astype(np.int32), candidates.prob, candidates.dist
    )
    assert np.array_equal(suppress(moved, FEW, 0.3), suppress(candidates, FEW, 0.3))


def test_nothing_changes_when_rendered_stars_are_thrown_out(monkeypatch):
    candidates = blobs(FEW, 40, 8, 50, (4, 9))
    expected = suppress(candidates, FEW, 0.3)
    monkeypatch.setattr("anystar_batch.stars.suppress.POOL_WORDS", 1000)
    assert np.array_equal(suppress(candidates, FEW, 0.3), expected)


def test_sizes_may_differ_by_orders():
    # One outlier among specks, both ways of looking up neighbours.
    large = blobs(FEW, 1, 1, 26, (12, 14), seed=2)
    small = blobs(FEW, 50, 2, 26, (1, 2), seed=2)
    candidates = Candidates.concatenate([large, small], 32)
    _, first = np.unique(candidates.points, axis=0, return_index=True)
    candidates = candidates.take(first)
    assert np.array_equal(suppress(candidates, FEW, 0.3), plain(candidates, FEW, 0.3))


def test_nobody_is_fine():
    none, volume = Candidates.empty(32), Box.of_shape((9, 9, 9))
    assert len(suppress(none, FEW, 0.3)) == 0
    assert len(suppress_region(none, FEW, 0.3, volume, volume, 5)) == 0
    assert len(resolve(none, none, FEW, 0.3)) == 0
    one = chain(1)
    assert resolve(none, one, FEW, 0.3).tolist() == [True]
    assert len(resolve(one, none, FEW, 0.3)) == 0


def common(candidates, i, j, fineness):
    """Volume of the overlap, counted on a lattice that is finer per axis."""
    boxes = bounding_boxes(candidates.take(np.array([i, j])), RAYS, SAME) * fineness
    box = Box(tuple(boxes[:, 0].min(0).tolist()), tuple(boxes[:, 1].max(0).tolist()))
    lattice = LatticeMap((float(fineness),) * 3, (0.0,) * 3)
    masks = np.zeros((2, *box.shape), np.uint32)
    for mask, k in zip(masks, (i, j), strict=True):
        paint(mask, box, candidates.take(np.array([k])), np.ones(1, np.uint32), RAYS, lattice)
    return np.sum(masks.all(0)) / fineness**3


def test_where_stardist_differs_it_decided_before_it_counted():
    # Radius 3 to 5: voxel count and volume of an overlap differ by tenths. StarDist first tries
    # bounds on the volume (balls, kernels, convex hulls) and counts voxels only in between, so a
    # pair whose count and volume lie on two sides of the limit can go either way. Others follow.
    candidates = blobs(RAYS, 250, 10, 90, (3, 5))
    candidates = candidates.take(np.arange(1500))
    ours, theirs = suppress(candidates, RAYS, 0.3), stardists(candidates, 0.3)
    order, volume = candidates.order(), volumes(candidates.dist, RAYS)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    different = [j for j in order if ours[j] != theirs[j]]
    assert 1 <= len(different) <= 3
    explained = 0
    for j in different:
        apart = np.abs(candidates.points - candidates.points[j]).max(1)
        near = np.flatnonzero((ours | theirs) & (rank < rank[j]) & (apart < 12))
        straddles = False
        for i in near[(ours & theirs)[near]]:
            limit = 0.3 * min(volume[i], volume[j])
            counted, shared = common(candidates, i, j, 1), common(candidates, i, j, 6)
            straddles |= bool((counted > limit) != (shared > limit))
        follows = any(k in near for k in different)
        assert straddles or follows
        explained += straddles
    assert explained > 0
