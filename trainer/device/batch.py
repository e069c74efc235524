"""What the workers send when appearance is made on the device: shapes and targets, no images.

This module knows no Keras: the workers load it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stars.rays import golden_spiral
from trainer.config import TrainConfig
from trainer.synthesis.config import SampleConfig
from trainer.synthesis.corruption import corrupt
from trainer.synthesis.sample import turned_geometry
from trainer.synthesis.shapes import Geometry, connected_pieces
from trainer.synthesis.targets import targets

CUTOUTS = 8
"""Steps named `cutout` that fit the bits of `GeometryBatch.holes`."""


@dataclass(frozen=True, slots=True, eq=False)
class GeometryBatch:
    """Shapes and targets of a batch.

    Parameters
    ----------
    labels : int16 (b, z, y, x)
        0 is background, objects are 1..n; not cut by `cutout`, the painting needs them whole.
    depth : float16 (b, z, y, x)
        Distance from the object's centre over its radius.
    void : bool (b, z, y, x)
        Where the sample holds no data at all.
    holes : uint8 (b, z, y, x)
        Bit k is set where the config's k-th `cutout` empties the sample.
    radius : float32 (b)
        Mean radius of the objects, voxels.
    prob : float32 (b, z / grid, y / grid, x / grid, 1)
        As in `feed.Batch`, of the labels that the cutouts leave.
    inside : bool (b, z / grid, y / grid, x / grid)
        Points that have distances: one in four or so.
    dist : float16 (points inside, n_rays + 1)
        As in `feed.Batch`, of those points only: distances are most of what the pipe carries.
    """

    labels: NDArray[np.int16]
    depth: NDArray[np.float16]
    void: NDArray[np.bool_]
    holes: NDArray[np.uint8]
    radius: NDArray[np.float32]
    prob: NDArray[np.float32]
    inside: NDArray[np.bool_]
    dist: NDArray[np.float16]

    def dense(self) -> NDArray[np.float16]:
        """Return the distances at every point, as `feed.Batch` has them."""
        full = np.zeros((*self.inside.shape, self.dist.shape[1]), np.float16)
        full[self.inside] = self.dist
        return full


@dataclass(frozen=True, slots=True)
class GeometrySource:
    """Shapes and targets of a config's samples: a `feed.BatchSource`.

    Parameters
    ----------
    config : TrainConfig
    """

    config: TrainConfig

    def batch(self, index: int) -> GeometryBatch:
        """Return samples `index * size` to `(index + 1) * size - 1` of the config's seed."""
        config = self.config
        rays = golden_spiral(config.network.n_rays)
        geometries, holes, probs, dists = [], [], [], []
        for n in range(index * config.batch, (index + 1) * config.batch):
            geometry, hole, labels = _shapes(config.seed, n, config.sample)
            prob, dist = targets(labels, rays, config.network.grid)
            geometries.append(geometry)
            holes.append(hole)
            probs.append(prob[..., None])
            dists.append(np.concatenate([dist, prob[..., None]], axis=-1).astype(np.float16))
        dense = np.stack(dists)
        inside = np.asarray(dense.any(axis=-1))
        return GeometryBatch(
            np.stack([g.labels.astype(np.int16) for g in geometries]),
            np.stack([g.depth.astype(np.float16) for g in geometries]),
            np.stack([g.void for g in geometries]),
            np.stack(holes),
            np.array([g.radius for g in geometries], np.float32),
            np.stack(probs),
            inside,
            dense[inside],
        )


def _shapes(
    seed: int, index: int, config: SampleConfig
) -> tuple[Geometry, NDArray[np.uint8], NDArray[np.int32]]:
    """Shapes, holes, and the labels that the holes leave."""
    rng, geometry = turned_geometry(seed, index, config)
    labels, holes = geometry.labels, np.zeros(config.shape, np.uint8)
    cutouts = [step for step in config.steps if step.name == "cutout"]
    for k, step in enumerate(cutouts):
        full, labels = corrupt(rng, np.ones(config.shape, np.float32), labels, (step,))
        holes |= np.uint8(1 << k) * (full == 0)
    if labels is not geometry.labels:
        labels = connected_pieces(labels.astype(np.int64), 8.0, 8.0)
    return geometry, holes, labels
