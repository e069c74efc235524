"""The one door to Zarr: read images box by box, make arrays.

Boxes and chunk indices are (z, y, x); the order of a stored array's axes stays in here. Metadata
documents are read as files, in `nodes`; whole-or-absent writing is in `files`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numcodecs.blosc
import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray
from zarr.abc.store import Store

from anystar_batch.address import is_read_only, is_remote, normal
from anystar_batch.archive import documents, files, remote
from anystar_batch.archive.files import (
    PARTIAL,
    check_writable,
    output_error,
    sync_directory,
    write_bytes_atomic,
    write_json_atomic,
)
from anystar_batch.archive.ngff import JSON, ArrayInfo, Axis, ImageSource
from anystar_batch.archive.nodes import (
    Node,
    find_images,
    is_consolidated,
    kind_of,
    local_path,
    read_node,
    read_object,
    read_root,
    write_attributes,
)
from anystar_batch.errors import DataError, ImageError, shorten
from anystar_batch.geometry import ZYX, Box, grid_box, grid_range, grid_shape

__all__ = [
    "PARTIAL",
    "ImageReader",
    "Node",
    "array_info",
    "axis_index",
    "check_writable",
    "consolidate",
    "create_array",
    "find_images",
    "from_zyx",
    "is_consolidated",
    "local_path",
    "metadata_fingerprint",
    "open_array",
    "output_error",
    "read_image",
    "read_node",
    "sync_directory",
    "to_zyx",
    "write_attributes",
    "write_bytes_atomic",
    "write_json_atomic",
]

PIECE = 1 << 18
"""Bytes that Blosc compresses together; left to itself it takes smaller pieces."""

MOST_ASKED = 20_000
"""Most chunks of a level that a web server is asked for one by one."""

# Blosc splits its blocks by the number of threads: without this, bytes depend on the machine.
numcodecs.blosc.use_threads = False


def read_image(path: str) -> ImageSource:
    """Read and check the description of one image.

    Parameters
    ----------
    path : str
        Path or address of an image: one of `find_images`.

    Returns
    -------
    ImageSource

    Raises
    ------
    ImageError
        If it is not an image that can be segmented.
    """
    path = normal(path)
    node = read_root(path)
    _, multiscales = documents.multiscales_of(path, node.attributes, node.zarr_format)
    arrays = [
        array_info(path, relative, node.zarr_format)
        for relative in documents.dataset_paths(path, multiscales)
    ]
    return documents.image_source(
        path,
        node.attributes,
        node.zarr_format,
        arrays,
        was_consolidated=node.was_consolidated,
    )


def array_info(path: str, relative: str, zarr_format: Literal[2, 3]) -> ArrayInfo:
    """Read the metadata of one dataset.

    Parameters
    ----------
    path, relative : str
        The image, and the dataset's path below it.
    zarr_format : {2, 3}
        Format of the image.

    Returns
    -------
    ArrayInfo

    Raises
    ------
    ImageError
        If the array is missing or cannot be opened; DataError if it may be possible later.
    """
    name = ".zarray" if zarr_format == 2 else "zarr.json"
    document = read_object(f"{path}/{relative}/{name}")
    if document is None or document.get("node_type", "array") != "array":
        message = f"{path}: dataset {relative} is listed but its array is missing"
        raise ImageError(message)
    try:
        array = open_array(f"{path}/{relative}", zarr_format, "r")
        shards = array.shards
        return ArrayInfo(
            shape=tuple(map(int, array.shape)),
            chunks=tuple(map(int, array.chunks)),
            shards=None if shards is None else tuple(map(int, shards)),
            dtype=str(np.dtype(array.dtype)),
        )
    except Exception as error:
        cause = error.__cause__ if isinstance(error, DataError) and error.__cause__ else error
        message = f"{path}: the array of dataset {relative} cannot be opened: {shorten(cause)}"
        raise kind_of(cause)(message) from error


def open_array(path: str, zarr_format: Literal[2, 3], mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open one array of a store.

    Raises
    ------
    DataError
        If it cannot be opened: it was there when its image, or its label, was looked at.
    """
    store = _store(path, read_only=mode == "r")
    try:
        return zarr.open_array(store, mode=mode, zarr_format=zarr_format)
    except Exception as error:
        message = (
            f"{path}: the array cannot be opened ({type(error).__name__}: {shorten(error)}); it "
            "was there before; see that its files are, and run again"
        )
        raise DataError(message) from error


def _store(path: str, *, read_only: bool) -> str | Store:
    """Return what zarr opens: the path itself, or the store of an address."""
    if not is_remote(path):
        return path
    from anystar_batch.archive.objects import object_store  # noqa: PLC0415  (fsspec)

    return object_store(path, read_only=read_only)


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
                if is_remote(source.path) and isinstance(error, OSError)
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
        wanted = self._coordinates(level, t, c, (0, 0, 0))
        fixed = {i: wanted[i] for i in range(len(source.axes)) if i not in set(source.space_axes)}
        if is_read_only(source.path):
            yield from self._asked_chunks(level, t, c)
            return
        folder, separator, prefix = self._key_parts(level)
        with _named(source.path):
            for coordinates in _stored_coordinates(folder, prefix, separator, len(wanted), fixed):
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
        found: list[tuple[str, int, int | str]] = []
        if is_remote(self.source.path):
            with _named(self.source.path):
                stored = remote.statuses([f"{self.source.path}/{key}" for key in keys])
            return [(key, *at) for key, at in zip(keys, stored, strict=True) if at is not None]
        for key in keys:
            try:
                status = Path(self.source.path, key).stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            found.append((key, status.st_size, status.st_mtime_ns))
        return found

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


def _stored_coordinates(
    folder: str, prefix: str, separator: str, ndim: int, fixed: dict[int, int]
) -> Iterator[tuple[int, ...]]:
    """Yield the lattice index of every chunk file, sorted; `fixed` axes at one index only."""
    if separator == "/":
        yield from _walk_chunks(folder, (), ndim, fixed)
        return
    found = []
    for name in files.names(folder):
        parts = name.removeprefix(prefix).split(".") if name.startswith(prefix) else []
        if len(parts) == ndim and all(p.isdecimal() for p in parts):
            index = tuple(map(int, parts))
            if all(index[axis] == i for axis, i in fixed.items()):
                found.append(index)
    yield from sorted(found)


def _walk_chunks(
    folder: str, above: tuple[int, ...], ndim: int, fixed: dict[int, int]
) -> Iterator[tuple[int, ...]]:
    """Descend one axis of a nested chunk layout."""
    axis = len(above)
    if axis == ndim:
        yield above
        return
    if axis in fixed:
        found = [fixed[axis]] if files.exists(f"{folder}/{fixed[axis]}") else []
    else:
        found = sorted(int(name) for name in files.names(folder) if name.isdecimal())
    for i in found:
        yield from _walk_chunks(f"{folder}/{i}", (*above, i), ndim, fixed)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn what a store says while it is asked for chunks into an error that names the image."""
    try:
        yield
    except OSError as error:
        message = f"{path}: the storage does not say what is stored ({error.strerror}); run again"
        raise DataError(message) from error


def axis_index(
    axes: tuple[Axis, ...], space_axes: ZYX, t: int, c: int, box: Box
) -> tuple[int | slice, ...]:
    """Return the index of a box in an array whose axes are in any order."""
    index: list[int | slice] = [t if a.type == "time" else c for a in axes]
    for axis, where in zip(space_axes, box.slices, strict=True):
        index[axis] = where
    return tuple(index)


def to_zyx(values: NDArray[Any], space_axes: ZYX) -> NDArray[Any]:
    """Return an array of three stored spatial axes as (z, y, x)."""
    order = sorted(space_axes)
    return values.transpose([order.index(a) for a in space_axes])


def from_zyx(values: NDArray[Any], space_axes: ZYX) -> NDArray[Any]:
    """Return a (z, y, x) array with its axes as they are stored."""
    order = sorted(space_axes)
    return values.transpose([space_axes.index(a) for a in order])


def metadata_fingerprint(source: ImageSource) -> JSON:
    """Return what the result depends on of an image's metadata: not its place, name or version.

    Parameters
    ----------
    source : ImageSource
        The image.

    Returns
    -------
    dict
        JSON-able: axes, channels (they name columns), and of every level shape, type, chunking and
        transforms.
    """
    return {
        "axes": [[a.name, a.type, a.unit] for a in source.axes],
        "channels": list(source.channels),
        "levels": [
            {
                "path": level.path,
                "shape": list(level.shape),
                "dtype": level.dtype,
                "chunks": list(level.chunks),
                "shards": None if level.shards is None else list(level.shards),
                "scale": list(level.scale),
                "translation": list(level.translation),
                "has_translation": level.has_translation,
            }
            for level in source.levels
        ],
    }


def create_array(
    path: str, zarr_format: Literal[2, 3], info: ArrayInfo, dimension_names: tuple[str, ...]
) -> None:
    """Create an array that reads as 0 everywhere; its metadata is a function of the arguments.

    Parameters
    ----------
    path : str
        Its directory; made with its parents.
    zarr_format : {2, 3}
        Format.
    info : ArrayInfo
        Shape, chunks, shards and type.
    dimension_names : tuple of str
        Names of the axes, stored in Zarr v3.

    Raises
    ------
    OutputError
        If the place cannot be written.

    Notes
    -----
    Compression is Zstandard at level 1 without shuffling, in large pieces: labels are runs of equal
    numbers, which shuffling takes apart (measured in `docs/performance.md`).
    """
    store = _store(path, read_only=False)
    try:
        if zarr_format == 2:
            zarr.create_array(
                store,
                shape=info.shape,
                dtype=info.dtype,
                chunks=info.chunks,
                fill_value=0,
                zarr_format=2,
                chunk_key_encoding={"name": "v2", "separator": "/"},
                compressors=numcodecs.Blosc("zstd", 1, numcodecs.Blosc.NOSHUFFLE, PIECE),
            )
        else:
            zarr.create_array(
                store,
                shape=info.shape,
                dtype=info.dtype,
                chunks=info.chunks,
                shards=info.shards,
                fill_value=0,
                zarr_format=3,
                dimension_names=dimension_names,
                compressors=zarr.codecs.BloscCodec(
                    cname="zstd", clevel=1, shuffle="noshuffle", blocksize=PIECE
                ),
            )
    except OSError as error:
        raise output_error(path, error) from error


def consolidate(path: str, zarr_format: Literal[2, 3]) -> None:
    """Rewrite the consolidated metadata of a group, so that readers who trust it see new labels.

    Hidden groups of runs that are not finished are left out, as they are from every other list.

    Parameters
    ----------
    path : str
        The group.
    zarr_format : {2, 3}
        Its format.
    """
    with warnings.catch_warnings():
        # Consolidated metadata is outside the v3 specification; here it was there already.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(_store(path, read_only=False), zarr_format=zarr_format)
    file = f"{path}/{'.zmetadata' if zarr_format == 2 else 'zarr.json'}"
    document = json.loads(files.read_bytes(file) or b"{}")
    holder = document if zarr_format == 2 else document["consolidated_metadata"]
    shown = {
        key: value
        for key, value in holder["metadata"].items()
        if not any(
            part.startswith(".") for part in key.split("/")[: -1 if zarr_format == 2 else None]
        )
    }
    if shown != holder["metadata"]:
        holder["metadata"] = shown
        write_json_atomic(file, document)
