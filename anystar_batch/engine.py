"""How work runs: explicit block tasks, in this process or on a local Dask cluster.

A task is a module-level function and one picklable argument; what it returns is small, everything
large goes through files. Tasks are submitted in windows, so that a plan of a million blocks costs
the scheduler nothing. A failing task never stops the others.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from anystar_batch.errors import AnyStarBatchError

Task = TypeVar("Task")
Result = TypeVar("Result")

WINDOW = 4
"""Tasks in flight per worker."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed.

    Parameters
    ----------
    reason : str
        One line.
    is_expected : bool
        Whether the error was raised on purpose, so that its message is for the user.
    """

    reason: str
    is_expected: bool


class Engine(Protocol):
    """Runs one stage's tasks."""

    workers: int

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Failure]]:
        """Yield every task with its result, in the order in which they end."""
        ...


class InlineEngine:
    """One worker: this process. What a debugger wants, and the cheapest for small volumes."""

    workers = 1

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Failure]]:
        """Yield every task with its result, in order."""
        for task in tasks:
            try:
                result: Result | Failure = function(task)
            except Exception as error:  # noqa: BLE001  (named in the events, the others go on)
                result = _failure(error)
            yield task, result


class DaskEngine:
    """Processes of a local Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected to a cluster whose workers have one thread each.
    workers : int
        Number of workers.
    """

    def __init__(self, client: Any, workers: int) -> None:  # noqa: ANN401  (untyped neighbour)
        self.workers = workers
        self._client = client

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result | Failure]]:
        """Yield every task with its result, in the order in which they end."""
        from distributed import as_completed  # noqa: PLC0415  (2 s)

        waiting = iter(tasks)
        running: dict[Any, Task] = {}

        def submit(count: int) -> list[Any]:
            futures = []
            for task in itertools.islice(waiting, count):
                future = self._client.submit(function, task, pure=False, retries=2)
                running[future] = task
                futures.append(future)
            return futures

        completed = as_completed(submit(WINDOW * self.workers))
        for future in completed:
            task = running.pop(future)
            error = future.exception()
            yield task, _failure(error) if error is not None else future.result()
            future.release()
            for extra in submit(1):
                completed.add(extra)


@contextlib.contextmanager
def open_engine(workers: int, memory: int) -> Iterator[Engine]:
    """Open an engine with so many workers.

    Parameters
    ----------
    workers : int
        1 works in this process.
    memory : int
        Bytes that all workers together may take.
    """
    if workers == 1:
        yield InlineEngine()
        return
    import dask  # noqa: PLC0415
    from distributed import Client, LocalCluster  # noqa: PLC0415

    threads = threads_per_worker(workers)
    # Dask sets OMP_NUM_THREADS=1 in the parent too, and leaves it there.
    saved = dict(os.environ)
    environment = {
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads,
        "distributed.nanny.pre-spawn-environ.TF_CPP_MIN_LOG_LEVEL": "3",
        "distributed.admin.large-graph-warning-threshold": "100MB",
    }
    with dask.config.set(environment), warnings.catch_warnings():
        # Sockets of a cluster that closes are collected late; nothing of ours is open.
        warnings.simplefilter("ignore", ResourceWarning)
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=memory // workers,
                dashboard_address=None,
                host="127.0.0.1",
            ) as cluster,
            Client(cluster) as client,
        ):
            try:
                yield DaskEngine(client, workers)
            finally:
                os.environ.clear()
                os.environ.update(saved)


def threads_per_worker(workers: int) -> int:
    """Return how many threads each worker's network may use."""
    return max(1, len(os.sched_getaffinity(0)) // workers)


def _failure(error: BaseException) -> Failure:
    name = type(error).__name__
    if name == "KilledWorker":
        reason = "its worker was killed repeatedly, most likely for memory; give a smaller --tile"
        return Failure(reason, is_expected=True)
    text = " ".join(str(error).split()) or name
    if isinstance(error, AnyStarBatchError):
        return Failure(text, is_expected=True)
    return Failure(f"{name}: {text}", is_expected=False)
