"""Scores of a network on volumes with known objects.

Everything runs in memory: rescale to the working voxel size, normalise, predict in one piece,
suppress, paint at the volume's own voxels, match. No candidate is dropped near the border
(StarDist drops those within two grid points, which costs a small volume a sixth of its objects).

Accuracy is TP / (TP + FP + FN) at an IoU, over all objects of a set together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from trainer.synthesis.config import SampleConfig
from trainer.volumes import Truth

if TYPE_CHECKING:
    import keras

IOUS = (0.1, 0.3, 0.5, 0.7)
"""Thresholds at which a predicted and a true object count as the same."""

STRICT = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""Thresholds that the mean accuracy is over: 0.5 to 0.95."""

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Probabilities tried when a threshold is tuned."""

STRETCHES = (0.94, 0.97, 1.0, 1.03, 1.06, 1.09, 1.12, 1.15, 1.2, 1.25, 1.3)
"""Factors tried when the distances are tuned."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of matched objects, per IoU of `IOUS`.

    Parameters
    ----------
    tp, fp, fn : tuple of int
        Matched, predicted only, true only.
    ratio : tuple of float
        Predicted over true volume of every pair matched at IoU 0.1.
    iou : tuple of float
        IoU of each of these pairs.
    """

    tp: tuple[int, ...] = (0,) * len(IOUS)
    fp: tuple[int, ...] = (0,) * len(IOUS)
    fn: tuple[int, ...] = (0,) * len(IOUS)
    ratio: tuple[float, ...] = ()
    iou: tuple[float, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        """Return the counts of both together."""

        def add(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(p + q for p, q in zip(a, b, strict=True))

        return Tally(
            add(self.tp, other.tp),
            add(self.fp, other.fp),
            add(self.fn, other.fn),
            self.ratio + other.ratio,
            self.iou + other.iou,
        )

    def accuracy(self) -> tuple[float, ...]:
        """Return TP / (TP + FP + FN) per IoU."""
        counts = zip(self.tp, self.fp, self.fn, strict=True)
        return tuple(tp / max(tp + fp + fn, 1) for tp, fp, fn in counts)

    def mean_accuracy(self) -> float:
        """Return the mean of the accuracies at the IoUs of `STRICT`."""
        pairs = self.tp[0] + self.fp[0] + self.fn[0]
        matched = [sum(iou >= t for iou in self.iou) for t in STRICT]
        # Every pair fewer is one more object alone on either side.
        shares = [n / max(pairs + self.tp[0] - n, 1) for n in matched]
        return sum(shares) / len(shares)

    def precision(self) -> float:
        """Return the share of predicted objects that are matched at the least IoU."""
        return self.tp[0] / max(self.tp[0] + self.fp[0], 1)

    def recall(self) -> float:
        """Return the share of true objects that are matched at the least IoU."""
        return self.tp[0] / max(self.tp[0] + self.fn[0], 1)

    def f1(self) -> tuple[float, ...]:
        """Return 2 TP / (2 TP + FP + FN) per IoU."""
        counts = zip(self.tp, self.fp, self.fn, strict=True)
        return tuple(2 * tp / max(2 * tp + fp + fn, 1) for tp, fp, fn in counts)


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


def match(truth: NDArray[np.integer], labels: NDArray[np.integer]) -> Tally:
    """Count matches between true and predicted objects, one to one, most IoU first.

    Parameters
    ----------
    truth, labels : (z, y, x)
        0 is background.

    Returns
    -------
    Tally

    Notes
    -----
    At an IoU of 0.5 or more a match is unique, and this is StarDist's `matching`; below, StarDist
    assigns optimally and this greedily, which differs by less than an object in a hundred.
    """
    _, true = np.unique(truth, return_inverse=True)
    _, found = np.unique(labels, return_inverse=True)
    true = true.ravel() + (0 if (truth == 0).any() else 1)
    found = found.ravel() + (0 if (labels == 0).any() else 1)
    n_true, n_found = int(true.max()), int(found.max())
    pairs, overlap = np.unique(true * (n_found + 1) + found, return_counts=True)
    a, b = pairs // (n_found + 1), pairs % (n_found + 1)
    size_true = np.bincount(true, minlength=n_true + 1)
    size_found = np.bincount(found, minlength=n_found + 1)
    inside = (a > 0) & (b > 0)
    a, b, overlap = a[inside], b[inside], overlap[inside]
    iou = overlap / (size_true[a] + size_found[b] - overlap)
    taken_a, taken_b = np.zeros(n_true + 1, bool), np.zeros(n_found + 1, bool)
    matched, ratio = [], []
    for k in np.argsort(-iou, kind="stable"):
        if iou[k] < IOUS[0]:
            break
        if taken_a[a[k]] or taken_b[b[k]]:
            continue
        taken_a[a[k]] = taken_b[b[k]] = True
        matched.append(iou[k])
        ratio.append(float(size_found[b[k]] / size_true[a[k]]))
    tp = tuple(int(np.sum(np.array(matched) >= t)) for t in IOUS)
    return Tally(
        tp,
        tuple(n_found - n for n in tp),
        tuple(n_true - n for n in tp),
        tuple(ratio),
        tuple(float(iou) for iou in matched),
    )


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
