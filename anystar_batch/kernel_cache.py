"""The one door to numba: kernels are compiled once, kept on disk, and never taken for others.

Numba keeps what it compiles beside the source, or in the user's cache. Where neither can be written
(a package of root's, an account without a home) it goes to a temporary place of the user's own;
where there is none, every process compiles for itself. What cannot be read or written there later,
on a full disk for one, is compiled as well: no run ends for its cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., Any])

_UNUSABLE = (OSError, EOFError, ValueError, pickle.PickleError)
"""What a cache may answer that was written by others, on a full disk, or in a crash."""

_news: list[str] = []


def compiled(**options: bool | str) -> Callable[[Function], Function]:
    """Compile a function on its first call, or load it from numba's cache; it releases the GIL.

    Numba compares the file of the kernel alone; a kernel compiled with another file's old callee
    would be taken for good. Here it is fresh only while no file of its room has changed.

    Parameters
    ----------
    **options
        More of `numba.njit`.

    Returns
    -------
    decorator
        Of plain loops over NumPy arrays, and what the same room or `geometry` defines. It returns a
        numba dispatcher; `stats.cache_hits` tells what came from the cache.
    """

    def decorated(function: Function) -> Function:
        njit: Any = numba.njit  # its annotations leave out `_nrt`
        dispatcher = njit(nogil=True, **options)(function)
        if not hasattr(dispatcher, "enable_caching"):  # NUMBA_DISABLE_JIT: Python's own function
            return function
        try:
            dispatcher.enable_caching()
        except RuntimeError:  # no place that can be written
            if not _go_elsewhere():
                return cast("Function", dispatcher)
            dispatcher.enable_caching()
        cache = dispatcher._cache  # noqa: SLF001  (numba has no public way)
        stored = cache._cache_file  # noqa: SLF001
        sources = sources_of(str(Path(function.__code__.co_filename).parent))
        stored._source_stamp = (stored._source_stamp, sources)  # noqa: SLF001
        cache.load_overload = _forgiving(cache.load_overload)
        cache.save_overload = _forgiving(cache.save_overload)
        return cast("Function", dispatcher)

    return decorated


@functools.cache
def sources_of(room: str) -> str:
    """Return a hash of every module of a room and of those beside it: the code of its kernels.

    Parameters
    ----------
    room : str
        Its directory.
    """
    digest = hashlib.sha256()
    for path in [*sorted(Path(room).glob("*.py")), Path(__file__).with_name("geometry.py")]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def kept_in() -> Path | None:
    """Return the directory in which kernels of the package itself are kept; None where none are.

    What else is made once and takes long to make may lie there: whoever can write it decides what
    this package runs.
    """
    kernel: Any = compiled()(_nothing)
    path = getattr(getattr(kernel, "_cache", None), "cache_path", None)
    return None if path is None else Path(path)


def _nothing() -> int:
    """A kernel, for numba to say where it would keep it."""
    return 0


def news() -> str | None:
    """Return, once, that kernels are not kept where they should be and why; else None."""
    return _news.pop() if _news else None


def _forgiving(function: Callable[..., Any]) -> Callable[..., Any]:
    """A step of a cache that does nothing where the cache cannot be used."""

    def step(*arguments: object) -> Any:  # noqa: ANN401
        try:
            return function(*arguments)
        except _UNUSABLE:
            return None

    return step


@functools.cache
def _go_elsewhere() -> bool:
    """Have numba, also that of worker processes, keep kernels in a temporary place, if there is."""
    folder = _own_temporary_folder()
    why = "neither the package's folder nor the user's cache can be written"
    cure = "NUMBA_CACHE_DIR names a place that lasts"
    if folder is None:
        _news.append(f"{why}, nor is there a temporary place: every process compiles; {cure}")
        return False
    _news.append(f"{why}: compiled kernels are kept in {folder}; {cure}")
    os.environ["NUMBA_CACHE_DIR"] = folder
    config.CACHE_DIR = folder  # type: ignore[attr-defined]
    return True


def _own_temporary_folder() -> str | None:
    """Return a temporary directory that nobody else can write: what lies there is run."""
    try:
        shared = Path(tempfile.gettempdir())
        folder = shared / f"anystar-batch-kernels-{os.getuid()}"
        if not _is_own(folder):
            folder = Path(tempfile.mkdtemp(prefix="anystar-batch-kernels-"))
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return str(folder)


def _is_own(folder: Path) -> bool:
    """Make a directory, if need be; return whether it is ours, and ours alone."""
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    status = folder.lstat()
    is_closed = stat.S_IMODE(status.st_mode) & 0o077 == 0
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and is_closed
