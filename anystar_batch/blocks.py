"""Group lattice units into blocks: the unit of work, which never changes the result.

Two lattices are grouped: tiles (working voxels) for prediction and suppression, chunks or shards
(level-0 voxels) for painting. A block is a box of whole units; the blocks tile the lattice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
