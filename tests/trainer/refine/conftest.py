from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from anystar_batch.stars.rays import golden_spiral
from trainer.refine.config import RefineConfig, SceneConfig
from trainer.refine.scene import Scene
from trainer.synthesis.targets import targets

GRID = (2, 2, 2)


def balls(edge=48, radius=7.0):
    """Three balls apart, and their centres."""
    centres = np.array([[12.0, 12.0, 12.0], [34.0, 14.0, 30.0], [20.0, 34.0, 36.0]])
    grid = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1)
    labels = np.zeros((edge,) * 3, np.int32)
    for number, centre in enumerate(centres, 1):
        labels[np.linalg.norm(grid - centre, axis=-1) < radius] = number
    return labels, centres


def shown(labels, seed=0):
    rng = np.random.default_rng(seed)
    return (100.0 * (labels > 0) + 10.0 + rng.normal(0, 4, labels.shape)).astype(np.float32)


class Oracle:
    """A first look that sees the truth, its distances off by a factor."""

    def __init__(self, labels, factor=1.2):
        self.labels, self.factor = labels, factor
        self.network = SimpleNamespace(grid=GRID, divisor=lambda: GRID)
        self.sample = SimpleNamespace(low_percentile=1.0, high_percentile=99.9)

    def model(self, image, training):
        assert not training
        prob, dist = targets(self.labels, golden_spiral(96), GRID)
        return prob[None, ..., None], np.abs(dist)[None] * self.factor


@pytest.fixture
def scene():
    labels, _ = balls()
    return Scene(shown(labels), labels, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), 7.0)


@pytest.fixture
def config(scene):
    """Working voxels are the scene's own."""
    size = scene.diameter()
    return RefineConfig(
        scene=SceneConfig(edge=32, radius=(5.0, 6.0)),
        working=(size, size),
        scenes=2,
        held_out=1,
        shard=1,
        batch=8,
        steps=4,
        prob_thresh=0.5,
        checkpoint_steps=2,
    )
