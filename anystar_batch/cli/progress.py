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
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from anystar_batch.cli.pace import Pace, duration, stage_words
from anystar_batch.events import BlockDone, BlockFailed, Event, Note, StageDone, StageStarted

logger = logging.getLogger(__name__)

BRIEF = 0.05
"""Seconds that are not worth a line."""

INTERVAL, LONGEST = 10.0, 120.0
"""Seconds before the first line of a stage where stderr is no terminal; between later ones twice as
many each time, up to the longest."""


class _Facts(ProgressColumn):
    """What the pace says, and how long the stage has been at work."""

    def render(self, task: Task) -> Text:
        pace: Pace = task.fields["pace"]
        return Text("  ".join([*pace.facts(), duration(pace.elapsed)]), no_wrap=True)


class RichProgress:
    """Shows one bar for the stage at work, and leaves a line for every stage that took a second.

    Parameters
    ----------
    console : Console
        Of stderr.
    memory : callable, optional
        Returns the bytes that the run holds.
    """

    def __init__(self, console: Console, memory: Callable[[], int] | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(None, table_column=Column(ratio=1)),  # what the rest leaves of the width
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Facts(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            expand=True,
        )
        self._memory = memory
        self._task: TaskID | None = None
        self._pace = Pace(StageStarted("", 0))

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, StageStarted):
            pace = self._pace = Pace(event, self._memory)
            if pace.before and pace.total > 1:
                self._print(resumed_line(pace), "dim")
            self._progress.start()
            self._task = self._progress.add_task(
                pace.words, total=pace.total, completed=pace.done, pace=pace
            )
        elif isinstance(event, BlockDone) and self._task is not None:
            self._pace.note(event)
            self._progress.update(self._task, advance=1)
        elif isinstance(event, StageDone):
            self.close()
            if event.seconds >= 1:
                text = f"{self._pace.words:<26} {duration(event.seconds):>12}"
                self._print(f"{text}  {self._pace.found_text}".rstrip(), "dim")
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

    def _print(self, text: str, style: str) -> None:
        # Paths and messages hold brackets, which are no markup.
        self._progress.console.print(escape(text), style=style, highlight=False, soft_wrap=True)


class LogProgress:
    """Writes a line when a stage starts and ends, and now and then between, ever less often.

    Parameters
    ----------
    emit : callable
        Takes one line.
    memory : callable, optional
        Returns the bytes that the run holds.
    """

    def __init__(
        self, emit: Callable[[str], None], memory: Callable[[], int] | None = None
    ) -> None:
        self._emit = emit
        self._memory = memory
        self._pace = Pace(StageStarted("", 0))
        self._last = self._wait = 0.0

    def __call__(self, event: Event) -> None:
        """Write what an event is worth."""
        if isinstance(event, StageStarted):
            pace = self._pace = Pace(event, self._memory)
            self._last, self._wait = time.monotonic(), INTERVAL
            blocks = f": {pace.total} {pace.unit}" if pace.total > 1 else ""
            self._emit(resumed_line(pace) if blocks and pace.before else f"{pace.words}{blocks}")
        elif isinstance(event, BlockDone):
            pace, now = self._pace, time.monotonic()
            pace.note(event)
            if now - self._last >= self._wait:
                self._last, self._wait = now, min(LONGEST, 2 * self._wait)
                facts = ", ".join([f"{pace.done} of {pace.total} {pace.unit}", *pace.facts()])
                self._emit(f"{pace.words}: {facts}")
        elif isinstance(event, StageDone):
            took = f"took {duration(event.seconds)}" if event.seconds >= BRIEF else ""
            said = ", ".join(filter(None, (took, self._pace.found_text)))
            if said:
                self._emit(f"{self._pace.words}: {said}")
        elif isinstance(event, BlockFailed):
            self._emit(failed_line(event))
        else:
            self._emit(note_line(event))

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
            self._emit(failed_line(event))
        elif isinstance(event, Note) and event.is_warning:
            self._emit(note_line(event))

    def close(self) -> None:
        """Nothing to leave behind."""


Listener: TypeAlias = RichProgress | LogProgress | QuietProgress


def failed_line(event: BlockFailed) -> str:
    """Return the line of a block that failed."""
    return f"failed: {stage_words(event.stage)[0]} {event.block}: {event.reason}"


def resumed_line(pace: Pace) -> str:
    """Return the line of a stage of which an earlier run has done a part."""
    objects = f", {pace.found_text}" if pace.found_text else ""
    return f"{pace.words}: {pace.before} of {pace.total} {pace.unit} were done before{objects}"


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
