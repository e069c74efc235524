"""Images: describe them, read boxes of them, tell which of their chunks are stored, and as what.

Boxes and chunk indices are (z, y, x); the order of a stored array's axes stays in here.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from anystar_batch.address import is_remote
from anystar_batch.archive import metadata
from anystar_batch.archive.arrays import array_info, axis_index, find_array, open_array, to_zyx
from anystar_batch.archive.names import multiscale_index, multiscale_names, numbered
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.nodes import Node, read_root
from anystar_batch.archive.storage import files
from anystar_batch.errors import DataError, ImageError, shorten
from anystar_batch.geometry import ZYX, Box, grid_box, grid_range, grid_shape

MOST_ASKED = 20_000
"""Most chunks of a level that a web server is asked for one by one."""

MOST_KNOWN = 200_000
"""Chunks whose status a `OneLookReader` remembers: some 50 MB."""


class ImageReader:
    """Read boxes of an image; arrays are opened on first use, once in every process.

    Parameters
    ----------
    source : ImageSource
        The image. It is all that pickling carries.
    """

    __slots__ = ("_arrays", "source")

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self._arrays: dict[int, zarr.Array[Any]] = {}

    def __reduce__(self) -> tuple[type[ImageReader], tuple[ImageSource]]:
        """Pickle the description only: open arrays stay in their process."""
        return ImageReader, (self.source,)

    def _array(self, level: int) -> zarr.Array[Any]:
        array = self._arrays.get(level)
        if array is None:
            path = f"{self.source.path}/{self.source.levels[level].path}"
            array = self._arrays[level] = open_array(path, self.source.zarr_format, "r")
        return array

    def read_box(self, level: int, t: int, c: int, box: Box) -> NDArray[Any]:
        """Read the voxels of a box.

        Parameters
        ----------
        level, t, c : int
            Level, time and channel; 0 where the image has no such axis.
        box : Box
            Voxels of that level, inside the image.

        Returns
        -------
        (z, y, x)
            The image's own type in native byte order, C-contiguous; bool becomes `uint8`. Chunks
            that are not stored give the fill value.

        Raises
        ------
        DataError
            If a stored chunk cannot be decoded.
        ValueError
            If the box is not inside the level.
        """
        source = self.source
        shape = source.shape_zyx(level)
        if box.intersect(Box.of_shape(shape)) != box:
            message = f"{source.path}: {box} is not inside level {level} of shape {shape}"
            raise ValueError(message)
        index = axis_index(source.axes, source.space_axes, t, c, box)
        array = self._array(level)
        try:
            values = np.asarray(array[index])
        except Exception as error:
            # The number of an error of a store says nothing to a user.
            why = (
                error.strerror
                if isinstance(error, OSError)
                and (is_remote(source.path) or files.is_zipped(source.path))
                else f"{type(error).__name__}: {shorten(error)}"
            )
            message = (
                f"{source.path}: level {source.levels[level].path}, t {t}, channel {c}, {box}: "
                f"the stored data cannot be read ({why}); restore it from its source and run again"
            )
            raise DataError(message) from error
        values = to_zyx(values, source.space_axes)
        return np.ascontiguousarray(values, dtype=np.dtype(source.levels[level].dtype))

    def chunk_exists(self, level: int, t: int, c: int, index: ZYX) -> bool:
        """Return whether a storage object (shard, or chunk without shards) is stored.

        Parameters
        ----------
        level, t, c : int
            Level, time and channel.
        index : (z, y, x)
            Index on the lattice of `source.storage_zyx(level)`.
        """
        path = f"{self.source.path}/{self._key(level, t, c, index)}"
        with _named(self.source.path):
            return files.exists(path)

    def existing_chunks(self, level: int, t: int, c: int) -> Iterator[tuple[ZYX, Box]]:
        """Yield index and box of every stored storage object of one time and channel.

        The directories are listed, so the cost goes with what is stored, not with what the
        metadata claims. Order: by index, in the order of the image's own axes. A web server cannot
        list: it is asked for every object, of few.

        Parameters
        ----------
        level, t, c : int
            Level, time and channel.

        Yields
        ------
        index : (z, y, x)
            On the lattice of `source.storage_zyx(level)`.
        box : Box
            Its voxels, clipped to the level.

        Raises
        ------
        DataError
            If the storage does not say what is stored.
        """
        source = self.source
        shape, step = source.shape_zyx(level), source.storage_zyx(level)
        counts = grid_shape(shape, step)
        origin = self._coordinates(level, t, c, (0, 0, 0))
        fixed = {i: origin[i] for i in range(len(source.axes)) if i not in set(source.space_axes)}
        if not files.is_listable(source.path):
            yield from self._asked_chunks(level, t, c)
            return
        folder, separator, prefix = self._key_parts(level)
        with _named(source.path):
            for coordinates in _stored_coordinates(folder, prefix, separator, len(origin), fixed):
                z, y, x = (coordinates[i] for i in source.space_axes)
                if z < counts[0] and y < counts[1] and x < counts[2]:
                    yield (z, y, x), grid_box((z, y, x), step, shape)

    def _asked_chunks(self, level: int, t: int, c: int) -> Iterator[tuple[ZYX, Box]]:
        """Yield what `existing_chunks` does, in the same order, asking for one object each."""
        source = self.source
        shape, step = source.shape_zyx(level), source.storage_zyx(level)
        counts = grid_shape(shape, step)
        if math.prod(counts) > MOST_ASKED:
            message = (
                f"{source.path}: few of the chunks of level {source.levels[level].path} that were "
                f"asked for are stored, and a web server cannot list the others of "
                f"{math.prod(counts)} (expected at most {MOST_ASKED}); give the s3:// or gs:// "
                "address, or copy the image"
            )
            raise DataError(message)
        order = np.argsort(source.space_axes)
        for ordered in itertools.product(*(range(counts[i]) for i in order)):
            by_axis = dict(zip(order, ordered, strict=True))
            index = (by_axis[0], by_axis[1], by_axis[2])
            if self.chunk_exists(level, t, c, index):
                yield index, grid_box(index, step, shape)

    def stored_keys(self, level: int) -> Iterator[str]:
        """Yield the key of every stored storage object of a level, below the image's root.

        Parameters
        ----------
        level : int
            All its times and channels; an object that holds several of them may come more than
            once.

        Raises
        ------
        DataError
            If the storage does not say what is stored.
        """
        source = self.source
        for t, c in itertools.product(range(source.num_times), range(source.num_channels)):
            for index, _ in self.existing_chunks(level, t, c):
                yield self._key(level, t, c, index)

    def fill_value(self, level: int) -> float:
        """Return what a level has where nothing is stored; 0 if it does not say."""
        return float(self._array(level).fill_value or 0)

    def identities(self, level: int, t: int, c: int, box: Box) -> list[tuple[str, int, int | str]]:
        """Return what tells the stored content under a box from an edited one.

        Parameters
        ----------
        level, t, c : int
            Level, time and channel.
        box : Box
            Voxels of that level.

        Returns
        -------
        list of (key, size, time or tag)
            One for every stored shard (or chunk) that shares a voxel with the box: key below the
            image's root, bytes, time of the last change in nanoseconds or what the store has
            instead. What is not stored is not listed, so a chunk that comes or goes changes the
            list.
        """
        step = self.source.storage_zyx(level)
        counts = grid_shape(self.source.shape_zyx(level), step)
        keys = [self._key(level, t, c, index) for index in grid_range(box, step, counts)]
        return [(key, *status) for key, status in self._statuses(keys) if status]

    def _statuses(self, keys: list[str]) -> Iterable[tuple[str, tuple[int, int | str] | None]]:
        """Ask what tells contents from earlier ones; keys in order, None for what is not stored."""
        with _named(self.source.path):
            stored = files.statuses([f"{self.source.path}/{key}" for key in keys])
        return zip(keys, stored, strict=True)

    def _coordinates(self, level: int, t: int, c: int, index: ZYX) -> tuple[int, ...]:
        """Return the index on the stored lattice, in the image's axes."""
        source = self.source
        step = source.levels[level].shards or source.levels[level].chunks
        coordinates = [0] * len(source.axes)
        for axis, i in zip(source.space_axes, index, strict=True):
            coordinates[axis] = i
        if source.t_axis is not None:
            coordinates[source.t_axis] = t // step[source.t_axis]
        if source.c_axis is not None:
            coordinates[source.c_axis] = c // step[source.c_axis]
        return tuple(coordinates)

    def _key(self, level: int, t: int, c: int, index: ZYX) -> str:
        """Return the key of a storage object, below the image."""
        coordinates = self._coordinates(level, t, c, index)
        key = self._array(level).metadata.encode_chunk_key(coordinates)
        return f"{self.source.levels[level].path}/{key}"

    def _key_parts(self, level: int) -> tuple[str, str, str]:
        """Return folder, separator and the prefix of the first part of the chunk keys."""
        folder = f"{self.source.path}/{self.source.levels[level].path}"
        # Encoded keys of two dimensions show both: `c/7/8`, `c.7.8`, `7.8` or `7/8`.
        ndim = len(self.source.axes)
        key = self._array(level).metadata.encode_chunk_key((7,) * ndim)
        separator = "/" if "/7" in key.removeprefix("c/7") else "."
        if not key.startswith("c"):
            return folder, separator, ""
        return (f"{folder}/c", separator, "") if separator == "/" else (folder, separator, "c.")


class OneLookReader(ImageReader):
    """A reader that asks for a chunk's status once, for boxes that share chunks: one look at all.

    What it says of a chunk is what was stored when it first asked; `MOST_KNOWN` are remembered.

    Parameters
    ----------
    source : ImageSource
        The image.
    """

    __slots__ = ("_known",)

    def __init__(self, source: ImageSource) -> None:
        super().__init__(source)
        self._known: dict[str, tuple[int, int | str] | None] = {}

    def _statuses(self, keys: list[str]) -> Iterable[tuple[str, tuple[int, int | str] | None]]:
        known = self._known
        if len(known) > MOST_KNOWN:
            for key in list(itertools.islice(known, len(known) // 2)):
                del known[key]
        known.update(super()._statuses([key for key in keys if key not in known]))
        return [(key, known[key]) for key in keys]


def _stored_coordinates(
    folder: str, prefix: str, separator: str, ndim: int, fixed: dict[int, int]
) -> Iterator[tuple[int, ...]]:
    """Yield the lattice index of every chunk file, sorted; `fixed` axes at one index only."""
    if separator == "/":
        yield from _walk_chunks(folder, (), ndim, fixed)
        return
    indices = []
    for name in files.names(folder):
        parts = name.removeprefix(prefix).split(".") if name.startswith(prefix) else []
        if len(parts) == ndim and all(p.isdecimal() for p in parts):
            index = tuple(map(int, parts))
            if all(index[axis] == i for axis, i in fixed.items()):
                indices.append(index)
    yield from sorted(indices)


def _walk_chunks(
    folder: str, above: tuple[int, ...], ndim: int, fixed: dict[int, int]
) -> Iterator[tuple[int, ...]]:
    """Descend one axis of a nested chunk layout."""
    axis = len(above)
    if axis == ndim:
        yield above
        return
    if axis in fixed:
        indices = [fixed[axis]] if files.exists(f"{folder}/{fixed[axis]}") else []
    else:
        indices = sorted(int(name) for name in files.names(folder) if name.isdecimal())
    for i in indices:
        yield from _walk_chunks(f"{folder}/{i}", (*above, i), ndim, fixed)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn what a store says while it is asked for chunks into an error that names the image."""
    try:
        yield
    except OSError as error:
        message = f"{path}: the storage does not say what is stored ({error.strerror}); run again"
        raise DataError(message) from error


def read_image(path: str, multiscale: str | int | None = None) -> ImageSource:
    """Read and check the description of one image.

    Parameters
    ----------
    path : str
        Path or address of an image: one of `find_images`.
    multiscale : str or int, optional
        One of several multiscales of its group: name or index as typed, or the index; None is the
        first.

    Returns
    -------
    ImageSource

    Raises
    ------
    ImageError
        If it is not an image that can be segmented.
    ConfigError
        If there is no such multiscale.
    """
    path, node = read_root(path)
    ome = metadata.all_attributes(node.attributes, node.zarr_format)
    names = multiscale_names(ome.get("multiscales"))
    index = multiscale_index(names, multiscale)
    try:
        return _read_multiscale(path, node, index)
    except ImageError as error:
        if len(names) < 2:
            raise
        others = numbered(names, but=index)
        message = f"{error}; the group has further multiscales, for --multiscale: {others}"
        raise type(error)(message) from error


def _read_multiscale(path: str, node: Node, index: int) -> ImageSource:
    """Read and check one multiscale of an image's group."""
    _, multiscales = metadata.multiscales_of(path, node.attributes, node.zarr_format, index)
    first, *others = metadata.dataset_paths(path, multiscales)
    arrays = [
        array_info(path, first, node.zarr_format),
        *(find_array(path, relative, node.zarr_format) for relative in others),
    ]
    return metadata.image_source(
        path,
        node.attributes,
        node.zarr_format,
        arrays,
        was_consolidated=node.was_consolidated,
        multiscale=index,
    )
