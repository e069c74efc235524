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
to be declared: what has not been seen cannot be measured.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import Gauge, Row, invert, make_row
from anystar_batch.stars.kernel import kernel, leaf
from anystar_batch.stars.neighbours import Grid, insert, make_grid, query
from anystar_batch.stars.overlap import (
    Stars,
    is_overlapping,
    make_stars,
    render,
    words_per_star,
)
from anystar_batch.stars.rays import Rays

POOL_WORDS = 1 << 25
"""Words of rendered stars held at once (256 MB); beyond that they are rendered again on demand."""

OPEN_EDGE = 1 << 60
"""Stands for no limit where the volume ends."""


class Status(IntEnum):
    """What a block knows about a candidate."""

    SUPPRESSED = 0
    UNDECIDED = 1
    KEPT = 2


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
    return _run(candidates, rays, nms_thresh, np.zeros(n, np.bool_), certain) == Status.KEPT


def suppress_block(  # noqa: PLR0913  (the interface of the pipeline)
    candidates: Candidates, rays: Rays, nms_thresh: float, known: Box, volume: Box, reach: int
) -> NDArray[np.int8]:
    """Return what the candidates of one region say, knowing nothing beyond it.

    Parameters
    ----------
    candidates : Candidates
        At least all whose point lies in `known`, in any order.
    rays : Rays
    nms_thresh : float
        As in `suppress`.
    known : Box
        Region of which every candidate is given, working voxels.
    volume : Box
        The whole lattice: there is no candidate beyond it.
    reach : int
        Declared bound on the half extent of **any** candidate, seen or not, working voxels: the
        maximal radius, rounded up.

    Returns
    -------
    int8 [n]
        `Status` of each candidate. Certain values are those of `suppress` over the whole volume.

    Raises
    ------
    ValueError
        If a given candidate reaches farther than `reach`: then unseen ones might as well.
    """
    stars, _ = make_stars(candidates, rays)
    extent = np.maximum(stars.points - stars.low, stars.high - 1 - stars.points)
    if np.max(extent, initial=0) > reach:
        message = (
            f"suppress: a candidate reaches {int(extent.max())} voxels, the declared bound is "
            f"{reach}; drop candidates beyond the maximal radius first"
        )
        raise ValueError(message)
    first = [-OPEN_EDGE if k <= v else k for k, v in zip(known.start, volume.start, strict=True)]
    last = [OPEN_EDGE if k >= v else k for k, v in zip(known.stop, volume.stop, strict=True)]
    certain = ((stars.low - reach >= first) & (stars.high + reach <= last)).all(axis=1)
    return _run(candidates, rays, nms_thresh, np.zeros(len(candidates), np.bool_), certain)


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
    return (status == Status.KEPT)[len(kept) :]


def _run(
    candidates: Candidates,
    rays: Rays,
    nms_thresh: float,
    forced: NDArray[np.bool_],
    certain: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Prepare the arrays and run the one greedy kernel."""
    stars, table = make_stars(candidates, rays)
    longest = int(np.max(stars.high - stars.low, initial=1))
    return _greedy(
        stars,
        table,
        candidates.order(),
        np.stack([forced, certain]),
        float(nms_thresh),
        make_grid(len(candidates)),
        make_row(longest, len(rays), table.directions),
        make_row(longest, len(rays), table.directions),
        POOL_WORDS,
    )


@leaf
def _sort_by_distance(
    found: NDArray[np.int64], count: int, j: int, points: NDArray[np.int64]
) -> None:
    """Nearest first: the likeliest to suppress. Only speed depends on it."""
    for a in range(1, count):
        i = found[a]
        square = _square(points, i, j)
        b = a - 1
        while b >= 0 and _square(points, found[b], j) > square:
            found[b + 1] = found[b]
            b -= 1
        found[b + 1] = i


@leaf
def _square(points: NDArray[np.int64], i: int, j: int) -> int:
    """Squared distance of two centres."""
    z, y, x = points[i, 0] - points[j, 0], points[i, 1] - points[j, 1], points[i, 2] - points[j, 2]
    return z * z + y * y + x * x


@kernel
def _greedy(  # noqa: PLR0913
    stars: Stars,
    table: Gauge,
    order: NDArray[np.int64],
    forced_certain: NDArray[np.bool_],
    nms_thresh: float,
    grid: Grid,
    own: Row,
    other: Row,
    pool_words: int,
) -> NDArray[np.int8]:
    """Walk the candidates in priority order; pull form: each asks the earlier ones near it."""
    suppressed, undecided, kept = np.int8(0), np.int8(1), np.int8(2)
    n = len(order)
    status = np.zeros(n, np.int8)
    low, high = stars.low, stars.high
    found = np.empty(64, np.int64)
    # Stars are rendered when first asked about; an older epoch means thrown out since.
    pool, used, epoch = np.empty(1 << 12, np.uint64), 0, 0
    place, rendered = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    for j in order:
        if forced_certain[0, j]:
            status[j] = kept
            insert(grid, low, high, j)
            continue
        found, count = query(grid, low, high, j, found)
        _sort_by_distance(found, count, j, stars.points)
        invert(j, stars.dist, own)
        verdict = kept if forced_certain[1, j] else undecided
        for wanted in (kept, undecided):
            if wanted == undecided and verdict != kept:
                break
            for k in range(count):
                i = found[k]
                if status[i] != wanted:
                    continue
                limit = nms_thresh * min(stars.volume[i], stars.volume[j])
                shared = 1
                for axis in range(3):
                    shared *= min(high[i, axis], high[j, axis]) - max(low[i, axis], low[j, axis])
                if shared <= limit:
                    continue
                size = words_per_star(i, stars)
                if rendered[i] != epoch:
                    if used + size > pool_words and used > 0:
                        used, epoch = 0, epoch + 1
                    if used + size > len(pool):
                        grown = np.empty(max(2 * len(pool), used + size), np.uint64)
                        grown[:used] = pool[:used]
                        pool = grown
                    place[i], rendered[i] = used, epoch
                    used += size
                    invert(i, stars.dist, other)
                    render(i, stars, table, other, pool[place[i] : place[i] + size])
                words = pool[place[i] : place[i] + size]
                if is_overlapping(i, j, stars, words, table, own, limit):
                    verdict = suppressed if wanted == kept else undecided
                    break
            if verdict == suppressed:
                break
        status[j] = verdict
        if verdict != suppressed:
            insert(grid, low, high, j)
    return status
