"""A Dask cluster on this machine, one process per GPU; what Dask does to our process is undone.

Ctrl-C reaches all processes of a terminal. The run's own process answers it and closes the cluster;
workers leave it alone (`dask_setup`, which Dask calls in each before it takes work).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from anystar_batch.engine.stop import Stop
from anystar_batch.errors import WorkersError, shorten

logger = logging.getLogger(__name__)

GPU = "GPU"
"""Resource of workers that have one: the network runs there only."""

STARTS = 3
"""Times that starting worker processes is tried."""

RESTART_SECONDS = 24 * 3600
"""How long a process that died may take to be there again before Dask gives up on it for good. Its
own 15 seconds are too few where the machine is busy: a run was left without workers for ever."""

LOST_SECONDS = 600.0
"""How long a run goes on without a single worker on this machine before it ends."""


@contextlib.contextmanager
def local_cluster(
    workers: int,
    memory: int,
    network_threads: int,
    gpus: Sequence[str] = (),
    gpu_threads: int = 1,
) -> Iterator[Any]:
    """Start processes on this machine.

    Parameters
    ----------
    workers : int
        Processes, at least as many as GPUs.
    memory : int
        Bytes that they may take together.
    network_threads : int
        Cores that a worker's network may use.
    gpus : sequence of str
        Names of GPUs, as `CUDA_VISIBLE_DEVICES` has them: the first workers get one each, and the
        others see none.
    gpu_threads : int
        Blocks that a worker with a GPU works on at once: one has the network, the others read and
        suppress.

    Yields
    ------
    distributed.SpecCluster

    Raises
    ------
    WorkersError
        If they do not start, tried `STARTS` times.
    """
    import dask  # noqa: PLC0415
    from distributed import Nanny, Scheduler, SpecCluster  # noqa: PLC0415

    names = {
        "OMP_NUM_THREADS": str(network_threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # What goes wrong in a worker is told by its task; Python's own warnings are the tests'.
        "PYTHONWARNINGS": "ignore",
    }
    settings = {f"distributed.nanny.pre-spawn-environ.{k}": v for k, v in names.items()} | {
        "distributed.admin.large-graph-warning-threshold": "100MB",
        "distributed.deploy.lost-worker-timeout": f"{RESTART_SECONDS}s",
        "distributed.worker.preload": ["anystar_batch.engine.cluster"],
        "distributed.logging": {"distributed": "critical", "distributed.client": "critical"},
    }
    threads = [gpu_threads if n < len(gpus) else 1 for n in range(workers)]
    spec = {}
    for n in range(workers):
        options: dict[str, Any] = {
            "nthreads": threads[n],
            "memory_limit": memory * threads[n] // sum(threads),
            "host": "127.0.0.1",
            "dashboard": False,
            "silence_logs": logging.CRITICAL,
        }
        if gpus:
            has_one = n < len(gpus)
            options["env"] = {"CUDA_VISIBLE_DEVICES": gpus[n] if has_one else "-1"}
            options["resources"] = {GPU: 1} if has_one else {}
        spec[n] = {"cls": Nanny, "options": options}
    # Any free port: the usual one may belong to another run.
    own = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": own}
    make: Any = SpecCluster
    with (
        dask.config.set(settings),
        own_environment(),
        quiet(),
        _started(lambda: make(spec, scheduler, silence_logs=logging.CRITICAL)) as cluster,
    ):
        yield cluster


@contextlib.contextmanager
def watched(
    client: Any,  # noqa: ANN401
    running: Collection[Any],
    stop: Stop,
) -> Iterator[Callable[[], None]]:
    """Cancel what was sent to a cluster without workers, once it is time to stop, or they are lost.

    Those of a cluster on this machine are lost after `LOST_SECONDS`; of another one they come and
    go, and are waited for.

    Parameters
    ----------
    client : distributed.Client
    running : collection of distributed.Future
        What was sent and has not ended, as it is at any time.
    stop : Stop

    Yields
    ------
    callable
        Raises `WorkersError` if they are lost.
    """
    ended, lost = threading.Event(), threading.Event()

    def watch() -> None:
        since = time.monotonic()
        while not ended.wait(1.0):
            try:
                if client.nthreads():
                    since = time.monotonic()
                    continue
                if client.cluster is not None and time.monotonic() - since > LOST_SECONDS:
                    lost.set()
                if stop.is_due or lost.is_set():
                    client.cancel(list(running))
            except Exception:  # noqa: BLE001  (without a scheduler, futures say so themselves)
                return

    def check() -> None:
        if lost.is_set():
            message = (
                f"there has been no worker process for {LOST_SECONDS:.0f} s: all were killed, and "
                "none could be started again; nothing is published; see that there is memory for "
                "them, give fewer --workers, and repeat the command, which does what is left"
            )
            raise WorkersError(message)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()


def _started(start: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Start a cluster, again if a process of it was killed meanwhile, as the kernel does."""
    failed: Exception | None = None
    for _ in range(STARTS):
        try:
            return start()
        except (OSError, RuntimeError) as error:  # it has closed itself
            logger.warning("worker processes could not be started", exc_info=error)
            failed = error
    cause = failed and (failed.__cause__ or failed)
    message = (
        f"worker processes could not be started ({shorten(cause)}); see that there is memory for "
        "them, give fewer --workers, or repeat the command"
    )
    raise WorkersError(message) from failed


@contextlib.contextmanager
def own_environment() -> Iterator[None]:
    """Undo what Dask sets for its workers in this process too, and leaves there."""
    import dask  # noqa: PLC0415

    names = [
        *dask.config.get("distributed.nanny.pre-spawn-environ", {}),
        *dask.config.get("distributed.nanny.environ", {}),
        "PYTHONHASHSEED",
        "__DASK_PARENT_PID",
    ]
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Dask logs off the terminal, and what closing a cluster leaves open unmentioned."""
    dasks = logging.getLogger("distributed")
    before = dasks.level
    with warnings.catch_warnings():
        # Sockets of a cluster that closes are collected late; nothing of ours is open.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            dasks.setLevel(before)


def dask_setup(_worker: object) -> None:
    """Leave Ctrl-C to the run's own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
