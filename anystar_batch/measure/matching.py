"""Scores of found objects against true ones, from the voxels they share.

::

    scores(match(truth, labels))                       one volume
    scores(merge(match(t, l) for t, l in blocks))      one volume, block by block: the same
    scores(pool(match(t, l) for t, l in volumes))      several volumes, all objects together

Definitions at an IoU threshold are those of `stardist.matching.matching` (criterion `iou`); the
table of shared voxels is in `overlaps`, the assignment in `assignment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.measure.assignment import Graph, assign
from anystar_batch.measure.overlaps import Objects, Overlaps, match, merge, pool

__all__ = ["IOUS", "Overlaps", "Score", "match", "merge", "merges", "pool", "scores", "splits"]

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds at which a found and a true object count as the same."""

PIECE = 10
"""A piece of a split or merged object covers at least one `PIECE`th of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """What was matched at one threshold; ratios with nothing below are 0, as in StarDist.

    Parameters
    ----------
    iou : float
        Threshold.
    n_true, n_found : int
        Objects.
    true, found : uint64 [tp]
        Labels of the matched pairs.
    ious : float64 [tp]
        Their IoU, rounded to float32 as StarDist does.
    volume_ratios : float64 [tp]
        Their found over true volume.
    """

    iou: float
    n_true: int
    n_found: int
    true: NDArray[np.uint64]
    found: NDArray[np.uint64]
    ious: NDArray[np.float64]
    volume_ratios: NDArray[np.float64]

    @property
    def tp(self) -> int:
        """Matched pairs."""
        return len(self.ious)

    @property
    def fp(self) -> int:
        """Found objects without a true one."""
        return self.n_found - self.tp

    @property
    def fn(self) -> int:
        """True objects without a found one."""
        return self.n_true - self.tp

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return _ratio(self.tp, self.n_found)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return _ratio(self.tp, self.n_true)

    @property
    def accuracy(self) -> float:
        """TP / (TP + FP + FN)."""
        return _ratio(self.tp, self.n_true + self.fp)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.tp, self.n_true + self.n_found)

    @property
    def mean_true_score(self) -> float:
        """Sum of the matched pairs' IoU over the number of true objects."""
        return _ratio(float(self.ious.sum()), self.n_true)

    @property
    def mean_matched_score(self) -> float:
        """Mean IoU of the matched pairs."""
        return _ratio(float(self.ious.sum()), self.tp)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the matched pairs' IoU over TP + FP / 2 + FN / 2.

        References
        ----------
        Kirillov et al., Panoptic Segmentation, CVPR 2019, arXiv:1801.00868.
        """
        return _ratio(2.0 * float(self.ious.sum()), self.n_true + self.n_found)

    def to_json(self) -> dict[str, float]:
        """Return threshold, counts and ratios as plain JSON values."""
        return {
            "iou": self.iou,
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
            "precision": self.precision,
            "recall": self.recall,
            "accuracy": self.accuracy,
            "f1": self.f1,
            "panoptic_quality": self.panoptic_quality,
            "mean_true_score": self.mean_true_score,
            "mean_matched_score": self.mean_matched_score,
        }


def scores(overlaps: Overlaps, ious: Sequence[float] = IOUS) -> tuple[Score, ...]:
    """Match found to true objects at every threshold and score it.

    Parameters
    ----------
    overlaps : Overlaps
        Of a whole volume, or of several pooled.
    ious : sequence of float
        Thresholds, more than 0 and at most 1.

    Returns
    -------
    tuple of Score
        One a threshold.

    Notes
    -----
    Sums are taken in float64, StarDist's in float32.

    Examples
    --------
    >>> truth = np.array([1, 1, 1, 1, 2, 2])
    >>> [(s.tp, s.fp, s.fn) for s in scores(match(truth, truth * (truth < 2)), (0.5,))]
    [(1, 0, 1)]
    """
    true, found = overlaps.true_objects(), overlaps.found_objects()
    both = (true.index >= 0) & (found.index >= 0)
    at, to, shared = true.index[both], found.index[both], overlaps.voxels[both]
    union = true.voxels[at] + found.voxels[to] - shared
    iou_of = (shared / union).astype(np.float32)
    graph = Graph(len(true.labels), len(found.labels), at, to, iou_of)
    result = []
    for iou in ious:
        edges = assign(graph, iou)
        a, b = at[edges], to[edges]
        result.append(
            Score(
                iou=float(iou),
                n_true=graph.n_true,
                n_found=graph.n_found,
                true=true.labels[a],
                found=found.labels[b],
                ious=iou_of[edges].astype(np.float64),
                volume_ratios=found.voxels[b] / true.voxels[a],
            )
        )
    return tuple(result)


def splits(overlaps: Overlaps) -> int:
    """Count the true objects that were found in several pieces.

    A true object is split if at least two found objects are pieces of it. A piece has more than
    half of its own voxels inside the object, and covers at least a tenth (`PIECE`) of it: crumbs
    split nothing.

    Parameters
    ----------
    overlaps : Overlaps

    Returns
    -------
    int
    """
    return _broken(overlaps.true_objects(), overlaps.found_objects(), overlaps.voxels)


def merges(overlaps: Overlaps) -> int:
    """Count the found objects that run several true ones together: `splits`, mirrored.

    At least two true objects have more than half of their own voxels inside it, and each covers at
    least a tenth (`PIECE`) of it.

    Parameters
    ----------
    overlaps : Overlaps

    Returns
    -------
    int
    """
    return _broken(overlaps.found_objects(), overlaps.true_objects(), overlaps.voxels)


def _broken(whole: Objects, parts: Objects, shared: NDArray[np.int64]) -> int:
    """Count the objects of one side that several of the other are pieces of."""
    both = (whole.index >= 0) & (parts.index >= 0)
    index, shared = whole.index[both], shared[both]
    is_piece = (2 * shared > parts.voxels[parts.index[both]]) & (
        PIECE * shared >= whole.voxels[index]
    )
    return int(np.count_nonzero(np.bincount(index[is_piece]) > 1))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
