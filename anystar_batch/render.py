"""What a worker does for one block of shards: paint level 0, measure it, and coarsen it.

Coarse write units that lie in the block are made from memory; the others when all is painted.

A block is made of whole write units (shards, or chunks without shards) of the label, so no two
tasks ever write one file. Every survivor that reaches a unit is gathered into it; nothing is
painted over a border. Statistics are summed chunk by chunk, so their grouping has no meaning.
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch import measured
from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.label_image import LabelSpec, LabelWriter, label_spec
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.blocks import Block
from anystar_batch.coarse import CoarseLevels
from anystar_batch.geometry import (
    ZYX,
    Box,
    BoxIndex,
    as_zyx,
    grid_box,
    grid_range,
    grid_shape,
    hull,
    index_name,
)
from anystar_batch.measure.partials import Partials, partials, widened
from anystar_batch.plan import Plan
from anystar_batch.pyramid import downsample_mode, level_factors, source_box
from anystar_batch.reading import content_digest
from anystar_batch.spool import Slice
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.polyhedra import bounding_boxes
from anystar_batch.stars.raster import paint
from anystar_batch.tasks import (
    Done,
    Work,
    file_name,
    label_keys_path,
    load_survivors,
    model_rays,
    position_keys,
)


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
        Survivors of every tile that meets `known`.
    known : Box
        Region of those that may reach the block, working voxels.
    first_label : int
        Label of the first instance of this time.
    """

    work: Work
    time: int
    block: Block
    units: tuple[ZYX, ...]
    near: tuple[Slice, ...]
    known: Box
    first_label: int


@dataclass(frozen=True, slots=True)
class PyramidTask:
    """Write units of a coarse level to make from the level before.

    Parameters
    ----------
    work : Work
    time : int
        Time point.
    level : int
        Level to write, at least 1.
    block : Block
        The block they belong to.
    units : tuple of (z, y, x)
        Those of its write units that are not done.
    """

    work: Work
    time: int
    level: int
    block: Block
    units: tuple[ZYX, ...]


def unit_key(time: int, unit: ZYX) -> str:
    """Return a write unit's name in the ledger, e.g. `0/1.3.2`."""
    return f"{time}/{index_name(unit)}"


def pyramid_stage(level: int) -> str:
    """Return the name of the stage that makes a coarse level, in the ledger and for the user."""
    return f"pyramid {level}"


def unit_content(plan: Plan, reader: ImageReader, time: int, box: Box) -> str:
    """Return the digest of every chunk that measuring a box of level 0 reads: channels, times."""
    found: list[tuple[str, int, int | str]] = []
    for t in (time, *plan.course):
        for channel in range(plan.source.num_channels):
            found.extend(reader.identities(0, t, channel, box))
    return content_digest(found)


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


def instances(
    work: Work, time: int, near: Sequence[Slice], first_label: int, region: Box | None = None
) -> tuple[Candidates, NDArray[np.uint32]]:
    """Return the instances of some tiles, or those in a region of them, and their labels."""
    survivors = load_survivors(work, time, near, region)
    numbered = np.load(label_keys_path(work.folder, time), mmap_mode="r", allow_pickle=False)
    keys = position_keys(survivors.points, work.plan.working.shape)
    rank = np.searchsorted(numbered, keys)
    found = rank < len(numbered)
    found[found] = numbered[rank[found]] == keys[found]
    labels = (rank[found] + first_label).astype(np.uint32)
    return survivors.take(found), labels


def paint_block(task: PaintTask) -> Done:
    """Paint, write, measure and coarsen the write units of a block."""
    started = clock.perf_counter()
    work, plan, time = task.work, task.work.plan, task.time
    reader, spec = ImageReader(plan.source), spec_of(plan.source)
    writer = LabelWriter(work.label, spec)
    rays = model_rays(plan.model)
    survivors, labels = instances(work, time, task.near, task.first_label, task.known)
    near = BoxIndex(bounding_boxes(survivors, rays, plan.lattice))
    unit_shape, shape = spec.write_unit_zyx(0), spec.shape_zyx(0)
    coarse = CoarseLevels([spec.shape_zyx(n) for n in range(spec.num_levels)], task.block.box)
    parts: list[tuple[ZYX, Partials]] = []
    contents: dict[ZYX, str] = {}
    shown = 0
    for unit in task.units:
        box = grid_box(unit, unit_shape, shape)
        # Before it is read: a change while it is read must not go unseen.
        contents[unit] = unit_content(plan, reader, time, box)
        reaches = near.meeting(box)
        out = np.zeros(box.shape, np.uint32)
        if len(reaches):
            paint(out, box, survivors.take(reaches), labels[reaches], rays, plan.lattice)
        work.fence.check()
        writer.write_box(0, time, box, out)
        coarse.add(box, out)
        found = _measure(plan, reader, time, box, out)
        parts.extend((unit, part) for part in found)
        shown += sum(len(part.shape) for part in found)
    name = file_name(time, task.units, "npy")
    work.fence.check()
    noted = measured.save(Path(work.folder), name, task.units, parts)
    entries = {unit_key(time, u): {"content": contents[u], **noted[u]} for u in task.units}
    further = write_coarse(work, time, coarse, writer)
    return Done(entries, clock.perf_counter() - started, shown, further)


def write_coarse(
    work: Work, time: int, coarse: CoarseLevels, writer: LabelWriter
) -> dict[str, dict[str, dict[str, object]]]:
    """Write the coarse write units that are known whole; return their ledger entries by stage."""
    spec = spec_of(work.plan.source)
    entries: dict[str, dict[str, dict[str, object]]] = {}
    for level in range(1, spec.num_levels):
        unit_shape, shape = spec.write_unit_zyx(level), spec.shape_zyx(level)
        made: dict[str, dict[str, object]] = {}
        for unit in grid_range(coarse.box(level), unit_shape, grid_shape(shape, unit_shape)):
            box = grid_box(unit, unit_shape, shape)
            labels = coarse.take(level, box)
            if labels is not None:
                work.fence.check()
                writer.write_box(level, time, box, labels)
                made[unit_key(time, unit)] = {}
        if made:
            entries[pyramid_stage(level)] = made
    return entries


def pyramid_block(task: PyramidTask) -> Done:
    """Make the write units of a coarse level."""
    started = clock.perf_counter()
    spec = spec_of(task.work.plan.source)
    writer = LabelWriter(task.work.label, spec)
    fine, coarse = spec.shape_zyx(task.level - 1), spec.shape_zyx(task.level)
    factors = level_factors(fine, coarse)
    unit_shape = spec.write_unit_zyx(task.level)
    entries: dict[str, dict[str, object]] = {}
    for unit in task.units:
        box = grid_box(unit, unit_shape, coarse)
        labels = writer.read_box(task.level - 1, task.time, source_box(box, factors, fine))
        task.work.fence.check()
        writer.write_box(task.level, task.time, box, downsample_mode(labels, box, factors, fine))
        entries[unit_key(task.time, unit)] = {}
    return Done(entries, clock.perf_counter() - started, 0)


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
    found: list[Partials] = []
    for t in (time, *plan.course):
        images = [reader.read_box(0, t, c, region) for c in channels]
        wide: list[Partials] = []
        for n, (index, inner) in enumerate(filled):
            shown = labels[inner.relative_to(box.start).slices]
            seen = [image[inner.relative_to(region.start).slices] for image in images]
            linear = ((time * counts[0] + index[0]) * counts[1] + index[1]) * counts[2] + index[2]
            wide.append(
                widened(found[n], shown, seen)
                if found
                else partials(shown, seen, inner.start, linear)
            )
        found = wide
    return found


@lru_cache(maxsize=2)
def spec_of(source: ImageSource) -> LabelSpec:
    """Return the label image of an image."""
    return label_spec(source)
