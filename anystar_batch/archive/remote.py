"""Objects of stores and web servers by their addresses, through fsspec: read, look, list, write.

Every function opens what it needs from the address alone, with the credentials of the process's
environment, so nothing that is open is ever pickled or forked. Listings are not cached: another
process may write. Whatever a library raises becomes an `OSError` whose text holds no secret:
`FileNotFoundError`, `PermissionError`, or another; those that may pass have the number `EAGAIN`.

A store that may not be listed often answers 403 for what is not there. Whether it does is found out
by asking for a key that nobody has (`hides_missing`); only then is 403 taken for absence.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from anystar_batch.address import is_read_only, parent, scheme, scrub
from anystar_batch.errors import ConfigError, shorten

PAUSES = (0.2, 1.0, 3.0)
"""Seconds before a request to a web server is repeated; other libraries repeat by themselves."""

AT_ONCE = 16
"""Requests under way at once, where there are many to make."""

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
"""How long a web server may take to answer, and to send the next bytes."""

ABSENT = ".anystar-batch-no-such-key"
"""A key that nobody has."""

_LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}

_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",
    "RefreshError",
}

_PASSING = {
    "BotoCoreConnectionError",
    "ConnectionError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ClientConnectionError",
    "ClientPayloadError",
    "TimeoutError",
}

Result = TypeVar("Result")


class CredentialsError(PermissionError):
    """There are no credentials, or they are incomplete."""


def filesystem(path: str, *, asynchronous: bool = False) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the address as that names it.

    Parameters
    ----------
    path : str
        A checked address.
    asynchronous : bool
        For zarr's own event loop; else for calls that wait.

    Raises
    ------
    ConfigError
        If the library for it is not installed.
    """
    kind = scheme(path)
    try:
        fs = _opened(kind, os.getpid(), asynchronous=asynchronous)
    except ImportError as error:
        message = (
            f"{path}: {kind}:// needs {error.name or _LIBRARIES[kind]}, which is not installed; "
            "pip install 'anystar-batch[cloud]'"
        )
        raise ConfigError(message) from error
    return fs, str(fs._strip_protocol(path))  # noqa: SLF001  (fsspec's own url_to_fs calls it)


@lru_cache(maxsize=16)
def _opened(kind: str, _process: int, *, asynchronous: bool) -> Any:  # noqa: ANN401
    """Open a file system; all threads share it, or each would have connections of its own."""
    import fsspec  # noqa: PLC0415  (nobody with local images needs it)

    options: dict[str, Any] = {"asynchronous": asynchronous}
    if kind in {"http", "https"}:
        options["client_kwargs"] = _client_options(fsspec.config.conf)
    else:
        options["use_listings_cache"] = False
    if kind == "s3":
        # One request an object, as zarr asks for many at once: parts of two versions never mix.
        options["max_concurrency"] = fsspec.config.conf.get("s3", {}).get("max_concurrency", 1)
    return fsspec.filesystem(kind, **options)


def forget() -> None:
    """Open every file system anew at its next use, with the environment as it is then."""
    _opened.cache_clear()
    hides_missing.cache_clear()


def _client_options(conf: dict[str, Any]) -> dict[str, Any]:
    """Options of the web client: patience, `.netrc` and proxies, then what the user has set."""
    import aiohttp  # noqa: PLC0415

    patience = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
    )
    found: dict[str, Any] = {"trust_env": True, "timeout": patience}
    for kind in ("http", "https"):
        found |= conf.get(kind, {}).get("client_kwargs", {})
    return found


def os_error(error: BaseException) -> OSError:
    """Return what a library raised as an `OSError`, its text without secrets and in one line."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause and not isinstance(cause, LookupError):
        # fsspec's web client says so of everything that went wrong.
        error = cause
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = scrub(shorten(str(error) or type(error).__name__))
    status = _status_of(error)
    if isinstance(error, CredentialsError):
        return error
    if isinstance(error, FileExistsError):
        return FileExistsError(errno.EEXIST, "the object exists already")
    if not kinds.isdisjoint(_CREDENTIALS):
        return CredentialsError(errno.EACCES, f"no usable credentials: {text}")
    if isinstance(error, FileNotFoundError) or "NoSuchBucket" in kinds or status in {404, 410}:
        return FileNotFoundError(errno.ENOENT, "no such object")
    if isinstance(error, PermissionError) or status in {401, 403}:
        return PermissionError(errno.EACCES, f"access denied ({text})")
    if isinstance(status, int):
        passes = status == 429 or status >= 500
        return OSError(errno.EAGAIN if passes else errno.EIO, f"the server answers {status}")
    if not kinds.isdisjoint(_PASSING):
        return OSError(errno.EAGAIN, f"the store does not answer ({text})")
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    return OSError(number, f"{type(error).__name__}: {text}")


def _status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of aiohttp, gcsfs or botocore carries."""
    response = getattr(error, "response", None)
    answer = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    # aiohttp warns of its own `code`, so it is looked at where there is no `status` only.
    found = [getattr(error, "status", None), answer.get("HTTPStatusCode")]
    if not isinstance(found[0], int):
        found.append(getattr(error, "code", None))
    return next((status for status in found if isinstance(status, int)), None)


def is_passing(error: OSError) -> bool:
    """Return whether the same request may succeed a little later."""
    return error.errno == errno.EAGAIN


def _ask(path: str, function: Callable[[], Result]) -> Result:
    """Make a request, of a web server several times if need be; raise an `OSError` if it fails."""
    pauses = PAUSES if is_read_only(path) else ()
    for pause in (*pauses, None):
        try:
            return function()
        except ConfigError:
            raise
        except Exception as error:
            found = os_error(error)
            if pause is None or not is_passing(found):
                raise found from error
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
        found = status(path)
        if found is None:
            return None
        if found[0] > most:
            raise OSError(errno.EFBIG, f"{found[0]} bytes of metadata; expected at most {most}")
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
        found: dict[str, Any] = _ask(path, lambda: fs.info(key))
    except OSError as error:
        if _absent(path, error):
            return None
        raise
    if found.get("type") != "file":
        return None
    tags = (found.get(name) for name in ("ETag", "etag", "Last-Modified", "LastModified", "mtime"))
    return int(found.get("size") or 0), str(next((tag for tag in tags if tag), ""))


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
        found: list[str] = _ask(path, lambda: fs.ls(key, detail=False))
    except FileNotFoundError:
        return []
    below = [one.rstrip("/").removeprefix(f"{key}/") for one in found]
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
        found: list[str] = _ask(path, lambda: fs.find(key))
    except FileNotFoundError:
        return []
    return sorted(f"{path}/{one.removeprefix(f'{key}/')}" for one in found if one != key)


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
        found: datetime = _ask(path, lambda: fs.modified(key))
    except FileNotFoundError:
        return None
    return found.timestamp()


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
    found = keys(path)
    for start in range(0, len(found), 1000):
        several = [f"{key}/{one.removeprefix(f'{path}/')}" for one in found[start : start + 1000]]
        _ask(path, lambda several=several: fs.rm(several))  # type: ignore[misc]
