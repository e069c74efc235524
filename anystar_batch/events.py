"""What the pipeline tells its listeners; it prints nothing itself and knows no Rich."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins.

    Parameters
    ----------
    stage : str
        Name of the stage.
    blocks : int
        Blocks still to do.
    done : int
        Blocks that an earlier run has done.
    voxels : int
        Voxels of the blocks still to do: of level 0, of a coarse level those that are made of it; 0
        where they say nothing of the work.
    instances : int
        Candidates or instances of what an earlier run has done.
    """

    stage: str
    blocks: int
    done: int = 0
    voxels: int = 0
    instances: int = 0


@dataclass(frozen=True, slots=True)
class BlockDone:
    """A block of a stage is done.

    Parameters
    ----------
    stage, block : str
        Names of stage and block.
    seconds : float
        Time the block took in its worker.
    instances : int
        Candidates or instances the block found.
    voxels : int
        As in `StageStarted`, of this block.
    """

    stage: str
    block: str
    seconds: float
    instances: int = 0
    voxels: int = 0


@dataclass(frozen=True, slots=True)
class StageDone:
    """A stage has ended.

    Parameters
    ----------
    stage : str
        Name of the stage.
    seconds : float
        Wall time.
    """

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class BlockFailed:
    """A block failed; the other blocks go on.

    Parameters
    ----------
    stage, block : str
        Names of stage and block.
    reason : str
        One line.
    """

    stage: str
    block: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something the user should know.

    Parameters
    ----------
    text : str
        One sentence.
    is_warning : bool
        Whether it may mean that the result is not what was wanted.
    """

    text: str
    is_warning: bool = False


Event: TypeAlias = StageStarted | BlockDone | StageDone | BlockFailed | Note
Listener: TypeAlias = Callable[[Event], None]


@dataclass(slots=True)
class Elapsed:
    """Wall time of a stage, known when it has ended.

    Parameters
    ----------
    seconds : float
    """

    seconds: float = 0.0


@contextmanager
def timed_stage(on_event: Listener, started: StageStarted) -> Iterator[Elapsed]:
    """Tell a listener that a stage begins, and after the block that it has ended, and its time.

    Parameters
    ----------
    on_event : callable
    started : StageStarted

    Yields
    ------
    Elapsed
        Filled at the end. A block that raises has not ended: the listener is told nothing.
    """
    on_event(started)
    began, elapsed = time.perf_counter(), Elapsed()
    yield elapsed
    elapsed.seconds = time.perf_counter() - began
    on_event(StageDone(started.stage, elapsed.seconds))


def ignore(event: Event) -> None:
    """Listen to nothing."""
    del event


@dataclass(slots=True)
class Hearing:
    """A listener that passes events on, and keeps of them what is asked for later.

    Parameters
    ----------
    on_event : callable
        Whom they are passed on to.
    warnings : list of str
        Texts of all warnings so far.
    seconds : dict
        Wall time of every stage that has ended.
    """

    on_event: Listener = ignore
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        if isinstance(event, Note) and event.is_warning:
            self.warnings.append(event.text)
        if isinstance(event, StageDone):
            self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + event.seconds
        self.on_event(event)
