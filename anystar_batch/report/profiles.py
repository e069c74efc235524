"""Where instances lie along each axis, plane by plane: all that the seam check needs.

Memory goes with the length of the axes, never with the number of instances::

    voxel   0   1   2   3
    edge  0   1   2   3   4        a box [1, 3) begins at edge 1 and ends at edge 3
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX

Rows = Mapping[str, NDArray[Any]]
"""Columns of some rows of the table, by name, [n] each."""


FEWEST_EDGES = 10
"""Fewer edges at which labels change have no pattern."""

LEAST_FACTOR = 1.2
"""Mean gap between edges at which labels change, of labels that were enlarged."""

USUAL_SHARE = 0.8
"""Share of the gaps that the pattern explains; the others are wider, where no object is."""


@dataclass(frozen=True, slots=True)
class AxisProfile:
    """The instances along one axis; filled by `add`.

    Parameters
    ----------
    count : int64 [voxels]
        Centroids in each plane of voxels.
    log_volume : float64 [voxels]
        Sum of the natural logarithm of their volumes in voxels.
    faces : int64 [voxels + 1]
        Boxes that begin or end at each edge, those at the volume's own border left out.
    pairs : int64 [voxels + 1, 3], optional
        Pairs of voxels across each edge, as `measure.contacts` counts them; None where only a table
        is known.
    """

    count: NDArray[np.int64]
    log_volume: NDArray[np.float64]
    faces: NDArray[np.int64]
    pairs: NDArray[np.int64] | None = None

    @classmethod
    def empty(cls, length: int) -> AxisProfile:
        """Return the profile of an axis of so many voxels without instances."""
        return cls(np.zeros(length, np.int64), np.zeros(length), np.zeros(length + 1, np.int64))

    @property
    def length(self) -> int:
        """Voxels of the axis."""
        return len(self.count)

    def on_edges(self, edges: NDArray[np.int64]) -> AxisProfile:
        """Return the profile of the wider voxels between some of the edges.

        Parameters
        ----------
        edges : int64 [n]
            Ascending, from 0 to the length; no label changes at any other edge.
        """
        count, logs = (np.add.reduceat(v, edges[:-1]) for v in (self.count, self.log_volume))
        pairs = None if self.pairs is None else self.pairs[edges]
        return AxisProfile(count, logs, self.faces[edges], pairs)


@dataclass(frozen=True, slots=True)
class Profiles:
    """The instances along all three axes.

    Parameters
    ----------
    axes : (z, y, x)
        One profile an axis.
    """

    axes: tuple[AxisProfile, AxisProfile, AxisProfile]

    @classmethod
    def empty(cls, shape: ZYX) -> Profiles:
        """Return the profiles of a volume of this shape, level-0 voxels."""
        z, y, x = (AxisProfile.empty(n) for n in shape)
        return cls((z, y, x))

    def with_pairs(self, pairs: Sequence[NDArray[np.int64]]) -> Profiles:
        """Return the same instances with the pairs of voxels of the volume, one array an axis."""
        z, y, x = (replace(a, pairs=p) for a, p in zip(self.axes, pairs, strict=True))
        return Profiles((z, y, x))

    @property
    def shape(self) -> ZYX:
        """Voxels of the volume, level 0."""
        z, y, x = (axis.length for axis in self.axes)
        return z, y, x

    @property
    def instances(self) -> int:
        """How many were added."""
        return int(self.axes[0].count.sum())

    def add(self, rows: Rows) -> None:
        """Add instances.

        Parameters
        ----------
        rows : dict
            Columns `centroid_z`, `bbox_z_min`, `bbox_z_max` (of every axis) and `num_voxels` of the
            table, level-0 voxels.
        """
        logs = np.log(rows["num_voxels"])
        for axis, name in zip(self.axes, "zyx", strict=True):
            n = axis.length
            plane = np.rint(rows[f"centroid_{name}"]).astype(np.int64).clip(0, n - 1)
            axis.count[:] += np.bincount(plane, minlength=n)
            axis.log_volume[:] += np.bincount(plane, weights=logs, minlength=n)
            for side in ("min", "max"):
                edge = rows[f"bbox_{name}_{side}"].astype(np.int64)
                inner = edge[(edge > 0) & (edge < n)]
                axis.faces[:] += np.bincount(inner, minlength=n + 1)


def own_edges(axis: AxisProfile) -> NDArray[np.int64] | None:
    """Return the edges that labels had before they were enlarged; None if they were not.

    Labels of a coarser level, brought to level 0 by the nearest voxel, change at every second or
    third edge only, or with other factors in a pattern of two gaps.

    Parameters
    ----------
    axis : AxisProfile

    Returns
    -------
    int64 [n] or None
        Ascending, from 0 to the length: all at which labels change, and those between at which they
        would, had an object been there. None also where the pairs of voxels are not known.
    """
    if axis.pairs is None:
        return None
    used = np.flatnonzero(axis.pairs[:, 1:].sum(axis=1))
    if len(used) < FEWEST_EDGES:
        return None
    gaps = np.diff(used)
    widest = float(np.median(gaps)) + 1
    usual = gaps[gaps <= widest]
    factor = float(usual.mean())
    if factor < LEAST_FACTOR or len(usual) < USUAL_SHARE * len(gaps):
        return None
    known = np.concatenate([[0], used, [axis.length]])
    parts = [
        np.rint(np.linspace(a, b, 2 if b - a <= widest else round((b - a) / factor) + 1))
        for a, b in itertools.pairwise(known)
    ]
    return np.unique(np.concatenate(parts).astype(np.int64))
