"""Patches of labelled images as a source of training batches, in place of synthetic samples.

::

    |<-------- learnt from --------->|<- held out ->|        working voxels
        [ patch ]   at an object, mirrored and turned, at 0.85 to 1.18 of its size

Rays that leave the learnt part are known from below only, as those that leave a synthetic sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box, as_zyx
from anystar_batch.stars.rays import golden_spiral
from trainer.config import TrainConfig
from trainer.feed import Batch, bent
from trainer.finetune.labelled import LabelledVolume
from trainer.synthesis.config import Step
from trainer.synthesis.corruption import corrupt
from trainer.synthesis.sample import make_sample
from trainer.synthesis.shapes import connected_pieces
from trainer.synthesis.targets import targets

ZOOM = 1.18
"""Largest change of an object's size, either way."""

AT_OBJECT = 0.9
"""Share of the patches that lie around an object."""

MILD_STEPS = (
    Step("bias_field", 0.3, (("coefficient", (0.0, 0.2)),)),
    Step("gamma", 0.3, (("gamma", (0.7, 1.5)),)),
    Step("blur", 0.3, (("sigma", (0.0, 0.7)),)),
    Step("gaussian_noise", 0.3, (("std", (0.0, 0.04)),)),
)
"""Degradation of real patches, which are degraded already."""

_CHOICE, _PATCH = 2, 3
"""Last word of the generators' seeds; `sample` has 0 and 1."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSource:
    """Batches of patches, mixed with synthetic samples.

    Parameters
    ----------
    config : TrainConfig
        Its `sample` gives the patches' shape and the synthetic samples.
    volumes : tuple of LabelledVolume
        Each with objects in the part to learn from.
    synthetic : float
        Share of synthetic samples.
    """

    config: TrainConfig
    volumes: tuple[LabelledVolume, ...]
    synthetic: float = 0.5

    def batch(self, index: int) -> Batch:
        """Return batch `index`: the same bytes whatever was made before."""
        size, seed = self.config.batch, self.config.seed
        rays = golden_spiral(self.config.network.n_rays)
        grid = self.config.network.grid
        images, probs, dists = [], [], []
        for n in range(index * size, (index + 1) * size):
            if np.random.default_rng([seed, n, _CHOICE]).random() < self.synthetic:
                sample = make_sample(seed, n, self.config.sample)
                image, (prob, dist) = sample.image, targets(sample.labels, rays, grid)
            else:
                image, labels, learnt = self.patch(n)
                (prob, dist) = _partial_targets(labels, learnt, grid, self.config.network.n_rays)
            images.append(image[..., None])
            probs.append(prob[..., None])
            weight = np.maximum(prob, 0.0)[..., None]
            dists.append(np.concatenate([dist, weight], axis=-1).astype(np.float16))
        return Batch(np.stack(images), np.stack(probs), np.stack(dists))

    def patch(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Make patch `n`.

        Returns
        -------
        image : (z, y, x)
            0 to 1.
        labels : (z, y, x)
            As in the file; background is 0, what is not known -1.
        learnt : (z, y, x)
            A box: where labels may be learnt from.
        """
        rng = np.random.default_rng([self.config.seed, n, _PATCH])
        shape = self.config.sample.shape
        factor = float(np.exp(rng.uniform(-np.log(ZOOM), np.log(ZOOM))))
        volume = self.volumes[int(rng.integers(len(self.volumes)))].zoomed(factor)
        part, _ = volume.parts()
        if rng.random() < AT_OBJECT:
            inside = volume.inside(part)
            # A coarser lattice may move the only centroid across the cut.
            at = inside[int(rng.integers(len(inside)))] if len(inside) else 0
            centre = volume.centres()[at] + rng.uniform(-0.25, 0.25, 3) * shape
        else:
            centre = rng.uniform(part.start, part.stop)
        window = _window(centre, shape, part)
        image, labels = volume.read_image(window), volume.read_labels(window)
        learnt = np.zeros(shape, np.bool_)
        learnt[part.intersect(window).relative_to(window.start).slices] = True
        order = tuple(int(a) for a in rng.permutation(3))
        flips = tuple(slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(3))
        image = np.ascontiguousarray(image.transpose(order)[flips])
        if rng.random() < 0.5:
            image = bent(rng, image[None, ..., None])[0, ..., 0]
        image, _ = corrupt(rng, image, np.zeros((1, 1, 1), np.int32), MILD_STEPS)
        return (
            np.clip(image, 0.0, 1.0),
            np.ascontiguousarray(labels.transpose(order)[flips]),
            np.ascontiguousarray(learnt.transpose(order)[flips]),
        )


def _partial_targets(
    labels: NDArray[np.int64], learnt: NDArray[np.bool_], grid: ZYX, n_rays: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets inside the learnt box, as if the sample ended there; probability -1 elsewhere."""
    points = as_zyx(-(-n // g) for n, g in zip(labels.shape, grid, strict=True))
    prob = np.full(points, np.float32(-1.0))
    dist = np.zeros((*points, n_rays), np.float32)
    at = np.argwhere(learnt)
    # On whole grid points, so that targets of the box are targets of the patch.
    start = [-(-int(a) // g) * g for a, g in zip(at.min(axis=0), grid, strict=True)]
    box = Box(as_zyx(start), as_zyx(at.max(axis=0) + 1))
    if box.size == 0:
        return prob, dist
    part = labels[box.slices]
    pieces = connected_pieces(np.maximum(part, 0), 8.0, 4.0)
    inner = targets(pieces, golden_spiral(n_rays), grid)
    unknown = (part == -1)[tuple(slice(None, None, g) for g in grid)]
    first = as_zyx(a // g for a, g in zip(start, grid, strict=True))
    where = Box(first, as_zyx(a + n for a, n in zip(first, inner[0].shape, strict=True))).slices
    prob[where] = np.where(unknown, np.float32(-1.0), inner[0])
    dist[where] = inner[1]
    return prob, dist


def _window(centre: NDArray[np.float64], shape: ZYX, part: Box) -> Box:
    """The patch nearest to a centre that lies in a part; about its middle where it is too large."""
    start = []
    for c, n, a, b in zip(centre, shape, part.start, part.stop, strict=True):
        room = b - a - n
        start.append(min(max(round(c - n / 2), a), a + room) if room >= 0 else a + room // 2)
    return Box(as_zyx(start), as_zyx(s + n for s, n in zip(start, shape, strict=True)))
