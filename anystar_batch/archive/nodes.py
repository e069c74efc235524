"""Zarr groups and arrays as the JSON files they are: read and write attributes.

Reading the files themselves names the truncated one, sees a group's attributes past any
consolidated copy of them, and costs no import. What is no Zarr is named, with what makes one of it.
"""

from __future__ import annotations

import errno
import itertools
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from anystar_batch.address import is_remote, normal, parent
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.storage import files, remote, remote_errors, zip_file, zip_index
from anystar_batch.archive.storage.atomic_write import write_json_atomic
from anystar_batch.archive.storage.files import output_error
from anystar_batch.errors import (
    DataError,
    ForbiddenError,
    ImageError,
    NoImageError,
    did_you_mean,
    shorten,
)

MOST_BYTES = 256 * 2**20
"""Largest metadata file that is read; the consolidated metadata of a plate take some 20 MB."""

_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
"""What a store says in a weak moment."""

MICROSCOPES = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".btf": "TIFF",
    ".czi": "Zeiss CZI",
    ".lsm": "Zeiss LSM",
    ".nd2": "Nikon ND2",
    ".lif": "Leica LIF",
    ".ims": "Imaris",
    ".oib": "Olympus OIB",
    ".oif": "Olympus OIF",
    ".oir": "Olympus OIR",
    ".vsi": "Olympus VSI",
    ".dv": "DeltaVision",
    ".mrc": "MRC",
    ".klb": "KLB",
}
"""Files of microscopes, by suffix: Bio-Formats reads them."""

ARRAYS = {".h5": "HDF5", ".hdf5": "HDF5", ".n5": "N5", ".npy": "NumPy", ".nrrd": "NRRD"}
"""Files of bare arrays, by suffix: they do not say what their axes and voxels are."""

WRITE = "write the array as OME-Zarr with its voxel size: ome_zarr.writer.write_image of ome-zarr"
"""The cure for a bare array."""


def local_path(path: str) -> str:
    """Return a path of the local file system, without `file://` and trailing slashes.

    Raises
    ------
    ImageError
        If the path is the address of a remote store.
    """
    path = normal(path)
    if is_remote(path):
        message = (
            f"{path}: only directories of this machine can be searched; name the images of "
            "object stores one by one: anystar-batch segment"
        )
        raise ImageError(message)
    return path


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


def read_node(path: str) -> Node | None:
    """Read the metadata files of a Zarr node.

    Parameters
    ----------
    path : str
        Directory or address.

    Returns
    -------
    Node or None
        None if there is no Zarr node.

    Raises
    ------
    ImageError
        If a metadata file is truncated or no JSON object.
    """
    document = read_object(f"{path}/zarr.json")
    if document is not None:
        attributes = document.get("attributes")
        return Node(
            zarr_format=3,
            kind=str(document.get("node_type")),
            attributes=attributes if isinstance(attributes, dict) else {},
            was_consolidated=document.get("consolidated_metadata") is not None,
        )
    attributes = read_object(f"{path}/.zattrs")
    is_array = files.exists(f"{path}/.zarray")
    group = read_object(f"{path}/.zgroup")
    if attributes is None and group is None and not is_array:
        return None
    return Node(
        zarr_format=2,
        kind="array" if is_array else "group",
        attributes=attributes or {},
        was_consolidated=files.exists(f"{path}/.zmetadata"),
    )


def kind_of(error: BaseException) -> type[ImageError]:
    """Return which error says that something of an image could not be read.

    Parameters
    ----------
    error : BaseException
        What the store or a decoder has said.

    Returns
    -------
    type
        `DataError` for what may pass, so that the same command may be repeated; `ForbiddenError`
        for what this user may not read; else `ImageError`.
    """
    if isinstance(error, PermissionError):
        return ForbiddenError
    is_passing = isinstance(error, OSError) and error.errno in _PASSING
    return DataError if is_passing else ImageError


def read_object(path: str | Path) -> JSON | None:
    """Read a JSON object, None if there is no such file.

    Raises
    ------
    ImageError
        If it is there and cannot be read, or is no JSON object; `DataError` of it where that may
        pass.
    """
    try:
        data = files.read_bytes(path, MOST_BYTES)
        document = None if data is None else json.loads(data)
        if data is not None and b"\\ud" in data.lower():
            # Half of a character parses, and could never be written: a name of a channel, say.
            json.dumps(document, ensure_ascii=False).encode()
    except OSError as error:
        message = f"{path}: the metadata cannot be read: {error.strerror}"
        if isinstance(error, remote_errors.CredentialsError):
            message += "; give them by the environment (docs/storage.md)"
        raise kind_of(error)(message) from error
    except (ValueError, RecursionError) as error:
        why = shorten(error)
        message = f"{path}: truncated or invalid JSON ({why}); restore the file from the source"
        raise ImageError(message) from error
    if data is None:
        return None
    if not isinstance(document, dict):
        message = f"{path}: invalid metadata: expected a JSON object"
        raise ImageError(message)
    return document


def read_root(path: str) -> tuple[str, Node]:
    """Read the node at a path the user named, or say what is there instead.

    Parameters
    ----------
    path : str
        As a user gives it.

    Returns
    -------
    path : str
        The same as `address.normal` writes it; whoever gets it trusts it.
    node : Node

    Raises
    ------
    ImageError
        If there is no Zarr node, or one that cannot be read.
    ConfigError
        If the path is an address that cannot be used.
    """
    path = normal(path)
    zipped = _read_zipped_root(path)
    if zipped is not None:
        return path, zipped
    if is_remote(path):
        return path, _read_remote_root(path)
    local = Path(path)
    try:
        local.stat()
    except (FileNotFoundError, NotADirectoryError):
        message = f"{path}: no such file or directory{did_you_mean(local.name, _beside(local))}"
        raise ImageError(message) from None
    except PermissionError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise ForbiddenError(message) from error
    except OSError as error:  # a name that is too long, links in a circle
        message = f"{path}: cannot be read: {error.strerror}"
        raise ImageError(message) from error
    if local.is_file():
        cure = what_else(path) or "not a Zarr: expected a directory; convert it: bioformats2raw"
        if zipfile.is_zipfile(local):
            cure = f"a zip file by another name; name a zipped OME-Zarr {local.stem}.ozx"
        message = f"{path}: {cure}"
        raise NoImageError(message)
    node = read_node(path)
    if node is None:
        cure = what_else(path) or (
            "not a Zarr: no zarr.json, .zgroup, .zattrs or .zarray in the directory; give the path "
            "of an OME-Zarr image"
        )
        message = f"{path}: {cure}"
        raise NoImageError(message)
    return path, node


def _read_zipped_root(path: str) -> Node | None:
    """Read the node in a zip file that the user named, None if the path leads into none."""
    file = path
    try:
        zipped = zip_index.split(path)
        if zipped is None:
            return None
        file, member = zipped
        zip_index.opened(file, is_new=True)
        held = zip_file.zarrs(file)
    except OSError as error:
        message = f"{file}: {error.strerror}"
        if isinstance(error, remote_errors.CredentialsError):
            message += "; give them by the environment (docs/storage.md)"
        raise kind_of(error)(message) from error
    node = read_node(path)
    if node is not None:
        return node
    why = "no zarr.json, .zgroup, .zattrs or .zarray at its top, nor in a single folder there"
    cure = f"{why}; expected a zipped OME-Zarr image"
    if held:
        several = "a zip file of several Zarrs" if len(held) > 1 else "no such Zarr in the zip file"
        cure = f"{several}; give one, e.g. {file}/{held[0]}"
    elif member:
        cure = f"no Zarr of this name in the zip file {file}; give the zip file alone"
    message = f"{path}: {cure}"
    raise NoImageError(message)


def _read_remote_root(path: str) -> Node:
    """Read the node at an address the user named, or say what speaks against it."""
    node = read_node(path)
    if node is not None:
        return node
    why = remote.bucket_error(path)
    if why is None and remote.hides_missing(parent(path)):
        why = "access denied, or nothing there: the store answers 403 to both"
    if why is not None:
        message = (
            f"{path}: {why}; check the address, and the credentials in the environment "
            "(docs/storage.md)"
        )
        raise ImageError(message)
    cure = what_else(path) or (
        "no Zarr there: no zarr.json, .zgroup, .zattrs or .zarray; give the address of an OME-Zarr "
        "image"
    )
    message = f"{path}: {cure}"
    raise NoImageError(message)


def _beside(path: Path) -> list[str]:
    """The names that lie where a path leads, a thousand at most; so of labels those of an image."""
    try:
        names = (entry.name for entry in path.parent.iterdir())
        return [name for name in itertools.islice(names, 1000) if not name.startswith(".")]
    except OSError:
        return []


def write_attributes(path: str, zarr_format: Literal[2, 3], attributes: JSON) -> None:
    """Create a group with these attributes, or replace those of an existing one, atomically.

    Raises
    ------
    OutputError
        If the place cannot be written.
    ImageError
        If a group is there whose metadata cannot be read.
    """
    try:
        files.make_folder(path)
    except OSError as error:
        raise output_error(path, error) from error
    if zarr_format == 2:
        if not files.exists(f"{path}/.zgroup"):
            write_json_atomic(f"{path}/.zgroup", {"zarr_format": 2})
        write_json_atomic(attributes_file(path, 2), attributes)
        return
    file = attributes_file(path, 3)
    document = read_object(file) or {"zarr_format": 3, "node_type": "group"}
    write_json_atomic(file, {**document, "attributes": attributes})


def attributes_file(path: str, zarr_format: Literal[2, 3]) -> str:
    """Return the metadata file that holds the attributes of a group."""
    return f"{path}/{'.zattrs' if zarr_format == 2 else 'zarr.json'}"


def is_consolidated(path: str, below: str) -> bool:
    """Return whether the consolidated metadata of a group describes what is below it as it is.

    Parameters
    ----------
    path, below : str
        A consolidated group, and another group's path below it; those between are compared too.
    """
    document = read_object(f"{path}/zarr.json")
    if document is None:
        document = read_object(f"{path}/.zmetadata") or {}
        described = {
            k.removesuffix("/.zattrs"): v for k, v in (document.get("metadata") or {}).items()
        }
    else:
        metadata = (document.get("consolidated_metadata") or {}).get("metadata") or {}
        described = {key: value.get("attributes") for key, value in metadata.items()}
    parts = below.split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        node = read_node(f"{path}/{name}")
        if node is None and name in described:
            return False
        if node is not None and described.get(name) != node.attributes:
            return False
    return True


def what_else(path: str) -> str | None:
    """Return what a path is instead of an OME-Zarr, and the cure; None if its name says nothing.

    Parameters
    ----------
    path : str
        File, directory or address.

    Examples
    --------
    >>> what_else("s3://bucket/e.czi")
    'Zeiss CZI, not OME-Zarr; convert it: bioformats2raw e.czi e.ome.zarr, or bioio-conversion'
    """
    name = PurePosixPath(path)
    suffix = name.suffix.lower()
    if suffix in MICROSCOPES:
        stem = name.name.removesuffix(name.suffix).removesuffix(".ome")
        return (
            f"{MICROSCOPES[suffix]}, not OME-Zarr; convert it: bioformats2raw {name.name} "
            f"{stem}.ome.zarr, or bioio-conversion"
        )
    if suffix in ARRAYS or _is_n5(path):
        return f"{ARRAYS.get(suffix, 'N5')}, not OME-Zarr; {WRITE}"
    return None


def _is_n5(path: str) -> bool:
    """Whether a local directory says that it is an N5 container, which has any name."""
    try:
        return "n5" in json.loads(Path(path, "attributes.json").read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False
