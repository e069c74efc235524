"""Train a network on samples; reads top to bottom.

A run lives in one folder::

    train.json       the config
    curve.csv        one row per report: minute, step, samples, losses, waiting share, scores
    checkpoint.npz   weights, optimiser, running average, step, minutes: enough to go on
    weights_last.h5  weights as they are; weights_best.h5  the average over the run's end
    weights_average.h5  the average so far, where one is kept already

The learning rate falls linearly to 0 over the budget, or over its end (`fall_from`). The budget is
wall-clock time by default: the run ends on time on a busy machine too.

Plain Keras 3: the same code runs under KERAS_BACKEND=tensorflow and jax.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.network.unet import build
from anystar_batch.network.weights import load_weights, save_weights
from trainer.config import TrainConfig
from trainer.feed import Batch, BatchSource, echoed, feed
from trainer.loss import compile_model

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

WARM_UP = 50
"""Steps over which the learning rate rises to its start."""

REPORT = 25
"""Steps between two rows of the curve."""

TIMED_STEPS = 5
"""Steps by which a precision is timed."""

AVERAGE = 10
"""Steps between two weights that enter the average."""

COLUMNS = (
    "minute",
    "step",
    "samples",
    "learning_rate",
    "loss_prob",
    "loss_dist",
    "waiting_share",
    "samples_per_second",
)


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Parameters
    ----------
    step : int
        Steps done.
    minutes : float
        Wall-clock time spent training, over all resumed parts.
    waited : float
        Seconds of that in which the network waited for samples.
    averaged : int
        Weights in the running average.
    average : list of arrays
        Their mean, in the order of `model.get_weights()`.
    """

    step: int = 0
    minutes: float = 0.0
    waited: float = 0.0
    averaged: int = 0
    average: list[NDArray[np.float32]] = field(default_factory=list)

    def share(self, config: TrainConfig) -> float:
        """Return the share of the budget that is spent."""
        by_time = self.minutes / config.minutes if config.minutes > 0 else 0.0
        by_step = self.step / config.steps if config.steps > 0 else 0.0
        return min(1.0, max(by_time, by_step))


def fit(  # noqa: C901, PLR0915  (the whole of a run, in its order)
    config: TrainConfig,
    folder: Path,
    on_report: Callable[[dict[str, float]], None] | None = None,
    start: Path | None = None,
    batches: BatchSource[Any] | None = None,
) -> keras.Model:
    """Train from the folder's checkpoint, from given weights, or from nothing.

    Parameters
    ----------
    config : TrainConfig
    folder : Path
        Of the run; made if need be.
    on_report : callable, optional
        Called with every row of the curve.
    start : Path, optional
        Weights (.h5) of the same network to begin a new run with.
    batches : BatchSource, optional
        What the network sees; the config's synthetic samples by default. Of `GeometryBatch` where
        the config wants appearance made on the device.

    Returns
    -------
    keras.Model
        With the averaged weights.

    Raises
    ------
    ConfigError
        If the folder belongs to a run with another config, but for its budget and workers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, config)
    use_two_pools()
    import keras  # noqa: PLC0415  (10 s)

    keras.utils.set_random_seed(config.seed)
    precision = step_precision(config)
    model = build(config.network, precision)
    start_heads(model, config)
    compile_model(model, config)
    progress, frozen = Progress(), False
    if start is not None and not (folder / "checkpoint.npz").exists():
        load_weights(model, start)
        logger.info("weights of %s", start)
    if (folder / "checkpoint.npz").exists():
        progress = load_checkpoint(model, folder / "checkpoint.npz")
        logger.info("resumed at step %d, minute %.1f", progress.step, progress.minutes)

    started = time.monotonic() - progress.minutes * 60.0
    saved = time.monotonic()
    window, first_step = _Window(progress), progress.step
    with (
        stream_of(config, progress.step, batches) as stream,
        (folder / "curve.csv").open("a", newline="") as out,
    ):
        curve = csv.DictWriter(out, COLUMNS)
        if out.tell() == 0:
            curve.writeheader()
        while progress.share(config) < 1.0:
            if not frozen and progress.share(config) >= config.freeze_norm_from:
                model, frozen = freeze_norm(model, config, precision, folder, progress), True
            asked = time.monotonic()
            batch = next(stream)
            waited = time.monotonic() - asked
            if progress.step == first_step:
                # Starting the workers is no share of the work, and not in the budget.
                started += waited
            else:
                progress.waited += waited

            window.losses.append(step(model, batch, learning_rate(config, progress)))
            progress.step += 1
            progress.minutes = (time.monotonic() - started) / 60.0

            if progress.share(config) >= config.average_from and progress.step % AVERAGE == 0:
                _average(progress, model.get_weights(), config.average_window)
            if progress.step % REPORT == 0 or progress.share(config) >= 1.0:
                row = window.row(config, progress)
                curve.writerow(row)
                out.flush()
                window = _Window(progress)
                if on_report is not None:
                    on_report(row)
            if time.monotonic() - saved > config.checkpoint_minutes * 60.0:
                _save(model, folder, progress)
                saved = time.monotonic()

    save_checkpoint(model, folder / "checkpoint.npz", progress)
    save_weights(model, folder / "weights_last.h5")
    if progress.averaged:
        model.set_weights(progress.average)
    save_weights(model, folder / "weights_best.h5")
    return model


@contextmanager
def stream_of(
    config: TrainConfig, step: int, batches: BatchSource[Any] | None = None
) -> Iterator[Iterator[Batch]]:
    """Run workers, and the painter if appearance is made on the device; yield what steps read.

    Parameters
    ----------
    config : TrainConfig
    step : int
        Steps done so far.
    batches : BatchSource, optional
        As in `fit`.

    Yields
    ------
    iterator of Batch
        Endless.
    """
    first = -(-step // config.echo)
    if config.appearance == "workers":
        with feed(config, first, batches) as fresh:
            yield echoed(fresh, config.echo, config.seed + step)
        return
    from trainer.device.batch import GeometrySource  # noqa: PLC0415
    from trainer.device.stream import ahead, painted  # noqa: PLC0415  (Keras)

    source = GeometrySource(config) if batches is None else batches
    with feed(config, first, source) as fresh, ahead(painted(fresh, config, step)) as stream:
        yield stream


def step(model: keras.Model, batch: Batch, rate: float) -> tuple[float, float]:
    """Do one step.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    batch : Batch
    rate : float
        Learning rate.

    Returns
    -------
    prob, dist : float
        The losses of probability and distances, of this step alone.
    """
    model.optimizer.learning_rate = rate
    losses = model.train_on_batch(batch.image, [batch.prob, batch.dist])
    model.reset_metrics()  # or else Keras gives the running mean since the last reset
    return float(losses[1]), float(losses[2])


def use_two_pools() -> None:
    """Let TensorFlow run operations side by side: one thread pool alone halves the speed.

    Measured on two cores (docs/training.md). Has an effect only before TensorFlow is loaded.
    """
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def step_precision(config: TrainConfig) -> str:
    """Return the precision of the config; of `auto` the one whose steps are faster here.

    The processor's flags do not tell: with `avx512_bf16` bfloat16 was 1.6 times faster on one
    processor and 1.6 times slower on another.

    Parameters
    ----------
    config : TrainConfig

    Returns
    -------
    str
        "float32" or "bfloat16".
    """
    if config.precision != "auto":
        return config.precision
    n, shape = config.batch, config.sample.shape
    points = tuple(a // b for a, b in zip(shape, config.network.grid, strict=True))
    image = np.zeros((n, *shape, 1), np.float32)
    truth = [
        np.zeros((n, *points, 1), np.float32),
        np.ones((n, *points, config.network.n_rays + 1), np.float16),
    ]
    seconds = {}
    for precision in ("float32", "bfloat16"):
        model = build(config.network, precision)
        compile_model(model, config)
        model.train_on_batch(image, truth)
        started = time.perf_counter()
        for _ in range(TIMED_STEPS):
            model.train_on_batch(image, truth)
        seconds[precision] = (time.perf_counter() - started) / TIMED_STEPS
    logger.info("seconds a step: %s", {k: round(v, 3) for k, v in seconds.items()})
    return min(seconds, key=lambda k: seconds[k])


def start_heads(model: keras.Model, config: TrainConfig) -> None:
    """Let a fresh network answer the mean: a fifth of the points inside, a middling radius.

    Parameters
    ----------
    model : keras.Model
    config : TrainConfig
    """
    low, high = config.sample.shapes.radius
    for name, value in (("prob", -1.4), ("dist", 0.8 * float(np.sqrt(low * high)))):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel, np.full_like(bias, value)])


def freeze_norm(
    model: keras.Model, config: TrainConfig, precision: str, folder: Path, progress: Progress
) -> keras.Model:
    """Return the same network, by way of a checkpoint, with normalisation as at inference."""
    logger.info("normalisation frozen at step %d", progress.step)
    save_checkpoint(model, folder / "checkpoint.npz", progress)
    frozen = build(config.network, precision, frozen_norm=True)
    compile_model(frozen, config)
    load_checkpoint(frozen, folder / "checkpoint.npz")
    return frozen


def learning_rate(config: TrainConfig, progress: Progress) -> float:
    """Return the rate of the next step: a short rise, flat to `fall_from`, then linear to 0."""
    rise = min(1.0, (progress.step + 1) / WARM_UP)
    left = (1.0 - progress.share(config)) / (1.0 - config.fall_from)
    return config.learning_rate * rise * min(1.0, left)


def save_checkpoint(model: keras.Model, path: Path, progress: Progress) -> None:
    """Write everything a run needs to go on, complete or not at all.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    path : Path
    progress : Progress
    """
    arrays: dict[str, Any] = {}
    for kind, values in (
        ("weight", model.get_weights()),
        ("optimizer", [np.asarray(v.numpy()) for v in model.optimizer.variables]),
        ("average", progress.average),
    ):
        arrays.update({f"{kind}_{k:04d}": v for k, v in enumerate(values)})
    arrays["progress"] = np.array(
        [progress.step, progress.minutes, progress.waited, progress.averaged], np.float64
    )
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)


def load_checkpoint(model: keras.Model, path: Path) -> Progress:
    """Read what `save_checkpoint` wrote into a model compiled alike.

    Parameters
    ----------
    model : keras.Model
    path : Path

    Returns
    -------
    Progress
    """
    with np.load(path, allow_pickle=False) as file:
        groups: dict[str, list[NDArray[Any]]] = {"weight": [], "optimizer": [], "average": []}
        for name in sorted(file.files):
            kind = name.rpartition("_")[0]
            if kind in groups:
                groups[kind].append(file[name])
        step, minutes, waited, averaged = (float(v) for v in file["progress"])
    model.set_weights(groups["weight"])
    for variable, value in zip(model.optimizer.variables, groups["optimizer"], strict=True):
        variable.assign(value)
    return Progress(int(step), minutes, waited, int(averaged), groups["average"])


@dataclass(slots=True)
class _Window:
    """What was true when the current row of the curve began."""

    first_step: int
    first_minute: float
    first_waited: float
    losses: list[tuple[float, float]]

    def __init__(self, progress: Progress) -> None:
        self.first_step = progress.step
        self.first_minute = progress.minutes
        self.first_waited = progress.waited
        self.losses = []

    def row(self, config: TrainConfig, progress: Progress) -> dict[str, float]:
        """Return the row that ends now."""
        seconds = max((progress.minutes - self.first_minute) * 60.0, 1e-9)
        steps = progress.step - self.first_step
        values = (
            round(progress.minutes, 3),
            progress.step,
            progress.step * config.batch // config.echo,
            learning_rate(config, progress),
            round(float(np.mean([loss[0] for loss in self.losses])), 5),
            round(float(np.mean([loss[1] for loss in self.losses])), 5),
            round((progress.waited - self.first_waited) / seconds, 4),
            round(steps * config.batch / seconds, 3),
        )
        return dict(zip(COLUMNS, values, strict=True))


def _save(model: keras.Model, folder: Path, progress: Progress) -> None:
    """Write checkpoint and weights, and the average so far where there is one."""
    save_checkpoint(model, folder / "checkpoint.npz", progress)
    save_weights(model, folder / "weights_last.h5")
    if progress.averaged:
        own = model.get_weights()
        model.set_weights(progress.average)
        save_weights(model, folder / "weights_average.h5")
        model.set_weights(own)


def _average(progress: Progress, weights: list[NDArray[np.float32]], window: int) -> None:
    """Enter weights into the running mean, of `window` weights where it is not 0."""
    progress.averaged += 1
    if not progress.average:
        progress.average = [w.copy() for w in weights]
        return
    pairs = zip(progress.average, weights, strict=True)
    share = np.float32(1.0 / (min(progress.averaged, window) if window else progress.averaged))
    progress.average = [mean + (weight - mean) * share for mean, weight in pairs]


def _claim(folder: Path, config: TrainConfig) -> None:
    """Write the config into the folder, or refuse a folder of another run."""
    path = folder / "train.json"
    free = {"minutes", "steps", "workers", "appearance", "precision", "checkpoint_minutes"}
    ours = json.loads(config.to_json())
    if path.exists():
        # Keys that an older version did not write take their defaults.
        theirs = json.loads(TrainConfig.from_json(path.read_text()).to_json())
        differing = sorted(k for k in ours if k not in free and ours[k] != theirs[k])
        if differing:
            message = (
                f"train: {folder} holds a run that differs in {', '.join(differing)}; expected "
                "the same config to go on; choose another folder"
            )
            raise ConfigError(message)
    temporary = path.with_name(".train.json.partial")
    temporary.write_text(config.to_json())
    temporary.replace(path)
