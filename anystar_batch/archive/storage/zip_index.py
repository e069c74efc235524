"""Zip files as folders: `x.ozx/0/c/0` is the member `0/c/0` of the file, or the object, `x.ozx`.

A path leads into a zip file where a part of it that ends in `.ozx` or `.zip` is a file and no
directory. The central directory is read once a process for every content that a file has had, by
`zipfile`, and kept as sorted names and an array. Where the Zarr lies in a folder of its own within,
as people zip them, that folder is left out of the paths.
"""

from __future__ import annotations

import errno
import io
import os
import re
import struct
import threading
import zipfile
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.address import ZIPPED, is_remote
from anystar_batch.archive.storage import remote

TAIL = 2**16 + 2**10
"""Bytes at the end of a remote file that are read at once: comment and end record lie there."""

METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""What a folder holds that is a Zarr."""

_ENTRY = np.dtype(
    [
        ("offset", "u8"),
        ("stored", "u8"),
        ("size", "u8"),
        ("crc", "u4"),
        ("how", "u2"),
        ("bits", "u2"),
    ]
)
"""What the central directory says of a member: place and bytes in the file, bytes, checksum."""

_INSIDE = re.compile(rf"[^/](?:{'|'.join(map(re.escape, ZIPPED))})(?=/|$)", re.IGNORECASE)

_LOADING = threading.Lock()


def split(path: str) -> tuple[str, str] | None:
    """Return the zip file that a path leads into, and the rest, empty for the file itself.

    Parameters
    ----------
    path : str
        Local path or address.

    Returns
    -------
    (file, member) or None
        None where the path leads into none. Where a store does not say what is there, the name
        counts: whoever reads says what is wrong.
    """
    for found in _INSIDE.finditer(path):
        file = path[: found.end()]
        if _is_file(file):
            return file, path[found.end() + 1 :]
    return None


def _is_file(path: str) -> bool:
    if is_remote(path):
        try:
            return remote.known_status(path) is not None
        except OSError:
            return True
    return os.path.isfile(path)  # noqa: PTH113  (no access: no)


@dataclass(frozen=True, slots=True, eq=False)
class ZipIndex:
    """The central directory of a zip file.

    Parameters
    ----------
    path : str
        The file, or its address.
    stamp : tuple
        What tells its content from an earlier one, its size first.
    root : str
        Folder within that is the Zarr; empty, or with a slash at the end.
    names : list of str
        Members, sorted; directories are none.
    entries : (n,)
        What is said of each.
    begins : dict
        Where the bytes of a member begin in the file, by its number, as far as that is known: its
        own header says it.
    """

    path: str
    stamp: tuple[Any, ...]
    root: str
    names: list[str]
    entries: NDArray[np.void]
    begins: dict[int, int] = field(default_factory=dict)

    def number(self, member: str) -> int | None:
        """Return which member has a name below the root, None if there is none."""
        name = f"{self.root}{member}"
        n = bisect_left(self.names, name)
        return n if n < len(self.names) and self.names[n] == name else None

    def below(self, folder: str) -> list[str]:
        """Return the names right below a folder, below the root, sorted.

        Names are skipped from one to the next: the cost goes with what is returned.
        """
        start = f"{self.root}{folder}/" if folder else self.root
        found: list[str] = []
        n = bisect_left(self.names, start)
        while n < len(self.names) and self.names[n].startswith(start):
            name, slash, _ = self.names[n][len(start) :].partition("/")
            if not found or found[-1] != name:
                found.append(name)
            # All below a folder lies between its name with a slash and with what follows a slash.
            n = bisect_left(self.names, f"{start}{name}0", n) if slash else n + 1
        return sorted(set(found))


def opened(path: str, *, is_new: bool = False) -> ZipIndex:
    """Return the central directory of a zip file; it is read if it is not known.

    Parameters
    ----------
    path : str
        The file, or its address.
    is_new : bool
        Whether a store is asked if the object is still the one that is known; a file always is.

    Raises
    ------
    OSError
        If it cannot be read; with the number `EBADMSG` if it is no zip file, or a damaged one.
    """
    if is_remote(path):
        status = remote.status(path) if is_new else remote.known_status(path)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "no such object")
        if is_new and status != remote.known_status(path):
            remote.known_status.cache_clear()
        stamp: tuple[Any, ...] = status
    else:
        stamp = _stamp(os.stat(path))  # noqa: PTH116  (text, as everywhere here)
    with _LOADING:  # else every thread would read the same
        return _loaded(path, stamp)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


@lru_cache(maxsize=4)
def _loaded(path: str, stamp: tuple[Any, ...]) -> ZipIndex:
    """Read a central directory."""
    size = int(stamp[0])
    try:
        with zipfile.ZipFile(_Parts(path, stamp)) as file:
            members = [one for one in file.infolist() if not one.filename.endswith("/")]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        why = str(error).rstrip(".") or type(error).__name__
        message = (
            f"no zip file, or one that is not whole: {why}, {size} bytes; expected a zipped "
            "OME-Zarr: copy it again, or make it anew"
        )
        raise damage(message) from error
    # Some tools write the separators of Windows; of members of one name the last one counts.
    numbered = {one.filename.replace("\\", "/"): n for n, one in enumerate(members)}
    names = sorted(numbered)
    entries = np.empty(len(names), _ENTRY)
    for n, name in enumerate(names):
        one = members[numbered[name]]
        entries[n] = (
            one.header_offset,
            one.compress_size,
            one.file_size,
            one.CRC,
            one.compress_type,
            one.flag_bits,
        )
    index = ZipIndex(path, stamp, "", names, entries)
    return ZipIndex(path, stamp, _root(index), names, entries)


def _root(index: ZipIndex) -> str:
    """The folder that is the Zarr: the top, or the only one in the only one and so on, or none."""
    root = ""
    while True:
        below = [one for one in index.below(root) if one != "__MACOSX"]
        if any(name in below for name in METADATA):
            return f"{root}/" if root else ""
        start = f"{root}/" if root else ""
        folders = [f"{start}{one}" for one in below if index.below(f"{start}{one}")]
        if len(folders) != 1:
            return ""
        root = folders[0]


class _Parts(io.RawIOBase):
    """A file that is read part by part, the end of a remote one at once."""

    def __init__(self, path: str, stamp: tuple[Any, ...]) -> None:
        self._path, self._stamp, self._at = path, stamp, 0
        self._size = int(stamp[0])
        self._tail_at = max(self._size - TAIL, 0) if is_remote(path) else self._size
        self._tail = stored_bytes(path, stamp, self._tail_at, self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning of the file")
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        if self._at >= self._tail_at:
            data = self._tail[self._at - self._tail_at : stop - self._tail_at]
        else:
            data = stored_bytes(self._path, self._stamp, self._at, stop)
        self._at = max(stop, self._at)
        return data


def stored_bytes(path: str, stamp: tuple[Any, ...], start: int, stop: int) -> bytes:
    """Read bytes of a file whose content is the one that a stamp tells.

    Parameters
    ----------
    path : str
        The file, or its address.
    stamp : tuple
        Of a `ZipIndex`.
    start, stop : int
        First byte, and the one after the last; those behind the end are left out.

    Raises
    ------
    OSError
        If they cannot be read; with the number `EAGAIN` if the file has another content now.
    """
    stop = min(stop, int(stamp[0]))
    if start >= stop:
        return b""
    if is_remote(path):
        return remote.read_range(path, start, stop, int(stamp[0]))
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        if _stamp(os.fstat(file.fileno())) != stamp:
            raise OSError(errno.EAGAIN, "the zip file has changed while it was read; run again")
        parts = []
        while start < stop and (part := os.pread(file.fileno(), stop - start, start)):
            parts.append(part)
            start += len(part)
    return b"".join(parts)


def damage(message: str) -> OSError:
    """Return the error of a zip file that is none, or is not whole."""
    return OSError(errno.EBADMSG, message)
