"""The places of a run, before it writes and while it does: may they be written, who holds them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from anystar_batch.address import is_remote, parent
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import PARTIAL, check_store, check_writable, output_error
from anystar_batch.archive.storage.lease import hold
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import (
    AnyStarBatchError,
    ConfigError,
    LedgerMismatchError,
    LostLockError,
    OutputError,
)
from anystar_batch.measure.files import check_kind
from anystar_batch.places import Places, courses_path


@contextlib.contextmanager
def named_errors(places: Places) -> Iterator[None]:
    """Turn what the system says of files of the run into an error that names the cure.

    Raises
    ------
    LedgerMismatchError
        If a file of the work directory is missing.
    OutputError
        If a file cannot be written.
    """
    try:
        yield
    except AnyStarBatchError:
        raise
    except OSError as error:
        if error.errno == errno.ENOENT:
            message = (
                f"{error.filename} is missing: the work directory {places.work} is damaged; give "
                "--restart"
            )
            raise LedgerMismatchError(message) from error
        raise output_error(error.filename or places.work, error) from error


def check_places(places: Places) -> None:
    """Check before work that everything can be written, by writing.

    Raises
    ------
    OutputError
        If something cannot.
    ConfigError
        If the table would take the place of a directory, or what writes it is not installed.
    """
    _check_table(places)
    for folder in places.folders:
        check_writable(folder)


def check_permissions(places: Places) -> None:
    """Check the same as `check_places`, without writing: for a dry run.

    Raises
    ------
    OutputError
        If something cannot be written.
    ConfigError
        If the table would take the place of a directory, or what writes it is not installed.
    """
    _check_table(places)
    for folder in places.folders:
        if is_remote(folder):
            check_store(folder)
            continue
        place = files.nearest(folder)
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            message = (
                f"{folder}: cannot be written (no permission, or {place} is no directory); give "
                "--output DIR to keep results elsewhere"
            )
            raise OutputError(message)


def _check_table(places: Places) -> None:
    if not is_remote(places.stats) and Path(places.stats).is_dir():
        message = f"--stats: {places.stats} is a directory; expected the name of a file"
        raise ConfigError(message)
    check_kind(places.stats)


@contextlib.contextmanager
def hold_places(places: Places) -> Iterator[Fence]:
    """Hold the run's locks: of its results, and of its work directory where that lies elsewhere.

    Yields
    ------
    Fence
        To be asked before writing.

    Raises
    ------
    LockedError
        If another run holds one of them.
    LostLockError
        Instead of any other error, if one was lost meanwhile: what fails then fails for that.
    """
    with contextlib.ExitStack() as stack:
        fences = []
        for lock in places.locks:
            files.make_folder(parent(lock))
            fences.append(stack.enter_context(hold(lock)))
        _remove_torn(places)
        fence = Fence(tuple(mark for one in fences for mark in one.marks))
        try:
            yield fence
        except LostLockError:
            raise
        except Exception as error:
            try:
                fence.check()
            except LostLockError as lost:
                raise lost from error
            raise


def _remove_torn(places: Places) -> None:
    """Delete what a killed run was writing beside the results: who holds the lock writes alone."""
    targets = [places.stats, courses_path(places.stats), places.report]
    targets += [places.record, places.config, places.probe]
    for folder in {parent(target) for target in targets if not is_remote(target)}:
        heads = tuple(f".{target.rpartition('/')[2]}." for target in targets)
        for name in files.names(folder):
            if name.startswith(heads) and name.endswith(PARTIAL):
                files.remove(f"{folder}/{name}")


def check_table_place(config: SegmentConfig) -> None:
    """Check that there is an image that may hold the table.

    Raises
    ------
    ConfigError
        If results do not go into the image.
    """
    if config.run.table and config.output is not None:
        message = "--table puts the table into the image, --output leaves the image alone; drop one"
        raise ConfigError(message)
