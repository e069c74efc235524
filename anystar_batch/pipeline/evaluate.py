"""Score one label volume against a true one, box by box.

Both volumes are read in the same boxes: whole chunks of LABELS. A box becomes a table of shared
voxels (`measure.matching`), and the tables are merged; besides one box only sizes and pairs of
objects are held: 24 bytes for every pair that touches, some 200 while they are scored. So the
volumes may be larger than memory, and the boxes cannot change the result.

Time points are volumes of their own, matched one by one; their objects are pooled in one score.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.label_source import LabelSource, read_label_source
from anystar_batch.errors import ConfigError
from anystar_batch.events import BlockDone, Listener, Note, StageStarted, ignore, timed_stage
from anystar_batch.geometry import ZYX, ZYXFloat
from anystar_batch.measure import matching
from anystar_batch.pipeline.label_volumes import (
    BLOCK_SHAPE,
    LabelReader,
    common_shape,
    common_times,
    open_labels,
)
from anystar_batch.stages.blocks import Blocks, plan_blocks, units_per_block

VOLUME_IOUS = (0.1, 0.5)
"""Pairs matched at these thresholds give the volume ratios."""

SAME_SCALE = 1e-3
"""Relative difference of voxel sizes that is rounding."""


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What is scored against what.

    Parameters
    ----------
    labels, truth : str
        Paths of label volumes, see `archive.label_source`.
    level : int
        Level of both.
    channel : str or None
        Index or name of the channel, where a volume has several.
    time : str
        Time points, see `parse_times`.
    block_shape : (z, y, x) or None
        Voxels of a box, rounded up to whole chunks of LABELS; never changes the result.
    """

    labels: str
    truth: str
    level: int = 0
    channel: str | None = None
    time: str = "all"
    block_shape: ZYX | None = None

    def __post_init__(self) -> None:
        if self.level < 0:
            message = f"--level: got {self.level}; expected 0 (full resolution) or above"
            raise ConfigError(message)
        if self.block_shape is not None and any(n < 1 for n in self.block_shape):
            message = f"--block-shape: got {self.block_shape}; expected three positive numbers"
            raise ConfigError(message)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Scores of a label volume.

    Parameters
    ----------
    labels, truth : str
        What was read.
    level : int
    shape : (z, y, x)
        Voxels of a time point.
    times : tuple of int
        Time points that are pooled.
    voxel_um : (z, y, x) or None
        Voxel size, micrometres; None where neither volume has one.
    overlaps : Overlaps
        Of all time points.
    scores : tuple of Score
        At every threshold of `matching.IOUS`.
    warnings : tuple of str
    """

    labels: str
    truth: str
    level: int
    shape: ZYX
    times: tuple[int, ...]
    voxel_um: ZYXFloat | None
    overlaps: matching.Overlaps
    scores: tuple[matching.Score, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values; what does not exist is None."""
        n_true, n_found = self.scores[0].n_true, self.scores[0].n_found
        unit = None if self.voxel_um is None else math.prod(self.voxel_um)
        sizes = {
            "true": self.overlaps.true_objects().voxels,
            "found": self.overlaps.found_objects().voxels,
        }
        return {
            "labels": self.labels,
            "truth": self.truth,
            "level": self.level,
            "shape": list(self.shape),
            "times": list(self.times),
            "voxel_um": None if self.voxel_um is None else list(self.voxel_um),
            "true": n_true,
            "found": n_found,
            "count_error": n_found - n_true,
            "count_error_relative": (n_found - n_true) / n_true if n_true else None,
            "median_diameter_voxels": {k: _diameter(v, 1.0) for k, v in sizes.items()},
            "median_diameter_um": {k: _diameter(v, unit) for k, v in sizes.items()},
            "splits": matching.splits(self.overlaps),
            "merges": matching.merges(self.overlaps),
            "volume_ratio": [
                {
                    "iou": score.iou,
                    "pairs": score.tp,
                    "median": float(np.median(score.volume_ratios)) if score.tp else None,
                    "mean": float(np.mean(score.volume_ratios)) if score.tp else None,
                }
                for score in self.scores
                if score.iou in VOLUME_IOUS
            ],
            "scores": [score.to_json() for score in self.scores],
            "warnings": list(self.warnings),
        }


def evaluate(config: EvaluateConfig, listen: Listener = ignore) -> Evaluation:
    """Score a label volume.

    Parameters
    ----------
    config : EvaluateConfig
    listen : callable
        Takes events: one a box, and warnings.

    Returns
    -------
    Evaluation

    Raises
    ------
    ImageError
        If a volume is not one of labels, or the two differ in shape or number of time points.
    ConfigError
        If there is no such level, channel or time.
    DataError
        If stored voxels cannot be read.
    """
    labels, truth = read_label_source(config.labels), read_label_source(config.truth)
    shape = common_shape((labels, truth), config.level)
    times = common_times(config.time, (labels, truth))
    readers = open_labels((labels, truth), config.level, config.channel)
    voxel_um, warnings = _voxel_um(config.level, labels, truth)
    for warning in warnings:
        listen(Note(warning, is_warning=True))
    unit = labels.source.chunks_zyx(config.level)
    block_shape = config.block_shape or BLOCK_SHAPE
    blocks = plan_blocks(shape, unit, units_per_block(block_shape, unit))
    mine, theirs = readers
    with timed_stage(listen, StageStarted("compare", len(blocks) * len(times))):
        overlaps = matching.pool(
            matching.merge(_tables(mine, theirs, blocks, at, listen)) for at in times
        )
        scores = matching.scores(overlaps)
    return Evaluation(
        labels=labels.path,
        truth=truth.path,
        level=config.level,
        shape=shape,
        times=times,
        voxel_um=voxel_um,
        overlaps=overlaps,
        scores=scores,
        warnings=warnings,
    )


def _tables(
    labels: LabelReader, truth: LabelReader, blocks: Blocks, at: int, listen: Listener
) -> Iterator[matching.Overlaps]:
    """Yield the table of every box of one time point."""
    for block in blocks:
        started = time.monotonic()
        yield matching.match(truth.read_box(at, block.box), labels.read_box(at, block.box))
        listen(BlockDone("compare", f"{at}/{block.name}", time.monotonic() - started))


def _voxel_um(
    level: int, labels: LabelSource, truth: LabelSource
) -> tuple[ZYXFloat | None, tuple[str, ...]]:
    """Return the voxel size, TRUTH's if it has one, and a warning where the two differ."""
    scales = [v.source.scale_um(level) for v in (truth, labels) if v.has_scale]
    if not scales:
        return None, ()
    if all(
        math.isclose(a, b, rel_tol=SAME_SCALE) for a, b in zip(scales[0], scales[-1], strict=True)
    ):
        return scales[0], ()
    mine, theirs = (" x ".join(f"{v:.4g}" for v in scale) for scale in scales[::-1])
    warning = (
        f"voxel sizes differ: {labels.path} has {mine} um (z, y, x), {truth.path} {theirs} um; "
        "voxels are compared one to one, and diameters are in voxels of the truth: check that "
        "both show the same volume"
    )
    return scales[0], (warning,)


def _diameter(voxels: NDArray[np.int64], unit: float | None) -> float | None:
    """Return the diameter of the sphere with the median object's volume."""
    if unit is None or len(voxels) == 0:
        return None
    return float(np.cbrt(6.0 * float(np.median(voxels)) * unit / np.pi))
