"""Predict: image to candidates, tile by tile: read, run the network, judge at once, store.

A tile's candidates are a pure function of (tile, config, volume): they are computed once, by the
block that owns the tile, and never again. Where an earlier run has kept them (`candidate_store`),
they are read; where this one is to keep them, they are written as the network found them.
"""

from __future__ import annotations

import math
import threading
import time as clock
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import ZYX, Box, inside
from anystar_batch.network.model import Model
from anystar_batch.network.predictor import Predictor, PredictorFactory
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.image_identity import tile_content
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.preprocess import tile_image
from anystar_batch.stages.raw_tile import (
    Found,
    StoredTile,
    load_found,
    origin_of,
    save_found,
    tile_key,
)
from anystar_batch.stages.region_survey import Cells, are_near, block_cells
from anystar_batch.stages.run import Run, run_tasks, tile_todo
from anystar_batch.stages.task import Done, Work, model_rays, piece_key
from anystar_batch.stages.workdir import CANDIDATES, RAW, file_name, save_candidates
from anystar_batch.stars.candidates import Candidates, is_storable, quantise
from anystar_batch.stars.measures import contrasts
from anystar_batch.stars.suppress import Status, suppress_region

_NETWORK = threading.Lock()
"""Whoever holds it has the device to itself; other blocks read and suppress meanwhile."""

NOT_KEPT = "not kept"
"""Why a tile was left to the network that nobody has kept."""


@dataclass(frozen=True, slots=True)
class PredictTask:
    """Tiles to run the network on.

    Parameters
    ----------
    work : Work
    time : int
        Time point.
    block : Block
        The block they belong to.
    tiles : tuple of (z, y, x)
        Those of its tiles that are not done, or not kept.
    done : tuple of (z, y, x)
        Of these, those that are only to be kept.
    stored : tuple of StoredTile or None
        What an earlier run has kept of each of them; empty for nothing.
    cells : Cells or None
        Where in the block candidates count; None: everywhere.
    """

    work: Work
    time: int
    block: Block
    tiles: tuple[ZYX, ...]
    done: tuple[ZYX, ...] = ()
    stored: tuple[StoredTile | None, ...] = ()
    cells: Cells | None = None


def predict_run(run: Run, only: Collection[str] | None = None) -> None:
    """Run the network on every tile that is not done, or not kept where it is to be.

    Parameters
    ----------
    run : Run
    only : collection of str, optional
        Pieces that are to be done here; None is all of them.
    """
    done, raw, work = run.ledger.entries("predict"), run.ledger.entries("raw"), run.work

    def is_left(time: int, tile: ZYX) -> bool:
        key = piece_key(time, tile)
        if only is not None and key not in only:
            return False
        if work.keep_above is None or key not in done:
            return key not in done
        entry = raw.get(tile_key(work.kind, time, tile), {})
        return float(entry.get("above", math.inf)) > work.keep_above

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(t for t in block.units if is_left(time, t))

    def task(time: int, block: Block) -> PredictTask:
        tiles = left(time, block)
        stored = tuple(run.store.tile(tile_key(work.kind, time, t)) for t in tiles)
        already = tuple(t for t in tiles if piece_key(time, t) in done)
        has_region = run.plan.region is not None
        cells = block_cells(run.plan, time, block.box) if has_region else None
        stored = stored if any(stored) else ()
        return PredictTask(work, time, block, tiles, already, stored, cells)

    run_tasks(run, "predict", predict_block, tile_todo(run, left, task))


def predict_block(task: PredictTask) -> Done:
    """Run the network on the tiles of a block and store their candidates.

    Candidates that a certain survivor of the same tiles suppresses are dropped: they could not
    suppress anybody, so nobody misses them. Certain survivors are noted as such.
    """
    started = clock.perf_counter()
    work, plan, time = task.work, task.work.plan, task.time
    reader = ImageReader(plan.source)
    contents = {t: tile_content(plan, reader, time, t) for t in task.tiles}
    whence = {t: _found(task, reader, t, contents[t]) for t in task.tiles}
    raw = _noted(task, contents, whence)
    further = {"raw": raw} if raw else {}
    # Files of what is done are read by others already: they are not written anew.
    task = replace(task, tiles=tuple(t for t in task.tiles if t not in task.done))
    if not task.tiles:
        return Done({}, clock.perf_counter() - started, 0, further)
    predicted = {}
    for tile in task.tiles:
        found, too_large = whence[tile][0].over(plan.prob_thresh)
        predicted[tile] = counting(plan, task.cells, found), too_large
    alive = judged(plan, task, {t: c for t, (c, _) in predicted.items()})
    kept = {t: candidates for t, (candidates, _) in alive.items()}
    if plan.filters.min_contrast is not None:
        kept = {t: with_contrasts(plan, reader, time, t, c) for t, c in kept.items()}
    folder = Path(work.folder) / CANDIDATES
    parts = [(piece_key(time, t), kept[t], alive[t][1]) for t in task.tiles]
    work.fence.check()
    slices = save_candidates(folder, work.prefix + file_name(time, task.tiles, "npy"), parts)
    entries: dict[str, dict[str, object]] = {}
    for tile in task.tiles:
        piece = slices[piece_key(time, tile)]
        entries[piece_key(time, tile)] = {
            "file": piece.file,
            "start": piece.start,
            "stop": piece.stop,
            "content": contents[tile],
            "too_large": predicted[tile][1],
            "reach": float(kept[tile].dist.max(initial=0.0)),
        }
    count = sum(len(c) for c in kept.values())
    return Done(entries, clock.perf_counter() - started, count, further)


def _found(task: PredictTask, reader: ImageReader, tile: ZYX, content: str) -> tuple[Found, str]:
    """What a tile holds, and where it is from, in words: `stored`, or why not."""
    work, plan, rays = task.work, task.work.plan, model_rays(task.work.plan.model)
    least = plan.prob_thresh if work.keep_above is None else work.keep_above
    if plan.limits_of(task.time) is None or not content:
        return Found.nothing(len(rays)), "nothing"
    stored = dict(zip(task.tiles, task.stored, strict=False)).get(tile)
    why = NOT_KEPT
    if stored is not None:
        origin = origin_of(work.kind, plan, task.time, content)
        found = load_found(stored, origin, least, len(rays))
        if isinstance(found, Found):
            return found, "stored"
        why = found
    return network_found(work, reader, task.time, tile, least), why


def _noted(
    task: PredictTask, contents: Mapping[ZYX, str], whence: Mapping[ZYX, tuple[Found, str]]
) -> dict[str, dict[str, object]]:
    """What the ledger notes of raw candidates, after writing those that are to be kept."""
    work = task.work
    if work.keep_above is None and not task.stored:
        return {}
    keys = {tile: tile_key(work.kind, task.time, tile) for tile in task.tiles}
    noted: dict[str, dict[str, object]] = {}
    fresh = []
    for tile, (found, source) in whence.items():
        noted[keys[tile]] = {"from": source}
        if source in {"stored", "nothing"}:
            noted[keys[tile]]["above"] = found.above
        elif work.keep_above is not None:
            origin = origin_of(work.kind, work.plan, task.time, contents[tile])
            fresh.append((keys[tile], origin, found))
    if fresh:
        work.fence.check()
        # Named by what it holds: no file of a set ever takes the name of another one's tiles.
        units = tuple(t for t in task.tiles if keys[t] in {key for key, _, _ in fresh})
        folder, name = Path(work.folder) / RAW, work.prefix + file_name(task.time, units, "npy")
        for key, stored in save_found(folder, name, fresh).items():
            noted[key] |= stored.to_json()
    return noted


def load_network(work: Work) -> None:
    """Load the network, where this process has not yet: what comes is then timed without it."""
    _predictor(work.factory, work.plan.model, work.threads)


def tile_candidates(
    work: Work, reader: ImageReader, time: int, tile: ZYX
) -> tuple[Candidates, int]:
    """Return the candidates a tile owns, and how many were dropped as too large.

    Parameters
    ----------
    work : Work
    reader : ImageReader
        The image.
    time : int
    tile : (z, y, x)
        Index of the tile.
    """
    prob_thresh = work.plan.prob_thresh
    return network_found(work, reader, time, tile, prob_thresh).over(prob_thresh)


def network_found(work: Work, reader: ImageReader, time: int, tile: ZYX, above: float) -> Found:
    """Run the network on a tile.

    Parameters
    ----------
    work : Work
    reader : ImageReader
        The image.
    time : int
    tile : (z, y, x)
        Index of the tile.
    above : float
        Least probability; what is found above a higher one is a part of it, bit by bit.
    """
    plan = work.plan
    candidates = [Candidates.empty(len(model_rays(plan.model)))]
    too_large = [np.empty(0, np.float32)]
    for view in plan.views:
        image = tile_image(plan, reader, time, tile, view)
        if image is None:
            continue
        with _NETWORK:
            points, prob, dist = _predictor(work.factory, plan.model, work.threads).find(
                image, view.tiles.window_box(tile), view.tiles.core_box(tile), above
            )
        fits = is_storable(dist, plan.model.max_radius)
        too_large.append(prob[~fits])
        step = np.float32(view.step)
        radii = quantise(dist[fits] * step, plan.model.max_radius * view.step)
        candidates.append(Candidates(points[fits] * np.int32(view.step), prob[fits], radii))
    dropped = np.concatenate(too_large)
    if len(plan.views) == 1:
        return Found(candidates[-1], dropped, above)
    together = Candidates.concatenate(candidates, len(model_rays(plan.model)))
    return Found(together.take(_one_a_point(together)), dropped, above)


def counting(plan: Plan, cells: Cells | None, candidates: Candidates) -> Candidates:
    """Return the candidates that count: those near the plan's region; all, where it has none."""
    if cells is None:
        return candidates
    return candidates.take(are_near(plan, cells, candidates.points))


def _one_a_point(candidates: Candidates) -> NDArray[np.int64]:
    """Keep, where two scales found something at one point: the surer, else the finer.

    The finer scale comes first in `candidates`; the rest keep their order.
    """
    order = np.lexsort((np.arange(len(candidates)), -candidates.prob))
    _, first = np.unique(candidates.points[order], axis=0, return_index=True)
    return np.sort(order[first])


def with_contrasts(
    plan: Plan, reader: ImageReader, time: int, tile: ZYX, candidates: Candidates
) -> Candidates:
    """Return a tile's candidates with their contrasts, measured on what the network saw.

    Parameters
    ----------
    plan : Plan
    reader : ImageReader
        The image.
    time : int
    tile : (z, y, x)
        Index of the tile.
    candidates : Candidates
        Some that the tile owns; what is measured of one does not depend on the others.
    """
    if not len(candidates):
        return candidates
    window = plan.tiles.window_box(tile)
    image = tile_image(plan, reader, time, tile)
    if image is None:
        # Seen at a coarser scale alone; at this one nothing differs from its surroundings.
        image = np.zeros(window.shape, np.float32)
    seen = window.intersect(Box.of_shape(plan.working.shape))
    values = contrasts(image, window.start, seen, candidates, model_rays(plan.model))
    return replace(candidates, contrast=values)


def judged(
    plan: Plan, task: PredictTask, candidates: Mapping[ZYX, Candidates]
) -> dict[ZYX, tuple[Candidates, NDArray[np.int8]]]:
    """Return candidates with what the task knows of them, less those certainly suppressed.

    Parameters
    ----------
    plan : Plan
    task : PredictTask
    candidates : mapping
        Candidates of each tile of the task.

    Returns
    -------
    dict
        By tile: the candidates that may survive, and their `Status`, int8 [n].
    """
    whole = set(task.tiles) == set(task.block.units)
    regions = [task.block.box] if whole else [plan.tiles.core_box(t) for t in task.tiles]
    groups = [task.tiles] if whole else [(t,) for t in task.tiles]
    rays = model_rays(plan.model)
    result: dict[ZYX, tuple[Candidates, NDArray[np.int8]]] = {}
    for region, tiles in zip(regions, groups, strict=True):
        together = Candidates.concatenate([candidates[t] for t in tiles], len(rays))
        status = suppress_region(
            together,
            rays,
            plan.nms_thresh,
            region,
            Box.of_shape(plan.working.shape),
            math.ceil(plan.max_radius),
        )
        alive = status != Status.SUPPRESSED
        together, status = together.take(alive), status[alive]
        for tile in tiles:
            mine = inside(together.points, plan.tiles.core_box(tile))
            result[tile] = together.take(mine), status[mine]
    return result


@lru_cache(maxsize=2)
def _predictor(factory: PredictorFactory, model: Model, threads: int) -> Predictor:
    """The network, loaded once a process."""
    return factory(model, threads)
