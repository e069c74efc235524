"""The last stage: merge the sums of all painted blocks and write the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import LedgerMismatchError
from anystar_batch.events import StageStarted, timed_stage
from anystar_batch.measure.partials import Partials, Statistics, intensity_dtype, merge
from anystar_batch.measure.table import Frame, batches, courses
from anystar_batch.measure.table_files import courses_path, open_table
from anystar_batch.stages.region_survey import region_at
from anystar_batch.stages.run import (
    Run,
    first_label,
    instance_count,
    slices,
    suppression,
    tile_blocks,
)
from anystar_batch.stages.surface import shown
from anystar_batch.stages.task import model_rays
from anystar_batch.stages.workdir import Sums, load_instances, sums_type
from anystar_batch.stars.measures import COLUMNS, regularity, shapes

SUMS = 1 << 18
"""Sums of channels finished at a time, about: bounds the memory, changes no byte."""


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
    """
    with timed_stage(run.on_event, StageStarted("table", 1)) as elapsed:
        source, plan = run.plan.source, run.plan
        count = instance_count(run)
        measured = Sums(run.folder, run.ledger.entries("paint"))
        if measured.last > count:
            message = f"label {measured.last} was painted, {count} were numbered: {_damaged(run)}"
            raise LedgerMismatchError(message)
        times = None
        if source.t_axis is not None:
            numbered = run.ledger.entries("number")
            counts = [int(numbered[str(t)]["count"]) for t in plan.times]
            times = np.repeat(np.asarray(plan.times, np.int64), counts)
        frame = Frame(source.shape_zyx(0), plan.scale_um, plan.translation_um, source.channels)
        scores = instance_scores(run)
        prob = scores.pop("prob")
        run.work.fence.check()
        with ExitStack() as files:
            rows = files.enter_context(open_table(path))
            over_time = (
                files.enter_context(open_table(courses_path(str(path)))) if plan.course else None
            )
            for piece in statistics(run, measured, count):
                for batch in batches(piece, frame, prob, times, scores):
                    rows.write(batch)
                if over_time is not None:
                    for batch in courses(piece, source.channels, plan.course):
                        over_time.write(batch)
    run.seconds["table"] = elapsed.seconds
    return count


def statistics(run: Run, measured: Sums, count: int) -> Iterator[Statistics]:
    """Yield the finished sums of all labels, some at a time: memory does not grow with them.

    Parameters
    ----------
    run : Run
    measured : Measured
        Its rows.
    count : int
        Labels that were numbered.

    Raises
    ------
    LedgerMismatchError
        If the labels painted are not those numbered.
    """
    source = run.plan.source
    sums = source.num_channels * (1 + len(run.plan.course))
    empty = np.zeros(0, sums_type(intensity_dtype(source.dtype), sums))
    step = max(1, SUMS // max(2, sums))
    for start in range(1, max(count, 1) + 1, step):
        stop = min(start + step, count + 1)
        rows = [empty, *measured.between(start, stop)]
        piece = merge([Partials(r["shape"], r["intensity"]) for r in rows])
        if not np.array_equal(piece.shape["label"], np.arange(start, stop)):
            message = (
                f"{len(piece.shape)} labels from {start} to {stop - 1} were painted, "
                f"{stop - start} numbered: {_damaged(run)}"
            )
            raise LedgerMismatchError(message)
        yield piece


def instance_scores(run: Run) -> dict[str, NDArray[Any]]:
    """Return what the stars themselves say of every label, label 1 first.

    Returns
    -------
    dict
        Column to values [n]: `prob`; with a region its number, `region`, int64; float32 all
        others: `quality` after the second look; `contrast` and `regularity`
        where their filter was given; the shapes asked for.
    """
    filters, rays = run.plan.filters, model_rays(run.plan.model)
    names = ["prob"]
    names += ["quality"] if run.plan.second_look is not None else []
    names += ["contrast"] if filters.min_contrast is not None else []
    names += ["regularity"] if filters.min_regularity is not None else []
    names += [COLUMNS[name] for name in run.plan.measure]
    count, region = instance_count(run), run.plan.region
    scores: dict[str, NDArray[Any]] = {"prob": np.zeros(count, np.float32)}
    scores |= {} if region is None else {"region": np.zeros(count, np.int64)}
    scores |= {name: np.zeros(count, np.float32) for name in names}
    step_um = run.plan.working.voxel_um
    for time in run.plan.times:
        first = first_label(run, time)
        for block in tile_blocks(run):
            near = slices(run, suppression(run.plan.suppressions), time, block.box)
            survivors, labels = load_instances(run.work, time, near, first)
            at = labels.astype(np.int64) - 1
            scores["prob"][at] = survivors.prob
            if region is not None:
                scores["region"][at] = region_at(run.plan, time, survivors.points)
            if survivors.quality is not None and "quality" in scores:
                scores["quality"][at] = survivors.quality
            if survivors.contrast is not None and "contrast" in scores:
                scores["contrast"][at] = survivors.contrast
            if "regularity" in scores:
                scores["regularity"][at] = regularity(survivors.dist, rays)
            dist = shown(run.plan, survivors).dist
            for name, values in shapes(dist, rays, step_um, run.plan.measure).items():
                scores[name][at] = values
    return scores


def _damaged(run: Run) -> str:
    return f"the work directory {run.folder} is damaged; give --restart"
