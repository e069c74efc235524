"""How much memory a block takes, how much there is, and how much a run took."""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import Self

import psutil

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX
from anystar_batch.plan import Plan

PROCESS_BYTES = 900_000_000
"""An interpreter with TensorFlow, the network and the compiled kernels."""

CANDIDATE_BYTES = 40
"""Bytes a working voxel for candidates in dense tissue, their files and their suppression."""

BLOCK_EDGES = (512, 384, 256, 192, 128, 96, 64)
"""Edges that a block may get when the user names none, level-0 voxels."""

FREE_SHARE = 0.8
"""Share of the free memory a run takes when the user names none."""


def network_bytes(plan: Plan) -> int:
    """Return what the network takes for one tile, bytes.

    Activations at the grid's resolution dominate: input convolutions, the concatenated level of
    the U-Net, features and the rays, in float32, with the copies that the runtime makes.
    """
    unet = plan.model.unet
    voxels = max(math.prod(view.tiles.window) for view in plan.views)
    cells = voxels // (unet.grid[0] * unet.grid[1] * unet.grid[2])
    full = 3 * unet.unet_n_filter_base if max(unet.grid) > 1 else 0
    at_grid = 6 * unet.unet_n_filter_base + unet.net_conv_after_unet + 3 * unet.n_rays
    return 4 * (voxels * full + cells * at_grid)


def block_bytes(plan: Plan, shape: ZYX) -> int:
    """Return what a block of level-0 voxels takes besides the network, bytes.

    Parameters
    ----------
    plan : Plan
    shape : (z, y, x)
        Level-0 voxels.
    """
    voxels = shape[0] * shape[1] * shape[2]
    level0_per_working = 1.0
    for s in plan.lattice.scale:
        level0_per_working *= s
    pixel = plan.source.dtype.itemsize
    # The image twice (as stored, as read), labels and their compressed copy.
    painting = voxels * (4 + 4 + 2 * pixel * plan.source.num_channels)
    # A coarse view reads its context far around the block.
    reach = [2 * (v.step - 1) * max(v.tiles.context) for v in plan.views]
    read = math.prod(n + max(reach) * s for n, s in zip(shape, plan.lattice.scale, strict=True))
    predicting = int(read) * 2 * pixel + int(voxels / level0_per_working) * CANDIDATE_BYTES
    return max(painting, predicting)


def available_memory() -> int:
    """Return the bytes a run may take by default."""
    return int(psutil.virtual_memory().available * FREE_SHARE)


def default_block_shape(plan: Plan, memory: int, workers: int, unit: ZYX) -> ZYX:
    """Return the largest block that every worker's share of the memory holds.

    Parameters
    ----------
    plan : Plan
    memory : int
        Bytes for all workers together.
    workers : int
    unit : (z, y, x)
        What one task must write whole, level-0 voxels.

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
    left = share - PROCESS_BYTES - network_bytes(plan)
    for edge in BLOCK_EDGES:
        shape = (edge, edge, edge)
        if block_bytes(plan, shape) <= left:
            return shape
    if block_bytes(plan, unit) <= left:
        return unit
    needed = PROCESS_BYTES + network_bytes(plan) + block_bytes(plan, unit)
    message = (
        f"memory: {share / 1e9:.1f} GB a worker ({memory / 1e9:.1f} GB for {workers}); a tile of "
        f"{plan.tiles.window} voxels and one chunk need about {needed / 1e9:.1f} GB; give a "
        "smaller --tile, fewer --workers or more --memory"
    )
    raise ConfigError(message)


class MemoryMeter:
    """Samples the memory of this process and its children while a `with` block runs."""

    def __init__(self, interval: float = 0.5) -> None:
        self.peak = 0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        process = psutil.Process()
        while True:
            total = 0
            for member in [process, *process.children(recursive=True)]:
                try:
                    total += member.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)
            if self._stop.wait(self._interval):
                return
