"""Coarse levels of a label that grow in memory while level 0 is painted, box by box.

A coarse voxel is known as soon as its whole window is: a write unit of a coarse level that lies in
one block of level 0 never needs the stored level below it. Units across blocks are left to whoever
reads the level before from disk, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box
from anystar_batch.pyramid import downsample_mode, inner_box, level_factors, source_box


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
