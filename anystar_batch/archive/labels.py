"""Labels among the images: made hidden, exchanged by renaming, listed last.

A label is made and filled under a hidden name, described, renamed, and only then listed::

    labels/.anystar.<digits>     create_label, LabelWriter: no attributes, in no list
    labels/.anystar.old          the label that was replaced, for a moment
    labels/.anystar.trash        the same, on its way out
    labels/anystar               publish: complete, then listed in `labels`

The old label and the new one change places in one step: `anystar` is one of them, whole, at every
moment. Where the file system cannot do that (NFS) it takes two steps, and killed between them
`anystar` is missing until the next run, when `recover` undoes the first. With `--output` the label
is a root group of its own, exchanged alike and listed nowhere. In object stores, which cannot
rename, `label_copy` does the exchange.
"""

from __future__ import annotations

import colorsys
import copy
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from anystar_batch.address import is_remote, joined, relative_path
from anystar_batch.archive import arrays, label_copy, nodes
from anystar_batch.archive.label_image import LabelSpec
from anystar_batch.archive.label_list import list_label, listed, refresh_consolidated, sweep_lists
from anystar_batch.archive.label_place import KEY, LabelPlace
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.storage import atomic_write, files, remote
from anystar_batch.archive.storage.lock import hold_list
from anystar_batch.errors import OutputError

MOST = 256
"""Labels that get a colour each; with more, viewers do better by their own hash."""

GOLDEN = 0.618033988749895
"""Step of the hue: no two of many are alike."""


def create_label(label: LabelPlace, spec: LabelSpec, digest: str) -> str:
    """Make an empty label under its hidden name; go on with one that an earlier run made.

    Parameters
    ----------
    label : LabelPlace
        Where the label will go.
    spec : LabelSpec
        Its arrays.
    digest : str
        Fingerprint of the result.

    Returns
    -------
    str
        Path of the hidden group.

    Raises
    ------
    OutputError
        If the place cannot be written, or the hidden group has other arrays.
    """
    path = label.hidden_path(digest)
    names = tuple(axis.name for axis in spec.axes)
    if nodes.read_node(path) is None:
        nodes.write_attributes(path, spec.zarr_format, {})
    for relative, info in zip(spec.paths, spec.arrays, strict=True):
        for above in list(Path(relative).parents)[-2::-1]:
            if nodes.read_node(f"{path}/{above}") is None:
                nodes.write_attributes(f"{path}/{above}", spec.zarr_format, {})
        node = nodes.read_node(f"{path}/{relative}")
        # zarr writes an array's two files of format 2 in any order: a kill may leave either alone.
        if node is None or node.kind != "array":
            arrays.create_array(f"{path}/{relative}", spec.zarr_format, info, names)
        elif (stored := arrays.array_info(path, relative, spec.zarr_format)) != info:
            message = f"{path}/{relative}: found {stored}, expected {info}; delete the hidden label"
            raise OutputError(message)
        attributes = f"{path}/{relative}/.zattrs"
        if spec.zarr_format == 2 and not files.exists(attributes):
            # The second file that zarr writes for an array: a kill may have come between.
            atomic_write.write_bytes_atomic(attributes, b"{}")
    return path


def published_attributes(label: LabelPlace) -> JSON | None:
    """Return the attributes of whatever has the label's final name, None if the name is free.

    A label that is on its way to the name, as `recover` will bring it there, has it.
    """
    begun = label_copy.begun(label) if is_remote(label.parent) else None
    if begun is not None and not begun["is_copied"]:
        node = nodes.read_node(label.hidden_path(str(begun["token"])))
        return {} if node is None else node.attributes
    if not files.exists(label.path) and (
        label.is_standalone or label.name not in listed(label.image)
    ):
        return None
    node = nodes.read_node(label.path)
    return {} if node is None else node.attributes


def source_of(label: LabelPlace, attributes: JSON | None) -> str | None:
    """Return the image that a label of a directory of results was made of, None if it is unknown.

    Parameters
    ----------
    label : LabelPlace
        Where the label is.
    attributes : dict or None
        Its attributes. A label inside an image belongs to that image, whatever it says.
    """
    if not label.is_standalone or attributes is None:
        return None
    return image_of(label.path, attributes)


def image_of(path: str, attributes: JSON) -> str | None:
    """Return the image that a label says it was made of, None if it does not say.

    Parameters
    ----------
    path : str
        The label.
    attributes : dict
        Its attributes.
    """
    holder = attributes.get("ome") or attributes
    label = holder.get("image-label") if isinstance(holder, dict) else None
    source = label.get("source") if isinstance(label, dict) else None
    image = source.get("image") if isinstance(source, dict) else None
    return joined(path, image) if isinstance(image, str) else None


def multiscale_of(attributes: JSON) -> int:
    """Return which of several multiscales of its image a label of ours was made of; 0 is the first.

    Parameters
    ----------
    attributes : dict
        Its attributes.
    """
    found: object = attributes
    for key in (KEY, "options", "multiscale", "index"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int) and found > 0 else 0


def publish(
    label: LabelPlace,
    spec: LabelSpec,
    digest: str,
    provenance: JSON,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Describe a finished label, give it its name, replacing an older one, and list it last.

    Parameters
    ----------
    label : LabelPlace
        Where the label goes.
    spec : LabelSpec
        Its arrays.
    digest : str
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
    hidden = label.hidden_path(digest)
    for relative in spec.paths:
        if nodes.read_node(f"{hidden}/{relative}") is None:
            message = f"{hidden}: level {relative} is missing; nothing is published, run again"
            raise OutputError(message)
    check()
    sweep_partials(hidden)
    attributes = _attributes(label, spec, provenance)
    nodes.write_attributes(hidden, spec.zarr_format, attributes)
    if is_remote(label.parent):
        check()
        label_copy.begin(label, spec.zarr_format, digest)
        label_copy.finish(label, check)
        return label.path
    with hold_list(label.parent):
        check()
        _exchange(label, hidden)
        if not label.is_standalone:
            list_label(label, spec.zarr_format)
        _remove(label, "old")
        refresh_consolidated(label)
    return label.path


def add_group(
    label: LabelPlace, digest: str, name: str, check: Callable[[], None] = lambda: None
) -> None:
    """Give a published label a group that was made in the hidden one, whole or not at all.

    Parameters
    ----------
    label : LabelPlace
        Where the label is, without such a group.
    digest : str
        That of `create_label`.
    name : str
        Of the group.
    check : callable, optional
        Called right before it gets its place; raises if it may not.

    Raises
    ------
    OutputError
        If the place cannot be written.
    """
    made, final = f"{label.hidden_path(digest)}/{name}", f"{label.path}/{name}"
    if is_remote(label.parent):
        label_copy.copy_tree(made, final, check)
        with hold_list(label.parent):
            refresh_consolidated(label, name)
        return
    with hold_list(label.parent):
        check()
        sweep_partials(made)
        try:
            shutil.rmtree(final, ignore_errors=True)
            Path(made).rename(final)
            atomic_write.sync_directory(label.path)
        except OSError as error:
            raise files.output_error(final, error) from error
        refresh_consolidated(label, name)


def _attributes(label: LabelPlace, spec: LabelSpec, provenance: JSON) -> JSON:
    """Return the attributes of the label's group."""
    image = relative_path(label.image, label.path) if label.is_standalone else "../../"
    entry = {"name": label.label_name, **copy.deepcopy(spec.multiscales)}
    image_label: JSON = {"source": {"image": image}}
    shown = colours(int(provenance.get("instances", 0)))
    if shown:  # an empty list is against the specification
        image_label["colors"] = shown
    if spec.version == "0.4":
        return {
            "multiscales": [{"version": "0.4", **entry}],
            "image-label": {"version": "0.4", **image_label},
            KEY: provenance,
        }
    return {
        "ome": {"version": spec.version, "multiscales": [entry], "image-label": image_label},
        KEY: provenance,
    }


def _exchange(label: LabelPlace, hidden: str) -> None:
    """Put the new label in the place of the old one, which stays beside it under a hidden name."""
    if not Path(hidden).exists():
        # Before the old one moves: another run may have published this very label meanwhile.
        message = f"{hidden} is gone; nothing is published, run again"
        raise OutputError(message)
    final, old = Path(label.path), _aside(label, "old")
    try:
        atomic_write.replace_directory(Path(hidden), final, old)
    except OSError as error:
        raise files.output_error(label.path, error) from error


def _aside(label: LabelPlace, what: str) -> Path:
    return Path(label.parent, f".{label.name}.{what}")


def _remove(label: LabelPlace, what: str) -> None:
    """Delete a group that was set aside; renamed first, so that half of one is never restored."""
    aside, trash = _aside(label, what), _aside(label, "trash")
    if trash.exists():
        shutil.rmtree(trash)
    if aside.exists() and what != "trash":
        aside.rename(trash)
        atomic_write.sync_directory(label.parent)
        shutil.rmtree(trash)


def recover(label: LabelPlace, check: Callable[[], None] = lambda: None) -> None:
    """Finish or undo what a killed `publish` left; without one, change nothing.

    Parameters
    ----------
    label : LabelPlace
        Where a label goes. Nobody else publishes there: the caller holds the run's lock.
    check : callable, optional
        Called before a copy goes on; raises if it may not.

    Raises
    ------
    OutputError
        If the place cannot be written.
    """
    if is_remote(label.parent):
        label_copy.recover(label, check)
        return
    if not Path(label.parent).is_dir():
        return
    with hold_list(label.parent):
        final, old = Path(label.path), _aside(label, "old")
        if not label.is_standalone:
            sweep_lists(label.parent)
        try:
            if old.exists() and not final.exists():
                old.rename(final)
                atomic_write.sync_directory(label.parent)
            node = nodes.read_node(label.path)
            if node is not None and KEY in node.attributes:
                sweep_partials(label.path)
                if not label.is_standalone:
                    list_label(label, node.zarr_format)
            _remove(label, "old")
        except OSError as error:
            raise files.output_error(label.path, error) from error
        if node is not None:
            refresh_consolidated(label)


def discard(label: LabelPlace, digest: str) -> None:
    """Delete an unfinished hidden label, and the image's `labels` if nothing else is in there.

    Parameters
    ----------
    label : LabelPlace
        Where the label would have gone.
    digest : str
        That of `create_label`.
    """
    if is_remote(label.parent):
        remote.remove_tree(label.hidden_path(digest))
        return
    shutil.rmtree(label.hidden_path(digest), ignore_errors=True)
    if not label.is_standalone:
        with suppress(OSError):  # not empty, or never made
            Path(label.parent).rmdir()


def sweep_partials(path: str) -> None:
    """Delete the temporary files that killed writers left in a label of ours.

    In object stores nobody leaves any.
    """
    if is_remote(path):
        return
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(files.PARTIAL):
                Path(folder, name).unlink(missing_ok=True)


def colours(count: int) -> list[JSON]:
    """Return the colours of labels 1 to `count` as `image-label` wants them; none if too many.

    Parameters
    ----------
    count : int
        Number of labels.

    Returns
    -------
    list of dict
        `label-value` and `rgba`, opaque, 0 to 255.

    Examples
    --------
    >>> colours(1)
    [{'label-value': 1, 'rgba': [82, 129, 242, 255]}]
    """
    if count > MOST:
        return []
    entries: list[JSON] = []
    for label in range(1, count + 1):
        saturation = 0.66 + 0.09 * (1 - label % 2)
        value = 0.95 - 0.05 * (1 - label % 2)
        rgb = colorsys.hsv_to_rgb(label * GOLDEN % 1.0, saturation, value)
        entries.append({"label-value": label, "rgba": [*(round(255 * c) for c in rgb), 255]})
    return entries
