"""How a run meets what is there already: what is published, what was cut short.

A finished run leaves table and record where they wait (`Places.pending`: the work directory, or
beside the results in an object store), publishes the label, and only then moves the two to their
places. A run that finds a record waiting beside a published label of its own
fingerprint was cut short in between, and finishes that.
"""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from anystar_batch.address import absolute_place, is_remote, parent
from anystar_batch.archive.label_place import KEY
from anystar_batch.archive.labels import discard, published_attributes, source_of
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.nodes import read_object
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import (
    copy,
    exists,
    make_folder,
    move_atomic,
    names,
    remove,
    remove_tree,
)
from anystar_batch.archive.tables import write_table
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import OutputExistsError
from anystar_batch.places import Places, courses_path
from anystar_batch.stages import workdir
from anystar_batch.stages.ledger import Ledger

PENDING_RECORD = "run.json"
"""The run record in the work directory, until the label is published."""

PENDING_CONFIG = "run.toml"
"""The options of the run in the work directory, until the label is published."""

PENDING_PROBE = "probe.svg"
"""The picture of the probe in the work directory, until the label is published."""

PENDING_TABLE = "table"
"""The finished table in the work directory, until the label is published, without its suffix."""


def token(digest: str) -> str:
    """Return what tells the hidden label of this result from that of another."""
    return digest[:12]


def seen_by_workers(image: str, places: Places) -> tuple[str, ...]:
    """Return the directories and addresses that every worker must see."""
    store = (places.label.parent,) if is_remote(places.label.parent) else ()
    return (image, places.work, *store)


def make_folders(places: Places) -> None:
    """Make the directories that work needs."""
    for name in (workdir.CANDIDATES, workdir.SURVIVORS, workdir.PARTIALS):
        (Path(places.work) / name).mkdir(parents=True, exist_ok=True)
    make_folder(parent(places.stats))


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
    remove_tree(places.work)
    if places.pending != places.work:
        remove_tree(places.pending)


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
        if exists(places.stats) and not config.run.overwrite:
            message = (
                f"{places.stats} exists already and belongs to no label here; give another "
                "--stats, or --overwrite to replace it"
            )
            raise OutputExistsError(message)
        return None
    ours = _ours(attributes)
    of = source_of(places.label, attributes)
    if ours and of is not None and of != absolute_place(places.label.image):
        if config.run.overwrite:
            return None
        message = (
            f"{places.label.path} exists already, made of another image of this name: {of}; give "
            "another --output, or --overwrite to replace it (if that image is this one, moved, too)"
        )
        raise OutputExistsError(message)
    is_same = ours.get("fingerprint") == digest
    if config.run.overwrite:
        return ours if is_same and is_cut_short(places, digest) else None
    if not is_same:
        what = "by another model, image or options" if ours else "by another program"
        message = (
            f"{places.label.path} exists already, made {what}; give another --label, or "
            "--overwrite to replace it once the new one is complete"
        )
        raise OutputExistsError(message)
    return ours


def put_table(config: SegmentConfig, places: Places) -> None:
    """Put the table into the image, if that is wanted and the table is there."""
    if config.run.table and exists(places.stats):
        write_table(config.image, config.label, places.stats, config.label)


def pending_table(places: Places) -> Path:
    """Return where the finished table waits until the label is published."""
    return Path(places.work) / f"{PENDING_TABLE}{PurePosixPath(places.stats).suffix}"


def is_cut_short(places: Places, digest: str) -> bool:
    """Return whether a finished run left its table and record waiting.

    Parameters
    ----------
    places : Places
    digest : str
        Fingerprint of the run whose label is published: the record of another one waits for
        another label.
    """
    record = read_object(f"{places.pending}/{PENDING_RECORD}")
    return record is not None and record["summary"]["fingerprint"] == digest


def hand_over(places: Places, fence: Fence) -> None:
    """Bring what waits for the label from the work directory to where it waits; the record last.

    Parameters
    ----------
    places : Places
    fence : Fence
        Asked first.
    """
    fence.check()
    if places.pending == places.work:
        return
    remove_tree(places.pending)
    found = [n for n in names(places.work) if n.startswith(f"{PENDING_TABLE}.")]
    for name in (*found, PENDING_PROBE, PENDING_CONFIG, PENDING_RECORD):
        if exists(f"{places.work}/{name}"):
            copy(f"{places.work}/{name}", f"{places.pending}/{name}")


def is_spent(places: Places, digest: str) -> bool:
    """Return whether the work directory is what a run left that has published this very result."""
    ours = _ours(published_attributes(places.label))
    return ours.get("fingerprint") == digest == Ledger.fingerprint_in(
        Path(places.work)
    ) and not exists(places.label.hidden_path(token(digest)))


def finish(config: SegmentConfig, places: Places, fence: Fence) -> None:
    """Bring table and record to their places after the label is published; tidy up."""
    fence.check()
    waiting = places.pending
    record = read_object(f"{waiting}/{PENDING_RECORD}")
    if record is not None:
        # A page that is there shows the label that was replaced; its own is made of what is here.
        remove(places.report)
    if record is not None and record["probe"] is None:
        # A picture that is there belongs to the label that was replaced.
        remove(places.probe)
    table = f"{waiting}/{pending_table(places).name}"
    courses = courses_path(places.stats)
    if record is not None and not exists(courses_path(table)):
        # What changes over time in a label that was replaced.
        remove(courses)
    moves = [
        (f"{waiting}/{PENDING_PROBE}", places.probe),
        (f"{waiting}/{PENDING_CONFIG}", places.config),
        (table, places.stats),
        (courses_path(table), courses),
    ]
    if not exists(table):
        # Cut short under another name of the table: it keeps what it is.
        stem = places.stats.removesuffix(PurePosixPath(places.stats).suffix)
        others = (n for n in names(waiting) if n.startswith(f"{PENDING_TABLE}."))
        moves += [
            (f"{waiting}/{n}", f"{stem}{PurePosixPath(n).suffix}")
            for n in others
            if "courses" not in n
        ]
    for pending, final in moves:
        if exists(pending):
            move_atomic(pending, final)
    put_table(config, places)
    if record is not None:
        move_atomic(f"{waiting}/{PENDING_RECORD}", places.record)
    fence.check()
    if waiting != places.work:
        remove_tree(waiting)
    if not config.run.keep_work:
        shutil.rmtree(places.work, ignore_errors=True)
