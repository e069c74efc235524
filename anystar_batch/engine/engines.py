"""How work runs: explicit block tasks, in this process, on a local Dask cluster or on a given one.

A task is a module-level function and one picklable argument; what it returns is small, everything
large goes through files. Tasks are submitted in windows, so that a plan of a million blocks costs
the scheduler nothing. A failing task never stops the others. Once its `Stop` is due, an engine
begins no further task, waits for those at work, and yields what they made.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time as clock
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from anystar_batch.engine import external_cluster as scheduling
from anystar_batch.engine import machine
from anystar_batch.engine.attempts import Failure, Left, attempt_all, failure_of, unless_due
from anystar_batch.engine.cluster import GPU, local_cluster, quiet, watched
from anystar_batch.engine.stop import Stop
from anystar_batch.errors import ConfigError

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

WINDOW = 4
"""Tasks in flight per worker."""

GROUP_SECONDS, MAX_GROUP = 0.5, 32
"""How long tasks that are sent together take together, and the most that are sent together."""

SURVEY_SECONDS = 5.0
"""How often a cluster is asked how many workers it has."""

RETRIES = 2
"""Times that a task is tried again after an error that may pass, as a file server's may."""

MAX_THREADS = 4
"""Most tasks that one process works on at once: enough to hide reading behind the network."""

WORKER_BYTES = 600_000_000
"""Least memory of a worker process: below, it is killed before it has loaded anything."""

CORES_PER_WORKER, COMFORTABLE_BYTES = 4, 4_000_000_000
"""What a worker gets where nobody says how many there shall be."""


class Engine(Protocol):
    """Runs one stage's tasks: on `workers` processes, on each `threads` at once, until `stop`.

    A worker's network may use `network_threads` cores. `memory` is what all workers together may
    take where the engine knows it: one that was not started here may have limits of its own.
    """

    workers: int
    threads: int
    network_threads: int
    memory: int | None
    stop: Stop

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        needs_network: bool = False,
    ) -> Iterator[tuple[Task, Result | Failure]]:
        """Yield every task that was begun with its result, in the order in which they end."""
        ...

    def check_paths(self, paths: tuple[str, ...]) -> None:
        """Raise ConfigError unless every worker sees these directories."""
        ...


class InlineEngine:
    """One worker: this process.

    Parameters
    ----------
    threads : int
        Tasks at once. While one has the network (`tasks` lets one in), others read and suppress;
        later stages are all NumPy, numba and codecs, which leave Python's lock. 1 is for debuggers.
    stop : Stop, optional
        When to begin no further task; None is never.
    """

    workers = 1
    memory: int | None = None

    def __init__(self, threads: int = 1, stop: Stop | None = None) -> None:
        self.threads = threads
        self.network_threads = threads_per_worker(1)
        self.stop = Stop() if stop is None else stop

    def check_paths(self, paths: tuple[str, ...]) -> None:
        """Nothing to check: this process has found them."""

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        needs_network: bool = False,  # noqa: ARG002  (there is one place to run)
    ) -> Iterator[tuple[Task, Result | Failure]]:
        """Yield every task that was begun with its result, in order."""
        waiting = iter(tasks)
        first = list(itertools.islice(waiting, 2))
        waiting = itertools.chain(first, waiting)
        if self.threads == 1 or len(first) < 2:  # a thread for one task would cost more than it
            for task in waiting:
                if self.stop.is_due:
                    return
                try:
                    result: Result | Failure = function(task)
                except Exception as error:  # noqa: BLE001  (named in the events, the others go on)
                    result = failure_of(error)
                yield task, result
            return
        running: deque[tuple[Task, Future[Result | Left]]] = deque()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="block") as pool:
            try:
                while True:
                    free = 0 if self.stop.is_due else 2 * self.threads - len(running)
                    for task in itertools.islice(waiting, free):
                        running.append((task, pool.submit(unless_due, function, task, self.stop)))
                    if not running:
                        return
                    task, future = running.popleft()
                    try:
                        answer: Result | Failure | Left = future.result()
                    except Exception as error:  # noqa: BLE001
                        answer = failure_of(error)
                    if not isinstance(answer, Left):
                        yield task, answer
            finally:
                pool.shutdown(cancel_futures=True)


class DaskEngine:
    """Processes of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster.
    pool : scheduler.Pool
        What its workers are.
    stop : Stop, optional
        When to begin no further task; None is never. Workers know its time, not what it is asked.
    """

    threads = 1

    def __init__(self, client: Any, pool: scheduling.Pool, stop: Stop | None = None) -> None:  # noqa: ANN401
        self.workers = pool.slots
        self.network_threads = pool.network_threads
        self.memory = pool.memory
        self.stop = Stop() if stop is None else stop
        self._client = client
        # A share of a GPU, so that a worker of several threads reads beside its network.
        self._network = {"resources": {GPU: 1 / MAX_THREADS}} if pool.gpus else {}

    def check_paths(self, paths: tuple[str, ...]) -> None:
        """Raise ConfigError unless every worker sees these directories."""
        scheduling.check_paths(self._client, paths)

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        needs_network: bool = False,
    ) -> Iterator[tuple[Task, Result | Failure]]:
        """Yield every task that was begun with its result, in the order in which they end."""
        from distributed import as_completed  # noqa: PLC0415  (2 s)

        waiting = iter(tasks)
        where = self._network if needs_network else {}
        running: dict[Any, list[Task]] = {}
        asked = clock.monotonic()
        pace = _Pace()

        def send(group: list[Task]) -> Any:  # noqa: ANN401
            future = self._client.submit(
                attempt_all, function, group, self.stop, pure=False, retries=RETRIES, **where
            )
            running[future] = group
            return future

        def submit(count: int) -> list[Any]:
            groups = (list(itertools.islice(waiting, pace.group)) for _ in range(count))
            return [] if self.stop.is_due else [send(g) for g in itertools.takewhile(bool, groups)]

        # Workers of a given cluster come and go.
        window = WINDOW * scheduling.slot_count(self._client)
        completed: Any = as_completed(submit(window))  # type: ignore[no-untyped-call]
        with watched(self._client, running, self.stop) as check:
            for future in completed:
                check()
                group = running.pop(future)
                if future.cancelled():  # nobody has begun it
                    continue
                if future.exception() is not None and len(group) > 1:
                    for task in group:  # one of them is to blame: alone, each says for itself
                        completed.add(send([task]))
                else:
                    yield from _outcomes(group, future, pace)
                future.release()
                if clock.monotonic() > asked + SURVEY_SECONDS:
                    window, asked = WINDOW * scheduling.slot_count(self._client), clock.monotonic()
                for extra in submit(max(0, window - len(running))):
                    completed.add(extra)


@dataclass(slots=True)
class _Pace:
    """How many tasks to send together, so that Dask's share of their time is small."""

    seconds: float = 0.0

    @property
    def group(self) -> int:
        """Tasks a group: as many as take about `GROUP_SECONDS`; one until the first is done."""
        if self.seconds == 0.0:
            return 1
        return max(1, min(MAX_GROUP, int(GROUP_SECONDS / self.seconds)))

    def note(self, count: int, seconds: float) -> None:
        """Learn from a group that took so long; what is new counts for half."""
        each = max(seconds / count, 1e-6)
        self.seconds = each if self.seconds == 0.0 else 0.5 * (self.seconds + each)


def _outcomes(group: list[Task], future: Any, pace: _Pace) -> list[tuple[Task, Any]]:  # noqa: ANN401
    """What became of the tasks of a group, less those that were not begun."""
    error = future.exception()
    if error is not None:
        return [(group[0], failure_of(error))]
    results, seconds = future.result()
    pace.note(len(group), seconds)
    return [
        (task, result)
        for task, result in zip(group, results, strict=True)
        if not isinstance(result, Left)
    ]


@contextlib.contextmanager
def open_engine(
    workers: int | None,
    memory: int,
    stop: Stop | None = None,
    *,
    scheduler: str | None = None,
    gpus: Sequence[str] = (),
) -> Iterator[Engine]:
    """Open an engine with so many workers, or with those of a running cluster.

    Parameters
    ----------
    workers : int or None
        1 works in this process; None chooses by cores, memory and GPUs.
    memory : int
        Bytes that all workers together may take.
    stop : Stop, optional
        When to begin no further task; None is never.
    scheduler : str, optional
        Address or scheduler file of a running Dask cluster, which then does the work.
    gpus : sequence of str
        Those that may be used: the first workers get one each. A worker alone takes the first.

    Raises
    ------
    ConfigError
        If a worker's share of the memory is too small to start with, or the cluster is not ready.
    """
    if scheduler is not None:
        with quiet(), scheduling.connected(scheduler) as client:
            yield DaskEngine(client, scheduling.survey(client, scheduler), stop)
        return
    workers = workers or natural_workers(memory, len(gpus))
    if workers == 1:
        yield InlineEngine(block_threads(workers), stop)
        return
    gpus = gpus[:workers]
    threads = block_threads(1) if gpus else 1
    slots = workers + len(gpus) * (threads - 1)
    if memory // slots < WORKER_BYTES:
        message = (
            f"--workers: {workers} share {memory / 1e9:.1f} GB; expected at least "
            f"{WORKER_BYTES / 1e9:.1f} GB for each; give fewer --workers or more --memory"
        )
        raise ConfigError(message)
    from distributed import Client  # noqa: PLC0415

    cores = threads_per_worker(workers)
    with (
        local_cluster(workers, memory, cores, gpus, threads) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        pool = scheduling.Pool(slots, memory, cores, len(gpus))
        yield DaskEngine(client, pool, stop)


def natural_workers(memory: int, gpus: int) -> int:
    """Return how many workers this machine has room for: one per GPU, and per four cores.

    Parameters
    ----------
    memory : int
        Bytes that they may take together.
    gpus : int
        That may be used.
    """
    return max(
        1, gpus, min(machine.usable_cores() // CORES_PER_WORKER, memory // COMFORTABLE_BYTES)
    )


def threads_per_worker(workers: int) -> int:
    """Return how many threads each worker's network may use."""
    return max(1, machine.usable_cores() // workers)


def block_threads(workers: int) -> int:
    """Return how many blocks each worker works on at once."""
    return min(MAX_THREADS, threads_per_worker(1)) if workers == 1 else 1
