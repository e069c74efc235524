"""Candidates: predicted polyhedra before suppression, their priority, and how they are stored.

A candidate has a centre (a voxel of the working lattice), a probability and one distance a ray.
Distances are stored in one byte each, as 1 to 255 steps; the step is a power of two and the
candidate's own, such that its longest ray takes 128 to 255 of them (the least step is 1/256 voxel).
So a distance is off by at most half a step: less than 1/255 of the longest ray. They are rounded to
that **before** anything is computed with them: what a later stage reads is what the earlier one
used, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError

STEPS = 255
"""Most steps of a stored distance: one byte."""

LEAST_STEP = 2.0**-8
"""Smallest step, voxels."""

MAX_RADIUS = 256.0
"""Largest declared radius, working voxels: beyond, a step would be more than a voxel."""


MEASURES = ("contrast", "quality", "fall")
"""What may be known of a candidate besides, in the order of the fields."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Polyhedra on the working lattice, in any order.

    Parameters
    ----------
    points : int32 [n, 3]
        Centres, axes (z, y, x), working voxels. No two candidates share a point.
    prob : float32 [n]
        Object probability, dimensionless.
    dist : float32 [n, n_rays]
        Distance from the centre to the surface along each ray, working voxels, positive.
    contrast : float32 [n] or None
        See `measures.contrasts`; None where nobody asked for it. Suppression does not look at it.
    quality : float32 [n] or None
        IoU that the outline is expected to reach, 0 to 1; None before the second look.
    fall : float32 [n] or None
        Factor on all distances that puts the surface where `--outline` asks for it; None without.
        Suppression goes by the distances as they are.
    """

    points: NDArray[np.int32]
    prob: NDArray[np.float32]
    dist: NDArray[np.float32]
    contrast: NDArray[np.float32] | None = None
    quality: NDArray[np.float32] | None = None
    fall: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.points)

    def take(self, index: NDArray[Any]) -> Candidates:
        """Return those at `index` (integers [m], in that order) or where a mask (bool [n]) is."""
        measured = {name: values[index] for name, values in self.measures().items()}
        return Candidates(self.points[index], self.prob[index], self.dist[index], **measured)

    def measures(self) -> dict[str, NDArray[np.float32]]:
        """Return what is known of the candidates besides, by name of the field."""
        fields = {name: getattr(self, name) for name in MEASURES}
        return {name: values for name, values in fields.items() if values is not None}

    @classmethod
    def empty(cls, n_rays: int) -> Candidates:
        """Return no candidates, of `n_rays` rays."""
        return cls(
            np.empty((0, 3), np.int32), np.empty(0, np.float32), np.empty((0, n_rays), np.float32)
        )

    @staticmethod
    def concatenate(parts: Sequence[Candidates], n_rays: int) -> Candidates:
        """Return all parts in sequence; none at all is `empty(n_rays)`.

        A measure is kept where every part that has candidates has it.
        """
        every = [Candidates.empty(n_rays), *parts]
        return Candidates(
            np.concatenate([part.points for part in every]),
            np.concatenate([part.prob for part in every]),
            np.concatenate([part.dist for part in every]),
            *(_together([getattr(p, name) for p in parts if len(p)]) for name in MEASURES),
        )

    @property
    def priority(self) -> NDArray[np.float32]:
        """Who suppresses whom, and who shows where stars overlap: float32 [n], larger first.

        The probability; after the second look its product with the quality, which ordered true
        before false finds on more sets than either (docs/second-look.md).
        """
        return self.prob if self.quality is None else self.prob * self.quality

    def order(self) -> NDArray[np.int64]:
        """Return the priority order: falling `priority`, ties by rising (z, y, x).

        Position breaks ties, so the order is the same however the candidates were collected.

        Returns
        -------
        int64 [n]
            Index of the first, second, ... candidate.
        """
        z, y, x = self.points.T
        return np.lexsort((x, y, z, -self.priority)).astype(np.int64)


def _together(values: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """One array of all, if there are any and none is missing."""
    present = [value for value in values if value is not None]
    return np.concatenate(present) if present and len(present) == len(values) else None


def is_storable(dist: NDArray[np.floating[Any]], max_radius: float) -> NDArray[np.bool_]:
    """Return which candidates have only finite distances up to the declared maximal radius.

    Parameters
    ----------
    dist : [n, n_rays]
        Working voxels.
    max_radius : float
        Working voxels.

    Returns
    -------
    bool [n]
        The others are to be dropped and counted, before `quantise`.
    """
    return np.asarray((dist <= max_radius).all(axis=1))  # False for NaN


def quantise(dist: NDArray[np.floating[Any]], max_radius: float) -> NDArray[np.float32]:
    """Round distances to the steps in which they are stored.

    Parameters
    ----------
    dist : [n, n_rays]
        Working voxels. Those not above a step become one step: a star needs its centre.
    max_radius : float
        Declared maximal radius, working voxels. Rounding never passes it.

    Returns
    -------
    float32 [n, n_rays]
        Multiples of the candidate's step, from one step to `max_radius`.

    Raises
    ------
    ConfigError
        If `max_radius` cannot be stored.
    ValueError
        If a distance exceeds `max_radius` or is not a number.
    """
    if not 1 <= max_radius <= MAX_RADIUS:
        message = (
            f"max_radius: got {max_radius} working voxels; expected 1 to {MAX_RADIUS:g}, the "
            "largest distance that can be stored; work on a coarser voxel size"
        )
        raise ConfigError(message)
    if not bool((dist <= max_radius).all()):
        message = (
            f"distances up to {np.max(dist, initial=0.0)} exceed the declared maximal radius "
            f"{max_radius}; drop and count those candidates first (is_storable)"
        )
        raise ValueError(message)
    # A power of two scales without rounding, and float32 holds every step.
    step = _steps(dist).astype(dist.dtype)
    counts: NDArray[np.floating[Any]] = dist / step
    np.rint(counts, out=counts)
    np.clip(counts, 1, np.floor(max_radius / step), out=counts)
    np.multiply(counts, step, out=counts)
    return counts.astype(np.float32, copy=False)


def _steps(dist: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the least power of two of which the longest ray takes at most `STEPS`, [n, 1]."""
    longest = dist.max(axis=1, keepdims=True, initial=0.0).astype(np.float64)
    mantissa, exponent = np.frexp(np.maximum(longest, STEPS * LEAST_STEP) / STEPS)
    step: NDArray[np.float64] = np.ldexp(1.0, exponent - (mantissa == 0.5))
    return step


def encode(candidates: Candidates) -> dict[str, NDArray[Any]]:
    """Return the arrays to store.

    Parameters
    ----------
    candidates : Candidates
        With distances from `quantise`.

    Returns
    -------
    dict
        `points` int32 [n, 3], `prob` float32 [n], `dist` uint8 [n, n_rays] in steps, `step` int8
        [n], its binary logarithm; of `MEASURES`, float32 [n], those that are known.

    Raises
    ------
    ValueError
        If a distance is no multiple of its step: storing it would change the result.
    """
    step = _steps(candidates.dist)
    counts = candidates.dist / step
    stored = np.minimum(counts, STEPS).astype(np.uint8)
    if not np.array_equal(stored, counts) or not stored.all():
        message = "candidates: a distance is no multiple of its step; quantise before encoding"
        raise ValueError(message)
    exponent = np.log2(step[:, 0]).astype(np.int8)
    fields = {"points": candidates.points, "prob": candidates.prob}
    return fields | {"dist": stored, "step": exponent} | candidates.measures()


def decode(arrays: Mapping[str, NDArray[Any]]) -> Candidates:
    """Return the candidates that `encode` stored, bit by bit.

    Parameters
    ----------
    arrays : mapping
        As from `encode`.

    Returns
    -------
    Candidates
    """
    # Exact: a whole number below 256 times a power of two.
    step = np.ldexp(np.float32(1.0), arrays["step"].astype(np.int32))
    dist = np.multiply(arrays["dist"], step[:, None], dtype=np.float32)
    measured = {name: arrays[name] for name in MEASURES if name in arrays}
    return Candidates(arrays["points"], arrays["prob"], dist, **measured)
