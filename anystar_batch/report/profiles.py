"""Where instances lie along each axis, plane by plane: all that the seam check needs.

Memory goes with the length of the axes, never with the number of instances::

    voxel   0   1   2   3
    edge  0   1   2   3   4        a box [1, 3) begins at edge 1 and ends at edge 3
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX

Rows = Mapping[str, NDArray[Any]]
"""Columns of some rows of the table, by name, [n] each."""


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
