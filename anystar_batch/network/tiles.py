"""The fixed lattice of tiles on which the network runs, anchored at the volume's origin.

A tile owns the candidates whose point lies in its core. Tile shape and context follow from model,
config and the volume's shape, never from blocks: the same tile is computed from the same voxels
whoever computes it.

::

          context        core         context
       |............|==============|............|      window = core grown by the context
       window.start  core.start     core.stop    window.stop

Where one window could hold a whole axis, that axis has one tile without context, padded a little
on both sides; otherwise the first and last tiles of an axis reach beyond the volume's border.

A coarse view of the same tiles shows every nth working voxel, for objects n times as large: a core
is n times as short in it, the context as long as ever::

    core      |==============|            96 working voxels
    coarse    |..|== 48 ==|..|            48 of two working voxels, context on both sides
"""

from __future__ import annotations

from dataclasses import dataclass

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX, Box, as_zyx, grid_box, grid_range, grid_shape

BORDER = 8
"""Least padding, working voxels, at both ends of an axis that one tile holds whole."""


@dataclass(frozen=True, slots=True)
class TileLattice:
    """Tiles of a volume in working voxels.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, working voxels.
    core : (z, y, x)
        Step of the lattice, working voxels.
    before : (z, y, x)
        Voxels of the window before the core's start.
    window : (z, y, x)
        Shape of every window: what the network sees.
    """

    shape: ZYX
    core: ZYX
    before: ZYX
    window: ZYX

    @property
    def counts(self) -> ZYX:
        """Tiles per axis."""
        return grid_shape(self.shape, self.core)

    def core_box(self, index: ZYX) -> Box:
        """Return the core of a tile, clipped to the volume."""
        return grid_box(index, self.core, self.shape)

    def window_box(self, index: ZYX) -> Box:
        """Return what the network sees of a tile; may reach beyond the volume."""
        start = as_zyx(i * c - b for i, c, b in zip(index, self.core, self.before, strict=True))
        return Box(start, as_zyx(a + w for a, w in zip(start, self.window, strict=True)))

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
    core, before, window = [], [], []
    shape = as_zyx(-(-n // step) for n in tiles.shape)
    for length, whole, edge, d in zip(shape, tiles.shape, tiles.core, divisor, strict=True):
        if edge == whole:
            room = -(-(length + 2 * BORDER) // d) * d
            core.append(length)
            before.append((room - length) // 2 // 4 * 4)
        else:
            if edge % step:
                message = f"--scales: got {step}; expected a divisor of the tile's {edge} voxels"
                raise ConfigError(message)
            room = -(-(edge // step + 2 * context) // d) * d
            core.append(edge // step)
            before.append(context)
        window.append(room)
    return View(step, TileLattice(shape, as_zyx(core), as_zyx(before), as_zyx(window)))


def plan_tiles(shape: ZYX, tile: int, context: int, divisor: ZYX) -> TileLattice:
    """Return the tile lattice of a volume.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, working voxels.
    tile : int
        Core edge, working voxels; a multiple of `divisor`.
    context : int
        Context per side, working voxels; a multiple of `divisor`.
    divisor : (z, y, x)
        What the network's input shape must be a multiple of.

    Returns
    -------
    TileLattice

    Raises
    ------
    ConfigError
        If tile or context do not suit the network.

    Examples
    --------
    >>> plan_tiles((20, 400, 400), tile=96, context=32, divisor=(16, 16, 16)).window
    (48, 160, 160)
    """
    for name, value, least in (("tile", tile, 1), ("context", context, 0)):
        if value < least or any(value % d for d in divisor):
            message = (
                f"{name}: got {value} voxels; expected a multiple of {max(divisor)} "
                f"(the network halves its input that often)"
            )
            raise ConfigError(message)
    core, before, window = [], [], []
    for length, step in zip(shape, divisor, strict=True):
        whole = -(-(length + 2 * BORDER) // step) * step
        if whole <= tile + 2 * context:
            # `before` is even for any grid up to 2: outputs lie on the volume's even voxels.
            core.append(length)
            before.append((whole - length) // 2 // 4 * 4)
            window.append(whole)
        else:
            core.append(tile)
            before.append(context)
            window.append(tile + 2 * context)
    return TileLattice(shape, as_zyx(core), as_zyx(before), as_zyx(window))
