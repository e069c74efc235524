"""A run under way: what is known of it, which blocks it has, and how a stage's tasks are run.

What is done is noted by tile or by write unit, never by block, so a run goes on with other blocks
or workers than it began with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from anystar_batch.archive.label_image import LabelSpec
from anystar_batch.engine.attempts import Failure
from anystar_batch.engine.engines import Engine
from anystar_batch.errors import AnyStarBatchError, BlockError, LedgerMismatchError, OutOfTimeError
from anystar_batch.events import BlockDone, BlockFailed, Listener, StageStarted, timed_stage
from anystar_batch.geometry import ZYX, Box
from anystar_batch.stages.blocks import Block, Blocks, plan_blocks, units_per_block
from anystar_batch.stages.candidate_store import Store
from anystar_batch.stages.ledger import Ledger
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region_survey import is_wanted, wanted_tiles
from anystar_batch.stages.task import Done, Owned, Work, piece_key, spec_of
from anystar_batch.stages.workdir import Slice, slice_of

OF_TILES = ("predict", "suppress", "refine", "suppress 2", "own")
"""Stages whose blocks are blocks of tiles."""

SOURCES = ("predict", "refine")
"""Stages whose results the first and the second suppression judge."""


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


class Share(Protocol):
    """Which blocks of a stage are done here, where others do the rest, and how all meet again."""

    def has(self, number: int, count: int) -> bool:
        """Return whether a block is done here: the n-th of so many, times slowest."""
        ...

    def gather(self, stage: str, pieces: int) -> None:
        """Wait until all pieces of a stage are in the ledger; raises if nobody does them."""
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
    store : Store
        Raw candidates that earlier runs have kept.
    share : Share or None
        What of every stage is done here; None is all of it.
    """

    work: Work
    ledger: Ledger
    engine: Engine
    on_event: Listener
    block_shape: ZYX
    seconds: dict[str, float] = field(default_factory=dict)
    store: Store = field(default_factory=Store)
    share: Share | None = None

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
        return spec_of(self.plan.source)


def tile_blocks(run: Run) -> Blocks:
    """Return the blocks of tiles; of those outside of the plan's region too."""
    tiles = run.plan.tiles
    per_block = units_per_block(run.block_shape, tiles.core, run.plan.lattice.scale)
    return plan_blocks(tiles.shape, tiles.core, per_block)


def unit_blocks(run: Run, level: int) -> Blocks:
    """Return the blocks of write units of a level."""
    unit = run.spec.write_unit_zyx(level)
    return plan_blocks(run.spec.shape_zyx(level), unit, units_per_block(run.block_shape, unit))


def suppression(number: int) -> str:
    """Return the name of the first or the second suppression, in the ledger and for the user."""
    return "suppress" if number == 1 else "suppress 2"


def resolution(number: int) -> str:
    """Return the name of the stage that decides what a suppression has left undecided."""
    return "resolve" if number == 1 else "resolve 2"


def longest_ray(run: Run, source: str | None = None) -> int:
    """Return the bound on every star's half extent, working voxels.

    Parameters
    ----------
    run : Run
    source : str, optional
        Stage whose results are bounded; by default what is numbered and painted, with its surfaces
        where `--outline` puts them.
    """
    last = SOURCES[run.plan.suppressions - 1]
    entries = run.ledger.entries(last if source is None else source).values()
    reaches = (
        float(e.get("shown_reach", e["reach"]) if source is None else e["reach"]) for e in entries
    )
    return max(1, math.ceil(max(reaches, default=0.0)))


def instance_count(run: Run) -> int:
    """Return the number of instances over all times."""
    return sum(int(e["count"]) for e in run.ledger.entries("number").values())


def removed_counts(run: Run) -> dict[str, int]:
    """Return how many survivors each filter has removed over all times; empty without filters."""
    entries = run.ledger.entries("number").values()
    return {name: sum(int(e["removed"][name]) for e in entries) for name in filter_names(run)}


def refined_counts(run: Run) -> dict[str, float]:
    """Return how many outlines were refined, and their mean volume ratio; empty for none."""
    entries = list(run.ledger.entries("refine").values())
    outlines = sum(int(e["stop"]) - int(e["start"]) for e in entries)
    if not outlines:
        return {}
    ratios = sorted(float(e["volume_ratios"]) for e in entries)  # summed in one order
    return {"outlines": outlines, "mean_volume_ratio": round(sum(ratios) / outlines, 4)}


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
    pieces : int
        Tiles or write units of all blocks, those of others too.
    """

    tasks: Iterator[Task]
    count: int
    already: int
    voxels: int
    pieces: int


def tile_todo(
    run: Run, is_left: Callable[[int, Block], object], task: Callable[[int, Block], Task]
) -> Todo[Task]:
    """Return tasks for the blocks of tiles of which something is left, times slowest.

    A block has only those of its tiles that the plan's region needs; without any it is none.
    """
    if run.plan.region is None:
        return make_todo(run, tile_blocks(run), is_left, task)

    def wanted(time: int, block: Block) -> Block:
        tiles = wanted_tiles(run.plan, time)
        return replace(block, units=tuple(tile for tile in block.units if tiles[tile]))

    return make_todo(run, tile_blocks(run), is_left, task, wanted)


def make_todo(
    run: Run,
    blocks: Blocks,
    is_left: Callable[[int, Block], object],
    task: Callable[[int, Block], Task],
    wanted: Callable[[int, Block], Block] = lambda _, block: block,
) -> Todo[Task]:
    """Return tasks for the blocks of which something is left, times slowest.

    Parameters
    ----------
    run : Run
    blocks : Blocks
    is_left : callable
        Of time and block: whether anything is, or which units are.
    task : callable
        Of time and block.
    wanted : callable, optional
        Of time and block: the block with those of its units that are wanted.
    """
    left, voxels, unwanted, pieces = [], 0.0, 0, 0
    total = len(blocks) * len(run.plan.times)
    for at, time in enumerate(run.plan.times):
        numbers = []
        for n, whole in enumerate(blocks):
            block = wanted(time, whole)
            pieces += len(block.units)
            is_others = run.share is not None and not run.share.has(at * len(blocks) + n, total)
            if not block.units or is_others:
                unwanted += 1
                continue
            if undone := is_left(time, block):
                numbers.append(n)
                voxels += _voxels(block, len(undone) if isinstance(undone, tuple) else 0)
        left.append(np.array(numbers, np.int64))
    made = (
        task(time, wanted(time, blocks[int(n)]))
        for time, numbers in zip(run.plan.times, left, strict=True)
        for n in numbers
    )
    count = sum(len(numbers) for numbers in left)
    return Todo(made, count, total - unwanted - count, round(voxels), pieces)


def _voxels(block: Block, units: int) -> float:
    """Voxels of so many units of a block, of the lattice's; of all, where none are named."""
    return block.box.size * (units or len(block.units)) / len(block.units)


def run_tasks(
    run: Run, stage: str, function: Callable[[Task], Result], todo: Todo[Task]
) -> list[tuple[int, Result]]:
    """Run a stage's tasks, note and announce each; raise after the last if any failed.

    Returns
    -------
    list of (time, result)
        Of stage `own`; what other stages return is in the ledger.

    Raises
    ------
    BlockError
        If a task failed; all others were run, and are noted.
    LedgerMismatchError
        If a task found that what earlier ones have kept is damaged.
    OutOfTimeError
        If the engine was to stop before the last task began.
    LostLockError
        If this run may write no more.
    Exception
        As `Share.gather` raises it.
    """
    # Tiles count in working voxels, people in those of level 0.
    zoom = math.prod(run.plan.lattice.scale) if stage in OF_TILES else 1.0
    before = _instances(run, stage)
    started = StageStarted(stage, todo.count, todo.already, round(todo.voxels * zoom), before)
    results: list[tuple[int, Result]] = []
    failed: list[tuple[str, Failure]] = []
    begun = 0
    with timed_stage(run.on_event, started) as elapsed:
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
    run.seconds[stage] = elapsed.seconds
    if failed:
        raise _error_of(stage, failed)
    if begun < todo.count:
        message = (
            f"stopped {run.engine.stop.why}: stage {stage} has {todo.count - begun} of "
            f"{todo.count} blocks left; the same command continues"
        )
        raise OutOfTimeError(message)
    if run.share is not None:
        run.share.gather(stage, todo.pieces)
    return results


def _error_of(stage: str, failed: Sequence[tuple[str, Failure]]) -> AnyStarBatchError:
    """Return what to raise for a stage's failed blocks; of damage first, as no rerun mends it."""
    name, failure = next((each for each in failed if each[1].is_damage), failed[0])
    names = ", ".join(each for each, _ in failed[:20])
    more = f" and {len(failed) - 20} more" if len(failed) > 20 else ""
    all_of = f" ({len(failed)} blocks failed: {names}{more})" if len(failed) > 1 else ""
    reason = f"{failure.reason}{all_of}"
    if failure.is_damage:
        return LedgerMismatchError(f"stage {stage}, block {name}: {reason}")
    return BlockError(stage, name, f"{reason}; nothing is published, a rerun does what is left")


def _instances(run: Run, stage: str) -> int:
    """Candidates that a stage has found in tiles that an earlier run did; 0 of other stages."""
    if stage not in {"predict", "suppress", "refine", "suppress 2"}:
        return 0
    pieces = map(slice_of, run.ledger.entries(stage).values())
    return sum(piece.stop - piece.start for piece in pieces)


def filter_names(run: Run) -> list[str]:
    """Names of the filters that were given."""
    return list(run.plan.filters.to_json())


def slices(run: Run, stage: str, time: int, box: Box) -> tuple[Slice, ...]:
    """Return where the candidates of every tile lie that meets a box.

    Raises
    ------
    LedgerMismatchError
        If a tile is not done.
    """
    tiles = run.plan.tiles.tiles_near(box)
    pieces = []
    for tile in tiles:
        entry = run.ledger.entry(stage, piece_key(time, tile))
        if entry is None:
            if not is_wanted(run.plan, time, tile):
                continue
            message = f"tile {piece_key(time, tile)} is missing from the ledger; give --restart"
            raise LedgerMismatchError(message)
        pieces.append(slice_of(entry))
    return tuple(piece for piece in pieces if piece.stop > piece.start)
