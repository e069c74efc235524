"""Images from geometry batches: one compiled function, its arguments already on the device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
from keras import ops

from trainer.device.appearance import paint
from trainer.device.batch import GeometryBatch
from trainer.device.corruption import check, corrupt
from trainer.device.draws import Draws, Tensor, largest, smallest, wide
from trainer.synthesis.config import SampleConfig

SUBSET = 16384
"""Voxels of a sample, about, between whose percentiles its limits lie."""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A geometry batch on the device; fields as there, distances at every point."""

    labels: Tensor
    depth: Tensor
    void: Tensor
    holes: Tensor
    radius: Tensor
    prob: Tensor
    dist: Tensor


def place(batch: GeometryBatch) -> Placed:
    """Copy a batch to the device, once for all its paintings."""
    names = ("labels", "depth", "void", "holes", "radius", "prob")
    arrays = (*(getattr(batch, name) for name in names), batch.dense())
    return Placed(*(ops.convert_to_tensor(array) for array in arrays))


def painter(config: SampleConfig) -> Callable[[Placed, int, int], Tensor]:
    """Compile the painting of a config's batches.

    Parameters
    ----------
    config : SampleConfig

    Returns
    -------
    callable
        (batch, seed, number) to images, float32 (b, z, y, x, 1), 0 to 1, normalised as
        `sample.make_sample` does. The same seed and number give the same images. Under JAX it
        returns before they are finished.

    Raises
    ------
    ConfigError
        If the config names a step that the device cannot do.
    """
    check(config.steps)
    run = _compiled(config)

    def call(batch: Placed, seed: int, number: int) -> Tensor:
        # 31 bits each: the state is signed under some backends.
        words = np.random.SeedSequence([seed, number]).generate_state(2) >> np.uint32(1)
        state = ops.convert_to_tensor(words.astype(np.int32))
        return run(state, batch.labels, batch.depth, batch.void, batch.holes, batch.radius)

    return call


def intensities(draws: Draws, image: Tensor, config: SampleConfig) -> Tensor:
    """Normalise as inference does, then imitate a region of a volume with a wider range.

    The percentiles are those of every k-th voxel, about `SUBSET` of them (k and the edge have no
    common factor, so no plane is left out): the upper limit moves by the spread of the few dozen
    brightest. A constant image takes one drawn value, as in `trainer.synthesis.sample`.

    Parameters
    ----------
    draws : Draws
    image : (b, z, y, x)
    config : SampleConfig
    """
    size = math.prod(image.shape[1:])
    stride = max(1, size // SUBSET)
    while math.gcd(stride, image.shape[1]) > 1:
        stride += 1
    values = ops.sort(ops.reshape(image, (-1, size))[:, ::stride], axis=1)
    low, high = (
        wide(_percentile(values, p)) for p in (config.low_percentile, config.high_percentile)
    )
    flat = low >= high
    low, high = ops.where(flat, smallest(image), low), ops.where(flat, largest(image), high)
    constant = low >= high
    clipped = wide(draws.chance(config.clipped))
    high = ops.where(clipped, low + (high - low) * wide(draws.uniform(0.6, 1.0)), high)
    image = ops.clip((image - low) / ops.where(constant, 1.0, high - low), 0.0, 1.0)
    width = ops.exp(draws.uniform(math.log(0.2), 0.0))
    base = draws.uniform() * (1.0 - width) * ops.cast(draws.chance(0.5), "float32")
    dimmed = wide(draws.chance(config.dimmed))
    image = ops.where(dimmed, image * wide(width) + wide(base), image)
    return ops.where(constant, wide(draws.uniform()), image)


def _percentile(values: Tensor, percent: float) -> Tensor:
    """Percentile of sorted values (b, m), interpolated linearly as NumPy does: (b)."""
    position = percent / 100.0 * (values.shape[1] - 1)
    below = min(int(position), values.shape[1] - 2)
    share = position - below
    return values[:, below] * (1.0 - share) + values[:, below + 1] * share


@lru_cache(maxsize=4)
def _compiled(config: SampleConfig) -> Callable[..., Tensor]:
    """One function from seed state and geometry to images, compiled where the backend can."""
    generator = keras.random.SeedGenerator(0)

    def run(state: Tensor, *geometry: Tensor) -> Tensor:
        labels, depth, void, holes, radius = geometry
        # The generator's state is an argument: else it would be compiled in, once for all batches.
        state = ops.cast(state, generator.state.dtype)
        with keras.StatelessScope(state_mapping=[(generator.state, state)]):
            draws = Draws(generator, labels.shape[0])
            depth = ops.cast(depth, "float32")
            image = paint(draws, ops.cast(labels, "int32"), depth, radius, config.appearance)
            image = ops.where(void, 0.0, image)
            image = corrupt(draws, image, holes, config.steps)
            # Padding is exactly 0 in most real volumes, but not where noise was added later.
            padded = ops.logical_and(void, wide(draws.chance(0.7)))
            image = ops.where(padded, smallest(image), image)
            return intensities(draws, image, config)[..., None]

    if keras.backend.backend() == "jax":
        import jax  # noqa: PLC0415  (only under that backend)

        jitted: Callable[..., Tensor] = jax.jit(run)
        return jitted
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415  (only under that backend)

        graph: Callable[..., Tensor] = tf.function(run)
        return graph
    return run
