"""Limits that follow the image (`--limits local`): made once, kept in the ledger, told to the user.

Every time has a grid of its own, of its own voxels, so it gives the same instances alone as with
the others. The cells' size goes by the diameter, given or probed; the probe itself looks at the
image with the limits of the whole.
"""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import channel_index
from anystar_batch.config import ResultConfig
from anystar_batch.errors import ConfigError
from anystar_batch.events import BlockDone, Listener, StageStarted, timed_stage
from anystar_batch.network.limits_grid import LimitsGrid
from anystar_batch.network.model import Model
from anystar_batch.stages.cell_limits import cell_limits
from anystar_batch.stages.image_identity import cells_content
from anystar_batch.stages.plan import Plan, level_scales


def check_local(config: ResultConfig, model: Model) -> None:
    """Check that limits can follow the image, if they are asked to.

    Raises
    ------
    ConfigError
        If nobody knows how large the objects are, or white is that of a region.
    """
    if config.limits == "local" and config.inside is not None:
        message = (
            "--limits: got local beside --inside, which takes white from the region alone; "
            "expected one of them; leave one out"
        )
        raise ConfigError(message)
    if config.limits == "local" and config.diameter is None and model.diameter is None:
        message = (
            f"--limits: got local; cells are as large as several objects, and model {model.name} "
            "says of no size; give --diameter, or --limits global"
        )
        raise ConfigError(message)


def read_grids(
    reader: ImageReader,
    config: ResultConfig,
    limits: Mapping[int, tuple[float, float] | None],
    diameter_um: float | None,
    on_event: Listener,
) -> dict[str, Any]:
    """Return what the ledger keeps of limits that follow the image.

    Parameters
    ----------
    reader : ImageReader
        The image.
    config : ResultConfig
        Checked by `check_local`.
    limits : mapping of int to (low, high) or None
        Limits of the whole, by time.
    diameter_um : float or None
        Of the objects, micrometres.
    on_event : callable
        Told of every time as of a block.

    Returns
    -------
    dict
        `cells`, a `LimitsGrid` or None for each time, as JSON values, and `cells_content`, the
        digest of what they were read from; empty with global limits.
    """
    if config.limits != "local" or diameter_um is None:
        return {}
    channel = channel_index(reader.source, config.channel)
    scale_um = level_scales(reader.source, config)[0][0]
    # Asked before the voxels are read, so that a change while they are read does not go unseen.
    content = cells_content(reader, tuple(limits), channel, diameter_um, scale_um)
    grids: list[LimitsGrid | None] = []
    with timed_stage(on_event, StageStarted("limits", len(limits))):
        for time, pair in limits.items():
            began = clock.perf_counter()
            grids.append(
                None
                if pair is None
                else cell_limits(reader, time, channel, pair, diameter_um, scale_um)
            )
            on_event(BlockDone("limits", f"time {time}", clock.perf_counter() - began))
    cells = [None if grid is None else grid.to_json() for grid in grids]
    return {"cells": cells, "cells_content": content}


def with_grids(plan: Plan, entry: Mapping[str, Any]) -> Plan:
    """Return a plan with the grids that `read_grids` has found, if there are any."""
    if "cells" not in entry:
        return plan
    grids = (None if one is None else LimitsGrid.from_json(one) for one in entry["cells"])
    return replace(plan, grids=tuple(grids))


def grids_text(plan: Plan) -> str:
    """Return what limits that follow the image do to it, in words; empty where they do not."""
    if not plan.grids:
        return ""
    pairs = zip(plan.grids, plan.limits, strict=True)
    gains = [(b[1] - b[0]) / min(g.width) for g, b in pairs if g is not None and b is not None]
    if not gains:
        return "local limits: no part is so dim that it needs its own; those of the whole hold"
    cells = next(grid.cells for grid in plan.grids if grid is not None)
    times = "" if len(plan.times) == 1 else f" at {len(gains)} of {len(plan.times)} times"
    return (
        f"local limits: {cells[0]} x {cells[1]} x {cells[2]} cells{times}; the dimmest part is "
        f"shown {max(gains):.3g} times brighter than with the limits of the whole"
    )
