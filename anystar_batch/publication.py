"""How a run meets what is there already: who may write, what is published, what was cut short.

A finished run leaves table and record in the work directory, publishes the label, and only then
moves the two to their places. A run that finds a record waiting beside a published label of its own
fingerprint was cut short in between, and finishes that.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from anystar_batch import measured, tasks
from anystar_batch.archive.fence import Fence
from anystar_batch.archive.labels import KEY, discard, published_attributes
from anystar_batch.archive.ledger import Ledger
from anystar_batch.archive.lock import hold
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.store import check_writable, output_error
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import (
    AnyStarBatchError,
    ConfigError,
    LedgerMismatchError,
    LostLockError,
    OutputError,
    OutputExistsError,
)
from anystar_batch.places import Places, move_atomic

PENDING_RECORD = "run.json"
"""The run record in the work directory, until the label is published."""

PENDING_PROBE = "probe.svg"
"""The picture of the probe in the work directory, until the label is published."""

PENDING_TABLE = "table.csv"
"""The finished table in the work directory, until the label is published."""


def token(digest: str) -> str:
    """Return what tells the hidden label of this result from that of another."""
    return digest[:12]


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
        If the table would take the place of a directory.
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
        If the table would take the place of a directory.
    """
    _check_table(places)
    for folder in places.folders:
        place = Path(folder).absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            message = (
                f"{folder}: cannot be written (no permission, or {place} is no directory); give "
                "--output DIR to keep results elsewhere"
            )
            raise OutputError(message)


def _check_table(places: Places) -> None:
    if Path(places.stats).is_dir():
        message = f"--stats: {places.stats} is a directory; expected the name of a CSV file"
        raise ConfigError(message)


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
            Path(lock).parent.mkdir(parents=True, exist_ok=True)
            fences.append(stack.enter_context(hold(lock)))
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


def make_folders(places: Places) -> None:
    """Make the directories that work needs."""
    for name in (tasks.CANDIDATES, tasks.SURVIVORS, measured.PARTIALS):
        (Path(places.work) / name).mkdir(parents=True, exist_ok=True)
    Path(places.stats).parent.mkdir(parents=True, exist_ok=True)


def throw_away(places: Places, digest: str, fence: Fence) -> None:
    """Delete the work directory and the hidden label of the unfinished run, whatever its options.

    Parameters
    ----------
    places : Places
    digest : str
        Fingerprint of the run that begins.
    fence : Fence
        Asked first: what is here may be another run's.
    """
    fence.check()
    for old in {Ledger.fingerprint_in(Path(places.work)), digest} - {None}:
        discard(places.label, token(str(old)))
    if Path(places.work).exists():
        shutil.rmtree(places.work)


def fingerprints(places: Places, *, with_label: bool) -> set[str]:
    """Return the fingerprints of what is here: of the work directory, and of a published label.

    Parameters
    ----------
    places : Places
    with_label : bool
        Whether the label counts.
    """
    found = {Ledger.fingerprint_in(Path(places.work))}
    if with_label:
        found.add(_ours(published_attributes(places.label)).get("fingerprint"))
    return {str(value) for value in found if value is not None}


def _ours(attributes: JSON | None) -> JSON:
    """What a published label says of its making, if it is one of ours; else nothing."""
    found = (attributes or {}).get(KEY)
    return found if isinstance(found, dict) else {}


def published(config: SegmentConfig, places: Places, digest: str) -> JSON | None:
    """Return the provenance of this very result if it is published; None if it must be made.

    Parameters
    ----------
    config : SegmentConfig
    places : Places
    digest : str
        Fingerprint of the run.

    Raises
    ------
    OutputExistsError
        If another result has the place and may not be overwritten.
    """
    attributes = published_attributes(places.label)
    if attributes is None:
        if Path(places.stats).exists() and not config.run.overwrite:
            message = (
                f"{places.stats} exists already and belongs to no label here; give another "
                "--stats, or --overwrite to replace it"
            )
            raise OutputExistsError(message)
        return None
    ours = _ours(attributes)
    is_same = ours.get("fingerprint") == digest
    if config.run.overwrite:
        return ours if is_same and is_cut_short(places) else None
    if not is_same:
        what = "by another model, image or options" if ours else "by another program"
        message = (
            f"{places.label.path} exists already, made {what}; give another --label, or "
            "--overwrite to replace it once the new one is complete"
        )
        raise OutputExistsError(message)
    return ours


def is_cut_short(places: Places) -> bool:
    """Return whether a finished run left its table and record in the work directory."""
    return (Path(places.work) / PENDING_RECORD).exists()


def is_spent(places: Places, digest: str) -> bool:
    """Return whether the work directory is what a run left that has published this very result."""
    ours = _ours(published_attributes(places.label))
    return (
        ours.get("fingerprint") == digest == Ledger.fingerprint_in(Path(places.work))
        and not Path(places.label.hidden_path(token(digest))).exists()
    )


def finish(config: SegmentConfig, places: Places, fence: Fence) -> None:
    """Bring table and record to their places after the label is published; tidy up."""
    fence.check()
    work = Path(places.work)
    record = work / PENDING_RECORD
    if record.exists() and json.loads(record.read_text())["probe"] is None:
        # A picture that is there belongs to the label that was replaced.
        Path(places.probe).unlink(missing_ok=True)
    moves = (
        (PENDING_PROBE, places.probe),
        (PENDING_TABLE, places.stats),
        (PENDING_RECORD, places.record),
    )
    for pending, final in moves:
        if (work / pending).exists():
            move_atomic(work / pending, Path(final))
    fence.check()
    if not config.run.keep_work:
        shutil.rmtree(work, ignore_errors=True)
