"""How a stage gets on, in numbers and in words; nothing of how it is shown.

What is said of the time that is left rests on the blocks that this run has done of the stage at
work, weighted by their voxels, and is of this stage: before a block is done nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from anystar_batch.events import BlockDone, StageStarted

SAMPLING = 2.0
"""Seconds between looks at the memory: all processes of the machine are asked."""

WHAT = {
    "probe": ("choosing the working scale", ""),
    "limits": ("local intensity limits", ""),
    "check": ("checking the image", ""),
    "predict": ("network", "candidates"),
    "suppress": ("suppression", "survivors"),
    "resolve": ("deciding doubtful cases", ""),
    "refine": ("second look", "outlines"),
    "own": ("numbering", "instances"),
    "paint": ("painting labels", ""),
    "pyramid": ("label pyramid", ""),
    "table": ("statistics", "rows"),
    "stars": ("publishing stars", ""),
    "compare": ("comparing labels", ""),
    "survey": ("reading labels", ""),
    "report": ("report", ""),
    "review": ("drawing instances", ""),
    "export": ("exporting stars", ""),
}
"""What each stage is called on the screen, and what its blocks count."""

UNITS = {"probe": "scales", "resolve": "times", "review": "instances"}
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
        self.instances = event.instances
        self._voxels = event.voxels
        self._memory, self._held, self._looked = memory, 0, float("-inf")
        self._start = self._last = _Mark(time.monotonic())
        self._marks = [self._start]

    def note(self, event: BlockDone) -> None:
        """Count a block."""
        self.done += 1
        self.instances += event.instances
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
        return f"{self.instances:,} {self._counted}" if self._counted and self.instances else ""

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
