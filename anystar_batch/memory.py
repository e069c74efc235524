"""How much memory a block takes, how much there is, and how much a run took."""

from __future__ import annotations

import math

from anystar_batch.blocks import plan_blocks, units_per_block
from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX
from anystar_batch.network.slabs import SLAB_BYTES
from anystar_batch.plan import Plan
from anystar_batch.reading import SLAB_VOXELS

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


def network_bytes(plan: Plan) -> int:
    """Return what the network takes for one tile, bytes: the tile, and the largest of its parts.

    Activations dominate, in float32: of the stem two layers of a slab, of the U-Net's first level
    the concatenated layer and its neighbours, of the heads the features of a slab. Measured with
    windows of 160 and 304 voxels an edge (`docs/performance.md`).
    """
    unet = plan.model.unet
    voxels = max(math.prod(view.tiles.window) for view in plan.views)
    cells = voxels // math.prod(unet.grid)
    base = 4 * unet.unet_n_filter_base
    has_stem = max(unet.grid) > 1
    stem = 2 * min(SLAB_BYTES, voxels * base) + 2 * cells * base if has_stem else 0
    body = 6 * cells * base
    heads = cells * base + 2 * min(SLAB_BYTES, 4 * cells * (unet.net_conv_after_unet or 1))
    # The tile as it is read, and as the device holds it.
    return 8 * voxels + max(stem, body, heads)


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


def default_block_shape(plan: Plan, memory: int, workers: int, unit: ZYX, threads: int = 1) -> ZYX:
    """Return the largest block that every worker's share of the memory holds.

    Parameters
    ----------
    plan : Plan
    memory : int
        Bytes for all workers together.
    workers : int
    unit : (z, y, x)
        What one task must write whole, level-0 voxels.
    threads : int
        Blocks that a worker has at once.

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
    wanted = 2 * workers * threads if workers * threads > 1 else 1
    shape = plan.source.shape_zyx(0)
    tiles_wanted = min(wanted, math.prod(plan.tiles.counts))
    many = [
        edge
        for edge in fitting
        if edge >= LEAST_EDGE
        and math.prod(-(-n // edge) for n in shape) >= wanted
        and _tile_blocks(plan, edge) >= tiles_wanted
    ]
    if fitting:
        edge = (many or fitting)[0]
        return edge, edge, edge
    if block_bytes(plan, unit) <= left:
        return unit
    needed = PROCESS_BYTES + network_bytes(plan) + waiting + threads * block_bytes(plan, unit)
    message = (
        f"memory: {share / 1e9:.1f} GB a worker ({memory / 1e9:.1f} GB for {workers}); a tile of "
        f"{plan.tiles.window} voxels and one chunk need about {needed / 1e9:.1f} GB; give a "
        "smaller --tile, fewer --workers or more --memory"
    )
    raise ConfigError(message)


def _tile_blocks(plan: Plan, edge: int) -> int:
    """Blocks of tiles that a block edge makes; a block holds whole tiles, one at least."""
    core = plan.tiles.core
    per_block = units_per_block((edge, edge, edge), core, plan.lattice.scale)
    return len(plan_blocks(plan.tiles.shape, core, per_block))
