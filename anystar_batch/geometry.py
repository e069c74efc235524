"""Boxes of voxels: integer, axis-aligned, start inclusive, stop exclusive, axes (z, y, x).

::

    start            stop
      |  0   1   2    |          a box of 3 voxels on one axis
      [ . | . | . | . )
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

ZYX: TypeAlias = tuple[int, int, int]
"""Three integers, axes (z, y, x), voxels."""

ZYXFloat: TypeAlias = tuple[float, float, float]
"""Three floats, axes (z, y, x)."""


def as_zyx(values: object) -> ZYX:
    """Return three integers as a plain tuple.

    Parameters
    ----------
    values : sequence of 3
        Anything with three integer-valued items, axes (z, y, x).

    Returns
    -------
    (z, y, x)
    """
    z, y, x = map(int, values)  # type: ignore[call-overload]
    return z, y, x


def as_triple(values: Iterable[float]) -> ZYXFloat:
    """Return three values as floats, z, y, x; any other number of them is a `ValueError`."""
    z, y, x = values
    return float(z), float(y), float(x)


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A box of voxels.

    Parameters
    ----------
    start, stop : (z, y, x)
        First voxel inside, first voxel outside. A box with `stop <= start` on any axis is empty.
    """

    start: ZYX
    stop: ZYX

    @classmethod
    def of_shape(cls, shape: ZYX) -> Box:
        """Return the box of a whole array of this shape."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> ZYX:
        """Voxels per axis, never negative."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return max(0, z1 - z0), max(0, y1 - y0), max(0, x1 - x0)

    @property
    def size(self) -> int:
        """Number of voxels."""
        z, y, x = self.shape
        return z * y * x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array (z, y, x)."""
        (z0, y0, x0), (z1, y1, x1) = self.start, self.stop
        return slice(z0, z1), slice(y0, y1), slice(x0, x1)

    def grow(self, margin: ZYX) -> Box:
        """Return the box with `margin` voxels more on every side."""
        return Box(
            as_zyx(a - m for a, m in zip(self.start, margin, strict=True)),
            as_zyx(b + m for b, m in zip(self.stop, margin, strict=True)),
        )

    def shift(self, offset: ZYX) -> Box:
        """Return the box moved by `offset` voxels."""
        return Box(
            as_zyx(a + o for a, o in zip(self.start, offset, strict=True)),
            as_zyx(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def relative_to(self, origin: ZYX) -> Box:
        """Return the box in the coordinates of an array whose voxel 0 is `origin`."""
        return self.shift(as_zyx(-o for o in origin))

    def intersect(self, other: Box) -> Box:
        """Return the common voxels (perhaps empty, then of shape 0 on some axis)."""
        start = as_zyx(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = as_zyx(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, as_zyx(max(a, b) for a, b in zip(start, stop, strict=True)))

    def contains(self, point: ZYX) -> bool:
        """Return whether the voxel `point` lies inside."""
        return all(a <= p < b for a, p, b in zip(self.start, point, self.stop, strict=True))


def hull(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that holds all of them, at least one."""
    listed = list(boxes)
    return Box(
        as_zyx(min(b.start[k] for b in listed) for k in range(3)),
        as_zyx(max(b.stop[k] for b in listed) for k in range(3)),
    )


def grid_shape(shape: ZYX, step: ZYX) -> ZYX:
    """Return how many boxes of `step` voxels cover `shape`, the last ones cut short."""
    (z, y, x), (a, b, c) = shape, step
    return -(-z // a), -(-y // b), -(-x // c)


def grid_box(index: ZYX, step: ZYX, shape: ZYX) -> Box:
    """Return box `index` of the lattice of `step`, anchored at 0 and clipped to `shape`."""
    start = as_zyx(i * s for i, s in zip(index, step, strict=True))
    return Box(start, as_zyx(min(a + s, n) for a, s, n in zip(start, step, shape, strict=True)))


def iter_grid(counts: ZYX) -> Iterator[ZYX]:
    """Yield every index of a lattice, z slowest."""
    for z in range(counts[0]):
        for y in range(counts[1]):
            for x in range(counts[2]):
                yield z, y, x


def grid_range(box: Box, step: ZYX, counts: ZYX) -> Iterator[ZYX]:
    """Yield the index of every lattice box that shares a voxel with `box`, z slowest."""
    if box.size == 0:
        return
    first = [max(0, a // s) for a, s in zip(box.start, step, strict=True)]
    last = [min(n, -(-b // s)) for b, s, n in zip(box.stop, step, counts, strict=True)]
    for z in range(first[0], last[0]):
        for y in range(first[1], last[1]):
            for x in range(first[2], last[2]):
                yield z, y, x


def index_name(index: ZYX) -> str:
    """Return the name of a block or tile, e.g. `1.3.2`."""
    return ".".join(map(str, index))


def inside(points: NDArray[np.int32], box: Box) -> NDArray[np.bool_]:
    """Return which points lie in a box, bool [n].

    Parameters
    ----------
    points : int32 [n, 3]
        Voxels, (z, y, x).
    box : Box
    """
    within = (points >= np.asarray(box.start)) & (points < np.asarray(box.stop))
    every: NDArray[np.bool_] = np.logical_and.reduce(within, axis=1)
    return every


class BoxIndex:
    """Who meets a box, asked box after box, z slowest: one axis after another is narrowed down.

    Parameters
    ----------
    boxes : integer [n, 2, 3]
        Start and stop of everyone's box.
    """

    def __init__(self, boxes: NDArray[np.int64]) -> None:
        self._boxes = boxes
        self._asked: list[tuple[int, int]] = []
        self._among = [np.arange(len(boxes))]

    def meeting(self, box: Box) -> NDArray[np.int64]:
        """Return the indices of those that share a voxel with a box, sorted."""
        for axis, wanted in enumerate(zip(box.start, box.stop, strict=True)):
            if axis < len(self._asked) and self._asked[axis] == wanted:
                continue
            del self._asked[axis:], self._among[axis + 1 :]
            among = self._among[axis]
            low, high = self._boxes[among, 0, axis], self._boxes[among, 1, axis]
            self._asked.append(wanted)
            self._among.append(among[(low < wanted[1]) & (high > wanted[0])])
        return self._among[3]
