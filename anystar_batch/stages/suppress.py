"""Suppress: candidates to survivors, exactly as over the whole volume at once.

A block judges its own candidates with three values (kept, suppressed, undecided) from those within
two reaches of it; the client decides the few undecided of all blocks in one pass (`DESIGN.md`).
"""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from anystar_batch.events import BlockDone, StageStarted, ignore, timed_stage
from anystar_batch.geometry import ZYX, Box, inside
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.run import (
    SOURCES,
    Run,
    longest_ray,
    resolution,
    run_tasks,
    slices,
    suppression,
    tile_todo,
)
from anystar_batch.stages.task import (
    Done,
    Work,
    model_rays,
    near_box,
    parse_key,
    piece_key,
    position_keys,
)
from anystar_batch.stages.workdir import (
    CANDIDATES,
    REFINED,
    SURVIVORS,
    Slice,
    file_name,
    load_candidates,
    resolved_path,
    save_array,
    save_candidates,
    slice_of,
)
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.suppress import Status, resolve, suppress_region


@dataclass(frozen=True, slots=True)
class SuppressTask:
    """A block of tiles and what is known around it.

    Parameters
    ----------
    work : Work
    time : int
    block : Block
        Tiles whose candidates to judge.
    near : tuple of Slice
        Candidates of every tile that meets `region`.
    region : Box
        Region of which all candidates are given, working voxels.
    reach : int
        Bound on every candidate's half extent, working voxels.
    number : int
        1, or 2 for what the second look made of the survivors.
    """

    work: Work
    time: int
    block: Block
    near: tuple[Slice, ...]
    region: Box
    reach: int
    number: int = 1


def suppress_run(run: Run, number: int = 1) -> None:
    """Judge every candidate as far as its block can, then decide the few left over.

    Parameters
    ----------
    run : Run
    number : int
        1 for what the network found, 2 for what the second look made of the survivors.
    """
    source, stage, resolve_stage = SOURCES[number - 1], suppression(number), resolution(number)
    done = run.ledger.entries(stage)
    reach = longest_ray(run, source)
    volume = Box.of_shape(run.plan.working.shape)

    def is_left(time: int, block: Block) -> bool:
        return not all(piece_key(time, t) in done for t in block.units)

    def task(time: int, block: Block) -> SuppressTask:
        # Twice the reach: what lies on the core's border is then mostly certain.
        region = near_box(block.box, 2 * reach).intersect(volume)
        near = slices(run, source, time, region)
        return SuppressTask(run.work, time, block, near, region, reach, number)

    run_tasks(run, stage, suppress_block, tile_todo(run, is_left, task))
    times = [t for t in run.plan.times if run.ledger.entry(resolve_stage, str(t)) is None]
    doubtful = any(entry["undecided"] for entry in run.ledger.entries(stage).values())
    tell = run.on_event if doubtful else ignore
    started = StageStarted(resolve_stage, len(times), len(run.plan.times) - len(times))
    with timed_stage(tell, started):
        for time in times:
            began = clock.perf_counter()
            keys = _resolve(run, time, reach, number)
            run.work.fence.check()
            save_array(resolved_path(run.work.folder, time, number), keys)
            run.ledger.done(resolve_stage, {str(time): {"survivors": len(keys)}})
            tell(BlockDone(resolve_stage, str(time), clock.perf_counter() - began))


def _resolve(run: Run, time: int, reach: int, number: int) -> NDArray[np.int64]:
    """Position keys of the undecided candidates that survive, sorted."""
    plan = run.plan
    rays = model_rays(plan.model)
    entries = run.ledger.entries(suppression(number))
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
        around = near_box(plan.tiles.core_box(tile), 2 * reach).intersect(volume)
        near.update(plan.tiles.tiles_near(around))
    folder = run.folder / SURVIVORS[number - 1]
    undecided, kept = [], []
    for tile in sorted(near):
        if piece_key(time, tile) not in entries:  # outside of the plan's region
            continue
        piece = slice_of(entries[piece_key(time, tile)])
        candidates, status = load_candidates(folder, [piece], len(rays))
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
    return np.sort(position_keys(doubtful.points[survives], plan.working.shape))


def suppress_block(task: SuppressTask) -> Done:
    """Judge the candidates of a block; store who is kept or undecided."""
    started = clock.perf_counter()
    plan = task.work.plan
    rays = model_rays(plan.model)
    folder = Path(task.work.folder)
    read = folder / (CANDIDATES if task.number == 1 else REFINED)
    candidates, status = load_candidates(read, task.near, len(rays), task.region)
    kept = status == Status.KEPT
    volume = Box.of_shape(plan.working.shape)
    status = suppress_region(
        candidates, rays, plan.nms_thresh, task.region, volume, task.reach, kept
    )
    alive = (status != Status.SUPPRESSED) & inside(candidates.points, task.block.box)
    candidates, status = candidates.take(alive), status[alive]
    parts = []
    for tile in task.block.units:
        mine = inside(candidates.points, plan.tiles.core_box(tile))
        parts.append((piece_key(task.time, tile), candidates.take(mine), status[mine]))
    task.work.fence.check()
    name = task.work.prefix + file_name(task.time, task.block.units, "npy")
    slices = save_candidates(folder / SURVIVORS[task.number - 1], name, parts)
    entries: dict[str, dict[str, object]] = {}
    for key, _, tile_status in parts:
        piece = slices[key]
        undecided = int(np.sum(tile_status == Status.UNDECIDED))
        entries[key] = {
            "file": piece.file,
            "start": piece.start,
            "stop": piece.stop,
            "undecided": undecided,
        }
    return Done(entries, clock.perf_counter() - started, len(candidates))
