"""Which piece of which stage is done, for which fingerprint: one append-only file of JSON lines.

One process writes it (the run that holds the lock); a line is appended after the data it speaks of
is safely on disk, so that redoing an unlisted piece is the only cost of a crash. A torn last line,
which a crash can leave, is cut off on opening. Opening writes the file anew: a process that opened
it before, was stopped and lost the lock has another file, and cannot write into this one. Keys are
tiles and shards, never blocks: a rerun with other blocks or workers continues where this one
stopped.

::

    {"format": 2, "fingerprint": "4be0...", "parts": {...}}     first line
    {"stage": "predict", "key": "0/1.3.2", "file": "...", "content": "..."}
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anystar_batch.archive.files import write_bytes_atomic
from anystar_batch.errors import LedgerMismatchError

FORMAT = 2
NAME = "ledger.jsonl"


class Ledger:
    """The open ledger of a work directory.

    Parameters
    ----------
    folder : Path
        Work directory; must exist.
    fingerprint : str
        What the work directory is for.
    parts : dict
        The JSON values the fingerprint was made of; named in the error if they differ.
    check : callable, optional
        Called before every note; raises if nothing may be written any more.

    Raises
    ------
    LedgerMismatchError
        If the work directory holds the work of another fingerprint, or the file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        parts: dict[str, object],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = folder / NAME
        self.fingerprint = fingerprint
        self._check = check
        self._entries: dict[str, dict[str, dict[str, Any]]] = {}
        self._load(fingerprint, parts)
        self._stream = self.path.open("a", encoding="utf-8")
        if self.path.stat().st_size == 0:
            self._append({"format": FORMAT, "fingerprint": fingerprint, "parts": parts})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @staticmethod
    def fingerprint_in(folder: Path) -> str | None:
        """Return the fingerprint of the work that a directory holds, None if there is none."""
        try:
            with (folder / NAME).open(encoding="utf-8") as stream:
                return str(json.loads(stream.readline())["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def entry(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return what was noted of a piece, None if it is not done."""
        return self._entries.get(stage, {}).get(key)

    def entries(self, stage: str) -> dict[str, dict[str, Any]]:
        """Return every entry of a stage, by key; a copy."""
        return dict(self._entries.get(stage, {}))

    def done(self, stage: str, entries: dict[str, dict[str, Any]]) -> None:
        """Note that pieces are done; returns when the note is on disk.

        Parameters
        ----------
        stage : str
            Name of the stage.
        entries : dict
            JSON values to note, by key of the piece.
        """
        self._check()
        for key, entry in entries.items():
            self._entries.setdefault(stage, {})[key] = entry
            self._stream.write(json.dumps({"stage": stage, "key": key, **entry}) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _append(self, document: dict[str, object]) -> None:
        self._stream.write(json.dumps(document) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _load(self, fingerprint: str, parts: dict[str, object]) -> None:
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines:
            write_bytes_atomic(self.path, b"")
            return
        header, *entries = [_parse(self.path, n, line) for n, line in enumerate(lines, 1)]
        if header.get("format") != FORMAT or header.get("fingerprint") != fingerprint:
            raise LedgerMismatchError(_difference(self.path.parent, header, parts))
        for entry in entries:
            self._entries.setdefault(entry.pop("stage"), {})[entry.pop("key")] = entry
        self._check()
        write_bytes_atomic(self.path, whole)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line of the file: the header, or an entry with stage and key."""
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict) or (number > 1 and not {"stage", "key"} <= document.keys()):
        message = (
            f"{path}, line {number}: damaged, and not by a run that was cut short; give --restart "
            "to throw the unfinished run away"
        )
        raise LedgerMismatchError(message)
    return document


def _difference(folder: Path, header: dict[str, Any], parts: dict[str, object]) -> str:
    """One message that names what differs between an earlier run's parts and ours."""
    if header.get("format") != FORMAT:
        reason = f"its ledger has format {header.get('format')!r}, expected {FORMAT}"
    else:
        before = header.get("parts", {})
        now = json.loads(json.dumps(parts))
        names = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        shown = [f"{k}: {_short(before.get(k))} -> {_short(now.get(k))}" for k in names]
        reason = "these differ: " + "; ".join(shown)
    return (
        f"{folder} holds an unfinished run of another image, model or configuration ({reason}); "
        "repeat that run's options to finish it, or give --restart to throw it away"
    )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
