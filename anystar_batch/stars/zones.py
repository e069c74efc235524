"""Balls that decide most voxels without the gauge, one pair for each octant around the centre.

With d_min and d_max the least and the largest distance among the rays that matter in an octant,
everything within d_min / inner is inside and everything beyond d_max * outer is not. One row of one
polyhedron, cut at the centre because the octant changes there::

        first      left        0         right     last
          |  gauge  |  sure: inside       |  gauge  |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.gauge import Directions
from anystar_batch.stars.jit import inlined, kernel, ready

SLACK = 1e-4
"""Relative margin of the balls: hundreds of float32 roundings."""


def zones(dist: NDArray[np.float32], directions: Directions) -> NDArray[np.float64]:
    """Return the balls of each polyhedron.

    Parameters
    ----------
    dist : float32 [n, n_rays]
        Working voxels.
    directions : Directions

    Returns
    -------
    float64 [n, 8, 2]
        For each octant, 4 (z >= 0) + 2 (y >= 0) + (x >= 0): squared radius up to which everything
        is inside; squared radius beyond which nothing is.
    """
    return _zones(ready(dist, np.float32), directions)


@kernel
def _zones(dist: NDArray[np.float32], directions: Directions) -> NDArray[np.float64]:
    """Squares of the two radii, pulled apart by the slack."""
    result = np.empty((len(dist), 8, 2), np.float64)
    matters = directions.octant_rays
    for i in range(len(dist)):
        for octant in range(8):
            low, high = np.float32(np.inf), np.float32(0.0)
            for k in range(dist.shape[1]):
                if matters[octant, k]:
                    low, high = min(low, dist[i, k]), max(high, dist[i, k])
            result[i, octant, 0] = (np.float64(low) / directions.inner * (1.0 - SLACK)) ** 2
            result[i, octant, 1] = (np.float64(high) * directions.outer * (1.0 + SLACK)) ** 2
    return result


@inlined
def _octant(z: float, y: float) -> int:
    """Octant of a row where x < 0; the next one where x >= 0."""
    return (4 if z >= 0 else 0) + (2 if y >= 0 else 0)


@inlined
def sure_span(
    i: int, z: int, y: int, zones: NDArray[np.float64], low: int, high: int
) -> tuple[int, int]:
    """Left and right of the row at integer offset (z, y), within [low, high), from the centre."""
    across, octant = np.float64(z * z + y * y), _octant(z, y)
    down, up = zones[i, octant, 0] - across, zones[i, octant + 1, 0] - across
    left = -int(np.sqrt(down)) if down >= 0.0 else 0
    right = int(np.sqrt(up)) + 1 if up >= 0.0 else 0
    return max(left, low), min(right, high)


@inlined
def span(
    i: int, z: int, y: int, zones: NDArray[np.float64], low: int, high: int
) -> tuple[int, int, int, int]:
    """First, left, right and last of that row, in order; none is inside if last <= first."""
    across, octant = np.float64(z * z + y * y), _octant(z, y)
    down, up = zones[i, octant, 1] - across, zones[i, octant + 1, 1] - across
    first = max(-int(np.sqrt(down)) if down >= 0.0 else 0, low)
    last = min(int(np.sqrt(up)) + 1 if up >= 0.0 else 0, high)
    left, right = sure_span(i, z, y, zones, low, high)
    left = min(max(left, first), last)
    return first, left, max(min(right, last), left), last


@inlined
def span_between(  # noqa: PLR0913
    i: int,
    z: float,
    y: float,
    zones: NDArray[np.float64],
    low: int,
    high: int,
    fraction: float,
    scale: float,
) -> tuple[int, int, int, int]:
    """Return the same where the centre lies `fraction` beyond a voxel and voxels are 1 / `scale`.

    All are offsets from that voxel. A voxel exactly at x = 0 belongs to both octants.
    """
    across, octant = z * z + y * y, _octant(z, y)
    inner_down, inner_up = zones[i, octant, 0] - across, zones[i, octant + 1, 0] - across
    outer_down, outer_up = zones[i, octant, 1] - across, zones[i, octant + 1, 1] - across
    down = np.sqrt(outer_down) * scale if outer_down >= 0.0 else 0.0
    up = np.sqrt(outer_up) * scale if outer_up >= 0.0 else 0.0
    first = max(int(np.ceil(fraction - down)), low)
    last = min(int(np.floor(fraction + up)) + 1, high)
    if inner_down < 0.0 and inner_up < 0.0:
        return first, last, last, last
    down = np.sqrt(inner_down) * scale if inner_down >= 0.0 else 0.0
    up = np.sqrt(inner_up) * scale if inner_up >= 0.0 else 0.0
    left = min(max(int(np.ceil(fraction - down)), first), last)
    right = min(int(np.floor(fraction + up)) + 1, last)
    return first, left, max(right, left), last
