"""Did another program's grid of tiles leave a trace in its labels? One pass, then `report.seams`.

With a second volume, made of the same image with other tiles, it also says whether the two are the
same partition, and whether the objects that differ lie near the planes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.label_source import read_label_source
from anystar_batch.archive.storage.atomic_write import write_bytes_atomic
from anystar_batch.errors import ConfigError, OutputError
from anystar_batch.events import Listener, ignore
from anystar_batch.geometry import ZYX, ZYXFloat
from anystar_batch.measure.agreement import Agreement, compare
from anystar_batch.measure.extents import columns
from anystar_batch.measure.overlaps import pool
from anystar_batch.pipeline.label_survey import Survey, survey
from anystar_batch.pipeline.label_volumes import common_shape, common_times, open_labels
from anystar_batch.pipeline.tile_grid import TileGrid
from anystar_batch.report.profiles import Profiles
from anystar_batch.report.seam_figure import seam_svg
from anystar_batch.report.seams import ALPHA, BorderGrid, SeamTest, seam_tests

FEWEST_DIFFERING = 10
"""Fewer differing objects say nothing about where they lie."""

MOST_NAMED = 1000
"""Differing objects that are named, the worst first."""

NO_TRACE, TRACE, UNKNOWN = "no trace", "trace", "cannot tell"
"""What is said in the end."""


@dataclass(frozen=True, slots=True)
class SeamtestConfig:
    """What is tested.

    Parameters
    ----------
    labels : str
        Path of a label volume, see `archive.label_source`.
    grid : TileGrid or None
        Where its program cut; None: two volumes are compared and no grid is known.
    against : str or None
        A second label volume, of the same voxels.
    channel : str or None
        Index or name of the channel, where a volume has several.
    time : str
        Time points, see `parse_times`.
    alpha : float
        A trace is a probability below it.
    block_shape : (z, y, x) or None
        Voxels of a box, rounded up to whole chunks; never changes the result.
    """

    labels: str
    grid: TileGrid | None
    against: str | None = None
    channel: str | None = None
    time: str = "all"
    alpha: float = ALPHA
    block_shape: ZYX | None = None

    def __post_init__(self) -> None:
        if self.grid is None and self.against is None:
            message = (
                "--tile is missing: give the step Z Y X of the grid at which the other program "
                "cut, level-0 voxels; or --against OTHER to compare two volumes alone"
            )
            raise ConfigError(message)
        if self.block_shape is not None and any(n < 1 for n in self.block_shape):
            message = f"--block-shape: got {self.block_shape}; expected three positive numbers"
            raise ConfigError(message)
        if not 0 < self.alpha < 1:
            message = f"--alpha: got {self.alpha:g}; expected a number between 0 and 1"
            raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class Against:
    """How two volumes agree.

    Parameters
    ----------
    path : str
        The second volume.
    is_identical : bool
        Whether all voxels are equal, numbers of objects too.
    agreement : Agreement
    differing : tuple of SeamTest
        Where the objects of the first volume lie that differ.
    named : tuple of dict
        Those objects, the worst first: label, time, largest IoU, centroid (z, y, x).
    """

    path: str
    is_identical: bool
    agreement: Agreement
    differing: tuple[SeamTest, ...]
    named: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Seamtest:
    """What was found.

    Parameters
    ----------
    config : SeamtestConfig
    path : str
        The label, image or array that was read.
    shape : (z, y, x)
        Voxels of a time point.
    times : tuple of int
        Time points that are pooled.
    survey : Survey
    grids : tuple of BorderGrid
        Those that have planes.
    tests : tuple of SeamTest
        One a grid.
    against : Against or None
    """

    config: SeamtestConfig
    path: str
    shape: ZYX
    times: tuple[int, ...]
    survey: Survey
    grids: tuple[BorderGrid, ...]
    tests: tuple[SeamTest, ...]
    against: Against | None

    @property
    def p(self) -> float | None:
        """The least probability of all grids; None where nothing can be said."""
        return min((t.p for t in self.tests if t.p is not None), default=None)

    @property
    def verdict(self) -> str:
        """One of three; without a grid `NO_TRACE` means that there was nothing to look for."""
        return verdict(self.tests, self.config.alpha)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values; what does not exist is None."""
        config = self.config
        tests = [
            test.to_json() | {"contacts": contacts(self.survey.profiles, grid)}
            for test, grid in zip(self.tests, self.grids, strict=True)
        ]
        document: dict[str, Any] = {
            "labels": self.path,
            "shape": list(self.shape),
            "times": list(self.times),
            "objects": len(self.survey.objects),
            "extent_voxels": [round(v, 3) for v in self.survey.extent],
            "grid": None if config.grid is None else asdict(config.grid),
            "alpha": config.alpha,
            "verdict": None if config.grid is None else self.verdict,
            "p": self.p,
            "tests": tests,
        }
        if self.against is not None:
            differing = self.against.differing
            document["against"] = {
                "path": self.against.path,
                "identical": self.against.is_identical,
                **self.against.agreement.to_json(),
                "near_planes": [test.to_json() for test in differing],
                "near_planes_verdict": verdict(differing, config.alpha) if differing else None,
                "objects_that_differ": list(self.against.named),
            }
        return document


def verdict(tests: Sequence[SeamTest], alpha: float) -> str:
    """Return what several tests say together.

    Parameters
    ----------
    tests : sequence of SeamTest
    alpha : float
        A trace is a probability below it.
    """
    known = [test for test in tests if test.p is not None]
    if any(test.p is not None and test.p < alpha for test in known):
        return TRACE
    # Every grid must have been able to show a trace: else none was looked for there.
    can = len(known) == len(tests) and all(test.floor < alpha for test in known)
    return NO_TRACE if can else UNKNOWN


def seamtest(config: SeamtestConfig, listen: Listener = ignore) -> Seamtest:
    """Test labels for a trace of a grid.

    Parameters
    ----------
    config : SeamtestConfig
    listen : callable
        Takes events, one a box.

    Returns
    -------
    Seamtest

    Raises
    ------
    ImageError
        If a volume is not one of labels, or the two differ in shape or number of time points.
    ConfigError
        If there is no such channel or time, or no plane lies inside the volume.
    DataError
        If stored voxels cannot be read.
    """
    paths = [config.labels] if config.against is None else [config.labels, config.against]
    volumes = [read_label_source(path) for path in paths]
    shape = common_shape(volumes, 0)
    times = common_times(config.time, volumes)
    grids = () if config.grid is None else config.grid.border_grids(shape)
    period = (1.0, 1.0, 1.0) if config.grid is None else config.grid.period
    readers = open_labels(volumes, 0, config.channel)
    found = survey(readers, times, shape, config.block_shape, listen)
    tests = seam_tests(found.profiles, grids, found.extent, period)
    tested = tuple(next(g for g in grids if g.name == test.name) for test in tests)
    against = None
    if len(volumes) > 1:
        against = _against(volumes[1].path, found, grids, period)
    return Seamtest(config, volumes[0].path, shape, times, found, tested, tuple(tests), against)


def contacts(profiles: Profiles, grid: BorderGrid) -> dict[str, Any]:
    """Return what lies across the planes of a grid, and across all other edges.

    Parameters
    ----------
    profiles : Profiles
        With pairs of voxels.
    grid : BorderGrid

    Returns
    -------
    dict
        `at_planes`, `elsewhere`: pairs of voxels inside objects, and the share of them that changes
        label. `planes`: the same of each plane, the largest share first, `MOST_NAMED` at most.
    """
    planes, at, elsewhere = [], np.zeros(2, np.int64), np.zeros(2, np.int64)
    for a, axis in enumerate(profiles.axes):
        pairs = axis.pairs
        edges = grid.planes(a, axis.length)
        if pairs is None or not len(edges):
            continue
        both = pairs[:, :2]
        at += both[edges].sum(axis=0)
        elsewhere += both.sum(axis=0) - both[edges].sum(axis=0)
        planes += [{"axis": "zyx"[a], "edge": int(e), **_share(both[e])} for e in edges]
    planes.sort(key=lambda plane: -(plane["share"] or 0.0))
    return {
        "at_planes": _share(at),
        "elsewhere": _share(elsewhere),
        "planes": planes[:MOST_NAMED],
    }


def _share(pairs: NDArray[np.int64]) -> dict[str, Any]:
    same, other = int(pairs[0]), int(pairs[1])
    total = same + other
    return {"pairs": total, "change": other, "share": other / total if total else None}


def _against(path: str, found: Survey, grids: Sequence[BorderGrid], period: ZYXFloat) -> Against:
    """Compare the second volume, and look where the differing objects of the first lie."""
    agreement = compare(pool(found.shared))
    is_identical = all(bool((one.true == one.found).all()) for one in found.shared)
    differs = np.flatnonzero(agreement.iou_ours < 1)
    profiles = Profiles.empty(found.profiles.shape)
    profiles.add(columns(found.objects[differs]))
    tests = seam_tests(profiles, grids, found.extent, period, FEWEST_DIFFERING)
    worst = differs[np.argsort(agreement.iou_ours[differs], kind="stable")][:MOST_NAMED]
    places = columns(found.objects[worst])
    named = tuple(
        {
            "label": int(found.objects["label"][row]),
            "time": int(found.times[row]),
            "iou": float(agreement.iou_ours[row]),
            "centroid": [round(float(places[f"centroid_{axis}"][k]), 2) for axis in "zyx"],
        }
        for k, row in enumerate(worst)
    )
    return Against(path, is_identical, agreement, tuple(tests), named)


def draw(found: Seamtest, path: Path) -> None:
    """Write a picture of the grid that stands out most, SVG.

    Parameters
    ----------
    found : Seamtest
    path : Path

    Raises
    ------
    ConfigError
        If there is no grid to draw.
    OutputError
        If the file cannot be written.
    """
    if not found.tests:
        message = "--figure: there is no grid to draw; give --tile Z Y X"
        raise ConfigError(message)
    ranked = sorted(
        zip(found.tests, found.grids, strict=True),
        key=lambda one: math.inf if one[0].p is None else one[0].p,
    )
    survey = found.survey
    drawn = seam_svg(survey.profiles, ranked[0][1], survey.extent, found.verdict)
    try:
        write_bytes_atomic(path, drawn.encode())
    except OSError as error:
        message = f"--figure: {path} cannot be written ({error.strerror or error})"
        raise OutputError(error.errno, message) from error
