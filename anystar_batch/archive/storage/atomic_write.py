"""Atomic writes: files that are whole or absent, directories that change places in one step.

A file is written beside its name and renamed (`os.replace`), synced first, so that neither a kill
nor a power loss leaves half of one. Directories change places by Linux's own `renameat2`, between
whose old and new state there is no other; where the system or the file system has not got it, there
are two renames instead.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from anystar_batch.address import is_remote
from anystar_batch.archive.storage import remote
from anystar_batch.archive.storage.files import (
    PARTIAL,
    UNKNOWN_STEP,
    copy,
    output_error,
    partial_path,
    remove,
)

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE


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
    if is_remote(path):
        try:
            remote.put(str(path), data)
        except OSError as error:
            raise output_error(path, error) from error
        return
    path = Path(path)
    partial = partial_path(path)
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


def move_atomic(source: str | Path, target: str | Path) -> None:
    """Move a file, also to another storage; the target is whole or as it was.

    What a process that was killed here has left beside the target is deleted: whoever moves holds
    the lock of the results.

    Raises
    ------
    OutputError
        If the target cannot be written.
    """
    if is_remote(source) or is_remote(target):
        copy(source, target)
        remove(source)
        return
    _move_local(Path(source), Path(target))


def _move_local(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    try:
        remove_partials(target)
        shutil.copyfile(source, partial)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(target, error) from error
    source.unlink()


def partials(folder: str | Path, *begins: str) -> list[Path]:
    """Return the paths of what killed writers left in a directory, by how their names begin.

    Parameters
    ----------
    folder : path
        A local directory; nothing is left in one that is not there.
    begins : str
        Of their names, one of them; all end on `PARTIAL`.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(PARTIAL)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [Path(folder, name) for name in names if name.startswith(begins)]


def remove_partials(path: Path) -> None:
    """Delete what killed writers of a file have left beside it; nobody writes it now."""
    for torn in partials(path.parent, f".{path.name}."):
        torn.unlink(missing_ok=True)


def replace_directory(made: Path, final: Path, aside: Path) -> None:
    """Give a finished directory its name; an older one of the name is set aside.

    In one step where `exchange` knows how; else killed between two, the name is free.

    Parameters
    ----------
    made, final, aside : Path
        The new directory, its name, and the name that the older one gets, which is free. All on one
        file system.

    Raises
    ------
    OSError
        If they cannot be renamed.
    """
    if final.exists() and exchange(made, final):
        made.rename(aside)
    else:
        if final.exists():
            final.rename(aside)
        made.rename(final)
    sync_directory(final.parent)


def exchange(first: str | Path, second: str | Path) -> bool:
    """Exchange two directories (or files) in one step.

    Parameters
    ----------
    first, second : path
        Both exist, on one file system.

    Returns
    -------
    bool
        False where the system or the file system knows no such step; nothing is changed then.

    Raises
    ------
    OSError
        If it cannot be done for another reason.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNKNOWN_STEP:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """The C library's function, None without one."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    function.restype = ctypes.c_int
    rename: Callable[[int, bytes, int, bytes, int], int] = function
    return rename


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
