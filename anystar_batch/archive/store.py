"""The one door to Zarr: find and read images, make arrays, write files that are whole or absent.

Metadata documents are read as the JSON files they are: it names the truncated one, sees the root
attributes past any consolidated copy and costs no import. Arrays go through zarr-python. Boxes and
chunk indices are (z, y, x); the order of a stored array's axes does not leave this module.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numcodecs.blosc
import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from anystar_batch.archive import ngff
from anystar_batch.archive.ngff import JSON, ArrayInfo, ImageSource
from anystar_batch.errors import ImageError, OutputError
from anystar_batch.geometry import ZYX, Box, grid_box, grid_range, grid_shape

# Blosc splits its blocks by the number of threads: without this, bytes depend on the machine.
numcodecs.blosc.use_threads = False

PARTIAL = ".partial"
"""Suffix of files being written, ours and zarr-python's."""


@dataclass(frozen=True, slots=True)
class Node:
    """A Zarr group or array, as its metadata files describe it.

    Parameters
    ----------
    zarr_format : {2, 3}
        Format of the metadata files.
    kind : {"group", "array"}
        What the node is.
    attributes : dict
        User attributes, from the node's own files.
    was_consolidated : bool
        Whether the node carries a consolidated copy of the metadata below it.
    """

    zarr_format: Literal[2, 3]
    kind: str
    attributes: JSON
    was_consolidated: bool


def local_path(path: str) -> str:
    """Return a path of the local file system, without `file://` and trailing slashes.

    zarr-python opens `file://` through fsspec, which writes in place: a killed writer would leave
    half a chunk.

    Raises
    ------
    ImageError
        If the path is the address of a remote store.
    """
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if "://" in path:
        message = f"{path}: remote stores cannot be read yet; copy the image to a local disk"
        raise ImageError(message)
    return path.rstrip("/") or "/"


def read_node(path: str) -> Node | None:
    """Read the metadata files of a Zarr node.

    Parameters
    ----------
    path : str
        Local directory.

    Returns
    -------
    Node or None
        None if the directory is no Zarr node.

    Raises
    ------
    ImageError
        If a metadata file is truncated or no JSON object.
    """
    root = Path(path)
    document = _read_object(root / "zarr.json")
    if document is not None:
        attributes = document.get("attributes")
        return Node(
            zarr_format=3,
            kind=str(document.get("node_type")),
            attributes=attributes if isinstance(attributes, dict) else {},
            was_consolidated=document.get("consolidated_metadata") is not None,
        )
    attributes = _read_object(root / ".zattrs")
    is_array = (root / ".zarray").exists()
    group = _read_object(root / ".zgroup")
    if attributes is None and group is None and not is_array:
        return None
    return Node(
        zarr_format=2,
        kind="array" if is_array else "group",
        attributes=attributes or {},
        was_consolidated=(root / ".zmetadata").exists(),
    )


def _read_object(path: Path) -> JSON | None:
    """Read a JSON object, None if there is no such file."""
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        message = f"{path}: the metadata cannot be read: {error.strerror}"
        raise ImageError(message) from error
    except ValueError as error:
        message = f"{path}: truncated or invalid JSON ({error}); restore the file from the source"
        raise ImageError(message) from error
    if not isinstance(document, dict):
        message = f"{path}: invalid metadata: expected a JSON object"
        raise ImageError(message)
    return document


def find_images(path: str) -> list[str]:
    """Return the images at a path: itself, or the series of a bioformats2raw container.

    Parameters
    ----------
    path : str
        Local path of an OME-Zarr group.

    Returns
    -------
    list of str
        At least one path. They are not checked further; `read_image` does.

    Raises
    ------
    ImageError
        If there is no image at the path; the message names what is there and the way out.
    """
    path = local_path(path)
    node = _read_root(path)
    keys = {**node.attributes, **ngff.ome_attributes(node.attributes, node.zarr_format)}
    if node.kind == "array":
        message = f"{path}: a bare Zarr array without OME metadata; give the group that holds it"
        raise ImageError(message)
    if "multiscales" in keys:
        return [path]
    if "plate" in keys:
        message = f"{path}: a plate (HCS); give its fields one by one, e.g. {path}/A/1/0"
        raise ImageError(message)
    if "well" in keys:
        message = f"{path}: a well of a plate; give its fields one by one, e.g. {path}/0"
        raise ImageError(message)
    if "bioformats2raw.layout" in keys:
        return _series(path, keys["bioformats2raw.layout"])
    if "labels" in keys:
        message = (
            f"{path}: a list of labels, not an image; give the image above it, or one label, "
            f"e.g. {path}/{(keys['labels'] or ['NAME'])[0]}"
        )
        raise ImageError(message)
    message = f"{path}: a Zarr group without OME-Zarr `multiscales`; give the path of an image"
    raise ImageError(message)


def _read_root(path: str) -> Node:
    """Read the node at a path the user named, or say what is there instead."""
    place = Path(path)
    if not place.exists():
        message = f"{path}: no such file or directory"
        raise ImageError(message)
    if place.is_file():
        if place.suffix in {".zip", ".ozx"} or zipfile.is_zipfile(place):
            message = f"{path}: a zipped OME-Zarr cannot hold new labels; unzip it first"
        else:
            message = f"{path}: not a Zarr: expected a directory; convert it with bioformats2raw"
        raise ImageError(message)
    node = read_node(path)
    if node is None:
        message = (
            f"{path}: not a Zarr: no zarr.json, .zgroup, .zattrs or .zarray in the directory; "
            "give the path of an OME-Zarr image"
        )
        raise ImageError(message)
    return node


def _series(path: str, layout: object) -> list[str]:
    """Return the images of a bioformats2raw container in the order of its series."""
    if layout != 3:
        message = f"{path}: bioformats2raw layout {layout!r} is unknown; expected 3"
        raise ImageError(message)
    container = read_node(f"{path}/OME")
    listed: object = None
    if container is not None:
        ome = ngff.ome_attributes(container.attributes, container.zarr_format)
        listed = ome.get("series")
    if isinstance(listed, list):
        names = [str(name) for name in listed]
        if any(".." in name.split("/") or name.startswith("/") for name in names):
            message = f"{path}: OME/series names an image outside the container: {names}"
            raise ImageError(message)
    else:
        names = []
        while (Path(path) / str(len(names))).is_dir():
            names.append(str(len(names)))
    if not names:
        message = f"{path}: the bioformats2raw container holds no series; expected {path}/0"
        raise ImageError(message)
    return [f"{path}/{name}" for name in names]


def read_image(path: str) -> ImageSource:
    """Read and check the description of one image.

    Parameters
    ----------
    path : str
        Local path of an image: one of `find_images`.

    Returns
    -------
    ImageSource

    Raises
    ------
    ImageError
        If it is not an image that can be segmented.
    """
    path = local_path(path)
    node = _read_root(path)
    _, multiscales = ngff.multiscales_of(path, node.attributes, node.zarr_format)
    arrays = [
        array_info(path, relative, node.zarr_format)
        for relative in ngff.dataset_paths(path, multiscales)
    ]
    return ngff.image_source(
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
        If the array is missing or cannot be opened.
    """
    name = ".zarray" if zarr_format == 2 else "zarr.json"
    document = _read_object(Path(path) / relative / name)
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
        message = f"{path}: the array of dataset {relative} cannot be opened: {error}"
        raise ImageError(message) from error


def open_array(path: str, zarr_format: Literal[2, 3], mode: Literal["r", "r+"]) -> zarr.Array[Any]:
    """Open one array of a local store."""
    return zarr.open_array(path, mode=mode, zarr_format=zarr_format)


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
        ImageError
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
        try:
            values = np.asarray(self._array(level)[index])
        except Exception as error:
            message = (
                f"{source.path}: level {source.levels[level].path}, t {t}, channel {c}, {box}: "
                f"the stored data cannot be read ({type(error).__name__}: {error})"
            )
            raise ImageError(message) from error
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
        return (Path(self.source.path) / self._key(level, t, c, index)).exists()

    def existing_chunks(self, level: int, t: int, c: int) -> Iterator[tuple[ZYX, Box]]:
        """Yield index and box of every stored storage object of one time and channel.

        The directories are listed, so the cost goes with what is stored, not with what the
        metadata claims. Order: by index, in the order of the image's own axes.

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
        """
        source = self.source
        shape, step = source.shape_zyx(level), source.storage_zyx(level)
        counts = grid_shape(shape, step)
        wanted = self._coordinates(level, t, c, (0, 0, 0))
        fixed = {i: wanted[i] for i in range(len(source.axes)) if i not in set(source.space_axes)}
        folder, separator, prefix = self._key_parts(level)
        for coordinates in _stored_coordinates(folder, prefix, separator, len(wanted), fixed):
            z, y, x = (coordinates[i] for i in source.space_axes)
            if z < counts[0] and y < counts[1] and x < counts[2]:
                yield (z, y, x), grid_box((z, y, x), step, shape)

    def identities(self, level: int, t: int, c: int, box: Box) -> list[tuple[str, int, int]]:
        """Return what tells the stored content under a box from an edited one.

        Parameters
        ----------
        level, t, c : int
            Level, time and channel.
        box : Box
            Voxels of that level.

        Returns
        -------
        list of (key, size, time)
            One for every stored shard (or chunk) that shares a voxel with the box: key below the
            image's root, bytes, time of the last change in nanoseconds. What is not stored is not
            listed, so a chunk that comes or goes changes the list.
        """
        step = self.source.storage_zyx(level)
        counts = grid_shape(self.source.shape_zyx(level), step)
        found = []
        for index in grid_range(box, step, counts):
            key = self._key(level, t, c, index)
            try:
                status = (Path(self.source.path) / key).stat()
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

    def _key_parts(self, level: int) -> tuple[Path, str, str]:
        """Return folder, separator and the prefix of the first part of the chunk keys."""
        folder = Path(self.source.path) / self.source.levels[level].path
        # Encoded keys of two dimensions show both: `c/7/8`, `c.7.8`, `7.8` or `7/8`.
        ndim = len(self.source.axes)
        key = self._array(level).metadata.encode_chunk_key((7,) * ndim)
        separator = "/" if "/7" in key.removeprefix("c/7") else "."
        if not key.startswith("c"):
            return folder, separator, ""
        return (folder / "c", separator, "") if separator == "/" else (folder, separator, "c.")


def _stored_coordinates(
    folder: Path, prefix: str, separator: str, ndim: int, fixed: dict[int, int]
) -> Iterator[tuple[int, ...]]:
    """Yield the lattice index of every chunk file, sorted; `fixed` axes at one index only."""
    if separator == "/":
        yield from _walk_chunks(folder, (), ndim, fixed)
        return
    found = []
    for name in _names(folder):
        parts = name.removeprefix(prefix).split(".") if name.startswith(prefix) else []
        if len(parts) == ndim and all(p.isdecimal() for p in parts):
            index = tuple(map(int, parts))
            if all(index[axis] == i for axis, i in fixed.items()):
                found.append(index)
    yield from sorted(found)


def _walk_chunks(
    folder: Path, above: tuple[int, ...], ndim: int, fixed: dict[int, int]
) -> Iterator[tuple[int, ...]]:
    """Descend one axis of a nested chunk layout."""
    axis = len(above)
    if axis == ndim:
        yield above
        return
    if axis in fixed:
        found = [fixed[axis]] if (folder / str(fixed[axis])).exists() else []
    else:
        found = sorted(int(name) for name in _names(folder) if name.isdecimal())
    for i in found:
        yield from _walk_chunks(folder / str(i), (*above, i), ndim, fixed)


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def axis_index(
    axes: tuple[ngff.Axis, ...], space_axes: ZYX, t: int, c: int, box: Box
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


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write a file so that it is whole or absent, whenever the process or the machine stops.

    Parameters
    ----------
    path : path
        The file; its directory exists. An older file is replaced.
    data : bytes
        Content.

    Raises
    ------
    OutputError
        If the place cannot be written or is full; nothing is left behind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(path, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json_atomic(path: str | Path, document: object) -> None:
    """Write a JSON file so that it is whole or absent; equal documents give equal bytes.

    Parameters
    ----------
    path : path
        The file; its directory exists. An older file is replaced.
    document : JSON-able
        Content; keys keep their order.

    Raises
    ------
    OutputError
        If the place cannot be written or is full; nothing is left behind.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False)
    write_bytes_atomic(path, f"{text}\n".encode())


def sync_directory(path: str | Path) -> None:
    """Make renames in a directory survive a power loss, where the file system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EROFS}:
            raise
    finally:
        os.close(handle)


def output_error(path: str | Path, error: OSError) -> OutputError:
    """Return the error that tells the user why a place cannot be written and what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        message = f"{path}: no space left to write; free some, or use --output DIR elsewhere"
    else:
        message = (
            f"{path}: cannot be written ({error.strerror or error}); give --output DIR to keep "
            "results elsewhere"
        )
    return OutputError(error.errno, message)


def write_attributes(path: str, zarr_format: Literal[2, 3], attributes: JSON) -> None:
    """Create a group with these attributes, or replace those of an existing one, atomically."""
    root = Path(path)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(root, error) from error
    if zarr_format == 2:
        if not (root / ".zgroup").exists():
            write_json_atomic(root / ".zgroup", {"zarr_format": 2})
        write_json_atomic(root / ".zattrs", attributes)
        return
    document = _read_object(root / "zarr.json") or {"zarr_format": 3, "node_type": "group"}
    write_json_atomic(root / "zarr.json", {**document, "attributes": attributes})


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
    """
    try:
        if zarr_format == 2:
            zarr.create_array(
                path,
                shape=info.shape,
                dtype=info.dtype,
                chunks=info.chunks,
                fill_value=0,
                zarr_format=2,
                chunk_key_encoding={"name": "v2", "separator": "/"},
                compressors=numcodecs.Blosc("zstd", 5, numcodecs.Blosc.BITSHUFFLE),
            )
        else:
            zarr.create_array(
                path,
                shape=info.shape,
                dtype=info.dtype,
                chunks=info.chunks,
                shards=info.shards,
                fill_value=0,
                zarr_format=3,
                dimension_names=dimension_names,
                compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
            )
    except OSError as error:
        raise output_error(path, error) from error


def is_consolidated(path: str, below: str) -> bool:
    """Return whether the consolidated metadata of a group describes what is below it as it is.

    Parameters
    ----------
    path, below : str
        A consolidated group, and another group's path below it; those between are compared too.
    """
    document = _read_object(Path(path) / "zarr.json")
    if document is None:
        document = _read_object(Path(path) / ".zmetadata") or {}
        known = {k.removesuffix("/.zattrs"): v for k, v in (document.get("metadata") or {}).items()}
    else:
        metadata = (document.get("consolidated_metadata") or {}).get("metadata") or {}
        known = {key: value.get("attributes") for key, value in metadata.items()}
    parts = below.split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        node = read_node(f"{path}/{name}")
        if node is not None and known.get(name) != node.attributes:
            return False
    return True


def consolidate(path: str, zarr_format: Literal[2, 3]) -> None:
    """Rewrite the consolidated metadata of a group, so that readers who trust it see new labels."""
    with warnings.catch_warnings():
        # Consolidated metadata is outside the v3 specification; here it was there already.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path, zarr_format=zarr_format)


def check_writable(path: str) -> None:
    """Check that files can be made in a directory, or in the nearest one that exists above it.

    Parameters
    ----------
    path : str
        Directory that will hold results.

    Raises
    ------
    OutputError
        If not; the message names `--output`.
    """
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / f".anystar-batch.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise output_error(path, error) from error
