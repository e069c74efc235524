"""Voxel count, centroid and box of every label of a volume that is read box by box.

`partials` does the same for labels of our own, whole chunks and 32 bits; here labels may be of any
integer type and boxes of any shape. All sums are integers, so that boxes cannot change a result. A
label takes 88 bytes, and as much again while boxes are merged; memory goes with the labels, never
with the voxels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX
from anystar_batch.measure.merger import merged
from anystar_batch.measure.partials import partials

EXTENT = np.dtype(
    [
        ("label", "<u8"),
        ("num_voxels", "<i8"),
        ("sums", "<u8", 3),
        ("low", "<i8", 3),
        ("high", "<i8", 3),
    ]
)
"""Row of a label: voxels, coordinate sums (z, y, x), box, half-open; voxels of the volume."""


def narrowed(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Number the labels of a box so that 32 bits hold them; 0 stays 0.

    Parameters
    ----------
    labels : integer (z, y, x)
        Not negative.

    Returns
    -------
    labels : uint32 (z, y, x)
    names : uint64 [n]
        The label of every number; empty where numbers are the labels themselves.
    """
    if labels.size == 0 or int(labels.max()) < 2**32:
        return labels.astype(np.uint32, copy=False), np.empty(0, np.uint64)
    names, numbers = np.unique(labels, return_inverse=True)
    if names[0] != 0:
        names, numbers = np.concatenate([[0], names]), numbers + 1
    return numbers.reshape(labels.shape).astype(np.uint32), names.astype(np.uint64)


def box_extents(labels: NDArray[np.uint32], names: NDArray[np.uint64], origin: ZYX) -> NDArray[Any]:
    """Return the labels of a box.

    Parameters
    ----------
    labels, names
        As `narrowed` gives them.
    origin : (z, y, x)
        Voxel 0 of the box, in voxels of the volume.

    Returns
    -------
    EXTENT [n]
        Sorted by label.
    """
    shape = partials(labels, (), origin, 0).shape
    rows = np.zeros(len(shape), EXTENT)
    for name in ("num_voxels", "sums", "low", "high"):
        rows[name] = shape[name]
    rows["label"] = names[shape["label"]] if len(names) else shape["label"]
    return rows


def merge(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Merge the rows of boxes that tile a volume.

    Parameters
    ----------
    parts : iterable of EXTENT [n]
        In any order. They are taken one by one.

    Returns
    -------
    EXTENT [n]
        Sorted by label, each once.
    """
    return merged(parts, np.zeros(0, EXTENT), _joined)


def columns(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return rows as columns of a table: `num_voxels`, `centroid_z`, `bbox_z_min`, and so on.

    Parameters
    ----------
    rows : EXTENT [n]
        Of whole labels.
    """
    table = {"num_voxels": rows["num_voxels"]}
    for a, axis in enumerate("zyx"):
        table[f"centroid_{axis}"] = rows["sums"][:, a] / rows["num_voxels"]
        table[f"bbox_{axis}_min"] = rows["low"][:, a]
        table[f"bbox_{axis}_max"] = rows["high"][:, a]
    return table


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows["label"], kind="stable")]
    starts = np.flatnonzero(np.append(True, rows["label"][1:] != rows["label"][:-1])[: len(rows)])
    merged = rows[starts]
    if len(rows):
        merged["num_voxels"] = np.add.reduceat(rows["num_voxels"], starts)
        merged["sums"] = np.add.reduceat(rows["sums"], starts, axis=0)
        merged["low"] = np.minimum.reduceat(rows["low"], starts, axis=0)
        merged["high"] = np.maximum.reduceat(rows["high"], starts, axis=0)
    return merged
