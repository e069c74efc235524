"""How a backend is loaded: in silence, and without what nothing here uses.

TensorFlow, Keras and Dask import whatever of pandas, matplotlib, JAX or xarray they find: two
fifths of the CPU time that loading them takes. In processes that are ours alone, the command's and
its workers', these are hidden meanwhile. Never in a process of someone else's, such as a notebook:
there they would be missed for good by whatever looked for them in vain.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import platform
import sys
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)

OWN = "ANYSTAR_BATCH_OWN_PROCESS"
"""Variable of the environment that says that a process is ours; its children's are, too."""

UNUSED = ("jax", "matplotlib", "pandas", "torch", "xarray")
"""Packages that others import if they can, and that nothing here uses."""


def declare_own() -> None:
    """Say that this process, and those it starts, are ours alone."""
    os.environ[OWN] = "1"
    stable_kernels()


def stable_kernels() -> None:
    """Ask TensorFlow for oneDNN's kernels, unless the environment says something; before it loads.

    Where a processor has no AVX-512, TensorFlow takes Eigen's instead: three times slower for
    convolutions, and with other bits for another number of threads.
    """
    if platform.machine() in {"x86_64", "AMD64"}:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@contextlib.contextmanager
def lean_imports(*needed: str) -> Iterator[None]:
    """Hide what is not used while something large is imported, if this process is ours.

    Parameters
    ----------
    needed : str
        Packages that are used after all.
    """
    hidden = [n for n in UNUSED if n not in needed and n not in sys.modules]
    if not os.environ.get(OWN):
        hidden = []
    nothing: Any = None  # importing what is None fails
    sys.modules |= dict.fromkeys(hidden, nothing)
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, sys) is None:
                del sys.modules[name]


@contextlib.contextmanager
def quiet_imports(backend: str = "tensorflow") -> Iterator[None]:
    """Send what TensorFlow, StarDist and CSBDeep print while loading to the log.

    Keras loads with its own defaults: a `keras.json` of the user's, or of whoever wrote one into
    `/tmp` first, has no say in results, and need not be readable.

    Parameters
    ----------
    backend : {"tensorflow", "jax"}
        What Keras shall use, whatever the environment says.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stable_kernels()
    os.environ["KERAS_BACKEND"] = backend
    home = os.environ.get("KERAS_HOME")
    os.environ["KERAS_HOME"] = f"{os.devnull}/keras"  # nothing is read from there, nor written
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            silent_stderr(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            lean_imports(backend),
        ):
            yield
    finally:
        if home is None:
            os.environ.pop("KERAS_HOME", None)
        else:
            os.environ["KERAS_HOME"] = home
    for line in (out.getvalue() + err.getvalue()).splitlines():
        if line.strip():
            logger.debug("%s", line)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Send what C++ libraries write to the error stream nowhere."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  (by its descriptor)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
