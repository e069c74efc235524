"""The signature in a lock: who holds it, and whether it is still we, asked before every write.

A process that was stopped (SIGSTOP, a suspended machine) does not notice that its lock was taken
over. So whoever writes asks first: every holder signs with a number of its own, and a lock file
with another signature, or none, belongs to somebody else.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from anystar_batch.address import is_remote
from anystar_batch.archive.storage import files, remote
from anystar_batch.errors import LostLockError

Holder: TypeAlias = dict[str, object]
"""Who holds a lock: `host`, `boot`, `pid`, `user`, `since`, `nonce`, `interval`, `limit`."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a lock says, and the last heartbeat of its holder.

    Parameters
    ----------
    inode : (device, number)
        The file: a lock that is taken over is another file. Zeros for an object.
    beat : int
        Time of the last heartbeat, nanoseconds, by the clock of the file system; of an object, the
        number of heartbeats.
    holder : dict
        See `Holder`; empty if its maker died before signing.
    """

    inode: tuple[int, int]
    beat: int
    holder: Holder

    @property
    def who(self) -> str:
        """The holder in words."""
        if not self.holder:
            return "a run that is just starting"
        names = ("pid", "host", "user", "since")
        pid, host, user, since = (self.holder.get(name) for name in names)
        of = "" if user is None else f" (user {user})"  # older versions did not sign it
        return f"process {pid} on {host}{of} since {since}"

    def seconds(self, name: str) -> float | None:
        """Return a duration that the holder has signed, None without one."""
        value = self.holder.get(name)
        return float(value) if isinstance(value, int | float) else None


def new_signature(interval: float, limit: float) -> Holder:
    """Return what this process signs a lock with, like no other.

    Parameters
    ----------
    interval : float
        Seconds between two heartbeats.
    limit : float
        Seconds without one after which the holder may be dead.
    """
    return {
        "host": socket.gethostname(),
        "boot": boot(),
        "pid": os.getpid(),
        "user": files.user_name(os.getuid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "nonce": secrets.token_hex(16),
        "interval": interval,
        "limit": limit,
    }


def boot() -> str | None:
    """Return what tells this machine since it was started from others, where Linux says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    """Return whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_signature(path: str | Path) -> Signature | None:
    """Read a lock, None if there is none.

    The file is opened anew, so that a network file system shows what is there now.

    Parameters
    ----------
    path : path
        The lock file, or the address of the object.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if is_remote(path):
        content = remote.read(str(path))
        if content is None:
            return None
        holder = _parse(content)
        beat = holder.get("beat")
        return Signature((0, 0), beat if isinstance(beat, int) else 0, holder)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (forty times an image)
            status, content = os.fstat(file.fileno()), file.read(65536)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Signature((status.st_dev, status.st_ino), status.st_mtime_ns, _parse(content))


def is_signed(path: str | Path, nonce: object) -> bool:
    """Return whether there is a lock with the signature of this nonce.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    signature = read_signature(path)
    return signature is not None and signature.holder.get("nonce") == nonce


def _parse(content: bytes) -> Holder:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class Fence:
    """The locks that whoever writes must still hold; picklable, so that workers can ask too.

    Parameters
    ----------
    marks : tuple of (path, nonce)
        Locks, and what we signed them with. Without any, nothing is asked.
    """

    marks: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        """Do nothing if every lock is still ours.

        Raises
        ------
        LostLockError
            If one is not, or cannot be read: who cannot tell must not write.
        """
        for path, nonce in self.marks:
            try:
                signature = read_signature(path)
            except OSError as error:
                message = (
                    f"{path}: lost the lock (it cannot be read: {error.strerror}); this run writes "
                    "nothing more and publishes nothing; run again"
                )
                raise LostLockError(message) from error
            if signature is None or signature.holder.get("nonce") != nonce:
                who = "nobody: the file was removed" if signature is None else signature.who
                message = (
                    f"{path}: lost the lock to {who}; this run was stopped for so long that it "
                    "counted as dead; it writes nothing more and publishes nothing; run again"
                )
                raise LostLockError(message)
