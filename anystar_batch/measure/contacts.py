"""Pairs of neighbouring voxels, counted for every edge of every axis: what lies across a plane.

::

    voxel   0   1   2   3
    edge  0   1   2   3   4        the voxels 1 and 2 are a pair across edge 2

A pair has one label on both sides (`same`), two of two objects (`other`), or an object on one side
and background on the other (`ends`). An object that a plane has cut in two gives `other` its whole
cross section there. Counts are integers: boxes cannot change them, and pairs across the faces of
boxes are counted when the second of the two boxes comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box
from anystar_batch.kernel_cache import compiled

KINDS = ("same", "other", "ends")
"""What a pair may be, in the order of the counts."""

Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(slots=True)
class Contacts:
    """The pairs of a volume that comes box by box.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels of the volume.

    Attributes
    ----------
    counts : tuple of int64 [voxels + 1, 3]
        For each axis (z, y, x) and each edge: pairs of each of `KINDS`.

    Notes
    -----
    A face waits until the box on its other side has come: memory holds as many faces as there are
    between the boxes that have come and those that have not. If the longest axis is the slowest,
    that is one plane across the two shorter axes.
    """

    shape: ZYX
    counts: Counts = field(init=False)
    _faces: dict[tuple[Any, ...], NDArray[Any] | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        z, y, x = (np.zeros((n + 1, len(KINDS)), np.int64) for n in self.shape)
        self.counts = (z, y, x)

    @property
    def faces_waiting(self) -> int:
        """Faces whose other side has not come; 0 when all boxes have."""
        return len(self._faces)

    def check_complete(self) -> None:
        """Check that every box of a time point has come.

        Raises
        ------
        ValueError
            If boxes are missing.
        """
        if self._faces:
            message = f"{len(self._faces)} faces of boxes wait for a box that never came"
            raise ValueError(message)

    def add(self, labels: NDArray[np.integer[Any]], narrow: NDArray[np.uint32], box: Box) -> None:
        """Count the pairs inside a box, and those across its faces to boxes that have come.

        Parameters
        ----------
        labels : integer (z, y, x)
            The voxels of the box.
        narrow : uint32 (z, y, x)
            The same objects, numbered so that 32 bits hold them (`extents.narrowed`).
        box : Box
            Where it lies. Boxes tile the volume, and those that share a face share all of it.
        """
        inner = tuple(np.zeros((n + 1, len(KINDS)), np.int64) for n in box.shape)
        count_pairs(np.ascontiguousarray(narrow), *inner)
        for axis, counted in enumerate(inner):
            self.counts[axis][box.start[axis] : box.stop[axis] + 1] += counted
            others = tuple(
                (a, b) for i, (a, b) in enumerate(zip(box.start, box.stop, strict=True))
                if i != axis
            )  # fmt: skip
            for side, edge in ((0, box.start[axis]), (-1, box.stop[axis])):
                if 0 < edge < self.shape[axis]:
                    self._meet(axis, edge, others, np.take(labels, [side], axis))

    def _meet(
        self, axis: int, edge: int, others: tuple[Any, ...], face: NDArray[np.integer[Any]]
    ) -> None:
        """Count the pairs across a face, or keep it until its other side comes."""
        key = (axis, edge, others)
        shown = face if face.any() else None  # background needs no memory
        if key not in self._faces:
            self._faces[key] = shown
            return
        before = self._faces.pop(key)
        one, two = (np.zeros_like(face) if f is None else f for f in (before, shown))
        objects, equal = (one != 0) & (two != 0), one == two
        both, same = int(objects.sum()), int((objects & equal).sum())
        self.counts[axis][edge] += (same, both - same, int((~equal).sum()) - (both - same))


@compiled(inline="always")
def _count_pair(counts: NDArray[np.int64], edge: int, mine: int, other: int) -> None:
    """Count one pair; two voxels of background are none."""
    if mine != 0 or other != 0:
        kind = 0 if mine == other else (1 if mine != 0 and other != 0 else 2)
        counts[edge, kind] += 1


@compiled()
def count_pairs(
    labels: NDArray[np.uint32],
    along_z: NDArray[np.int64],
    along_y: NDArray[np.int64],
    along_x: NDArray[np.int64],
) -> None:
    """Count the pairs inside a box: same label, two labels, one label and background."""
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                mine = labels[z, y, x]
                if x > 0:
                    _count_pair(along_x, x, mine, labels[z, y, x - 1])
                if y > 0:
                    _count_pair(along_y, y, mine, labels[z, y - 1, x])
                if z > 0:
                    _count_pair(along_z, z, mine, labels[z - 1, y, x])
