"""What a second look reads: survivors that lie together, and the image around them, in few reads.

Chunks are decoded whole, and neighbouring survivors share them. So the survivors of a tile are
taken cell by cell of a lattice, and cells are read together, in slabs one behind the other along z
of which the planes that two share are kept. Nothing here touches a result: a survivor is refined
from the same voxels, however they were read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import ZYX, Box, hull
from anystar_batch.network.refiner import window_of
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.second_look import SecondLook

CELL = (64, 192, 192)
"""Edges of the cells whose survivors are looked at together, level voxels: bound the memory."""

NEAR = 32
"""Edge of the cells in whose order the survivors of a cell come, level voxels."""

READ_BYTES = 2**28
"""Most bytes of the image that are read at once: many cells share the chunks at their borders."""


def look_cells(
    plan: Plan,
    look: SecondLook,
    reader: ImageReader,
    time: int,
    points: NDArray[np.float64],
    dist: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.int64], Box, NDArray[np.number]]]:
    """Yield the points of each cell of a lattice, by index, and what the image shows around them.

    Parameters
    ----------
    plan : Plan
    look : SecondLook
        The plan's, which says what level is read.
    reader : ImageReader
        The image.
    time : int
    points : float64 [n, 3]
        Level voxels.
    dist : float32 [n, n_rays]
        Working voxels.

    Yields
    ------
    int64 [m]
        Which survivors.
    Box
        The box that their windows fill, level voxels.
    (z, y, x)
        Its voxels.

    Notes
    -----
    How points are put together is for memory and reading alone. Cells that lie together are read as
    one box where that takes no more chunks than one by one and is not too much to hold: all of
    them, else slabs one behind the other along z, of which the planes that two share are read once;
    slabs of a row of cells, or a column, where they are too large.
    """
    if not len(points):
        return
    places, number = np.unique(
        np.floor(points / np.asarray(CELL)).astype(np.int64), axis=0, return_inverse=True
    )
    # Near ones one after the other: their voxels are in the processor's cache still.
    small = np.floor(points / NEAR).astype(np.int64)
    order = np.lexsort((small[:, 2], small[:, 1], small[:, 0], number.ravel()))
    cells = np.split(order, np.flatnonzero(np.diff(number.ravel()[order])) + 1)
    shape = plan.source.shape_zyx(look.level)
    boxes = [window_of(points[c], dist[c], look.scale, shape) for c in cells]
    chunk, most = plan.source.chunks_zyx(look.level), READ_BYTES // plan.source.dtype.itemsize
    planes = _Planes(partial(reader.read_box, look.level, time, plan.channel))
    for slab, some in _slabs(boxes, places, chunk, most):
        apart = sum(_chunks(boxes[k], chunk) for k in some)
        is_joint = slab.size <= most and _chunks(planes.fresh(slab), chunk) <= apart
        for k in some:
            box = slab if is_joint else boxes[k]
            yield cells[k], boxes[k], planes.read(box)[boxes[k].relative_to(box.start).slices]


def _slabs(
    boxes: Sequence[Box], places: NDArray[np.int64], chunk: ZYX, most: int
) -> list[tuple[Box, list[int]]]:
    """Return boxes that show many cells at once, each with its cells, in the order to read them."""
    everything = hull(boxes)
    if everything.size <= most:
        return [(everything, list(range(len(boxes))))]
    slabs: list[tuple[Box, list[int]]] = []
    for axes in ([], [1], [1, 2]):
        columns: dict[tuple[int, ...], list[int]] = {}
        for k, place in enumerate(places):
            columns.setdefault(tuple(place[axes]), []).append(k)
        slabs = []
        for column in columns.values():
            wide = hull(boxes[k] for k in column)
            for _, part in groupby(column, key=lambda k: int(places[k][0])):
                some = list(part)
                slabs.append((_slab(wide, hull(boxes[k] for k in some), chunk[0], most), some))
        if all(slab.size <= most for slab, _ in slabs):
            break
    return slabs


def _slab(wide: Box, inner: Box, layer: int, most: int) -> Box:
    """The planes of a box that another one within it needs; all of the last chunks', if it may."""
    first, last = inner.start[0], inner.stop[0]
    rounded = min(wide.stop[0], -(-last // layer) * layer)
    slab, larger = (Box((first, *wide.start[1:]), (n, *wide.stop[1:])) for n in (last, rounded))
    return larger if larger.size <= most else slab


def _chunks(box: Box, chunk: ZYX) -> int:
    """How many chunks a box meets."""
    spans = zip(box.start, box.stop, chunk, strict=True)
    return math.prod(-(-b // c) - a // c for a, b, c in spans) if box.size else 0


class _Planes:
    """Reads boxes; of one that follows another along z only the planes that are new.

    Parameters
    ----------
    read : callable
        Voxels of a box.
    """

    def __init__(self, read: Callable[[Box], NDArray[np.number]]) -> None:
        self._read = read
        self._box = Box((0, 0, 0), (0, 0, 0))
        self._voxels: NDArray[np.number] = np.empty((0, 0, 0))

    def fresh(self, box: Box) -> Box:
        """Return what of a box is not held."""
        shared = self._shared(box)
        return Box((shared.stop[0], *box.start[1:]), box.stop) if shared.size else box

    def read(self, box: Box) -> NDArray[np.number]:
        """Return the voxels of a box, and hold them."""
        if box == self._box:
            return self._voxels
        shared = self._shared(box)
        if not shared.size:
            voxels = self._read(box)
        else:
            voxels = self._voxels[shared.relative_to(self._box.start).slices]
            if shared != box:
                voxels = np.concatenate([voxels, self._read(self.fresh(box))])
        self._box, self._voxels = box, voxels
        return voxels

    def _shared(self, box: Box) -> Box:
        """What is held of the beginning of a box with the same rows and columns; else nothing."""
        held = self._box
        is_same = (held.start[1:], held.stop[1:]) == (box.start[1:], box.stop[1:])
        if not is_same or not held.start[0] <= box.start[0] < held.stop[0]:
            return Box(box.start, box.start)
        return Box(box.start, (min(held.stop[0], box.stop[0]), *box.stop[1:]))
