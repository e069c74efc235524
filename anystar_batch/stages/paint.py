"""Paint: survivors to labels of level 0; the same array is measured and coarsened at once.

A write unit is a storage chunk or shard, written once, by one task, whole.
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.label_image import LabelWriter
from anystar_batch.geometry import (
    ZYX,
    Box,
    BoxIndex,
    as_zyx,
    grid_box,
    grid_range,
    grid_shape,
    hull,
)
from anystar_batch.measure.partials import Partials, partials, widened
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.image_identity import unit_content
from anystar_batch.stages.label_sums import save_sums
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.pyramid import CoarseLevels, write_coarse
from anystar_batch.stages.run import (
    Run,
    first_label,
    longest_ray,
    make_todo,
    run_tasks,
    slices,
    suppression,
    unit_blocks,
)
from anystar_batch.stages.star_scores import star_scores
from anystar_batch.stages.surface import growth, outlined, shown
from anystar_batch.stages.task import Done, Work, model_rays, piece_key, spec_of
from anystar_batch.stages.workdir import Slice, file_name, load_instances
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.expand import paint_around
from anystar_batch.stars.polyhedra import bounding_boxes
from anystar_batch.stars.raster import paint


@dataclass(frozen=True, slots=True)
class PaintTask:
    """Write units of level 0 to paint and measure.

    Parameters
    ----------
    work : Work
    time : int
        Time point.
    block : Block
        The block they belong to.
    units : tuple of (z, y, x)
        Those of its write units that are not done.
    near : tuple of Slice
        Survivors of every tile that meets `region`.
    region : Box
        Region of those that may reach the block, working voxels.
    first_label : int
        Label of the first instance of this time.
    """

    work: Work
    time: int
    block: Block
    units: tuple[ZYX, ...]
    near: tuple[Slice, ...]
    region: Box
    first_label: int


def paint_run(run: Run) -> None:
    """Paint and measure every write unit of level 0 that is not done."""
    done = run.ledger.entries("paint")
    reach = longest_ray(run) + growth(run.plan)
    first = {time: first_label(run, time) for time in run.plan.times}

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(u for u in block.units if piece_key(time, u) not in done)

    def task(time: int, block: Block) -> PaintTask:
        region = working_box(run.plan, block.box, reach)
        near = slices(run, suppression(run.plan.suppressions), time, region)
        return PaintTask(run.work, time, block, left(time, block), near, region, first[time])

    run_tasks(run, "paint", paint_block, make_todo(run, unit_blocks(run, 0), left, task))


def paint_block(task: PaintTask) -> Done:
    """Paint, write, measure and coarsen the write units of a block."""
    started = clock.perf_counter()
    work, plan, time = task.work, task.work.plan, task.time
    reader, spec = ImageReader(plan.source), spec_of(plan.source)
    writer = LabelWriter(work.label, spec)
    rays = model_rays(plan.model)
    survivors, labels = load_instances(work, time, task.near, task.first_label, task.region)
    stars, last = outlined(survivors), shown(plan, survivors)
    near = BoxIndex(bounding_boxes(last, rays, plan.lattice))
    unit_shape, shape = spec.write_unit_zyx(0), spec.shape_zyx(0)
    coarse = CoarseLevels([spec.shape_zyx(n) for n in range(spec.num_levels)], task.block.box)
    parts: list[tuple[ZYX, Partials]] = []
    contents: dict[ZYX, str] = {}
    count = 0
    for unit in task.units:
        box = grid_box(unit, unit_shape, shape)
        # Before it is read: a change while it is read must not go unseen.
        contents[unit] = unit_content(plan, reader, time, box)
        reaches = near.meeting(box)
        out = np.zeros(box.shape, np.uint32)
        if len(reaches):
            is_grown = plan.expand_um > 0.0
            some, ids = (stars if is_grown else last).take(reaches), labels[reaches]
            paint(out, box, some, ids, rays, plan.lattice)
            if is_grown:
                grown, size = last.take(reaches), plan.working.voxel_um
                paint_around(out, box, some, grown, ids, rays, plan.lattice, size)
        work.fence.check()
        writer.write_box(0, time, box, out)
        coarse.add(box, out)
        sums = _measure(plan, reader, time, box, out)
        parts.extend((unit, part) for part in sums)
        count += sum(len(part.shape) for part in sums)
    name = work.prefix + file_name(time, task.units, "npy")
    scores = _scores(plan, time, survivors, labels, [part for _, part in parts])
    work.fence.check()
    noted = save_sums(Path(work.folder), name, task.units, parts, scores)
    entries = {piece_key(time, u): {"content": contents[u], **noted[u]} for u in task.units}
    further = write_coarse(work, time, coarse, writer)
    return Done(entries, clock.perf_counter() - started, count, further)


def working_box(plan: Plan, box: Box, reach: float) -> Box:
    """Return where the points of polyhedra lie that may reach a box of level 0.

    Parameters
    ----------
    plan : Plan
    box : Box
        Level-0 voxels.
    reach : float
        Longest ray of any survivor, working voxels.

    Returns
    -------
    Box
        Working voxels, clipped to the volume.
    """
    lattice = plan.lattice
    start, stop = [], []
    for a, b, s, o in zip(box.start, box.stop, lattice.scale, lattice.offset, strict=True):
        start.append(int(np.floor((a - o) / s - reach)) - 1)
        stop.append(int(np.ceil((b - o) / s + reach)) + 2)
    return Box(as_zyx(start), as_zyx(stop)).intersect(Box.of_shape(plan.working.shape))


def _scores(
    plan: Plan,
    time: int,
    survivors: Candidates,
    labels: NDArray[np.uint32],
    parts: Sequence[Partials],
) -> tuple[NDArray[np.uint32], NDArray[np.void]]:
    """Return which labels were painted, sorted, and what their stars say."""
    found = np.concatenate([np.empty(0, np.uint32), *(part.shape["label"] for part in parts)])
    painted = np.unique(found)
    order = np.argsort(labels)
    at = order[np.searchsorted(labels[order], painted)] if len(painted) else order[:0]
    return painted, star_scores(plan, time, survivors.take(at))


def _measure(
    plan: Plan, reader: ImageReader, time: int, box: Box, labels: NDArray[np.uint32]
) -> list[Partials]:
    """Statistics of every storage chunk of a write unit that holds a label."""
    spec = spec_of(plan.source)
    chunk, shape = spec.chunks_zyx(0), spec.shape_zyx(0)
    counts = grid_shape(shape, chunk)
    indices = list(grid_range(box, chunk, counts))
    filled = [
        (index, inner)
        for index in indices
        if labels[(inner := grid_box(index, chunk, shape)).relative_to(box.start).slices].any()
    ]
    if not filled:
        return []
    region = hull(inner for _, inner in filled)
    channels = range(plan.source.num_channels)
    sums: list[Partials] = []
    for t in (time, *plan.course):
        images = [reader.read_box(0, t, c, region) for c in channels]
        wide: list[Partials] = []
        for n, (index, inner) in enumerate(filled):
            shown = labels[inner.relative_to(box.start).slices]
            seen = [image[inner.relative_to(region.start).slices] for image in images]
            linear = ((time * counts[0] + index[0]) * counts[1] + index[1]) * counts[2] + index[2]
            wide.append(
                widened(sums[n], shown, seen)
                if sums
                else partials(shown, seen, inner.start, linear)
            )
        sums = wide
    return sums
