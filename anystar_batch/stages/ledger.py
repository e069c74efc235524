"""Which piece of which stage is done, for which fingerprint: one append-only file of JSON lines.

One process writes it (the run that holds the lock); a line is appended after the data it speaks of
is safely on disk, so that redoing an unlisted piece is the only cost of a crash. A torn last line,
which a crash can leave, is cut off on opening. Opening writes the file anew: a process that opened
it before, was stopped and lost the lock has another file, and cannot write into this one. Keys are
tiles and shards, never blocks: a rerun with other blocks or workers continues where this one
stopped.

::

    {"format": 3, "fingerprint": "4be0...", "parts": {...}}     first line
    {"stage": "predict", "key": "0/1.3.2", "file": "...", "content": "..."}

In memory an entry stays the bytes it is on disk until somebody asks for it: a million of them take
a third of what a million dictionaries would, and are there in a few seconds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anystar_batch.address import parent
from anystar_batch.archive.storage.atomic_write import write_bytes_atomic
from anystar_batch.archive.storage.files import read_bytes
from anystar_batch.errors import LedgerMismatchError

FORMAT = 3
NAME = "ledger.jsonl"

_ENTRY = re.compile(rb'\{"stage": "([^"\\]*)", "key": "([^"\\]*)"(?:, ([^\n]*))?\}\n')
"""A line as `done` writes it; its third group is what was noted, without the brackets."""


class Entries(Mapping[str, dict[str, Any]]):
    """The entries of a stage, by key; each is decoded anew whenever it is asked for.

    Parameters
    ----------
    path : path
        The ledger, for messages.
    lines : dict
        JSON of every entry, by key.

    Raises
    ------
    LedgerMismatchError
        When an entry is asked for that is damaged.
    """

    def __init__(self, path: str | Path, lines: dict[str, bytes]) -> None:
        self._path = path
        self._lines = lines

    def __getitem__(self, key: str) -> dict[str, Any]:
        line = self._lines[key]
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise LedgerMismatchError(_damaged(f"{self._path}, {key}")) from error
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, key: object) -> bool:
        return key in self._lines


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
    name : str
        Of the file.

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
        name: str = NAME,
    ) -> None:
        self.path = folder / name
        self.fingerprint = fingerprint
        self._check = check
        self._lines: dict[str, dict[str, bytes]] = {}
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
            with (folder / NAME).open("rb") as stream:
                return Ledger.fingerprint_of(stream.readline())
        except OSError:
            return None

    @staticmethod
    def fingerprint_of(head: bytes) -> str | None:
        """Return the fingerprint in the first line of a ledger, None if there is none."""
        try:
            return str(json.loads(head.partition(b"\n")[0])["fingerprint"])
        except (ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def count_in(folder: Path, fingerprint: str, stage: str) -> int:
        """Return how many pieces of a stage a directory's work has done; 0 if it is another's."""
        if Ledger.fingerprint_in(folder) != fingerprint:
            return 0
        return (folder / NAME).read_bytes().count(b'\n{"stage": "%b",' % stage.encode())

    def entry(self, stage: str, key: str) -> dict[str, Any] | None:
        """Return what was noted of a piece, None if it is not done."""
        return self.entries(stage).get(key)

    def entries(self, stage: str) -> Entries:
        """Return every entry of a stage, those to come too, by key."""
        return Entries(self.path, self._lines.setdefault(stage, {}))

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
            self._lines.setdefault(stage, {})[key] = json.dumps(entry).encode()
            self._stream.write(json.dumps({"stage": stage, "key": key, **entry}) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def learn(self, path: str, parts: dict[str, object]) -> None:
        """Take what another ledger of this run says besides, in memory alone.

        Parameters
        ----------
        path : str
            File of a ledger that another process may be writing.
        parts : dict
            As of the class.

        Raises
        ------
        LedgerMismatchError
            If it is of another fingerprint, or damaged.
        """
        lines, _ = _read(path, read_bytes(path) or b"", self.fingerprint, parts)
        for stage, found in lines.items():
            known = self._lines.setdefault(stage, {})
            for key, body in found.items():
                known.setdefault(key, body)

    def _append(self, document: dict[str, object]) -> None:
        self._stream.write(json.dumps(document) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    @staticmethod
    def read(path: str, fingerprint: str, parts: dict[str, object]) -> dict[str, Entries]:
        """Return the entries of a ledger that another process may be writing, by stage.

        Parameters
        ----------
        path : str
            File or address; without one there are none.
        fingerprint, parts
            As of the class.

        Raises
        ------
        LedgerMismatchError
            If it is of another fingerprint, or damaged.
        """
        lines, _ = _read(path, read_bytes(path) or b"", fingerprint, parts)
        return {stage: Entries(path, found) for stage, found in lines.items()}

    def _load(self, fingerprint: str, parts: dict[str, object]) -> None:
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        self._lines, end = _read(self.path, raw, fingerprint, parts)
        if end:
            self._check()
        write_bytes_atomic(self.path, raw[:end])


def _read(
    path: str | Path, raw: bytes, fingerprint: str, parts: dict[str, object]
) -> tuple[dict[str, dict[str, bytes]], int]:
    """The entries of a file by stage and key, and where its last whole line ends."""
    lines: dict[str, dict[str, bytes]] = {}
    end = raw.rfind(b"\n") + 1
    if end == 0:
        return lines, 0
    at = raw.find(b"\n") + 1
    header = _parse(path, 1, raw[:at])
    if header.get("format") != FORMAT or header.get("fingerprint") != fingerprint:
        raise LedgerMismatchError(_difference(parent(str(path)), header, parts))
    number = 1
    while at < end:
        number += 1
        match = _ENTRY.match(raw, at)
        if match is None:  # keys with escapes, or damage
            stop = raw.find(b"\n", at) + 1
            entry = _parse(path, number, raw[at:stop])
            stage, key = entry.pop("stage"), entry.pop("key")
            body, at = json.dumps(entry).encode(), stop
        else:
            stage, key = match[1].decode(), match[2].decode()
            body, at = b"{%b}" % (match[3] or b""), match.end()
        lines.setdefault(stage, {})[key] = body
    return lines, end


def _parse(path: str | Path, number: int, line: bytes) -> dict[str, Any]:
    """One line of the file: the header, or an entry with stage and key."""
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict) or (number > 1 and not {"stage", "key"} <= document.keys()):
        raise LedgerMismatchError(_damaged(f"{path}, line {number}"))
    return document


def _damaged(where: str) -> str:
    return (
        f"{where}: damaged, and not by a run that was cut short; give --restart to throw the "
        "unfinished run away"
    )


def _difference(folder: str, header: dict[str, Any], parts: dict[str, object]) -> str:
    """One message that names what differs between an earlier run's parts and ours."""
    if header.get("format") != FORMAT:
        reason = f"its ledger has format {header.get('format')!r}, expected {FORMAT}"
    else:
        reason = "these differ: " + differences(header.get("parts", {}), parts)
    return (
        f"{folder} holds an unfinished run of another image, model or configuration ({reason}); "
        "repeat that run's options to finish it, or give --restart to throw it away"
    )


def differing(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Return the names of what differs between what decided two results, as JSON gives it back."""
    now = json.loads(json.dumps(dict(now)))
    return sorted(k for k in {*before, *now} if before.get(k) != now.get(k))


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Return what differs between what decided two results, such as `tile: 96 -> 64`."""
    names = differing(before, now)
    return "; ".join(f"{k}: {_short(before.get(k))} -> {_short(now.get(k))}" for k in names)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
