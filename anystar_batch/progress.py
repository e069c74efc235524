"""How a run looks while it works: bars on a terminal, plain lines in a log. All on stderr.

What is said of the time that is left rests on the blocks that this run has done of the stage at
work, weighted by their voxels, and is of this stage: before a block is done nothing is said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
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

from anystar_batch.events import BlockDone, BlockFailed, Event, Note, StageDone, StageStarted

logger = logging.getLogger(__name__)

INTERVAL, LONGEST = 10.0, 120.0
"""Seconds before the first line of a stage where stderr is no terminal; between later ones twice as
many each time, up to the longest."""

SAMPLING = 2.0
"""Seconds between looks at the memory: all processes of the machine are asked."""

WHAT = {
    "probe": ("choosing the working scale", ""),
    "check": ("checking the image", ""),
    "predict": ("network", "candidates"),
    "suppress": ("suppression", "survivors"),
    "resolve": ("deciding doubtful cases", ""),
    "own": ("numbering", "instances"),
    "paint": ("painting labels", ""),
    "pyramid": ("label pyramid", ""),
    "table": ("statistics", ""),
    "compare": ("comparing labels", ""),
    "report": ("report", ""),
}
"""What each stage is called on the screen, and what its blocks count."""

UNITS = {"probe": "scales", "resolve": "times"}
"""What the parts of a stage are that are no blocks."""


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


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far a stage was at a moment: blocks of this run, their voxels and their own seconds."""

    time: float
    blocks: int = 0
    voxels: int = 0
    seconds: float = 0.0


class Pace:
    """What is known of the stage at work: how far it is, how fast, and how long it will take.

    The speed is that of the later half of the blocks that were done, or more: the first ones load
    the network, and a volume is not alike everywhere. So that blocks which end together are not
    taken for one fast block, it is measured over at least two blocks' time.

    Parameters
    ----------
    event : StageStarted
        How it began.
    memory : callable, optional
        Returns the bytes that the run holds; None says nothing of them.
    """

    def __init__(self, event: StageStarted, memory: Callable[[], int] | None = None) -> None:
        self.words, self._counted = stage_words(event.stage)
        self.unit = UNITS.get(event.stage, "blocks")
        self.total, self.done = event.blocks + event.done, event.done
        self.before = event.done
        self.found = event.instances
        self._voxels = event.voxels
        self._memory, self._held, self._looked = memory, 0, float("-inf")
        self._start = self._last = _Mark(time.monotonic())
        self._marks = [self._start]

    def note(self, event: BlockDone) -> None:
        """Count a block."""
        self.done += 1
        self.found += event.instances
        last = self._last
        self._last = _Mark(
            time.monotonic(),
            last.blocks + 1,
            last.voxels + event.voxels,
            last.seconds + event.seconds,
        )
        if self._last.blocks.bit_count() == 1:
            self._marks.append(self._last)

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._start.time

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take, if it goes on like the blocks of this run; or None."""
        last, since = self._last, self._since
        if last.blocks == 0 or self.done >= self.total:
            return None
        if last.voxels > since.voxels:
            share = max(0, self._voxels - last.voxels) / (last.voxels - since.voxels)
        else:
            share = (self.total - self.done) / (last.blocks - since.blocks)
        return max(0.0, (last.time - since.time) * share - (time.monotonic() - last.time))

    @property
    def voxels_per_second(self) -> float | None:
        """Of the blocks that are measured; None where they count no voxels."""
        last, since = self._last, self._since
        seconds = last.time - since.time
        return (last.voxels - since.voxels) / seconds if last.voxels and seconds > 0 else None

    @property
    def _since(self) -> _Mark:
        """Where measuring begins."""
        last = self._last
        fits = (
            mark
            for mark in reversed(self._marks)
            if 0 < 2 * mark.blocks <= last.blocks
            and (last.time - mark.time) * (last.blocks - mark.blocks)
            >= 2.0 * (last.seconds - mark.seconds)
        )
        return next(fits, self._start)

    @property
    def found_text(self) -> str:
        """How many objects there are so far, as the stage calls them; empty without any."""
        return f"{self.found:,} {self._counted}" if self._counted and self.found else ""

    def facts(self) -> list[str]:
        """Return what is known beside the number of blocks, a phrase each; the best first."""
        facts = [self.found_text] if self.found_text else []
        left = self.left
        if left is not None:
            facts.append(f"about {duration(left)} left")
        speed = self.voxels_per_second
        if speed is not None:
            facts.append(rate(speed))
        if self._memory is not None:
            if time.monotonic() - self._looked >= SAMPLING:
                self._held, self._looked = self._memory(), time.monotonic()
            facts.append(f"{self._held / 1e9:.1f} GB")
        return facts


def rate(voxels: float) -> str:
    """Return voxels a second as people say it.

    Examples
    --------
    >>> rate(431_000), rate(52_300_000)
    ('0.43 Mvoxel/s', '52.3 Mvoxel/s')
    """
    return f"{voxels / 1e6:.{1 if voxels >= 10**7 else 2}f} Mvoxel/s"


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
            found = f", {self._pace.found_text}" if self._pace.found_text else ""
            self._emit(f"{self._pace.words}: took {duration(event.seconds)}{found}")
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
    found = f", {pace.found_text}" if pace.found_text else ""
    return f"{pace.words}: {pace.before} of {pace.total} {pace.unit} were done before{found}"


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
