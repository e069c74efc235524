"""Publish: take up what is there already, put results in their places, judge and show them.

A finished run leaves table and record where they wait (`Outputs.pending`: the work directory, or
beside the results in an object store), publishes the label, and only then moves the two to their
places. A run that finds a record waiting beside a published label of its own
fingerprint was cut short in between, and finishes that.

The page comes last. Nothing here touches the label or its table, and nothing that goes wrong here
fails a run: it is a warning. A page is whole or absent; a run that finds its result published
without one writes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from pathlib import Path, PurePosixPath

from anystar_batch.address import absolute_place, is_remote, parent
from anystar_batch.archive.label_place import KEY
from anystar_batch.archive.labels import discard, published_attributes, recover, source_of
from anystar_batch.archive.ngff import JSON, ImageSource
from anystar_batch.archive.nodes import attributes_file, read_object
from anystar_batch.archive.storage.atomic_write import (
    move_atomic,
    sync_directory,
    write_bytes_atomic,
    write_json_atomic,
)
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import (
    at_hand,
    copy,
    exists,
    make_folder,
    names,
    read_bytes,
    remove,
    remove_tree,
)
from anystar_batch.archive.tables import write_table
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import ImageError, OutputExistsError
from anystar_batch.events import Listener, Note, StageStarted, timed_stage
from anystar_batch.measure.table_files import courses_path
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.pipeline.part_ledgers import check_idle, part_fingerprints
from anystar_batch.report.findings import gather
from anystar_batch.report.page import page
from anystar_batch.stages import workdir
from anystar_batch.stages.ledger import Ledger, differences

PENDING_RECORD = "run.json"
"""The run record in the work directory, until the label is published."""

PENDING_CONFIG = "run.toml"
"""The options of the run in the work directory, until the label is published."""

PENDING_PROBE = "probe.svg"
"""The picture of the probe in the work directory, until the label is published."""

PENDING_TABLE = "table"
"""The finished table in the work directory, until the label is published, without its suffix."""

logger = logging.getLogger(__name__)


def seen_by_workers(image: ImageSource, outputs: Outputs) -> tuple[str, ...]:
    """Return the directories and addresses that every worker must see (`files.is_visible`)."""
    # A store need not list what may be read.
    remote = is_remote(image.path)
    path = attributes_file(image.path, image.zarr_format) if remote else image.path
    store = (outputs.label.parent,) if is_remote(outputs.label.parent) else ()
    return (path, outputs.work, *store)


def make_folders(outputs: Outputs) -> None:
    """Make the directories that work needs."""
    for name in workdir.FOLDERS:
        (Path(outputs.work) / name).mkdir(parents=True, exist_ok=True)
    make_folder(parent(outputs.stats))


def throw_away(outputs: Outputs, digest: str, fence: Fence) -> None:
    """Delete the work directory and the hidden label of the unfinished run, whatever its options.

    Parameters
    ----------
    outputs : Outputs
    digest : str
        Fingerprint of the run that begins.
    fence : Fence
        Asked first: what is here may be another run's.
    """
    fence.check()
    _remove_work(outputs)
    discard(outputs.label, digest)
    if outputs.pending != outputs.work:
        remove_tree(outputs.pending)


def _remove_work(outputs: Outputs) -> None:
    """Delete the work directory, what parts left, and the hidden label that its ledger speaks of.

    It loses its name in one step: deleted piece by piece it would, cut short, be one that nobody
    knows the owner of, or one whose ledger speaks of files that are gone.
    """
    if is_remote(outputs.parts):
        remove_tree(outputs.parts)
    _sweep_work(outputs)
    work, trash = Path(outputs.work), _trash(outputs)
    if not work.is_dir():
        return
    if work.is_symlink() or work.is_mount() or trash.exists():  # by name alone nothing is gained
        _discard_known(outputs, work)
        remove_tree(work)
        return
    work.rename(trash)
    sync_directory(work.parent)
    _sweep_work(outputs)


def mend(outputs: Outputs, fence: Fence) -> None:
    """Finish or undo what a killed command left half done; raise `LockedError` if parts work."""
    check_idle(outputs)
    recover(outputs.label, fence.check)
    _sweep_work(outputs)


def _sweep_work(outputs: Outputs) -> None:
    """Finish a deletion of the work directory that was cut short; without one, do nothing."""
    trash = _trash(outputs)
    if trash.exists():
        _discard_known(outputs, trash)
        # NFS keeps what a process still maps, under names of its own, until that ends.
        shutil.rmtree(trash, ignore_errors=True)


def _discard_known(outputs: Outputs, work: Path) -> None:
    """Delete the hidden label of which a ledger knows, before the ledger."""
    digest = Ledger.fingerprint_in(work)
    if digest is not None:
        discard(outputs.label, digest)


def _trash(outputs: Outputs) -> Path:
    """What a work directory is called while it is deleted."""
    work = Path(outputs.work)
    return work.with_name(f".{work.name}.trash")


def fingerprints(outputs: Outputs, *, with_label: bool) -> set[str]:
    """Return the fingerprints of what is here: of the work directory, and of a published label.

    Parameters
    ----------
    outputs : Outputs
    with_label : bool
        Whether the label counts.
    """
    digests = {Ledger.fingerprint_in(Path(outputs.work)), *part_fingerprints(outputs)}
    if with_label:
        digests.add(_ours(published_attributes(outputs.label)).get("fingerprint"))
    return {str(value) for value in digests if value is not None}


def _ours(attributes: JSON | None) -> JSON:
    """What a published label says of its making, if it is one of ours; else nothing."""
    provenance = (attributes or {}).get(KEY)
    return provenance if isinstance(provenance, dict) else {}


def published(
    config: SegmentConfig, outputs: Outputs, digest: str, parts: JSON | None = None
) -> JSON | None:
    """Return the provenance of this very result if it is published; None if it must be made.

    Parameters
    ----------
    config : SegmentConfig
    outputs : Outputs
    digest : str
        Fingerprint of the run.
    parts : dict, optional
        What it was made of, to name what differs.

    Raises
    ------
    OutputExistsError
        If another result has the place and may not be overwritten.
    """
    attributes = published_attributes(outputs.label)
    if attributes is None:
        if exists(outputs.stats) and not config.run.overwrite:
            message = (
                f"{outputs.stats} exists already and belongs to no label here; give another "
                "--stats, or --overwrite to replace it"
            )
            raise OutputExistsError(message)
        return None
    ours = _ours(attributes)
    of = source_of(outputs.label, attributes)
    if ours and of is not None and of != absolute_place(outputs.label.image):
        if config.run.overwrite:
            return None
        message = (
            f"{outputs.label.path} exists already, made of another image of this name: {of}; give "
            "another --output, or --overwrite to replace it (if that image is this one, moved, too)"
        )
        raise OutputExistsError(message)
    is_same = ours.get("fingerprint") == digest
    if config.run.overwrite:
        return ours if is_same and is_cut_short(outputs, digest) else None
    if not is_same:
        options = {k: v for k, v in (parts or {}).items() if k != "image"}
        named = differences(ours.get("options", options), options) if options else ""
        what = "by another model, image or options" if ours else "by another program"
        what += f" ({named})" if named and ours else ""
        message = (
            f"{outputs.label.path} exists already, made {what}; give another --label, or "
            "--overwrite to replace it once the new one is complete"
        )
        raise OutputExistsError(message)
    return ours


def put_table(config: SegmentConfig, outputs: Outputs) -> None:
    """Put the table into the image, if that is wanted and the table is there."""
    if config.run.table and exists(outputs.stats):
        write_table(config.image, config.label, outputs.stats, config.label)


def pending_table(outputs: Outputs) -> Path:
    """Return where the finished table waits until the label is published."""
    return Path(outputs.work) / f"{PENDING_TABLE}{PurePosixPath(outputs.stats).suffix}"


def is_cut_short(outputs: Outputs, digest: str) -> bool:
    """Return whether a finished run left its table and record waiting.

    Parameters
    ----------
    outputs : Outputs
    digest : str
        Fingerprint of the run whose label is published: the record of another one waits for
        another label.
    """
    record = read_object(f"{outputs.pending}/{PENDING_RECORD}")
    return record is not None and record["summary"]["fingerprint"] == digest


def hand_over(outputs: Outputs, fence: Fence) -> None:
    """Bring what waits for the label from the work directory to where it waits; the record last.

    Parameters
    ----------
    outputs : Outputs
    fence : Fence
        Asked first.
    """
    fence.check()
    if outputs.pending == outputs.work:
        return
    remove_tree(outputs.pending)
    tables = [n for n in names(outputs.work) if n.startswith(f"{PENDING_TABLE}.")]
    for name in (*tables, PENDING_PROBE, PENDING_CONFIG, PENDING_RECORD):
        if exists(f"{outputs.work}/{name}"):
            copy(f"{outputs.work}/{name}", f"{outputs.pending}/{name}")


def is_spent(outputs: Outputs, digest: str) -> bool:
    """Return whether the work directory is what a run left that has published this very result."""
    ours = _ours(published_attributes(outputs.label))
    return ours.get("fingerprint") == digest == Ledger.fingerprint_in(
        Path(outputs.work)
    ) and not exists(outputs.label.hidden_path(digest))


def has_left(outputs: Outputs, digest: str) -> bool:
    """Return whether a run that has published this very result, or parts of it, left anything."""
    return is_spent(outputs, digest) or digest in part_fingerprints(outputs)


def finish(config: SegmentConfig, outputs: Outputs, fence: Fence) -> None:
    """Bring table and record to their places after the label is published; tidy up."""
    fence.check()
    waiting = outputs.pending
    record = read_object(f"{waiting}/{PENDING_RECORD}")
    if record is not None:
        # A page that is there shows the label that was replaced; its own is made of what is here.
        remove(outputs.report)
    if record is not None and record["probe"] is None:
        # A picture that is there belongs to the label that was replaced.
        remove(outputs.probe)
    table, courses = f"{waiting}/{pending_table(outputs).name}", courses_path(outputs.stats)
    if record is not None and not exists(courses_path(table)):
        # What changes over time in a label that was replaced.
        remove(courses)
    moves = [
        (f"{waiting}/{PENDING_PROBE}", outputs.probe),
        (f"{waiting}/{PENDING_CONFIG}", outputs.config),
        (table, outputs.stats),
        (courses_path(table), courses),
    ]
    if not exists(table):
        # Cut short under another name of the table: it keeps what it is.
        stem = outputs.stats.removesuffix(PurePosixPath(outputs.stats).suffix)
        others = (n for n in names(waiting) if n.startswith(f"{PENDING_TABLE}."))
        moves += [
            (f"{waiting}/{n}", f"{stem}{PurePosixPath(n).suffix}")
            for n in others
            if "courses" not in n
        ]
    for pending, final in moves:
        if exists(pending):
            move_atomic(pending, final)
    put_table(config, outputs)
    if record is not None:
        move_atomic(f"{waiting}/{PENDING_RECORD}", outputs.record)
    fence.check()
    if waiting != outputs.work:
        remove_tree(waiting)
    if not config.run.keep_work:
        with contextlib.suppress(OSError):  # the result is whole; the next command tidies up
            _remove_work(outputs)


def is_missing(config: SegmentConfig, outputs: Outputs) -> bool:
    """Return whether a published result lacks the page that it should have, and can get it."""
    return (
        config.run.report
        and not exists(outputs.report)
        and exists(outputs.record)
        and exists(outputs.stats)
    )


def write_report(config: SegmentConfig, outputs: Outputs, fence: Fence, on_event: Listener) -> None:
    """Judge a published result; tell of warnings, add them to the run record, write the page.

    Parameters
    ----------
    config : SegmentConfig
        Whether a page is wanted.
    outputs : Outputs
        Where record and table are.
    fence : Fence
        Asked before anything is written.
    on_event : callable
        Told of every warning, also of a page that could not be written.
    """
    with timed_stage(on_event, StageStarted("report", 1)):
        try:
            _write_report(config, outputs, fence, on_event)
        except Exception as error:  # the result is published: nothing may fail it now
            logger.warning("report", exc_info=error)
            text = (
                f"the report could not be made ({type(error).__name__}: {error}); label and table "
                "are published and not affected"
            )
            on_event(Note(text, is_warning=True))


def _write_report(
    config: SegmentConfig, outputs: Outputs, fence: Fence, on_event: Listener
) -> None:
    record = json.loads(read_bytes(outputs.record) or b"")
    with at_hand(outputs.stats) as stats:
        findings = gather(record, stats, review_of(outputs, record["summary"]["fingerprint"]))
    for text in findings.warnings:
        on_event(Note(text, is_warning=True))
    # What an earlier report has judged is judged anew.
    before = (record.get("checks") or {}).get("warnings", [])
    kept = [text for text in record["summary"]["warnings"] if text not in before]
    record["summary"]["warnings"] = [*kept, *findings.warnings]
    record["checks"] = findings.to_json()
    fence.check()
    write_json_atomic(outputs.record, record)
    if config.run.report:
        document = page(findings).encode("utf-8")
        fence.check()
        write_bytes_atomic(outputs.report, document)


def review_of(outputs: Outputs, digest: str) -> JSON | None:
    """Return what a person has said of a label, None if nobody did, or of another one.

    Parameters
    ----------
    outputs : Outputs
    digest : str
        Fingerprint of the label.
    """
    try:
        review = read_object(outputs.review)
    except ImageError:
        return None
    return review if review is not None and review.get("fingerprint") == digest else None
