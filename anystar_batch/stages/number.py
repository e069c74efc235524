"""Number: survivors that the filters keep and that own a voxel get labels 1..n by position.

With a region, those whose point does not lie in it are gone before. A filter only removes, and acts
on the neighbours too: who is removed hides nobody.
"""

from __future__ import annotations

import math
import time as clock
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ImageError
from anystar_batch.geometry import Box, inside
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region_survey import inside_region
from anystar_batch.stages.run import (
    Run,
    filter_names,
    instance_count,
    longest_ray,
    run_tasks,
    slices,
    suppression,
    tile_todo,
)
from anystar_batch.stages.surface import lasts, outlined, shown
from anystar_batch.stages.task import Owned, Work, model_rays, near_box, position_keys
from anystar_batch.stages.workdir import Slice, label_keys_path, load_survivors, save_array
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.measures import regularity
from anystar_batch.stars.polyhedra import volumes
from anystar_batch.stars.raster import owns_voxel
from anystar_batch.stars.rays import Rays

MAX_LABEL = 2**32 - 1
"""Largest label that the label image holds."""


@dataclass(frozen=True, slots=True)
class OwnTask:
    """A block of tiles whose survivors may or may not show in level 0.

    Parameters
    ----------
    work : Work
    time : int
    block : Block
    near : tuple of Slice
        Survivors of every tile that meets `region`.
    region : Box
        Region of those that may reach a survivor of the block, working voxels.
    """

    work: Work
    time: int
    block: Block
    near: tuple[Slice, ...]
    region: Box


def number_run(run: Run) -> None:
    """Drop survivors that the filters remove or that own no voxel; number the rest by position.

    Raises
    ------
    ImageError
        If there are more instances than labels.
    """
    run = replace(run, share=None)  # numbers are of the whole volume: every part counts all
    reach = longest_ray(run)
    volume = Box.of_shape(run.plan.working.shape)
    times = [t for t in run.plan.times if run.ledger.entry("number", str(t)) is None]

    def task(time: int, block: Block) -> OwnTask:
        region = near_box(block.box, 2 * reach + 1).intersect(volume)
        near = slices(run, suppression(run.plan.suppressions), time, region)
        return OwnTask(run.work, time, block, near, region)

    def is_left(time: int, block: Block) -> bool:
        return time in times and bool(task(time, block).near)

    keys: dict[int, list[NDArray[np.int64]]] = {time: [] for time in times}
    hidden = dict.fromkeys(times, 0)
    removed = {time: dict.fromkeys(filter_names(run), 0) for time in times}
    todo = tile_todo(run, is_left, task)
    for time, owned in run_tasks(run, "own", own_block, replace(todo, already=0)):
        keys[time].append(owned.keys)
        hidden[time] += owned.hidden
        for name, count in owned.removed.items():
            removed[time][name] += count
    for time in times:
        numbered = np.sort(np.concatenate([np.empty(0, np.int64), *keys[time]]))
        run.work.fence.check()
        save_array(label_keys_path(run.work.folder, time), numbered)
        entry: dict[str, object] = {"count": len(numbered), "hidden": hidden[time]}
        if removed[time]:
            entry["removed"] = removed[time]
        run.ledger.done("number", {str(time): entry})
    if instance_count(run) > MAX_LABEL:
        message = f"{instance_count(run)} instances; a uint32 label holds {MAX_LABEL}"
        raise ImageError(message)


def own_block(task: OwnTask) -> Owned:
    """Return which survivors of a block the filters keep and own at least one voxel of level 0.

    Region and filters act on the neighbours too: who is removed hides nobody.
    """
    started = clock.perf_counter()
    plan = task.work.plan
    rays = model_rays(plan.model)
    survivors = outlined(load_survivors(task.work, task.time, task.near, task.region))
    survivors = survivors.take(inside_region(plan, task.time, survivors.points))
    mine = inside(survivors.points, task.block.box)
    gone = removed(plan, survivors, rays)
    counts = {name: int(np.sum(fails & mine)) for name, fails in gone.items()}
    if gone:
        stays = ~np.logical_or.reduce(list(gone.values()))
        survivors, mine = survivors.take(stays), mine[stays]
    visible = owners(plan, survivors, mine)
    keys = np.sort(position_keys(survivors.points[visible], plan.working.shape))
    hidden = int(mine.sum() - visible.sum())
    return Owned(keys, hidden, clock.perf_counter() - started, counts)


def owners(plan: Plan, survivors: Candidates, mine: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which survivors own at least one voxel of level 0: they become instances.

    Parameters
    ----------
    plan : Plan
    survivors : Candidates
        Those that the filters keep, `surface.outlined`.
    mine : bool [n]
        Who is asked about; the others hide them.

    Returns
    -------
    bool [n]
    """
    # Surfaces that move outward take nobody's voxels: numbers are those without --expand.
    stars, asked = survivors, mine
    if plan.expand_um < 0.0:
        stars, asked = shown(plan, survivors), mine & lasts(plan, survivors)
    volume = Box.of_shape(plan.source.shape_zyx(0))
    return owns_voxel(stars, model_rays(plan.model), plan.lattice, volume, asked)


def removed(plan: Plan, survivors: Candidates, rays: Rays) -> dict[str, NDArray[np.bool_]]:
    """Return which survivors each filter removes.

    Parameters
    ----------
    plan : Plan
    survivors : Candidates
        With contrasts and qualities, if the plan filters by them.
    rays : Rays

    Returns
    -------
    dict
        Name of the filter to bool [n], in the order in which they act: who fails several is removed
        by the first. Only filters that were given.

    Raises
    ------
    ValueError
        If contrasts or qualities are needed and were not measured.

    Notes
    -----
    A limit itself is kept. Values that a filter reads are those of the table, float32; a contrast
    that cannot be measured (NaN) removes nobody.
    """
    filters = plan.filters
    standing = np.ones(len(survivors), np.bool_)
    gone: dict[str, NDArray[np.bool_]] = {}

    def remove(name: str, fails: NDArray[np.bool_]) -> None:
        gone[name] = standing & fails
        standing[fails] = False

    if filters.min_volume is not None or filters.max_volume is not None:
        least, most = filters.volume_range(plan.scale_um)
        voxels = volumes(survivors.dist, rays) * math.prod(plan.lattice.scale)
        if filters.min_volume is not None:
            remove("min_volume", voxels < least)
        if filters.max_volume is not None:
            remove("max_volume", voxels > most)
    if filters.min_prob is not None:
        remove("min_prob", survivors.prob < np.float32(filters.min_prob))
    for name in ("quality", "contrast"):
        least = getattr(filters, f"min_{name}")
        if least is not None:
            remove(f"min_{name}", _measured(survivors, name) < np.float32(least))
    if filters.min_regularity is not None:
        # A hull is dear: only of those that no other filter removes.
        fails = np.zeros(len(survivors), np.bool_)
        solid = regularity(survivors.dist[standing], rays)
        fails[standing] = solid < np.float32(filters.min_regularity)
        remove("min_regularity", fails)
    return gone


def _measured(survivors: Candidates, name: str) -> NDArray[np.float32]:
    """A measure of survivors that a filter needs."""
    values: NDArray[np.float32] | None = getattr(survivors, name)
    if values is None and len(survivors):
        message = f"filters: survivors have no {name}; it is measured before they are numbered"
        raise ValueError(message)
    return np.empty(0, np.float32) if values is None else values
