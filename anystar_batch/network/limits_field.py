"""Limits at every voxel: a grid of cells (`limits_grid`), interpolated between their centres.

The low limit is interpolated as it is, the width by its eighth root: almost geometrically, as a
brightness that falls by factors asks for. Square roots and products are the same bits on any
machine, logarithms are not. The limits at a voxel are a function of the image and of the voxel's
place alone, never of the block it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYXFloat
from anystar_batch.kernel_cache import compiled
from anystar_batch.network.limits_grid import LimitsGrid


@dataclass(frozen=True, slots=True)
class LimitsField:
    """A grid over the voxels of some level.

    Parameters
    ----------
    grid : LimitsGrid
    step, offset : (z, y, x)
        Level-0 coordinate = coordinate * `step` + `offset`, voxels.
    """

    grid: LimitsGrid
    step: ZYXFloat
    offset: ZYXFloat

    @property
    def floor(self) -> float:
        """The least low limit: what intensities are raised by before they are scaled."""
        return min(self.grid.low)

    def scaled(
        self,
        above: NDArray[np.float32],
        places: Sequence[NDArray[np.float64]],
        *,
        is_clipped: bool = True,
    ) -> NDArray[np.float32]:
        """Return intensities between the limits of their places.

        Parameters
        ----------
        above : float32 (z, y, x)
            Intensities above `floor`, see `intensity.raised`.
        places : float64 [z], [y], [x]
            Coordinates of the planes along each axis, voxels of the level.
        is_clipped : bool
            Whether what lies outside the limits becomes 0 and 1.

        Returns
        -------
        float32 (z, y, x)
            0 at the low limit, 1 at the high one.
        """
        grid = self.grid
        axes = [
            _between(np.asarray(x) * step + offset, n, count)
            for x, step, offset, n, count in zip(
                places, self.step, self.offset, grid.shape, grid.cells, strict=True
            )
        ]
        low = np.reshape(np.array(grid.low, np.float64), grid.cells)
        # Square roots are exact to the last bit on any machine.
        root = np.sqrt(np.sqrt(np.sqrt(np.reshape(np.array(grid.width, np.float64), grid.cells))))
        (iz, wz), (iy, wy), (ix, wx) = axes
        out = np.empty(above.shape, np.float32)
        _scale(
            np.ascontiguousarray(above), low - self.floor, root, iz, wz, iy, wy, ix, wx,
            is_clipped, out,
        )  # fmt: skip
        return out


def _between(
    position: NDArray[np.float64], length: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cell before each place along an axis, and how far on the way to the next cell it is."""
    along = np.clip((position + 0.5) * (count / length) - 0.5, 0.0, count - 1.0)
    first = np.minimum(along.astype(np.int64), max(count - 2, 0))
    return first, along - first


@compiled()
def _scale(  # noqa: PLR0913  (a kernel takes arrays, not objects)
    above: NDArray[np.float32],
    low: NDArray[np.float64],
    root: NDArray[np.float64],
    iz: NDArray[np.int64],
    wz: NDArray[np.float64],
    iy: NDArray[np.int64],
    wy: NDArray[np.float64],
    ix: NDArray[np.int64],
    wx: NDArray[np.float64],
    is_clipped: bool,
    out: NDArray[np.float32],
) -> None:
    """Fill `out`, a row at a time: the cells of a row first, then its voxels."""
    last_z, last_y, last_x = low.shape[0] - 1, low.shape[1] - 1, low.shape[2] - 1
    row_low, row_root = np.empty(last_x + 1), np.empty(last_x + 1)
    for z in range(above.shape[0]):
        z0, z1, fz = iz[z], min(iz[z] + 1, last_z), wz[z]
        for y in range(above.shape[1]):
            y0, y1, fy = iy[y], min(iy[y] + 1, last_y), wy[y]
            for c in range(last_x + 1):
                a = low[z0, y0, c] + fy * (low[z0, y1, c] - low[z0, y0, c])
                b = low[z1, y0, c] + fy * (low[z1, y1, c] - low[z1, y0, c])
                row_low[c] = a + fz * (b - a)
                a = root[z0, y0, c] + fy * (root[z0, y1, c] - root[z0, y0, c])
                b = root[z1, y0, c] + fy * (root[z1, y1, c] - root[z1, y0, c])
                row_root[c] = a + fz * (b - a)
            for x in range(above.shape[2]):
                x0, x1, fx = ix[x], min(ix[x] + 1, last_x), wx[x]
                start = row_low[x0] + fx * (row_low[x1] - row_low[x0])
                power = row_root[x0] + fx * (row_root[x1] - row_root[x0])
                power = power * power
                power = power * power
                value = (np.float64(above[z, y, x]) - start) / (power * power)
                if is_clipped:
                    value = min(max(value, 0.0), 1.0)
                out[z, y, x] = np.float32(value)
