"""A training step's speed by batch: the trainer's own step, on samples made before.

Eight samples are made and repeated to fill a batch, so that no worker holds the step up; whether
workers keep up with it is asked by `python -m bench.training`. Images and targets lie in the
machine's memory and travel with every step, as in a run. A network is built once and sees batches
of all sizes; the first step of each size compiles.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.gpu.device import Clock, Device, repeated
from bench.gpu.network import Message, failure
from bench.gpu.sizes import Case, Sizes
from trainer.config import TrainConfig
from trainer.feed import Batch, SyntheticSource
from trainer.fit import step
from trainer.loss import compile_model
from trainer.synthesis.config import SampleConfig

MADE = 8
"""Different samples of a batch."""


def rows(
    sizes: Sizes,
    precision: str,
    device: Device,
    left: Callable[[], float],
    build: Callable[[TrainConfig], Any] | None = None,
    clock: Clock = time.perf_counter,
) -> Iterator[Message]:
    """Time the steps of a precision; a batch that does not fit is told, and larger ones left out.

    Parameters
    ----------
    sizes : Sizes
    precision : str
    device : Device
    left : callable
        Seconds left to this part.
    build : callable, optional
        Makes the compiled network of a config; None is the trainer's.
    clock : callable

    Yields
    ------
    dict
    """
    longest, made, models = 0.0, {}, {}
    full: set[tuple[int, int]] = set()
    for case in sizes.cases(precision):
        if (case.base, case.edge) in full:
            yield {"left_out": case.name, "why": "a smaller batch did not fit"}
            continue
        if left() < longest:
            yield {"left_out": case.name, "why": "no time"}
            continue
        yield {"begun": case.name}
        config, began = config_of(case), clock()
        if case.edge not in made:
            some = dataclasses.replace(config, batch=min(MADE, sizes.batches[-1]))
            made[case.edge] = SyntheticSource(some).batch(0)
        try:
            building = clock()
            if case.base not in models:
                models[case.base] = (build or built)(config)
            building = clock() - building
            batch = filled(made[case.edge], case.batch)
            row = speed(models[case.base], batch, sizes.seconds, clock)
            row["build_seconds"] = round(building, 3)
        except Exception as error:  # noqa: BLE001  (told, and the next case begins)
            row = failure(error)
            models.pop(case.base, None)  # half a step may have spoilt it
            if row.get("out_of_memory"):
                full.add((case.base, case.edge))
            device.forget()
        row["peak_device_bytes"] = device.risen()
        yield {"row": {"case": case.name, **dataclasses.asdict(case), **row}}
        longest = max(longest, clock() - began)


def config_of(case: Case) -> TrainConfig:
    """Return a training run of the released recipe with another width, size and batch."""
    config = TrainConfig()
    return dataclasses.replace(
        config,
        batch=case.batch,
        precision=case.precision,
        network=dataclasses.replace(config.network, unet_n_filter_base=case.base),
        sample=SampleConfig.preset("as-mix", edge=case.edge),
    )


def built(config: TrainConfig) -> Any:  # noqa: ANN401  (a Keras model)
    """Return the network as the trainer builds and compiles it."""
    from anystar_batch.network.unet import build

    model = build(config.network, config.precision)
    compile_model(model, config)
    return model


def filled(some: Batch, size: int) -> Batch:
    """Return a batch of so many samples, repeated as often as need be."""
    at = np.arange(size) % len(some.image)
    return Batch(some.image[at], some.prob[at], some.dist[at])


def speed(model: Any, batch: Batch, enough: float, clock: Clock) -> dict[str, Any]:  # noqa: ANN401
    """Time steps, the first one apart; each returns when its losses are known."""
    spent = repeated(lambda: step(model, batch, 1e-4), enough, clock)
    return {
        "first_seconds": round(spent.first, 3),
        "seconds": spent.seconds,
        "spread": spent.spread,
        "steps": spent.calls,
        "samples_per_second": round(len(batch.image) / spent.seconds, 2),
    }
