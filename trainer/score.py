"""Scores of a network on volumes with known objects.

Everything runs in memory: rescale to the working voxel size, normalise, predict in one piece,
suppress, paint at the volume's own voxels, match. No candidate is dropped near the border
(StarDist drops those within two grid points, which costs a small volume a sixth of its objects).

Accuracy is TP / (TP + FP + FN) at an IoU, over all objects of a set together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx
from anystar_batch.network.intensity import limits, normalise
from anystar_batch.network.unet import UNetConfig
from anystar_batch.stars.candidates import MAX_RADIUS, Candidates, is_storable, quantise
from anystar_batch.stars.polyhedra import IDENTITY, LatticeMap
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral
from anystar_batch.stars.suppress import suppress
from trainer.matches import Tally, match
from trainer.synthesis.config import SampleConfig
from trainer.volumes import Truth

if TYPE_CHECKING:
    import keras

    from anystar_batch.network.model import Model

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Probabilities tried when a threshold is tuned."""

STRETCHES = (0.94, 0.97, 1.0, 1.03, 1.06, 1.09, 1.12, 1.15, 1.2, 1.25, 1.3)
"""Factors tried when the distances are tuned."""


def predict(
    model: keras.Model, config: UNetConfig, image: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the network on one normalised volume in one piece.

    Parameters
    ----------
    model : keras.Model
    config : UNetConfig
        What the model was built from.
    image : (z, y, x)
        0 to 1. Mirrored up to the next multiple of the network's divisor.

    Returns
    -------
    prob : (z / grid, y / grid, x / grid)
    dist : (z / grid, y / grid, x / grid, n_rays)
        Working voxels. Both cover the image, rounded up to whole grid points.
    """
    after = [(-n) % d for n, d in zip(image.shape, config.divisor(), strict=True)]
    padded = np.pad(image, [(0, a) for a in after], mode="symmetric")
    prob, dist = model(padded[None, ..., None], training=False)
    kept = tuple(slice(-(-n // g)) for n, g in zip(image.shape, config.grid, strict=True))
    return np.asarray(prob)[0, ..., 0][kept], np.asarray(dist)[0][kept]


def instances(
    prob: NDArray[np.float32],
    dist: NDArray[np.float32],
    grid: ZYX,
    thresholds: tuple[float, float],
    out: tuple[ZYX, LatticeMap],
) -> NDArray[np.uint32]:
    """Turn a prediction into labels.

    Parameters
    ----------
    prob, dist
        As `predict` returns them.
    grid : (z, y, x)
    thresholds : (prob_thresh, nms_thresh)
    out : (shape, LatticeMap)
        Shape of the label volume, and where working voxels lie in it.

    Returns
    -------
    (z, y, x)
        1 is the most probable object.
    """
    rays = golden_spiral(dist.shape[-1])
    kept = survivors(prob, dist, grid, thresholds)
    kept = kept.take(kept.order())
    labels = np.zeros(out[0], np.uint32)
    numbers = np.arange(1, len(kept) + 1, dtype=np.uint32)
    paint(labels, Box.of_shape(out[0]), kept, numbers, rays, out[1])
    return labels


def survivors(
    prob: NDArray[np.float32], dist: NDArray[np.float32], grid: ZYX, thresholds: tuple[float, float]
) -> Candidates:
    """Return what is left of a prediction after suppression.

    Parameters
    ----------
    prob, dist
        As `predict` returns them.
    grid : (z, y, x)
    thresholds : (prob_thresh, nms_thresh)
    """
    at = np.argwhere(prob > thresholds[0])
    index = tuple(at.T)
    candidates = Candidates(
        (at * np.array(grid)).astype(np.int32), prob[index], dist[index].astype(np.float32)
    )
    candidates = candidates.take(is_storable(candidates.dist, MAX_RADIUS))
    candidates = Candidates(
        candidates.points, candidates.prob, quantise(candidates.dist, MAX_RADIUS)
    )
    rays = golden_spiral(dist.shape[-1])
    return candidates.take(suppress(candidates, rays, thresholds[1]))


def rescale(image: NDArray[np.number], step: ZYXFloat) -> tuple[NDArray[np.float32], LatticeMap]:
    """Resample a volume to another voxel size: smoothed, then linear.

    Parameters
    ----------
    image : (z, y, x)
    step : (z, y, x)
        Voxels of the image per working voxel.

    Returns
    -------
    working : (z, y, x)
    lattice : LatticeMap
        From working voxels to the image's.
    """
    volume = np.asarray(image, np.float32)
    sigma = [0.5 * max(s - 1.0, 0.0) for s in step]
    volume = ndimage.gaussian_filter(volume, sigma, truncate=3.0)
    for axis, s in enumerate(step):
        n = volume.shape[axis]
        position = np.clip(np.arange(max(1, round(n / s))) * s + (s - 1.0) / 2.0, 0.0, n - 1.0)
        below = np.minimum(position.astype(int), max(n - 2, 0))
        share = (position - below).astype(np.float32)
        share = share.reshape([-1 if k == axis else 1 for k in range(3)])
        above = np.minimum(below + 1, n - 1)
        volume = np.take(volume, below, axis) * (1 - share) + np.take(volume, above, axis) * share
    offset = tuple((s - 1.0) / 2.0 for s in step)
    return volume, LatticeMap(step, (offset[0], offset[1], offset[2]))


@dataclass(slots=True)
class Scorer:
    """A network and the volumes it has seen: each is predicted once, and scored often.

    Parameters
    ----------
    model : keras.Model
    network : UNetConfig
    sample : SampleConfig
        For the percentiles.
    """

    model: keras.Model
    network: UNetConfig
    sample: SampleConfig

    def predictions(self, truths: Sequence[Truth], diameter: float | None) -> list[Prediction]:
        """Predict volumes.

        Parameters
        ----------
        truths : sequence of Truth
        diameter : float or None
            Working voxels that each volume's median diameter becomes (which uses the truth); None
            leaves synthetic samples as they are.

        Returns
        -------
        list of Prediction
        """
        done = []
        for truth in truths:
            if diameter is None:
                working, lattice = np.asarray(truth.image, np.float32), IDENTITY
            else:
                size = truth.diameter() / diameter
                step = (size / truth.voxel[0], size / truth.voxel[1], size / truth.voxel[2])
                working, lattice = rescale(truth.image, step)
                low, high = limits(
                    truth.image, self.sample.low_percentile, self.sample.high_percentile
                )
                working = normalise(working, low, high)
            prob, dist = predict(self.model, self.network, working)
            done.append(Prediction(truth, prob, dist, lattice, self.network.grid))
        return done


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a network says about one volume.

    Parameters
    ----------
    truth : Truth
    prob, dist
        As `predict` returns them.
    lattice : LatticeMap
    grid : (z, y, x)
    """

    truth: Truth
    prob: NDArray[np.float32]
    dist: NDArray[np.float32]
    lattice: LatticeMap
    grid: ZYX

    def stretched(self, factor: float) -> Prediction:
        """Return the same with all distances times `factor`."""
        dist = self.dist * np.float32(factor)
        return Prediction(self.truth, self.prob, dist, self.lattice, self.grid)

    def labels(self, thresholds: tuple[float, float]) -> NDArray[np.uint32]:
        """Return the labels at (prob_thresh, nms_thresh), in the truth's voxels.

        Objects of which the larger part lies where nothing is known are left out.
        """
        shape = as_zyx(self.truth.labels.shape)
        labels = instances(self.prob, self.dist, self.grid, thresholds, (shape, self.lattice))
        if self.truth.unknown is None:
            return labels
        sizes = np.bincount(labels.ravel())
        outside = np.bincount(labels[self.truth.unknown], minlength=len(sizes))
        return np.where((2 * outside > sizes)[labels], 0, labels)


def tally(predictions: Sequence[Prediction], thresholds: tuple[float, float]) -> Tally:
    """Match every volume and add up.

    Parameters
    ----------
    predictions : sequence of Prediction
    thresholds : (prob_thresh, nms_thresh)

    Returns
    -------
    Tally
    """
    total = Tally()
    for p in predictions:
        total = total + match(p.truth.labels, p.labels(thresholds))
    return total


def tune(
    predictions: Sequence[Prediction], nms: Sequence[float] = (0.2, 0.3, 0.4)
) -> tuple[float, float]:
    """Return the (prob_thresh, nms_thresh) with the best mean accuracy at IoU 0.3 and 0.5.

    Parameters
    ----------
    predictions : sequence of Prediction
        Of synthetic validation samples: a threshold tuned on test data is no result.
    nms : sequence of float

    Returns
    -------
    (prob_thresh, nms_thresh)
    """

    def quality(thresholds: tuple[float, float]) -> float:
        return sum(tally(predictions, thresholds).accuracy()[1:3])

    prob = max(THRESHOLDS, key=lambda p: quality((p, 0.3)))
    fine = [round(prob + d, 3) for d in (-0.05, 0.0, 0.05)]
    return max(((p, n) for p in fine for n in nms), key=quality)


def tune_stretch(predictions: Sequence[Prediction], thresholds: tuple[float, float]) -> float:
    """Return the factor on all distances with the best mean accuracy at IoU 0.3, 0.5 and 0.7.

    A network that minimises an absolute error answers the median of what it thinks possible, and
    is too small where it is unsure. One factor, folded into the last layer, takes out the mean of
    that.

    Parameters
    ----------
    predictions : sequence of Prediction
        Of synthetic validation samples, rescaled to the working size that the model is released
        for: how far outlines are off depends on it.
    thresholds : (prob_thresh, nms_thresh)

    Returns
    -------
    float
        The one of `STRETCHES` nearest to 1 among equals.
    """

    def quality(factor: float) -> float:
        stretched = [p.stretched(factor) for p in predictions]
        return sum(tally(stretched, thresholds).accuracy()[1:])

    return max(sorted(STRETCHES, key=lambda factor: abs(factor - 1.0)), key=quality)


def scorer_of(model: Model) -> Scorer:
    """Return what scores a model: its network, and how it sees intensities."""
    from anystar_batch.network.model import WEIGHTS  # noqa: PLC0415
    from anystar_batch.network.unet import build  # noqa: PLC0415
    from anystar_batch.network.weights import load_weights  # noqa: PLC0415

    network = build(model.unet)
    load_weights(network, Path(model.folder) / WEIGHTS)
    sample = SampleConfig(
        low_percentile=model.low_percentile, high_percentile=model.high_percentile
    )
    return Scorer(network, model.unet, sample)
