"""The fixed lattice of tiles on which the network runs, anchored at the volume's origin.

A tile owns the candidates whose point lies in its core. Tile shape and context follow from model,
config and the volume's shape, never from blocks: the same tile is computed from the same voxels
whoever computes it.

::

          context        core         context
       |............|==============|............|      window = core grown by the context

       |..|=============|=============|......|..|      the volume, two tiles of one axis:
       |.......first window....|                       context between them, at the volume's
                  |.........second window.......|      border only what padding is needed

Windows begin at multiples of the network's divisor, so that its pooling cuts the volume at the same
places in every tile: where the context covers all that the network can see, tiles say what one
tile of the whole volume would say.

A coarse view of the same tiles shows every nth working voxel, for objects n times as large: a core
is n times as short in it, the context as long as ever::

    core      |==============|            96 working voxels
    coarse    |..|== 48 ==|..|            48 of two working voxels, context on both sides
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX, Box, as_zyx, grid_box, grid_range, grid_shape, iter_grid

BORDER = 8
"""Least padding beyond the volume's border, working voxels."""


@dataclass(frozen=True, slots=True)
class TileLattice:
    """Tiles of a volume in working voxels.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, working voxels.
    core : (z, y, x)
        Step of the lattice, working voxels.
    context : (z, y, x)
        Voxels of a window before and after its core, inside the volume.
    divisor : (z, y, x)
        What every window's shape is a multiple of.
    """

    shape: ZYX
    core: ZYX
    context: ZYX
    divisor: ZYX

    @property
    def counts(self) -> ZYX:
        """Tiles per axis."""
        return grid_shape(self.shape, self.core)

    def core_box(self, index: ZYX) -> Box:
        """Return the core of a tile, clipped to the volume."""
        return grid_box(index, self.core, self.shape)

    def window_box(self, index: ZYX) -> Box:
        """Return what the network sees of a tile; may reach beyond the volume."""
        start, stop = [], []
        for i, n, c, w, d in zip(
            index, self.shape, self.core, self.context, self.divisor, strict=True
        ):
            # Padding in whole divisors, at the end up to the next multiple of it.
            first = max(i * c - w, -BORDER // d * d)
            last = min((i + 1) * c + w, -(-(n + BORDER) // d) * d)
            start.append(first)
            stop.append(first + -(-(last - first) // d) * d)
        return Box(as_zyx(start), as_zyx(stop))

    @property
    def window(self) -> ZYX:
        """Shape of the largest window."""
        # The first three of an axis: the later ones are no larger.
        shapes = [
            self.window_box(index).shape
            for index in iter_grid(as_zyx(min(3, n) for n in self.counts))
        ]
        return as_zyx(max(shape[k] for shape in shapes) for k in range(3))

    def tiles_near(self, box: Box) -> list[ZYX]:
        """Return every tile whose core shares a voxel with `box`, z slowest."""
        return list(grid_range(box, self.core, self.counts))


@dataclass(frozen=True, slots=True)
class View:
    """The tiles, seen at every `step`-th working voxel.

    Parameters
    ----------
    step : int
        1 is the working voxels themselves.
    tiles : TileLattice
        The same tiles, in units of `step` working voxels: voxel `i` is working voxel `i * step`.
    """

    step: int
    tiles: TileLattice


def coarse_view(tiles: TileLattice, step: int, context: int, divisor: ZYX) -> View:
    """Return tiles as seen at every `step`-th working voxel.

    Parameters
    ----------
    tiles : TileLattice
        As `plan_tiles` made them.
    step : int
    context : int
        Least context per side, in units of `step` working voxels.
    divisor : (z, y, x)
        What the network's input shape must be a multiple of.

    Raises
    ------
    ConfigError
        If a tile's core is no multiple of `step`.
    """
    if step == 1:
        return View(1, tiles)
    core = []
    shape = as_zyx(-(-n // step) for n in tiles.shape)
    for length, whole, edge in zip(shape, tiles.shape, tiles.core, strict=True):
        if edge < whole and edge % step:
            message = f"--scales: got {step}; expected a divisor of the tile's {edge} voxels"
            raise ConfigError(message)
        core.append(length if edge >= whole else edge // step)
    return View(step, TileLattice(shape, as_zyx(core), (context, context, context), divisor))


def plan_tiles(
    shape: ZYX, tile: int, context: int, divisor: ZYX, steps: Sequence[int] = (1,)
) -> TileLattice:
    """Return the tile lattice of a volume.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, working voxels.
    tile : int
        Longest edge of a core, working voxels; a multiple of `divisor`. The tiles of an axis are
        as even as that allows.
    context : int
        Context per side, working voxels; a multiple of `divisor`.
    divisor : (z, y, x)
        What the network's input shape must be a multiple of.
    steps : sequence of int
        Of the views the tiles will get: they must divide a core.

    Returns
    -------
    TileLattice

    Raises
    ------
    ConfigError
        If tile or context do not suit the network.

    Examples
    --------
    >>> lattice = plan_tiles((20, 400, 400), tile=96, context=32, divisor=(16, 16, 16))
    >>> lattice.core, lattice.window
    ((20, 80, 80), (48, 144, 144))
    """
    for name, value, least in (("tile", tile, 1), ("context", context, 0)):
        if value < least or any(value % d for d in divisor):
            message = (
                f"{name}: got {value} voxels; expected a multiple of {max(divisor)} "
                f"(the network halves its input that often)"
            )
            raise ConfigError(message)
    core = []
    for length, step in zip(shape, divisor, strict=True):
        alone = TileLattice((length,) * 3, (length,) * 3, (context,) * 3, (step,) * 3)
        # A little more than a window in one piece is less than two windows.
        if alone.window[0] <= tile + 2 * context + min(2 * BORDER, tile // 6):
            core.append(length)
        else:
            count, unit = -(-length // tile), math.lcm(step, *steps)
            # Where the steps do not divide the tile, `coarse_view` says so.
            core.append(min(tile, -(-length // (count * unit)) * unit))
    return TileLattice(shape, as_zyx(core), (context, context, context), divisor)
