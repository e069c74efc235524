"""The stages of a run, one function each: which blocks are left, run them, note them.

A stage reads from the ledger what is done, makes tasks of the rest, and hands them to the engine.
"""

from __future__ import annotations

import time as clock
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from anystar_batch import finding, render, spool, tasks
from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.storage.files import write_bytes_atomic
from anystar_batch.blocks import Block
from anystar_batch.errors import ImageChangedError, ImageError
from anystar_batch.events import BlockDone, StageDone, StageStarted, ignore
from anystar_batch.geometry import ZYX, Box, grid_box
from anystar_batch.plan import Plan
from anystar_batch.reading import tile_content
from anystar_batch.running import (
    Run,
    filter_names,
    first_label,
    instance_count,
    longest_ray,
    make_todo,
    parse_key,
    run_tasks,
    slice_of,
    slices,
    tile_blocks,
    unit_blocks,
)
from anystar_batch.sampling import limits_content
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.suppress import Status, resolve
from anystar_batch.tasks import tile_key

MAX_LABEL = 2**32 - 1
"""Largest label that the label image holds."""


def predict(run: Run) -> None:
    """Run the network on every tile that is not done."""
    done = run.ledger.entries("predict")

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(t for t in block.units if tile_key(time, t) not in done)

    def task(time: int, block: Block) -> finding.PredictTask:
        return finding.PredictTask(run.work, time, block, left(time, block))

    run_tasks(run, "predict", finding.predict, make_todo(run, tile_blocks(run), left, task))


def suppress(run: Run) -> None:
    """Judge every candidate as far as its block can, then decide the few left over."""
    done = run.ledger.entries("suppress")
    reach = longest_ray(run)
    volume = Box.of_shape(run.plan.working.shape)

    def is_left(time: int, block: Block) -> bool:
        return not all(tile_key(time, t) in done for t in block.units)

    def task(time: int, block: Block) -> tasks.SuppressTask:
        # Twice the reach: what lies on the core's border is then mostly certain.
        known = tasks.near_box(block.box, 2 * reach).intersect(volume)
        near = slices(run, "predict", time, known)
        return tasks.SuppressTask(run.work, time, block, near, known, reach)

    run_tasks(run, "suppress", tasks.suppress, make_todo(run, tile_blocks(run), is_left, task))
    times = [t for t in run.plan.times if run.ledger.entry("resolve", str(t)) is None]
    doubtful = any(entry["undecided"] for entry in run.ledger.entries("suppress").values())
    tell = run.on_event if doubtful else ignore
    started = clock.perf_counter()
    tell(StageStarted("resolve", len(times), len(run.plan.times) - len(times)))
    for time in times:
        began = clock.perf_counter()
        keys = _resolve(run, time, reach)
        run.work.fence.check()
        _save_array(tasks.resolved_path(run.work.folder, time), keys)
        run.ledger.done("resolve", {str(time): {"survivors": len(keys)}})
        tell(BlockDone("resolve", str(time), clock.perf_counter() - began))
    tell(StageDone("resolve", clock.perf_counter() - started))


def number(run: Run) -> None:
    """Drop survivors that the filters remove or that own no voxel; number the rest by position."""
    reach = longest_ray(run)
    volume = Box.of_shape(run.plan.working.shape)
    times = [t for t in run.plan.times if run.ledger.entry("number", str(t)) is None]

    def task(time: int, block: Block) -> tasks.OwnTask:
        known = tasks.near_box(block.box, 2 * reach + 1).intersect(volume)
        near = slices(run, "suppress", time, known)
        return tasks.OwnTask(run.work, time, block, near, known)

    def is_left(time: int, block: Block) -> bool:
        return time in times and bool(task(time, block).near)

    keys: dict[int, list[NDArray[np.int64]]] = {time: [] for time in times}
    hidden = dict.fromkeys(times, 0)
    removed = {time: dict.fromkeys(filter_names(run), 0) for time in times}
    todo = make_todo(run, tile_blocks(run), is_left, task)
    for time, owned in run_tasks(run, "own", tasks.own, replace(todo, already=0)):
        keys[time].append(owned.keys)
        hidden[time] += owned.hidden
        for name, count in owned.removed.items():
            removed[time][name] += count
    for time in times:
        numbered = np.sort(np.concatenate([np.empty(0, np.int64), *keys[time]]))
        run.work.fence.check()
        _save_array(tasks.label_keys_path(run.work.folder, time), numbered)
        entry: dict[str, object] = {"count": len(numbered), "hidden": hidden[time]}
        if removed[time]:
            entry["removed"] = removed[time]
        run.ledger.done("number", {str(time): entry})
    if instance_count(run) > MAX_LABEL:
        message = f"{instance_count(run)} instances; a uint32 label holds {MAX_LABEL}"
        raise ImageError(message)


def paint(run: Run) -> None:
    """Paint and measure every write unit of level 0 that is not done."""
    done = run.ledger.entries("paint")
    reach = longest_ray(run)
    first = {time: first_label(run, time) for time in run.plan.times}

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(u for u in block.units if render.unit_key(time, u) not in done)

    def task(time: int, block: Block) -> render.PaintTask:
        known = render.working_box(run.plan, block.box, reach)
        near = slices(run, "suppress", time, known)
        return render.PaintTask(run.work, time, block, left(time, block), near, known, first[time])

    run_tasks(run, "paint", render.paint_block, make_todo(run, unit_blocks(run, 0), left, task))


def pyramid(run: Run) -> None:
    """Make what painting has left of every coarse level from the level before."""
    for level in range(1, run.spec.num_levels):
        _pyramid_level(run, level)


def _pyramid_level(run: Run, level: int) -> None:
    stage = render.pyramid_stage(level)
    done = run.ledger.entries(stage)

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(u for u in block.units if render.unit_key(time, u) not in done)

    def task(time: int, block: Block) -> render.PyramidTask:
        return render.PyramidTask(run.work, time, level, block, left(time, block))

    run_tasks(run, stage, render.pyramid_block, make_todo(run, unit_blocks(run, level), left, task))


def check_content(run: Run) -> None:
    """Compare the identity of every input chunk that was read with what is stored now.

    Raises
    ------
    ImageChangedError
        If the image has changed since.
    """
    reader, plan = ImageReader(run.plan.source), run.plan
    unit, shape = run.spec.write_unit_zyx(0), run.spec.shape_zyx(0)
    predicted, painted = run.ledger.entries("predict"), run.ledger.entries("paint")
    known = run.ledger.entry("plan", "")
    started = clock.perf_counter()
    tell = run.on_event if predicted else ignore
    tell(StageStarted("check", 1))
    if known is not None and known["content"] != limits_content(reader, plan.times, plan.channel):
        raise ImageChangedError(_changed(plan, "where the intensity limits come from"))
    for key, entry in predicted.items():
        time, tile = parse_key(key)
        if tile_content(plan, reader, time, tile) != entry["content"]:
            raise ImageChangedError(_changed(plan, f"tile {key}"))
    for key, entry in painted.items():
        time, index = parse_key(key)
        box = grid_box(index, unit, shape)
        if render.unit_content(plan, reader, time, box) != entry["content"]:
            raise ImageChangedError(_changed(plan, f"{box}, time {time}"))
    tell(StageDone("check", clock.perf_counter() - started))


def _resolve(run: Run, time: int, reach: int) -> NDArray[np.int64]:
    """Position keys of the undecided candidates that survive, sorted."""
    plan = run.plan
    rays = tasks.model_rays(plan.model)
    entries = run.ledger.entries("suppress")
    open_tiles = [
        parse_key(key)[1]
        for key, entry in entries.items()
        if entry["undecided"] and parse_key(key)[0] == time
    ]
    if not open_tiles:
        return np.empty(0, np.int64)
    volume = Box.of_shape(plan.working.shape)
    near: set[ZYX] = set()
    for tile in open_tiles:
        around = tasks.near_box(plan.tiles.core_box(tile), 2 * reach).intersect(volume)
        near.update(plan.tiles.tiles_near(around))
    folder = run.folder / tasks.SURVIVORS
    undecided, kept = [], []
    for tile in sorted(near):
        piece = slice_of(entries[tile_key(time, tile)])
        candidates, status = spool.load(folder, [piece], len(rays))
        undecided.append(candidates.take(status == Status.UNDECIDED))
        kept.append(candidates.take(status == Status.KEPT))
    doubtful = Candidates.concatenate(undecided, len(rays))
    certain = Candidates.concatenate(kept, len(rays))
    # Few are in doubt, and few of the others are near enough to matter.
    distance, _ = cKDTree(doubtful.points).query(
        certain.points, p=np.inf, distance_upper_bound=2 * reach + 1
    )
    certain = certain.take(np.isfinite(distance))
    survives = resolve(certain, doubtful, rays, plan.nms_thresh)
    return np.sort(tasks.position_keys(doubtful.points[survives], plan.working.shape))


def _save_array(path: Path, array: NDArray[np.int64]) -> None:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes_atomic(path, stream.getvalue())


def _changed(plan: Plan, where: str) -> str:
    return (
        f"{plan.source.path} has changed since it was read ({where}); the result would mix two "
        "images; give --restart to begin again"
    )
