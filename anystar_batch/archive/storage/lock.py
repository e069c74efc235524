"""Locks that die with their holder: one run writes a result at a time.

A lock is a file (`file_lock`) or an object of a store (`object_lock`) that says who holds it. The
law is the same for both and is told here: who makes it where there was none holds it and signs it;
a heartbeat, every `INTERVAL` seconds, shows that the holder lives; it is removed in the end.

A holder is dead if its own machine says so (each kind of lock has its own way to ask), or if it
gave no sign of life for `MISSED` intervals by the clock of the storage and then none for two more
by ours; so neither two clocks that differ nor one that jumps makes a living holder dead. A holder
that is stopped for so long counts as dead, also on its own machine. Its lock is taken over. Should
it go on, the `Fence` tells it that the lock is no longer its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from anystar_batch.address import is_remote
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.fence import (
    Fence,
    Holder,
    Signature,
    is_signed,
    new_signature,
    read_signature,
)
from anystar_batch.archive.storage.file_lock import FileLock, try_flock
from anystar_batch.archive.storage.object_lock import ObjectLock
from anystar_batch.errors import LockedError

logger = logging.getLogger(__name__)

INTERVAL = 15.0
"""Seconds between two heartbeats of a holder."""

MISSED = 20
"""Heartbeats that a holder must have missed to count as dead."""

LIST_LOCK = ".anystar-batch.lock"
"""Object that whoever changes the list of labels of an image holds, among the labels."""

LIST_INTERVAL = 2.0
"""Seconds between two heartbeats of who changes a list."""


class Backend(Protocol):
    """What the law asks of a storage: the lock at one path, and our hold on it."""

    path: str
    kind: str
    """What the lock is, in a message: `file` or `object`."""
    taken_from: Signature | None
    """Dead holder whose lock we have taken the place of, if any."""

    def create(self, holder: Holder) -> bool:
        """Make the lock, signed by us, if there is none; return whether it is ours."""

    def replace_dead(self, holder: Holder, check_silent: Callable[[Signature], None]) -> bool:
        """Take the place of the lock that is there, if its holder is dead.

        Only ever of the very lock that was judged: another may have taken it over meanwhile.

        Parameters
        ----------
        holder : dict
            Our signature.
        check_silent : callable
            Called unless the holder's process is gone for certain; raises if it is not silent.

        Returns
        -------
        bool
            Whether the lock is ours now; if not, the way may be free for `create`.
        """

    def silence(self, signature: Signature) -> float | None:
        """Return the seconds since a heartbeat, by the clock of the storage; None if it is gone."""

    def beat(self) -> bool:
        """Give a sign of life on our own lock only; return whether there can be another."""

    def close(self) -> None:
        """Let go, after our lock was removed."""


@contextmanager
def hold(
    path: str | Path, interval: float | None = None, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Fence]:
    """Hold a lock, a file or an object, for the length of a `with` block.

    The lock of a dead holder is taken over; see the module.

    Parameters
    ----------
    path : path
        The lock file, whose directory exists, or the address of the lock.
    interval : float, optional
        Seconds between two heartbeats; None is `INTERVAL`.
    tell : callable, optional
        Told who held the lock, if that was a dead one.

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
    backend: Backend = ObjectLock(str(path)) if is_remote(path) else FileLock(path)
    interval = INTERVAL if interval is None else interval
    nonce = _acquire(backend, interval)
    if backend.taken_from is not None:
        tell(backend.taken_from.who)
    ended = threading.Event()
    heartbeat = threading.Thread(
        target=_beat, args=(backend, interval, ended), name="heartbeat", daemon=True
    )
    heartbeat.start()
    try:
        yield Fence(((backend.path, nonce),))
    finally:
        ended.set()
        heartbeat.join()
        with suppress(OSError):
            if is_signed(backend.path, nonce):
                files.remove(backend.path)
        backend.close()


def _beat(backend: Backend, interval: float, ended: threading.Event) -> None:
    """Give signs of life until the lock is released, or is no longer ours: the fence says so."""
    while not ended.wait(interval):
        try:
            if not backend.beat():
                return
        except OSError as error:
            logger.warning("no sign of life: %s", error)


def _acquire(backend: Backend, interval: float) -> str:
    """Make the lock or take over that of a dead holder; return what tells our signature apart."""

    def check_silent(signature: Signature) -> None:
        if not _is_silent(backend, signature):
            message = (
                f"{backend.path}: locked by {signature.who}; wait for it to end, or, if that run "
                f"is surely gone, delete the {backend.kind}"
            )
            raise LockedError(message)

    try:
        while True:
            holder = new_signature(interval, MISSED * interval)
            if backend.create(holder) or backend.replace_dead(holder, check_silent):
                return str(holder["nonce"])
    except OSError as error:
        if not is_remote(backend.path):
            raise
        raise files.output_error(backend.path, error) from error


def _is_silent(backend: Backend, signature: Signature) -> bool:
    """Return whether a holder has missed so many heartbeats that it counts as dead."""
    interval, limit = signature.seconds("interval"), signature.seconds("limit")
    if interval is None or limit is None:
        return False
    silence = backend.silence(signature)
    # A time far ahead of now is no recent sign of life either: the clock was set back since.
    if silence is None or abs(silence) <= limit:
        return False
    until = time.monotonic() + 2 * interval
    while time.monotonic() < until:
        time.sleep(interval / 4)
        if read_signature(backend.path) != signature:
            return False
    return True


@contextmanager
def hold_list(folder: str) -> Iterator[None]:
    """Wait for, then hold, the lock of a list of labels or tables: who changes it holds it.

    Parameters
    ----------
    folder : str
        What holds the list: an existing directory, or an address.

    Raises
    ------
    LockedError
        If another process keeps it for too long.
    """
    if not is_remote(folder):
        with hold_directory(folder):
            yield
        return
    until = time.monotonic() + MISSED * INTERVAL
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
        while not try_flock(handle):
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
