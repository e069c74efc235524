"""How a run looks while it works: bars on a terminal, plain lines in a log. All on stderr."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from anystar_batch.events import BlockDone, BlockFailed, Event, Note, StageDone, StageStarted

logger = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between lines of a stage where stderr is no terminal."""

WHAT = {
    "probe": "choosing the working scale",
    "predict": "network",
    "suppress": "suppression",
    "own": "numbering",
    "paint": "painting labels",
    "pyramid": "label pyramid",
    "table": "statistics",
}
"""What each stage is called on the screen."""


class RichProgress:
    """Shows one bar for the stage at work.

    Parameters
    ----------
    console : Console
        Of stderr.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._found = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, StageStarted):
            self._found = 0
            self._progress.start()
            self._task = self._progress.add_task(
                WHAT.get(event.stage, event.stage),
                total=event.blocks + event.done,
                completed=event.done,
                found="",
            )
        elif isinstance(event, BlockDone) and self._task is not None:
            self._found += event.instances
            self._progress.update(self._task, advance=1, found=f"{self._found:,} found")
        elif isinstance(event, StageDone) and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
            self._progress.stop()
        elif isinstance(event, BlockFailed):
            self._progress.console.print(
                f"[red]failed[/red] {event.stage} {event.block}: {event.reason}"
            )
        elif isinstance(event, Note):
            style = "yellow" if event.is_warning else "dim"
            self._progress.console.print(event.text, style=style, highlight=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


class LogProgress:
    """Writes a line when a stage starts and ends, and now and then between.

    Parameters
    ----------
    emit : callable
        Takes one line.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._total = self._done = self._found = 0
        self._fresh = 0
        self._started = self._last = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Write what an event is worth."""
        if isinstance(event, StageStarted):
            self._total, self._done = event.blocks + event.done, event.done
            self._found = self._fresh = 0
            self._started = self._last = time.monotonic()
            before = f", {event.done} done before" if event.done else ""
            self._emit(f"{WHAT.get(event.stage, event.stage)}: {self._total} blocks{before}")
        elif isinstance(event, BlockDone):
            self._done += 1
            self._fresh += 1
            self._found += event.instances
            now = time.monotonic()
            if now - self._last >= INTERVAL:
                self._last = now
                each = (now - self._started) / self._fresh
                left = each * (self._total - self._done)
                self._emit(
                    f"{WHAT.get(event.stage, event.stage)}: {self._done} of {self._total} blocks, "
                    f"{self._found} found, {left:.0f} s left"
                )
        elif isinstance(event, StageDone):
            found = f", {self._found} found" if self._found else ""
            self._emit(
                f"{WHAT.get(event.stage, event.stage)}: done in {event.seconds:.1f} s{found}"
            )
        elif isinstance(event, BlockFailed):
            self._emit(f"FAILED {event.stage} {event.block}: {event.reason}")
        else:
            self._emit(f"{'WARNING: ' if event.is_warning else ''}{event.text}")

    def close(self) -> None:
        """Nothing to leave behind."""


class QuietProgress:
    """Writes failures and warnings only.

    Parameters
    ----------
    emit : callable
        Takes one line.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit

    def __call__(self, event: Event) -> None:
        """Write what must not be missed."""
        if isinstance(event, BlockFailed):
            self._emit(f"FAILED {event.stage} {event.block}: {event.reason}")
        elif isinstance(event, Note) and event.is_warning:
            self._emit(f"WARNING: {event.text}")

    def close(self) -> None:
        """Nothing to leave behind."""


Listener: TypeAlias = RichProgress | LogProgress | QuietProgress


def log_event(event: Event) -> None:
    """Write an event to the log."""
    if isinstance(event, BlockFailed) or (isinstance(event, Note) and event.is_warning):
        logger.warning("%s", event)
    elif isinstance(event, BlockDone):
        logger.debug("%s", event)
    else:
        logger.info("%s", event)
