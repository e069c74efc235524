"""What the libraries for stores and web servers raise, as `OSError`: one line, without secrets."""

from __future__ import annotations

import errno

from anystar_batch.address import scrub
from anystar_batch.errors import shorten

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


class CredentialsError(PermissionError):
    """There are no credentials, or they are incomplete."""


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
    statuses = [getattr(error, "status", None), answer.get("HTTPStatusCode")]
    if not isinstance(statuses[0], int):
        statuses.append(getattr(error, "code", None))
    return next((status for status in statuses if isinstance(status, int)), None)


def is_passing(error: OSError) -> bool:
    """Return whether the same request may succeed a little later."""
    return error.errno == errno.EAGAIN
