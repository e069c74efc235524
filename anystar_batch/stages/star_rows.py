"""Stars: the instances themselves, as they were painted, into the label that is being made.

Rows are in the order of label numbers, that is by position; they are gathered from the survivors a
slab of planes at a time, so that memory holds a batch of stars and never all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.star_group import StarFrame, StarWriter
from anystar_batch.errors import LedgerMismatchError
from anystar_batch.events import StageStarted, timed_stage
from anystar_batch.geometry import Box
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.run import Run, first_label, instance_count, slices, suppression
from anystar_batch.stages.surface import outlined, shown
from anystar_batch.stages.task import model_rays
from anystar_batch.stages.workdir import label_keys_path, load_instances, stored
from anystar_batch.stars.candidates import Candidates

BATCH = 1 << 14
"""Stars in memory at a time; changes no byte."""


def stars_run(run: Run) -> None:
    """Write the stars of all instances into the hidden label; those that are there are replaced.

    Raises
    ------
    LedgerMismatchError
        If the survivors are not those numbered.
    """
    plan, spec = run.plan, run.spec
    frame = StarFrame(
        fingerprint=run.ledger.fingerprint,
        count=instance_count(run),
        shape=spec.shape_zyx(0),
        voxel_um=plan.scale_um,
        translation_um=plan.translation_um,
        lattice=plan.lattice,
        working_um=plan.working.voxel_um,
        num_times=None if plan.source.t_axis is None else spec.num_times,
        expand_um=plan.expand_um,
        has_quality=plan.second_look is not None,
    )
    with timed_stage(run.on_event, StageStarted("stars", 1)) as elapsed:
        run.work.fence.check()
        writer = StarWriter(run.work.label, spec.zarr_format, frame, model_rays(plan.model))
        for time in plan.times:
            for survivors, labels in _batches(run, time):
                run.work.fence.check()
                writer.append(_columns(plan, time, survivors, labels))
        writer.close()
    run.seconds["stars"] = elapsed.seconds


def _batches(run: Run, time: int) -> Iterator[tuple[Candidates, NDArray[np.uint32]]]:
    """Yield the instances of a time and their labels, in the order of those."""
    plan, first = run.plan, first_label(run, time)
    keys = stored(label_keys_path(run.work.folder, time))
    _, height, width = plan.working.shape
    for start in range(0, len(keys), BATCH):
        stop = min(start + BATCH, len(keys))
        planes = (int(keys[k]) // (height * width) for k in (start, stop - 1))
        low, high = planes
        slab = Box((low, 0, 0), (high + 1, height, width))
        near = slices(run, suppression(plan.suppressions), time, slab)
        stars, labels = load_instances(run.work, time, near, first, slab)
        mine = np.flatnonzero((labels >= first + start) & (labels < first + stop))
        mine = mine[np.argsort(labels[mine])]
        if not np.array_equal(labels[mine], np.arange(first + start, first + stop)):
            message = (
                f"{len(mine)} stars of labels {first + start} to {first + stop - 1} were found at "
                f"time {time}: the work directory {run.folder} is damaged; give --restart"
            )
            raise LedgerMismatchError(message)
        yield stars.take(mine), labels[mine]


def _columns(
    plan: Plan, time: int, survivors: Candidates, labels: NDArray[np.uint32]
) -> dict[str, NDArray[Any]]:
    """Return the rows of some instances, with their surfaces where they were painted."""
    whole, fraction = plan.lattice.centres(survivors.points)
    columns: dict[str, NDArray[Any]] = {
        "label": labels,
        "time": np.full(len(labels), time, np.int32),
        "points": whole + fraction,
        "distances": shown(plan, survivors).dist,
        "prob": survivors.prob,
    }
    if plan.expand_um > 0.0:
        columns["inner_distances"] = outlined(survivors).dist
    if plan.second_look is not None:
        quality = survivors.quality
        columns["quality"] = np.zeros(len(labels), np.float32) if quality is None else quality
    return columns
