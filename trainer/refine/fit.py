"""Train the second look; reads top to bottom.

A run's folder holds, beside its shards (`data`)::

    refine.json      the config
    curve.csv        a row per report: step, minute, loss, IoU before and after, share fed back
    checkpoint.npz   weights, optimiser, step: enough to go on
    weights.npz      the network's arrays by name, at the last checkpoint or the end

Step n of a seed sees the same finds whether the run was interrupted or not, and the rate depends
on the step alone. Plain Keras 3: the same code runs under KERAS_BACKEND=tensorflow and jax.
"""

from __future__ import annotations

import csv
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.network.profiles import neighbours
from anystar_batch.network.refiner import from_arrays
from anystar_batch.stars.rays import golden_spiral
from trainer.fit import Progress, load_checkpoint, save_checkpoint, use_two_pools
from trainer.refine.config import RefineConfig
from trainer.refine.data import Data, Sampler, load
from trainer.refine.network import build, restored, weights

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

REPORT = 100
"""Steps between two rows of the curve."""

WARM_UP = 100
"""Steps over which the rate rises."""

COLUMNS = ("step", "minute", "rate", "loss", "iou_before", "iou_after")


def fit(
    config: RefineConfig,
    folder: Path,
    teachers: Sequence[Mapping[str, NDArray[np.float32]]] = (),
    start: Mapping[str, NDArray[np.float32]] | None = None,
) -> keras.Model:
    """Train from the folder's checkpoint, or from nothing; or learn what others say.

    Parameters
    ----------
    config : RefineConfig
    folder : Path
        With shards.
    teachers : sequence of arrays by name
        Those that the config names, in its order. Their mean answer is what is learnt, and the
        first is where training begins without a start.
    start : arrays by name, optional
        That of the config, where training begins.

    Returns
    -------
    keras.Model

    Raises
    ------
    ConfigError
        If the folder belongs to a run with another config, but for its budget, or the teachers or
        the start are not those of the config.
    """
    check_given(config, teachers, start)
    claim(config, folder)
    use_two_pools()
    import keras  # noqa: PLC0415  (10 s)

    keras.utils.set_random_seed(config.seed)
    data = load(folder, "train", config.sizes)
    directions = golden_spiral(data.dist.shape[1]).vertices
    sampler = Sampler(data, directions, neighbours(directions))
    taught = [restored(sampler.near, arrays) for arrays in teachers]
    first = [start] if start is not None else [*teachers]
    model = restored(sampler.near, first[0]) if first else build(sampler.near, config.widths)
    trained = compiled(model, config)
    progress = Progress()
    if (folder / "checkpoint.npz").exists():
        progress = load_checkpoint(trained, folder / "checkpoint.npz")
        logger.info("resumed at step %d", progress.step)
    draw = Draw(data, config)
    started, window = time.monotonic() - 60.0 * progress.minutes, []
    with (folder / "curve.csv").open("a", newline="") as out:
        curve = csv.DictWriter(out, COLUMNS)
        if out.tell() == 0:
            curve.writeheader()
        while progress.step < config.steps:
            index, dist = draw.batch(progress.step)
            inputs = list(sampler.inputs(index, dist))
            back = round(config.fed_back * config.batch)
            if back:
                factor, _ = model.predict_on_batch([part[:back] for part in inputs])
                dist[:back] *= np.exp(factor)
                again = sampler.inputs(index[:back], dist[:back])
                for part, new in zip(inputs, again, strict=True):
                    part[:back] = new
            trained.optimizer.learning_rate = rate(config, progress.step)
            said = _answer(taught, inputs, data.ray_voxels(index, dist) >= config.taught_from)
            wanted = np.concatenate([data.truth[index], dist, *said], axis=1)
            loss = trained.train_on_batch(inputs, wanted)
            trained.reset_metrics()
            window.append((float(np.ravel(loss)[0]), *reached(data.truth[index], dist)))
            progress.step += 1
            progress.minutes = (time.monotonic() - started) / 60.0
            if progress.step % REPORT == 0 or progress.step == config.steps:
                curve.writerow(_row(config, progress, window, model, sampler))
                out.flush()
                window = []
            if progress.step % config.checkpoint_steps == 0 or progress.step == config.steps:
                save_checkpoint(trained, folder / "checkpoint.npz", progress)
                save_arrays(folder / "weights.npz", weights(model))
    return model


def _answer(
    teachers: Sequence[keras.Model],
    inputs: list[NDArray[np.float32]],
    asked: NDArray[np.bool_],
) -> list[NDArray[np.float32]]:
    """Return the teachers' mean answer, [b, n_rays] and [b, 1], and who is asked, [b, 1].

    Nothing without teachers.
    """
    if not teachers:
        return []
    answers = [teacher.predict_on_batch(inputs) for teacher in teachers]
    factor, quality = (np.mean([a[k] for a in answers], axis=0) for k in (0, 1))
    return [factor, quality[:, None], asked[:, None].astype(np.float32)]


def check_given(
    config: RefineConfig,
    teachers: Sequence[Mapping[str, NDArray[np.float32]]],
    start: Mapping[str, NDArray[np.float32]] | None,
) -> None:
    """Check that the teachers and the start are those that the config names.

    Raises
    ------
    ConfigError
        If they are not.
    """
    found = tuple(from_arrays(arrays).sha256 for arrays in teachers)
    if found != config.teachers:
        message = f"refine: got the teachers {found}; the config names {config.teachers}"
        raise ConfigError(message)
    first = "" if start is None else from_arrays(start).sha256
    if first != config.start:
        message = f"refine: got the start {first!r}; the config names {config.start!r}"
        raise ConfigError(message)


def claim(config: RefineConfig, folder: Path) -> None:
    """Write the config, or raise if the folder's own differs, but for its budget of steps.

    Raises
    ------
    ConfigError
        If the folder holds a run with another config.
    """
    path = folder / "refine.json"
    if path.exists() and (folder / "checkpoint.npz").exists():
        saved = RefineConfig.from_json(path.read_text())
        saved = dataclasses.replace(
            saved, steps=config.steps, checkpoint_steps=config.checkpoint_steps
        )
        if saved != config:
            message = f"refine: {folder} holds a run with another config; expected an empty folder"
            raise ConfigError(message)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(config.to_json() + "\n")


class Draw:
    """Which finds a step sees, and with which distances: a function of seed and step.

    Parameters
    ----------
    data : Data
    config : RefineConfig
    """

    def __init__(self, data: Data, config: RefineConfig) -> None:
        self._data, self._config = data, config
        self._true, self._false = np.flatnonzero(data.is_true), np.flatnonzero(~data.is_true)

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return finds [batch], true and false ones mixed, and the distances that go in."""
        config = self._config
        rng = np.random.default_rng([config.seed, step, 3])
        n_false = round(config.batch * config.false_share) if len(self._false) else 0
        index = np.concatenate(
            [rng.choice(self._true, config.batch - n_false), rng.choice(self._false, n_false)]
            if n_false
            else [rng.choice(self._true, config.batch)]
        )
        index = rng.permutation(index).astype(np.int64)
        factor = np.exp(config.jitter * rng.standard_normal((config.batch, 1)))
        return index, (self._data.dist[index] * factor).astype(np.float32)


def rate(config: RefineConfig, step: int) -> float:
    """Return the learning rate of a step: a short rise, then a half cosine to 0."""
    rise = min(1.0, (step + 1) / WARM_UP)
    return config.rate * rise * 0.5 * (1.0 + float(np.cos(np.pi * step / config.steps)))


def compiled(model: keras.Model, config: RefineConfig) -> keras.Model:
    """Return the network with one output, [b, n_rays + 1], and the loss attached.

    Parameters
    ----------
    model : keras.Model
        From `network.build`; shares its weights.
    config : RefineConfig
    """
    import keras  # noqa: PLC0415

    ops = keras.ops
    factor, quality = model.outputs
    joined = ops.concatenate([factor, ops.expand_dims(quality, -1)], axis=-1)
    trained = keras.Model(model.inputs, joined)

    def crossed(expected: Any, judged: Any) -> Any:  # noqa: ANN401  (tensors of any backend)
        judged = ops.clip(judged, 1e-6, 1.0 - 1e-6)
        entropy = expected * ops.log(judged) + (1.0 - expected) * ops.log(1.0 - judged)
        return -config.quality_weight * ops.mean(entropy)

    def taught(wanted: Any, answer: Any) -> Any:  # noqa: ANN401
        n_rays = answer.shape[-1] - 1
        said, asked = wanted[:, 2 * n_rays : -1], wanted[:, -1]
        apart = ops.mean(ops.abs(answer[:, :n_rays] - said[:, :n_rays]), axis=-1)
        outline, there, reached_iou = judged(wanted, answer)
        quality = asked * said[:, -1] + (1.0 - asked) * reached_iou
        learnt = asked * config.taught_weight * apart + (1.0 - asked) * there * outline
        return ops.mean(learnt) + crossed(quality, answer[:, -1])

    def loss(wanted: Any, answer: Any) -> Any:  # noqa: ANN401
        outline, there, reached_iou = judged(wanted, answer)
        objects = ops.maximum(ops.sum(there), 1.0)
        return ops.sum(there * outline) / objects + crossed(reached_iou, answer[:, -1])

    def judged(wanted: Any, answer: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401
        """Loss of each outline, whether there is an object, and the IoU reached: each [b]."""
        n_rays = answer.shape[-1] - 1
        truth, dist = wanted[:, :n_rays], wanted[:, n_rays : 2 * n_rays]
        known = ops.cast(truth > 0.0, "float32")
        there = ops.cast(ops.any(truth > 0.0, axis=-1), "float32")
        safe = ops.where(truth > 0.0, truth, ops.ones_like(truth))
        found = dist * ops.exp(answer[:, :n_rays])
        small = ops.sum(known * ops.minimum(safe, found) ** 3, axis=-1)
        large = ops.sum(known * ops.maximum(safe, found) ** 3, axis=-1)
        log_iou = ops.log(small + 1e-3) - ops.log(large + 1e-3)
        error = ops.sum(known * ops.abs(ops.log(found / safe)), axis=-1)
        error = error / ops.maximum(ops.sum(known, axis=-1), 1.0)
        reached_iou = ops.stop_gradient(ops.exp(log_iou) * there)
        return config.error_weight * error - log_iou, there, reached_iou

    trained.compile(
        optimizer=keras.optimizers.AdamW(config.rate, weight_decay=1e-4, clipnorm=1.0),
        loss=taught if config.teachers else loss,
        jit_compile=keras.backend.backend() == "jax",
    )
    trained.optimizer.build(trained.trainable_variables)
    return trained


def star_iou(truth: NDArray[np.float32], dist: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of stars around the same points, over the rays whose truth is known.

    Parameters
    ----------
    truth : [n, n_rays]
        Positive where known.
    dist : [n, n_rays]

    Returns
    -------
    float32 [n]
        0 where nothing is known: a false find.
    """
    known = truth > 0
    small = (np.where(known, np.minimum(truth, dist), 0.0) ** 3).sum(axis=1)
    large = (np.where(known, np.maximum(truth, dist), 0.0) ** 3).sum(axis=1)
    return np.asarray(small / np.maximum(large, 1e-6), np.float32)


def reached(truth: NDArray[np.float32], dist: NDArray[np.float32]) -> tuple[float]:
    """Return the mean IoU of the true finds."""
    there = (truth > 0).any(axis=1)
    return (float(star_iou(truth[there], dist[there]).mean()) if there.any() else 0.0,)


def _row(
    config: RefineConfig,
    progress: Progress,
    window: Sequence[tuple[float, ...]],
    model: keras.Model,
    sampler: Sampler,
) -> dict[str, float]:
    """Return a row of the curve; after: on finds of the step that comes next."""
    index, dist = Draw(sampler.data, config).batch(progress.step)
    factor, _ = model.predict_on_batch(list(sampler.inputs(index, dist)))
    after = reached(sampler.data.truth[index], dist * np.exp(factor))[0]
    means = np.mean(window, axis=0)
    row = (progress.step, progress.minutes, rate(config, progress.step - 1), *means, after)
    named = dict(zip(COLUMNS, (round(float(v), 5) for v in row), strict=True))
    logger.info("%s", named)
    return named


def save_arrays(path: Path, arrays: dict[str, NDArray[np.float32]]) -> None:
    """Write arrays, complete or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)
