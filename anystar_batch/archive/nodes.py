"""Zarr groups and arrays as the JSON files they are: find images, read and write attributes.

Reading the files themselves names the truncated one, sees a group's attributes past any
consolidated copy of them, and costs no import.
"""

from __future__ import annotations

import errno
import itertools
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anystar_batch.address import is_remote, normal, parent
from anystar_batch.archive import documents
from anystar_batch.archive.foreign import WRITE, what_else
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.storage import files, remote, remote_errors
from anystar_batch.archive.storage.files import output_error, write_json_atomic
from anystar_batch.errors import DataError, ImageError, did_you_mean, shorten


def local_path(path: str) -> str:
    """Return a path of the local file system, without `file://` and trailing slashes.

    Raises
    ------
    ImageError
        If the path is the address of a remote store.
    """
    if is_remote(path):
        message = (
            f"{normal(path)}: only directories of this machine can be searched; name the images of "
            "object stores one by one: anystar-batch segment"
        )
        raise ImageError(message)
    return normal(path)


MOST_BYTES = 256 * 2**20
"""Largest metadata file that is read; the consolidated metadata of a plate take some 20 MB."""


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


_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT}
"""What a store says in a weak moment."""


def kind_of(error: BaseException) -> type[ImageError]:
    """Return which error says that something of an image could not be read.

    Parameters
    ----------
    error : BaseException
        What the store or a decoder has said.

    Returns
    -------
    type
        `DataError` for what may pass, so that the same command may be repeated; else `ImageError`.
    """
    is_passing = isinstance(error, OSError) and error.errno in _PASSING
    return DataError if is_passing else ImageError


def read_object(path: str | Path) -> JSON | None:
    """Read a JSON object, None if there is no such file."""
    try:
        data = files.read_bytes(path, MOST_BYTES)
        document = None if data is None else json.loads(data)
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


def find_images(path: str) -> list[str]:
    """Return the images at a path: itself, or the series of a bioformats2raw container.

    Parameters
    ----------
    path : str
        Local path or address of an OME-Zarr group.

    Returns
    -------
    list of str
        At least one path. They are not checked further; `read_image` does.

    Raises
    ------
    ImageError
        If there is no image at the path; the message names what is there and the way out.
    """
    path = normal(path)
    node = read_root(path)
    keys = documents.all_attributes(node.attributes, node.zarr_format)
    if node.kind == "array":
        message = (
            f"{path}: a bare Zarr array without OME metadata; give the group that holds it, or "
            f"{WRITE}"
        )
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
    message = (
        f"{path}: a Zarr group without OME-Zarr `multiscales`; give the path of an image, or "
        f"{WRITE}"
    )
    raise ImageError(message)


def read_root(path: str) -> Node:
    """Read the node at a path the user named, or say what is there instead."""
    if is_remote(path):
        return _read_remote_root(path)
    place = Path(path)
    if not place.exists():
        message = f"{path}: no such file or directory{did_you_mean(place.name, _beside(place))}"
        raise ImageError(message)
    if place.is_file():
        if place.suffix in {".zip", ".ozx"} or zipfile.is_zipfile(place):
            message = f"{path}: a zipped OME-Zarr cannot hold new labels; unzip it first"
        else:
            cure = what_else(path) or "not a Zarr: expected a directory; convert it: bioformats2raw"
            message = f"{path}: {cure}"
        raise ImageError(message)
    node = read_node(path)
    if node is None:
        cure = what_else(path) or (
            "not a Zarr: no zarr.json, .zgroup, .zattrs or .zarray in the directory; give the path "
            "of an OME-Zarr image"
        )
        message = f"{path}: {cure}"
        raise ImageError(message)
    return node


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
    raise ImageError(message)


def _beside(place: Path) -> list[str]:
    """The names that lie where a path leads, a thousand at most; so of labels those of an image."""
    try:
        names = (path.name for path in place.parent.iterdir())
        return [name for name in itertools.islice(names, 1000) if not name.startswith(".")]
    except OSError:
        return []


def _series(path: str, layout: object) -> list[str]:
    """Return the images of a bioformats2raw container in the order of its series."""
    if layout != 3:
        message = f"{path}: bioformats2raw layout {shorten(repr(layout))} is unknown; expected 3"
        raise ImageError(message)
    container = read_node(f"{path}/OME")
    listed: object = None
    if container is not None:
        ome = documents.ome_attributes(container.attributes, container.zarr_format)
        listed = ome.get("series")
    if isinstance(listed, list):
        names = [str(name) for name in listed]
        if any(".." in name.split("/") or name.startswith("/") for name in names):
            message = f"{path}: OME/series names an image outside the container: {shorten(names)}"
            raise ImageError(message)
    else:
        names = []
        while _is_group(f"{path}/{len(names)}"):
            names.append(str(len(names)))
    if not names:
        message = f"{path}: the bioformats2raw container holds no series; expected {path}/0"
        raise ImageError(message)
    return [f"{path}/{name}" for name in names]


def _is_group(path: str) -> bool:
    """Return whether there is a directory, or at an address a node."""
    return read_node(path) is not None if is_remote(path) else Path(path).is_dir()


def write_attributes(path: str, zarr_format: Literal[2, 3], attributes: JSON) -> None:
    """Create a group with these attributes, or replace those of an existing one, atomically."""
    try:
        files.make_folder(path)
    except OSError as error:
        raise output_error(path, error) from error
    if zarr_format == 2:
        if not files.exists(f"{path}/.zgroup"):
            write_json_atomic(f"{path}/.zgroup", {"zarr_format": 2})
        write_json_atomic(f"{path}/.zattrs", attributes)
        return
    document = read_object(f"{path}/zarr.json") or {"zarr_format": 3, "node_type": "group"}
    write_json_atomic(f"{path}/zarr.json", {**document, "attributes": attributes})


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
