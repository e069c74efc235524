"""For the eye: density and size of instances against the distance to the nearest border of a grid.

With them the band that grids of the same step show which lie elsewhere. What is told for certain is
told by `seams`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYXFloat
from anystar_batch.report.profiles import Profiles
from anystar_batch.report.seams import SEED, BorderGrid

PARTS = 12
"""Distances looked at."""

FARTHEST = 3.0
"""Largest distance, in extents of an instance."""

MOVED = 200
"""Grids elsewhere."""

INSIDE = (2.5, 97.5)
"""Percentiles of them that the band spans."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """Instances by their distance to the nearest plane of a grid, along the plane's axis.

    Parameters
    ----------
    distance_um : float64 [n]
        Middles of the parts, micrometres.
    density, size : float64 [n]
        Over the mean of all: centroids in the room there is, geometric mean volume.
    density_band, size_band : float64 [2, n]
        Between what most grids elsewhere lie.
    """

    distance_um: NDArray[np.float64]
    density: NDArray[np.float64]
    size: NDArray[np.float64]
    density_band: NDArray[np.float64]
    size_band: NDArray[np.float64]


def nearness(
    profiles: Profiles, grid: BorderGrid, extent: ZYXFloat, scale_um: ZYXFloat
) -> Nearness | None:
    """Return density and size against the distance to a grid; None if it has no planes.

    Parameters
    ----------
    profiles : Profiles
        The instances.
    grid : BorderGrid
    extent : (z, y, x)
        Extent of a typical instance, level-0 voxels.
    scale_um : (z, y, x)
        Micrometres per voxel of level 0.
    """
    axes = [a for a in range(3) if len(grid.planes(a, profiles.axes[a].length))]
    if not axes or not profiles.instances:
        return None
    reach = min(
        min(FARTHEST * extent[a], grid.step[a] / 2, profiles.axes[a].length / 2) * scale_um[a]
        for a in axes
    )
    edges = np.linspace(0.0, max(reach, *(scale_um[a] for a in axes)), PARTS + 1)
    random = np.random.default_rng(SEED)
    curves = []
    for k in range(MOVED + 1):
        sums = np.zeros((3, PARTS))
        for a in axes:
            moved = 0.0 if k == 0 else float(random.uniform(0.1, 0.9)) * grid.step[a]
            sums += _sums(profiles, a, grid, moved, edges / scale_um[a])
        curves.append(sums)
    count, logs, room = np.moveaxis(np.array(curves), 1, 0)
    mean = sum(float(profiles.axes[a].log_volume.sum()) for a in axes)
    mean /= len(axes) * profiles.instances
    with np.errstate(invalid="ignore", divide="ignore"):
        density = np.where(room > 0, count / room, np.nan)
        size = np.where(count > 0, np.exp(logs / count - mean), np.nan)
    return Nearness(
        distance_um=(edges[1:] + edges[:-1]) / 2,
        density=density[0],
        size=size[0],
        density_band=_band(density[1:]),
        size_band=_band(size[1:]),
    )


def _sums(
    profiles: Profiles, a: int, grid: BorderGrid, moved: float, edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Centroids, log volumes and expected centroids in each part, [3, parts]."""
    axis, step = profiles.axes[a], grid.step[a]
    first = grid.first[a] + moved
    at = np.arange(axis.length) + 0.5
    # Planes lie inside the volume only: none before the first, none beyond the end.
    low = first % step if moved else first
    last = low + step * max(0, int((axis.length - 0.5 - low) // step))
    nearest = np.clip(low + step * np.rint((at - low) / step), low, last)
    part = np.digitize(np.abs(at - nearest), edges) - 1
    inside = part < len(edges) - 1
    expected = np.full(axis.length, profiles.instances / axis.length)
    return np.stack(
        [
            np.bincount(part[inside], weights=values[inside], minlength=len(edges) - 1)
            for values in (axis.count, axis.log_volume, expected)
        ]
    )


def _band(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What most of the moved grids lie between, [2, parts]; NaN where none has any."""
    band = np.full((2, values.shape[1]), np.nan)
    for k, column in enumerate(values.T):
        finite = column[np.isfinite(column)]
        if len(finite):
            band[:, k] = np.percentile(finite, INSIDE)
    return band


@dataclass(frozen=True, slots=True)
class ContactNearness:
    """Changes of label inside objects by the distance of an edge to the nearest plane of a grid.

    Parameters
    ----------
    distance : float64 [n]
        Voxels.
    share : float64 [n]
        Share of the pairs of voxels inside objects that change label, over that of all.
    band : float64 [2, n]
        Between what most grids elsewhere lie.
    """

    distance: NDArray[np.float64]
    share: NDArray[np.float64]
    band: NDArray[np.float64]


def contact_nearness(
    profiles: Profiles, grid: BorderGrid, extent: ZYXFloat
) -> ContactNearness | None:
    """Return changes of label against the distance to a grid; None if it has no planes.

    Parameters
    ----------
    profiles : Profiles
        With pairs of voxels.
    grid : BorderGrid
    extent : (z, y, x)
        Extent of a typical instance, voxels.
    """
    axes = [a for a in range(3) if len(grid.planes(a, profiles.axes[a].length))]
    if not axes or any(profiles.axes[a].pairs is None for a in axes):
        return None
    reach = max(2, int(min(min(FARTHEST * extent[a], grid.step[a] / 2) for a in axes)))
    random = np.random.default_rng(SEED)
    curves = []
    for k in range(MOVED + 1):
        counts = np.zeros((reach + 1, 2))
        for a in axes:
            moved = 0.0 if k == 0 else float(random.uniform(0.1, 0.9)) * grid.step[a]
            counts += _changes(profiles, a, grid, moved, reach)
        curves.append(counts)
    same, other = np.moveaxis(np.array(curves), 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = other / (same + other)
        share /= other.sum(axis=1, keepdims=True) / (same + other).sum(axis=1, keepdims=True)
    return ContactNearness(np.arange(reach + 1.0), share[0], _band(share[1:]))


def _changes(
    profiles: Profiles, a: int, grid: BorderGrid, moved: float, reach: int
) -> NDArray[np.float64]:
    """Pairs of one label and of two at each distance, [reach + 1, 2]."""
    pairs = profiles.axes[a].pairs
    length = profiles.axes[a].length
    first = grid.first[a] + moved
    start = first % grid.step[a] if moved else first
    planes = BorderGrid("", grid.step, (start, start, start)).planes(a, length)
    if pairs is None or not len(planes):
        return np.zeros((reach + 1, 2))
    edges = np.arange(1, length)
    after = np.searchsorted(planes, edges)
    neighbours = (planes[np.clip(at, 0, len(planes) - 1)] for at in (after - 1, after))
    near = np.min([abs(edges - plane) for plane in neighbours], axis=0)
    inside = near <= reach
    return np.stack(
        [
            np.bincount(near[inside], weights=pairs[edges[inside], kind], minlength=reach + 1)
            for kind in range(2)
        ],
        axis=1,
    )
