"""Find the images below a directory or in a container, and tell whether they are finished.

Found by name, never searched inside a Zarr. Links are not followed, and nothing that begins with a
dot is entered: snapshots of a file server and labels that are being made would show the same
images twice. An image counts as settled when nothing in it has changed for a while.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from anystar_batch.address import is_remote
from anystar_batch.archive import metadata
from anystar_batch.archive.ngff import JSON, ImageSource
from anystar_batch.archive.nodes import WRITE, Node, read_node, read_root
from anystar_batch.errors import ImageError, shorten

_METADATA = {"zarr.json", ".zgroup", ".zattrs", ".zarray"}


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
    matches : list of str
        Sorted. Neither they nor other Zarr groups are entered. What is in them is not known yet.
    unreadable : list of (path, error)
        Directories that could not be listed.
    """
    matches: list[str] = []
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
            (matches if fnmatchcase(entry.name, pattern) else waiting).append(entry.path)
    return sorted(matches), sorted(unreadable, key=lambda one: one[0])


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
    path, node = read_root(path)
    keys = metadata.all_attributes(node.attributes, node.zarr_format)
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
    path, node = read_root(path)
    keys = metadata.all_attributes(node.attributes, node.zarr_format)
    if "plate" in keys:
        wells = [(f"{path}/{well}", well) for well in _paths(path, keys["plate"], "wells")]
    elif "well" in keys:
        wells = [(path, "/".join(path.rsplit("/", 2)[-2:]))]
    else:
        return None
    fields = []
    for well_path, well in wells:
        well_node = read_node(well_path)
        if well_node is None:
            fields.append(Field(well_path, well, ""))
            continue
        ome = metadata.ome_attributes(well_node.attributes, well_node.zarr_format)
        names = _paths(well_path, ome.get("well", well_node.attributes.get("well")), "images")
        fields += [Field(f"{well_path}/{name}", well, name) for name in names]
    return fields


def rows(node: Node) -> set[str]:
    """Return the names of the rows of a plate (HCS) in which its metadata list wells; else none."""
    plate = metadata.all_attributes(node.attributes, node.zarr_format).get("plate")
    wells = plate.get("wells") if isinstance(plate, dict) else None
    paths = [one.get("path") if isinstance(one, dict) else None for one in wells or []]
    return {path.partition("/")[0] for path in paths if isinstance(path, str)}


def _paths(path: str, holder: JSON | None, key: str) -> list[str]:
    """Paths that a plate or a well lists, relative to it."""
    listed = holder.get(key) if isinstance(holder, dict) else None
    paths = [one.get("path") if isinstance(one, dict) else None for one in listed or []]
    for relative in paths:
        parts = relative.split("/") if isinstance(relative, str) else [""]
        if not {"", ".", ".."}.isdisjoint(parts):
            message = f"{path}: `{key}` names {shorten(repr(relative))}; expected a path below it"
            raise ImageError(message)
    return [str(relative) for relative in paths]


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
    path, node = read_root(path)
    keys = metadata.all_attributes(node.attributes, node.zarr_format)
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


def _series(path: str, layout: object) -> list[str]:
    """Return the images of a bioformats2raw container in the order of its series."""
    if layout != 3:
        message = f"{path}: bioformats2raw layout {shorten(repr(layout))} is unknown; expected 3"
        raise ImageError(message)
    container = read_node(f"{path}/OME")
    listed: object = None
    if container is not None:
        ome = metadata.ome_attributes(container.attributes, container.zarr_format)
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


@dataclass(frozen=True, slots=True)
class Settling:
    """What counts as still being written.

    Parameters
    ----------
    seconds : float
        A file is young for so long after it was written.
    offset : float
        Seconds by which the clock of the file system is ahead of ours.

    Notes
    -----
    A time in the future is no reason to wait for it: a file is young while its time is within
    `seconds` of now on either side.
    """

    seconds: float
    offset: float = 0.0

    def is_young(self, written: float) -> bool:
        """Return whether a file of this time (seconds) is young."""
        return abs(time.time() + self.offset - written) < self.seconds


def newest_file(source: ImageSource, settling: Settling) -> float | None:
    """Return when the newest file of an image's levels was written, seconds; None if one is young.

    The first young file ends the search.

    Parameters
    ----------
    source : ImageSource
        The image.
    settling : Settling

    Raises
    ------
    ImageError
        If a directory of it cannot be read.
    """
    newest = 0.0
    for level in source.levels:
        for written in _file_times(Path(source.path, level.path)):
            if settling.is_young(written):
                return None
            newest = max(newest, written)
    return newest


def is_any_young(path: str | Path, settling: Settling) -> bool:
    """Return whether any file or directory of what is no image yet is young; labels apart.

    Parameters
    ----------
    path : path
        A directory; where there is none, nothing is young.
    settling : Settling

    Raises
    ------
    ImageError
        If a directory of it cannot be read.
    """
    try:
        own = Path(path).stat().st_mtime
    except OSError:
        return False
    return settling.is_young(own) or any(
        settling.is_young(written) for written in _file_times(Path(path), but="labels")
    )


def _file_times(folder: Path, but: str | None = None) -> Iterator[float]:
    """Times of the files below a directory, seconds; of a directory its files come first."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # a writer renames its temporary files
                            yield entry.stat().st_mtime
                    elif entry.name != but:
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            message = f"{error.filename}: cannot be read: {error.strerror}"
            raise ImageError(message) from error
