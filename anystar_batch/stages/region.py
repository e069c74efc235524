"""A region: the voxels of a label or mask in which objects are wanted, and whose region a point is.

A point lies where its voxel's centre lies, in micrometres as both files declare them. It has the
number of the region's nearest voxel, if that is less than one voxel away::

    region   |     0     |     3     |     3     |        voxels of the label, level 0
    image    . . . . . . . . . . . . . . . . . . . . . .   level-0 voxels: nearest centre

Level 0 of the label decides; its coarser levels, which lose what is small, are never read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.storage import files
from anystar_batch.errors import DataError, ImageError
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_triple, as_zyx
from anystar_batch.stages.sampling import level_position

EDGE = 128
"""Edge of what is read at once, voxels of the region, as far as its chunks allow."""

DIGITS = 6
"""Digits of a position, voxels of the region: what rounding adds never decides."""


INSET = 1e-3
"""So much within the image's faces a voxel of the region must lie, level-0 voxels."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where objects are wanted.

    Parameters
    ----------
    source : ImageSource
        The label or mask; its level 0 is read.
    name : str
        What a person calls it.
    ids : tuple of (first, last)
        Ranges of the numbers that count; none: every number but 0.
    content : str
        Digest of all that is stored of level 0.
    has_scale : bool
        Whether it says how large its voxels are.
    scale, offset : (z, y, x)
        Coordinate in the region = coordinate in level 0 of the image * `scale` + `offset`, voxels;
        see `placed`.
    """

    source: ImageSource
    name: str
    ids: tuple[tuple[int, int], ...]
    content: str
    has_scale: bool = True
    scale: ZYXFloat = (1.0, 1.0, 1.0)
    offset: ZYXFloat = (0.0, 0.0, 0.0)

    def time(self, time: int) -> int:
        """Return the region's time of a time of the image: one of its own serves all."""
        return time if self.source.num_times > 1 else 0

    def selects(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which numbers count as inside, in the shape given."""
        chosen: NDArray[np.bool_] = np.zeros(numbers.shape, np.bool_)
        if not self.ids:
            np.not_equal(numbers, 0, out=chosen)
        for first, last in self.ids:
            chosen |= (numbers >= first) & (numbers <= last)
        return chosen

    def index(self, axis: int, level0: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the nearest voxel on an axis, of coordinates in level 0; may lie outside."""
        return np.floor(self._position(axis, level0) + 0.5).astype(np.int64)

    def nearest(
        self, axis: int, level0: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the nearest voxel of the region on an axis, and whether it is near enough."""
        last = self.source.shape_zyx(0)[axis] - 1
        index = np.clip(self.index(axis, level0), 0, last)
        return index, np.abs(self._position(axis, level0) - index) < 1.0

    def _position(self, axis: int, level0: NDArray[np.float64]) -> NDArray[np.float64]:
        position: NDArray[np.float64] = np.round(
            np.asarray(level0, np.float64) * self.scale[axis] + self.offset[axis], DIGITS
        )
        return position

    def to_json(self) -> dict[str, object]:
        """Return what was decided of the region as plain JSON values."""
        ids = {"ids": [list(pair) for pair in self.ids]} if self.ids else {}
        place = {"scale": list(self.scale), "offset": list(self.offset)}
        return {"name": self.name, **ids, "content": self.content, **place}


def region_json(region: Region | None) -> dict[str, object]:
    """Return what a region adds to the parts of the fingerprint; nothing without one."""
    if region is None:
        return {}
    return {"inside": {"ids": [list(pair) for pair in region.ids], "content": region.content}}


def placed(
    region: Region, reader: ImageReader, reference: int, channel: int
) -> tuple[Region, int | None]:
    """Return a region that knows where it lies in the image.

    Parameters
    ----------
    region : Region
    reader : ImageReader
        The image.
    reference, channel : int
        Time and channel where to look for texture, if need be.

    Returns
    -------
    Region
    int or None
        Level of the image whose voxels are the region's own; None: by micrometres.

    Raises
    ------
    ImageError
        If the region does not say how large its voxels are, and has the shape of no level.

    Notes
    -----
    A region with the shape of a level lies where that level lies, if it says nothing of its own: no
    unit and no voxel size, or that level's voxel size and no translation (writers leave it out, and
    a coarser level lies half a voxel of its own further on).
    """
    image, mask = reader.source, region.source
    same = [k for k in range(len(image.levels)) if image.shape_zyx(k) == mask.shape_zyx(0)]
    size, position = _frame(region, image)
    says_nothing = not region.has_scale or (
        not any(mask.has_unit_zyx)
        and set(mask.scale_um(0)) == {1.0}
        and set(mask.translation_um(0)) == {0.0}
    )
    if not region.has_scale and not same:
        shapes = ", ".join(str(image.shape_zyx(k)) for k in range(len(image.levels)))
        message = (
            f"--inside {region.name}: an array of shape {mask.shape_zyx(0)} without a voxel size; "
            f"expected the shape of a level of the image ({shapes}), or an OME-Zarr image, which "
            "says where it lies"
        )
        raise ImageError(message)
    begins = image.translation_um(0)
    # Of the whole multiscale it may have the image's, or none either.
    ends = zip(position, begins, image.scale_um(0), strict=True)
    is_unmoved = not mask.levels[0].has_translation and (
        not any(position) or all(abs(p - b) < 1e-3 * s for p, b, s in ends)
    )
    for level in same:
        is_alike = np.allclose(size, image.scale_um(level), rtol=1e-3)
        if says_nothing or (is_alike and is_unmoved):
            at = level_position(reader, level, reference, channel)
            scale = as_triple(1.0 / s for s in at.step)
            offset = as_triple(0.0 - o / s for o, s in zip(at.offset, at.step, strict=True))
            return replace(region, scale=scale, offset=offset), level
    each = list(zip(image.scale_um(0), begins, size, position, strict=True))
    scale = as_triple(s / r for s, _, r, _ in each)
    return replace(region, scale=scale, offset=as_triple((b - p) / r for _, b, r, p in each)), None


def _frame(region: Region, image: ImageSource) -> tuple[ZYXFloat, ZYXFloat]:
    """Voxel size and position of voxel 0, micrometres; what has no unit is in the image's."""
    mask = region.source
    raw = [image.levels[0].scale[axis] for axis in image.space_axes]
    units = [
        1.0 if has else um / size
        for has, um, size in zip(mask.has_unit_zyx, image.scale_um(0), raw, strict=True)
    ]
    size, position = mask.scale_um(0), mask.translation_um(0)
    return (
        as_triple(s * u for s, u in zip(size, units, strict=True)),
        as_triple(p * u for p, u in zip(position, units, strict=True)),
    )


def extent(region: Region, image: ImageSource) -> Box:
    """Return which voxels of a region lie in the image, perhaps none.

    Parameters
    ----------
    region : Region
        Placed.
    image : ImageSource
    """
    shape = region.source.shape_zyx(0)
    spans = []
    for axis, (length, voxels) in enumerate(zip(image.shape_zyx(0), shape, strict=True)):
        first, last = region.index(axis, np.array([INSET - 0.5, length - 0.5 - INSET]))
        spans.append((max(0, int(first)), min(voxels, int(last) + 1)))
    return Box(as_zyx(a for a, _ in spans), as_zyx(b for _, b in spans))


def region_numbers(region: Region, time: int, level0: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return in which region points lie.

    Parameters
    ----------
    region : Region
        Placed.
    time : int
        Of the image.
    level0 : float64 [n, 3]
        Axes (z, y, x), coordinates in level 0 of the image, voxels.

    Returns
    -------
    int64 [n]
        Number of the region; 0 where there is none, or none that counts.

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded.
    """
    each = [region.nearest(axis, level0[:, axis]) for axis in range(3)]
    index = np.stack([at for at, _ in each], axis=1)
    rows = np.flatnonzero(np.logical_and.reduce([near for _, near in each]))
    numbers = np.zeros(len(level0), np.int64)
    reader, step = _reader(region.source), piece_step(region.source)
    _, group = np.unique(index[rows] // np.asarray(step), axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    firsts = np.flatnonzero(np.diff(group.reshape(-1)[order], prepend=-1))
    for some in np.split(rows[order], firsts[1:]) if len(rows) else []:
        low = index[some].min(axis=0)
        box = Box(as_zyx(low), as_zyx(index[some].max(axis=0) + 1))
        values = reader.read_box(0, region.time(time), 0, box)
        z, y, x = (index[some] - low).T
        numbers[some] = values[z, y, x].astype(np.int64)
    return np.where(region.selects(numbers), numbers, 0)


def region_lattice(
    region: Region, time: int, axes: Sequence[NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """Return which points of a lattice lie in a region.

    Parameters
    ----------
    region : Region
        Placed.
    time : int
        Of the image.
    axes : three of float64 [n]
        Ascending coordinates along z, y, x, in level 0 of the image, voxels.

    Returns
    -------
    bool (z, y, x)

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded.
    """
    each = [region.nearest(axis, values) for axis, values in enumerate(axes)]
    reader, step = _reader(region.source), piece_step(region.source)
    chosen = np.zeros([len(values) for values in axes], np.bool_)
    runs = [list(_runs(at // s)) for (at, _), s in zip(each, step, strict=True)]
    for places in itertools.product(*runs):
        local = [at[some] for (at, _), some in zip(each, places, strict=True)]
        box = Box(as_zyx(at[0] for at in local), as_zyx(at[-1] + 1 for at in local))
        values = region.selects(reader.read_box(0, region.time(time), 0, box))
        picks = np.ix_(*(at - at[0] for at in local))
        chosen[places] = values[picks]
    z, y, x = (near for _, near in each)
    chosen &= z[:, None, None] & y[None, :, None] & x[None, None, :]
    return chosen


def _runs(groups: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of equal neighbours."""
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
    yield from (slice(a, b) for a, b in itertools.pairwise(edges) if b > a)


def piece_step(source: ImageSource) -> ZYX:
    """Return the step of the lattice on which a region is read: whole chunks, about `EDGE` long."""
    return as_zyx(c * max(1, EDGE // c) for c in source.chunks_zyx(0))


@lru_cache(maxsize=4)
def _reader(source: ImageSource) -> ImageReader:
    """A reader whose arrays are opened once a process."""
    return ImageReader(source)


def region_content(source: ImageSource) -> str:
    """Return the digest of all that is stored of a region's level 0: metadata and chunks.

    Equal copies have equal digests; what was made anew has another. As long as no chunk changes its
    size or time, it is read once a process.

    Raises
    ------
    DataError
        If the storage does not say what is stored.
    """
    reader = ImageReader(source)
    keys = sorted(set(reader.stored_keys(0)))
    try:
        stored = files.statuses([f"{source.path}/{key}" for key in keys])
        return _content(source, tuple(zip(keys, stored, strict=True)))
    except OSError as error:
        message = f"{source.path}: what is stored cannot be read ({error.strerror}); run again"
        raise DataError(message) from error


@lru_cache(maxsize=8)
def _content(source: ImageSource, stored: tuple[tuple[str, object], ...]) -> str:
    """The digest, kept for stored chunks of these keys, sizes and times."""
    level = source.levels[0]
    axes = [[a.name, a.type, a.unit] for a in source.axes]
    shape = [level.shape, level.chunks, level.shards, level.dtype, level.scale, level.translation]
    fill = str(ImageReader(source).fill_value(0))
    digest = hashlib.sha256(json.dumps([axes, shape, fill]).encode())
    for key, _ in stored:
        data = files.read_bytes(f"{source.path}/{key}") or b""
        digest.update(json.dumps([key, len(data)]).encode() + data)
    return digest.hexdigest()[:32]
