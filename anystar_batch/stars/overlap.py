"""Do two polyhedra overlap too much? Counted in voxels, exactly, and mostly without counting.

Two stars overlap if more than `nms_thresh * min(volume_i, volume_j)` voxel centres lie inside both:
an integer against a float64, strictly greater, as StarDist's last and exact test.

The earlier one, i, is kept as bits, one row of its box after the other; the later one, j, is never
rendered. The bits of i in j's sure balls (`zones`) are counted first, 64 at a time; often that
passes the limit. Else the gauge of j is asked about the bits between its sure and its outer balls,
from the middle plane outwards, until the count passes the limit. An upper bound to end hopeless
pairs pairs early was tried: it cost more than it saved (25 to 45 % more time on three dense sets).

References
----------
The criterion is the last step of StarDist's, whose bounds decide most pairs before voxels are
counted: Weigert et al., WACV 2020, doi:10.1109/WACV45572.2020.9093435, arXiv:1908.03636.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import Gauge, Row, gauge, invert, judge_integer, make_row, mark
from anystar_batch.stars.jit import inlined, kernel, leaf, popcount, ready
from anystar_batch.stars.polyhedra import IDENTITY, bounding_boxes, volumes
from anystar_batch.stars.rays import Rays
from anystar_batch.stars.zones import span, sure_span, zones

POOL_WORDS = 1 << 25
"""Words of rendered stars held at once (256 MB); beyond that they are rendered again on demand."""


class Stars(NamedTuple):
    """Candidates on the working lattice, as kernels read them.

    Parameters
    ----------
    points : int64 [n, 3]
        Centres, working voxels.
    low, high : int64 [n, 3]
        Bounding boxes, half-open.
    dist : float32 [n, n_rays]
        Working voxels.
    volume : float64 [n]
        Continuous volume, cubic working voxels.
    zones : float64 [n, 8, 2]
        Balls surely inside and surely holding it, from `zones.zones`.
    """

    points: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    dist: NDArray[np.float32]
    volume: NDArray[np.float64]
    zones: NDArray[np.float64]


def make_stars(candidates: Candidates, rays: Rays) -> tuple[Stars, Gauge]:
    """Return what the kernels read, and a table that covers it.

    Parameters
    ----------
    candidates : Candidates
    rays : Rays

    Returns
    -------
    Stars, Gauge
    """
    boxes = bounding_boxes(candidates, rays, IDENTITY)
    dist = ready(candidates.dist, np.float32)
    table = gauge(rays, int(np.ceil(np.max(dist, initial=1.0))))
    stars = Stars(
        ready(candidates.points, np.int64),
        np.ascontiguousarray(boxes[:, 0]),
        np.ascontiguousarray(boxes[:, 1]),
        dist,
        volumes(dist, rays),
        zones(dist, table.directions),
    )
    return stars, table


@inlined
def words_per_row(i: int, stars: Stars) -> int:
    """Words that hold one row of star i."""
    return int(stars.high[i, 2] - stars.low[i, 2] + 63) >> 6


@inlined
def words_per_star(i: int, stars: Stars) -> int:
    """Words that hold star i: all rows of its box, z slowest."""
    rows = (stars.high[i, 0] - stars.low[i, 0]) * (stars.high[i, 1] - stars.low[i, 1])
    return int(rows) * words_per_row(i, stars)


@inlined
def _interval(word: int, first: int, last: int) -> np.uint64:
    """Bits of this word that lie in [first, last], counted along the row; 0 if none do."""
    low = max(first - (word << 6), 0)
    high = min(last - (word << 6), 63)
    if high < low:
        return np.uint64(0)
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    return (ones >> np.uint64(63 - high)) & (ones << np.uint64(low))


@leaf
def render(
    i: int,
    stars: Stars,
    table: Gauge,
    row: Row,
    words: NDArray[np.uint64],
) -> None:
    """Set the bits of star i; `words` has `words_per_star` of them."""
    cz, cy, cx = stars.points[i, 0], stars.points[i, 1], stars.points[i, 2]
    n_words, height = words_per_row(i, stars), stars.high[i, 1] - stars.low[i, 1]
    for k in range(len(words)):
        words[k] = np.uint64(0)
    for z in range(stars.low[i, 0], stars.high[i, 0]):
        for y in range(stars.low[i, 1], stars.high[i, 1]):
            low, high = stars.low[i, 2] - cx, stars.high[i, 2] - cx
            first, left, right, last = span(i, z - cz, y - cy, stars.zones, low, high)
            if last <= first:
                continue
            judge_integer(z - cz, y - cy, first, left - first, table, row, 0)
            mark(row, left - first, right - first)
            judge_integer(z - cz, y - cy, right, last - right, table, row, right - first)
            at = ((z - stars.low[i, 0]) * height + (y - stars.low[i, 1])) * n_words
            for x in range(first, last):
                bit = x - low
                value = np.uint64(row.inside[x - first])
                words[np.uint64(at + (bit >> 6))] |= value << np.uint64(bit & 63)


class Shared(NamedTuple):
    """The common box of two stars, and where its rows lie in the bits of the earlier one.

    Parameters
    ----------
    z0, z1, y0, y1, x0, x1 : int
        The box, half-open, as offsets from the centre of the later star, voxels.
    left, words, stride : int
        First offset of a row of bits; words a row; words a plane.
    at : int
        First word of the row at (z0, y0).
    """

    z0: int
    z1: int
    y0: int
    y1: int
    x0: int
    x1: int
    left: int
    words: int
    stride: int
    at: int


@leaf
def _shared(i: int, j: int, stars: Stars) -> Shared:
    """Return the common box of i, held as bits, and j."""
    low, high, points = stars.low, stars.high, stars.points
    z0, z1 = max(low[i, 0], low[j, 0]), min(high[i, 0], high[j, 0])
    y0, y1 = max(low[i, 1], low[j, 1]), min(high[i, 1], high[j, 1])
    x0, x1 = max(low[i, 2], low[j, 2]), min(high[i, 2], high[j, 2])
    words = words_per_row(i, stars)
    stride = words * (high[i, 1] - low[i, 1])
    at = (z0 - low[i, 0]) * stride + (y0 - low[i, 1]) * words
    z, y, x = points[j, 0], points[j, 1], points[j, 2]
    return Shared(z0 - z, z1 - z, y0 - y, y1 - y, x0 - x, x1 - x, low[i, 2] - x, words, stride, at)


@inlined
def _middle_out(k: int, n: int) -> int:
    """Return 0 .. n-1 from the middle outwards: the most common voxels lie there."""
    step = (k + 1) // 2
    return n // 2 - step if k & 1 else n // 2 + step


@inlined
def _count_row(bits: NDArray[np.uint64], at: int, first: int, last: int) -> int:
    """Count the bits [first, last] of the row of words from `at` on."""
    count = 0
    if last >= first:
        for w in range(first >> 6, (last >> 6) + 1):
            count += int(popcount(bits[np.uint64(at + w)] & _interval(w, first, last)))
    return count


@leaf
def _count_sure(
    j: int, box: Shared, zones: NDArray[np.float64], bits: NDArray[np.uint64], limit: float
) -> int:
    """Count the bits in j's sure balls, until they pass the limit."""
    count = 0
    largest = 0.0
    for octant in range(8):
        largest = max(largest, zones[j, octant, 0])
    reach = int(np.sqrt(largest))
    y0, y1 = max(box.y0, -reach), min(box.y1, reach + 1)
    z0, z1 = max(box.z0, -reach), min(box.z1, reach + 1)
    for k in range(z1 - z0):
        z = z0 + _middle_out(k, z1 - z0)
        at = box.at + (z - box.z0) * box.stride - box.y0 * box.words
        for y in range(y0, y1):
            left, right = sure_span(j, z, y, zones, box.x0, box.x1)
            count += _count_row(bits, at + y * box.words, left - box.left, right - 1 - box.left)
        if count > limit:
            break
    return count


@inlined
def _ask(  # noqa: PLR0913
    box: Shared,
    z: int,
    y: int,
    first: int,
    last: int,
    bits: NDArray[np.uint64],
    table: Gauge,
    row: Row,
) -> int:
    """Count the bits at x in [first, last) that j's gauge says are inside."""
    at = box.at + (z - box.z0) * box.stride + (y - box.y0) * box.words
    if _count_row(bits, at, first - box.left, last - 1 - box.left) == 0:
        return 0
    judge_integer(z, y, first, last - first, table, row, 0)
    inside = 0
    for x in range(first, last):
        bit = x - box.left
        is_set = (bits[np.uint64(at + (bit >> 6))] >> np.uint64(bit & 63)) & np.uint64(1)
        inside += int(is_set & np.uint64(row.inside[x - first]))
    return inside


@leaf
def is_overlapping(  # noqa: PLR0913
    i: int,
    j: int,
    stars: Stars,
    bits: NDArray[np.uint64],
    table: Gauge,
    row: Row,
    limit: float,
) -> bool:
    """Whether more than `limit` voxels lie in both; i as bits, j as `row.inverse_dist`."""
    box = _shared(i, j, stars)
    count = _count_sure(j, box, stars.zones, bits, limit)
    if count > limit:
        return True
    for k in range(box.z1 - box.z0):
        z = box.z0 + _middle_out(k, box.z1 - box.z0)
        for y in range(box.y0, box.y1):
            first, left, right, last = span(j, z, y, stars.zones, box.x0, box.x1)
            if last > first:
                count += _ask(box, z, y, first, left, bits, table, row)
                count += _ask(box, z, y, right, last, bits, table, row)
        if count > limit:
            return True
    return False


class Scene(NamedTuple):
    """All that a pair test needs.

    Parameters
    ----------
    stars : Stars
    table : Gauge
    own, other : Row
        Of the candidate that asks, and of the one being rendered.
    offset, rendered : int64 [n]
        First word of a rendered star in the pool, and the epoch in which it was put there.
    pool_state : int64 [2]
        Words used, and the present epoch; an older epoch means thrown out since.
    """

    stars: Stars
    table: Gauge
    own: Row
    other: Row
    offset: NDArray[np.int64]
    rendered: NDArray[np.int64]
    pool_state: NDArray[np.int64]


def _make_scene(stars: Stars, table: Gauge) -> Scene:
    """Allocate the rooms."""
    n, n_rays = stars.dist.shape
    longest = int(np.max(stars.high - stars.low, initial=1))
    return Scene(
        stars,
        table,
        make_row(longest, n_rays, table.directions),
        make_row(longest, n_rays, table.directions),
        np.zeros(n, np.int64),
        np.full(n, -1, np.int64),
        np.zeros(2, np.int64),
    )


@kernel
def _bits(
    i: int, scene: Scene, pool: NDArray[np.uint64], pool_words: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the pool, perhaps a larger one, and the bits of star i in it, rendered if need be."""
    state = scene.pool_state
    size = words_per_star(i, scene.stars)
    at = scene.offset[i]
    if scene.rendered[i] != state[1]:
        if state[0] + size > pool_words:
            state[0], state[1] = 0, state[1] + 1
        at = state[0]
        if at + size > len(pool):
            grown = np.empty(max(2 * len(pool), at + size), np.uint64)
            grown[:at] = pool[:at]
            pool = grown
        scene.offset[i], scene.rendered[i] = at, state[1]
        state[0] = at + size
        invert(i, scene.stars.dist, scene.other)
        render(i, scene.stars, scene.table, scene.other, pool[at : at + size])
    return pool, pool[at : at + size]


@leaf
def _limit(i: int, j: int, stars: Stars, nms_thresh: float) -> float:
    """Voxels that i and j may share; infinite if their boxes share no more."""
    limit = nms_thresh * min(stars.volume[i], stars.volume[j])
    shared = 1
    for axis in range(3):
        high = min(stars.high[i, axis], stars.high[j, axis])
        shared *= high - max(stars.low[i, axis], stars.low[j, axis])
    return limit if shared > limit else np.inf


@kernel
def _overlap(
    i: int,
    j: int,
    scene: Scene,
    nms_thresh: float,
    pool: NDArray[np.uint64],
    pool_words: int,
) -> tuple[NDArray[np.uint64], bool]:
    """Return the pool, perhaps a larger one, and whether i and j overlap; j is `scene.own`."""
    limit = _limit(i, j, scene.stars, nms_thresh)
    pool, bits = _bits(i, scene, pool, pool_words)
    return pool, is_overlapping(i, j, scene.stars, bits, scene.table, scene.own, limit)


@kernel
def _room(array: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the array, or a longer copy where it has not so many items."""
    if size <= len(array):
        return array
    grown = np.empty(max(2 * len(array), size), np.int64)
    grown[: len(array)] = array
    return grown
