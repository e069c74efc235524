"""Pyramid: coarse levels of the label, each the mode of the windows of the level before.

`CoarseLevels` grows them in memory while level 0 is painted: a write unit whose windows lie in one
block of level 0 never needs the stored level below it. Units across blocks are left to
`pyramid_run`, which reads the level before from disk, with the same result.
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.label_image import LabelWriter
from anystar_batch.geometry import ZYX, Box, grid_box, grid_range, grid_shape
from anystar_batch.pyramid import downsample_mode, inner_box, level_factors, source_box
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.run import Run, make_todo, run_tasks, unit_blocks
from anystar_batch.stages.task import Done, Work, piece_key, spec_of


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


def pyramid_stage(level: int) -> str:
    """Return the name of the stage that makes a coarse level, in the ledger and for the user."""
    return f"pyramid {level}"


def pyramid_run(run: Run) -> None:
    """Make what painting has left of every coarse level from the level before."""
    for level in range(1, run.spec.num_levels):
        _pyramid_level(run, level)


def _pyramid_level(run: Run, level: int) -> None:
    stage = pyramid_stage(level)
    done = run.ledger.entries(stage)

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(u for u in block.units if piece_key(time, u) not in done)

    def task(time: int, block: Block) -> PyramidTask:
        return PyramidTask(run.work, time, level, block, left(time, block))

    run_tasks(run, stage, pyramid_block, make_todo(run, unit_blocks(run, level), left, task))


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
        entries[piece_key(task.time, unit)] = {}
    return Done(entries, clock.perf_counter() - started, 0)


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
                made[piece_key(time, unit)] = {}
        if made:
            entries[pyramid_stage(level)] = made
    return entries


class CoarseLevels:
    """What is known of every coarse level in one box of level 0.

    Parameters
    ----------
    shapes : sequence of (z, y, x)
        Voxels of every level of the volume, level 0 first.
    box : Box
        Level-0 voxels that will be added, at most.
    """

    def __init__(self, shapes: Sequence[ZYX], box: Box) -> None:
        self._shapes = tuple(shapes)
        self._boxes = [box]
        self._labels: list[NDArray[np.uint32]] = [np.empty((0, 0, 0), np.uint32)]
        self._known: list[NDArray[np.bool_]] = [np.empty((0, 0, 0), np.bool_)]
        for fine, coarse in zip(self._shapes, self._shapes[1:], strict=False):
            box = inner_box(box, fine, coarse)
            self._boxes.append(box)
            self._labels.append(np.zeros(box.shape, np.uint32))
            self._known.append(np.zeros(box.shape, np.bool_))

    def box(self, level: int) -> Box:
        """Return the voxels of a level that may become known."""
        return self._boxes[level]

    def add(self, box: Box, labels: NDArray[np.uint32]) -> None:
        """Take in painted voxels of level 0: level 1 becomes known where a window lies in them.

        Parameters
        ----------
        box : Box
            Level-0 voxels, inside the box of all.
        labels : (z, y, x)
            Their labels.
        """
        if len(self._shapes) < 2:
            return
        target = inner_box(box, *self._shapes[:2])
        if not target.size:
            return
        source = source_box(target, level_factors(*self._shapes[:2]), self._shapes[0])
        self._note(1, target, labels[source.relative_to(box.start).slices])

    def take(self, level: int, target: Box) -> NDArray[np.uint32] | None:
        """Return voxels of a coarse level; None if some of them are not known.

        Levels are taken in turn: a voxel becomes known once all its window was taken from the level
        below, or was added.

        Parameters
        ----------
        level : int
            At least 1.
        target : Box
            Voxels of that level, not empty.
        """
        if level > 1:
            fine, coarse = self._shapes[level - 1 : level + 1]
            source = source_box(target, level_factors(fine, coarse), fine)
            labels = self._look_up(level - 1, source)
            if labels is None or target.intersect(self._boxes[level]) != target:
                return None
            self._note(level, target, labels)
        return self._look_up(level, target)

    def _note(self, level: int, target: Box, labels: NDArray[np.uint32]) -> None:
        """Coarsen the labels of the target's source box."""
        fine, coarse = self._shapes[level - 1 : level + 1]
        at = target.relative_to(self._boxes[level].start).slices
        self._labels[level][at] = downsample_mode(labels, target, level_factors(fine, coarse), fine)
        self._known[level][at] = True

    def _look_up(self, level: int, box: Box) -> NDArray[np.uint32] | None:
        if box.intersect(self._boxes[level]) != box:
            return None
        at = box.relative_to(self._boxes[level].start).slices
        return self._labels[level][at] if self._known[level][at].all() else None
