"""One task in a worker: what becomes of it, in words that travel."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from anystar_batch.engine.stop import Stop
from anystar_batch.errors import AnyStarBatchError, LedgerMismatchError, OutputError

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed.

    Parameters
    ----------
    reason : str
        One line.
    is_expected : bool
        Whether the error was raised on purpose, so that its message is for the user.
    is_damage : bool
        Whether what earlier tasks have kept is damaged: the same command would fail again.
    """

    reason: str
    is_expected: bool
    is_damage: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """A task that was not begun, because it was time to stop."""


def unless_due(function: Callable[[Task], Result], task: Task, stop: Stop) -> Result | Left:
    """Run a task, unless it is time to stop."""
    return Left() if stop.is_due else function(task)


def attempt_all(
    function: Callable[[Task], Result], tasks: Sequence[Task], stop: Stop | None = None
) -> tuple[list[Result | Failure | Left], float]:
    """Run some tasks in a worker, one after another; return their results and the seconds taken.

    Parameters
    ----------
    function : callable
        A module-level function.
    tasks : sequence
        Its arguments.
    stop : Stop, optional
        When to begin no more of them.
    """
    began = clock.perf_counter()
    results = [attempt(function, task, stop) for task in tasks]
    return results, clock.perf_counter() - began


def attempt(
    function: Callable[[Task], Result], task: Task, stop: Stop | None = None
) -> Result | Failure | Left:
    """Run a task in a worker; what cannot pass is returned, so that nobody tries it again.

    Parameters
    ----------
    function : callable
        A module-level function.
    task : object
        Its argument.
    stop : Stop, optional
        When not to begin it.
    """
    try:
        return function(task) if stop is None else unless_due(function, task, stop)
    except AnyStarBatchError as error:
        # Raised on purpose: as true the second time, unless the file system had a weak moment.
        if isinstance(error.__cause__, OSError) and not isinstance(error, OutputError):
            raise
        return failure_of(error)


def failure_of(error: BaseException) -> Failure:
    """Return what to tell of an error, and log the rest."""
    name = type(error).__name__
    if name == "KilledWorker":
        reason = (
            "its worker process was killed repeatedly, most likely for lack of memory; give more "
            "--memory, fewer --workers, a smaller --block-shape or a smaller --tile"
        )
        return Failure(reason, is_expected=True)
    text = " ".join(str(error).split()) or name
    if isinstance(error, AnyStarBatchError):
        return Failure(text, is_expected=True, is_damage=isinstance(error, LedgerMismatchError))
    logger.error("a block failed unexpectedly", exc_info=error)
    return Failure(f"unexpected {name}: {text}", is_expected=False)
