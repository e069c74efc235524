"""Where things lie, as text: paths of this machine, and addresses of object stores and servers.

An address is a scheme, a bucket or host, and a key: `s3://bucket/a/b.ome.zarr`. Credentials are
never part of one: they come from the environment, so that no record, log or message can hold them.
"""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes

from anystar_batch.errors import ConfigError, shorten

READ_ONLY = ("https", "http")
"""Schemes that nothing can be written by."""

SCHEMES = ("s3", "gs", *READ_ONLY)
"""Schemes of stores that images can be read from."""

ZIPPED = (".ozx", ".zip")
"""Suffixes of zip files: of a zipped OME-Zarr (RFC-9), and of any."""


_FILE = re.compile(r"file:(//(localhost(?=/))?|(?=/))", re.IGNORECASE)
"""What a local path may begin with, as a URI."""


def is_remote(path: object) -> bool:
    """Return whether a path is an address, and not of the local file system."""
    return "://" in str(path) and not _FILE.match(str(path))


def is_read_only(path: str) -> bool:
    """Return whether nothing can ever be written at a path."""
    return is_remote(path) and scheme(path) in READ_ONLY


def scheme(path: str) -> str:
    """Return the scheme of an address, e.g. `s3`."""
    return path.partition("://")[0]


def normal(path: str) -> str:
    """Return a local path without `file://`, or a checked address; both without trailing slashes.

    zarr-python opens `file://` through fsspec, which writes in place: a killed writer would leave
    half a chunk.

    Parameters
    ----------
    path : str
        As a user gives it.

    Raises
    ------
    ConfigError
        If it is an address that cannot be used; the message shows no credentials.

    Examples
    --------
    >>> normal("file:///data/a.zarr/"), normal("S3://bucket/a.zarr/")
    ('/data/a.zarr', 's3://bucket/a.zarr')
    >>> normal("file:/data/my%20embryo.zarr"), normal("https://HOST:443/a.zarr")
    ('/data/my embryo.zarr', 'https://host/a.zarr')
    """
    if not is_remote(path):
        return _local(path).rstrip("/") or "/"
    kind, _, rest = path.partition("://")
    kind, shown = kind.lower(), shorten(scrub(path))
    if kind not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        message = f"{shown}: stores of this kind are not known; expected {known} or a local path"
        raise ConfigError(message)
    host, _, key = rest.partition("/")
    if kind in READ_ONLY:
        host = host.lower().removesuffix({"https": ":443", "http": ":80"}[kind])
    if "@" in host:
        message = (
            f"{shown}: the address holds credentials, which would end in records and logs; leave "
            "them out and give them by the environment (docs/storage.md)"
        )
        raise ConfigError(message)
    if "?" in rest or "#" in rest:
        message = (
            f"{shown}: the address has a query or fragment (`?...`, `#...`), which cannot name the "
            "many objects of a Zarr; give the plain address, credentials by the environment "
            "(docs/storage.md)"
        )
        raise ConfigError(message)
    key = key.rstrip("/")
    if not host or (key and not {"", ".", ".."}.isdisjoint(key.split("/"))):
        message = f"{shown}: expected {kind}://{'HOST' if kind in READ_ONLY else 'BUCKET'}/PATH"
        raise ConfigError(message)
    return f"{kind}://{host}/{key}".rstrip("/")


def _local(path: str) -> str:
    """A local path, or the one that a URI of the scheme `file` means, percent-encoded or not."""
    given = _FILE.match(path)
    if given is None:
        return path
    plain = path[given.end() :]
    is_literal = "%" not in plain or os.path.exists(plain)  # noqa: PTH110  (too long: no)
    return plain if is_literal else os.fsdecode(unquote_to_bytes(plain))


def absolute(path: str) -> str:
    """Return a local path as an absolute one that keeps its links, or a checked address.

    Raises
    ------
    ConfigError
        If it is an address that cannot be used.
    """
    path = normal(path)
    return path if is_remote(path) else os.path.abspath(path)  # noqa: PTH100  (keeps links)


def parent(path: str) -> str:
    """Return what holds a path; a bucket, a host or `/` is its own parent.

    Examples
    --------
    >>> parent("s3://bucket/a.zarr"), parent("s3://bucket"), parent("/data/a.zarr")
    ('s3://bucket', 's3://bucket', '/data')
    """
    if not is_remote(path):
        return os.path.dirname(path) or "."  # noqa: PTH120  (text, not a file)
    kind, _, rest = path.partition("://")
    above = rest.rpartition("/")[0]
    return f"{kind}://{above or rest}"


def relative_path(path: str, start: str) -> str:
    """Return the way from a place to a path; the whole path where no relative one leads there.

    Parameters
    ----------
    path, start : str
        Local paths, whose links are followed, or addresses.

    Examples
    --------
    >>> relative_path("s3://b/a.zarr", "s3://b/out/a.n.zarr")
    '../../a.zarr'
    >>> relative_path("s3://b/a.zarr", "/out/a.n.zarr")
    's3://b/a.zarr'
    """
    if is_remote(path):
        host, own = (one.split("/", 3)[:3] for one in (path, start))
        return os.path.relpath(path, start) if host == own else path
    path = absolute_place(path)
    if is_remote(start):
        return path
    try:
        return os.path.relpath(path, absolute_place(start))
    except ValueError:  # another drive
        return path


def joined(start: str, way: str) -> str:
    """Return the place to which `relative_path` leads from a start.

    Examples
    --------
    >>> joined("s3://b/out/a.n.zarr", "../../a.zarr"), joined("/out/a.n.zarr", "s3://b/a.zarr")
    ('s3://b/a.zarr', 's3://b/a.zarr')
    """
    if is_remote(way) or way.startswith("/"):
        return way
    if not is_remote(start):
        return os.path.normpath(f"{absolute_place(start)}/{way}")
    kind, _, rest = start.partition("://")
    return f"{kind}:/{os.path.normpath(f'/{rest}/{way}')}"


def absolute_place(path: str) -> str:
    """Return a local path without links, or an address as it is."""
    return path if is_remote(path) else os.path.realpath(path)


def scrub(text: str) -> str:
    """Return a text without the credentials and signed queries of the addresses in it.

    Examples
    --------
    >>> scrub("GET https://me:secret@host/a/0?X-Amz-Signature=1f2e: 403")
    'GET https://host/a/0 403'
    """
    text = re.sub(r"(\w+://)[^\s/@]*@", r"\1", text)
    return re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\")]*", r"\1", text)


def image_stem(path: str) -> str:
    """Return the name of an image without its `.ome.zarr` or `.zarr`, zipped or not.

    Examples
    --------
    >>> image_stem("a/b/embryo.ome.zarr/"), image_stem("embryo.ozx"), image_stem("e.ome.zarr.zip")
    ('embryo', 'embryo', 'e')
    """
    name = _without_zip(PurePosixPath(path.rstrip("/")).name)
    for suffix in (".ome.zarr", ".zarr"):
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


def unzipped_name(name: str) -> str | None:
    """Return the name that a zipped OME-Zarr has as a directory, None if its name says none.

    Examples
    --------
    >>> unzipped_name("e.ozx"), unzipped_name("e.ome.zarr.zip"), unzipped_name("photos.zip")
    ('e.ome.zarr', 'e.ome.zarr', None)
    """
    inner = _without_zip(name)
    if inner == name:
        return None
    if inner.endswith(".zarr"):
        return inner
    return f"{inner}.ome.zarr" if name.lower().endswith(".ozx") else None


def _without_zip(name: str) -> str:
    """A name without the suffix of a zip file."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in ZIPPED else name
