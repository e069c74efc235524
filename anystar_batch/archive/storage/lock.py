"""Locks that die with their holder: one run writes a result at a time.

The lock is a file that says who holds it. It is made with `O_EXCL`, which decides between machines,
and `flock`ed while held, which decides on one machine: the kernel drops that lock when the process
dies, however it dies. While it lives, a thread touches the file every `INTERVAL` seconds.

A holder is dead if flock says so on its own machine, or if the file was not touched for `MISSED`
intervals by the clock of the file system and then not for two more by ours; so neither two clocks
that differ nor one that jumps makes a living holder dead. A holder that is stopped for so long
counts as dead, also on its own machine. Its lock is taken over by putting a new file in the place
of the old one. Should it go on, the `Fence` tells it that the file is no longer its own.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from anystar_batch.archive.storage.fence import Fence, Signature, read_signature
from anystar_batch.archive.storage.files import PARTIAL, stamp
from anystar_batch.errors import LockedError, OutputError

logger = logging.getLogger(__name__)

INTERVAL = 15.0
"""Seconds between two signs of life of a holder."""

MISSED = 20
"""Intervals without a sign of life after which a holder may be dead."""

# EBADF: NFS locks only what is open for writing, which no directory is.
_NO_FLOCK = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EBADF}


@contextmanager
def hold(path: str | Path, interval: float | None = None) -> Iterator[Fence]:
    """Hold a lock file for the length of a `with` block.

    A file left by a dead process is taken over; see the module.

    Parameters
    ----------
    path : path
        The lock file; its directory exists.
    interval : float, optional
        Seconds between two signs of life; None is `INTERVAL`.

    Yields
    ------
    Fence
        To be asked before writing.

    Raises
    ------
    LockedError
        If another run holds the lock; the message says which, since when, and what to do.
    OutputError
        If the file cannot be made.
    """
    path = Path(path)
    interval = INTERVAL if interval is None else interval
    handle, nonce = _acquire(path, interval)
    ended = threading.Event()
    beats = threading.Thread(
        target=_beat, args=(handle, interval, ended), name="heartbeat", daemon=True
    )
    beats.start()
    try:
        yield Fence(((str(path), nonce),))
    finally:
        ended.set()
        beats.join()
        # Removed before it is unlocked: whoever waited on this file finds it gone and tries anew.
        with suppress(OSError):
            found = read_signature(path)
            if found is not None and found.holder.get("nonce") == nonce:
                path.unlink(missing_ok=True)
        os.close(handle)


def _beat(handle: int, interval: float, ended: threading.Event) -> None:
    """Give signs of life; the open file is touched, never one that has taken its place."""
    while not ended.wait(interval):
        try:
            os.utime(handle)
        except OSError as error:
            logger.warning("no sign of life: %s", error)


def _acquire(path: Path, interval: float) -> tuple[int, str]:
    """Make, lock and sign the file; return its descriptor and what tells our signature apart."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            _remove_dead(path)
            continue
        except OSError as error:
            message = f"{path}: the lock cannot be made ({error.strerror}); give --output DIR"
            raise OutputError(error.errno, message) from error
        try:
            if _try_flock(handle):
                nonce = _sign(handle, interval)
                if _is_same_file(handle, path):
                    return handle, nonce
        except BaseException:
            if _is_same_file(handle, path):
                path.unlink(missing_ok=True)
            os.close(handle)
            raise
        # Whoever looked at it before it was signed took it for a dead one, and removes it.
        os.close(handle)


def _remove_dead(path: Path) -> None:
    """Remove the lock file of a dead holder; return also if it is gone by itself.

    Raises
    ------
    LockedError
        If its holder lives, or may live.
    """
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    except OSError as error:
        message = f"{path}: the lock cannot be opened ({error.strerror}); give --output DIR"
        raise OutputError(error.errno, message) from error
    try:
        is_free = _try_flock(handle)
        found = read_signature(path)
        if found is None or not _is_same_file(handle, path):
            return
        if not (is_free and _is_surely_dead(path, found)) and not _is_silent(path, found):
            message = (
                f"{path}: locked by {found.who}; wait for it to end, or, if that run is surely "
                "gone, delete the file"
            )
            raise LockedError(message)
        logger.info("%s: taken over from %s", path, found.who)
        _set_aside(path, handle)
    finally:
        os.close(handle)


def _set_aside(path: Path, handle: int) -> None:
    """Remove the file that was judged, and no other that may have taken its place meanwhile."""
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if not _is_same_file(handle, aside):
        # Two took over at once: the first one's lock goes back; if it cannot, its fence tells it.
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _is_surely_dead(path: Path, found: Signature) -> bool:
    """Return whether a holder whose flock is free is dead: of this machine, or never signed."""
    holder = found.holder
    if not holder:
        return True
    if holder.get("host") != socket.gethostname() or holder.get("boot", boot()) != boot():
        return False
    pid = holder.get("pid")
    # Where flock works it has already told that the holder is gone, and its number may be reused.
    return _flock_excludes(path) or not (isinstance(pid, int) and is_alive(pid))


def _is_silent(path: Path, found: Signature) -> bool:
    """Return whether a holder has missed so many signs of life that it counts as dead."""
    interval, limit = found.seconds("interval"), found.seconds("limit")
    if interval is None or limit is None:
        return False
    # A time far ahead of now is no recent sign of life either: the clock was set back since.
    if abs(file_system_now(path.parent) - found.beat / 1e9) <= limit:
        return False
    until = time.monotonic() + 2 * interval
    while time.monotonic() < until:
        time.sleep(interval / 4)
        if read_signature(path) != found:
            return False
    return True


def file_system_now(folder: str | Path) -> float:
    """Return the time by the clock that stamps the files of a directory, seconds.

    Parameters
    ----------
    folder : path
        A directory that can be written.
    """
    return stamp(folder) / 1e9


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


def _flock_excludes(path: Path) -> bool:
    """Return whether flock is enforced: a second descriptor must not get the lock we hold."""
    second = os.open(path, os.O_RDWR)
    try:
        return not _try_flock(second)
    finally:
        os.close(second)


def is_alive(pid: int) -> bool:
    """Return whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def boot() -> str | None:
    """Return what tells this machine since it was started from others, where Linux says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _sign(handle: int, interval: float) -> str:
    nonce = secrets.token_hex(16)
    document = {
        "host": socket.gethostname(),
        "boot": boot(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "nonce": nonce,
        "interval": interval,
        "limit": MISSED * interval,
    }
    os.pwrite(handle, f"{json.dumps(document)}\n".encode(), 0)
    os.fsync(handle)
    return nonce


@contextmanager
def hold_directory(path: str | Path, patience: float | None = None) -> Iterator[None]:
    """Wait for, then hold, the advisory lock of a directory: for short read-modify-write steps.

    Two runs that publish different labels of one image both change its list of labels. Where the
    file system knows no such locks, nothing is held.

    Parameters
    ----------
    path : path
        An existing directory. Nothing is written into it.
    patience : float, optional
        Seconds to wait; None is `MISSED` intervals.

    Raises
    ------
    LockedError
        If another process keeps it for longer: it was stopped in the midst of a step.
    """
    handle = os.open(path, os.O_RDONLY)
    patience = MISSED * INTERVAL if patience is None else patience
    until = time.monotonic() + patience
    try:
        while not _try_flock(handle):
            if time.monotonic() > until:
                message = (
                    f"{path}: another process has been changing it for {patience:g} s and may be "
                    "stopped; continue or end that process and run again"
                )
                raise LockedError(message)
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)
