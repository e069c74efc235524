"""Files that are whole or absent, and clear words where they cannot be written."""

from __future__ import annotations

import errno
import json
import os
import secrets
from pathlib import Path

from anystar_batch.errors import OutputError

PARTIAL = ".partial"
"""Suffix of files being written, ours and zarr-python's."""


def check_writable(path: str) -> None:
    """Check that files can be made in a directory, or in the nearest one that exists above it.

    Parameters
    ----------
    path : str
        Directory that will hold results.

    Raises
    ------
    OutputError
        If not; the message names `--output`.
    """
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / f".anystar-batch.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise output_error(path, error) from error


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write a file so that it is whole or absent, whenever the process or the machine stops.

    Parameters
    ----------
    path : path
        The file; its directory exists. An older file is replaced.
    data : bytes
        Content.

    Raises
    ------
    OutputError
        If the place cannot be written or is full; nothing is left behind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(path, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json_atomic(path: str | Path, document: object) -> None:
    """Write a JSON file so that it is whole or absent; equal documents give equal bytes.

    Parameters
    ----------
    path : path
        The file; its directory exists. An older file is replaced.
    document : JSON-able
        Content; keys keep their order.

    Raises
    ------
    OutputError
        If the place cannot be written or is full; nothing is left behind.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False)
    write_bytes_atomic(path, f"{text}\n".encode())


def sync_directory(path: str | Path) -> None:
    """Make renames in a directory survive a power loss, where the file system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EROFS}:
            raise
    finally:
        os.close(handle)


def output_error(path: str | Path, error: OSError) -> OutputError:
    """Return the error that tells the user why a place cannot be written and what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        message = f"{path}: no space left to write; free some, or use --output DIR elsewhere"
    else:
        message = (
            f"{path}: cannot be written ({error.strerror or error}); give --output DIR to keep "
            "results elsewhere"
        )
    return OutputError(error.errno, message)
