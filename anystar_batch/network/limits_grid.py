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
it is multiplied. How limits are interpolated between cells: `limits_field`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, ZYXFloat, as_zyx

CELL = 3.0
"""Least edge of a cell, diameters of an object: several objects lie in it."""

MOST_CELLS = 4096
"""Cells of a volume; a larger volume has larger cells."""

MOST_IN_ALL = 65536
"""Cells of all times of a series, about: every task carries them."""

FEWEST_CELLS = 64
"""Cells that a volume may have however many times there are."""

BOXES = 4
"""Boxes across a diameter."""

TOLERANCE = 3.0
"""How many times dimmer than the whole a cell may be and keep the limits of the whole."""

TEXTURE = 1.3
"""Least `texture` of a cell that shows more than noise: objects have 1.4 to 1.75, white noise 1.0,
noise blurred by 0.4 boxes 1.2 (measured, `docs/quality.md`)."""

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


def cell_counts(shape: ZYX, scale_um: ZYXFloat, diameter_um: float, times: int = 1) -> ZYX:
    """Return into how many cells each axis of a volume is divided.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, voxels.
    scale_um : (z, y, x)
        Size of a voxel, micrometres.
    diameter_um : float
        Of the objects, micrometres.
    times : int
        Of the whole series, whichever are segmented: a time has the same cells alone.

    Returns
    -------
    (z, y, x)
        At most `MOST_CELLS` together, each about `CELL` diameters wide or wider; of a long series
        fewer.

    Examples
    --------
    >>> cell_counts((100, 100, 200), (1.0, 1.0, 1.0), 10.0)
    (3, 3, 7)
    >>> cell_counts((10, 4000, 4000), (1.0, 1.0, 1.0), 10.0)
    (1, 64, 64)
    >>> cell_counts((400, 400, 400), (1.0, 1.0, 1.0), 10.0, times=500)
    (5, 5, 5)
    """
    extents = [n * s for n, s in zip(shape, scale_um, strict=True)]
    edge = CELL * diameter_um
    most = max(FEWEST_CELLS, min(MOST_CELLS, MOST_IN_ALL // times))
    while True:
        counts = as_zyx(max(1, round(extent / edge)) for extent in extents)
        if math.prod(counts) <= most:
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
