"""Work on a Dask cluster that somebody else runs: what is asked of it before work starts.

Whatever would make a run wait for ever or fail on every block is found out here, while nothing is
written: no scheduler, no workers, workers without this package or with another version of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anystar_batch import __version__
from anystar_batch.archive.storage.files import is_visible
from anystar_batch.engine import machine
from anystar_batch.engine.cluster import GPU
from anystar_batch.errors import ConfigError

CONNECT_SECONDS = 20.0
"""How long a scheduler may take to answer."""

WORKER_SECONDS = 120.0
"""How long the first worker may take to appear; a batch system starts it when it has room."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What the workers of a cluster are together.

    Parameters
    ----------
    slots : int
        Tasks that they work on at once: a worker's threads, summed.
    memory : int or None
        Bytes: the smallest share of a slot, times the slots; None where no worker has a limit.
    network_threads : int
        Cores that one slot's network may use.
    gpus : int
        Workers that declare the resource `GPU` (`dask worker --resources GPU=1`).
    """

    slots: int
    memory: int | None
    network_threads: int
    gpus: int


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Any]:
    """Connect to a running scheduler.

    Parameters
    ----------
    scheduler : str
        Its address, `tcp://host:port`, or the scheduler file it wrote.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ConfigError
        If there is none.
    """
    from distributed import Client  # noqa: PLC0415  (2 s)

    address = scheduler if "://" in scheduler else _address_in(Path(scheduler))
    try:
        client = Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        message = (
            f"--scheduler: no Dask scheduler answers at {scheduler} within {CONNECT_SECONDS:.0f} s "
            f"({type(error).__name__}); is it running, and can this machine reach it?"
        )
        raise ConfigError(message) from error
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call]


def survey(client: Any, scheduler: str) -> Pool:  # noqa: ANN401
    """Wait for a worker, and find out what the workers are.

    Parameters
    ----------
    client : distributed.Client
    scheduler : str
        For messages.

    Raises
    ------
    ConfigError
        If no worker appears, or one of them cannot do the work.
    """
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        message = (
            f"--scheduler: {scheduler} has no worker after {WORKER_SECONDS:.0f} s; start some "
            "(dask worker), or see why the batch system has not"
        )
        raise ConfigError(message) from error
    _check_versions(client.run(version, on_error="return"))
    cores: Mapping[str, int] = client.run(core_count, on_error="ignore")
    workers: Mapping[str, Mapping[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    reachable = {address: w for address, w in workers.items() if address in cores}
    if not reachable:
        message = f"--scheduler: {scheduler} lost its workers while they were asked; run again"
        raise ConfigError(message)
    slots = sum(int(w["nthreads"]) for w in reachable.values())
    shares = [w["memory_limit"] // w["nthreads"] for w in reachable.values() if w["memory_limit"]]
    hosts: dict[str, int] = {}
    for worker in reachable.values():
        hosts[worker["host"]] = hosts.get(worker["host"], 0) + int(worker["nthreads"])
    threads = min(cores[address] // hosts[w["host"]] for address, w in reachable.items())
    return Pool(
        slots=slots,
        memory=min(shares) * slots if shares else None,
        network_threads=max(1, threads),
        gpus=sum(1 for w in reachable.values() if w.get("resources", {}).get(GPU)),
    )


def slot_count(client: Any) -> int:  # noqa: ANN401
    """Return how many tasks the workers that are there now work on at once."""
    threads: Mapping[str, int] = client.nthreads()
    return max(1, sum(threads.values()))


def check_paths(client: Any, paths: tuple[str, ...]) -> None:  # noqa: ANN401
    """Check that every worker sees the directories of a run; who dies meanwhile is not asked.

    Parameters
    ----------
    client : distributed.Client
    paths : tuple of str
        What `is_visible` is asked of.

    Raises
    ------
    ConfigError
        If one does not.
    """
    for path in paths:
        answers: Mapping[str, bool] = client.run(is_visible, path, on_error="ignore")
        blind = sorted(address for address, sees in answers.items() if not sees)
        if blind:
            message = (
                f"--scheduler: {len(blind)} of {len(answers)} workers do not see {path} "
                f"({blind[0]}, for one); expected storage that all machines mount at the same "
                "place, or an object store and its credentials in the environment of every worker"
            )
            raise ConfigError(message)


def version() -> str:
    """Return the version of this package here."""
    return __version__


def core_count() -> int:
    """Return the cores that this process may use."""
    return machine.usable_cores()


def _address_in(file: Path) -> str:
    """Address of the scheduler that wrote a scheduler file."""
    try:
        return str(json.loads(file.read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = (
            f"--scheduler: {file} cannot be read as a scheduler file ({type(error).__name__}); "
            "expected the address of a running Dask scheduler (tcp://host:8786), or the file that "
            "dask scheduler --scheduler-file wrote"
        )
        raise ConfigError(message) from error


def _check_versions(versions: Mapping[str, object]) -> None:
    for address, answer in sorted(versions.items()):
        if answer == __version__ or isinstance(answer, OSError):  # it died meanwhile
            continue
        has = (
            f"anystar-batch {answer}"
            if isinstance(answer, str)
            else f"no anystar-batch that starts ({type(answer).__name__}: {answer})"
        )
        message = (
            f"--scheduler: worker {address} has {has}; expected {__version__}, as here; install "
            "the same version in the workers' environment"
        )
        raise ConfigError(message)
