"""Statistics of labels that merge: one set per storage chunk, any grouping, the same bytes.

A chunk gives for every label in it a row of sums (`Partials`). Rows of one label merge into one of
the whole volume (`Statistics`). The result must not depend on how chunks were grouped into blocks:

- Integer sums are exact. Coordinate moments are about voxel 0 of the volume, modulo 2^64: addition
  wraps but loses nothing, and the moments about the label's own box, which are small, come out
  exact by shifting the origin in the same arithmetic.
- Squares of integer intensities are kept as two sums, of their high and low 32 bits.
- Sums of floats depend on their order. So a chunk is summed in the order of its voxels and chunks
  are merged in the order of their index; rows already merged are another type and merge no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX
from anystar_batch.measure.sums import merge_floats, name_runs, sum_floats, sum_integers, sum_shapes

SHAPE = np.dtype(
    [
        ("label", "<u4"),
        ("chunk", "<i8"),
        ("num_voxels", "<i8"),
        ("sums", "<u8", 3),
        ("moments", "<u8", 6),
        ("low", "<i8", 3),
        ("high", "<i8", 3),
    ]
)
"""Row of a label in a chunk: coordinate sums (z, y, x) and second moments (zz, zy, zx, yy, yx, xx),
both modulo 2^64; box, half-open."""

INTEGER = np.dtype(
    [
        ("sum", "<i8"),
        ("squares_high", "<u8"),
        ("squares_low", "<u8"),
        ("min", "<i8"),
        ("max", "<i8"),
    ]
)
"""Integer intensities: sum of v; sums of v^2 >> 32 and of v^2 & (2^32 - 1); extremes."""

FLOAT = np.dtype(
    [
        ("count", "<i8"),
        ("mean", "<f8"),
        ("m2", "<f8"),
        ("min", "<f8"),
        ("max", "<f8"),
    ]
)
"""Float intensities that are not NaN: how many; mean; sum of squared deviations; extremes."""


@dataclass(frozen=True, slots=True)
class Partials:
    """Sums of the labels of some storage chunks, one row for every label and chunk.

    Parameters
    ----------
    shape : SHAPE [n]
        Voxel counts, coordinate sums, boxes.
    intensity : INTEGER or FLOAT [n, channels]
        Intensity sums of the same rows.
    """

    shape: NDArray[Any]
    intensity: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums of whole labels, sorted by label, one row each; `chunk` is -1.

    Parameters
    ----------
    shape : SHAPE [n]
        Voxel counts, coordinate sums, boxes.
    intensity : INTEGER or FLOAT [n, channels]
        Intensity sums of the same rows.
    """

    shape: NDArray[Any]
    intensity: NDArray[Any]

    def select(self, rows: slice) -> Statistics:
        """Return some of the rows."""
        return Statistics(self.shape[rows], self.intensity[rows])


def intensity_dtype(image: np.dtype[Any]) -> np.dtype[Any]:
    """Return the row type for an image: exact for integers to 32 bits, else float.

    Parameters
    ----------
    image : dtype
        Type of the image's values.

    Returns
    -------
    dtype
        `INTEGER` or `FLOAT`.
    """
    return INTEGER if image.kind in "bui" and image.itemsize <= 4 else FLOAT


def partials(
    labels: NDArray[np.uint32], images: Sequence[NDArray[Any]], origin: ZYX, chunk: int
) -> Partials:
    """Sum up the labels of one storage chunk.

    Parameters
    ----------
    labels : (z, y, x)
        One whole storage chunk of level 0, clipped to the volume; 0 is background.
    images : sequence of (z, y, x)
        Intensities of the same voxels, one array a channel, all of one type.
    origin : (z, y, x)
        Voxel 0 of the chunk, in voxels of the volume, at most 2 * 10^5 an axis.
    chunk : int
        Index of the chunk among all chunks of all times: unique, independent of blocks.

    Returns
    -------
    Partials
        Sorted by label.

    Raises
    ------
    ValueError
        If an image has another shape than the labels, or the images differ in type.
    """
    present, runs = _find_runs(labels)
    shape = np.zeros(len(present), SHAPE)
    if len(present) == 0:
        return Partials(shape, _intensities(labels.shape, present, runs, images))
    shape["label"], shape["chunk"] = present, chunk
    counts = np.zeros(len(present), np.int64)
    sums, moments = np.zeros((len(present), 3), np.uint64), np.zeros((len(present), 6), np.uint64)
    low, high = np.full((len(present), 3), 2**62), np.full((len(present), 3), -1)
    extent = np.array(labels.shape, np.int64)
    sum_shapes(runs, extent, np.array(origin, np.int64), counts, sums, moments, low, high)
    shape["num_voxels"], shape["sums"], shape["moments"] = counts, sums, moments
    shape["low"], shape["high"] = low, high
    return Partials(shape, _intensities(labels.shape, present, runs, images))


def widened(part: Partials, labels: NDArray[np.uint32], images: Sequence[NDArray[Any]]) -> Partials:
    """Return the sums of one chunk with those of further images of the same voxels.

    Parameters
    ----------
    part : Partials
        Of these labels, from `partials`.
    labels : (z, y, x)
        The chunk.
    images : sequence of (z, y, x)
        Further intensities, of the type of the first ones.

    Returns
    -------
    Partials
        The same rows, with further columns of intensities.
    """
    present, runs = _find_runs(labels)
    more = _intensities(labels.shape, present, runs, images)
    return Partials(part.shape, np.concatenate([part.intensity, more], axis=1))


def _find_runs(labels: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Find the labels of a chunk, sorted, and its runs along x: row of the label, first, stop.

    First and stop count voxels of the chunk in C order; no run goes beyond its line.
    """
    flat = np.ascontiguousarray(labels, dtype=np.uint32).reshape(-1)
    begins = np.ones(len(flat) + 1, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:-1])
    begins[:: max(1, labels.shape[2])] = True
    seen, runs = name_runs(flat, np.flatnonzero(begins))
    order = np.argsort(seen)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    runs[:, 0] = rank[runs[:, 0]]
    return seen[order], runs


def _intensities(
    shape: tuple[int, ...],
    present: NDArray[np.uint32],
    runs: NDArray[np.int64],
    images: Sequence[NDArray[Any]],
) -> NDArray[Any]:
    """Sum up the intensities of labels, one column an image."""
    for image in images:
        if image.shape != shape or image.dtype != images[0].dtype:
            message = (
                f"got an image {image.dtype} {image.shape}; expected {images[0].dtype} "
                f"{shape}, as the labels and the first channel"
            )
            raise ValueError(message)
    kind = intensity_dtype(images[0].dtype) if images else INTEGER
    intensity = np.zeros((len(present), len(images)), kind)
    if len(present) == 0:
        return intensity
    for channel, image in enumerate(images):
        column = intensity[:, channel]
        if kind == INTEGER:
            totals = np.zeros((len(present), 3), np.int64)
            extremes = np.empty((len(present), 2), np.int64)
            sum_integers(runs, image.astype(np.int64, order="C").reshape(-1), totals, extremes)
            column["sum"] = totals[:, 0]
            column["squares_high"], column["squares_low"] = totals[:, 1], totals[:, 2]
            column["min"], column["max"] = extremes[:, 0], extremes[:, 1]
        else:
            count = np.zeros(len(present), np.int64)
            moving = np.zeros((len(present), 4))
            sum_floats(runs, image.astype(np.float64, order="C").reshape(-1), count, moving)
            column["count"] = count
            for i, name in enumerate(("mean", "m2", "min", "max")):
                column[name] = moving[:, i]
    return intensity


def concatenate(parts: Sequence[Partials]) -> Partials:
    """Gather rows of several chunks or blocks, still one for every label and chunk.

    Parameters
    ----------
    parts : sequence of Partials
        At least one, of one image.

    Returns
    -------
    Partials
        Sorted by (label, chunk): equal for any grouping and order of the parts.

    Raises
    ------
    ValueError
        If a label has two rows of one chunk: something was measured twice.
    """
    shape = np.concatenate([p.shape for p in parts])
    intensity = np.concatenate([p.intensity for p in parts])
    order = np.lexsort((shape["chunk"], shape["label"]))
    shape, intensity = shape[order], intensity[order]
    same = (shape["label"][1:] == shape["label"][:-1]) & (shape["chunk"][1:] == shape["chunk"][:-1])
    if same.any():
        row = shape[1:][same][0]
        message = f"label {row['label']} was measured twice in chunk {row['chunk']}"
        raise ValueError(message)
    return Partials(shape, intensity)


def merge(parts: Sequence[Partials]) -> Statistics:
    """Merge the rows of every label over the whole volume.

    Parameters
    ----------
    parts : sequence of Partials
        All chunks, in any grouping and order; at least one part.

    Returns
    -------
    Statistics
        Sorted by label. Bytes are identical for any grouping and order.

    Raises
    ------
    ValueError
        If a label has two rows of one chunk.

    References
    ----------
    Floats: Chan, Golub, LeVeque (1979), Updating formulae and a pairwise algorithm for computing
    sample variances, applied from the first chunk to the last.
    """
    rows = concatenate(parts)
    label = rows.shape["label"]
    if len(label) == 0:
        return Statistics(rows.shape, rows.intensity)
    starts = np.concatenate([[0], np.flatnonzero(label[1:] != label[:-1]) + 1])
    shape = rows.shape[starts].copy()
    shape["chunk"] = -1
    for name in ("num_voxels", "sums", "moments"):
        shape[name] = np.add.reduceat(rows.shape[name], starts, axis=0)
    shape["low"] = np.minimum.reduceat(rows.shape["low"], starts, axis=0)
    shape["high"] = np.maximum.reduceat(rows.shape["high"], starts, axis=0)
    intensity = rows.intensity[starts].copy()
    if intensity.dtype == INTEGER:
        for name in ("sum", "squares_high", "squares_low"):
            intensity[name] = np.add.reduceat(rows.intensity[name], starts, axis=0)
        intensity["min"] = np.minimum.reduceat(rows.intensity["min"], starts, axis=0)
        intensity["max"] = np.maximum.reduceat(rows.intensity["max"], starts, axis=0)
        return Statistics(shape, intensity)
    stops = np.append(starts[1:], len(label))
    for channel in range(intensity.shape[1]):
        count, moving = merge_floats(
            starts,
            stops,
            np.ascontiguousarray(rows.intensity["count"][:, channel]),
            np.stack([rows.intensity[n][:, channel] for n in ("mean", "m2", "min", "max")], axis=1),
        )
        intensity["count"][:, channel] = count
        for i, name in enumerate(("mean", "m2", "min", "max")):
            intensity[name][:, channel] = moving[:, i]
    return Statistics(shape, intensity)
