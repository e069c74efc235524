"""What holds a training run up: workers, painting, the training step, or their meeting.

::

    KERAS_BACKEND=jax python -m bench.training --batch 64 --workers 15 --steps 40

Prints one JSON object: samples per second of each part alone and of all together, and the share of
the time in which the training step waited for a batch. `painting` is null where the workers paint.
The first call of everything is not in the figures; `first_calls_s` says how long these took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from anystar_batch.network.imports import stable_kernels
from trainer.config import APPEARANCES, TrainConfig
from trainer.feed import DEPTH, Batch, BatchSource, SyntheticSource, feed
from trainer.fit import stream_of, use_two_pools
from trainer.loss import compile_model
from trainer.synthesis.config import SampleConfig

WARM = 2
"""Calls before the clock starts."""


def main() -> None:
    """Measure and print."""
    stable_kernels()  # as the trainer does
    options = _parser().parse_args()
    config = TrainConfig() if options.config is None else read(options.config)
    config = dataclasses.replace(
        config,
        appearance=options.appearance,
        workers=options.workers,
        batch=options.batch,
        echo=options.echo,
        steps=options.steps + WARM,
        sample=SampleConfig.preset("as-mix", edge=options.edge)
        if options.config is None
        else config.sample,
    )
    use_two_pools()
    print(json.dumps(measured(config), indent=2))


def read(path: Path) -> TrainConfig:
    return TrainConfig.from_json(path.read_text())


def measured(config: TrainConfig) -> dict[str, Any]:
    """Return all figures of a config; it runs `config.steps - WARM` steps of each part."""
    import keras

    from anystar_batch.network.unet import build

    steps = config.steps - WARM
    device = config.appearance == "device"
    source: BatchSource[Any] = SyntheticSource(config)
    if device:
        from trainer.device.batch import GeometrySource

        source = GeometrySource(config)
    rates: dict[str, float | None] = {"workers": workers_alone(config, source, steps)}
    first_calls = {}

    batch, rates["painting"] = source.batch(0), None
    if device:
        from trainer.device.painter import painter, place

        paint, placed = painter(config.sample), place(batch)
        number = iter(range(steps + WARM))
        last: list[Any] = []

        def paint_one() -> None:
            last[:] = [paint(placed, config.seed, next(number))]

        def settled() -> None:
            keras.ops.convert_to_numpy(last[0][0, 0, 0, 0])

        first_calls["painting"], seconds = timed(paint_one, steps, settled)
        rates["painting"] = config.batch * steps / seconds
        batch = Batch(last[0], placed.prob, placed.dist)

    model = build(config.network, config.precision)
    compile_model(model, config)

    def train_one(made: Batch = batch) -> None:
        model.train_on_batch(made.image, [made.prob, made.dist])

    first_calls["training"], seconds = timed(train_one, steps, lambda: None)
    rates["training"] = config.batch * steps / seconds

    waited, begun = 0.0, 0.0
    with stream_of(config, 0) as stream:
        for step in range(config.steps):
            if step == WARM:
                waited, begun = 0.0, time.perf_counter()
            asked = time.perf_counter()
            made = next(stream)
            waited += time.perf_counter() - asked
            train_one(made)
        seconds = time.perf_counter() - begun
    rates["together"] = config.batch * steps / seconds
    return {
        "backend": keras.backend.backend(),
        "device": accelerator(),
        "appearance": config.appearance,
        "edge": config.sample.shape[0],
        "batch": config.batch,
        "echo": config.echo,
        "workers": config.workers,
        "steps": steps,
        "samples_per_second": {k: v and round(v, 2) for k, v in rates.items()},
        "waiting_share": round(waited / seconds, 4),
        "first_calls_s": {k: round(v, 2) for k, v in first_calls.items()},
    }


def workers_alone(config: TrainConfig, source: BatchSource[Any], steps: int) -> float:
    """Fresh samples per second that the workers make and send when nobody else works."""
    with feed(config, 0, source) as batches:
        # Every worker has begun, and what it had made ahead is gone.
        for _ in islice(batches, config.workers * (DEPTH + 2)):
            pass
        begun = time.perf_counter()
        for _ in islice(batches, steps):
            pass
        return config.batch * steps / (time.perf_counter() - begun)


def timed(call: Callable[[], None], steps: int, wait: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the first calls, and of `steps` more, until `wait` returns."""
    begun = time.perf_counter()
    for _ in range(WARM):
        call()
    wait()
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(steps):
        call()
    wait()
    return first, time.perf_counter() - begun


def accelerator() -> str:
    """Name of what the network runs on."""
    import keras

    devices = keras.distribution.list_devices()
    return str(devices[0]) if devices else "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("--config", type=Path, help="JSON, as a run's train.json")
    parser.add_argument("--appearance", choices=APPEARANCES, default="device")
    parser.add_argument("--edge", type=int, default=48, help="voxels an axis, without --config")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--echo", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    return parser


if __name__ == "__main__":
    main()
