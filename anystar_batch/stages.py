"""The stages of a run, one function each: which blocks are left, run them, note them.

A stage reads from the ledger what is done, makes tasks of the rest, and hands them to the engine.
What is done is noted by tile or by write unit, never by block, so a run goes on with other blocks
or workers than it began with.
"""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from anystar_batch import finding, render, spool, tasks
from anystar_batch.archive.labels import LabelSpec
from anystar_batch.archive.ledger import Ledger
from anystar_batch.archive.store import ImageReader, write_bytes_atomic
from anystar_batch.blocks import Block, Blocks, plan_blocks, units_per_block
from anystar_batch.engine import Engine, Failure
from anystar_batch.errors import (
    BlockError,
    ImageChangedError,
    ImageError,
    LedgerMismatchError,
    OutOfTimeError,
)
from anystar_batch.events import (
    BlockDone,
    BlockFailed,
    Listener,
    StageDone,
    StageStarted,
    ignore,
)
from anystar_batch.geometry import ZYX, Box, as_zyx, grid_box
from anystar_batch.plan import Plan
from anystar_batch.reading import tile_content
from anystar_batch.sampling import limits_content
from anystar_batch.spool import Slice
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.suppress import Status, resolve
from anystar_batch.tasks import Done, Owned, Work, tile_key

OF_TILES = ("predict", "suppress", "own")
"""Stages whose blocks are blocks of tiles."""

MAX_LABEL = 2**32 - 1
"""Largest label that the label image holds."""


class BlockTask(Protocol):
    """What every task says of itself."""

    @property
    def time(self) -> int:
        """Time point."""
        ...

    @property
    def block(self) -> Block:
        """The block."""
        ...


Task = TypeVar("Task", bound=BlockTask)
Result = TypeVar("Result", Done, Owned)


@dataclass(frozen=True, slots=True)
class Run:
    """A run under way.

    Parameters
    ----------
    work : Work
        What tasks share.
    ledger : Ledger
        What is done.
    engine : Engine
        How tasks run.
    on_event : Listener
        Who is told.
    block_shape : (z, y, x)
        Level-0 voxels of a block, before rounding up.
    seconds : dict
        Wall time of every stage, filled as they end.
    """

    work: Work
    ledger: Ledger
    engine: Engine
    on_event: Listener
    block_shape: ZYX
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """What was decided."""
        return self.work.plan

    @property
    def folder(self) -> Path:
        """Work directory."""
        return Path(self.work.folder)

    @property
    def spec(self) -> LabelSpec:
        """The label image."""
        return render.spec_of(self.plan.source)


def predict(run: Run) -> None:
    """Run the network on every tile that is not done."""
    done = run.ledger.entries("predict")

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(t for t in block.units if tile_key(time, t) not in done)

    def task(time: int, block: Block) -> finding.PredictTask:
        return finding.PredictTask(run.work, time, block, left(time, block))

    _run_tasks(run, "predict", finding.predict, _todo(run, tile_blocks(run), left, task))


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

    _run_tasks(run, "suppress", tasks.suppress, _todo(run, tile_blocks(run), is_left, task))
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
    removed = {time: dict.fromkeys(_removing(run), 0) for time in times}
    todo = _todo(run, tile_blocks(run), is_left, task)
    for time, owned in _run_tasks(run, "own", tasks.own, replace(todo, already=0)):
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

    _run_tasks(run, "paint", render.paint_block, _todo(run, unit_blocks(run, 0), left, task))


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

    _run_tasks(run, stage, render.pyramid_block, _todo(run, unit_blocks(run, level), left, task))


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
        time, tile = _parse_key(key)
        if tile_content(plan, reader, time, tile) != entry["content"]:
            raise ImageChangedError(_changed(plan, f"tile {key}"))
    for key, entry in painted.items():
        time, index = _parse_key(key)
        box = grid_box(index, unit, shape)
        if render.unit_content(plan, reader, time, box) != entry["content"]:
            raise ImageChangedError(_changed(plan, f"{box}, time {time}"))
    tell(StageDone("check", clock.perf_counter() - started))


def tile_blocks(run: Run) -> Blocks:
    """Return the blocks of tiles."""
    tiles = run.plan.tiles
    per_block = units_per_block(run.block_shape, tiles.core, run.plan.lattice.scale)
    return plan_blocks(tiles.shape, tiles.core, per_block)


def unit_blocks(run: Run, level: int) -> Blocks:
    """Return the blocks of write units of a level."""
    unit = run.spec.write_unit_zyx(level)
    return plan_blocks(run.spec.shape_zyx(level), unit, units_per_block(run.block_shape, unit))


def longest_ray(run: Run) -> int:
    """Return the bound on every candidate's half extent, working voxels."""
    entries = run.ledger.entries("predict").values()
    return max(1, math.ceil(max((float(e["reach"]) for e in entries), default=0.0)))


def instance_count(run: Run) -> int:
    """Return the number of instances over all times."""
    return sum(int(e["count"]) for e in run.ledger.entries("number").values())


def removed_counts(run: Run) -> dict[str, int]:
    """Return how many survivors each filter has removed over all times; empty without filters."""
    entries = run.ledger.entries("number").values()
    return {name: sum(int(e["removed"][name]) for e in entries) for name in _removing(run)}


def first_label(run: Run, time: int) -> int:
    """Return the label of the first instance of a time."""
    entries = run.ledger.entries("number")
    return 1 + sum(int(entries[str(t)]["count"]) for t in run.plan.times if t < time)


@dataclass(frozen=True, slots=True)
class Todo(Generic[Task]):
    """What is left of a stage; tasks are made when their turn comes.

    Parameters
    ----------
    tasks : iterator
        Each is made when it is asked for: a million of them never exist together.
    count : int
        How many there are.
    already : int
        Blocks that an earlier run has done.
    voxels : int
        What is left, voxels of level 0, or of the level that is made.
    """

    tasks: Iterator[Task]
    count: int
    already: int
    voxels: int


def _todo(
    run: Run,
    blocks: Blocks,
    is_left: Callable[[int, Block], object],
    task: Callable[[int, Block], Task],
) -> Todo[Task]:
    """Return tasks for the blocks of which something is left, times slowest."""
    left, voxels = [], 0.0
    for time in run.plan.times:
        numbers = []
        for n, block in enumerate(blocks):
            if found := is_left(time, block):
                numbers.append(n)
                voxels += _voxels(block, len(found) if isinstance(found, tuple) else 0)
        left.append(np.array(numbers, np.int64))
    made = (
        task(time, blocks[int(n)])
        for time, numbers in zip(run.plan.times, left, strict=True)
        for n in numbers
    )
    count = sum(len(numbers) for numbers in left)
    return Todo(made, count, len(blocks) * len(run.plan.times) - count, round(voxels))


def _voxels(block: Block, units: int) -> float:
    """Voxels of so many units of a block, of the lattice's; of all, where none are named."""
    return block.box.size * (units or len(block.units)) / len(block.units)


def _run_tasks(
    run: Run, stage: str, function: Callable[[Task], Result], todo: Todo[Task]
) -> list[tuple[int, Result]]:
    """Run a stage's tasks, note and announce each; raise after the last if any failed.

    Returns
    -------
    list of (time, result)
        Of stage `own`; what other stages return is in the ledger.
    """
    started = clock.perf_counter()
    # Tiles count in working voxels, people in those of level 0.
    zoom = math.prod(run.plan.lattice.scale) if stage in OF_TILES else 1.0
    before = _instances(run, stage)
    run.on_event(StageStarted(stage, todo.count, todo.already, round(todo.voxels * zoom), before))
    results: list[tuple[int, Result]] = []
    failed: list[tuple[str, Failure]] = []
    begun = 0
    for task, result in run.engine.run(function, todo.tasks, needs_network=stage == "predict"):
        begun += 1
        name = f"{task.time}/{task.block.name}"
        if isinstance(result, Failure):
            run.work.fence.check()
            failed.append((name, result))
            run.on_event(BlockFailed(stage, name, result.reason))
            continue
        for part, entries in {stage: result.entries, **result.further}.items():
            run.ledger.done(part, dict(entries))
        if stage == "own":
            results.append((task.time, result))
        voxels = round(_voxels(task.block, len(result.entries)) * zoom)
        run.on_event(BlockDone(stage, name, result.seconds, result.instances, voxels))
    seconds = clock.perf_counter() - started
    run.seconds[stage] = seconds
    run.on_event(StageDone(stage, seconds))
    if failed:
        names = ", ".join(name for name, _ in failed[:20])
        more = f" and {len(failed) - 20} more" if len(failed) > 20 else ""
        all_of = f" ({len(failed)} blocks failed: {names}{more})" if len(failed) > 1 else ""
        reason = f"{failed[0][1].reason}{all_of}; nothing is published, a rerun does what is left"
        raise BlockError(stage, failed[0][0], reason)
    if begun < todo.count:
        message = (
            f"stopped {run.engine.stop.why}: stage {stage} has {todo.count - begun} of "
            f"{todo.count} blocks left; the same command continues"
        )
        raise OutOfTimeError(message)
    return results


def _instances(run: Run, stage: str) -> int:
    """Candidates that a stage has found in tiles that an earlier run did; 0 of other stages."""
    if stage not in {"predict", "suppress"}:
        return 0
    pieces = map(_slice, run.ledger.entries(stage).values())
    return sum(piece.stop - piece.start for piece in pieces)


def _resolve(run: Run, time: int, reach: int) -> NDArray[np.int64]:
    """Position keys of the undecided candidates that survive, sorted."""
    plan = run.plan
    rays = tasks.model_rays(plan.model)
    entries = run.ledger.entries("suppress")
    open_tiles = [
        _parse_key(key)[1]
        for key, entry in entries.items()
        if entry["undecided"] and _parse_key(key)[0] == time
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
        piece = _slice(entries[tile_key(time, tile)])
        candidates, status = spool.load(folder, [piece], len(rays))
        undecided.append(candidates.take(status == Status.UNDECIDED))
        kept.append(candidates.take(status == Status.KEPT))
    doubtful = Candidates.concatenate(undecided, len(rays))
    certain = Candidates.concatenate(kept, len(rays))
    survives = resolve(certain, doubtful, rays, plan.nms_thresh)
    return np.sort(tasks.position_keys(doubtful.points[survives], plan.working.shape))


def slices(run: Run, stage: str, time: int, box: Box) -> tuple[Slice, ...]:
    """Return where the candidates of every tile lie that meets a box.

    Raises
    ------
    LedgerMismatchError
        If a tile is not done.
    """
    tiles = run.plan.tiles.tiles_near(box)
    found = []
    for tile in tiles:
        entry = run.ledger.entry(stage, tile_key(time, tile))
        if entry is None:
            message = f"tile {tile_key(time, tile)} is missing from the ledger; give --restart"
            raise LedgerMismatchError(message)
        found.append(_slice(entry))
    return tuple(piece for piece in found if piece.stop > piece.start)


def _removing(run: Run) -> list[str]:
    """Names of the filters that were given."""
    return list(run.plan.filters.to_json())


def _slice(entry: dict[str, object]) -> Slice:
    return Slice(str(entry["file"]), int(str(entry["start"])), int(str(entry["stop"])))


def _parse_key(key: str) -> tuple[int, ZYX]:
    time, _, index = key.partition("/")
    return int(time), as_zyx(index.split("."))


def _save_array(path: Path, array: NDArray[np.int64]) -> None:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes_atomic(path, stream.getvalue())


def _changed(plan: Plan, where: str) -> str:
    return (
        f"{plan.source.path} has changed since it was read ({where}); the result would mix two "
        "images; give --restart to begin again"
    )
