"""Arrays of a Zarr store: describe, open, make; boxes in any order of axes.

Boxes are (z, y, x); the order of a stored array's axes is told by `space_axes`.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Literal

import numcodecs.blosc
import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray
from zarr.abc.store import Store

from anystar_batch.address import is_remote
from anystar_batch.archive.ngff import ArrayInfo, Axis
from anystar_batch.archive.nodes import kind_of, read_object
from anystar_batch.archive.storage import files, zip_index
from anystar_batch.archive.storage.files import output_error
from anystar_batch.archive.storage.zip_store import ZipStore
from anystar_batch.errors import DataError, ImageError, shorten
from anystar_batch.geometry import ZYX, Box

PIECE = 1 << 18
"""Bytes that Blosc compresses together; left to itself it takes smaller pieces."""

# Blosc splits its blocks by the number of threads: without this, bytes depend on the machine.
numcodecs.blosc.use_threads = False


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
    info = find_array(path, relative, zarr_format)
    if info is None:
        message = f"{path}: dataset {relative} is listed but its array is missing"
        raise ImageError(message)
    return info


def find_array(path: str, relative: str, zarr_format: Literal[2, 3]) -> ArrayInfo | None:
    """Read the metadata of one dataset like `array_info`; None if its array is missing.

    Raises
    ------
    ImageError
        If the array cannot be opened; DataError if it may be possible later.
    """
    name = ".zarray" if zarr_format == 2 else "zarr.json"
    document = read_object(f"{path}/{relative}/{name}")
    if document is None or document.get("node_type", "array") != "array":
        other = "zarr.json" if zarr_format == 2 else ".zarray"
        if document is None and files.exists(f"{path}/{relative}/{other}"):
            message = (
                f"{path}: dataset {relative} is listed but its array is missing; the image is Zarr "
                f"v{zarr_format}, and {other} there is of the other format; restore the files of "
                "one of them"
            )
            raise ImageError(message)
        return None
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
    store = store_of(path, read_only=mode == "r")
    try:
        if mode == "r" and isinstance(store, str):
            name = "zarr.json" if zarr_format == 3 else ".zarray"
            state = os.stat(f"{path}/{name}")  # noqa: PTH116
            seen = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
            return _opened(store, zarr_format, seen)
        return zarr.open_array(store, mode=mode, zarr_format=zarr_format)
    except Exception as error:
        message = (
            f"{path}: the array cannot be opened ({type(error).__name__}: {shorten(error)}); it "
            "was there before; see that its files are, and run again"
        )
        raise DataError(message) from error


@functools.lru_cache(maxsize=64)
def _opened(path: str, zarr_format: Literal[2, 3], _seen: tuple[int, ...]) -> zarr.Array[Any]:
    """A local array to read from; opened once while its metadata file stays as it is.

    Several stages look at an image, and opening its array was a tenth of what a small one costs.
    """
    return zarr.open_array(path, mode="r", zarr_format=zarr_format)


def store_of(path: str, *, read_only: bool) -> str | Store:
    """Return what zarr opens: the path itself, or the store of an address or of a zip file."""
    zipped = zip_index.split(path)
    if zipped is not None:
        return ZipStore(*zipped)
    if not is_remote(path):
        return path
    from anystar_batch.archive.storage.zarr_store import object_store  # noqa: PLC0415  (fsspec)

    return object_store(path, read_only=read_only)


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


def create_array(
    path: str,
    zarr_format: Literal[2, 3],
    info: ArrayInfo,
    dimension_names: tuple[str, ...],
    *,
    is_shuffled: bool = False,
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
    is_shuffled : bool
        Whether bytes of like weight are compressed together: measured numbers, not labels.

    Raises
    ------
    OutputError
        If the place cannot be written.

    Notes
    -----
    Compression is Zstandard at level 1 without shuffling, in large pieces: labels are runs of equal
    numbers, which shuffling takes apart (measured in `docs/performance.md`).
    """
    store = store_of(path, read_only=False)
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
                compressors=numcodecs.Blosc("zstd", 1, int(is_shuffled), PIECE),
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
                    cname="zstd",
                    clevel=1,
                    shuffle="shuffle" if is_shuffled else "noshuffle",
                    blocksize=PIECE,
                ),
            )
    except OSError as error:
        raise output_error(path, error) from error
