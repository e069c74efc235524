"""Do the sizes fall into two groups? Two modes of a density with a deep valley between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_INSTANCES = 100
"""Fewer say nothing of two groups."""

MIN_SHARE = 0.1
"""Least share of the instances in either group."""

DEPTH = 0.5
"""Most density in the valley over that of the lower peak."""

DEVIATIONS = 3.0
"""By how many standard deviations of its count the valley is emptier than the lower peak."""

POINTS = 512
"""Places at which the density is computed."""


@dataclass(frozen=True, slots=True)
class TwoSizes:
    """Two groups of sizes.

    Parameters
    ----------
    small, large : float
        Where the density peaks, in the unit of the values.
    valley : float
        Where it is least between them.
    share : float
        Share of the values below the valley.
    """

    small: float
    large: float
    valley: float
    share: float


def two_sizes(values: NDArray[Any]) -> TwoSizes | None:
    """Return the two groups into which positive values fall, None if they are one.

    Parameters
    ----------
    values : [n]
        Sizes, positive.

    Notes
    -----
    The density of the logarithms is a sum of Gaussians of Silverman's width, which is too wide
    where there are two groups: what is found is real, what is not found may be there.
    """
    logs = np.log(values)
    spread = min(float(logs.std()), float(np.subtract(*np.percentile(logs, [75, 25]))) / 1.34) if (
        len(logs) >= MIN_INSTANCES
    ) else 0.0  # fmt: skip
    if spread <= 0:
        return None
    width = 0.9 * spread * len(logs) ** -0.2
    at = np.linspace(logs.min() - 3 * width, logs.max() + 3 * width, POINTS)
    counts = np.histogram(logs, POINTS, (at[0], at[-1]))[0].astype(np.float64)
    offsets = (at - at.mean()) / width
    kernel = np.exp(-0.5 * offsets**2)
    density = np.convolve(counts, kernel / kernel.sum(), mode="same")
    below = np.cumsum(counts) / len(logs)
    inner = density[1:-1]
    peaks = 1 + np.flatnonzero((inner > density[:-2]) & (inner >= density[2:]))
    best: TwoSizes | None = None
    deepest = DEPTH
    for k, first in enumerate(peaks):
        for second in peaks[k + 1 :]:
            low = first + int(density[first:second].argmin())
            lower = min(density[first], density[second])
            share = float(below[low])
            depth = float(density[low] / lower)
            # Counts under a window as wide as the Gaussian.
            window = width / (at[1] - at[0]) * np.sqrt(2 * np.pi)
            contrast = (lower - density[low]) * window / np.sqrt((lower + density[low]) * window)
            if depth < deepest and MIN_SHARE <= share <= 1 - MIN_SHARE and contrast >= DEVIATIONS:
                small, large, valley = (float(np.exp(at[i])) for i in (first, second, low))
                best, deepest = TwoSizes(small, large, valley, share), depth
    return best
