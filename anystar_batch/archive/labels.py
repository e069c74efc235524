"""Labels among the images: made hidden, exchanged by renaming, listed last.

A label is made and filled under a hidden name, described, renamed, and only then listed::

    labels/.anystar.<token>      create_label, LabelWriter: no attributes, in no list
    labels/.anystar.old          the label that is being replaced, for a moment
    labels/.anystar.trash        the same, on its way out
    labels/anystar               publish: complete, then listed in `labels`

Killed at any point, `recover` finishes or undoes the exchange: `anystar` is then the old label or
the new one, whole. With `--output` the label is a root group of its own, exchanged alike and listed
nowhere.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anystar_batch.archive import documents, store
from anystar_batch.archive.lock import hold_directory
from anystar_batch.archive.mirror import LabelSpec, LabelWriter, label_spec
from anystar_batch.archive.ngff import JSON
from anystar_batch.errors import OutputError

__all__ = [
    "KEY",
    "LabelPlace",
    "LabelSpec",
    "LabelWriter",
    "create_label",
    "discard",
    "existing_labels",
    "in_image",
    "label_spec",
    "publish",
    "published_attributes",
    "recover",
    "standalone",
    "sweep_partials",
]

KEY = "anystar-batch"
"""Attribute that holds the provenance of a label."""


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """Where a label goes: into an image, or into a directory as a root group of its own.

    Use `in_image` and `standalone`.

    Parameters
    ----------
    parent : str
        Directory that holds the label's group.
    name : str
        Name of that group once published.
    label : str
        Name of the label.
    image : str
        The image it belongs to.
    is_standalone : bool
        Whether the group is a root of its own.
    """

    parent: str
    name: str
    label: str
    image: str
    is_standalone: bool

    @property
    def path(self) -> str:
        """The group once published."""
        return f"{self.parent}/{self.name}"

    def hidden_path(self, token: str) -> str:
        """Return the group while it is being made.

        Parameters
        ----------
        token : str
            Tells runs apart; letters, digits, `_` and `-`. A run that continues uses its own again.

        Raises
        ------
        OutputError
            If the token is none of these, or one that `publish` uses itself.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", token) or token in {"old", "trash"}:
            message = f"{token!r} cannot name a hidden label; expected letters and digits"
            raise OutputError(message)
        return f"{self.parent}/.{self.name}.{token}"


def in_image(image: str, label: str) -> LabelPlace:
    """Return the place `IMAGE/labels/LABEL`.

    Parameters
    ----------
    image : str
        Local path of the image.
    label : str
        Name of the label.

    Raises
    ------
    OutputError
        If the name cannot be that of a Zarr group.
    """
    _check_name(label)
    image = store.local_path(image)
    return LabelPlace(f"{image}/labels", label, label, image, is_standalone=False)


def standalone(directory: str, stem: str, label: str, image: str) -> LabelPlace:
    """Return the place `DIRECTORY/STEM.LABEL.ome.zarr`.

    Parameters
    ----------
    directory : str
        Local directory of results.
    stem : str
        What tells the images of a run apart.
    label : str
        Name of the label.
    image : str
        Local path of the image.

    Raises
    ------
    OutputError
        If the name cannot be that of a Zarr group.
    """
    _check_name(label)
    name = f"{stem}.{label}.ome.zarr"
    _check_name(name)
    directory, image = store.local_path(directory), store.local_path(image)
    return LabelPlace(directory, name, label, image, is_standalone=True)


def _check_name(name: str) -> None:
    if not name or name.startswith((".", "__")) or re.search(r"[/\\\x00-\x1f]", name):
        message = (
            f"{name!r} cannot name a label; expected a name without slashes that does not begin "
            "with a dot or two underscores"
        )
        raise OutputError(message)


def create_label(place: LabelPlace, spec: LabelSpec, token: str) -> str:
    """Make an empty label under its hidden name; go on with one that an earlier run made.

    Parameters
    ----------
    place : LabelPlace
        Where the label will go.
    spec : LabelSpec
        Its arrays.
    token : str
        Tells runs apart.

    Returns
    -------
    str
        Path of the hidden group.

    Raises
    ------
    OutputError
        If the place cannot be written, or the hidden group has other arrays.
    """
    path = place.hidden_path(token)
    names = tuple(axis.name for axis in spec.axes)
    if store.read_node(path) is None:
        store.write_attributes(path, spec.zarr_format, {})
    for relative, info in zip(spec.paths, spec.arrays, strict=True):
        for above in list(Path(relative).parents)[-2::-1]:
            if store.read_node(f"{path}/{above}") is None:
                store.write_attributes(f"{path}/{above}", spec.zarr_format, {})
        if store.read_node(f"{path}/{relative}") is None:
            store.create_array(f"{path}/{relative}", spec.zarr_format, info, names)
        elif (found := store.array_info(path, relative, spec.zarr_format)) != info:
            message = f"{path}/{relative}: found {found}, expected {info}; delete the hidden label"
            raise OutputError(message)
        attributes = Path(path, relative, ".zattrs")
        if spec.zarr_format == 2 and not attributes.exists():
            # The second file that zarr writes for an array: a kill may have come between.
            store.write_bytes_atomic(attributes, b"{}")
    return path


def existing_labels(root: str) -> dict[str, JSON]:
    """Return the labels of an image: those listed, and groups under `labels` that are not.

    Parameters
    ----------
    root : str
        Local path of the image.

    Returns
    -------
    dict
        Name to attributes of the label's group; empty attributes if it is listed but missing.
        Hidden groups of unfinished runs are left out.
    """
    root = store.local_path(root)
    names = _listed(root)
    labels = Path(root, "labels")
    names += [
        entry.name
        for entry in (sorted(labels.iterdir()) if labels.is_dir() else [])
        if not entry.name.startswith(".")
        and entry.name not in names
        and store.read_node(str(entry)) is not None
    ]
    found = {}
    for name in names:
        node = store.read_node(f"{root}/labels/{name}")
        found[name] = {} if node is None else node.attributes
    return found


def _listed(root: str) -> list[str]:
    """Return the names in the list of labels of an image."""
    node = store.read_node(f"{root}/labels")
    if node is None:
        return []
    listed = documents.ome_attributes(node.attributes, node.zarr_format).get("labels")
    return list(map(str, listed)) if isinstance(listed, list) else []


def published_attributes(place: LabelPlace) -> JSON | None:
    """Return the attributes of whatever has the label's final name, None if the name is free."""
    if not Path(place.path).exists() and (
        place.is_standalone or place.name not in _listed(place.image)
    ):
        return None
    node = store.read_node(place.path)
    return {} if node is None else node.attributes


def publish(
    place: LabelPlace,
    spec: LabelSpec,
    token: str,
    provenance: JSON,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Describe a finished label, give it its name, replacing an older one, and list it last.

    Parameters
    ----------
    place : LabelPlace
        Where the label goes.
    spec : LabelSpec
        Its arrays.
    token : str
        That of `create_label`; every level is written.
    provenance : dict
        JSON-able, stored as the attribute `anystar-batch`. Equal runs give equal dictionaries.
    check : callable, optional
        Called right before the label gets its name; raises if it may not.

    Returns
    -------
    str
        Path of the published group.

    Raises
    ------
    OutputError
        If a level is missing, or the place cannot be written; an older label is then still there
        or `recover` restores it.
    """
    hidden = place.hidden_path(token)
    for relative in spec.paths:
        if store.read_node(f"{hidden}/{relative}") is None:
            message = f"{hidden}: level {relative} is missing; nothing is published, run again"
            raise OutputError(message)
    check()
    sweep_partials(hidden)
    attributes = _attributes(place, spec, provenance)
    store.write_attributes(hidden, spec.zarr_format, attributes)
    with hold_directory(place.parent):
        check()
        _exchange(place, hidden)
        if not place.is_standalone:
            _list_label(place, spec.zarr_format)
        _remove(place, "old")
        _refresh_consolidated(place)
    return place.path


def _attributes(place: LabelPlace, spec: LabelSpec, provenance: JSON) -> JSON:
    """Return the attributes of the label's group."""
    image = "../../"
    if place.is_standalone:
        try:
            image = os.path.relpath(Path(place.image).resolve(), Path(place.path).resolve())
        except ValueError:  # another drive: no relative path leads there
            image = str(Path(place.image).resolve())
    entry = {"name": place.label, **copy.deepcopy(spec.multiscales)}
    label = {"source": {"image": image}}
    if spec.version == "0.4":
        return {
            "multiscales": [{"version": "0.4", **entry}],
            "image-label": {"version": "0.4", **label},
            KEY: provenance,
        }
    return {
        "ome": {"version": "0.5", "multiscales": [entry], "image-label": label},
        KEY: provenance,
    }


def _exchange(place: LabelPlace, hidden: str) -> None:
    """Put the new label in the place of the old one, which stays beside it under a hidden name."""
    if not Path(hidden).exists():
        # Before the old one moves: another run may have published this very label meanwhile.
        message = f"{hidden} is gone; nothing is published, run again"
        raise OutputError(message)
    try:
        if Path(place.path).exists():
            Path(place.path).rename(_aside(place, "old"))
        Path(hidden).rename(place.path)
        store.sync_directory(place.parent)
    except OSError as error:
        raise store.output_error(place.path, error) from error


def _aside(place: LabelPlace, what: str) -> Path:
    return Path(place.parent, f".{place.name}.{what}")


def _remove(place: LabelPlace, what: str) -> None:
    """Delete a group that was set aside; renamed first, so that half of one is never restored."""
    aside, trash = _aside(place, what), _aside(place, "trash")
    if trash.exists():
        shutil.rmtree(trash)
    if aside.exists() and what != "trash":
        aside.rename(trash)
        store.sync_directory(place.parent)
        shutil.rmtree(trash)


def _list_label(place: LabelPlace, zarr_format: Literal[2, 3]) -> None:
    """Add the label's name to those of the image, if it is not there."""
    labels = place.parent
    node = store.read_node(labels)
    attributes = {} if node is None else node.attributes
    names = list(dict.fromkeys([*_listed(place.image), place.name]))
    if zarr_format == 2:
        wanted = {**attributes, "labels": names}
    else:
        ome = attributes.get("ome")
        ome = ome if isinstance(ome, dict) else {}
        wanted = {**attributes, "ome": {**ome, "version": "0.5", "labels": names}}
    if node is None or wanted != attributes:
        store.write_attributes(labels, zarr_format, wanted)


def recover(place: LabelPlace) -> None:
    """Finish or undo what a killed `publish` left; without one, change nothing.

    Parameters
    ----------
    place : LabelPlace
        Where a label goes. Nobody else publishes there: the caller holds the run's lock.

    Raises
    ------
    OutputError
        If the place cannot be written.
    """
    if not Path(place.parent).is_dir():
        return
    with hold_directory(place.parent):
        final, old = Path(place.path), _aside(place, "old")
        if not place.is_standalone:
            _sweep_lists(place)
        try:
            if old.exists() and not final.exists():
                old.rename(final)
                store.sync_directory(place.parent)
            node = store.read_node(place.path)
            if node is not None and KEY in node.attributes:
                sweep_partials(place.path)
                if not place.is_standalone:
                    _list_label(place, node.zarr_format)
            _remove(place, "old")
        except OSError as error:
            raise store.output_error(place.path, error) from error
        if node is not None:
            _refresh_consolidated(place)


def discard(place: LabelPlace, token: str) -> None:
    """Delete an unfinished hidden label, and the image's `labels` if nothing else is in there.

    Parameters
    ----------
    place : LabelPlace
        Where the label would have gone.
    token : str
        That of `create_label`.
    """
    shutil.rmtree(place.hidden_path(token), ignore_errors=True)
    if not place.is_standalone:
        with suppress(OSError):  # not empty, or never made
            Path(place.parent).rmdir()


def sweep_partials(path: str) -> None:
    """Delete the temporary files that killed writers left in a label of ours."""
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(store.PARTIAL):
                Path(folder, name).unlink(missing_ok=True)


def _sweep_lists(place: LabelPlace) -> None:
    """Delete what a killed `_list_label` left; whoever writes a list holds the directory's lock."""
    for name in (".zgroup", ".zattrs", "zarr.json"):
        for torn in Path(place.parent).glob(f".{name}.*-*{store.PARTIAL}"):
            torn.unlink(missing_ok=True)


def _refresh_consolidated(place: LabelPlace) -> None:
    """Rewrite consolidated metadata above the label that does not describe it as it is."""
    if place.is_standalone:
        return
    below = place.name
    root = Path(place.parent).absolute()
    while (node := store.read_node(str(root))) is not None:
        if node.was_consolidated and not store.is_consolidated(str(root), below):
            store.consolidate(str(root), node.zarr_format)
        below = f"{root.name}/{below}"
        root = root.parent
