"""Candidates: predicted polyhedra before suppression, their priority, and how they are stored.

A candidate has a centre (a voxel of the working lattice), a probability and one distance a ray.
Distances are stored as fixed point, 1/256 voxel in uint16, and rounded to that **before** anything
is computed with them: what a later stage reads is what the earlier one used, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError

STEPS = 256
"""Fixed-point steps per voxel of a stored distance."""

MAX_RADIUS = 65535 / STEPS
"""Largest distance that can be stored, working voxels."""


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
    """

    points: NDArray[np.int32]
    prob: NDArray[np.float32]
    dist: NDArray[np.float32]
    contrast: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.points)

    def take(self, index: NDArray[Any]) -> Candidates:
        """Return those at `index` (integers [m], in that order) or where a mask (bool [n]) is."""
        contrast = None if self.contrast is None else self.contrast[index]
        return Candidates(self.points[index], self.prob[index], self.dist[index], contrast)

    @classmethod
    def empty(cls, n_rays: int) -> Candidates:
        """Return no candidates, of `n_rays` rays."""
        return cls(
            np.empty((0, 3), np.int32), np.empty(0, np.float32), np.empty((0, n_rays), np.float32)
        )

    @staticmethod
    def concatenate(parts: Sequence[Candidates], n_rays: int) -> Candidates:
        """Return all parts in sequence; none at all is `empty(n_rays)`.

        Contrasts are kept where every part that has candidates has them.
        """
        every = [Candidates.empty(n_rays), *parts]
        measured = [part.contrast for part in parts if part.contrast is not None and len(part)]
        filled = sum(1 for part in parts if len(part))
        return Candidates(
            np.concatenate([part.points for part in every]),
            np.concatenate([part.prob for part in every]),
            np.concatenate([part.dist for part in every]),
            np.concatenate(measured) if measured and len(measured) == filled else None,
        )

    def order(self) -> NDArray[np.int64]:
        """Return the priority order: falling `prob`, ties by rising (z, y, x).

        Position breaks ties, so the order is the same however the candidates were collected.

        Returns
        -------
        int64 [n]
            Index of the first, second, ... candidate.
        """
        z, y, x = self.points.T
        return np.lexsort((x, y, z, -self.prob)).astype(np.int64)


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
    """Round distances to the fixed point in which they are stored.

    Parameters
    ----------
    dist : [n, n_rays]
        Working voxels. Those not above 1/256 become 1/256: a star needs its centre.
    max_radius : float
        Declared maximal radius, working voxels. Rounding never passes it.

    Returns
    -------
    float32 [n, n_rays]
        Multiples of 1/256 working voxel, from 1/256 to `max_radius`.

    Raises
    ------
    ConfigError
        If `max_radius` cannot be stored.
    ValueError
        If a distance exceeds `max_radius` or is not a number.
    """
    if not 1 <= max_radius <= MAX_RADIUS:
        message = (
            f"max_radius: got {max_radius} working voxels; expected 1 to {MAX_RADIUS:.2f}, the "
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
    steps: NDArray[np.floating[Any]] = dist * dist.dtype.type(STEPS)
    np.rint(steps, out=steps)
    np.clip(steps, 1, np.floor(max_radius * STEPS), out=steps)
    np.divide(steps, STEPS, out=steps)
    return steps.astype(np.float32, copy=False)


def encode(candidates: Candidates) -> dict[str, NDArray[Any]]:
    """Return the arrays to store.

    Parameters
    ----------
    candidates : Candidates
        With distances from `quantise`.

    Returns
    -------
    dict
        `points` int32 [n, 3], `prob` float32 [n], `dist` uint16 [n, n_rays] in 1/256 voxel;
        `contrast` float32 [n] if measured.

    Raises
    ------
    ValueError
        If a distance is not on the fixed point: storing it would change the result.
    """
    steps = candidates.dist * np.float32(STEPS)
    stored = steps.astype(np.uint16)
    if not np.array_equal(stored, steps) or not stored.all():
        message = "candidates: a distance is no multiple of 1/256 voxel; quantise before encoding"
        raise ValueError(message)
    measured = {} if candidates.contrast is None else {"contrast": candidates.contrast}
    return {"points": candidates.points, "prob": candidates.prob, "dist": stored, **measured}


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
    dist = arrays["dist"].astype(np.float32) / np.float32(STEPS)
    return Candidates(arrays["points"], arrays["prob"], dist, arrays.get("contrast"))
