"""Two label volumes as a sparse table of shared voxels.

A volume is reduced to `Overlaps`: one row for every pair (true label, found label) that shares a
voxel, with the number of voxels; 0 stands for the background, and the pair of backgrounds is left
out. Sizes are sums of rows, so the table is all that scores need. Tables of blocks merge by adding
voxels, hence the block shape cannot change a score. A row takes 24 bytes; memory goes with the
number of pairs, not of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ImageError
from anystar_batch.measure.merger import Merger, merged


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

    def true_objects(self) -> Objects:
        """Return the true objects."""
        return _objects(self.true, self.voxels)

    def found_objects(self) -> Objects:
        """Return the found objects."""
        return _objects(self.found, self.voxels)


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects of one side of a table.

    Parameters
    ----------
    labels : uint64 [n]
        Ascending, without the background.
    voxels : int64 [n]
        Size of every object.
    index : int64 [rows]
        Index of every row's object, -1 for the background.
    """

    labels: NDArray[np.uint64]
    voxels: NDArray[np.int64]
    index: NDArray[np.int64]


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
        In any order. They are taken one by one.

    Returns
    -------
    Overlaps
    """
    return merged(parts, empty(), _concatenated)


def merger() -> Merger[Overlaps]:
    """Return what takes tables one by one, and merges them as `merge` does."""
    return Merger(empty(), _concatenated)


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
        true, found = table.true_objects(), table.found_objects()
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


def _objects(labels: NDArray[np.uint64], voxels: NDArray[np.int64]) -> Objects:
    seen, inverse = np.unique(labels, return_inverse=True)
    sizes = np.zeros(len(seen), np.int64)
    np.add.at(sizes, inverse, voxels)
    first = int(len(seen) > 0 and seen[0] == 0)
    return Objects(seen[first:], sizes[first:], inverse.astype(np.int64) - first)


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
