"""How long a run will take, and how much disk: one tile is timed for real. Nothing is written.

The tile is the one nearest to the middle of the volume, among a lattice of them, for which anything
is stored. What it takes is taken for all: an image that is dense in the middle and empty elsewhere
is done sooner. Tiles without stored voxels cost nothing; their share is told from the lattice.
"""

from __future__ import annotations

import itertools
import math
import time as clock
from dataclasses import dataclass

import numpy as np

from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import ZYX
from anystar_batch.stages import predict
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.image_identity import tile_content
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.task import Work, model_rays
from anystar_batch.stages.workdir import candidate_type
from anystar_batch.stars.suppress import Status

SEEN = (1 / 2, 1 / 6, 5 / 6)
"""Where along each axis tiles are looked at: the middle first."""

PATIENCE = 10.0
"""Seconds: a tile that took longer is not timed a second time without what the first one loads."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run is expected to take, by one tile of it on this machine.

    Parameters
    ----------
    seconds : float
        Of the network over all tiles that are left, and of loading it and choosing the scale.
    tile_seconds : float
        Of one tile: read, network, its suppression.
    tiles : int
        Left, and not empty.
    workers : int
        Processes that work at once.
    work_bytes : int
        Files of candidates and survivors in the work directory.
    """

    seconds: float
    tile_seconds: float
    tiles: int
    workers: int
    work_bytes: int


def estimate(work: Work, workers: int, left: int, before: float) -> Estimate | None:
    """Time one tile, and multiply.

    Parameters
    ----------
    work : Work
        Of the run; nothing of its places is touched.
    workers : int
        Processes of the run.
    left : int
        Tiles to do, over all times.
    before : float
        Seconds that the run takes before its first tile: choosing the scale.

    Returns
    -------
    Estimate or None
        None if no tile that was looked at has anything stored.
    """
    plan, reader = work.plan, ImageReader(work.plan.source)
    times = [t for t in plan.times if plan.limits_of(t) is not None]
    seen = _seen(plan)
    if not times:
        return None
    time = times[len(times) // 2]
    stored = [tile for tile in seen if tile_content(plan, reader, time, tile)]
    if not stored:
        return None
    tile = stored[0]
    began = clock.perf_counter()
    predict.load_network(work)
    loading = clock.perf_counter() - began
    seconds, kept, certain = _timed(work, reader, time, tile)
    if seconds <= PATIENCE:  # the first one has compiled the network, too
        first = seconds
        seconds, kept, certain = _timed(work, reader, time, tile)
        loading += max(0.0, first - seconds)
    tiles = round(left * len(stored) / len(seen))
    density = (kept + certain) / plan.tiles.core_box(tile).size
    record = candidate_type(
        len(model_rays(plan.model)), has_contrast=plan.filters.min_contrast is not None
    )
    voxels = math.prod(plan.working.shape) * len(plan.times) * len(stored) / len(seen)
    return Estimate(
        seconds=before + loading + tiles * seconds / workers,
        tile_seconds=seconds,
        tiles=tiles,
        workers=workers,
        work_bytes=round(density * voxels * record.itemsize),
    )


def _seen(plan: Plan) -> list[ZYX]:
    """Some tiles, from the middle of the volume outwards."""
    axes = [sorted({int(n * f) for f in SEEN}) for n in plan.tiles.counts]
    middle = [(n - 1) / 2 for n in plan.tiles.counts]
    tiles = [(z, y, x) for z, y, x in itertools.product(*axes)]
    return sorted(
        tiles, key=lambda tile: (sum((a - m) ** 2 for a, m in zip(tile, middle, strict=True)), tile)
    )


def _timed(work: Work, reader: ImageReader, time: int, tile: ZYX) -> tuple[float, int, int]:
    """Seconds of a tile; how many candidates are stored of it, and how many survive for certain."""
    began = clock.perf_counter()
    plan = work.plan
    found, _ = predict.tile_candidates(work, reader, time, tile)
    block = Block("", (tile,), plan.tiles.core_box(tile))
    task = predict.PredictTask(work, time, block, (tile,))
    kept, status = predict.judged(plan, task, {tile: found})[tile]
    if plan.filters.min_contrast is not None:
        kept = predict.with_contrasts(plan, reader, time, tile, kept)
    return clock.perf_counter() - began, len(kept), int(np.sum(status == Status.KEPT))
