"""Did the grid of blocks leave a trace in the labels? A permutation test on shifted grids.

Labels that were joined well know nothing of the grid: around its planes there are as many instances
as elsewhere, as large as elsewhere, and no more of them begin or end there. Three measures::

    density    centroids in a band of half an object around the plane
    size       their log volume against the mean of all
    cuts       boxes that begin or end at the plane, one voxel of tolerance

Each is taken as a contrast: the band less the mean of the two bands beside it, so that tissue which
thins out or grows denser along an axis says nothing. Then every plane is moved, each by a distance
of its own within its own period, many times over: what the sum over all planes says at the true
places is compared with what it says at the moved ones. No distribution is assumed. Of the three
measures the one that stands out most counts, in the true places as in the moved ones: no further
correction is needed for them. Planes move by whole steps of the candidates' lattice, which has a
period of its own.

For the eye there are density and size against the distance to the nearest border (`nearness`), with
the band that grids of the same step show which lie elsewhere.

References
----------
Random shifts instead of a model of the points: Lotwick and Silverman, JRSS B 1982,
doi:10.1111/j.2517-6161.1982.tb01221.x. The largest of several measures, with no further correction:
Nichols and Holmes, Human Brain Mapping 2002, doi:10.1002/hbm.1058. A probability is never 0, as the
true grid counts among the drawn ones: Phipson and Smyth, SAGMB 2010, doi:10.2202/1544-6115.1585,
arXiv:1603.05766.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYXFloat
from anystar_batch.report.profiles import AxisProfile, Profiles

DRAWS = 9999
"""Moved grids that the true one is compared with."""

ALPHA = 0.001
"""A trace is reported below this probability."""

MIN_INSTANCES = 50
"""Fewer say nothing."""

SEED = 20240229
"""Of the moves: the same table always gets the same answer."""

MEASURES = ("density", "size", "cuts")
"""What is compared, in this order."""

PARTS = 12
"""Distances looked at."""

FARTHEST = 3.0
"""Largest distance, in extents of an instance."""

MOVED = 200
"""Grids elsewhere."""

INSIDE = (2.5, 97.5)
"""Percentiles of them that the band spans."""


@dataclass(frozen=True, slots=True)
class BorderGrid:
    """The planes at which work was cut.

    Parameters
    ----------
    name : str
        What lies between the planes.
    step : (z, y, x)
        From plane to plane, level-0 voxels.
    first : (z, y, x)
        Edge of level 0 at which the first plane inside the volume lies.
    """

    name: str
    step: ZYXFloat
    first: ZYXFloat

    def planes(self, axis: int, length: int) -> NDArray[np.int64]:
        """Return the edges of the planes inside an axis of so many voxels."""
        count = max(0, math.ceil((length - 0.5 - self.first[axis]) / self.step[axis]))
        edges = np.rint(self.first[axis] + np.arange(count) * self.step[axis]).astype(np.int64)
        return np.asarray(edges[(edges > 0) & (edges < length)])


@dataclass(frozen=True, slots=True)
class SeamTest:
    """What one grid has left.

    Parameters
    ----------
    name : str
        Of the grid.
    planes : int
        How many could be looked at.
    p : float or None
        Probability of a contrast as strong without any trace, corrected for the number of grids;
        None where nothing can be said.
    floor : float
        The least `p` that this volume could show.
    strongest : str
        The measure that stands out most; empty without a test.
    scores : dict
        Measure to its deviation, in standard deviations of the moved grids.
    density_ratio, size_ratio, cuts_ratio : float
        At the planes over beside them: centroids, geometric mean volume, boxes that begin or end.
    why_not : str
        Why nothing can be said, in words; else empty.
    """

    name: str
    planes: int
    p: float | None
    floor: float
    strongest: str
    scores: dict[str, float]
    density_ratio: float
    size_ratio: float
    cuts_ratio: float
    why_not: str = ""

    @property
    def is_trace(self) -> bool:
        """Whether the grid left a trace."""
        return self.p is not None and self.p < ALPHA

    def to_json(self) -> dict[str, Any]:
        """Return the test as plain JSON values, without `NaN`."""
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class _Plane:
    """One plane: contrasts where it is and where it might have been.

    `contrast` is float64 [measures, positions], `home` the one at which it is; `near` and `beside`
    hold centroids, log volumes and faces in its band and in the bands beside it.
    """

    contrast: NDArray[np.float64]
    home: int
    near: NDArray[np.float64]
    beside: NDArray[np.float64]


def seam_tests(
    profiles: Profiles, grids: Sequence[BorderGrid], extent: ZYXFloat, period: ZYXFloat
) -> list[SeamTest]:
    """Test every grid for a trace.

    Parameters
    ----------
    profiles : Profiles
        The instances.
    grids : sequence of BorderGrid
        Of those with the same planes the first is tested.
    extent : (z, y, x)
        Extent of a typical instance along each axis, level-0 voxels.
    period : (z, y, x)
        Step of the lattice on which candidates lie, level-0 voxels.

    Returns
    -------
    list of SeamTest
        One a grid that has planes.
    """
    different = _different(grids, profiles.shape)
    return [_test(profiles, grid, extent, period, len(different)) for grid in different]


def _different(grids: Sequence[BorderGrid], shape: Sequence[int]) -> list[BorderGrid]:
    """The grids that have planes, each set of planes once."""
    distinct: dict[tuple[tuple[int, ...], ...], BorderGrid] = {}
    for grid in grids:
        planes = tuple(tuple(grid.planes(a, n).tolist()) for a, n in enumerate(shape))
        if any(planes):
            distinct.setdefault(planes, grid)
    return list(distinct.values())


def _test(
    profiles: Profiles, grid: BorderGrid, extent: ZYXFloat, period: ZYXFloat, num_grids: int
) -> SeamTest:
    instances = profiles.instances
    if instances < MIN_INSTANCES:
        return _untested(grid, 0, f"only {instances} instances; {MIN_INSTANCES} are needed")
    mean = sum(float(axis.log_volume.sum()) for axis in profiles.axes) / (3 * instances)
    planes = [
        plane
        for a, axis in enumerate(profiles.axes)
        for plane in _planes(axis, grid.planes(a, axis.length), mean, extent[a], period[a],
                             grid.step[a])
    ]  # fmt: skip
    if not planes:
        return _untested(grid, 0, "its planes lie too close to each other or to the border")
    combinations = math.prod(float(plane.contrast.shape[1]) for plane in planes)
    floor = min(1.0, num_grids * max(1.0 / combinations, 1.0 / (DRAWS + 1)))
    centre = sum(plane.contrast.mean(axis=1) for plane in planes)
    spread = np.sqrt(sum(plane.contrast.var(axis=1) for plane in planes))
    spread = np.where(spread > 0, spread, np.inf)
    true = (sum(plane.contrast[:, plane.home] for plane in planes) - centre) / spread
    moved = np.zeros((len(MEASURES), DRAWS))
    random = np.random.default_rng(SEED)
    for plane in planes:
        moved += plane.contrast[:, random.integers(plane.contrast.shape[1], size=DRAWS)]
    strongest = np.abs((moved - np.asarray(centre)[:, None]) / spread[:, None]).max(axis=0)
    # What differs by rounding alone is as strong.
    as_strong = int((strongest >= np.abs(true).max() * (1 - 1e-9)).sum())
    near = np.sum([plane.near for plane in planes], axis=0)
    beside = np.sum([plane.beside for plane in planes], axis=0)
    return SeamTest(
        name=grid.name,
        planes=len(planes),
        p=min(1.0, num_grids * (1 + as_strong) / (1 + DRAWS)),
        floor=floor,
        strongest=MEASURES[int(np.abs(true).argmax())],
        scores={name: round(float(z), 3) for name, z in zip(MEASURES, true, strict=True)},
        density_ratio=_ratio(near[0], beside[0]),
        size_ratio=math.exp(_ratio(near[1], near[0]) - _ratio(beside[1], beside[0])),
        cuts_ratio=_ratio(near[2], beside[2]),
    )


def _untested(grid: BorderGrid, planes: int, why: str) -> SeamTest:
    nothing = math.nan
    return SeamTest(grid.name, planes, None, 1.0, "", {}, nothing, nothing, nothing, why)


def _planes(
    axis: AxisProfile,
    edges: NDArray[np.int64],
    mean: float,
    extent: float,
    period: float,
    step: float,
) -> list[_Plane]:
    """The planes of one axis that have room on both sides, with where each might have been."""
    half = max(1, min(round(extent / 2), int(step // 4)))
    # Instances that the volume's border cuts have their centroids moved.
    margin = 3 * half + max(1, round(extent / 2))
    last = axis.length - margin
    sums = [
        np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        for values in (axis.count, axis.log_volume)
    ]
    faces = np.concatenate([[0.0], np.cumsum(axis.faces, dtype=np.float64)])
    most = int((step / 2 - 1e-9) // period)
    moves = np.unique(np.rint(np.arange(-most, most + 1) * period).astype(np.int64))

    def at(positions: NDArray[np.int64]) -> NDArray[np.float64]:
        count, logs = (s[positions + half] - s[positions - half] for s in sums)
        return np.stack([count, logs, faces[positions + 2] - faces[positions - 1]])

    planes = []
    for edge in edges:
        positions = edge + moves
        positions = positions[(positions >= margin) & (positions <= last)]
        home = int(np.searchsorted(positions, edge))
        if len(positions) < 2 or home == len(positions) or positions[home] != edge:
            continue
        near, beside = at(positions), (at(positions - 2 * half) + at(positions + 2 * half)) / 2
        contrast = near - beside
        contrast[1] -= mean * contrast[0]
        planes.append(_Plane(contrast, home, near[:, home], beside[:, home]))
    return planes


def _ratio(top: float, bottom: float) -> float:
    return float(top / bottom) if bottom else math.nan


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
