"""Who holds a lock, as its file says, and whether it is still we.

A process that was stopped (SIGSTOP, a suspended machine) does not notice that its lock was taken
over. So whoever writes asks first: every holder signs with a number of its own, and a lock file
with another signature, or none, belongs to somebody else.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.address import is_remote
from anystar_batch.archive.storage import remote
from anystar_batch.errors import LostLockError


@dataclass(frozen=True, slots=True)
class Signature:
    """What a lock file says, and when its holder last gave a sign of life.

    Parameters
    ----------
    inode : (device, number)
        The file: a lock that is taken over is another file. Zeros for an object.
    beat : int
        Time of the last sign of life, nanoseconds, by the clock of the file system; of an object,
        the number of signs.
    holder : dict
        `host`, `boot`, `pid`, `since`, `nonce`, `interval`, `limit`; empty if its maker died before
        signing.
    """

    inode: tuple[int, int]
    beat: int
    holder: dict[str, object]

    @property
    def who(self) -> str:
        """The holder in words."""
        if not self.holder:
            return "a run that is just starting"
        known = self.holder
        return f"process {known.get('pid')} on {known.get('host')} since {known.get('since')}"

    def seconds(self, name: str) -> float | None:
        """Return a duration that the holder has signed, None without one."""
        value = self.holder.get(name)
        return float(value) if isinstance(value, int | float) else None


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
        holder = {} if content is None else _parse(content)
        beat = holder.get("beat")
        found = Signature((0, 0), beat if isinstance(beat, int) else 0, holder)
        return None if content is None else found
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            return Signature(
                (status.st_dev, status.st_ino), status.st_mtime_ns, _parse(file.read(65536))
            )
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse(content: bytes) -> dict[str, object]:
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
                found = read_signature(path)
            except OSError as error:
                message = (
                    f"{path}: lost the lock (it cannot be read: {error.strerror}); this run writes "
                    "nothing more and publishes nothing; run again"
                )
                raise LostLockError(message) from error
            if found is None or found.holder.get("nonce") != nonce:
                who = "nobody: the file was removed" if found is None else found.who
                message = (
                    f"{path}: lost the lock to {who}; this run was stopped for so long that it "
                    "counted as dead; it writes nothing more and publishes nothing; run again"
                )
                raise LostLockError(message)
