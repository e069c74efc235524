"""fsspec's file systems, opened once a process by what an address begins with.

Everything is opened from the address alone, with the credentials of the process's environment, so
nothing that is open is ever pickled or forked. Listings are not cached: another process may write.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from anystar_batch.address import scheme
from anystar_batch.errors import ConfigError

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
"""How long a web server may take to answer, and to send the next bytes."""

_LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}


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


def _client_options(conf: dict[str, Any]) -> dict[str, Any]:
    """Options of the web client: patience, `.netrc` and proxies, then what the user has set."""
    import aiohttp  # noqa: PLC0415

    patience = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
    )
    options: dict[str, Any] = {"trust_env": True, "timeout": patience}
    for kind in ("http", "https"):
        options |= conf.get(kind, {}).get("client_kwargs", {})
    return options


def forget() -> None:
    """Open every file system anew at its next use, with the environment as it is then."""
    _opened.cache_clear()
