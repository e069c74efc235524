"""True and found objects matched by overlap, and what is counted of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IOUS = (0.1, 0.3, 0.5, 0.7)
"""Thresholds at which a predicted and a true object count as the same."""

STRICT = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""Thresholds that the mean accuracy is over: 0.5 to 0.95."""


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
