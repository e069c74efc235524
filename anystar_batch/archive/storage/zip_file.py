"""Members of zip files: read, look, list, by the file's path and the name within.

Nothing stays open and nothing is pickled: every read opens by path, any number at once. What is
read whole is compared with the checksum (CRC-32) of the central directory. Of members that are
stored, not compressed, parts are read by themselves, as shards need.
"""

from __future__ import annotations

import errno
import struct
import threading
import zipfile
import zlib
from bisect import bisect_left
from typing import Any

from anystar_batch.address import is_remote
from anystar_batch.archive.storage.zip_index import (
    METADATA,
    ZipIndex,
    damage,
    opened,
    stored_bytes,
)

SLACK = 128
"""Bytes that the header of a member may have beyond its name: fields of time, owner and size."""

MOST_INFLATED = 2**29
"""Bytes of decompressed members that are kept, where parts of them are asked for."""

_HEADER = struct.Struct("<4s5H3I2H")
"""Local header of a member, up to its name."""

_INFLATING = threading.Lock()


def read(file: str, member: str, most: int | None = None) -> bytes | None:
    """Return the content of a member, None if there is none.

    Parameters
    ----------
    file, member : str
        As `split` returns them.
    most : int, optional
        Bytes above which it is not read.

    Raises
    ------
    OSError
        If it cannot be read; with the number `EFBIG` if it is larger than `most`, `EBADMSG` if it
        is damaged, `ENOTSUP` if it is encrypted or compressed as nobody here knows.
    """
    index = opened(file)
    n = index.number(member)
    if n is None:
        return None
    size = int(index.entries[n]["size"])
    if most is not None and size > most:
        raise OSError(errno.EFBIG, f"{size} bytes of metadata; expected at most {most}")
    return _content(index, n)


def read_part(file: str, member: str, start: int, stop: int | None) -> bytes | None:
    """Return bytes of a member, None if there is none.

    Parameters
    ----------
    file, member : str
        As `split` returns them.
    start : int
        First byte; counted from the end where it is negative.
    stop : int or None
        Byte after the last one; None is the end.

    Raises
    ------
    OSError
        As `read` does.
    """
    index = opened(file)
    n = index.number(member)
    if n is None:
        return None
    entry = index.entries[n]
    first, last, _ = slice(start, stop).indices(int(entry["size"]))
    last = max(first, last)
    if (first, last) == (0, int(entry["size"])):
        return _content(index, n)
    if entry["how"] != zipfile.ZIP_STORED or entry["bits"] & 1:
        with _INFLATING:  # many parts of one member are asked for at once
            return _inflated(index, n)[first:last]
    if n not in index.begins:
        at = int(entry["offset"])
        head = stored_bytes(index.path, index.stamp, at, at + _HEADER.size)
        index.begins[n] = at + _begin(index, n, head)
    begin = index.begins[n]
    data = stored_bytes(index.path, index.stamp, begin + first, begin + last)
    if len(data) != last - first:
        raise damage(f"{index.names[n]}: the zip file ends before it does; copy it again")
    return data


def names(file: str, folder: str) -> list[str]:
    """Return the names right below a folder of a zip file, sorted; none if it is missing."""
    return opened(file).below(folder)


def exists(file: str, member: str) -> bool:
    """Return whether there is a member, or any below the path; the file itself is there."""
    if not member:
        return True
    index = opened(file)
    if index.number(member) is not None:
        return True
    n = bisect_left(index.names, f"{index.root}{member}/")
    return n < len(index.names) and index.names[n].startswith(f"{index.root}{member}/")


def statuses(file: str, members: list[str]) -> list[tuple[int, str] | None]:
    """Return what tells the contents of members from earlier ones.

    A store is asked whether the object is still the same: of another one parts may have been read
    where they were before.

    Returns
    -------
    list of (size, tag) or None
        Bytes, and the checksum, of an object with its tag; None where there is no member.
    """
    index = opened(file, is_new=True)
    tag = f"-{index.stamp[1]}" if is_remote(file) else ""
    found: list[tuple[int, str] | None] = []
    for member in members:
        n = index.number(member)
        entry = None if n is None else index.entries[n]
        found.append(None if entry is None else (int(entry["size"]), f"{entry['crc']:08x}{tag}"))
    return found


def zarrs(file: str) -> list[str]:
    """Return the folders of a zip file that are Zarrs, of those at its top, sorted."""
    index = opened(file)
    return [one for one in index.below("") if not {*index.below(one)}.isdisjoint(METADATA)]


def _content(index: ZipIndex, n: int) -> bytes:
    """The bytes of a member, decompressed, and compared with its checksum."""
    entry, name = index.entries[n], index.names[n]
    at, stored, size = (int(entry[key]) for key in ("offset", "stored", "size"))
    length = _HEADER.size + len(name.encode()) + SLACK + stored
    data = stored_bytes(index.path, index.stamp, at, at + length)
    begin = _begin(index, n, data)
    if begin + stored > len(data):
        data += stored_bytes(index.path, index.stamp, at + len(data), at + begin + stored)
    content = data[begin : begin + stored]
    if len(content) != stored:
        raise damage(f"{name}: the zip file ends before it does; copy it again")
    if entry["how"] == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except zlib.error as error:
            raise damage(f"{name}: cannot be decompressed ({error}); copy it again") from error
    if len(content) != size or zlib.crc32(content) != entry["crc"]:
        message = (
            f"{name}: {len(content)} bytes of checksum {zlib.crc32(content):08x}; expected {size} "
            f"of {entry['crc']:08x}: the zip file is damaged, or has changed; copy it again"
        )
        raise damage(message)
    return content


def _begin(index: ZipIndex, n: int, data: bytes) -> int:
    """How far behind the beginning of a member's header its bytes begin."""
    entry, name = index.entries[n], index.names[n]
    if entry["bits"] & 1:
        message = f"{name}: encrypted; expected members that are not: make the zip file anew"
        raise OSError(errno.ENOTSUP, message)
    how = int(entry["how"])
    if how not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        message = (
            f"{name}: compressed by method {how}; expected stored members, or deflated ones: make "
            "the zip file anew, as zip -0 does"
        )
        raise OSError(errno.ENOTSUP, message)
    try:
        mark, _, bits, here, _, _, crc, _, _, length, more = _HEADER.unpack_from(data)
    except struct.error:
        mark = b""
    # Who does not know the checksum in advance sets bit 3, and writes it behind the bytes.
    is_same = mark == b"PK\3\4" and here == how and (bits & 8 or crc == entry["crc"])
    if not is_same:
        message = (
            f"{name}: not where the central directory says; the zip file is damaged, or has "
            "changed; copy it again"
        )
        raise damage(message)
    return _HEADER.size + int(length) + int(more)


_KEPT: dict[tuple[str, tuple[Any, ...], int], bytes] = {}


def _inflated(index: ZipIndex, n: int) -> bytes:
    """The bytes of a member of which parts are asked for; the last ones are kept."""
    key = (index.path, index.stamp, n)
    content = _KEPT.pop(key, None)
    if content is None:
        content = _content(index, n)
    _KEPT[key] = content
    while len(_KEPT) > 1 and sum(map(len, _KEPT.values())) > MOST_INFLATED:
        del _KEPT[next(iter(_KEPT))]
    return content
