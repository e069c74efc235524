"""The grid of tiles of another program, as a user tells it, and its planes.

::

    --first       --first + --tile
    |             |                          a tile begins
    |====|        |====|                     --overlap: what it shares with the one before
         |             |                     the one before ends
      |             |                        and the middle, where many programs join
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX, ZYXFloat
from anystar_batch.report.seams import BorderGrid


@dataclass(frozen=True, slots=True)
class TileGrid:
    """A grid of tiles, level-0 voxels.

    Parameters
    ----------
    tile : (z, y, x)
        From plane to plane; 0 or 1 along an axis without planes.
    first : (z, y, x)
        Edge at which the first plane lies; at 0 it is the border, and the first plane lies a tile
        farther.
    overlap : (z, y, x)
        Voxels that a tile shares with the one before it.
    period : (z, y, x)
        Step of a lattice of the program's own: planes are moved by whole steps.
    """

    tile: ZYXFloat
    first: ZYXFloat = (0.0, 0.0, 0.0)
    overlap: ZYXFloat = (0.0, 0.0, 0.0)
    period: ZYXFloat = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for name, values, least in (
            ("tile", self.tile, 0.0),
            ("first", self.first, 0.0),
            ("overlap", self.overlap, 0.0),
            ("period", self.period, 1.0),
        ):
            if not all(math.isfinite(v) and v >= least for v in values):
                message = f"--{name}: got {_text(values)}; expected three numbers from {least:g}"
                raise ConfigError(message)
        for step, shared in zip(self.tile, self.overlap, strict=True):
            if step > 1 and shared >= step:
                message = f"--overlap: got {shared:g} of a --tile of {step:g}; expected less"
                raise ConfigError(message)

    def border_grids(self, shape: ZYX) -> tuple[BorderGrid, ...]:
        """Return the families of planes: one, or three with an overlap.

        Parameters
        ----------
        shape : (z, y, x)
            Voxels of the volume.

        Raises
        ------
        ConfigError
            If no plane lies inside the volume.
        """
        grids = [self._grid("planes", shape, 0.0)]
        if any(self.overlap):
            grids = [
                self._grid("planes where a tile begins", shape, 0.0),
                self._grid("planes where the one before ends", shape, 1.0),
                self._grid("planes in the middle between", shape, 0.5),
            ]
        if not any(len(grid.planes(a, n)) for grid in grids for a, n in enumerate(shape)):
            message = (
                f"--tile: got {_text(self.tile)}, from --first {_text(self.first)}; no plane of it "
                f"lies inside {shape} voxels (z, y, x): expected the step of the grid in level-0 "
                "voxels"
            )
            raise ConfigError(message)
        return tuple(grids)

    def _grid(self, name: str, shape: ZYX, share: float) -> BorderGrid:
        """One family of planes, so large a share of the overlap behind where tiles begin."""
        steps, firsts = [], []
        for n, step, first, overlap in zip(shape, self.tile, self.first, self.overlap, strict=True):
            has_planes = step > 1
            # At the border of the volume no tile meets another one.
            edge = (first if first > 0 else step) + share * overlap
            steps.append(step if has_planes else float(n))
            firsts.append(edge if has_planes else float(n))
        (a, b, c), (d, e, f) = steps, firsts
        return BorderGrid(name, (a, b, c), (d, e, f))


def _text(values: ZYXFloat) -> str:
    return " ".join(f"{v:g}" for v in values)
