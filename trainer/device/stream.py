"""Batches for the training loop, painted on the device one step ahead of it.

::

    worker queues -> geometry batch -> device -> kept for `echo` rounds
                          each round paints every kept batch once, the newest first
    a thread: painting k + 1, k + 2       the loop: training step k

The thread unpacks and copies what the workers send and asks for the paintings; it waits for none
of them. At most `AHEAD` painted batches are asked for and not yet used.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from anystar_batch.errors import ConfigError
from trainer.config import TrainConfig
from trainer.device.batch import GeometryBatch
from trainer.device.painter import Placed, painter, place
from trainer.feed import Batch

AHEAD = 2
"""Painted batches that wait for the loop."""

Item = TypeVar("Item")


def painted(
    batches: Iterator[Batch | GeometryBatch], config: TrainConfig, step: int
) -> Iterator[Batch]:
    """Paint every geometry batch `echo` times, each time with an appearance of its own.

    Parameters
    ----------
    batches : iterator of GeometryBatch
    config : TrainConfig
    step : int
        Steps done so far: painting n of a run is the same wherever the run is cut.

    Yields
    ------
    Batch
        Its arrays are tensors on the device.

    Raises
    ------
    ConfigError
        If a batch already holds images, or a step of the config is not made on the device.
    """
    paint = painter(config.sample)
    kept: deque[Placed] = deque(maxlen=config.echo)
    for batch in batches:
        if not isinstance(batch, GeometryBatch):
            message = (
                "train: appearance 'device' paints geometry, but the source sent images; expected "
                "GeometrySource, or appearance 'workers'"
            )
            raise ConfigError(message)
        kept.appendleft(place(batch))
        for placed in tuple(kept):
            yield Batch(paint(placed, config.seed, step), placed.prob, placed.dist)
            step += 1


@contextmanager
def ahead(items: Iterator[Item], depth: int = AHEAD) -> Iterator[Iterator[Item]]:
    """Run an iterator in a thread, at most `depth` items ahead.

    Parameters
    ----------
    items : iterator
        Not used by anybody else from here on.
    depth : int

    Yields
    ------
    iterator
        The same items; raises what `items` raised.
    """
    channel: _Channel[Item] = _Channel(queue.Queue(depth), threading.Event())
    thread = threading.Thread(target=_pump, args=(items, channel), name="painter", daemon=True)
    thread.start()
    try:
        yield _take(channel)
    finally:
        channel.stop.set()
        # A thread that waits for a worker ends with it, or with the process.
        thread.join(timeout=10.0)


@dataclass(frozen=True, slots=True)
class _Channel(Generic[Item]):
    """What the thread has made: items, then None or an error."""

    ready: queue.Queue[Item | BaseException | None]
    stop: threading.Event

    def put(self, item: Item | BaseException | None) -> None:
        """Wait for room, unless nobody reads any more."""
        while not self.stop.is_set():
            try:
                self.ready.put(item, timeout=0.2)
            except queue.Full:
                continue
            return


def _pump(items: Iterator[Item], channel: _Channel[Item]) -> None:
    """Move items into the channel until they or their reader end."""
    try:
        for item in items:
            channel.put(item)
            if channel.stop.is_set():
                return
        channel.put(None)
    except BaseException as error:  # noqa: BLE001  (raised again by the reader)
        channel.put(error)


def _take(channel: _Channel[Item]) -> Iterator[Item]:
    """Yield what arrives, raise what went wrong."""
    while (item := channel.ready.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
