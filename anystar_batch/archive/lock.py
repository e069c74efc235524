"""Locks that die with their holder: one run writes a result at a time.

The lock is a file that says who holds it. It is made with `O_EXCL`, which decides between machines,
and `flock`ed while held, which decides on one machine: the kernel drops that lock when the process
dies, however it dies, so a file left behind by a dead process is taken over without guessing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from anystar_batch.errors import LockedError, OutputError

# EBADF: NFS locks only what is open for writing, which no directory is.
_NO_FLOCK = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EBADF}


@contextmanager
def hold(path: str | Path) -> Iterator[None]:
    """Hold a lock file for the length of a `with` block.

    A file left by a dead process of this host is taken over. One of another host is respected,
    because nothing here can tell whether that process still lives.

    Parameters
    ----------
    path : path
        The lock file; its directory exists.

    Raises
    ------
    LockedError
        If another run holds the lock; the message says which, since when, and what to do.
    OutputError
        If the file cannot be made.
    """
    path = Path(path)
    handle = _acquire(path)
    try:
        yield
    finally:
        # Removed before it is unlocked: whoever waited on this file finds it gone and tries anew.
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    """Open, lock and sign the file; return its descriptor."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            is_new = True
        except FileExistsError:
            try:
                handle = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            is_new = False
        except OSError as error:
            message = f"{path}: the lock cannot be made ({error.strerror}); give --output DIR"
            raise OutputError(error.errno, message) from error
        try:
            if not _try_flock(handle):
                raise _locked(path, _holder(handle))
            if not _is_same_file(handle, path):
                os.close(handle)
                continue
            if not is_new:
                _check_dead(path, _holder(handle))
            _sign(handle)
        except BaseException:
            os.close(handle)
            raise
        return handle


def _try_flock(handle: int) -> bool:
    """Lock without waiting; True also where the file system knows no such locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
    return True


def _is_same_file(handle: int, path: Path) -> bool:
    """Return whether the path still names the opened file: its holder may have removed it."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)


def _holder(handle: int) -> dict[str, object]:
    """Return who signed the file; empty if its maker died before signing."""
    try:
        document = json.loads(os.pread(handle, 65536, 0))
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _check_dead(path: Path, holder: dict[str, object]) -> None:
    """Refuse a lock that another host, or a living process, may hold although flock was granted."""
    if not holder:
        return
    if holder.get("host") != socket.gethostname():
        raise _locked(path, holder)
    pid = holder.get("pid")
    # Where flock works it has already told that the holder is gone, and its number may be reused.
    if not _flock_excludes(path) and isinstance(pid, int) and _is_alive(pid):
        raise _locked(path, holder)


def _flock_excludes(path: Path) -> bool:
    """Return whether flock is enforced: a second descriptor must not get the lock we hold."""
    second = os.open(path, os.O_RDWR)
    try:
        return not _try_flock(second)
    finally:
        os.close(second)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sign(handle: int) -> None:
    document = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{json.dumps(document)}\n".encode(), 0)
    os.fsync(handle)


def _locked(path: Path, holder: dict[str, object]) -> LockedError:
    who = (
        f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        if holder
        else "a run that is just starting"
    )
    return LockedError(
        f"{path}: locked by {who}; wait for it to end, or, if that run is surely gone, "
        "delete the file"
    )


@contextmanager
def hold_directory(path: str | Path) -> Iterator[None]:
    """Wait for, then hold, the advisory lock of a directory: for short read-modify-write steps.

    Two runs that publish different labels of one image both change its list of labels. Where the
    file system knows no such locks, nothing is held.

    Parameters
    ----------
    path : path
        An existing directory. Nothing is written into it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
        yield
    finally:
        os.close(handle)
