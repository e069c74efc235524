"""Greedy non-maximum suppression, exact across blocks.

The rule: in priority order (-prob, z, y, x) a candidate survives unless it overlaps a survivor. A
block sees only the candidates of its own tiles and of a margin, so it answers in three values::

                 overlaps a KEPT                                    -> SUPPRESSED
    else         overlaps an UNDECIDED, or an unseen candidate may
                 overlap it (its box grown by `reach` is not known) -> UNDECIDED
    else                                                            -> KEPT

By induction on priority, KEPT and SUPPRESSED are what a run over the whole volume would say: a KEPT
has no candidate unseen and none undecided in its way; a SUPPRESSED overlaps a true survivor. Who
survives globally is KEPT or UNDECIDED somewhere, so one more greedy pass over those few (`resolve`)
gives exactly the global survivors. The margin is a matter of cost, never of the result. `reach` has
to be declared: what has not been seen cannot be measured. `DESIGN.md` has the proof.

References
----------
The greedy rule, over a whole volume: Schmidt et al., Cell Detection with Star-convex Polygons,
MICCAI 2018, doi:10.1007/978-3-030-00934-2_30, arXiv:1806.03535; in 3D: Weigert et al., Star-convex
Polyhedra for 3D Object Detection and Segmentation in Microscopy, WACV 2020,
doi:10.1109/WACV45572.2020.9093435, arXiv:1908.03636.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import Gauge, invert
from anystar_batch.stars.jit import kernel, leaf
from anystar_batch.stars.neighbours import Grid, make_grid, query
from anystar_batch.stars.overlap import (
    POOL_WORDS,
    Scene,
    Stars,
    _limit,
    _make_scene,
    _overlap,
    _room,
    make_stars,
)
from anystar_batch.stars.rays import Rays

OPEN_EDGE = 1 << 60
"""Stands for no limit where the volume ends."""


CELL = 32
"""Edge of the cells in which candidates are judged, working voxels."""


class Status(IntEnum):
    """What a block knows about a candidate."""

    SUPPRESSED = 0
    UNDECIDED = 1
    KEPT = 2


_UNKNOWN, _SUPPRESSED, _UNDECIDED, _KEPT = -1, 0, 1, 2
"""`Status` for kernels, and not judged yet."""


def suppress(candidates: Candidates, rays: Rays, nms_thresh: float) -> NDArray[np.bool_]:
    """Return who survives among all candidates of a volume.

    Parameters
    ----------
    candidates : Candidates
        All of them, in any order.
    rays : Rays
    nms_thresh : float
        Largest shared part of the smaller volume that two survivors may have, 0 to 1.

    Returns
    -------
    bool [n]
        Survivors, in the order given.

    Notes
    -----
    The result depends on the set of candidates, not on their order.
    """
    n = len(candidates)
    certain = np.ones(n, np.bool_)
    status = _run(candidates, rays, nms_thresh, np.zeros(n, np.bool_), certain)
    return np.asarray(status == Status.KEPT)


def suppress_region(  # noqa: PLR0913
    candidates: Candidates,
    rays: Rays,
    nms_thresh: float,
    region: Box,
    volume: Box,
    reach: int,
    kept: NDArray[np.bool_] | None = None,
) -> NDArray[np.int8]:
    """Return what the candidates of one region say, knowing nothing beyond it.

    Parameters
    ----------
    candidates : Candidates
        At least all whose point lies in `region`, in any order.
    rays : Rays
    nms_thresh : float
        As in `suppress`.
    region : Box
        Region of which every candidate is given, working voxels.
    volume : Box
        The whole lattice: there is no candidate beyond it.
    reach : int
        Declared bound on the half extent of **any** candidate, seen or not, working voxels: the
        maximal radius, rounded up.
    kept : bool [n], optional
        Who is certain to survive already: `KEPT` of another region. They are not judged again.

    Returns
    -------
    int8 [n]
        `Status` of each candidate. Certain values are those of `suppress` over the whole volume.

    Raises
    ------
    ValueError
        If a given candidate reaches farther than `reach`: then unseen ones might as well.
    """
    stars, table = make_stars(candidates, rays)
    extent = np.maximum(stars.points - stars.low, stars.high - 1 - stars.points)
    if np.max(extent, initial=0) > reach:
        message = (
            f"suppress: a candidate reaches {int(extent.max())} voxels, the declared bound is "
            f"{reach}; drop candidates beyond the maximal radius first"
        )
        raise ValueError(message)
    first = [-OPEN_EDGE if k <= v else k for k, v in zip(region.start, volume.start, strict=True)]
    last = [OPEN_EDGE if k >= v else k for k, v in zip(region.stop, volume.stop, strict=True)]
    inside = (stars.low - reach >= first) & (stars.high + reach <= last)
    certain = np.asarray(inside.all(axis=1))
    forced = np.zeros(len(candidates), np.bool_) if kept is None else kept
    return _judge(stars, table, candidates.order(), nms_thresh, forced, certain)


def resolve(
    kept: Candidates, undecided: Candidates, rays: Rays, nms_thresh: float
) -> NDArray[np.bool_]:
    """Return which undecided candidates survive in the whole volume.

    Parameters
    ----------
    kept : Candidates
        All `KEPT` of all blocks whose boxes meet those of `undecided`; others do no harm.
    undecided : Candidates
        All `UNDECIDED` of all blocks, each once.
    rays : Rays
    nms_thresh : float
        As in `suppress`.

    Returns
    -------
    bool [len(undecided)]
        Survivors.
    """
    both = Candidates.concatenate([kept, undecided], len(rays))
    forced = np.arange(len(both)) < len(kept)
    status = _run(both, rays, nms_thresh, forced, np.ones(len(both), np.bool_))
    return np.asarray(status[len(kept) :] == Status.KEPT)


def _run(
    candidates: Candidates,
    rays: Rays,
    nms_thresh: float,
    forced: NDArray[np.bool_],
    certain: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Prepare the arrays and judge."""
    stars, table = make_stars(candidates, rays)
    return _judge(stars, table, candidates.order(), nms_thresh, forced, certain)


def _judge(
    stars: Stars,
    table: Gauge,
    order: NDArray[np.int64],
    nms_thresh: float,
    forced: NDArray[np.bool_],
    certain: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Run the one greedy kernel."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    status: NDArray[np.int8] = _greedy(
        _make_scene(stars, table),
        rank,
        _cell_order(stars.points),
        forced,
        certain,
        float(nms_thresh),
        make_grid(stars.low, stars.high),
        POOL_WORDS,
    )
    return status


def _cell_order(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices, cell after cell: whoever is asked about next is near, and in the cache.

    Only speed depends on it.
    """
    if not len(points):
        return np.empty(0, np.int64)
    cells = (points - points.min(axis=0)) // CELL
    counts = cells.max(axis=0) + 1
    keys = (cells[:, 0] * counts[1] + cells[:, 1]) * counts[2] + cells[:, 2]
    return np.argsort(keys, kind="stable")


@leaf
def _square(points: NDArray[np.int64], i: int, j: int) -> int:
    """Squared distance of two centres."""
    z, y, x = points[i, 0] - points[j, 0], points[i, 1] - points[j, 1], points[i, 2] - points[j, 2]
    return int(z * z + y * y + x * x)


@leaf
def _rivals(
    rivals: NDArray[np.int64],
    count: int,
    j: int,
    rank: NDArray[np.int64],
    stars: Stars,
    nms_thresh: float,
) -> int:
    """Keep who comes before j and may overlap it, nearest first; return how many.

    The nearest likeliest suppresses: only speed depends on that.
    """
    kept = 0
    for a in range(count):
        i = rivals[a]
        if rank[i] >= rank[j] or _limit(i, j, stars, nms_thresh) == np.inf:
            continue
        square = _square(stars.points, i, j)
        b = kept - 1
        while b >= 0 and _square(stars.points, rivals[b], j) > square:
            rivals[b + 1] = rivals[b]
            b -= 1
        rivals[b + 1] = i
        kept += 1
    return kept


@leaf
def _next(
    near: NDArray[np.int64], at: int, last: int, status: NDArray[np.int8], target_status: int
) -> int:
    """Return the first place in [at, last) of one of that status or not judged, else `last`."""
    while at < last and status[near[at]] != target_status and status[near[at]] != _UNKNOWN:
        at += 1
    return at


@kernel
def _scan(  # noqa: PLR0913
    j: int,
    near: NDArray[np.int64],
    at: int,
    last: int,
    status: NDArray[np.int8],
    target_status: int,
    scene: Scene,
    nms_thresh: float,
    pool: NDArray[np.uint64],
    pool_words: int,
) -> tuple[NDArray[np.uint64], int]:
    """Ask j's rivals of one status from `at` on whether they overlap it.

    Returns
    -------
    pool
        Perhaps a larger one.
    at : int
        Place of the first that does, or that has to be judged before; `last` without any.
    """
    at = _next(near, at, last, status, target_status)
    if at < last and status[near[at]] == target_status:
        invert(j, scene.stars.dist, scene.own)
    while at < last and status[near[at]] == target_status:
        pool, hit = _overlap(near[at], j, scene, nms_thresh, pool, pool_words)
        if hit:
            break
        at = _next(near, at + 1, last, status, target_status)
    return pool, at


@kernel
def _greedy(  # noqa: PLR0913
    scene: Scene,
    rank: NDArray[np.int64],
    walk: NDArray[np.int64],
    forced: NDArray[np.bool_],
    certain: NDArray[np.bool_],
    nms_thresh: float,
    grid: Grid,
    pool_words: int,
) -> NDArray[np.int8]:
    """Judge everyone, whoever comes before him first; pull form: each asks the earlier ones near.

    The order of the walk does not matter: a verdict depends on the verdicts of those that come
    before in priority, and on nothing else. They are judged when they are needed, on a stack::

        stack, 4 numbers each:  who | first, next and last of his rivals in `near`
    """
    stars = scene.stars
    status = np.full(len(rank), _UNKNOWN, np.int8)
    status[forced] = _KEPT
    rivals, pool = np.empty(64, np.int64), np.empty(1 << 12, np.uint64)
    near, stack = np.empty(1 << 12, np.int64), np.empty(1 << 10, np.int64)
    for begin in walk:
        if status[begin] != _UNKNOWN:
            continue
        who, depth, used = begin, 0, 0
        while True:
            if who >= 0:  # one more to judge: list his rivals
                rivals, count = query(grid, stars.low, stars.high, who, rivals)
                count = _rivals(rivals, count, who, rank, stars, nms_thresh)
                near, stack = _room(near, used + count), _room(stack, depth + 4)
                near[used : used + count] = rivals[:count]
                stack[depth], stack[depth + 1] = who, used
                stack[depth + 2], stack[depth + 3] = used, used + count
                used, depth = used + count, depth + 4
            j, first, last = stack[depth - 4], stack[depth - 3], stack[depth - 1]
            pool, at = _scan(
                j, near, stack[depth - 2], last, status, _KEPT, scene, nms_thresh, pool, pool_words
            )
            if at < last and status[near[at]] == _UNKNOWN:
                stack[depth - 2], who = at, near[at]
                continue
            verdict = _SUPPRESSED
            if at == last and certain[j]:
                pool, at = _scan(
                    j, near, first, last, status, _UNDECIDED, scene, nms_thresh, pool, pool_words
                )
                verdict = _KEPT if at == last else _UNDECIDED
            elif at == last:
                verdict = _UNDECIDED
            status[j], who = verdict, -1
            used, depth = first, depth - 4
            if depth == 0:
                break
    return status
