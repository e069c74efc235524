"""The one way kernels of this room are compiled: without any liberty about floats.

No `fastmath` and no contraction into fused multiply-adds: a tie must fall on the same side in every
block, on every machine and in every build. All are cached (`kernel_cache`), so a second process
compiles nothing. Kernels release the GIL, so blocks may run on threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from anystar_batch.kernel_cache import compiled

Function = TypeVar("Function", bound=Callable[..., Any])


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
    return compiled(error_model="numpy")(function)


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
    return compiled(error_model="numpy", _nrt=False)(function)


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
    return compiled(error_model="numpy", _nrt=False, forceinline=True)(function)


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
