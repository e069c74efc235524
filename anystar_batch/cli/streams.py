"""What a command takes for granted and may not find: open streams, a temporary place.

stdout carries the result: where it cannot be written the command says so in one line and ends; what
is published stays, and the same command continues. stderr is for whoever watches: where nobody can,
the work goes on. A text that the terminal's alphabet has not got is shown by its numbers.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import TextIO

FAILED = 1
"""Exit code where the result cannot be printed."""


MEMORY = "/dev/shm"
"""A directory in memory that Linux has, also in containers whose disks are read-only."""


class Guarded(io.TextIOWrapper):
    """A standard stream whose errors are handled once; nothing is written to it afterwards.

    Parameters
    ----------
    handle : int
        1 or 2.
    like : text stream
        What Python has opened for it: encoding and errors are its own.
    on_error : callable
        Told of the error.
    """

    def __init__(self, handle: int, like: TextIO, on_error: Callable[[OSError], None]) -> None:
        raw = open(handle, "wb", closefd=False)  # noqa: SIM115  (as long as the process)
        errors = like.errors or "strict"
        super().__init__(
            raw,
            encoding=like.encoding,
            errors="backslashreplace" if errors == "strict" else errors,
            line_buffering=raw.isatty(),
        )
        self._handle, self._on_error = handle, on_error

    def write(self, text: str) -> int:
        """Write a text; return its length, also where it cannot be written."""
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if that is possible."""
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Send what is still to come nowhere, and tell of the error."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._handle)
        os.close(nowhere)
        self._on_error(error)


def guard() -> None:
    """Replace `sys.stdout` and `sys.stderr`, unless somebody else has done so."""
    _open_closed()
    for name, handle in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # it was closed when Python began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif getattr(sys, name) is getattr(sys, f"__{name}__"):
            on_error = _end if handle == 1 else _ignore
            setattr(sys, name, Guarded(handle, getattr(sys, name), on_error))


def find_temporary() -> None:
    """Have this process and its children use the memory's file system where no disk can be written.

    Whoever needs a temporary place and finds none says so.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            tempfile.TemporaryFile(dir=MEMORY).close()
            os.environ["TMPDIR"] = tempfile.tempdir = MEMORY


def _open_closed() -> None:
    """Open standard streams that are closed: else the next file opened is printed into."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def _end(error: OSError) -> None:
    """End the command, past whoever takes an error for that of an image.

    Raises
    ------
    SystemExit
        Always.
    """
    message = (
        f"error: stdout cannot be written ({error.strerror or error}), so the command ends; "
        "nothing that is published is lost\n"
    )
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(message)
        sys.stderr.flush()
    raise SystemExit(FAILED)


def _ignore(_: OSError) -> None:
    """Do nothing: nobody watches, and the work goes on."""
