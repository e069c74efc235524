"""A dry run: what a run would do, how long it takes, whether there is anything to do.

Nothing is written. One tile is timed for real: the one nearest to the middle of the volume, among a
lattice of them, for which anything is stored. What it takes is taken for all: an image that is
dense in the middle and empty elsewhere is done sooner. Tiles without stored voxels cost nothing;
their share is told from the lattice.
"""

from __future__ import annotations

import itertools
import math
import shutil
import sys
import time as clock
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.address import is_remote
from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.labels import published_attributes
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.files import nearest
from anystar_batch.config import SegmentConfig
from anystar_batch.engine.engines import block_threads, natural_workers, threads_per_worker
from anystar_batch.errors import OutputExistsError, shorten
from anystar_batch.events import Hearing
from anystar_batch.geometry import ZYX, as_zyx
from anystar_batch.network.model import Model
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.pipeline import publish
from anystar_batch.pipeline.candidate_sets import check_place, open_store, probe_tiles
from anystar_batch.pipeline.output_checks import check_permissions
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.pipeline.prepare import check_network, decide, request, resources
from anystar_batch.pipeline.run_record import NOTHING_TO_DO
from anystar_batch.pipeline.star_outputs import ADD_STARS, lacks_stars
from anystar_batch.stages import predict
from anystar_batch.stages.blocks import (
    PROCESS_BYTES,
    Block,
    block_bytes,
    block_shape,
    network_bytes,
    units_per_block,
)
from anystar_batch.stages.image_identity import tile_content
from anystar_batch.stages.ledger import Ledger
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.raw_tile import kind_of
from anystar_batch.stages.region_survey import block_cells, wanted_tiles
from anystar_batch.stages.task import Work, model_rays, spec_of
from anystar_batch.stages.workdir import candidate_type
from anystar_batch.stars.suppress import Status

SEEN = (1 / 2, 1 / 6, 5 / 6)
"""Where along each axis tiles are looked at: the middle first."""

PATIENCE = 10.0
"""Seconds: a tile that took longer is not timed a second time without what the first one loads."""


def preview(
    config: SegmentConfig,
    factory: PredictorFactory | None = None,
    model: Model | None = None,
) -> Preview:
    """Decide everything and do nothing: read, probe, plan; write no file.

    Parameters
    ----------
    config : SegmentConfig
        What is wanted.
    factory : PredictorFactory, optional
        Makes the network, for the probe; None is the model's own, under Keras.
    model : Model, optional
        Instead of the one that `config.model` names.

    Raises
    ------
    AnyStarBatchError
        Whatever would stop the run before work starts.
    """
    requested = request(config, model, factory)
    outputs = requested.outputs
    check_permissions(outputs)
    before = publish.published(config, outputs, requested.digest, requested.parts)
    check_network(requested.factory)
    listen = Hearing()
    check_place(config, outputs)
    store = open_store(outputs)
    plan = decide(requested, None, listen, probe_tiles(store, requested.parts))
    spec = spec_of(requested.source)
    memory, gpus = resources(config)
    workers = config.run.workers or natural_workers(memory, len(gpus))
    unit = spec.write_unit_zyx(0)
    threads, asked = block_threads(workers), config.run.block_shape
    shape = block_shape(plan, memory, workers, unit, threads, asked)
    groups = units_per_block(shape, plan.tiles.core, plan.lattice.scale)
    counts = plan.tiles.counts
    sizes = [int(np.prod(info.shape, dtype=np.int64)) * 4 for info in spec.arrays]
    exists = files.exists(outputs.label.path)
    wanted = [wanted_tiles(plan, time) for time in plan.times]
    tiles = sum(int(np.count_nonzero(one)) for one in wanted)
    done = Ledger.count_in(Path(outputs.work), requested.digest, "predict")
    done = 0 if config.run.restart else min(done, tiles)
    kind = kind_of(requested.parts, plan)
    stored = min(store.count(kind, plan.times, plan.prob_thresh), tiles - done)
    estimated, status = None, "replace" if exists else "new"
    if before is not None:
        status = ADD_STARS if lacks_stars(config, outputs) else NOTHING_TO_DO
    if status != NOTHING_TO_DO and (stored == 0 or stored < tiles - done):
        work = Work(plan, "", "", requested.factory, threads_per_worker(workers))
        estimated = estimate(work, workers, tiles - done - stored, sum(listen.seconds.values()))
    return Preview(
        plan=plan,
        status=status,
        outputs=outputs,
        block_shape=shape,
        blocks=sum(len(np.unique(np.argwhere(one) // groups, axis=0)) for one in wanted),
        tiles=tiles,
        tiles_outside=int(np.prod(counts)) * len(plan.times) - tiles,
        label_bytes=sum(sizes),
        tile_bytes=network_bytes(plan),
        block_bytes=block_bytes(plan, shape),
        tiles_done=done,
        tiles_stored=stored,
        estimate=estimated,
        free_bytes=min(
            _free(path) for path in (outputs.folder, outputs.label.parent, outputs.work)
        ),
        warnings=tuple(listen.warnings),
    )


def _free(path: str) -> int:
    """Free bytes of the disk on which a path lies, or would; no end of them in object stores."""
    return sys.maxsize if is_remote(path) else shutil.disk_usage(nearest(path)).free


class Standing(StrEnum):
    """What a run over an image would meet."""

    WANTED = "wanted"
    CURRENT = "current"
    OTHER = "other"


def standing(config: SegmentConfig, model: Model | None = None) -> tuple[Standing, str]:
    """Say whether an image has the very label that a run would make; reads what `request` does.

    Parameters
    ----------
    config : SegmentConfig
        What is wanted; `overwrite` is not looked at.
    model : Model, optional
        Instead of the one that `config.model` names.

    Returns
    -------
    Standing
        `CURRENT` if a run would do nothing at all; `OTHER` if another label or table has the place;
        else `WANTED`, also where only the end of a run that was cut short is missing.
    text
        Why it is another, or what is missing beside a current one; else empty.

    Raises
    ------
    AnyStarBatchError
        If it is no image that can be segmented.
    """
    config = replace(config, run=replace(config.run, overwrite=False))
    requested = request(config, model)
    outputs, digest = requested.outputs, requested.digest
    is_there = published_attributes(outputs.label) is not None
    if is_there and not files.exists(outputs.label.path):
        return Standing.WANTED, ""  # cut short while it was replaced: a run recovers it
    try:
        before = publish.published(config, outputs, digest, requested.parts)
    except OutputExistsError as error:
        return Standing.OTHER, str(error)
    if before is None or lacks_stars(config, outputs):
        return Standing.WANTED, ""
    if publish.is_cut_short(outputs, digest) or publish.is_spent(outputs, digest):
        return Standing.WANTED, ""
    text = "" if files.exists(outputs.stats) else f"its table {outputs.stats} is missing"
    return Standing.CURRENT, text


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
    times = [t for t in times if wanted_tiles(plan, t).any()]
    if not times:
        return None
    time = times[len(times) // 2]
    seen = _seen(plan, time)
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
    further = ["contrast"] if plan.filters.min_contrast is not None else []
    record = candidate_type(len(model_rays(plan.model)), further)
    wanted = float(np.mean([wanted_tiles(plan, t).mean() for t in plan.times]))
    voxels = math.prod(plan.working.shape) * len(plan.times) * wanted * len(stored) / len(seen)
    return Estimate(
        seconds=before + loading + tiles * seconds / workers,
        tile_seconds=seconds,
        tiles=tiles,
        workers=workers,
        work_bytes=round(density * voxels * record.itemsize),
    )


def _seen(plan: Plan, time: int) -> list[ZYX]:
    """Some tiles, from the middle of the volume outwards; with a region some near it, by index."""
    if plan.region is not None:
        near = np.argwhere(wanted_tiles(plan, time))
        some = range(0, len(near), -(-len(near) // len(SEEN) ** 3))
        return [as_zyx(near[k]) for k in sorted(some, key=lambda k: abs(2 * k - len(near)))]
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
    candidates, _ = predict.tile_candidates(work, reader, time, tile)
    block = Block("", (tile,), plan.tiles.core_box(tile))
    cells = None if plan.region is None else block_cells(plan, time, block.box)
    candidates = predict.counting(plan, cells, candidates)
    task = predict.PredictTask(work, time, block, (tile,))
    kept, status = predict.judged(plan, task, {tile: candidates})[tile]
    if plan.filters.min_contrast is not None:
        kept = predict.with_contrasts(plan, reader, time, tile, kept)
    return clock.perf_counter() - began, len(kept), int(np.sum(status == Status.KEPT))


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: the answer of a dry run.

    Parameters
    ----------
    plan : Plan
        What was decided.
    status : str
        `new`, `replace` where a published label would make room, `add stars` to one that is there,
        or `nothing to do`.
    block_shape : (z, y, x)
        Level-0 voxels of a block.
    blocks : int
        Blocks of tiles over all times.
    tiles : int
        Tiles over all times; with a region those near it, which are looked at.
    label_bytes : int
        Uncompressed size of the label's levels.
    tile_bytes, block_bytes : int
        Memory of the network for one tile, and of a block besides.
    outputs : Outputs
        Where results would go.
    tiles_done : int
        Of the tiles: those that an unfinished run has done.
    tiles_stored : int
        Of the others: those whose candidates an earlier run has kept.
    tiles_outside : int
        Tiles that are not looked at, since they lie outside of the region.
    estimate : Estimate or None
        What one tile took; None where there is nothing to do, or no tile with anything stored.
    free_bytes : int
        Of the fuller of the disks on which work and results lie; object stores do not count.
    warnings : tuple of str
        What a run would warn of before its first tile.
    """

    plan: Plan
    status: str
    block_shape: ZYX
    blocks: int
    tiles: int
    label_bytes: int
    tile_bytes: int
    block_bytes: int
    outputs: Outputs
    tiles_done: int = 0
    tiles_stored: int = 0
    tiles_outside: int = 0
    estimate: Estimate | None = None
    free_bytes: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def channel(self) -> str:
        """Index and name of the channel, as `1 (GFP)`."""
        name = self.plan.source.channels[self.plan.channel]
        return f"{self.plan.channel} ({shorten(name)})"

    def to_json(self) -> dict[str, Any]:
        """Return the preview as plain JSON values."""
        estimate = self.estimate
        return {
            "image": self.plan.source.path,
            "label": self.outputs.label.path,
            "stats": self.outputs.stats,
            "status": self.status,
            "channel": self.channel,
            "plan": self.plan.to_json(),
            "block_shape": list(self.block_shape),
            "blocks": self.blocks,
            "tiles": self.tiles,
            "label_bytes_uncompressed": self.label_bytes,
            "memory_per_worker": self.tile_bytes + self.block_bytes + PROCESS_BYTES,
            "tiles_outside": self.tiles_outside,
            "tiles_done": self.tiles_done,
            "tiles_stored": self.tiles_stored,
            "seconds": None if estimate is None else round(estimate.seconds, 1),
            "tile_seconds": None if estimate is None else round(estimate.tile_seconds, 4),
            "workers": None if estimate is None else estimate.workers,
            "work_bytes": None if estimate is None else estimate.work_bytes,
            "free_bytes": self.free_bytes,
            "warnings": list(self.warnings),
        }
