"""How a run looks while it works: bars on a terminal, plain lines in a log. All on stderr."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape
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
    "probe": ("choosing the working scale", ""),
    "predict": ("network", "candidates"),
    "suppress": ("suppression", "survivors"),
    "own": ("numbering", "instances"),
    "paint": ("painting labels", ""),
    "pyramid": ("label pyramid", ""),
    "table": ("statistics", ""),
    "compare": ("comparing labels", ""),
    "report": ("report", ""),
}
"""What each stage is called on the screen, and what its blocks count."""


def stage_words(stage: str) -> tuple[str, str]:
    """Return what a stage is called, and what its blocks count; empty: nothing of interest.

    Examples
    --------
    >>> stage_words("pyramid 2")
    ('label pyramid 2', '')
    """
    name, _, rest = stage.partition(" ")
    words, counted = WHAT.get(name, (name, ""))
    return f"{words} {rest}".strip(), counted


def duration(seconds: float) -> str:
    """Return a duration as people say it.

    Examples
    --------
    >>> duration(4.26), duration(75), duration(7500), duration(200_000)
    ('4.3 s', '1 min 15 s', '2 h 05 min', '2 d 07 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = round(seconds) // 60, round(seconds) // 3600
    if hours < 1:
        return f"{minutes} min {round(seconds) % 60:02d} s"
    if hours < 24:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


class RichProgress:
    """Shows one bar for the stage at work, and leaves a line for every stage that took a second.

    Parameters
    ----------
    console : Console
        Of stderr.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
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
                stage_words(event.stage)[0],
                total=event.blocks + event.done,
                completed=event.done,
                found="",
            )
        elif isinstance(event, BlockDone) and self._task is not None:
            self._found += event.instances
            self._progress.update(self._task, advance=1, found=self._found_text(event.stage))
        elif isinstance(event, StageDone):
            self.close()
            if event.seconds >= 1:
                words = stage_words(event.stage)[0]
                parts = [f"{words:<26} {duration(event.seconds):>12}"]
                parts += [self._found_text(event.stage)] if self._found else []
                self._print("  ".join(parts).rstrip(), "dim")
        elif isinstance(event, BlockFailed):
            self._print(failed_line(event), "red")
        elif isinstance(event, Note):
            self._print(note_line(event), "yellow" if event.is_warning else "dim")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._progress.stop()

    def _found_text(self, stage: str) -> str:
        counted = stage_words(stage)[1]
        return f"{self._found:,} {counted}" if counted else ""

    def _print(self, text: str, style: str) -> None:
        # Paths and messages hold brackets, which are no markup.
        self._progress.console.print(escape(text), style=style, highlight=False, soft_wrap=True)


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
            blocks = f": {self._total} blocks{before}" if self._total > 1 else ""
            self._emit(f"{stage_words(event.stage)[0]}{blocks}")
        elif isinstance(event, BlockDone):
            self._done += 1
            self._fresh += 1
            self._found += event.instances
            now = time.monotonic()
            if now - self._last >= INTERVAL:
                self._last = now
                each = (now - self._started) / self._fresh
                left = duration(each * (self._total - self._done))
                self._emit(
                    f"{stage_words(event.stage)[0]}: {self._done} of {self._total} blocks"
                    f"{self._found_text(event.stage)}, about {left} left"
                )
        elif isinstance(event, StageDone):
            self._emit(
                f"{stage_words(event.stage)[0]}: took {duration(event.seconds)}"
                f"{self._found_text(event.stage)}"
            )
        elif isinstance(event, BlockFailed):
            self._emit(failed_line(event))
        else:
            self._emit(note_line(event))

    def close(self) -> None:
        """Nothing to leave behind."""

    def _found_text(self, stage: str) -> str:
        counted = stage_words(stage)[1]
        return f", {self._found:,} {counted}" if counted and self._found else ""


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
            self._emit(failed_line(event))
        elif isinstance(event, Note) and event.is_warning:
            self._emit(note_line(event))

    def close(self) -> None:
        """Nothing to leave behind."""


Listener: TypeAlias = RichProgress | LogProgress | QuietProgress


def failed_line(event: BlockFailed) -> str:
    """Return the line of a block that failed."""
    return f"failed: {stage_words(event.stage)[0]} {event.block}: {event.reason}"


def note_line(event: Note) -> str:
    """Return the line of a note."""
    return f"warning: {event.text}" if event.is_warning else event.text


def log_event(event: Event) -> None:
    """Write an event to the log."""
    if isinstance(event, BlockFailed) or (isinstance(event, Note) and event.is_warning):
        logger.warning("%s", event)
    elif isinstance(event, BlockDone):
        logger.debug("%s", event)
    else:
        logger.info("%s", event)
