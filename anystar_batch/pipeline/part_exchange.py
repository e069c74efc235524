"""What parts have done, brought to where they meet, and taken from there by the run that finishes.

Parts that share a file system work in the one work directory and have nothing to bring. Where
results go to an object store, machines need share nothing else: a part works in a directory of its
own, which nobody misses, and brings to the store what it has done::

    s3://bucket/out/.embryo.anystar.parts/3-of-8.jsonl                    its ledger
    s3://bucket/out/.embryo.anystar.parts/candidates/3-of-8.T-...npy      what that speaks of

Files come first, the ledger after them, whole: whoever reads a ledger finds what it speaks of. What
a part has done is brought every `PAUSE` seconds and when it stops; a part that is killed loses what
it did since. The store's ledger is the one that counts: a part that begins again, here or
elsewhere, goes on from that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anystar_batch.address import is_remote
from anystar_batch.archive.storage.atomic_write import write_bytes_atomic
from anystar_batch.archive.storage.files import copy, names, read_bytes, remove_tree
from anystar_batch.archive.storage.remote import at_once, put
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.pipeline.part_ledgers import entries_left, ledger_name, left_parts
from anystar_batch.stages.ledger import Ledger
from anystar_batch.stages.workdir import CANDIDATES

PAUSE = 10.0
"""Seconds between two times that a part brings what it has done to an object store."""


@contextlib.contextmanager
def own_work(outputs: Outputs, part: tuple[int, int]) -> Iterator[Outputs]:
    """Yield where a part works: in the work directory, or one of its own that is gone afterwards.

    Parameters
    ----------
    outputs : Outputs
    part : (index, count)
        Whose lock is held.
    """
    if not is_remote(outputs.folder):
        yield outputs
        return
    stem = outputs.work.removesuffix(".work")
    mine = replace(outputs, work=f"{stem}.{part[0]}-of-{part[1]}.work")
    remove_tree(mine.work)  # of one that was killed here: what counts of it is in the store
    try:
        yield mine
    finally:
        remove_tree(mine.work)


def part_ledger(
    outputs: Outputs,
    work: str,
    part: tuple[int, int],
    digest: str,
    parts: dict[str, object],
    check: Callable[[], None],
) -> Ledger:
    """Open the ledger of a part.

    Parameters
    ----------
    outputs : Outputs
    work : str
        Directory of `own_work`.
    part : (index, count)
        Whose lock is held.
    digest, parts, check
        As `Ledger` takes them.

    Raises
    ------
    LedgerMismatchError
        If the part has begun with other options.
    """
    name = ledger_name(part)
    if not is_remote(outputs.parts):
        return Ledger(Path(outputs.parts), digest, parts, check, name)
    before = read_bytes(f"{outputs.parts}/{name}")
    if before is not None:
        write_bytes_atomic(Path(work) / name, before)
    return SharedLedger(work, outputs.parts, digest, parts, check, name)


class SharedLedger(Ledger):
    """A part's ledger whose entries, and the files of candidates they name, go to an object store.

    Parameters
    ----------
    work : str
        Work directory, where the ledger lies and the folder of candidates.
    place : str
        Address below which they go.
    fingerprint, parts, check, name
        As `Ledger` takes them.

    Raises
    ------
    LedgerMismatchError
        As of `Ledger`.
    """

    def __init__(
        self,
        work: str,
        place: str,
        fingerprint: str,
        parts: dict[str, object],
        check: Callable[[], None],
        name: str,
    ) -> None:
        self._work, self._place = work, place
        self._waiting: set[str] | None = None  # files to bring; None: nothing is new
        self._brought = -PAUSE
        super().__init__(Path(work), fingerprint, parts, check, name)

    def done(self, stage: str, entries: dict[str, dict[str, Any]]) -> None:
        """Note that pieces are done; the note is on disk, and some seconds later in the store."""
        super().done(stage, entries)
        files = {str(entry["file"]) for entry in entries.values() if entry.get("file")}
        self._waiting = (self._waiting or set()) | files
        if stage == "plan":  # what took long to decide, others need not decide for themselves
            self._bring()
        elif time.monotonic() - self._brought >= PAUSE:
            self._bring()
            self._brought = time.monotonic()

    def close(self) -> None:
        """Bring what is left to the store, and close the file."""
        try:
            self._bring()
        finally:
            super().close()

    def _bring(self) -> None:
        """Bring files, then the ledger that speaks of them."""
        if self._waiting is None:
            return
        self._check()

        def bring(name: str) -> None:
            path = Path(self._work) / CANDIDATES / name
            if path.exists():  # tiles without candidates name one that was not needed
                copy(path, f"{self._place}/{CANDIDATES}/{name}")

        at_once(bring, sorted(self._waiting))
        self._check()
        put(f"{self._place}/{self.path.name}", self.path.read_bytes())
        self._waiting = None


def absorb(ledger: Ledger, outputs: Outputs, parts: Mapping[str, object]) -> int:
    """Take what parts have done into the ledger of the run that finishes; return how many parts.

    Parameters
    ----------
    ledger : Ledger
        Of that run.
    outputs : Outputs
        Whose locks are held; no part is at work.
    parts : mapping
        What the fingerprint was made of.

    Raises
    ------
    LedgerMismatchError
        If a part belongs to another run.
    OutputError
        If a file cannot be brought here.
    """
    # All are read, and refused if need be, before any is taken.
    for stage, entries in list(entries_left(outputs, ledger.fingerprint, parts)):
        known = ledger.entries(stage)
        new = {key: entries[key] for key in entries if key not in known}
        if new and is_remote(outputs.parts):
            new = _fetched(outputs, new)
        if new:
            ledger.done(stage, new)
    return len(left_parts(outputs))


def _fetched(outputs: Outputs, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Bring here the files that entries speak of; return those entries whose files there are."""
    there, place = f"{outputs.parts}/{CANDIDATES}", Path(outputs.work) / CANDIDATES
    wanted = {str(e["file"]) for e in entries.values() if _has_records(e)}
    found = sorted(wanted.intersection(names(there)))
    at_once(lambda name: copy(f"{there}/{name}", place / name), found)
    gone = wanted.difference(found)
    return {k: e for k, e in entries.items() if not (_has_records(e) and e["file"] in gone)}


def _has_records(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry speaks of records in a file."""
    return bool(entry.get("file")) and int(entry["stop"]) > int(entry["start"])
