"""What the network sees of a tile: its window of the plan's level, as `network.window` shows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import ZYX, Box, hull
from anystar_batch.network.resample import Taps, source_box, tile_taps
from anystar_batch.network.tiles import View
from anystar_batch.network.window import window_image
from anystar_batch.stages.plan import Plan


def tile_source(plan: Plan, tile: ZYX) -> Box:
    """Return what a tile reads, voxels of the plan's level."""
    return hull(source_box(_tile_taps(plan, tile, view)) for view in plan.views)


def tile_image(
    plan: Plan, reader: ImageReader, time: int, tile: ZYX, view: View | None = None
) -> NDArray[np.float32] | None:
    """Return what the network sees of a tile.

    Parameters
    ----------
    plan : Plan
    reader : ImageReader
        The image.
    time : int
    tile : (z, y, x)
        Index of the tile.
    view : View, optional
        One of the plan's; None is the first, the working voxels.

    Returns
    -------
    float32 (z, y, x) or None
        The tile's window in that view, 0 to 1; None where the image has one value only, or none
        at all (NaN).
    """
    level = plan.working.level
    image, is_constant = window_image(
        lambda box: reader.read_box(level, time, plan.channel, box),
        _tile_taps(plan, tile, plan.views[0] if view is None else view),
        plan.limits_of(time) or (0.0, 1.0),
        plan.source.chunks_zyx(level)[0],
        plan.field_of(time),
    )
    return None if is_constant else image


def _tile_taps(plan: Plan, tile: ZYX, view: View) -> tuple[Taps, Taps, Taps]:
    """The weights that make what the network sees of a tile."""
    return tile_taps(
        view.tiles.window_box(tile),
        plan.working.shape,
        plan.source.shape_zyx(plan.working.level),
        plan.working.zoom,
        view.step,
    )
