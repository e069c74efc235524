"""Does the installation work? Segment a phantom with known truth in two ways, and check everything.

The first thing to run in a new container or on a new machine: it goes through reading, network,
suppression, painting, pyramid and table, and compares one block with many.
"""

from __future__ import annotations

import csv
import importlib
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.errors import OutputError
from anystar_batch.events import Listener
from anystar_batch.geometry import Box
from anystar_batch.measure.matching import scores
from anystar_batch.measure.overlaps import match
from anystar_batch.network.devices import natural_precision
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.demo import Phantom, phantom, write_example
from anystar_batch.pipeline.run_record import Summary
from anystar_batch.pipeline.segment import segment

COUNT_TOLERANCE = 0.05
"""Largest error of the number of instances, relative."""

LEAST_RECALL = 0.9
"""Least share of the true objects that an instance must match at an IoU of 0.5."""

MANY_BLOCKS = (64, 64, 64)
"""Blocks of the second run, level-0 voxels: every third object lies across a border."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
    is_passed : bool
    found : str
        What was found, in words.
    """

    name: str
    is_passed: bool
    found: str


@dataclass(frozen=True, slots=True)
class Selftest:
    """What was found.

    Parameters
    ----------
    checks : tuple of Check
    devices : tuple of str
        What the network ran on.
    backend, precision : str
        How it ran.
    voxels_per_second : float
        Voxels of level 0 through the network, model loaded; wall time.
    peak_memory : int
        Bytes of this process and its children.
    versions : dict
        Of Python and of the packages that decide.
    """

    checks: tuple[Check, ...]
    devices: tuple[str, ...]
    backend: str
    precision: str
    voxels_per_second: float
    peak_memory: int
    versions: dict[str, str]

    @property
    def is_passed(self) -> bool:
        """Whether every check passed."""
        return all(check.is_passed for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """Return everything as plain JSON values."""
        return {"is_passed": self.is_passed, **asdict(self)}


def run_selftest(
    folder: Path,
    on_event: Listener,
    *,
    model: str = "anystar-mix",
    backend: str = "tensorflow",
    precision: str = "auto",
    factory: PredictorFactory | None = None,
) -> Selftest:
    """Make a phantom, segment it as one block and as many, and check what comes out.

    Parameters
    ----------
    folder : Path
        Where to work; empty, or not there yet.
    on_event : callable
        Told of every stage.
    model, backend, precision : str
        As of a run.
    factory : PredictorFactory, optional
        Makes the network; None is the model's own.

    Returns
    -------
    Selftest

    Raises
    ------
    OutputError
        If the folder cannot be written or is not empty.
    """
    _check_empty(folder)
    made = phantom()
    image = folder / "phantom.ome.zarr"
    write_example(image, made.image, made.voxel_um)
    diameter = Quantity(made.diameter_um, "um")
    result = ResultConfig(diameter=diameter, backend=backend, precision=precision)
    runs = {}
    for label, block_shape in (("whole", made.image.shape), ("blocks", MANY_BLOCKS)):
        config = SegmentConfig(
            image=str(image.absolute()),
            model=model,
            label=label,
            result=result,
            run=RunConfig(
                block_shape=(block_shape[0], block_shape[1], block_shape[2]), report=False
            ),
        )
        runs[label] = segment(config, on_event, factory=factory)
    labels = {name: _read(summary) for name, summary in runs.items()}
    return Selftest(
        checks=(
            *_against_truth(made, labels["whole"]),
            _seams(runs, labels),
            _table(runs["whole"], labels["whole"]),
        ),
        devices=_devices(backend),
        backend=backend,
        precision=natural_precision(backend) if precision == "auto" else precision,
        # The first run has loaded the network and compiled.
        voxels_per_second=runs["blocks"].voxels / runs["blocks"].seconds["predict"],
        peak_memory=max(summary.peak_memory for summary in runs.values()),
        versions=_versions(backend),
    )


def _check_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        message = f"{folder}: cannot be written ({error.strerror}); give another folder"
        raise OutputError(error.errno, message) from error
    if not is_empty:
        message = f"{folder}: not empty; give a new folder"
        raise OutputError(message)


def _read(summary: Summary) -> np.ndarray:
    reader = ImageReader(read_image(summary.label))
    return reader.read_box(0, 0, 0, Box.of_shape(reader.source.shape_zyx(0)))


def _against_truth(made: Phantom, labels: np.ndarray) -> tuple[Check, Check]:
    """Count, and the share of the true objects that were found."""
    (score,) = scores(match(made.labels, labels), (0.5,))
    off = abs(score.n_found - score.n_true)
    return (
        Check(
            "count",
            off <= COUNT_TOLERANCE * score.n_true,
            f"{score.n_found} instances of {score.n_true} objects",
        ),
        Check(
            "outlines",
            score.tp >= LEAST_RECALL * score.n_true,
            f"{score.tp} of {score.n_true} objects matched at an IoU of 0.5",
        ),
    )


def _seams(runs: dict[str, Summary], labels: dict[str, np.ndarray]) -> Check:
    """One block and many give the same voxels and the same table."""
    differing = int(np.count_nonzero(labels["whole"] != labels["blocks"]))
    same_table = len({Path(summary.stats).read_bytes() for summary in runs.values()}) == 1
    said = f"{differing} voxels differ between one block and blocks of 64"
    return Check(
        "seams",
        differing == 0 and same_table,
        said + ("" if same_table else "; their tables differ"),
    )


def _table(summary: Summary, labels: np.ndarray) -> Check:
    """The table names every label once and counts its voxels."""
    with Path(summary.stats).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = np.bincount(labels.ravel(), minlength=len(rows) + 1)
    is_right = [int(row["label"]) for row in rows] == list(range(1, len(counts))) and [
        int(row["num_voxels"]) for row in rows
    ] == counts[1:].tolist()
    said = "as many voxels each as the label" if is_right else "not those of the label"
    return Check("table", is_right, f"{len(rows)} rows, {said}")


def _devices(backend: str) -> tuple[str, ...]:
    """What the backend computes on; it is loaded already."""
    if backend == "jax":
        jax = importlib.import_module("jax")
        return tuple(f"{d.platform} {d.device_kind}" for d in jax.devices())
    config = importlib.import_module("tensorflow").config
    gpus = [
        config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in config.list_physical_devices("GPU")
    ]
    return tuple(f"gpu {name}" for name in gpus) or (f"cpu {platform.machine()}",)


def _versions(backend: str) -> dict[str, str]:
    names = ("anystar_batch", "keras", backend, "zarr", "dask", "numba", "numpy")
    by_package = {name: str(importlib.import_module(name).__version__) for name in names}
    return {"python": platform.python_version(), **by_package}
