"""Do two polyhedra overlap too much? Counted in voxels, exactly, and mostly without counting.

Two stars overlap if more than `nms_thresh * min(volume_i, volume_j)` voxel centres lie inside both:
an integer against a float64, strictly greater, as StarDist's last and exact test.

The earlier one, i, is kept as bits, one row of its box after the other; the later one, j, is never
rendered. Of the bits of i, those in j's sure ball count, those outside j's outer ball do not; that
bounds the count from below and above::

    sure <= count <= sure + open           stop when sure > limit, or sure + open <= limit

and the gauge of j is asked about the open bits only until one of the bounds decides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.gauge import Gauge, gauge, is_inside_integer, zones
from anystar_batch.stars.kernel import kernel, popcount, ready
from anystar_batch.stars.raster import IDENTITY, bounding_boxes, volumes
from anystar_batch.stars.rays import Rays


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
    zones : float64 [n, 2]
        Squared radii surely inside and surely outside.
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


@kernel
def words_per_row(i: int, stars: Stars) -> int:
    """Words that hold one row of star i."""
    return (stars.high[i, 2] - stars.low[i, 2] + 63) >> 6


@kernel
def words_per_star(i: int, stars: Stars) -> int:
    """Words that hold star i: all rows of its box, z slowest."""
    rows = (stars.high[i, 0] - stars.low[i, 0]) * (stars.high[i, 1] - stars.low[i, 1])
    return rows * words_per_row(i, stars)


@kernel
def invert(dist: NDArray[np.float32], inverse_dist: NDArray[np.float32]) -> None:
    """Write 1/d, rounded to float32: the form the gauge takes."""
    for k in range(len(dist)):
        inverse_dist[k] = np.float32(1.0) / dist[k]


@kernel
def _interval(word: int, first: int, last: int) -> np.uint64:
    """Bits of this word that lie in [first, last], counted along the row; 0 if none do."""
    low = max(first - (word << 6), 0)
    high = min(last - (word << 6), 63)
    if high < low:
        return np.uint64(0)
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    return (ones >> np.uint64(63 - high)) & (ones << np.uint64(low))


@kernel
def render(
    i: int,
    stars: Stars,
    inverse_dist: NDArray[np.float32],
    table: Gauge,
    words: NDArray[np.uint64],
) -> None:
    """Set the bits of star i; `words` has `words_per_star` of them."""
    cz, cy, cx = stars.points[i, 0], stars.points[i, 1], stars.points[i, 2]
    x_low, x_high = stars.low[i, 2], stars.high[i, 2]
    inner, outer = stars.zones[i, 0], stars.zones[i, 1]
    n_words = words_per_row(i, stars)
    words[:] = np.uint64(0)
    row = 0
    for z in range(stars.low[i, 0], stars.high[i, 0]):
        for y in range(stars.low[i, 1], stars.high[i, 1]):
            across = np.float64((z - cz) * (z - cz) + (y - cy) * (y - cy))
            if across <= outer:
                half = np.int64(np.sqrt(outer - across))
                first, last = max(x_low, cx - half), min(x_high, cx + half + 1)
                sure = np.int64(np.sqrt(inner - across)) if across <= inner else -1
                for x in range(first, last):
                    if abs(x - cx) <= sure or is_inside_integer(
                        z - cz, y - cy, x - cx, inverse_dist, table
                    ):
                        bit = x - x_low
                        words[np.uint64(row + (bit >> 6))] |= np.uint64(1) << np.uint64(bit & 63)
            row += n_words


@kernel
def is_overlapping(  # noqa: PLR0913  (flat arguments: tuples of growing arrays cost)
    i: int,
    j: int,
    stars: Stars,
    words: NDArray[np.uint64],
    inverse_dist: NDArray[np.float32],
    table: Gauge,
    limit: float,
) -> bool:
    """Whether more than `limit` voxels lie in both; i as bits, j as `inverse_dist`."""
    low, high, points = stars.low, stars.high, stars.points
    z0, z1 = max(low[i, 0], low[j, 0]), min(high[i, 0], high[j, 0])
    y0, y1 = max(low[i, 1], low[j, 1]), min(high[i, 1], high[j, 1])
    x0, x1 = max(low[i, 2], low[j, 2]), min(high[i, 2], high[j, 2])
    cz, cy, cx = points[j, 0], points[j, 1], points[j, 2]
    inner, outer = stars.zones[j, 0], stars.zones[j, 1]
    n_words, height, left = words_per_row(i, stars), high[i, 1] - low[i, 1], low[i, 2]

    sure, open_bits = np.int64(0), np.int64(0)
    for z in range(z0, z1):
        for y in range(y0, y1):
            across = np.float64((z - cz) * (z - cz) + (y - cy) * (y - cy))
            if across > outer:
                continue
            half = np.int64(np.sqrt(outer - across))
            first, last = max(x0, cx - half) - left, min(x1 - 1, cx + half) - left
            if first > last:
                continue
            sure_first, sure_last = 0, -1
            if across <= inner:
                half = np.int64(np.sqrt(inner - across))
                sure_first, sure_last = max(x0, cx - half) - left, min(x1 - 1, cx + half) - left
            row = ((z - low[i, 0]) * height + (y - low[i, 1])) * n_words
            for w in range(first >> 6, (last >> 6) + 1):
                bits = words[np.uint64(row + w)] & _interval(w, first, last)
                in_ball = np.int64(popcount(bits & _interval(w, sure_first, sure_last)))
                sure += in_ball
                open_bits += np.int64(popcount(bits)) - in_ball
        if sure > limit:
            return True
    if sure + open_bits <= limit:
        return False

    for z in range(z0, z1):
        for y in range(y0, y1):
            across = np.float64((z - cz) * (z - cz) + (y - cy) * (y - cy))
            if across > outer:
                continue
            half = np.int64(np.sqrt(outer - across))
            first, last = max(x0, cx - half) - left, min(x1 - 1, cx + half) - left
            if first > last:
                continue
            sure_first, sure_last = 0, -1
            if across <= inner:
                half = np.int64(np.sqrt(inner - across))
                sure_first, sure_last = max(x0, cx - half) - left, min(x1 - 1, cx + half) - left
            row = ((z - low[i, 0]) * height + (y - low[i, 1])) * n_words
            for w in range(first >> 6, (last >> 6) + 1):
                bits = words[np.uint64(row + w)] & _interval(w, first, last)
                bits &= ~_interval(w, sure_first, sure_last)
                while bits != np.uint64(0):
                    below = (bits & (~bits + np.uint64(1))) - np.uint64(1)
                    x = left + (w << 6) + np.int64(popcount(below))
                    bits &= bits - np.uint64(1)
                    open_bits -= 1
                    if is_inside_integer(z - cz, y - cy, x - cx, inverse_dist, table):
                        sure += 1
                if sure > limit:
                    return True
                if sure + open_bits <= limit:
                    return False
    return False
