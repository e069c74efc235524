"""Scores of found objects against true ones, from a sparse table of shared voxels.

A volume is reduced to `Overlaps`: one row for every pair (true label, found label) that shares a
voxel, with the number of voxels; 0 stands for the background, and the pair of backgrounds is left
out. Sizes are sums of rows, so the table is all that scores need. Tables of blocks merge by adding
voxels, hence the block shape cannot change a score. A row takes 24 bytes; memory goes with the
number of pairs, not of voxels.

Definitions at an IoU threshold are those of `stardist.matching.matching` (criterion `iou`); the
assignment is in `assignment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ImageError
from anystar_batch.measure.assignment import Graph, assign

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds at which a found and a true object count as the same."""

PIECE = 10
"""A piece of a split or merged object covers at least one `PIECE`th of it."""

PENDING = 10**6
"""Rows that wait before tables are merged."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Voxels shared by pairs of labels; 0 is the background.

    Parameters
    ----------
    true, found : uint64 [n]
        Labels of every pair, sorted by (true, found), each pair once, never (0, 0).
    voxels : int64 [n]
        Voxels that carry both, at least 1.
    """

    true: NDArray[np.uint64]
    found: NDArray[np.uint64]
    voxels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.voxels)

    def __add__(self, other: Overlaps) -> Overlaps:
        """Return the table of two blocks of one volume: equal labels are the same object."""
        return _concatenated([self, other])

    def true_voxels(self) -> NDArray[np.int64]:
        """Return the voxels of every true object, in the order of the labels."""
        return _objects(self.true, self.voxels).voxels

    def found_voxels(self) -> NDArray[np.int64]:
        """Return the voxels of every found object, in the order of the labels."""
        return _objects(self.found, self.voxels).voxels


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
        """Sum of the matched pairs' IoU over TP + FP / 2 + FN / 2 (Kirillov et al., CVPR 2019)."""
        return _ratio(2.0 * float(self.ious.sum()), self.n_true + self.n_found)


def match(truth: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]]) -> Overlaps:
    """Count the voxels shared by every pair of labels.

    Parameters
    ----------
    truth, labels : integer, same shape
        True and found labels; 0 is background. A block of a volume, or all of it.

    Returns
    -------
    Overlaps

    Raises
    ------
    ImageError
        If the shapes differ, or a label is no integer or is negative.

    Notes
    -----
    Voxels are first taken together in runs of equal pairs along the last axis, so that only runs
    are sorted. The runs of noise are its voxels: then memory is some 60 bytes a voxel.

    Examples
    --------
    >>> table = match(np.array([0, 1, 1, 2]), np.array([0, 0, 7, 7]))
    >>> [(int(t), int(f), int(n)) for t, f, n in zip(table.true, table.found, table.voxels)]
    [(1, 0, 1), (1, 7, 1), (2, 7, 1)]
    """
    if truth.shape != labels.shape:
        message = f"truth and labels differ in shape: {truth.shape} and {labels.shape}"
        raise ImageError(message)
    for name, array in (("truth", truth), ("labels", labels)):
        if array.dtype.kind not in "iu":
            message = f"{name}: got type {array.dtype}; expected integer labels"
            raise ImageError(message)
    a, b = truth.ravel(), labels.ravel()
    if a.size == 0:
        return empty()
    changes = np.flatnonzero((a[1:] != a[:-1]) | (b[1:] != b[:-1]))
    last = np.append(changes, a.size - 1)
    a, b = a[last], b[last]
    for name, array in (("truth", a), ("labels", b)):
        if array.min() < 0:
            message = f"{name}: got label {array.min()}; expected 0 (background) and above"
            raise ImageError(message)
    return _table(a.astype(np.uint64), b.astype(np.uint64), np.diff(last, prepend=-1))


def empty() -> Overlaps:
    """Return the table of nothing but background."""
    labels = np.empty(0, np.uint64)
    return Overlaps(labels, labels, np.empty(0, np.int64))


def merge(parts: Iterable[Overlaps]) -> Overlaps:
    """Merge the tables of the blocks of one volume, whose boxes tile it.

    Parameters
    ----------
    parts : iterable of Overlaps
        In any order. They are taken one by one; `PENDING` rows, or as many as the result has so
        far, wait before they are merged into it.

    Returns
    -------
    Overlaps
    """
    done = empty()
    pending: list[Overlaps] = []
    for part in parts:
        pending.append(part)
        if sum(map(len, pending)) > max(PENDING, len(done)):
            done = _concatenated([done, *pending])
            pending.clear()
    return _concatenated([done, *pending])


def pool(volumes: Iterable[Overlaps]) -> Overlaps:
    """Return several volumes as one, in which no two share an object.

    Parameters
    ----------
    volumes : iterable of Overlaps
        Times of a series, or images of a set.

    Returns
    -------
    Overlaps
        Objects are numbered anew from 1, volume by volume, in the order of their labels.
    """
    parts, n_true, n_found = [empty()], 0, 0
    for table in volumes:
        true, found = _objects(table.true, table.voxels), _objects(table.found, table.voxels)
        parts.append(
            Overlaps(
                np.where(true.index < 0, 0, true.index + n_true + 1).astype(np.uint64),
                np.where(found.index < 0, 0, found.index + n_found + 1).astype(np.uint64),
                table.voxels,
            )
        )
        n_true += len(true.labels)
        n_found += len(found.labels)
    return _concatenated(parts)


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
    true = _objects(overlaps.true, overlaps.voxels)
    found = _objects(overlaps.found, overlaps.voxels)
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
    return _broken(
        _objects(overlaps.true, overlaps.voxels),
        _objects(overlaps.found, overlaps.voxels),
        overlaps.voxels,
    )


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
    return _broken(
        _objects(overlaps.found, overlaps.voxels),
        _objects(overlaps.true, overlaps.voxels),
        overlaps.voxels,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Objects:
    """The objects of one side: labels, voxels, and the index of every row's object or -1."""

    labels: NDArray[np.uint64]
    voxels: NDArray[np.int64]
    index: NDArray[np.int64]


def _objects(labels: NDArray[np.uint64], voxels: NDArray[np.int64]) -> _Objects:
    seen, inverse = np.unique(labels, return_inverse=True)
    sizes = np.zeros(len(seen), np.int64)
    np.add.at(sizes, inverse, voxels)
    first = int(len(seen) > 0 and seen[0] == 0)
    return _Objects(seen[first:], sizes[first:], inverse.astype(np.int64) - first)


def _broken(whole: _Objects, parts: _Objects, shared: NDArray[np.int64]) -> int:
    """Count the objects of one side that several of the other are pieces of."""
    both = (whole.index >= 0) & (parts.index >= 0)
    index, shared = whole.index[both], shared[both]
    is_piece = (2 * shared > parts.voxels[parts.index[both]]) & (
        PIECE * shared >= whole.voxels[index]
    )
    return int(np.count_nonzero(np.bincount(index[is_piece]) > 1))


def _concatenated(parts: Sequence[Overlaps]) -> Overlaps:
    return _table(
        np.concatenate([p.true for p in parts]),
        np.concatenate([p.found for p in parts]),
        np.concatenate([p.voxels for p in parts]),
    )


def _table(
    true: NDArray[np.uint64], found: NDArray[np.uint64], voxels: NDArray[np.int64]
) -> Overlaps:
    """Sort rows by their pair of labels and add up equal ones; (0, 0) is dropped."""
    seen = (true != 0) | (found != 0)
    true, found, voxels = true[seen], found[seen], voxels[seen]
    if len(voxels) == 0:
        return empty()
    if max(true.max(), found.max()) < 2**32:
        # One key of 64 bits sorts several times faster than two.
        order = np.argsort((true << np.uint64(32)) | found)
    else:
        order = np.lexsort((found, true))
    true, found = true[order], found[order]
    is_new = np.append(True, (true[1:] != true[:-1]) | (found[1:] != found[:-1]))
    starts = np.flatnonzero(is_new)
    return Overlaps(true[starts], found[starts], np.add.reduceat(voxels[order], starts))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
