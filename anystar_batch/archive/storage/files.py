"""Files and objects by the same calls: read, list, copy, remove, and whether they can be written.

A path may be an address: an object of a store is whole or absent by itself, and directories need
not be made. It may lead into a zip file, whose members are read and never written. What may be
written half, a file, is written by `atomic_write`.

One step is Linux's own, with a way round where the system or the file system has not got it: a file
without a name (`O_TMPFILE`), of which a kill leaves nothing.
"""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from anystar_batch.address import is_read_only, is_remote
from anystar_batch.archive.storage import remote, zip_file, zip_index
from anystar_batch.errors import AnyStarBatchError, OutputError

PARTIAL = ".partial"
"""Suffix of files being written, ours and zarr-python's."""

UNKNOWN_STEP = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EISDIR, errno.EPERM, errno.EXDEV}
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
    zipped = zip_index.split(str(path))
    if zipped is not None and zipped[1]:
        return zip_file.read(*zipped, most)
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
    zipped = zip_index.split(str(path))
    if zipped is not None:
        return zip_file.exists(*zipped)
    return remote.exists(str(path)) if is_remote(path) else Path(path).exists()


def is_zipped(path: str) -> bool:
    """Return whether a path is a zip file, or leads into one: nothing can be written there."""
    return zip_index.split(path) is not None


def is_listable(path: str) -> bool:
    """Return whether names below a path can be listed, as no web server's can but in a zip file."""
    return not is_read_only(path) or is_zipped(path)


def is_visible(path: str) -> bool:
    """Return whether this process sees what another one sees at a path: one mount, one store.

    Parameters
    ----------
    path : str
        A directory; or the address of an object that is there, or of a place that can be listed,
        even if nothing is there yet.
    """
    try:
        if is_zipped(path):
            return exists(path)
        if not is_remote(path):
            return Path(path).is_dir()
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
    zipped = zip_index.split(str(path))
    if zipped is not None:
        return zip_file.names(*zipped)
    if is_remote(path):
        below = remote.names(str(path))
        if below is None:
            raise OSError(errno.ENOTSUP, "a web server cannot be listed")
        return below
    try:
        return sorted(entry.name for entry in os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def statuses(paths: Sequence[str]) -> list[tuple[int, int | str] | None]:
    """Return what tells the contents of files or objects from earlier ones.

    Parameters
    ----------
    paths : sequence of str
        All on this machine, or all in one store, or all in one zip file.

    Returns
    -------
    list of (size, time or tag) or None
        Bytes, and the time of the last change, nanoseconds, or what `remote.status` or
        `zip_file.statuses` has instead; None where there is none.
    """
    zipped = zip_index.split(paths[0]) if paths else None
    if zipped is not None:
        start = len(zipped[0]) + 1
        return [*zip_file.statuses(zipped[0], [path[start:] for path in paths])]
    if paths and is_remote(paths[0]):
        return [*remote.statuses(paths)]
    stored: list[tuple[int, int | str] | None] = []
    for path in paths:
        try:
            status = Path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            stored.append(None)
        else:
            stored.append((status.st_size, status.st_mtime_ns))
    return stored


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


def partial_path(path: Path) -> Path:
    """Return a hidden name beside a file for what is to become it, like no other process's."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


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


@contextmanager
def emptied(folder: str) -> Iterator[None]:
    """Remove a directory afterwards that holds nothing: an image without labels has none.

    What is above keeps its time where the directory was not there: an image that nobody writes.

    Parameters
    ----------
    folder : str
        Local path; what uses it is the `with` block.
    """
    above = Path(folder).parent
    before = None if Path(folder).exists() or not above.exists() else above.stat()
    try:
        yield
    finally:
        with suppress(OSError):
            Path(folder).rmdir()
            if before is not None:
                os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))


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
    folder = Path(path).absolute()
    while not os.path.exists(folder) and folder != folder.parent:  # noqa: PTH110  (too long: no)
        folder = folder.parent
    return folder


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
        if error.errno not in UNKNOWN_STEP:
            raise
        handle, named = _new_file(Path(folder))
    try:
        return os.fstat(handle).st_mtime_ns
    finally:
        os.close(handle)
        if named is not None:
            named.unlink(missing_ok=True)


def _new_file(folder: Path) -> tuple[int, Path]:
    """Open a new file, of a name that a later command finds should this one be killed here."""
    named = folder / f".anystar-batch{PARTIAL}"
    for _ in range(2):
        try:
            return os.open(named, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), named
        except FileExistsError:
            # Left by a killed process, or of one that is here right now: it needs its name no more.
            with suppress(OSError):
                named.unlink()
    named = partial_path(folder / "anystar-batch")
    return os.open(named, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), named


def file_system_now(folder: str | Path) -> float:
    """Return the time by the clock that stamps the files of a directory, seconds.

    Parameters
    ----------
    folder : path
        A directory that can be written.
    """
    return stamp(folder) / 1e9


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
    # Of one name: what a process that is killed here leaves, the next one writes over and deletes.
    probe = f"{path}/.anystar-batch{PARTIAL}"
    try:
        remote.put(probe, b"")
        remote.remove(probe)
    except OSError as error:
        raise output_error(path, error) from error


def user_name(number: int) -> str:
    """Return the name of a user; of one that this machine does not know, the number."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def owner_text(path: str | Path) -> str:
    """Return whose a path is, or the nearest above it, for a message; nothing if it is ours."""
    try:
        owner = nearest(path).stat().st_uid
    except OSError:
        return ""
    return "" if owner == os.geteuid() else f"; it belongs to {user_name(owner)}"


def output_error(path: str | Path, error: OSError) -> OutputError:
    """Return the error that tells the user why a place cannot be written and what to do."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        message = f"{path}: no space left to write; free some, or use --output DIR elsewhere"
    else:
        is_denied = error.errno in {errno.EACCES, errno.EPERM} and not is_remote(path)
        owner = owner_text(path) if is_denied else ""
        message = (
            f"{path}: cannot be written ({error.strerror or error}{owner}); give --output DIR to "
            "keep results elsewhere"
        )
    return OutputError(error.errno, message)


@contextmanager
def at_hand(path: str) -> Iterator[Path]:
    """Yield a file under a local path: itself, or a copy of an object."""
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="anystar-batch-") as folder:
        local = Path(folder, path.rpartition("/")[2])
        copy(path, local)
        yield local
