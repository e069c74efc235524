"""Files that are whole or absent, and clear words where they cannot be written.

Two steps are Linux's own, with a way round where the system or the file system has not got them: a
file without a name (`O_TMPFILE`), of which a kill leaves nothing, and the exchange of two names
(`renameat2`), between whose old and new state there is no other.

A path may be an address: an object of a store is whole or absent by itself, and directories need
not be made.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import glob
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from anystar_batch.address import is_read_only, is_remote
from anystar_batch.archive.storage import remote
from anystar_batch.errors import AnyStarBatchError, OutputError

PARTIAL = ".partial"
"""Suffix of files being written, ours and zarr-python's."""

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE

_UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EISDIR, errno.EPERM, errno.EXDEV}
"""What is said to a step that the system, the file system or a container does not know."""


def read_bytes(path: str | Path, most: int | None = None) -> bytes | None:
    """Return the content of a file, None if there is none.

    Parameters
    ----------
    path : path
        File or address.
    most : int, optional
        Bytes above which it is not read.

    Raises
    ------
    OSError
        If it cannot be read; with the number `EFBIG` if it is larger than `most`.
    """
    if is_remote(path):
        return remote.read(str(path), most)
    path = Path(path)
    try:
        size = path.stat().st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"{size} bytes of metadata; expected at most {most}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def exists(path: str | Path) -> bool:
    """Return whether there is a file or directory, or at an address an object or any below it."""
    return remote.exists(str(path)) if is_remote(path) else Path(path).exists()


def is_visible(path: str) -> bool:
    """Return whether this process sees what another one sees at a path: one mount, one store.

    Parameters
    ----------
    path : str
        A directory; or the address of an object that is there, or of a place that can be listed,
        even if nothing is there yet.
    """
    if not is_remote(path):
        return Path(path).is_dir()
    try:
        return remote.exists(path) or remote.names(path) is not None
    except (OSError, AnyStarBatchError):
        return False


def names(path: str | Path) -> list[str]:
    """Return the names in a directory or right below an address, sorted; none if it is missing.

    Raises
    ------
    OSError
        If it cannot be listed, as no web server can.
    """
    if is_remote(path):
        found = remote.names(str(path))
        if found is None:
            raise OSError(errno.ENOTSUP, "a web server cannot be listed")
        return found
    try:
        return sorted(entry.name for entry in os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def make_folder(path: str | Path) -> None:
    """Make a directory and those above it; at an address there is nothing to make."""
    if not is_remote(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a file; a target in a store, or from one, is whole or as it was.

    Raises
    ------
    OutputError
        If the target cannot be written, or the source is gone.
    """
    try:
        if not is_remote(source) and not is_remote(target):
            shutil.copyfile(source, target)
        elif not is_remote(source):
            remote.put_file(Path(source), str(target))
        elif not is_remote(target):
            _fetch(str(source), Path(target))
        elif str(source).partition("://")[0] == str(target).partition("://")[0]:
            remote.copy(str(source), str(target))
        else:
            with tempfile.NamedTemporaryFile(prefix="anystar-batch-") as file:
                remote.get_file(str(source), Path(file.name))
                remote.put_file(Path(file.name), str(target))
    except OSError as error:
        raise output_error(target, error) from error


def _fetch(source: str, target: Path) -> None:
    """Write a file from an object, whole or not at all."""
    partial = partial_path(target)
    try:
        remote.get_file(source, partial)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def remove(path: str | Path) -> None:
    """Delete a file or object; without one, do nothing."""
    if is_remote(path):
        remote.remove(str(path))
    else:
        Path(path).unlink(missing_ok=True)


def remove_tree(path: str | Path) -> None:
    """Delete a directory, or every object below an address; without one, do nothing."""
    if is_remote(path):
        remote.remove_tree(str(path))
    elif Path(path).exists():
        shutil.rmtree(path)


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
    if is_remote(path):
        _check_store(path)
        return
    try:
        stamp(nearest(path))
    except OSError as error:
        raise output_error(path, error) from error


def nearest(path: str | Path) -> Path:
    """Return a local path, or the nearest above it that exists."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def stamp(folder: str | Path) -> int:
    """Make a file in a directory, which is gone afterwards; return the time that it was given.

    Parameters
    ----------
    folder : path
        The directory.

    Returns
    -------
    int
        Nanoseconds, by the clock of the file system.

    Raises
    ------
    OSError
        If the directory cannot be written.
    """
    try:
        handle, named = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600), None
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        named = Path(folder, f".anystar-batch.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
        handle = os.open(named, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        return os.fstat(handle).st_mtime_ns
    finally:
        os.close(handle)
        if named is not None:
            named.unlink()


def file_system_now(folder: str | Path) -> float:
    """Return the time by the clock that stamps the files of a directory, seconds.

    Parameters
    ----------
    folder : path
        A directory that can be written.
    """
    return stamp(folder) / 1e9


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
    if number in _UNKNOWN:
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
    found: Callable[[int, bytes, int, bytes, int], int] = function
    return found


def check_store(path: str) -> None:
    """Check what can be known of whether objects can be written below an address, without writing.

    Raises
    ------
    OutputError
        If they surely cannot.
    """
    if is_read_only(path):
        message = f"{path}: a web server takes no results; give --output DIR to keep them elsewhere"
        raise OutputError(message)
    why = remote.bucket_error(path)
    if why is not None:
        message = f"{path}: cannot be written ({why}); give --output DIR to keep results elsewhere"
        raise OutputError(message)


def _check_store(path: str) -> None:
    """Check that objects can be written below an address, by writing one."""
    check_store(path)
    probe = f"{path}/.anystar-batch.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"
    try:
        remote.put(probe, b"")
        remote.remove(probe)
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


def partial_path(path: Path) -> Path:
    """Return a hidden name beside a file for what is to become it, like no other process's."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


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
        for torn in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL}"):
            torn.unlink(missing_ok=True)
        shutil.copyfile(source, partial)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(target)
        sync_directory(target.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(target, error) from error
    source.unlink()
