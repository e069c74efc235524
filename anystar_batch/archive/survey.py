"""Which images lie below a directory: found by name, never searched inside a Zarr.

Links are not followed, and nothing that begins with a dot is entered: snapshots of a file server
and labels that are being made would show the same images twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from anystar_batch.address import normal
from anystar_batch.archive import documents
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.nodes import find_images, read_node, read_root
from anystar_batch.errors import ImageError, shorten


@dataclass(frozen=True, slots=True)
class Field:
    """One image of a plate.

    Parameters
    ----------
    path : str
        The image.
    well : str
        Path of its well in the plate, such as `B/03`.
    name : str
        Path of the image in its well, such as `0`.
    """

    path: str
    well: str
    name: str


_METADATA = {"zarr.json", ".zgroup", ".zattrs", ".zarray"}


def is_zarr(path: str | Path) -> bool:
    """Return whether a directory is a Zarr group or array, whatever its metadata says."""
    return any(Path(path, name).is_file() for name in _METADATA)


def find_zarrs(root: str, pattern: str) -> tuple[list[str], list[tuple[str, OSError]]]:
    """Find the directories below a directory whose names match a pattern.

    Parameters
    ----------
    root : str
        Where to begin; itself no candidate.
    pattern : str
        With `*`, `?` and `[...]`, of the name alone; upper and lower case differ.

    Returns
    -------
    found : list of str
        Sorted. Neither they nor other Zarr groups are entered. What is in them is not known yet.
    unreadable : list of (path, error)
        Directories that could not be listed.
    """
    found: list[str] = []
    unreadable: list[tuple[str, OSError]] = []
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except FileNotFoundError:
            continue
        except OSError as error:
            unreadable.append((folder, error))
            continue
        if any(entry.name in _METADATA for entry in listed):
            continue
        for entry in listed:
            if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            (found if fnmatchcase(entry.name, pattern) else waiting).append(entry.path)
    return sorted(found), sorted(unreadable, key=lambda one: one[0])


def images_in(path: str) -> list[str]:
    """Return every image of a Zarr: itself, its series, or the fields of its plate.

    Parameters
    ----------
    path : str
        Local path of an OME-Zarr group.

    Returns
    -------
    list of str
        Paths, not checked further. A listed well that is missing is among them as it is: whoever
        opens it says so. Empty for a label image, such as `--output` makes.

    Raises
    ------
    ImageError
        If there is no image at the path.
    """
    node = read_root(path)
    keys = documents.all_attributes(node.attributes, node.zarr_format)
    if "image-label" in keys:
        return []
    fields = plate_fields(path)
    return find_images(path) if fields is None else [field.path for field in fields]


def plate_fields(path: str) -> list[Field] | None:
    """Return the fields of a plate (HCS), or of one of its wells, as their metadata list them.

    Parameters
    ----------
    path : str
        Local path or address of an OME-Zarr group.

    Returns
    -------
    list of Field or None
        None if it is neither plate nor well. A listed well that is missing is one field, with the
        path of the well and an empty name: whoever opens it says that it is not there.

    Raises
    ------
    ImageError
        If there is no Zarr at the path, or what it lists lies elsewhere.
    """
    path = normal(path)
    node = read_root(path)
    keys = documents.all_attributes(node.attributes, node.zarr_format)
    if "plate" in keys:
        wells = [(f"{path}/{well}", well) for well in _paths(path, keys["plate"], "wells")]
    elif "well" in keys:
        wells = [(path, "/".join(path.rsplit("/", 2)[-2:]))]
    else:
        return None
    fields = []
    for place, well in wells:
        found = read_node(place)
        if found is None:
            fields.append(Field(place, well, ""))
            continue
        ome = documents.ome_attributes(found.attributes, found.zarr_format)
        names = _paths(place, ome.get("well", found.attributes.get("well")), "images")
        fields += [Field(f"{place}/{name}", well, name) for name in names]
    return fields


def _paths(path: str, holder: JSON | None, key: str) -> list[str]:
    """Paths that a plate or a well lists, relative to it."""
    listed = holder.get(key) if isinstance(holder, dict) else None
    found = [one.get("path") if isinstance(one, dict) else None for one in listed or []]
    for relative in found:
        parts = relative.split("/") if isinstance(relative, str) else [""]
        if not {"", ".", ".."}.isdisjoint(parts):
            message = f"{path}: `{key}` names {shorten(repr(relative))}; expected a path below it"
            raise ImageError(message)
    return [str(relative) for relative in found]
