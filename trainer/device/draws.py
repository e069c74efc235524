"""Random numbers of a batch on the device: one value or one field per sample.

All draws of a batch come from one seed generator in the order of the calls, so the state it starts
from names the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
from keras import ops

from trainer.synthesis.config import Range

Tensor: TypeAlias = Any
"""A tensor of whatever backend Keras runs on."""


POOL = 4096
"""Numbers per sample that are drawn at once and handed out in pieces: few draws compile fast."""


@dataclass(slots=True)
class Draws:
    """Draws for `count` samples.

    Parameters
    ----------
    generator : keras.random.SeedGenerator
    count : int
        Samples b.
    """

    generator: keras.random.SeedGenerator
    count: int
    _pools: dict[bool, tuple[Tensor, int]] = field(default_factory=dict)

    def uniform(self, low: Tensor = 0.0, high: Tensor = 1.0, shape: tuple[int, ...] = ()) -> Tensor:
        """Return float32 (b, *shape), uniform from `low` to `high`, which broadcast."""
        return low + (high - low) * self._draw(shape, is_normal=False)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return float32 (b, *shape), standard normal."""
        return self._draw(shape, is_normal=True)

    def _draw(self, shape: tuple[int, ...], *, is_normal: bool) -> Tensor:
        """Large fields alone, small ones off a pool."""
        draw = keras.random.normal if is_normal else keras.random.uniform
        size = math.prod(shape)
        if size > POOL // 2:
            return draw((self.count, *shape), dtype="float32", seed=self.generator)
        pool, used = self._pools.get(is_normal, (None, POOL))
        if used + size > POOL:
            pool = draw((self.count, POOL), dtype="float32", seed=self.generator)
            used = 0
        self._pools[is_normal] = (pool, used + size)
        return ops.reshape(pool[:, used : used + size], (self.count, *shape))

    def between(self, limits: Range, shape: tuple[int, ...] = ()) -> Tensor:
        """Return float32 (b, *shape), uniform over a range."""
        return self.uniform(limits[0], limits[1], shape)

    def chance(self, probability: float) -> Tensor:
        """Return bool (b), true with the probability."""
        return self.uniform() < probability

    def integer(self, below: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Return int32 (b, *shape), 0 to `below` - 1."""
        drawn = ops.floor(self.uniform(shape=shape) * below)
        return ops.cast(ops.minimum(drawn, below - 1), "int32")

    def counts(self, mean: Tensor) -> Tensor:
        """Return Poisson counts.

        One normal number is drawn for every count. Where ten or more are expected, it is scaled,
        shifted and rounded; where fewer, its quantile is looked up in the exact distribution. (To
        multiply uniform numbers, as Knuth does, takes a draw for every photon.)

        Parameters
        ----------
        mean : float32 (b, ...)
            Not negative.
        """
        normal = self.normal(tuple(mean.shape[1:]))
        many = ops.maximum(ops.round(mean + ops.sqrt(mean) * normal), 0.0)
        quantile = 0.5 * (1.0 + ops.erf(normal * 0.70710678))
        few_mean = ops.minimum(mean, _FEW)

        def look(k: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            few, term, below = state
            term_k = term * few_mean / ops.cast(k + 1, "float32")
            return few + ops.cast(quantile > below, "float32"), term_k, below + term_k

        none = ops.exp(-few_mean)
        start = (ops.zeros_like(mean), none, none)
        few, _, _ = ops.fori_loop(0, _LARGEST_FEW, look, start)
        return ops.where(mean < _FEW, few, many)


_FEW = 10.0
"""Expected counts from which the normal approximation is used."""

_LARGEST_FEW = 28
"""Largest count looked up; at a mean of 10 a larger one has odds of 1 in a million."""


def wide(values: Tensor) -> Tensor:
    """Return (b) as (b, 1, 1, 1), to meet images."""
    return ops.reshape(values, (-1, 1, 1, 1))


def smallest(image: Tensor) -> Tensor:
    """Return every sample's smallest value, (b, 1, 1, 1)."""
    return ops.min(image, axis=(1, 2, 3), keepdims=True)


def largest(image: Tensor) -> Tensor:
    """Return every sample's largest value, (b, 1, 1, 1)."""
    return ops.max(image, axis=(1, 2, 3), keepdims=True)
