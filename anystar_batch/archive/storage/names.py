"""Names that results get: tried before work, each with the longest that is added while it is made.

A file system may take no name of more than 255 bytes, of other bytes than UTF-8, with a colon or a
question mark in it; a directory may let its files be replaced by their owners alone. What can be
known only by doing it is done, with a file that is gone afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from anystar_batch.address import is_remote
from anystar_batch.archive.storage import files
from anystar_batch.errors import OutputError

MOST_KEY = 1024
"""Bytes of an object's key in s3 and gs."""

LONGEST_BELOW = 96
"""Bytes of what is added to the key of a label at most: digits, levels, chunks."""

_NO_SUCH_NAME = {errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EPROTO}
"""What file systems say of a name that they cannot hold."""


def check_text(path: str) -> None:
    """Check that a path can be written down: in a table, a record, metadata.

    Parameters
    ----------
    path : str
        Path, as Python has it, or address.

    Raises
    ------
    OutputError
        If it holds bytes that are no UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        message = (
            f"{shown}: the path holds bytes that are no UTF-8, which no record or metadata can "
            "hold; rename what it names (convmv does many)"
        )
        raise OutputError(message) from None


def check_name(path: str) -> None:
    """Check that a file or directory can get its name, whole or not at all, by making one like it.

    Parameters
    ----------
    path : str
        What will be made; or its address, of which the length alone is looked at.

    Raises
    ------
    OutputError
        If it cannot, or a directory stands where a file shall.
    """
    if is_remote(path):
        key = path.partition("://")[2].partition("/")[2]
        if len(key.encode()) + LONGEST_BELOW > MOST_KEY:
            raise _too_long(path, f"{len(key.encode())} bytes of a key of at most {MOST_KEY}")
        return
    made = _partial(Path(path))
    most = os.pathconf(files.nearest(made.parent), "PC_PATH_MAX") - 1
    if len(os.fsencode(made)) > most:
        raise _too_long(path, f"{len(os.fsencode(made))} bytes of a path of at most {most}")
    try:
        _try(files.nearest(made.parent) / made.name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _too_long(path, f"{len(os.fsencode(made.name))} bytes with them") from error
        if error.errno in _NO_SUCH_NAME:
            message = (
                f"{path}: the file system there takes no such name ({error.strerror}); rename the "
                "image, or give --output DIR on another one"
            )
            raise OutputError(message) from error
        raise files.output_error(path, error) from error


def check_length(path: str) -> None:
    """Check the same by the limits that a file system states, without making anything.

    Parameters
    ----------
    path : str
        What would be made.

    Raises
    ------
    OutputError
        If it is too long.
    """
    if is_remote(path):
        check_name(path)
        return
    made = _partial(Path(path))
    found = files.nearest(made.parent)
    for text, what in ((os.fsencode(made.name), "NAME"), (os.fsencode(made), "PATH")):
        most = os.pathconf(found, f"PC_{what}_MAX") - (what == "PATH")
        if len(text) > most:
            raise _too_long(path, f"{len(text)} bytes with them; at most {most}")


def check_replaceable(path: str) -> None:
    """Check that a file or directory, if there is one, can be replaced and filled by this user.

    Parameters
    ----------
    path : str
        Result, or what an unfinished run has left.

    Raises
    ------
    OutputError
        If it belongs to somebody else who keeps it from us.
    """
    if is_remote(path):
        return
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    above = Path(path).parent.stat()
    user = os.geteuid()
    if above.st_mode & stat.S_ISVTX and user not in {0, status.st_uid, above.st_uid}:
        message = (
            f"{path}: cannot be replaced (its directory lets owners alone do that"
            f"{files.owner_text(path)}); have it removed, or give --output DIR"
        )
        raise OutputError(errno.EPERM, message)
    if stat.S_ISDIR(status.st_mode):
        files.check_writable(path)


def _try(path: Path) -> None:
    """Make a file and delete it."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        # Left by a run that was killed here, or by one that is here right now: the name can be had.
        with suppress(OSError):
            path.unlink()
        return
    path.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """What becomes a file, by the longest name that it has: process numbers have up to 7 digits.

    No process has the number 0. The name is always the same, so that the next command finds and
    deletes what a killed one left; whoever writes a result has a name of its own.
    """
    return path.with_name(f".{path.name}.{'0' * 7}-{'0' * 8}{files.PARTIAL}")


def _too_long(path: str, why: str) -> OutputError:
    message = (
        f"{path}: too long, with the letters that are added while it is written ({why}); give a "
        "shorter --label or --stats, rename the image, or give --output DIR"
    )
    return OutputError(message)
