"""Group lattice units into blocks: the unit of work, which never changes the result.

Two lattices are grouped: tiles (working voxels) for prediction and suppression, chunks or shards
(level-0 voxels) for painting. A block is a box of whole units; the blocks tile the lattice.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def plan_blocks(shape: ZYX, unit: ZYX, units_per_block: ZYX) -> list[Block]:
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
    list of Block
        Their boxes tile the volume.

    Examples
    --------
    >>> [b.box.shape for b in plan_blocks((10, 8, 8), (4, 8, 8), (2, 1, 1))]
    [(8, 8, 8), (2, 8, 8)]
    """
    counts = grid_shape(shape, unit)
    blocks = []
    for index in iter_grid(grid_shape(counts, units_per_block)):
        group = grid_box(index, units_per_block, counts)
        units = tuple(
            as_zyx(a + b for a, b in zip(group.start, offset, strict=True))
            for offset in iter_grid(group.shape)
        )
        first, last = grid_box(group.start, unit, shape), grid_box(units[-1], unit, shape)
        blocks.append(Block(index_name(index), units, Box(first.start, last.stop)))
    return blocks


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
