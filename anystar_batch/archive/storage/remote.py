"""Object stores and web servers: read, look, list and write objects by address, through fsspec.

Every function opens what it needs from the address alone (`filesystems`). Whatever a library raises
becomes an `OSError` whose text holds no secret: `FileNotFoundError`, `PermissionError`, or another;
those that may pass have the number `EAGAIN`.

A store that may not be listed often answers 403 for what is not there. Whether it does is found out
by asking for a key that nobody has (`hides_missing`); only then is 403 taken for absence.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from anystar_batch.address import is_read_only, parent, scheme
from anystar_batch.archive.storage import filesystems
from anystar_batch.archive.storage.filesystems import filesystem
from anystar_batch.archive.storage.remote_errors import CredentialsError, is_passing, os_error
from anystar_batch.errors import ConfigError

PAUSES = (0.2, 1.0, 3.0)
"""Seconds before a request to a web server is repeated; other libraries repeat by themselves."""

AT_ONCE = 16
"""Requests under way at once, where there are many to make."""

ABSENT = ".anystar-batch-no-such-key"
"""A key that nobody has."""


Result = TypeVar("Result")


def forget() -> None:
    """Open every file system anew at its next use, with the environment as it is then."""
    filesystems.forget()
    hides_missing.cache_clear()
    known_status.cache_clear()


def _ask(path: str, function: Callable[[], Result]) -> Result:
    """Make a request, of a web server several times if need be; raise an `OSError` if it fails."""
    pauses = PAUSES if is_read_only(path) else ()
    for pause in (*pauses, None):
        try:
            return function()
        except ConfigError:
            raise
        except Exception as error:
            failure = os_error(error)
            if pause is None or not is_passing(failure):
                raise failure from error
            time.sleep(pause)
    raise AssertionError  # the last pause is None


@lru_cache(maxsize=4096)
def hides_missing(folder: str) -> bool:
    """Return whether a store denies access (403) to what is not there.

    Parameters
    ----------
    folder : str
        Address below which to ask for a key that nobody has.
    """
    path = f"{folder}/{ABSENT}"
    fs, key = filesystem(path)
    try:
        _ask(path, lambda: fs.info(key))
    except CredentialsError:
        raise
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _absent(path: str, error: OSError) -> bool:
    """Return whether an error means that there is no such object."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return True
    return (
        isinstance(error, PermissionError)
        and not isinstance(error, CredentialsError)
        and hides_missing(parent(path))
    )


def read(path: str, most: int | None = None) -> bytes | None:
    """Return the content of an object, None if there is none.

    Parameters
    ----------
    path : str
        Its address.
    most : int, optional
        Bytes above which it is not read.

    Raises
    ------
    OSError
        If it cannot be read; with the number `EFBIG` if it is larger than `most`.
    """
    fs, key = filesystem(path)
    if most is not None:
        size_and_tag = status(path)
        if size_and_tag is None:
            return None
        if size_and_tag[0] > most:
            raise OSError(
                errno.EFBIG, f"{size_and_tag[0]} bytes of metadata; expected at most {most}"
            )
    try:
        data: bytes = _ask(path, lambda: fs.cat_file(key))
    except OSError as error:
        if _absent(path, error):
            return None
        raise
    return data


def status(path: str) -> tuple[int, str] | None:
    """Return the bytes of an object and what tells its content from an earlier one.

    Parameters
    ----------
    path : str
        Its address.

    Returns
    -------
    (size, tag) or None
        Tag: the store's checksum (`ETag`), else the time of the last change; empty where a server
        says neither. None where there is no such object; a prefix of keys is none.

    Raises
    ------
    OSError
        If the store does not say.
    """
    fs, key = filesystem(path)
    try:
        info: dict[str, Any] = _ask(path, lambda: fs.info(key))
    except OSError as error:
        if _absent(path, error):
            return None
        raise
    if info.get("type") != "file":
        return None
    tags = (info.get(name) for name in ("ETag", "etag", "Last-Modified", "LastModified", "mtime"))
    return int(info.get("size") or 0), str(next((tag for tag in tags if tag), ""))


@lru_cache(maxsize=256)
def known_status(path: str) -> tuple[int, str] | None:
    """Return what `status` said of an object at first; it is asked once a process."""
    return status(path)


def read_range(path: str, start: int, stop: int, size: int) -> bytes:
    """Return bytes of an object, by one request for them alone.

    Parameters
    ----------
    path : str
        Its address.
    start, stop : int
        First byte, and the one after the last.
    size : int
        Bytes of the object.

    Raises
    ------
    OSError
        If they cannot be read; with the number `EPROTO` if a server sends whole files only.
    """
    fs, key = filesystem(path)

    def fetch() -> bytes:
        if not is_read_only(path):
            data: bytes = fs.cat_file(key, start=start, end=stop)
            return data
        # As a file: it looks at the answer before it takes the whole of a large file for a part.
        try:
            with fs.open(key, "rb", size=size, cache_type="none") as file:
                file.seek(start)
                part: bytes = file.read(stop - start)
                return part
        except ValueError as error:
            message = (
                "the server sends whole files where parts are asked for (byte ranges), which zip "
                "files need; copy the file to a directory, or to another server"
            )
            raise OSError(errno.EPROTO, message) from error

    data = _ask(path, fetch)
    if len(data) != stop - start:
        message = (
            f"the store sends {len(data)} bytes where {stop - start} were asked for: the object "
            "has changed, or the transfer was cut off"
        )
        raise OSError(errno.EPROTO, message)
    return data


def statuses(paths: Sequence[str]) -> list[tuple[int, str] | None]:
    """Return the status of many objects, asked for at once."""
    return at_once(status, paths)


def at_once(function: Callable[[str], Result], paths: Sequence[str]) -> list[Result]:
    """Call a function with every path, several at a time; return the results in order."""
    if len(paths) < 2:
        return [function(path) for path in paths]
    with ThreadPoolExecutor(min(AT_ONCE, len(paths)), thread_name_prefix="remote") as pool:
        return list(pool.map(function, paths))


def exists(path: str) -> bool:
    """Return whether there is an object, or any below the path; of a web server, an object."""
    fs, key = filesystem(path)
    try:
        _ask(path, lambda: fs.info(key))
    except OSError as error:
        if _absent(path, error):
            return False
        raise
    return True


def names(path: str) -> list[str] | None:
    """Return the sorted names right below a path; None for web servers, which cannot list.

    Raises
    ------
    OSError
        If the store may not be listed.
    """
    if is_read_only(path):
        return None
    fs, key = filesystem(path)
    try:
        listing: list[str] = _ask(path, lambda: fs.ls(key, detail=False))
    except FileNotFoundError:
        return []
    below = [one.rstrip("/").removeprefix(f"{key}/") for one in listing]
    return sorted({name for name in below if name and "/" not in name})


def keys(path: str) -> list[str]:
    """Return the addresses of all objects below a path, sorted.

    Raises
    ------
    OSError
        If the store cannot be listed.
    """
    fs, key = filesystem(path)
    try:
        listing: list[str] = _ask(path, lambda: fs.find(key))
    except FileNotFoundError:
        return []
    return sorted(f"{path}/{one.removeprefix(f'{key}/')}" for one in listing if one != key)


def bucket_error(path: str) -> str | None:
    """Return why nothing can be seen at an address, in words; None if nothing speaks against it."""
    if is_read_only(path):
        return None
    kind, _, rest = path.partition("://")
    bucket = rest.partition("/")[0]
    fs, _ = filesystem(path)
    try:
        _ask(path, lambda: fs.info(bucket))
    except FileNotFoundError:
        return f"there is no bucket {kind}://{bucket}"
    except OSError as error:
        return error.strerror
    return None


def modified(path: str) -> float | None:
    """Return when an object was last written, seconds by the store's clock; None without one.

    Raises
    ------
    OSError
        If the store does not say.
    """
    fs, key = filesystem(path)
    try:
        moment: datetime = _ask(path, lambda: fs.modified(key))
    except FileNotFoundError:
        return None
    return moment.timestamp()


def put(path: str, data: bytes, *, exclusive: bool = False, replaces: str | None = None) -> None:
    """Write an object: it is whole or as it was.

    Parameters
    ----------
    path : str
        Its address.
    data : bytes
    exclusive : bool
        Only if there is none; stores that do not know this (`If-None-Match`) write anyway.
    replaces : str, optional
        Tag, as `status` gives it, of the only object that may be replaced (`If-Match`). Known to
        s3 alone; elsewhere the object is written anyway.

    Raises
    ------
    FileExistsError
        If there is one and `exclusive` is set, or it is not the one to be replaced.
    OSError
        If it cannot be written.
    """
    fs, key = filesystem(path)
    more = {"mode": "create"} if exclusive else {}
    if replaces and scheme(path) == "s3":
        more = {"IfMatch": replaces}
    try:
        _ask(path, lambda: fs.pipe_file(key, data, **more))
    except OSError as error:
        if more and _is_refused(error):
            raise FileExistsError(errno.EEXIST, "the object exists already") from error
        raise


def _is_refused(error: OSError) -> bool:
    """Return whether a condition of a write was not met."""
    text = f"{error} {error.__cause__}"
    signs = ("PreconditionFailed", "ConditionalRequestConflict", "pre-conditions", "412")
    return isinstance(error, FileExistsError) or any(sign in text for sign in signs)


def put_file(source: Path, path: str) -> None:
    """Write an object from a local file."""
    fs, key = filesystem(path)
    _ask(path, lambda: fs.put_file(str(source), key))


def get_file(path: str, target: Path) -> None:
    """Write a local file from an object; FileNotFoundError if there is none."""
    fs, key = filesystem(path)
    _ask(path, lambda: fs.get_file(key, str(target)))


def copy(source: str, target: str) -> None:
    """Copy an object within its store; the target is whole or as it was."""
    fs, key = filesystem(source)
    _, to = filesystem(target)
    _ask(source, lambda: fs.cp_file(key, to))


def remove(path: str) -> None:
    """Delete an object; without one, do nothing."""
    fs, key = filesystem(path)
    try:
        _ask(path, lambda: fs.rm_file(key))
    except FileNotFoundError:
        return


def remove_tree(path: str) -> None:
    """Delete every object below a path."""
    fs, key = filesystem(path)
    addresses = keys(path)
    for start in range(0, len(addresses), 1000):
        several = [
            f"{key}/{one.removeprefix(f'{path}/')}" for one in addresses[start : start + 1000]
        ]
        _ask(path, lambda several=several: fs.rm(several))  # type: ignore[misc]
