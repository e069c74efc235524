"""Batches made by other processes while the network trains.

What a batch is made of is a `BatchSource`'s affair: synthetic samples, or patches of labelled
images (`patches`). Of the synthetic one, batch b holds samples b * size .. (b + 1) * size - 1 of
a seed, whoever makes it: worker w of n makes batches w, w + n, w + 2 n, ..., each into its own
bounded queue, and the reader takes the queues in turn. The sequence therefore depends on the seed
alone, not on speed or worker count, and a resumed run continues it.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import AnyStarBatchError
from anystar_batch.geometry import ZYX
from anystar_batch.stars.rays import golden_spiral
from trainer.config import TrainConfig
from trainer.synthesis.config import SampleConfig
from trainer.synthesis.sample import make_sample
from trainer.synthesis.targets import targets

DEPTH = 3
"""Batches a worker may be ahead of the reader."""

PATIENCE = 300.0
"""Seconds without a batch after which the workers are looked at."""

LAG = 8
"""Batches between one and its echo."""

_THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one training step reads.

    Parameters
    ----------
    image : float32 (b, z, y, x, 1)
        0 to 1.
    prob : float32 (b, z / grid, y / grid, x / grid, 1)
        -1 where it is not known: the loss leaves such points out.
    dist : float16 (b, z / grid, y / grid, x / grid, n_rays + 1)
        Distances in voxels; the last channel is the weight of the point, its probability.
    """

    image: NDArray[np.float32]
    prob: NDArray[np.float32]
    dist: NDArray[np.float16]


Made = TypeVar("Made", covariant=True)


class BatchSource(Protocol[Made]):
    """Whatever makes batches: picklable, and a pure function of the batch's number.

    They are of one type: `Batch`, or `device.batch.GeometryBatch` where the device paints.
    """

    def batch(self, index: int) -> Made:
        """Return batch `index`."""


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """The samples of a config.

    Parameters
    ----------
    config : TrainConfig
    """

    config: TrainConfig

    def batch(self, index: int) -> Batch:
        """Return samples `index * size` to `(index + 1) * size - 1` of the config's seed."""
        config = self.config
        target = (config.network.grid, config.network.n_rays)
        return make_batch(config.seed, index, config.batch, config.sample, target)


def make_batch(
    seed: int, index: int, size: int, config: SampleConfig, out: tuple[ZYX, int]
) -> Batch:
    """Make one batch.

    Parameters
    ----------
    seed, index, size : int
    config : SampleConfig
    out : (grid, n_rays)
        Grid of the network's output, voxels per point (z, y, x), and number of rays.

    Returns
    -------
    Batch
    """
    grid, n_rays = out
    rays = golden_spiral(n_rays)
    images, probs, dists = [], [], []
    for n in range(index * size, (index + 1) * size):
        sample = make_sample(seed, n, config)
        prob, dist = targets(sample.labels, rays, grid)
        images.append(sample.image[..., None])
        probs.append(prob[..., None])
        dists.append(np.concatenate([dist, prob[..., None]], axis=-1).astype(np.float16))
    return Batch(np.stack(images), np.stack(probs), np.stack(dists))


@contextmanager
def feed(
    config: TrainConfig, start: int, batches: BatchSource[Any] | None = None
) -> Iterator[Iterator[Any]]:
    """Run the workers, and yield an endless iterator of batches from batch `start` on.

    Parameters
    ----------
    config : TrainConfig
    start : int
        First batch, i.e. steps done so far.
    batches : BatchSource, optional
        What makes them; the config's synthetic samples by default.

    Yields
    ------
    iterator of Batch, or of what the source makes

    Raises
    ------
    AnyStarBatchError
        From the iterator, if a worker died.
    """
    context = multiprocessing.get_context("spawn")
    count = config.workers
    source = SyntheticSource(config) if batches is None else batches
    queues: list[Queue[Any]] = [context.Queue(DEPTH) for _ in range(count)]
    workers: list[SpawnProcess] = []
    # Threads are counted when libraries load, so the children must be born into this.
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        for w in range(count):
            worker = context.Process(
                target=_work, args=(source, start + w, count, queues[w]), daemon=True
            )
            worker.start()
            workers.append(worker)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    try:
        yield _take(queues, workers)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        for channel in queues:
            channel.close()
            channel.cancel_join_thread()


def echoed(batches: Iterator[Batch], echo: int, seed: int) -> Iterator[Batch]:
    """Yield every batch `echo` times, the later ones `LAG` batches on, with bent intensities.

    Parameters
    ----------
    batches : iterator of Batch
    echo : int
    seed : int
        Of the bending.

    Yields
    ------
    Batch
    """
    rng = np.random.default_rng(seed)
    kept: deque[Batch] = deque()
    for batch in batches:
        yield batch
        kept.append(batch)
        if len(kept) > LAG:
            old = kept.popleft()
            for _ in range(echo - 1):
                yield Batch(bent(rng, old.image), old.prob, old.dist)


def bent(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return images (b, z, y, x, 1) with another gamma, range and a little noise each."""
    shape = (len(image), 1, 1, 1, 1)
    gamma = np.exp(rng.uniform(-0.4, 0.4, shape)).astype(np.float32)
    gain = rng.uniform(0.7, 1.2, shape).astype(np.float32)
    noise = rng.uniform(0.0, 0.03, shape).astype(np.float32)
    grain = rng.standard_normal(image.shape, np.float32)
    return np.clip(image**gamma * gain + noise * grain, 0.0, 1.0)


def _work(source: BatchSource[Any], first: int, stride: int, out: Queue[Any]) -> None:
    """Make every `stride`-th batch for as long as the reader lives."""
    reader = multiprocessing.parent_process()
    # Else the exit waits until somebody has read what is still in the pipe.
    out.cancel_join_thread()
    index = first
    batch = source.batch(index)
    while reader is not None and reader.is_alive():
        # A reader that was killed takes nothing more and says nothing: look at it now and then.
        try:
            out.put(batch, timeout=5.0)
        except queue.Full:
            continue
        index += stride
        batch = source.batch(index)


def _take(queues: list[Queue[Any]], workers: list[SpawnProcess]) -> Iterator[Batch]:
    """Take batches from the queues in turn."""
    turn = 0
    while True:
        try:
            yield queues[turn].get(timeout=PATIENCE)
        except queue.Empty as error:
            message = (
                f"trainer: worker {turn} sent no batch in {PATIENCE:.0f} s "
                f"(exit code {workers[turn].exitcode}); see its message above"
            )
            raise AnyStarBatchError(message) from error
        turn = (turn + 1) % len(queues)
