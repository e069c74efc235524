"""The lock as a file of a local or network file system: `flock`, and the time that it was touched.

It is made with `O_EXCL`, which decides between machines, and `flock`ed while held, which decides on
one machine: the kernel drops that lock when the process dies, however it dies. A heartbeat touches
the file. So a holder is surely dead if flock says so on its own machine. A dead holder's lock is
taken over by putting a new file in the place of the old one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.atomic_write import partials
from anystar_batch.archive.storage.fence import Holder, Signature, boot, is_alive, read_signature
from anystar_batch.errors import OutputError

logger = logging.getLogger(__name__)

# EBADF: NFS locks only what is open for writing, which no directory is.
_NO_FLOCK = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EBADF}


class FileLock:
    """A `lock.Backend` of one file.

    Parameters
    ----------
    path : path
        The lock file; its directory exists.
    """

    kind = "file"

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path)
        self.path = str(self._file)
        self.taken_from: Signature | None = None
        self._handle = -1  # of our own file, open and flocked while we hold it

    def create(self, holder: Holder) -> bool:
        """Make, flock and sign the file, if there is none.

        Raises
        ------
        OutputError
            If it cannot be made.
        """
        try:
            # As open as the directory's group and the umask have it: others may have to take over.
            handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            message = f"{self.path}: the lock cannot be made ({error.strerror}); give --output DIR"
            raise OutputError(error.errno, message) from error
        try:
            if try_flock(handle):
                os.pwrite(handle, f"{json.dumps(holder)}\n".encode(), 0)
                os.fsync(handle)
                if _is_same_file(handle, self._file):
                    self._handle = handle
                    _sweep_asides(self._file, handle)
                    return True
        except BaseException:
            if _is_same_file(handle, self._file):
                self._file.unlink(missing_ok=True)
            os.close(handle)
            raise
        # Whoever looked at it before it was signed took it for a dead one, and removes it.
        os.close(handle)
        return False

    def replace_dead(self, _: Holder, check_silent: Callable[[Signature], None]) -> bool:
        """Remove the file of a dead holder, so that `create` can make a new one.

        Raises
        ------
        OutputError
            If it cannot be opened or removed.
        """
        try:
            handle = _opened(self._file)
        except FileNotFoundError:
            return False
        except OSError as error:
            message = (
                f"{self.path}: the lock cannot be opened ({error.strerror}"
                f"{files.owner_text(self._file)}); give --output DIR"
            )
            raise OutputError(error.errno, message) from error
        try:
            is_free = try_flock(handle)
            signature = read_signature(self._file)
            if signature is not None and _is_same_file(handle, self._file):
                if not (is_free and _is_surely_dead(self._file, signature)):
                    check_silent(signature)
                logger.info("%s: taken over from %s", self.path, signature.who)
                self.taken_from = signature
                try:
                    _set_aside(self._file, handle)
                except OSError as error:
                    message = (
                        f"{self.path}: the lock of {signature.who}, whose run is gone, cannot be "
                        f"removed ({error.strerror}{files.owner_text(self._file)}); have it "
                        "deleted, or give --output DIR"
                    )
                    raise OutputError(error.errno, message) from error
        finally:
            os.close(handle)
        return False

    def silence(self, signature: Signature) -> float:
        """Return the seconds since the file was touched, by the clock of the file system."""
        return files.file_system_now(self._file.parent) - signature.beat / 1e9

    def beat(self) -> bool:
        """Touch the open file, never one that has taken its place."""
        os.utime(self._handle)
        return True

    def close(self) -> None:
        """Drop the flock.

        The file is removed by then: whoever waited on it finds it gone and tries anew.
        """
        os.close(self._handle)


def _opened(path: Path) -> int:
    """Open another's lock: flock asks for no right to write, where files are local."""
    try:
        return os.open(path, os.O_RDWR)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _set_aside(path: Path, handle: int) -> None:
    """Remove the file that was judged, and no other that may have taken its place meanwhile."""
    aside = files.partial_path(path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if not _is_same_file(handle, aside):
        # Two took over at once: the first one's lock goes back; if it cannot, its fence tells it.
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _sweep_asides(path: Path, handle: int) -> None:
    """Delete dead locks that whoever set them aside was killed over; our own is on its way back."""
    for aside in partials(path.parent, f".{path.name}."):
        if not _is_same_file(handle, aside):
            with suppress(OSError):
                aside.unlink()


def _is_surely_dead(path: Path, signature: Signature) -> bool:
    """Return whether a holder whose flock is free is dead: of this machine, or never signed."""
    holder = signature.holder
    if not holder:
        return True
    if holder.get("host") != socket.gethostname() or holder.get("boot", boot()) != boot():
        return False
    pid = holder.get("pid")
    # Where flock works it has already told that the holder is gone, and its number may be reused.
    return _flock_excludes(path) or not (isinstance(pid, int) and is_alive(pid))


def try_flock(handle: int) -> bool:
    """Lock an open file without waiting; True also where the file system knows no such locks."""
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
    second = _opened(path)
    try:
        return not try_flock(second)
    finally:
        os.close(second)
