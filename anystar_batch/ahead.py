"""Before a run: what it would do, and whether there is anything to do. Nothing is written."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from anystar_batch import holding, publication
from anystar_batch.address import is_remote
from anystar_batch.archive.labels import published_attributes
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.files import nearest
from anystar_batch.config import SegmentConfig
from anystar_batch.deciding import check_network, decide, settle
from anystar_batch.engine.engines import block_threads, natural_workers, threads_per_worker
from anystar_batch.engine.machine import available_memory
from anystar_batch.errors import OutputExistsError
from anystar_batch.estimate import estimate
from anystar_batch.events import Event, StageDone
from anystar_batch.geometry import grid_shape
from anystar_batch.network.bundled import Model
from anystar_batch.network.devices import gpu_names
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.record import NOTHING_TO_DO, Preview
from anystar_batch.stages.blocks import block_bytes, block_shape, network_bytes, units_per_block
from anystar_batch.stages.ledger import Ledger
from anystar_batch.stages.task import Work, spec_of


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
    wanted = settle(config, model, factory)
    places = wanted.places
    holding.check_permissions(places)
    before = publication.published(config, places, wanted.digest)
    check_network(wanted.factory)
    probing = 0.0

    def listen(event: Event) -> None:
        nonlocal probing
        if isinstance(event, StageDone):
            probing += event.seconds

    plan = decide(wanted, None, listen)
    spec = spec_of(wanted.source)
    memory = config.run.memory if config.run.memory is not None else available_memory()
    gpus = gpu_names(config.result.backend)
    workers = config.run.workers or natural_workers(memory, len(gpus))
    unit = spec.write_unit_zyx(0)
    shape = block_shape(config, plan, unit, memory, workers, block_threads(workers))
    groups = units_per_block(shape, plan.tiles.core, plan.lattice.scale)
    counts = plan.tiles.counts
    sizes = [int(np.prod(info.shape, dtype=np.int64)) * 4 for info in spec.arrays]
    exists = files.exists(places.label.path)
    tiles = int(np.prod(counts)) * len(plan.times)
    done = Ledger.count_in(Path(places.work), wanted.digest, "predict")
    done = 0 if config.run.restart else min(done, tiles)
    known = None
    if before is None:
        work = Work(plan, "", "", wanted.factory, threads_per_worker(workers))
        known = estimate(work, workers, tiles - done, probing)
    return Preview(
        plan=plan,
        status=NOTHING_TO_DO if before is not None else "replace" if exists else "new",
        places=places,
        block_shape=shape,
        blocks=int(np.prod(grid_shape(counts, groups))) * len(plan.times),
        tiles=tiles,
        label_bytes=sum(sizes),
        tile_bytes=network_bytes(plan),
        block_bytes=block_bytes(plan, shape),
        tiles_done=done,
        estimate=known,
        free_bytes=min(_free(path) for path in (places.folder, places.label.parent, places.work)),
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
    """Say whether an image has the very label that a run would make; reads metadata only.

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
    wanted = settle(config, model)
    places, digest = wanted.places, wanted.digest
    is_there = published_attributes(places.label) is not None
    if is_there and not files.exists(places.label.path):
        return Standing.WANTED, ""  # cut short while it was replaced: a run recovers it
    try:
        before = publication.published(config, places, digest)
    except OutputExistsError as error:
        return Standing.OTHER, str(error)
    if (
        before is None
        or publication.is_cut_short(places, digest)
        or publication.is_spent(places, digest)
    ):
        return Standing.WANTED, ""
    text = "" if files.exists(places.stats) else f"its table {places.stats} is missing"
    return Standing.CURRENT, text
