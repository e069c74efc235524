"""Sample n of a seed: a pure function, so that any sample can be made alone, in any process.

::

    seed, about n / reuse -> shapes -+-> flip, swap axes -> labels ----------------+-> labels
                     seed, n --------+-> appearance -> degradation -> intensities -+-> image

Nothing is stored and no global state is read: a failing sample is named by two integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ImageError
from anystar_batch.network.intensity import limits, normalise
from trainer.synthesis.appearance import paint
from trainer.synthesis.config import SampleConfig
from trainer.synthesis.corruption import corrupt
from trainer.synthesis.shapes import Geometry, connected_pieces, sample_geometry

SPREAD = 32
"""Samples between two that share their shapes; a worker keeps as many shapes in memory."""

_SHAPES, _LOOKS = 0, 1
"""Last word of the two generators' seeds."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image as the network sees it, and the truth.

    Parameters
    ----------
    image : float32 (z, y, x)
        0 to 1, normalised by `intensity`.
    labels : int32 (z, y, x)
        0 is background; objects are 1..n.
    radius : float
        Mean radius of the objects before deformation, voxels.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    radius: float


def make_sample(seed: int, index: int, config: SampleConfig) -> Sample:
    """Make sample `index`.

    Parameters
    ----------
    seed, index : int
        Not negative.
    config : SampleConfig

    Returns
    -------
    Sample
        The same bytes for the same arguments, whatever was made before.
    """
    rng, geometry = turned_geometry(seed, index, config)
    image = paint(rng, geometry, config.appearance)
    image, labels = corrupt(rng, image, geometry.labels, config.steps)
    if labels is not geometry.labels:
        labels = connected_pieces(labels.astype(np.int64), 8.0, 8.0)
    if geometry.void.any() and rng.random() < 0.7:
        # Padding is exactly 0 in most real volumes, but not where noise was added later.
        image = np.where(geometry.void, np.float32(image.min()), image)
    return Sample(_intensities(rng, image, config), labels, geometry.radius)


def turned_geometry(
    seed: int, index: int, config: SampleConfig
) -> tuple[np.random.Generator, Geometry]:
    """Return the shapes that sample `index` shows, and the generator for all the rest of it.

    Parameters
    ----------
    seed, index : int
    config : SampleConfig
    """
    shapes = _geometry(seed, geometry_index(index, config.reuse), config)
    rng = np.random.default_rng([seed, index, _LOOKS])
    return rng, _turned(rng, shapes)


def geometry_index(index: int, reuse: int) -> int:
    """Return which shapes a sample shows.

    Samples that share shapes are `SPREAD` apart, so that no batch sees the same shapes twice.

    Examples
    --------
    >>> [geometry_index(n, 2) for n in (0, 1, 31, 32, 33, 63, 64)]
    [0, 1, 31, 0, 1, 31, 32]
    """
    return index // (reuse * SPREAD) * SPREAD + index % SPREAD


@lru_cache(maxsize=SPREAD)
def _geometry(seed: int, index: int, config: SampleConfig) -> Geometry:
    """Shapes that `config.reuse` samples share; kept while they are being used."""
    rng = np.random.default_rng([seed, index, _SHAPES])
    return sample_geometry(rng, config.shape, config.shapes)


def _turned(rng: np.random.Generator, geometry: Geometry) -> Geometry:
    """Swap axes and flip, one of the 48 symmetries of a cube."""
    order = tuple(int(a) for a in rng.permutation(3))
    flips = tuple(slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(3))
    return Geometry(
        np.ascontiguousarray(geometry.labels.transpose(order)[flips]),
        np.ascontiguousarray(geometry.depth.transpose(order)[flips]),
        np.ascontiguousarray(geometry.void.transpose(order)[flips]),
        geometry.radius,
    )


def _intensities(
    rng: np.random.Generator, image: NDArray[np.float32], config: SampleConfig
) -> NDArray[np.float32]:
    """Normalise as inference does, then imitate a region of a volume with a wider range."""
    try:
        low, high = limits(image, config.low_percentile, config.high_percentile)
    except ImageError:
        return np.full(image.shape, np.float32(rng.uniform()))
    if rng.random() < config.clipped:
        high = low + (high - low) * float(rng.uniform(0.6, 1.0))
    image = normalise(image, low, high)
    if rng.random() < config.dimmed:
        width = float(np.exp(rng.uniform(np.log(0.2), 0.0)))
        base = float(rng.uniform(0.0, 1.0 - width)) * float(rng.random() < 0.5)
        image = image * np.float32(width) + np.float32(base)
    return image
