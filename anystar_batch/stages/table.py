"""Table: the sums of all painted blocks become rows, some labels at a time, joined into one file.

Labels number themselves through all times, so a piece of the table is a range of them: of a fixed
size, whoever makes it.
"""

from __future__ import annotations

import time as clock
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import LedgerMismatchError
from anystar_batch.geometry import Box
from anystar_batch.measure.partials import Partials, Statistics, intensity_dtype, merge
from anystar_batch.measure.table import Frame, batches, courses
from anystar_batch.measure.table_files import courses_path, open_table
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.label_sums import Sums, SumsFile, load_sums, sums_type
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.run import Run, Todo, first_label, instance_count, run_tasks
from anystar_batch.stages.star_scores import score_type
from anystar_batch.stages.task import Done, Work
from anystar_batch.stages.workdir import ROWS

SUMS = 1 << 17
"""Sums of channels of a piece, about: bounds the memory of who makes it."""


@dataclass(frozen=True, slots=True)
class TableTask:
    """Labels whose rows are to be written.

    Parameters
    ----------
    work : Work
    block : Block
        Named by the labels; it has no voxels.
    start, stop : int
        The labels.
    files : tuple of SumsFile
        Where their sums may be.
    firsts : tuple of int
        First label of each of the plan's times.
    suffix : str
        Of the table.
    time : int
        None in particular.
    """

    work: Work
    block: Block
    start: int
    stop: int
    files: tuple[SumsFile, ...]
    firsts: tuple[int, ...]
    suffix: str
    time: int = 0


def table_run(run: Run, path: Path) -> int:
    """Write the table.

    Parameters
    ----------
    run : Run
        Every block is painted.
    path : Path
        The file; its suffix tells the kind. Intensities over time go to `courses_path` of it.

    Returns
    -------
    int
        Number of rows, one an instance.

    Raises
    ------
    LedgerMismatchError
        If the labels painted are not those numbered.
    BlockError, OutOfTimeError
        As `run.run_tasks` raises them.
    """
    run = replace(run, share=None)  # one file, of the whole volume
    plan, count, done = run.plan, instance_count(run), run.ledger.entries("table")
    measured = Sums(run.ledger.entries("paint"))
    if measured.last > count:
        message = f"label {measured.last} was painted, {count} were numbered: {_damaged(run.work)}"
        raise LedgerMismatchError(message)
    firsts = tuple(first_label(run, time) for time in plan.times)
    step = max(1, SUMS // max(2, _columns(plan)))
    starts = range(1, max(count, 1) + 1, step)

    def task(start: int) -> TableTask:
        stop = min(start + step, count + 1)
        block = Block(f"labels {start}", ((0, 0, start),), Box.of_shape((0, 0, 0)))
        files = measured.between(start, stop)
        return TableTask(run.work, block, start, stop, files, firsts, path.suffix)

    left = [start for start in starts if _key(start, path.suffix) not in done]
    todo = Todo(map(task, left), len(left), len(starts) - len(left), 0, 0)
    run_tasks(run, "table", table_block, todo)
    started = clock.perf_counter()
    pieces = [_piece(run.work, start, path.suffix) for start in starts]
    run.work.fence.check()
    with ExitStack() as files:
        rows = files.enter_context(open_table(path))
        for piece in pieces:
            rows.append(piece)
        if plan.course:
            over_time = files.enter_context(open_table(Path(courses_path(str(path)))))
            for piece in pieces:
                over_time.append(Path(courses_path(str(piece))))
    run.seconds["table"] += clock.perf_counter() - started
    return count


def table_block(task: TableTask) -> Done:
    """Write the rows of some labels."""
    started = clock.perf_counter()
    work, plan = task.work, task.work.plan
    source, path = plan.source, _piece(work, task.start, task.suffix)
    frame = Frame(source.shape_zyx(0), plan.scale_um, plan.translation_um, source.channels)
    piece, known = _merged(task)
    scores = {name: known[name] for name in known.dtype.names or ()}
    prob = scores.pop("prob")
    times = None
    if source.t_axis is not None:
        at = np.searchsorted(task.firsts, piece.shape["label"], side="right") - 1
        times = np.asarray(plan.times, np.int64)[at]
    goes_on = task.start > 1
    work.fence.check()
    with open_table(path, goes_on=goes_on) as rows:
        for batch in batches(piece, frame, prob, times, scores):
            rows.write(batch)
    if plan.course:
        with open_table(Path(courses_path(str(path))), goes_on=goes_on) as over_time:
            for batch in courses(piece, source.channels, plan.course):
                over_time.write(batch)
    entries: dict[str, dict[str, object]] = {_key(task.start, task.suffix): {}}
    return Done(entries, clock.perf_counter() - started, len(piece.shape))


def _merged(task: TableTask) -> tuple[Statistics, NDArray[np.void]]:
    """Return the finished sums of a task's labels, and what their stars say.

    Raises
    ------
    LedgerMismatchError
        If they are not all there.
    """
    plan = task.work.plan
    empty = np.zeros(
        0, sums_type(intensity_dtype(plan.source.dtype), _columns(plan), score_type(plan))
    )
    rows = [empty, *load_sums(Path(task.work.folder), task.files, task.start, task.stop)]
    piece = merge([Partials(r["shape"], r["intensity"]) for r in rows])
    if not np.array_equal(piece.shape["label"], np.arange(task.start, task.stop)):
        message = (
            f"{len(piece.shape)} labels from {task.start} to {task.stop - 1} were painted, "
            f"{task.stop - task.start} numbered: {_damaged(task.work)}"
        )
        raise LedgerMismatchError(message)
    _, first = np.unique(np.concatenate([r["shape"]["label"] for r in rows]), return_index=True)
    return piece, np.concatenate([r["scores"] for r in rows])[first]


def _columns(plan: Plan) -> int:
    """Sums of intensities of a label: of every channel, here and at the times asked for."""
    return plan.source.num_channels * (1 + len(plan.course))


def _key(start: int, suffix: str) -> str:
    return f"{start}{suffix}"


def _piece(work: Work, start: int, suffix: str) -> Path:
    """Return the file of the rows from a label on."""
    return Path(work.folder) / ROWS / f"{start}{suffix}"


def _damaged(work: Work) -> str:
    return f"the work directory {work.folder} is damaged; give --restart"
