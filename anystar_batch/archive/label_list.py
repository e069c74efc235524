"""The list of labels of an image, and consolidated metadata that speak of it.

Whoever changes them holds `lock.hold_list` of the directory of labels.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from typing import Literal

import zarr

from anystar_batch.address import is_remote, parent
from anystar_batch.archive import metadata, nodes
from anystar_batch.archive.arrays import store_of
from anystar_batch.archive.label_place import LabelPlace
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.atomic_write import partials, write_json_atomic
from anystar_batch.archive.storage.lock import hold_directory


def existing_labels(root: str) -> dict[str, JSON]:
    """Return the labels of an image: those listed, and groups under `labels` that are not.

    Parameters
    ----------
    root : str
        Path or address of the image, as `address.normal` writes it.

    Returns
    -------
    dict
        Name to attributes of the label's group; empty attributes if it is listed but missing.
        Hidden groups of unfinished runs are left out.
    """
    names = listed(root)
    names += [
        name
        for name in _names_below(f"{root}/labels")
        if not name.startswith(".")
        and name not in names
        and nodes.read_node(f"{root}/labels/{name}") is not None
    ]
    labels = {}
    for name in names:
        node = nodes.read_node(f"{root}/labels/{name}")
        labels[name] = {} if node is None else node.attributes
    return labels


def _names_below(path: str) -> list[str]:
    """Return the names in a directory; none where the storage may not be listed."""
    try:
        return files.names(path)
    except OSError:
        if is_remote(path):
            return []
        raise


def listed(root: str) -> list[str]:
    """Return the names in the list of labels of an image."""
    node = nodes.read_node(f"{root}/labels")
    if node is None:
        return []
    names = metadata.ome_attributes(node.attributes, node.zarr_format).get("labels")
    return list(map(str, names)) if isinstance(names, list) else []


def list_label(label: LabelPlace, zarr_format: Literal[2, 3]) -> None:
    """Add the label's name to those of the image, if it is not there."""
    names = list(dict.fromkeys([*listed(label.image), label.name]))
    _write_names(label.parent, zarr_format, names)


def unlist_label(label: LabelPlace, zarr_format: Literal[2, 3]) -> None:
    """Take the label's name off those of the image, if it is there."""
    names = listed(label.image)
    if label.name in names:
        names.remove(label.name)
        _write_names(label.parent, zarr_format, names)


def _write_names(labels: str, zarr_format: Literal[2, 3], names: list[str]) -> None:
    """Write the list of labels, if it is another than what is there."""
    node = nodes.read_node(labels)
    attributes = {} if node is None else node.attributes
    if zarr_format == 2:
        updated = {**attributes, "labels": names}
    else:
        ome = attributes.get("ome")
        ome = ome if isinstance(ome, dict) else {}
        version = ome.get("version") or _version_above(labels)
        updated = {**attributes, "ome": {**ome, "version": version, "labels": names}}
    if node is None or updated != attributes:
        nodes.write_attributes(labels, zarr_format, updated)


def _version_above(labels: str) -> str:
    """The NGFF version of the image whose labels these are; 0.5 where it states none."""
    node = nodes.read_node(parent(labels))
    ome = {} if node is None else metadata.ome_attributes(node.attributes, 3)
    return "0.6" if str(ome.get("version")).startswith("0.6") else "0.5"


def sweep_lists(folder: str) -> None:
    """Delete what a killed writer of a list left; whoever writes one holds the directory's lock."""
    _sweep_metadata(folder)


def consolidated_above(label: LabelPlace) -> list[str]:
    """Return the groups above a label whose consolidated metadata may have to be rewritten."""
    found: list[str] = []
    root = label.image
    while not label.is_standalone and (node := nodes.read_node(root)) is not None:
        if node.was_consolidated:
            found.append(root)
        if parent(root) == root:
            break
        root = parent(root)
    return found


def refresh_consolidated(label: LabelPlace, group: str = "stars") -> None:
    """Rewrite consolidated metadata above the label that does not describe it as it is.

    The caller holds the lock of the list of labels.

    Parameters
    ----------
    label : LabelPlace
    group : str
        Of the label, that it may or may not have.
    """
    if label.is_standalone:
        return
    below = f"{label.name}/{group}"
    root = label.parent
    while (node := nodes.read_node(root)) is not None:
        if node.was_consolidated:
            with contextlib.nullcontext() if root == label.parent else _alone(root):
                if not nodes.is_consolidated(root, below):
                    _consolidate(root, node.zarr_format)
        below = f"{root.rpartition('/')[2]}/{below}"
        if parent(root) == root:
            break
        root = parent(root)


@contextlib.contextmanager
def _alone(root: str) -> Iterator[None]:
    """Be the only one to write a group's consolidated metadata; sweep what killed writers left."""
    if is_remote(root):
        yield
        return
    with hold_directory(root):
        _sweep_metadata(root)
        yield


def _sweep_metadata(root: str) -> None:
    """Delete what killed writers of a group's metadata left, zarr's names and ours."""
    names = (".zgroup", ".zattrs", ".zmetadata", "zarr.json")
    begins = [b for n in names for b in (f"{n.removesuffix('.json')}.", f".{n}.")]
    for torn in partials(root, *begins):
        with contextlib.suppress(OSError):
            torn.unlink()


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
    with _alone(path):
        _consolidate(path, zarr_format)


def _consolidate(path: str, zarr_format: Literal[2, 3]) -> None:
    with warnings.catch_warnings():
        # Consolidated metadata is outside the v3 specification; here it was there already.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store_of(path, read_only=False), zarr_format=zarr_format)
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
