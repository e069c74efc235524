"""Where along an object's mean radial profile its surface is put, by convention.

The second look answers where the visible surface is. Some archives draw outlines elsewhere: at half
maximum, or out into the haze. The mean of all rays, seen in multiples of the visible surface, falls
from the core to what lies around::

    core ----___                      share 1
                -_                    share 0.5: half maximum
                  --___               share 0.2: into the haze
                       ------- around share 0
    0        1          2     times the visible surface

Made of the samples that the second look has taken already: no voxel is read again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.kernel_cache import compiled
from anystar_batch.network.profiles import PER_DIST, SAMPLES

_CORE = 11
"""Places of the core: up to 0.73 times the surface."""

_FIRST = 7
"""First place where the surface may be put: 0.53 times the visible one."""

_LEAST = 17
"""Places that have to be known: 1.13 times the surface."""

_BEND = 3.0
"""As in `profiles`: the samples are bent, and are straightened before they are averaged."""


@compiled(error_model="numpy")
def fall_factors(
    values: NDArray[np.float32],
    given: NDArray[np.float32],
    refined: NDArray[np.float32],
    share: float,
    factors: NDArray[np.float32],
) -> None:
    """Fill the factors that take visible surfaces to where the mean profile has fallen to a share.

    Parameters
    ----------
    values : float32 [n, SAMPLES, CHANNELS, n_rays]
        From `profiles.profiles`, by the distances of the first look.
    given, refined : float32 [n, n_rays]
        Distances of the first and of the second look, working voxels.
    share : float
        Between surroundings (0: the lowest of the mean profile beyond the surface) and core (1: its
        mean up to 0.73 times the surface).
    factors : float32 [n]
        Written: 0.53 to 2.2; 1 where the profile does not fall, or the volume ends too near.
    """
    mean = np.empty(SAMPLES, np.float64)
    for i in range(len(given)):
        known = _mean_profile(values[i], given[i], refined[i], mean)
        factors[i] = np.float32(_fall(mean[:known], share))


@compiled(error_model="numpy")
def _mean_profile(
    values: NDArray[np.float32],
    given: NDArray[np.float32],
    refined: NDArray[np.float32],
    mean: NDArray[np.float64],
) -> int:
    """Mean over the rays at each fifteenth of the refined surface; return how many are known.

    A place counts for the rays that were sampled there, inside the volume; it is known if a quarter
    of them was.
    """
    n_rays = len(given)
    for k in range(SAMPLES):
        total, count = 0.0, 0
        for ray in range(n_rays):
            at = max((k + 1) * np.float64(refined[ray]) / np.float64(given[ray]) - 1.0, 0.0)
            below = int(at)
            if below >= SAMPLES - 1:
                continue
            if values[below, 3, ray] > 0.0 or values[below + 1, 3, ray] > 0.0:
                continue
            a, b = np.float64(values[below, 0, ray]), np.float64(values[below + 1, 0, ray])
            a, b = a / (1.0 - abs(a) / _BEND), b / (1.0 - abs(b) / _BEND)
            total += a + (at - below) * (b - a)
            count += 1
        if 4 * count < n_rays:
            return k
        mean[k] = total / count
    return SAMPLES


@compiled(error_model="numpy")
def _fall(mean: NDArray[np.float64], share: float) -> float:
    """Place, in multiples of the surface, where the profile has first fallen to the share."""
    known = len(mean)
    if known < _LEAST:
        return 1.0
    core, around = 0.0, mean[PER_DIST]
    for k in range(_CORE):
        core += mean[k]
    core /= _CORE
    for k in range(PER_DIST, known):
        around = min(around, mean[k])
    if not core > around:
        return 1.0
    limit = around + share * (core - around)
    k = _FIRST
    while mean[k] > limit and k < known - 1:
        k += 1
    if k == _FIRST or not mean[k - 1] > mean[k]:
        return (k + 1.0) / PER_DIST
    part = min((mean[k - 1] - limit) / (mean[k - 1] - mean[k]), 1.0)
    return float((k + part) / PER_DIST)
