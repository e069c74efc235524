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
from anystar_batch.stars import verdicts
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import Gauge
from anystar_batch.stars.neighbours import make_grid
from anystar_batch.stars.overlap import POOL_WORDS, Stars, make_scene, make_stars
from anystar_batch.stars.rays import Rays

OPEN_EDGE = 1 << 60
"""Stands for no limit where the volume ends."""


CELL = 32
"""Edge of the cells in which candidates are judged, working voxels."""


class Status(IntEnum):
    """What a block knows about a candidate."""

    SUPPRESSED = verdicts.SUPPRESSED
    UNDECIDED = verdicts.UNDECIDED
    KEPT = verdicts.KEPT


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
    status: NDArray[np.int8] = verdicts.greedy(
        make_scene(stars, table),
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
