"""The loops over voxels behind `partials`: runs of one label along x, and the sums over them.

A run is a row of three numbers: row of its label, first voxel, voxel after the last; voxels count
in C order through the chunk, and no run goes beyond its line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.kernel_cache import compiled


@compiled()
def _slot(label: np.uint32, table: NDArray[np.int64], present: NDArray[np.uint32]) -> int:
    """Place of a label in a hash table of 2^k places, or the free one where it belongs."""
    mask = len(table) - 1
    # Knuth's multiplicative hash: labels of a chunk are near each other, their places are not.
    at = ((np.int64(label) * 2654435769) >> 16) & mask
    while table[at] >= 0 and present[table[at]] != label:
        at = (at + 1) & mask
    return int(at)


@compiled()
def name_runs(
    flat: NDArray[np.uint32], starts: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Find labels in the order in which they appear, and the runs of each; see `partials.partials`.

    A run costs one look into a hash table with open addresses, which is never more than half full.
    """
    table = np.full(1024, -1, np.int64)
    present = np.empty(512, np.uint32)
    runs = np.empty((len(starts), 3), np.int64)
    labels = count = 0
    for at in range(len(starts) - 1):
        label = flat[starts[at]]
        if label == 0:
            continue
        slot = _slot(label, table, present)
        if table[slot] < 0:
            if labels == len(present):
                table, present = _roomier(table, present)
                slot = _slot(label, table, present)
            present[labels] = label
            table[slot] = labels
            labels += 1
        runs[count, 0], runs[count, 1], runs[count, 2] = table[slot], starts[at], starts[at + 1]
        count += 1
    return present[:labels], runs[:count]


@compiled()
def _roomier(
    table: NDArray[np.int64], present: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return a hash table, and a list of labels, of twice the size."""
    larger = np.full(2 * len(table), -1, np.int64)
    longer = np.empty(2 * len(present), np.uint32)
    longer[: len(present)] = present
    for row in range(len(present)):
        larger[_slot(present[row], larger, longer)] = row
    return larger, longer


@compiled()
def sum_shapes(  # noqa: PLR0913 - arrays in, arrays out: numba has no cheap structures
    runs: NDArray[np.int64],
    extent: NDArray[np.int64],
    origin: NDArray[np.int64],
    counts: NDArray[np.int64],
    sums: NDArray[np.uint64],
    moments: NDArray[np.uint64],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> None:
    """Count voxels and sum coordinates; a run along x costs a handful of operations."""
    for at in range(len(runs)):
        row, first, n = runs[at, 0], runs[at, 1], runs[at, 2] - runs[at, 1]
        line = first // extent[2]
        z, y = origin[0] + line // extent[1], origin[1] + line % extent[1]
        x0 = origin[2] + first - line * extent[2]
        sx = n * x0 + n * (n - 1) // 2
        sxx = n * x0 * x0 + x0 * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
        counts[row] += n
        sums[row, 0] += np.uint64(n * z)
        sums[row, 1] += np.uint64(n * y)
        sums[row, 2] += np.uint64(sx)
        moments[row, 0] += np.uint64(n * z * z)
        moments[row, 1] += np.uint64(n * z * y)
        moments[row, 2] += np.uint64(z * sx)
        moments[row, 3] += np.uint64(n * y * y)
        moments[row, 4] += np.uint64(y * sx)
        moments[row, 5] += np.uint64(sxx)
        low[row, 0], high[row, 0] = min(low[row, 0], z), max(high[row, 0], z + 1)
        low[row, 1], high[row, 1] = min(low[row, 1], y), max(high[row, 1], y + 1)
        low[row, 2], high[row, 2] = min(low[row, 2], x0), max(high[row, 2], x0 + n)


@compiled()
def sum_integers(
    runs: NDArray[np.int64],
    image: NDArray[np.int64],
    totals: NDArray[np.int64],
    extremes: NDArray[np.int64],
) -> None:
    """Sum values and the two halves of their squares; the largest square is below 2^64."""
    extremes[:, 0] = np.int64(2**62)
    extremes[:, 1] = np.int64(-(2**62))
    for at in range(len(runs)):
        row = runs[at, 0]
        total = above = below = np.int64(0)
        least, most = extremes[row, 0], extremes[row, 1]
        for i in range(runs[at, 1], runs[at, 2]):
            v = image[i]
            square = np.uint64(abs(v)) * np.uint64(abs(v))
            total += v
            above += np.int64(square >> np.uint64(32))
            below += np.int64(square & np.uint64(0xFFFFFFFF))
            least, most = min(least, v), max(most, v)
        totals[row, 0] += total
        totals[row, 1] += above
        totals[row, 2] += below
        extremes[row, 0], extremes[row, 1] = least, most


@compiled()
def sum_floats(
    runs: NDArray[np.int64],
    image: NDArray[np.float64],
    count: NDArray[np.int64],
    moving: NDArray[np.float64],
) -> None:
    """Mean, then squared deviations from it, in the order of the voxels; NaN is left out.

    Neumaier's sum keeps what each addition loses: the mean is right to its last digit.
    """
    moving[:, 2] = np.inf
    moving[:, 3] = -np.inf
    lost = np.zeros(len(count))
    for at in range(len(runs)):
        row = runs[at, 0]
        for v in image[runs[at, 1] : runs[at, 2]]:
            if np.isnan(v):
                continue
            count[row] += 1
            total = moving[row, 0] + v
            if abs(moving[row, 0]) >= abs(v):
                lost[row] += (moving[row, 0] - total) + v
            else:
                lost[row] += (v - total) + moving[row, 0]
            moving[row, 0] = total
            moving[row, 2] = min(moving[row, 2], v)
            moving[row, 3] = max(moving[row, 3], v)
    for row in range(len(count)):
        if count[row] > 0:
            total = moving[row, 0] + lost[row]
            moving[row, 0] = (total if np.isfinite(total) else moving[row, 0]) / count[row]
    for at in range(len(runs)):
        row = runs[at, 0]
        for v in image[runs[at, 1] : runs[at, 2]]:
            if not np.isnan(v):
                moving[row, 1] += (v - moving[row, 0]) ** 2


@compiled()
def merge_floats(
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    counts: NDArray[np.int64],
    moving: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Merge runs of rows [mean, m2, min, max] from the first to the last."""
    count = np.zeros(len(starts), np.int64)
    merged = np.zeros((len(starts), 4))
    for n in range(len(starts)):
        merged[n, 2] = np.inf
        merged[n, 3] = -np.inf
        for row in range(starts[n], stops[n]):
            if counts[row] == 0:
                continue
            total = count[n] + counts[row]
            delta = moving[row, 0] - merged[n, 0]
            share = counts[row] / total
            merged[n, 1] += moving[row, 1] + delta * delta * count[n] * share
            if count[n] == 0:
                merged[n, 0] = moving[row, 0]
            elif np.isfinite(delta):
                merged[n, 0] += delta * share
            else:
                merged[n, 0] += moving[row, 0]  # inf stays inf, unless -inf meets it
            merged[n, 2] = min(merged[n, 2], moving[row, 2])
            merged[n, 3] = max(merged[n, 3], moving[row, 3])
            count[n] = total
    return count, merged
