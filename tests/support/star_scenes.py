"""Candidates for tests and benchmark: simulated blobs, and real labels as a network sees them."""

from __future__ import annotations

import os
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anystar_batch.geometry import ZYX, Box, as_zyx
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.rays import Rays
from anystar_batch.stars.suppress import Status, resolve, suppress_region

SAME = LatticeMap((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def once(points: NDArray, prob: NDArray, dist: NDArray, max_radius: float = 60) -> Candidates:
    """One candidate a voxel, distances as stored."""
    _, first = np.unique(points, axis=0, return_index=True)
    return Candidates(
        points[first].astype(np.int32),
        prob[first].astype(np.float32),
        quantise(np.clip(dist[first], 0.5, max_radius), max_radius),
    )


def blobs(
    rays: Rays,
    n: int,
    each: int,
    size: int,
    radii: tuple[float, float] = (8.0, 12.0),
    *,
    seed: int = 0,
    prob_steps: int = 0,
) -> Candidates:
    """`n` noisy balls in a cube of `size`, each seen from `each` points off its centre.

    `prob_steps` > 0 rounds probabilities to so many values: mass ties.
    """
    rng = np.random.default_rng(seed)
    centre = np.repeat(rng.uniform(0, size, (n, 3)), each, axis=0)
    radius = np.repeat(rng.uniform(*radii, n), each)
    shift = rng.normal(0, 0.25, (n * each, 3)) * radius[:, None]
    points = np.clip(np.rint(centre + shift), 0, size - 1)
    offset = points - centre
    along = offset @ rays.vertices.T
    square = along**2 - (offset**2).sum(1, keepdims=True) + radius[:, None] ** 2
    dist = -along + np.sqrt(np.maximum(square, 1.0))
    dist *= 1 + rng.normal(0, 0.05, dist.shape)
    prob = rng.uniform(0.5, 1.0, len(points))
    if prob_steps:
        prob = np.ceil(prob * prob_steps) / prob_steps
    return once(points, prob, dist)


def seen(labels: NDArray, rays: Rays, *, seed: int = 0, share: float = 0.5) -> Candidates:
    """Every voxel of every label as a network would see it, if its probability exceeds `share`.

    Distances are marched to the label's surface, with seeded noise; the probability is the
    normalised distance transform, with a little noise.
    """
    rng = np.random.default_rng(seed)
    parts: list[tuple[NDArray, NDArray, NDArray]] = []
    padded = np.pad(labels, 1)
    for label, box in enumerate(ndimage.find_objects(padded), start=1):
        if box is None:
            continue
        inside = np.pad(padded[box] == label, 1)
        depth = ndimage.distance_transform_edt(inside)
        prob = depth / depth.max() * rng.uniform(0.9, 1.0, depth.shape)
        points = np.argwhere((prob > share) & inside)
        dist = np.zeros((len(points), len(rays)))
        going = np.ones(dist.shape, bool)
        while going.any():
            dist[going] += 0.25
            at = np.rint(points[:, None] + dist[..., None] * rays.vertices).astype(int)
            at = np.clip(at, 0, np.array(inside.shape) - 1)
            going &= inside[tuple(np.moveaxis(at, -1, 0))]
        dist *= 1 + rng.normal(0, 0.04, dist.shape)
        origin = np.array([s.start for s in box]) - 2
        parts.append((points + origin, prob[tuple(points.T)], dist))
    return once(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def real_labels(name: str) -> NDArray:
    """A label volume below ANYSTAR_BATCH_DATA, for tests marked `data`."""
    import tifffile

    return tifffile.imread(Path(os.environ["ANYSTAR_BATCH_DATA"]) / name)


def ranks(candidates: Candidates) -> NDArray[np.float32]:
    """Scores without ties in the product's order, for StarDist, whose sort is unstable."""
    scores = np.empty(len(candidates), np.float32)
    scores[candidates.order()] = np.arange(len(candidates), 0, -1)
    return scores


def blockwise(
    candidates: Candidates,
    rays: Rays,
    nms_thresh: float,
    volume: Box,
    cuts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    margin: ZYX,
    *,
    reach: int,
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Statuses of all candidates, each from the block that owns it, and the final survivors."""
    edges = [
        sorted({start, stop, *(c for c in cut if start < c < stop)})
        for start, stop, cut in zip(volume.start, volume.stop, cuts, strict=True)
    ]
    status = np.full(len(candidates), -1, np.int8)
    for spans in product(*(list(pairwise(e)) for e in edges)):
        core = Box(as_zyx(s[0] for s in spans), as_zyx(s[1] for s in spans))
        known = core.grow(margin).intersect(volume)
        given = np.flatnonzero(
            ((candidates.points >= known.start) & (candidates.points < known.stop)).all(1)
        )
        part = candidates.take(given)
        said = suppress_region(part, rays, nms_thresh, known, volume, reach)
        own = ((part.points >= core.start) & (part.points < core.stop)).all(1)
        status[given[own]] = said[own]
    survivors = status == Status.KEPT
    undecided = np.flatnonzero(status == Status.UNDECIDED)
    final = resolve(candidates.take(survivors), candidates.take(undecided), rays, nms_thresh)
    survivors[undecided[final]] = True
    return status, survivors
