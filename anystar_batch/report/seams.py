"""Did the grid of blocks leave a trace in the labels? A permutation test on shifted grids.

Labels that were joined well know nothing of the grid: around its planes there are as many instances
as elsewhere, as large as elsewhere, and no more of them begin or end there. The measures::

    density    centroids in a band of half an object around the plane
    size       their log volume against the mean of all
    cuts       boxes that begin or end at the plane, one voxel of tolerance
    contacts   pairs of voxels of two objects across the plane itself; where voxels were read

Each is taken as a contrast: the band less the mean of the two bands beside it, so that tissue which
thins out or grows denser along an axis says nothing. Then every plane is moved, each by a distance
of its own within its own period, many times over: what the sum over all planes says at the true
places is compared with what it says at the moved ones (at all that there are, where these are few).
No distribution is assumed. Of the measures the one that stands out most counts, in the true places
as in the moved ones: no further correction is needed for them. Planes move by whole steps of the
candidates' lattice, which has a period of its own. Labels that were enlarged change at some edges
only; they are tested on these, the edges of the voxels that they had before.

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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYXFloat
from anystar_batch.report.profiles import AxisProfile, Profiles, own_edges

DRAWS = 9999
"""Moved grids that the true one is compared with."""

ALPHA = 0.001
"""A trace is reported below this probability."""

MIN_INSTANCES = 50
"""Fewer say nothing."""

SEED = 20240229
"""Of the moves: the same table always gets the same answer."""

MEASURES = ("density", "size", "cuts", "contacts")
"""What is compared, in this order; the last where voxels were read."""

OTHER = 1
"""Pairs of two objects, among `measure.contacts.KINDS`."""


Sums = NDArray[np.float64]


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
    contacts_ratio : float or None
        The same of contacts; None where they were not counted.
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
    contacts_ratio: float | None = None

    @property
    def is_trace(self) -> bool:
        """Whether the grid left a trace."""
        return self.p is not None and self.p < ALPHA

    def to_json(self) -> dict[str, Any]:
        """Return the test as plain JSON values, without `NaN`."""
        values = asdict(self)
        if self.contacts_ratio is None:
            del values["contacts_ratio"]
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in values.items()
        }


@dataclass(frozen=True, slots=True)
class _Plane:
    """One plane: contrasts where it is and where it might have been.

    `contrast` is float64 [measures, positions], `home` the one at which it is; `near` and `beside`
    hold centroids, log volumes, faces, and contacts if counted, in its band and beside it.
    """

    contrast: NDArray[np.float64]
    home: int
    near: NDArray[np.float64]
    beside: NDArray[np.float64]


def seam_tests(
    profiles: Profiles,
    grids: Sequence[BorderGrid],
    extent: ZYXFloat,
    period: ZYXFloat,
    least: int = MIN_INSTANCES,
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
    least : int
        Fewer instances are not tested.

    Returns
    -------
    list of SeamTest
        One a grid that has planes.
    """
    different = _different(grids, profiles.shape)
    if profiles.instances < least:
        why = f"only {profiles.instances} instances; {least} are needed"
        return [_untested(grid, why) for grid in different]
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
    mean = sum(float(axis.log_volume.sum()) for axis in profiles.axes) / (3 * profiles.instances)
    planes = [
        plane for a in range(3) for plane in _axis_planes(profiles, a, grid, mean, extent, period)
    ]
    if not planes:
        return _untested(grid, "its planes lie too close to each other or to the border")
    combinations = math.prod(float(plane.contrast.shape[1]) for plane in planes)
    floor = min(1.0, num_grids * max(1.0 / combinations, 1.0 / (DRAWS + 1)))
    centre = sum(plane.contrast.mean(axis=1) for plane in planes)
    spread = np.sqrt(sum(plane.contrast.var(axis=1) for plane in planes))
    spread = np.where(spread > 0, spread, np.inf)
    true = (sum(plane.contrast[:, plane.home] for plane in planes) - centre) / spread
    is_every = combinations <= DRAWS
    moved = _moved(planes, int(combinations) if is_every else None)
    strongest = np.abs((moved - np.asarray(centre)[:, None]) / spread[:, None]).max(axis=0)
    # What differs by rounding alone is as strong.
    as_strong = int((strongest >= np.abs(true).max() * (1 - 1e-9)).sum())
    p = as_strong / combinations if is_every else (1 + as_strong) / (1 + DRAWS)
    near = np.sum([plane.near for plane in planes], axis=0)
    beside = np.sum([plane.beside for plane in planes], axis=0)
    return SeamTest(
        name=grid.name,
        planes=len(planes),
        p=min(1.0, num_grids * p),
        floor=floor,
        strongest=MEASURES[int(np.abs(true).argmax())],
        scores={name: round(float(z), 3) for name, z in zip(MEASURES, true, strict=False)},
        density_ratio=_ratio(near[0], beside[0]),
        size_ratio=math.exp(_ratio(near[1], near[0]) - _ratio(beside[1], beside[0])),
        cuts_ratio=_ratio(near[2], beside[2]),
        contacts_ratio=_ratio(near[3], beside[3]) if len(true) == len(MEASURES) else None,
    )


def _moved(planes: list[_Plane], every: int | None) -> Sums:
    """Sums over planes that were moved, [measures, grids]: drawn, or all so many that there are."""
    sizes = [plane.contrast.shape[1] for plane in planes]
    random = np.random.default_rng(SEED)
    picks: Sequence[NDArray[np.int64]] = (
        [random.integers(size, size=DRAWS) for size in sizes]
        if every is None
        else np.unravel_index(np.arange(every), sizes)
    )
    shape = (len(planes[0].contrast), DRAWS if every is None else every)
    moved = np.zeros(shape)
    for plane, pick in zip(planes, picks, strict=True):
        moved += plane.contrast[:, pick]
    return moved


def _untested(grid: BorderGrid, why: str) -> SeamTest:
    nothing = math.nan
    return SeamTest(grid.name, 0, None, 1.0, "", {}, nothing, nothing, nothing, why)


def _axis_planes(
    profiles: Profiles, a: int, grid: BorderGrid, mean: float, extent: ZYXFloat, period: ZYXFloat
) -> list[_Plane]:
    """The planes of one axis, of labels that were enlarged on the edges that they had before."""
    axis, factor = profiles.axes[a], 1.0
    edges = grid.planes(a, axis.length)
    own = own_edges(axis) if len(edges) else None
    if own is not None:
        factor = axis.length / (len(own) - 1)
        after = np.searchsorted(own, edges).clip(1, len(own) - 1)
        edges = np.unique(after - (edges - own[after - 1] < own[after] - edges))
        axis = axis.on_edges(own)
    return _planes(
        axis, edges, mean, extent[a] / factor, max(1.0, period[a] / factor), grid.step[a] / factor
    )


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
    measured = _measures(axis, half)
    most = int((step / 2 - 1e-9) // period)
    moves = np.unique(np.rint(np.arange(-most, most + 1) * period).astype(np.int64))
    planes = []
    for edge in edges:
        positions = edge + moves
        positions = positions[(positions >= margin) & (positions <= last)]
        home = int(np.searchsorted(positions, edge))
        if len(positions) < 2 or home == len(positions) or positions[home] != edge:
            continue
        near, beside = measured(positions)
        contrast = near - beside
        contrast[1] -= mean * contrast[0]
        planes.append(_Plane(contrast, home, near[:, home], beside[:, home]))
    return planes


def _measures(axis: AxisProfile, half: int) -> Callable[[NDArray[np.int64]], tuple[Sums, Sums]]:
    """What tells the measures at planes and beside them, each [measures, planes]."""

    def summed(values: NDArray[Any]) -> Sums:
        return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])

    bands = [summed(axis.count), summed(axis.log_volume)]
    faces = summed(axis.faces)
    contacts = None if axis.pairs is None else summed(axis.pairs[:, OTHER])

    def at(positions: NDArray[np.int64]) -> Sums:
        count, logs = (s[positions + half] - s[positions - half] for s in bands)
        return np.stack([count, logs, faces[positions + 2] - faces[positions - 1]])

    def both(positions: NDArray[np.int64]) -> tuple[Sums, Sums]:
        near, beside = at(positions), (at(positions - 2 * half) + at(positions + 2 * half)) / 2
        if contacts is None:
            return near, beside
        # A cut lies in the plane exactly; beside it all edges of both bands are taken.
        low, high = positions - 3 * half, positions + half
        wide = sum(contacts[b + 2 * half + 1] - contacts[b] for b in (low, high))
        across = contacts[positions + 1] - contacts[positions]
        return np.vstack([near, across]), np.vstack([beside, wide / (4 * half + 2)])

    return both


def _ratio(top: float, bottom: float) -> float:
    return float(top / bottom) if bottom else math.nan
