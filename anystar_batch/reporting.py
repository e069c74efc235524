"""The end of a run: judge what is published, say so, and write the page that shows it.

Nothing here touches the label or its table, and nothing that goes wrong here fails a run: it is a
warning. A page is whole or absent; a run that finds its result published without one writes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time as clock
from collections.abc import Iterator
from pathlib import Path

from anystar_batch.address import is_remote
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import write_bytes_atomic, write_json_atomic
from anystar_batch.config import SegmentConfig
from anystar_batch.events import Listener, Note, StageDone, StageStarted
from anystar_batch.places import Places
from anystar_batch.report.findings import gather
from anystar_batch.report.page import page

logger = logging.getLogger(__name__)


def is_missing(config: SegmentConfig, places: Places) -> bool:
    """Return whether a published result lacks the page that it should have, and can get it."""
    return (
        config.run.report
        and not files.exists(places.report)
        and files.exists(places.record)
        and files.exists(places.stats)
    )


def report(config: SegmentConfig, places: Places, fence: Fence, on_event: Listener) -> None:
    """Judge a published result; tell of warnings, add them to the run record, write the page.

    Parameters
    ----------
    config : SegmentConfig
        Whether a page is wanted.
    places : Places
        Where record and table are.
    fence : Fence
        Asked before anything is written.
    on_event : callable
        Told of every warning, also of a page that could not be written.
    """
    on_event(StageStarted("report", 1))
    started = clock.perf_counter()
    try:
        _report(config, places, fence, on_event)
    except Exception as error:  # the result is published: nothing may fail it now
        logger.warning("report", exc_info=error)
        text = (
            f"the report could not be made ({type(error).__name__}: {error}); label and table are "
            "published and not affected"
        )
        on_event(Note(text, is_warning=True))
    on_event(StageDone("report", clock.perf_counter() - started))


def _report(config: SegmentConfig, places: Places, fence: Fence, on_event: Listener) -> None:
    record = json.loads(files.read_bytes(places.record) or b"")
    with _at_hand(places.stats) as stats:
        found = gather(record, stats)
    for text in found.warnings:
        on_event(Note(text, is_warning=True))
    # What an earlier report has judged is judged anew.
    before = (record.get("checks") or {}).get("warnings", [])
    kept = [text for text in record["summary"]["warnings"] if text not in before]
    record["summary"]["warnings"] = [*kept, *found.warnings]
    record["checks"] = found.to_json()
    fence.check()
    write_json_atomic(places.record, record)
    if config.run.report:
        document = page(found).encode("utf-8")
        fence.check()
        write_bytes_atomic(places.report, document)


@contextlib.contextmanager
def _at_hand(path: str) -> Iterator[Path]:
    """Give a file under a local path: itself, or a copy of an object."""
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="anystar-batch-") as folder:
        local = Path(folder, path.rpartition("/")[2])
        files.copy(path, local)
        yield local
