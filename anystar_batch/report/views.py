"""What is shown of a volume: projections and middle slices, read slab by slab from a coarse level.

Memory holds one slab and the flat pictures; how many voxels are read at most is fixed, whatever the
volume. Where no level is small enough, the middle of the coarsest one is shown, and said so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.label_image import LabelWriter, label_spec
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx

FINE_EDGE = 640
"""A level with so many voxels along its longest edge is fine enough for a page."""

MOST_VOXELS = 32 * 10**6
"""Largest level that is shown whole; of a larger one, so many voxels around its middle."""

SLAB = 4 * 10**6
"""Voxels read at a time, unless a plane of chunks has more."""

SMALL = 2 * 10**6
"""Level that is read whole for many crops: a small image is mostly what reading it costs."""

Flat = NDArray[Any]
"""A picture, (rows, columns)."""


Read = Callable[[int, int, Box], tuple[Flat, NDArray[np.uint32]]]
"""Image and labels, (z, y, x), of a level, a time and a box."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The three sides of a volume: (z out of sight) xy, (y) xz, (x) zy.

    Parameters
    ----------
    xy : (y, x)
    xz : (z, x)
    zy : (y, z)
        As seen from the right, so that its rows are those of `xy`.
    """

    xy: Flat
    xz: Flat
    zy: Flat


@dataclass(frozen=True, slots=True)
class Views:
    """What is shown.

    Parameters
    ----------
    level : int
        Level that was read.
    box : Box
        What of it, voxels of the level.
    is_whole : bool
        Whether that is all of it.
    scale_um : (z, y, x)
        Micrometres per voxel of the level.
    time : int
        Time point.
    is_dark : bool
        Whether the objects are darker than their surroundings; projections are then of the least.
    projection, projection_labels : Pictures
        Extreme intensity along each axis, and the label met first.
    slices, slice_labels : Pictures
        The planes through the middle.
    """

    level: int
    box: Box
    is_whole: bool
    scale_um: ZYXFloat
    time: int
    is_dark: bool
    projection: Pictures
    projection_labels: Pictures
    slices: Pictures
    slice_labels: Pictures


@dataclass(frozen=True, slots=True)
class Volume:
    """An image and its label, read by boxes of a level.

    Parameters
    ----------
    source : ImageSource
        The image.
    label : str
        The label's group.
    channel : int
        Channel shown.
    scale_um : (z, y, x)
        Micrometres per voxel of level 0, as the run took it.
    """

    source: ImageSource
    label: str
    channel: int
    scale_um: ZYXFloat

    def reader(self) -> Read:
        """Return a function of level, time and box that gives image and labels, (z, y, x).

        A small level is read once, as long as the same time is asked for.
        """
        image = ImageReader(self.source)
        labels = LabelWriter(self.label, label_spec(self.source))

        def stored(level: int, time: int, box: Box) -> tuple[Flat, NDArray[np.uint32]]:
            voxels = image.read_box(level, time, self.channel, box).astype(np.float32)
            return np.nan_to_num(voxels), labels.read_box(level, time, box)

        @lru_cache(maxsize=2)
        def whole(level: int, time: int) -> tuple[Flat, NDArray[np.uint32]]:
            return stored(level, time, Box.of_shape(self.source.shape_zyx(level)))

        def read(level: int, time: int, box: Box) -> tuple[Flat, NDArray[np.uint32]]:
            if math.prod(self.source.shape_zyx(level)) > SMALL:
                return stored(level, time, box)
            voxels, names = whole(level, time)
            return voxels[box.slices].copy(), names[box.slices].copy()

        return read

    def step(self, level: int) -> ZYXFloat:
        """Return level-0 voxels per voxel of a level."""
        fine, coarse = self.source.scale_um(0), self.source.scale_um(level)
        z, y, x = (c / f for c, f in zip(coarse, fine, strict=True))
        return z, y, x

    def voxel_um(self, level: int) -> ZYXFloat:
        """Return micrometres per voxel of a level."""
        z, y, x = (s * f for s, f in zip(self.scale_um, self.step(level), strict=True))
        return z, y, x


def see(volume: Volume, time: int) -> Views:
    """Read what is shown of a volume.

    Parameters
    ----------
    volume : Volume
    time : int
        Time point.

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded.
    """
    source = volume.source
    chosen, box = shown_box([source.shape_zyx(k) for k in source.readable])
    level = source.readable[chosen]
    read = volume.reader()
    depth = _slab_depth(source, level, box)
    middle = as_zyx((a + b) // 2 for a, b in zip(box.start, box.stop, strict=True))
    plane = Box((middle[0], *box.start[1:]), (middle[0] + 1, *box.stop[1:]))
    is_dark = _is_dark(*read(level, time, plane))
    shape = box.shape
    worst = np.inf if is_dark else -np.inf
    extreme = np.minimum if is_dark else np.maximum
    projection = _blank(shape, worst, np.float32)
    names = _blank(shape, 0, np.uint32)
    slices, cut = _blank(shape, 0, np.float32), _blank(shape, 0, np.uint32)
    y, x = (middle[a] - box.start[a] for a in (1, 2))
    for first in range(box.start[0], box.stop[0], depth):
        last = min(first + depth, box.stop[0])
        image, labels = read(level, time, Box((first, *box.start[1:]), (last, *box.stop[1:])))
        rows = slice(first - box.start[0], last - box.start[0])
        extreme(projection.xy, extreme.reduce(image, axis=0), out=projection.xy)
        projection.xz[rows] = extreme.reduce(image, axis=1)
        projection.zy[:, rows] = extreme.reduce(image, axis=2).T
        np.copyto(names.xy, _met_first(labels, 0), where=names.xy == 0)
        names.xz[rows] = _met_first(labels, 1)
        names.zy[:, rows] = _met_first(labels, 2).T
        slices.xz[rows], cut.xz[rows] = image[:, y], labels[:, y]
        slices.zy[:, rows], cut.zy[:, rows] = image[:, :, x].T, labels[:, :, x].T
        if first <= middle[0] < last:
            slices.xy[:], cut.xy[:] = image[middle[0] - first], labels[middle[0] - first]
    return Views(
        level=level,
        box=box,
        is_whole=box == Box.of_shape(source.shape_zyx(level)),
        scale_um=volume.voxel_um(level),
        time=time,
        is_dark=is_dark,
        projection=projection,
        projection_labels=names,
        slices=slices,
        slice_labels=cut,
    )


def shown_box(shapes: list[ZYX]) -> tuple[int, Box]:
    """Return the level to show, and what of it.

    Parameters
    ----------
    shapes : list of (z, y, x)
        Voxels of every level.

    Returns
    -------
    int
        The coarsest level that is fine enough, if it is small enough; else the finest of those that
        are; else the coarsest of all.
    Box
        All of it, or `MOST_VOXELS` around its middle.

    Examples
    --------
    >>> shown_box([(4000, 8000, 8000), (1000, 2000, 2000), (250, 500, 500)])[0]
    2
    >>> shown_box([(60, 700, 700), (60, 350, 350)])[0]
    0
    """
    sizes = [float(np.prod(shape, dtype=np.float64)) for shape in shapes]
    small = [k for k, size in enumerate(sizes) if size <= MOST_VOXELS]
    fine = [k for k in small if max(shapes[k]) >= FINE_EDGE]
    level = max(fine) if fine else min(small, default=len(shapes) - 1)
    shape = list(shapes[level])
    while np.prod(shape, dtype=np.float64) > MOST_VOXELS:
        longest = shape.index(max(shape))
        shape[longest] = max(1, shape[longest] * 7 // 8)
    start = as_zyx((n - s) // 2 for n, s in zip(shapes[level], shape, strict=True))
    return level, Box(start, as_zyx(a + s for a, s in zip(start, shape, strict=True)))


def _slab_depth(source: ImageSource, level: int, box: Box) -> int:
    """Planes to read at a time: whole chunks, so that none is decoded twice, as far as it goes."""
    chunk = source.chunks_zyx(level)[0]
    plane = box.shape[1] * box.shape[2]
    planes = max(1, SLAB // plane)
    return planes // chunk * chunk if planes >= chunk else max(planes, min(chunk, 2 * planes))


def _blank(shape: ZYX, value: float, dtype: type) -> Pictures:
    z, y, x = shape
    return Pictures(*(np.full(s, value, dtype) for s in ((y, x), (z, x), (y, z))))


def _met_first(labels: NDArray[np.uint32], axis: int) -> NDArray[np.uint32]:
    """The label met first along an axis: its outline is whole."""
    where = np.expand_dims((labels > 0).argmax(axis=axis), axis)
    return np.take_along_axis(labels, where, axis).squeeze(axis)


def _is_dark(image: Flat, labels: NDArray[np.uint32]) -> bool:
    """Whether what is labelled is darker than what is not."""
    inside = labels > 0
    if inside.all() or not inside.any():
        return False
    return bool(np.median(image[inside]) < np.median(image[~inside]))
