"""Intensity limits that follow the image: a coarse grid of cells, interpolated at every voxel.

One pair of limits holds for a whole volume (`intensity`); where a part is many times dimmer than
the rest it fills next to nothing of the range. The grid widens such parts, and leaves all others
as they are. A cell is compared with the whole by the same statistics, the range of the means over
small boxes, a quarter of a diameter wide (`box_means`)::

    gain of a cell = max(1, range of the whole / (TOLERANCE * range of the cell))

The network bears a tolerance of 3 well, so most images have a gain of 1 everywhere and no grid at
all. What gains nothing of its own:

- a cell of noise alone: neighbouring boxes differ as much as boxes twice as far apart (`texture`);
- a cell with one value, or none.

Both take the mean gain of their neighbours, the noisy cell no more than fits its own range.

A cell's darkness keeps the height above 0 that it had, so a haze stays a haze, and the contrast on
it is multiplied. Between the centres of cells low limit and width are interpolated, the width by
its eighth root, which is almost geometric and is the same bits anywhere. The limits at a voxel are
a function of the image and of the voxel's place alone, never of the block it is in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, ZYXFloat, as_zyx
from anystar_batch.kernel_cache import compiled

CELL = 3.0
"""Least edge of a cell, diameters of an object: several objects lie in it."""

MOST_CELLS = 4096
"""Cells of a volume; a larger volume has larger cells. Every task carries them."""

BOXES = 4
"""Boxes across a diameter."""

TOLERANCE = 3.0
"""How many times dimmer than the whole a cell may be and keep the limits of the whole."""

TEXTURE = 1.3
"""Least `texture` of a cell that shows more than noise: objects have 1.4 to 1.7, white noise 1.0,
noise blurred to a third of a box 1.2 (measured, `docs/quality.md`)."""

PERCENTILES = (1.0, 99.5)
"""Of the means of boxes: the range of a cell, and of the whole."""

POOLED = 1000
"""Most means of a cell that count towards the range of the whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """What is known of a cell.

    Parameters
    ----------
    low, high : float
        Range of the means of its boxes, the image's unit; NaN where no voxel is finite.
    texture : float
        See `texture`.
    means : float64 [n]
        Some of the means, evenly.
    """

    low: float
    high: float
    texture: float
    means: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LimitsGrid:
    """Intensity limits of one volume, cell by cell.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, level-0 voxels; the cells divide it evenly.
    cells : (z, y, x)
        Number of cells.
    low, width : tuple of float [z * y * x]
        Of each cell, x fastest: the intensity that becomes 0, and how far above it that lies which
        becomes 1; the image's unit.
    """

    shape: ZYX
    cells: ZYX
    low: tuple[float, ...]
    width: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        """Return the grid as plain JSON values."""
        return {
            "shape": list(self.shape),
            "cells": list(self.cells),
            "low": list(self.low),
            "width": list(self.width),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LimitsGrid:
        """Return the grid that `to_json` has written."""
        low, width = (tuple(map(float, document[key])) for key in ("low", "width"))
        return cls(as_zyx(document["shape"]), as_zyx(document["cells"]), low, width)


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


def cell_counts(shape: ZYX, scale_um: ZYXFloat, diameter_um: float) -> ZYX:
    """Return into how many cells each axis of a volume is divided.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, voxels.
    scale_um : (z, y, x)
        Size of a voxel, micrometres.
    diameter_um : float
        Of the objects, micrometres.

    Returns
    -------
    (z, y, x)
        At most `MOST_CELLS` together, each about `CELL` diameters wide or wider.

    Examples
    --------
    >>> cell_counts((100, 100, 200), (1.0, 1.0, 1.0), 10.0)
    (3, 3, 7)
    >>> cell_counts((10, 4000, 4000), (1.0, 1.0, 1.0), 10.0)
    (1, 64, 64)
    """
    extents = [n * s for n, s in zip(shape, scale_um, strict=True)]
    edge = CELL * diameter_um
    while True:
        counts = as_zyx(max(1, round(extent / edge)) for extent in extents)
        if math.prod(counts) <= MOST_CELLS:
            return counts
        edge *= 1.02


def box_means(voxels: NDArray[np.number], box: ZYX) -> NDArray[np.float64]:
    """Return the means over boxes that divide a crop, from its first corner.

    Parameters
    ----------
    voxels : (z, y, x)
        Intensities; not finite ones do not count.
    box : (z, y, x)
        Edges of a box, voxels; along a shorter axis the whole axis. A rest is left out.

    Returns
    -------
    float64 (z, y, x)
        NaN where a box has no finite voxel.
    """
    edges = [min(b, n) for b, n in zip(box, voxels.shape, strict=True)]
    counts = [n // e for n, e in zip(voxels.shape, edges, strict=True)]
    inner = voxels[tuple(slice(c * e) for c, e in zip(counts, edges, strict=True))]
    blocks = inner.astype(np.float64).reshape(
        counts[0], edges[0], counts[1], edges[1], counts[2], edges[2]
    )
    finite = np.isfinite(blocks)
    if finite.all():
        means: NDArray[np.float64] = blocks.mean(axis=(1, 3, 5))
        return means
    number = finite.sum(axis=(1, 3, 5))
    total = np.where(finite, blocks, 0.0).sum(axis=(1, 3, 5))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def texture(means: NDArray[np.float64]) -> float:
    """Return how much more boxes differ that are two apart than boxes that are neighbours.

    Parameters
    ----------
    means : (z, y, x)
        From `box_means`; NaN does not count.

    Returns
    -------
    float
        Ratio of root mean square differences: 1 for white noise of any strength, 2 for a ramp;
        0 where nothing can be compared.
    """
    near, far = _variation(means, 1), _variation(means, 2)
    return math.sqrt(far / near) if near > 0.0 and far > 0.0 else 0.0


def _variation(means: NDArray[np.float64], lag: int) -> float:
    """Mean square of the differences at a distance along the axes; 0 without any."""
    total, number = 0.0, 0
    for axis in range(3):
        moved = np.moveaxis(means, axis, 0)
        square = np.square(moved[lag:] - moved[:-lag]) if len(moved) > lag else np.empty(0)
        finite = np.isfinite(square)
        total += float(square[finite].sum())
        number += int(finite.sum())
    return total / number if number else 0.0


def measure_cell(means: NDArray[np.float64]) -> Cell:
    """Return what the grid must know of a cell.

    Parameters
    ----------
    means : float64 (z, y, x)
        From `box_means`, of the cell or of its middle; empty where nothing is stored.
    """
    finite = means[np.isfinite(means)]
    if not len(finite):
        return Cell(math.nan, math.nan, 0.0, finite)
    low, high = (float(v) for v in np.percentile(finite, PERCENTILES))
    some = finite[:: max(1, -(-len(finite) // POOLED))]
    return Cell(low, high, texture(means), some)


def make_grid(
    shape: ZYX, counts: ZYX, cells: Sequence[Cell], limits: tuple[float, float]
) -> LimitsGrid | None:
    """Return the limits of every cell.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, level-0 voxels.
    counts : (z, y, x)
        Number of cells, see `cell_counts`.
    cells : sequence of Cell [z * y * x]
        x fastest.
    limits : (low, high)
        Of the whole volume.

    Returns
    -------
    LimitsGrid or None
        None where the limits of the whole hold everywhere.
    """
    low, high, textures = (
        np.array([getattr(cell, name) for cell in cells]).reshape(counts)
        for name in ("low", "high", "texture")
    )
    pooled = np.concatenate([cell.means for cell in cells])
    if not len(pooled):
        return None
    first, last = (float(v) for v in np.percentile(pooled, PERCENTILES))
    width = high - low
    has_contrast = width > 0.0
    own = np.full(counts, np.inf)
    np.divide(last - first, TOLERANCE * width, out=own, where=has_contrast)
    own = np.maximum(own, 1.0)
    shows = has_contrast & (textures >= TEXTURE)
    logs = np.log(own, where=shows, out=np.full(counts, np.nan))
    gain = np.exp(_filled(logs))
    gain = np.where(shows, gain, np.minimum(gain, own))
    if not (gain > 1.0).any():
        return None
    whole = limits[1] - limits[0]
    follows = gain > 1.0
    seen = np.isfinite(low)
    widths = whole / gain
    widths = np.where(follows & seen, np.fmax(widths, width), widths)
    lows = np.where(seen, low - np.maximum(low - limits[0], 0.0) / gain, np.nan)
    lows = np.where(seen, np.maximum(lows, high - widths), np.nan)
    lows = _filled(np.where(follows, lows, limits[0]))
    return LimitsGrid(shape, counts, _rounded(lows), _rounded(widths))


def _filled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN replaced by the mean of the neighbours, from cell to cell; 0 without any value."""
    values = values.copy()
    if np.isnan(values).all():
        return np.zeros_like(values)
    while np.isnan(values).any():
        padded = np.pad(values, 1, constant_values=np.nan)
        around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3)).reshape(
            *values.shape, 27
        )
        number = np.isfinite(around).sum(axis=3)
        total = np.where(np.isfinite(around), around, 0.0).sum(axis=3)
        fill = np.isnan(values) & (number > 0)
        values[fill] = total[fill] / number[fill]
    return values


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Six digits, which say the same in JSON."""
    return tuple(float(f"{value:.6g}") for value in values.ravel())


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
