"""Refine: survivors to refined survivors, by a second look at the image's own resolution.

The first look sees every object at one small size; the image mostly shows more. Each survivor's
distances are refined from the voxels around it, and it gets a quality, the IoU that its outline is
expected to reach. A pure function of the survivor and the image, whoever else is asked about: a
survivor is looked at once, by the tile that owns its point.
"""

from __future__ import annotations

import time as clock
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.errors import ModelError
from anystar_batch.geometry import ZYX
from anystar_batch.network.intensity import raised
from anystar_batch.network.refiner import Refiner, load_refiner, window_of
from anystar_batch.stages.blocks import Block
from anystar_batch.stages.image_identity import box_content
from anystar_batch.stages.look_cells import look_cells
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.run import Run, run_tasks, suppression, tile_todo
from anystar_batch.stages.second_look import SecondLook
from anystar_batch.stages.surface import outlined
from anystar_batch.stages.task import Done, Work, model_rays, piece_key
from anystar_batch.stages.workdir import (
    REFINED,
    Slice,
    file_name,
    load_survivors,
    save_candidates,
    slice_of,
)
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.suppress import Status


@dataclass(frozen=True, slots=True)
class RefineTask:
    """Tiles whose survivors to look at once more.

    Parameters
    ----------
    work : Work
    time : int
    block : Block
    tiles : tuple of (z, y, x)
        Those of its tiles that are not done.
    pieces : tuple of Slice
        The survivors of each.
    """

    work: Work
    time: int
    block: Block
    tiles: tuple[ZYX, ...]
    pieces: tuple[Slice, ...]


def refine_run(run: Run) -> None:
    """Look once more at the survivors of every tile that is not done."""
    done, judged = run.ledger.entries("refine"), run.ledger.entries(suppression(1))

    def left(time: int, block: Block) -> tuple[ZYX, ...]:
        return tuple(t for t in block.units if piece_key(time, t) not in done)

    def task(time: int, block: Block) -> RefineTask:
        tiles = left(time, block)
        pieces = tuple(slice_of(judged[piece_key(time, t)]) for t in tiles)
        return RefineTask(run.work, time, block, tiles, pieces)

    run_tasks(run, "refine", refine_block, tile_todo(run, left, task))


def refine_block(task: RefineTask) -> Done:
    """Look once more at the survivors of a block; store them anew.

    Raises
    ------
    ModelError
        If the refiner is not the one that was planned with.
    """
    started = clock.perf_counter()
    work, time = task.work, task.time
    reader = ImageReader(work.plan.source)
    parts: list[tuple[str, Candidates, NDArray[np.int8]]] = []
    contents: dict[ZYX, dict[str, object]] = {}
    for tile, piece in zip(task.tiles, task.pieces, strict=True):
        survivors = load_survivors(work, time, [piece], number=1)
        contents[tile] = look_content(work.plan, reader, time, survivors)
        refined = refine_survivors(work.plan, reader, time, survivors)
        ratios = _mean_cubes(refined) / _mean_cubes(survivors)
        contents[tile]["volume_ratios"] = float(ratios.sum())
        status = np.full(len(refined), Status.UNDECIDED, np.int8)
        parts.append((piece_key(time, tile), refined, status))
    work.fence.check()
    folder = Path(work.folder) / REFINED
    slices = save_candidates(folder, work.prefix + file_name(time, task.tiles, "npy"), parts)
    entries: dict[str, dict[str, object]] = {}
    for tile, (key, refined, _) in zip(task.tiles, parts, strict=True):
        entries[key] = {
            "file": slices[key].file,
            "start": slices[key].start,
            "stop": slices[key].stop,
            **contents[tile],
            "reach": float(refined.dist.max(initial=0.0)),
            "shown_reach": float(outlined(refined).dist.max(initial=0.0)),
        }
    count = sum(len(refined) for _, refined, _ in parts)
    return Done(entries, clock.perf_counter() - started, count)


def look_content(
    plan: Plan, reader: ImageReader, time: int, survivors: Candidates
) -> dict[str, object]:
    """Return what the ledger notes of the voxels that some survivors are refined from.

    Parameters
    ----------
    plan : Plan
        With a second look.
    reader : ImageReader
        The image.
    time : int
    survivors : Candidates
        Before the second look. It is asked before the voxels are read, so that a change while they
        are read does not go unseen.

    Returns
    -------
    dict
        `read`, the box around all windows, start and stop, level voxels, and its `content`, see
        `image_identity.box_content`; empty without survivors.
    """
    look = plan.second_look
    if look is None or not len(survivors):
        return {}
    shape = plan.source.shape_zyx(look.level)
    box = window_of(level_points(look, survivors), survivors.dist, look.scale, shape)
    content = box_content(plan, reader, look.level, time, box)
    return {"read": [*box.start, *box.stop], "content": content}


def level_points(look: SecondLook, survivors: Candidates) -> NDArray[np.float64]:
    """Return the centres of survivors, float64 [n, 3], axes (z, y, x), voxels of the level."""
    points: NDArray[np.float64] = survivors.points * np.asarray(look.scale) + look.offset
    return points


def refine_survivors(
    plan: Plan, reader: ImageReader, time: int, survivors: Candidates
) -> Candidates:
    """Return survivors with refined distances, quantised anew, and qualities.

    Parameters
    ----------
    plan : Plan
        With a second look; without one the survivors are returned as they are.
    reader : ImageReader
        The image.
    time : int
    survivors : Candidates
        In any order, which they keep.

    Raises
    ------
    ModelError
        If the refiner is not the one that was planned with.
    """
    look, rays = plan.second_look, model_rays(plan.model)
    if look is None:
        return survivors
    refiner = _refiner(look.refiner.folder, look.refiner.sha256)
    if look.one_network:
        refiner = replace(refiner, small=None)
    field = plan.look_field_of(time)
    low = (plan.limits_of(time) or (0.0, 1.0))[0] if field is None else field.floor
    shape = plan.source.shape_zyx(look.level)
    points = level_points(look, survivors)
    dist, quality = survivors.dist.copy(), np.zeros(len(survivors), np.float32)
    fall = np.ones(len(survivors), np.float32)
    directions = np.asarray(rays.vertices, np.float64)
    for some, box, stored in look_cells(plan, look, reader, time, points, survivors.dist):
        voxels, _ = raised(stored, low)
        if field is not None:
            # Beside a much brighter part a profile would show that part alone.
            places = [
                np.arange(a, b, dtype=float) for a, b in zip(box.start, box.stop, strict=True)
            ]
            voxels = field.scaled(voxels, places, is_clipped=False)
        dist[some], quality[some], fall[some] = refiner.outline(
            voxels.astype(np.float32),
            box,
            shape,
            points[some],
            survivors.dist[some],
            look.scale,
            directions,
            plan.outline,
        )
    limit = np.float32(plan.max_radius)
    refined = quantise(np.minimum(dist, limit), plan.max_radius)
    asked = None if plan.outline is None else fall
    return replace(survivors, dist=refined, quality=quality, fall=asked)


def _mean_cubes(stars: Candidates) -> NDArray[np.float64]:
    """Mean of the cubed distances of each, in proportion to its volume."""
    cubes: NDArray[np.float64] = (stars.dist.astype(np.float64) ** 3).mean(axis=1)
    return cubes


@lru_cache(maxsize=2)
def _refiner(folder: str, sha256: str) -> Refiner:
    """The refiner, loaded once a process."""
    refiner = load_refiner(Path(folder))
    if refiner is None or refiner.sha256 != sha256:
        message = (
            f"refiner: {folder} no longer holds the one that the run was planned with "
            f"({sha256[:12]}); install the model again, or give --restart"
        )
        raise ModelError(message)
    return refiner
