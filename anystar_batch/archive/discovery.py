"""Find the images below a directory or in a container.

Found by name, never searched inside a Zarr. Links are not followed, and neither what begins with a
dot nor what file servers keep for themselves is entered: snapshots, trash and labels that are being
made would show the same images twice. What is left out is named, with the reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from anystar_batch.address import ZIPPED, image_stem, is_remote, unzipped_name
from anystar_batch.archive import metadata
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.nodes import WRITE, Node, read_node, read_object, read_root
from anystar_batch.archive.storage import files
from anystar_batch.errors import ImageError, NoImageError, shorten

_METADATA = {"zarr.json", ".zgroup", ".zattrs", ".zarray"}

SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "__macosx",
        "lost+found",
        "network trash folder",
        "system volume information",
        "temporary items",
        "~snapshot",
    }
)
"""Folders of file servers and systems in small letters: thumbnails, snapshots, trash, remains.

Of those, many begin with a dot (`.snapshot`, `.zfs`, `.Trash-1000`), as all that is hidden does.
"""


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


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below a directory.

    Parameters
    ----------
    matches : tuple of str
        Directories and zip files of the wanted names, sorted; what is in them is not known yet.
    left_out : tuple of (path, reason)
        What was not entered, sorted; of folders of one name the first, with their number.
    """

    matches: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def find_zarrs(root: str, pattern: str) -> Found:
    """Find the directories and zip files below a directory whose names match a pattern.

    A zip file is meant by its own name, and by that of the directory that it stands for: `e.ozx`
    and `e.ome.zarr.zip` are found as `e.ome.zarr`. Beside that directory they are left out, for
    they hold the same, and results of both would have the same names.

    Parameters
    ----------
    root : str
        Where to begin; itself no candidate.
    pattern : str
        With `*`, `?` and `[...]`, of the name alone; upper and lower case differ.

    Returns
    -------
    Found
        Neither the matches nor other Zarr groups are entered.
    """
    matches: list[str] = []
    left_out: list[tuple[str, str]] = []
    skipped: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(entries)
        except FileNotFoundError:
            continue
        except OSError as error:
            left_out.append((folder, f"{folder}: cannot be listed: {error.strerror}"))
            continue
        if any(entry.name in _METADATA for entry in listed):
            continue
        zipped = [entry.path for entry in listed if _is_zipped(entry, pattern)]
        own: list[str] = []
        for entry in listed:
            is_match = _is_match(entry.name, pattern)
            if entry.path in zipped:
                continue
            if entry.is_symlink() or not entry.is_dir(follow_symlinks=False):
                reason = _no_folder(entry, is_match=is_match)
                left_out += [] if reason is None else [(entry.path, f"{entry.path}: {reason}")]
            elif is_system_folder(entry.name) or entry.name.startswith("."):
                skipped.setdefault(entry.name, []).append(entry.path)
            else:
                (own if is_match else waiting).append(entry.path)
        kept, beside = _apart(own, zipped)
        matches += kept
        left_out += beside
    left_out += [(min(paths), _not_entered(name, paths)) for name, paths in skipped.items()]
    return Found(tuple(sorted(matches)), tuple(sorted(left_out)))


def _is_match(name: str, pattern: str) -> bool:
    """Whether a name is wanted, its own or that which it has unzipped."""
    return any(fnmatchcase(one, pattern) for one in (name, unzipped_name(name)) if one is not None)


def _is_zipped(entry: os.DirEntry[str], pattern: str) -> bool:
    """Whether an entry is a zip file of a wanted name."""
    return (
        entry.name.lower().endswith(ZIPPED)
        and not entry.name.startswith(".")
        and _is_match(entry.name, pattern)
        and entry.is_file(follow_symlinks=False)
    )


def _apart(folders: list[str], zipped: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Directories and zip files of one folder; of those of one stem the first, why not the rest."""
    kept: dict[str, str] = {image_stem(path): path for path in folders}
    left_out: list[tuple[str, str]] = []
    for path in sorted(zipped):
        other = kept.setdefault(image_stem(path), path)
        if other != path:
            text = f"{path}: {other} is taken, whose results would have the same names"
            left_out.append((path, f"{text}; if it is another image, rename one"))
    return [*folders, *(path for path in zipped if path in kept.values())], left_out


def is_system_folder(name: str) -> bool:
    """Return whether a folder of this name belongs to a file server or a system.

    Examples
    --------
    >>> is_system_folder("@eaDir"), is_system_folder("embryo.ome.zarr")
    (True, False)
    """
    return name.casefold() in SYSTEM_FOLDERS


def _not_entered(name: str, paths: list[str]) -> str:
    """Say why folders of a name are not entered."""
    what = "thumbnails, snapshots or trash of a file server" if is_system_folder(name) else "hidden"
    more = f", like {len(paths) - 1} more of this name" if len(paths) > 1 else ""
    return f"{min(paths)}: {what}; not entered{more}"


def _no_folder(entry: os.DirEntry[str], *, is_match: bool) -> str | None:
    """Say what a link or a file is, where somebody may take it for an image or a folder of them."""
    if not entry.is_symlink():
        # A pattern such as `*` matches every file; one of this name says that it is an image.
        is_named = is_match and entry.name.endswith(".zarr")
        return "a file; expected a directory, as an OME-Zarr is" if is_named else None
    try:
        is_folder = entry.is_dir()
    except OSError:
        is_folder = False
    if not (is_folder or is_match):
        return None
    end = "" if is_folder else ", which is no directory"
    target = os.path.realpath(entry.path)
    return f"a link to {target}{end}; links are not followed: name what it leads to"


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
    if metadata.is_label(node.attributes, node.zarr_format):
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
        None if it is neither plate nor well. A listed well that is missing or cannot be read is one
        field, with the path of the well and an empty name: whoever opens it says what is wrong.

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
        try:
            well_node = read_node(well_path)
        except ImageError:
            well_node = None
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
        raise NoImageError(message)
    if "multiscales" in keys:
        return [path]
    if "plate" in keys:
        message = f"{path}: a plate (HCS); give its fields one by one, e.g. {path}/A/1/0"
        raise NoImageError(message)
    if "well" in keys:
        message = f"{path}: a well of a plate; give its fields one by one, e.g. {path}/0"
        raise NoImageError(message)
    if "bioformats2raw.layout" in keys:
        return _series(path, keys["bioformats2raw.layout"])
    if "labels" in keys:
        message = (
            f"{path}: a list of labels, not an image; give the image above it, or one label, "
            f"e.g. {path}/{(keys['labels'] or ['NAME'])[0]}"
        )
        raise NoImageError(message)
    if node.zarr_format == 3 and "multiscales" in (read_object(f"{path}/.zattrs") or {}):
        message = (
            f"{path}: the OME-Zarr keys are in .zattrs (Zarr v2), and a zarr.json without them "
            "(Zarr v3) lies beside; if those of Zarr v2 are whole, move the zarr.json files away"
        )
        raise ImageError(message)
    message = (
        f"{path}: a Zarr group without OME-Zarr `multiscales`; give the path of an image, or "
        f"{WRITE}"
    )
    raise NoImageError(message)


def _series(path: str, layout: object) -> list[str]:
    """Return the images of a bioformats2raw container in the order of its series."""
    if layout != 3:
        message = f"{path}: bioformats2raw layout {shorten(repr(layout))} is unknown; expected 3"
        raise NoImageError(message)
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
        raise NoImageError(message)
    return [f"{path}/{name}" for name in dict.fromkeys(names)]


def _is_group(path: str) -> bool:
    """Return whether there is a directory, or at an address a node."""
    if is_remote(path) or files.is_zipped(path):
        return read_node(path) is not None
    return Path(path).is_dir()
