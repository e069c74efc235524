"""What the parts of a run leave where they meet: who is at work, which tiles are done.

::

    embryo.anystar.work/parts/3-of-8.jsonl     ledger of one part: its tiles
    embryo.anystar.work/parts/3-of-8.lock      while it is at work

Where results go to an object store, the same lies there, and the candidates with it
(`part_exchange`).

Every part has a ledger of its own, since a ledger has one writer. The run that finishes takes their
entries into its own. A part never works while that run does: each makes its own lock first and then
looks for the other's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from anystar_batch.address import is_remote
from anystar_batch.archive.storage import remote
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import exists, names, read_bytes
from anystar_batch.archive.storage.lock import hold
from anystar_batch.archive.storage.remote import at_once
from anystar_batch.errors import LockedError
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.stages.ledger import NAME, Ledger

_LEDGER = re.compile(r"(\d+)-of-(\d+)\.jsonl")

LOCK = ".lock"
"""How the names of their locks end."""

HEAD = 2**16
"""Bytes of a ledger in which its first line lies."""

TRIES = 10
"""How often a lock is looked at that others hold for a moment, to look at it."""


def ledger_name(part: tuple[int, int]) -> str:
    """Return the file name of a part's ledger; part (3, 8) is the third of eight."""
    return f"{part[0]}-of-{part[1]}.jsonl"


def lock_path(outputs: Outputs, part: tuple[int, int]) -> str:
    """Return the lock that a part holds while it is at work."""
    return f"{outputs.parts}/{part[0]}-of-{part[1]}{LOCK}"


def left_parts(outputs: Outputs) -> list[tuple[int, int]]:
    """Return the parts that have left a ledger; none where nobody may look."""
    found = map(_LEDGER.fullmatch, _names(outputs))
    return sorted((int(m[1]), int(m[2])) for m in found if m is not None)


def _names(outputs: Outputs) -> list[str]:
    with suppress(PermissionError, NotADirectoryError):
        return names(outputs.parts)
    return []


def part_fingerprints(outputs: Outputs) -> set[str | None]:
    """Return the fingerprints of what parts have left."""
    paths = [f"{outputs.parts}/{ledger_name(part)}" for part in left_parts(outputs)]
    return {Ledger.fingerprint_of(head) for head in at_once(_head, paths)}


def _head(path: str) -> bytes:
    """The beginning of a ledger, of an object that may be large by a request for that alone."""
    if not is_remote(path):
        return read_bytes(path) or b""
    status = remote.status(path)
    return b"" if status is None else remote.read_range(path, 0, min(status[0], HEAD), status[0])


def check_idle(outputs: Outputs) -> None:
    """Check that no part is at work, for the run that finishes and holds the locks of the results.

    Raises
    ------
    LockedError
        If one is.
    """
    for name in _names(outputs):
        if name.endswith(LOCK):
            part = name.removesuffix(LOCK).replace("-of-", "/")
            _check_free(f"{outputs.parts}/{name}", f"part {part} is at work; ")


def check_unfinished(outputs: Outputs) -> None:
    """Check that no run holds the locks of the results, for a part that holds its own.

    Raises
    ------
    LockedError
        If one does.
    """
    for path in outputs.locks:
        _check_free(path, "the run that finishes is at work; ")


def are_at_work(outputs: Outputs, parts: Iterable[tuple[int, int]]) -> bool:
    """Return whether any of some parts is at work."""
    for part in parts:
        try:
            _check_free(lock_path(outputs, part), "")
        except LockedError:
            return True
    return False


@contextmanager
def hold_part(
    outputs: Outputs, part: tuple[int, int], tell: Callable[[str], None]
) -> Iterator[Fence]:
    """Hold the lock of a part while it is at work; `tell` hears of a dead holder.

    Raises
    ------
    LockedError
        If this very part is at work.
    """
    with ExitStack() as stack:
        for left in reversed(range(TRIES)):
            try:
                fence = stack.enter_context(hold(lock_path(outputs, part), tell=tell))
                break
            except LockedError:
                if not left:
                    raise
                time.sleep(0.2)  # others hold it for a moment, to look at it
        yield fence


def _check_free(path: str, who: str) -> None:
    """Raise if a lock is held; that of a dead holder is removed."""
    for left in reversed(range(TRIES)):
        if not exists(path):
            return
        try:
            with hold(path):
                return
        except LockedError as error:
            if not left:
                message = f"{who}{error}"
                raise LockedError(message) from error
            time.sleep(0.2)


def entries_left(
    outputs: Outputs, digest: str, parts: Mapping[str, object]
) -> Iterator[tuple[str, Mapping[str, dict[str, Any]]]]:
    """Yield stage and entries of what parts have left.

    Parameters
    ----------
    outputs : Outputs
    digest : str
        Fingerprint that they must have.
    parts : mapping
        What it was made of, to name what differs.

    Raises
    ------
    LedgerMismatchError
        If one is of another run, or damaged.
    """
    for part in left_parts(outputs):
        yield from _entries(f"{outputs.parts}/{ledger_name(part)}", digest, parts)


def ledger_paths(outputs: Outputs) -> list[str]:
    """Return the ledgers of this run: its own, if there is one here, and those of all parts."""
    main = f"{outputs.work}/{NAME}"
    of_parts = [f"{outputs.parts}/{ledger_name(part)}" for part in left_parts(outputs)]
    return [*([main] if exists(main) else []), *of_parts]


def known_entries(
    outputs: Outputs, digest: str, parts: Mapping[str, object]
) -> Iterator[tuple[str, Mapping[str, dict[str, Any]]]]:
    """Yield stage and entries of all `ledger_paths`.

    Parameters and errors are those of `entries_left`.
    """
    for path in ledger_paths(outputs):
        yield from _entries(path, digest, parts)


def _entries(
    file: str, digest: str, parts: Mapping[str, object]
) -> Iterator[tuple[str, Mapping[str, dict[str, Any]]]]:
    lines = Ledger.read(file, digest, dict(parts))
    yield from lines.items()
