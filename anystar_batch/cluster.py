"""What a local Dask cluster does to the process that opens it, and how it is undone."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def own_environment() -> Iterator[None]:
    """Undo what Dask sets for its workers in this process too, and leaves there."""
    import dask  # noqa: PLC0415

    names = [
        *dask.config.get("distributed.nanny.pre-spawn-environ", {}),
        *dask.config.get("distributed.nanny.environ", {}),
        "PYTHONHASHSEED",
        "__DASK_PARENT_PID",
    ]
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Dask logs off the terminal, and what closing a cluster leaves open unmentioned."""
    dasks = logging.getLogger("distributed")
    before = dasks.level
    with warnings.catch_warnings():
        # Sockets of a cluster that closes are collected late; nothing of ours is open.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            dasks.setLevel(before)
