"""Locks in object stores, by the laws of `lock`; and which kind of lock a path takes.

The lock is an object that says who holds it. It is made only where there is none (`If-None-Match`),
which decides between machines, and written anew every `INTERVAL` seconds with a higher `beat`. No
kernel drops it when its holder dies: a holder is dead if its process is gone from this machine, or
if the object was not written for `MISSED` intervals by the clock of the store and then not for two
more by ours. A store that does not know conditions lets two runs that begin in the same moment both
write it; the `Fence` of the one that was overwritten ends that run before it writes.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from anystar_batch.address import is_remote, parent
from anystar_batch.archive.storage import lock, remote
from anystar_batch.archive.storage.fence import Fence, Signature, read_signature
from anystar_batch.archive.storage.files import output_error
from anystar_batch.errors import LockedError

logger = logging.getLogger(__name__)

LIST_LOCK = ".anystar-batch.lock"
"""Object that whoever changes the list of labels of an image holds, among the labels."""

LIST_INTERVAL = 2.0
"""Seconds between two signs of life of who changes a list."""


@contextmanager
def hold(path: str, interval: float | None = None) -> Iterator[Fence]:
    """Hold a lock, a file or an object, for the length of a `with` block.

    Parameters
    ----------
    path : str
        The lock; a file's directory exists.
    interval : float, optional
        Seconds between two signs of life; None is `lock.INTERVAL`.

    Yields
    ------
    Fence
        To be asked before writing.

    Raises
    ------
    LockedError
        If another run holds the lock; the message says which, since when, and what to do.
    OutputError
        If it cannot be made.
    """
    if not is_remote(path):
        with lock.hold(path, interval) as fence:
            yield fence
        return
    interval = lock.INTERVAL if interval is None else interval
    try:
        nonce = _acquire(path, interval)
    except OSError as error:
        raise output_error(path, error) from error
    ended = threading.Event()
    beats = threading.Thread(
        target=_beat, args=(path, nonce, interval, ended), name="heartbeat", daemon=True
    )
    beats.start()
    try:
        yield Fence(((path, nonce),))
    finally:
        ended.set()
        beats.join()
        with suppress(OSError):
            if _is_ours(path, nonce):
                remote.remove(path)


@contextmanager
def hold_list(folder: str) -> Iterator[None]:
    """Wait for, then hold, what keeps others from changing the list of labels in a place.

    Parameters
    ----------
    folder : str
        The place of the labels; a directory exists.

    Raises
    ------
    LockedError
        If another process keeps it for too long.
    """
    if not is_remote(folder):
        with lock.hold_directory(folder):
            yield
        return
    until = time.monotonic() + lock.MISSED * lock.INTERVAL
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(f"{folder}/{LIST_LOCK}", LIST_INTERVAL))
                break
            except LockedError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.2)
        yield


def _acquire(path: str, interval: float) -> str:
    """Make and sign the object; return what tells our signature apart."""
    nonce = secrets.token_hex(16)
    document = {
        "host": socket.gethostname(),
        "boot": lock.boot(),
        "space": _process_space(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "nonce": nonce,
        "interval": interval,
        "limit": lock.MISSED * interval,
        "beat": 0,
    }
    content = f"{json.dumps(document)}\n".encode()
    while True:
        with suppress(FileExistsError):
            remote.put(path, content, exclusive=True)
            return nonce
        found = remote.status(path)
        holder = read_signature(path)
        if found is None or holder is None:
            continue
        if holder.holder.get("nonce") == nonce:
            return nonce  # a request that was repeated had been heard the first time
        if not _is_surely_dead(holder) and not _is_silent(path, holder):
            message = (
                f"{path}: locked by {holder.who}; wait for it to end, or, if that run is surely "
                "gone, delete the object"
            )
            raise LockedError(message)
        logger.info("%s: taken over from %s", path, holder.who)
        with suppress(FileExistsError, FileNotFoundError):
            remote.put(path, content, replaces=found[1])
            return nonce


def _is_surely_dead(found: Signature) -> bool:
    """Return whether the holder was a process of this machine and is gone."""
    holder = found.holder
    here = {"host": socket.gethostname(), "boot": lock.boot(), "space": _process_space()}
    pid = holder.get("pid")
    if None in here.values() or any(holder.get(name) != value for name, value in here.items()):
        return False
    return isinstance(pid, int) and not lock.is_alive(pid)


def _is_silent(path: str, found: Signature) -> bool:
    """Return whether a holder has missed so many signs of life that it counts as dead."""
    interval, limit = found.seconds("interval"), found.seconds("limit")
    if interval is None or limit is None:
        return False
    written = remote.modified(path)
    if written is None or abs(_store_now(parent(path)) - written) <= limit:
        return False
    until = time.monotonic() + 2 * interval
    while time.monotonic() < until:
        time.sleep(interval / 4)
        if read_signature(path) != found:
            return False
    return True


def _store_now(folder: str) -> float:
    """Return the time by the clock that stamps the objects of a store, seconds."""
    probe = f"{folder}/.anystar-batch.{os.getpid()}-{secrets.token_hex(4)}.partial"
    remote.put(probe, b"")
    try:
        return remote.modified(probe) or 0.0
    finally:
        remote.remove(probe)


def _process_space() -> str | None:
    """What tells the processes that this one sees from those of another container, on Linux."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _is_ours(path: str, nonce: str) -> bool:
    found = read_signature(path)
    return found is not None and found.holder.get("nonce") == nonce


def _beat(path: str, nonce: str, interval: float, ended: threading.Event) -> None:
    """Give signs of life; only ever in the place of our own last one."""
    while not ended.wait(interval):
        try:
            at, found = remote.status(path), read_signature(path)
            if at is None or found is None or found.holder.get("nonce") != nonce:
                return  # the fence says so
            document = {**found.holder, "beat": found.beat + 1}
            remote.put(path, f"{json.dumps(document)}\n".encode(), replaces=at[1])
        except OSError as error:
            logger.warning("no sign of life: %s", error)
