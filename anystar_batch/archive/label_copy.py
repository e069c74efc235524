"""Publishing where nothing can be renamed: the finished label is copied to its name.

::

    labels/.anystar.publish      says of which hidden label the copy was begun: {"token": ...}
    labels/.anystar.<digits>     the finished label; it stays until its copy is whole and listed
    labels/anystar               unlisted, deleted, copied, its own metadata last, listed again

From the first object on, the hidden label is whole and named; so whoever finds `.anystar.publish`
can finish what was begun, on any machine. Once the copy is whole, `.anystar.publish` says so before
the hidden label is deleted: half of one is never copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from anystar_batch.archive import nodes
from anystar_batch.archive.label_list import list_label, refresh_consolidated, unlist_label
from anystar_batch.archive.label_place import LabelPlace
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.nodes import read_object
from anystar_batch.archive.storage import atomic_write, files, remote
from anystar_batch.archive.storage.lock import hold_list
from anystar_batch.errors import OutputError

AT_ONCE = 1000
"""Objects that are copied between two looks at the lock."""

OWN = (".zattrs", ".zgroup", "zarr.json")
"""Metadata of the label's group itself: deleted first, copied last in the reverse order."""


def begun(label: LabelPlace) -> JSON | None:
    """Return what is known of a copy that was begun and is not over; None if there is none."""
    return read_object(_mark(label))


def begin(label: LabelPlace, zarr_format: Literal[2, 3], digest: str) -> None:
    """Note that a finished hidden label shall take the name.

    Parameters
    ----------
    label : LabelPlace
        Where the label goes.
    zarr_format : {2, 3}
        Its format.
    digest : str
        Fingerprint of the hidden label, which is whole and described.

    Raises
    ------
    OutputError
        If the place cannot be written.
    """
    note = {"token": digest, "zarr_format": zarr_format, "is_copied": False}
    atomic_write.write_json_atomic(_mark(label), note)


def finish(label: LabelPlace, check: Callable[[], None]) -> None:
    """Finish a copy that was begun; without one, do nothing.

    Parameters
    ----------
    label : LabelPlace
        Where the label goes. Nobody else publishes there: the caller holds the run's lock.
    check : callable
        Called before anything is changed; raises if nothing may be.

    Raises
    ------
    OutputError
        If the place cannot be written, or the hidden label is gone.
    """
    note = begun(label)
    if note is None:
        return
    hidden = label.hidden_path(str(note["token"]))
    try:
        if not note["is_copied"]:
            if nodes.read_node(hidden) is None:
                message = (
                    f"{hidden} is gone, of which {label.path} was being made; restore it, or "
                    f"delete {_mark(label)} and give --overwrite to make the label anew"
                )
                raise OutputError(message)
            _clear(label, note["zarr_format"], check)
            copy_tree(hidden, label.path, check)
            _list(label, note["zarr_format"], check)
            check()
            atomic_write.write_json_atomic(_mark(label), {**note, "is_copied": True})
        check()
        remote.remove_tree(hidden)
        remote.remove(_mark(label))
    except OutputError:
        raise
    except OSError as error:
        raise files.output_error(label.path, error) from error


def _mark(label: LabelPlace) -> str:
    return f"{label.parent}/.{label.name}.publish"


def _clear(label: LabelPlace, zarr_format: Literal[2, 3], check: Callable[[], None]) -> None:
    """Take the old label off the list, then delete it."""
    check()
    if files.exists(label.path):
        with hold_list(label.parent):
            check()
            if not label.is_standalone:
                unlist_label(label, zarr_format)
            for name in OWN:
                remote.remove(f"{label.path}/{name}")
            refresh_consolidated(label)
        check()
        remote.remove_tree(label.path)


def copy_tree(hidden: str, final: str, check: Callable[[], None]) -> None:
    """Copy a group and all below it, the group's own metadata last.

    Parameters
    ----------
    hidden, final : str
        Its address, and that of its copy.
    check : callable
        Called now and then; raises if nothing may be written.
    """
    own = [f"{hidden}/{name}" for name in reversed(OWN)]
    paths = remote.keys(hidden)
    rest = [path for path in paths if path not in own]

    def copy_one(path: str) -> None:
        remote.copy(path, f"{final}/{path.removeprefix(f'{hidden}/')}")

    for start in range(0, len(rest), AT_ONCE):
        check()
        remote.at_once(copy_one, rest[start : start + AT_ONCE])
    check()
    for path in own:
        if path in paths:
            copy_one(path)


def _list(label: LabelPlace, zarr_format: Literal[2, 3], check: Callable[[], None]) -> None:
    """Put the label on the list of its image."""
    if label.is_standalone:
        return
    with hold_list(label.parent):
        check()
        list_label(label, zarr_format)
        refresh_consolidated(label)


def recover(label: LabelPlace, check: Callable[[], None]) -> None:
    """Finish a copy that was begun; see to it that a label of ours is listed.

    Parameters and errors are those of `finish`.
    """
    finish(label, check)
    node = nodes.read_node(label.path)
    if node is not None and not label.is_standalone:
        _list(label, node.zarr_format, check)
