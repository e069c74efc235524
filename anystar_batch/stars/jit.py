"""The one way kernels are compiled: numba, cached on disk, without any liberty about floats.

No `fastmath` and no contraction into fused multiply-adds: a tie must fall on the same side in every
block, on every machine and in every build. `cache=True` everywhere, so a second process compiles
nothing. Kernels release the GIL, so blocks may run on threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])


def _sources() -> str:
    """Return a hash of every module of this room."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = _sources()
"""Stands in for the code of all kernels."""


def _compiled(function: Function, **options: bool) -> Function:
    """Return a numba dispatcher whose cache is fresh only while no kernel has changed.

    Numba compares the file of the kernel alone; a kernel compiled with another file's old callee
    would be taken for good.
    """
    njit: Any = numba.njit  # its annotations leave out `_nrt`
    dispatcher = njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    stored = dispatcher._cache._cache_file  # noqa: SLF001  (numba has no public way)
    stored._source_stamp = (stored._source_stamp, SOURCES)  # noqa: SLF001
    return cast("Function", dispatcher)


def kernel(function: Function) -> Function:
    """Return `function` compiled on its first call, or loaded from numba's cache.

    Parameters
    ----------
    function : callable
        Plain loops over NumPy arrays.

    Returns
    -------
    callable
        A numba dispatcher; `stats.cache_hits` tells what came from the cache.
    """
    return _compiled(function)


def leaf(function: Function) -> Function:
    """Return `function` compiled without reference counts: it must not create an array.

    Taking an array out of a tuple counts a reference, with a lock on the bus; in loops over rows
    that took most of the time.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        As from `kernel`.
    """
    return _compiled(function, _nrt=False)


def inlined(function: Function) -> Function:
    """Return `function` as from `leaf`, compiled into its callers: for what runs once a row.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        As from `kernel`.
    """
    return _compiled(function, _nrt=False, forceinline=True)


def ready(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Return the array as kernels want it: this dtype, C order, writeable.

    A read-only or strided array would be another type to numba, and compile everything anew.

    Parameters
    ----------
    array : any shape
    dtype : NumPy scalar type

    Returns
    -------
    same shape
        The same memory where nothing had to change.
    """
    return np.require(array, dtype, ["C", "W"])


@inlined
def popcount(word: np.uint64) -> np.uint64:
    """Count the set bits of a uint64; LLVM knows this form and emits one instruction."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)
