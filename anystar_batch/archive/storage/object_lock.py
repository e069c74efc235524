"""The lock as an object of a store: conditional writes, and a count that rises with each heartbeat.

It is made only where there is none (`If-None-Match`), which decides between machines, and replaced
only while it is what was read (`If-Match`). A heartbeat writes it anew with a higher `beat`. No
kernel drops it when its holder dies: a holder is surely dead if its process is gone from this
machine. A store that does not know conditions lets two runs that begin in the same moment both
write it; the `Fence` of the one that was overwritten ends that run before it writes.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from anystar_batch.address import parent
from anystar_batch.archive.storage import files, remote
from anystar_batch.archive.storage.fence import (
    Holder,
    Signature,
    boot,
    is_alive,
    is_signed,
    read_signature,
)

logger = logging.getLogger(__name__)


class ObjectLock:
    """A `lock.Backend` of one object.

    Parameters
    ----------
    path : str
        Address of the lock.
    """

    kind = "object"

    def __init__(self, path: str) -> None:
        self.path = path
        self.taken_from: Signature | None = None
        self._nonce: object = None  # what our own signature is told by

    def create(self, holder: Holder) -> bool:
        """Make the signed object, if there is none."""
        try:
            remote.put(self.path, _content(holder), exclusive=True)
        except FileExistsError:
            return False
        self._nonce = holder["nonce"]
        return True

    def replace_dead(self, holder: Holder, check_silent: Callable[[Signature], None]) -> bool:
        """Write our object in the place of a dead holder's."""
        status = remote.status(self.path)  # before it is read: its tag is no later one's
        signature = read_signature(self.path)
        if status is None or signature is None:
            return False
        if signature.holder.get("nonce") != holder["nonce"]:  # else a repeated request of `create`
            if not _is_surely_dead(signature):
                check_silent(signature)
            logger.info("%s: taken over from %s", self.path, signature.who)
            self.taken_from = signature
            try:
                remote.put(self.path, _content(holder), replaces=status[1])
            except (FileExistsError, FileNotFoundError):
                if not is_signed(self.path, holder["nonce"]):  # nor is it a repeated request
                    return False
        self._nonce = holder["nonce"]
        return True

    def silence(self, _: Signature) -> float | None:
        """Return the seconds since the object was written, by the clock of the store."""
        written = remote.modified(self.path)
        return None if written is None else _store_now(parent(self.path)) - written

    def beat(self) -> bool:
        """Count one more, only ever in the place of our own last heartbeat."""
        status, signature = remote.status(self.path), read_signature(self.path)
        if status is None or signature is None or signature.holder.get("nonce") != self._nonce:
            return False
        remote.put(
            self.path,
            _encoded({**signature.holder, "beat": signature.beat + 1}),
            replaces=status[1],
        )
        return True

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _encoded(document: Holder) -> bytes:
    return f"{json.dumps(document)}\n".encode()


def _content(holder: Holder) -> bytes:
    """The signature with what an object needs besides: the container of the process, the count."""
    first = {"host": holder["host"], "boot": holder["boot"], "space": _process_space()}
    return _encoded({**first, **holder, "beat": 0})


def _is_surely_dead(signature: Signature) -> bool:
    """Return whether the holder was a process of this machine and is gone."""
    holder = signature.holder
    here = {"host": socket.gethostname(), "boot": boot(), "space": _process_space()}
    pid = holder.get("pid")
    if None in here.values() or any(holder.get(name) != value for name, value in here.items()):
        return False
    return isinstance(pid, int) and not is_alive(pid)


def _store_now(folder: str) -> float:
    """Return the time by the clock that stamps the objects of a store, seconds."""
    # Of one name, so that the next process deletes what one that is killed here leaves; another may
    # do so just between.
    alone = f".anystar-batch.{os.getpid()}-{secrets.token_hex(4)}{files.PARTIAL}"
    for name in (f".anystar-batch{files.PARTIAL}", alone):
        remote.put(f"{folder}/{name}", b"")
        try:
            found = remote.modified(f"{folder}/{name}")
        finally:
            remote.remove(f"{folder}/{name}")
        if found is not None:
            return found
    return 0.0


def _process_space() -> str | None:
    """What tells the processes that this one sees from those of another container, on Linux."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
