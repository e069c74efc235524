"""Blocks of work: which tiles or write units belong together, and how many fit into memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import (
    ZYX,
    Box,
    ZYXFloat,
    as_zyx,
    grid_box,
    grid_shape,
    index_name,
    iter_grid,
)
from anystar_batch.network.slabs import SLAB_BYTES
from anystar_batch.network.window import SLAB_VOXELS
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region_survey import wanted_tiles

PROCESS_BYTES = 900_000_000
"""An interpreter with TensorFlow, the network and the compiled kernels."""

CANDIDATE_BYTES = 40
"""Bytes a working voxel for candidates in dense tissue, their files and their suppression."""

RESAMPLING_BYTES = 20
"""Bytes a voxel of a slab that is resampled: its conversions, the weighted sums."""

BLOCK_EDGES = (512, 384, 256, 192, 128, 96, 64)
"""Edges that a block may get when the user names none, level-0 voxels."""

LEAST_EDGE = 128
"""Blocks are not made smaller than this to have more of them, level-0 voxels."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some units of a lattice, done by one task.

    Parameters
    ----------
    name : str
        Index of the block, e.g. `1.3.2`.
    units : tuple of (z, y, x)
        Index of every unit.
    box : Box
        What the units cover, in the lattice's voxels, clipped to the volume.
    """

    name: str
    units: tuple[ZYX, ...]
    box: Box


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a volume, z slowest; each is made when it is asked for.

    A plan of a million blocks so takes no memory.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, voxels.
    unit : (z, y, x)
        A unit of the lattice, voxels.
    units_per_block : (z, y, x)
        Units of a block.
    """

    shape: ZYX
    unit: ZYX
    units_per_block: ZYX

    @property
    def counts(self) -> ZYX:
        """Blocks per axis."""
        return grid_shape(grid_shape(self.shape, self.unit), self.units_per_block)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __getitem__(self, number: int) -> Block:
        if not 0 <= number < len(self):
            message = f"block {number} of {len(self)}"
            raise IndexError(message)
        _, rows, columns = self.counts
        index = (number // (rows * columns), number // columns % rows, number % columns)
        units = grid_shape(self.shape, self.unit)
        group = grid_box(index, self.units_per_block, units)
        mine = tuple(
            as_zyx(a + b for a, b in zip(group.start, offset, strict=True))
            for offset in iter_grid(group.shape)
        )
        first = grid_box(group.start, self.unit, self.shape)
        last = grid_box(mine[-1], self.unit, self.shape)
        return Block(index_name(index), mine, Box(first.start, last.stop))

    def __iter__(self) -> Iterator[Block]:
        return (self[number] for number in range(len(self)))


def plan_blocks(shape: ZYX, unit: ZYX, units_per_block: ZYX) -> Blocks:
    """Return the blocks of a volume, z slowest.

    Parameters
    ----------
    shape : (z, y, x)
        The volume, voxels.
    unit : (z, y, x)
        A unit of the lattice, voxels.
    units_per_block : (z, y, x)
        Units of a block.

    Returns
    -------
    Blocks
        Their boxes tile the volume.

    Examples
    --------
    >>> [b.box.shape for b in plan_blocks((10, 8, 8), (4, 8, 8), (2, 1, 1))]
    [(8, 8, 8), (2, 8, 8)]
    """
    return Blocks(shape, unit, units_per_block)


def units_per_block(block_shape: ZYX, unit: ZYX, step: ZYXFloat = (1.0, 1.0, 1.0)) -> ZYX:
    """Round a block shape up to whole units.

    Parameters
    ----------
    block_shape : (z, y, x)
        Wanted shape, level-0 voxels.
    unit : (z, y, x)
        A unit of the lattice, in the lattice's voxels.
    step : (z, y, x)
        Level-0 voxels per voxel of the lattice.

    Returns
    -------
    (z, y, x)
        Units of a block, at least 1.

    Examples
    --------
    >>> units_per_block((100, 100, 100), (64, 64, 128))
    (2, 2, 1)
    """
    return as_zyx(
        max(1, -(-n // max(1, round(u * s))))
        for n, u, s in zip(block_shape, unit, step, strict=True)
    )


def block_shape(
    plan: Plan,
    memory: int,
    workers: int,
    unit: ZYX,
    threads: int = 1,
    asked: ZYX | None = None,
) -> ZYX:
    """Return the block that was asked for, or the largest for which there is memory.

    Parameters
    ----------
    plan : Plan
    memory : int
        Bytes for all workers together.
    workers : int
        Processes.
    unit : (z, y, x)
        What one task must write whole, level-0 voxels.
    threads : int
        Blocks that a worker has at once.
    asked : (z, y, x), optional
        `--block-shape`, level-0 voxels.

    Returns
    -------
    (z, y, x)
        Level-0 voxels.

    Raises
    ------
    ConfigError
        If not even one tile and one write unit fit.
    """
    share = memory // workers
    # Every block in hand has its tile; one has the network.
    waiting = 4 * (threads - 1) * max(math.prod(view.tiles.window) for view in plan.views)
    left = (share - PROCESS_BYTES - network_bytes(plan) - waiting) // threads
    fitting = [edge for edge in BLOCK_EDGES if block_bytes(plan, (edge, edge, edge)) <= left]
    # Nobody shall wait for the last block alone, as far as blocks are worth their overhead.
    least_blocks = 2 * workers * threads if workers * threads > 1 else 1
    shape = plan.source.shape_zyx(0)
    tiles = _busiest(plan)
    least_tiles = min(least_blocks, int(np.count_nonzero(tiles)))
    many = [
        edge
        for edge in fitting
        if edge >= LEAST_EDGE
        and math.prod(-(-n // edge) for n in shape) >= least_blocks
        and _tile_blocks(plan, edge, tiles) >= least_tiles
    ]
    if fitting:
        edge = (many or fitting)[0]
        return asked or (edge, edge, edge)
    if block_bytes(plan, unit) <= left:
        return asked or unit
    needed = PROCESS_BYTES + network_bytes(plan) + waiting + threads * block_bytes(plan, unit)
    message = (
        f"memory: {share / 1e9:.1f} GB a worker ({memory / 1e9:.1f} GB for {workers}); a tile of "
        f"{plan.tiles.window} voxels and one chunk need about {needed / 1e9:.1f} GB; give a "
        "smaller --tile, fewer --workers or more --memory"
    )
    raise ConfigError(message)


def _busiest(plan: Plan) -> NDArray[np.bool_]:
    """The tiles that are looked at, at the time at which they are most."""
    times = plan.times[:1] if plan.region is None else plan.times
    return max((wanted_tiles(plan, time) for time in times), key=lambda tiles: int(tiles.sum()))


def _tile_blocks(plan: Plan, edge: int, tiles: NDArray[np.bool_]) -> int:
    """Blocks of some tiles that a block edge makes; a block holds whole tiles, one at least."""
    per_block = units_per_block((edge, edge, edge), plan.tiles.core, plan.lattice.scale)
    if tiles.all():
        return math.prod(grid_shape(plan.tiles.counts, per_block))
    return len(np.unique(np.argwhere(tiles) // per_block, axis=0))


def block_bytes(plan: Plan, shape: ZYX) -> int:
    """Return what a block of level-0 voxels takes besides the network, bytes.

    Parameters
    ----------
    plan : Plan
    shape : (z, y, x)
        Level-0 voxels.
    """
    voxels = math.prod(shape)
    pixel = plan.source.dtype.itemsize
    # The image twice (as stored, as read), labels and their compressed copy, the coarse levels.
    painting = voxels * (4 + 4 + 1 + 2 * pixel * plan.source.num_channels)
    candidates = int(voxels / math.prod(plan.lattice.scale)) * CANDIDATE_BYTES
    zoom = math.prod(plan.working.zoom)
    seen = max(math.prod(view.tiles.window) * zoom * view.step**3 for view in plan.views)
    reading = int(min(SLAB_VOXELS, seen)) * (2 * pixel + RESAMPLING_BYTES)
    return max(painting, candidates + reading)


def network_bytes(plan: Plan) -> int:
    """Return what the network takes for one tile, bytes: the tile, and the largest of its parts.

    Activations dominate, in float32: of the window what goes into and comes out of the U-Net's
    first level, of a slab the layers on the way, and all layers of the levels below. Measured with
    windows of 160 to 304 voxels an edge (`docs/performance.md`).
    """
    unet = plan.model.unet
    voxels = max(math.prod(view.tiles.window) for view in plan.views)
    cells = voxels // math.prod(unet.grid)
    base = 4 * unet.unet_n_filter_base
    level = base * cells
    stem = 3 * min(SLAB_BYTES, base * voxels) + level if max(unet.grid) > 1 else 0
    if unet.unet_n_depth:
        below = 6 * int(level * unet.unet_expansion / math.prod(unet.unet_pool))
        trunk = level + max(level + 2 * min(SLAB_BYTES, level), below)
    else:
        trunk = 6 * level
    heads = level + 3 * min(SLAB_BYTES, (base + 4 * unet.net_conv_after_unet) * cells)
    # The tile as it is read, and as the device holds it.
    return 8 * voxels + max(stem, trunk, heads)
