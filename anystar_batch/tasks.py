"""What a worker does for one block of tiles: read, predict, suppress, own; files in, files out.

Every function takes one picklable task and returns something small. Nothing is shared between
workers but the work directory. A tile's candidates are a pure function of (tile, config, volume):
they are computed once, by the block that owns the tile, and never again.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch import spool
from anystar_batch.archive.store import ImageReader
from anystar_batch.blocks import Block
from anystar_batch.geometry import ZYX, Box, index_name
from anystar_batch.network.bundled import Model
from anystar_batch.network.predictor import Predictor, PredictorFactory
from anystar_batch.plan import Plan
from anystar_batch.reading import tile_content, tile_image
from anystar_batch.selection import removed
from anystar_batch.spool import Slice
from anystar_batch.stars.candidates import Candidates, is_storable, quantise
from anystar_batch.stars.measures import contrasts
from anystar_batch.stars.raster import owns_voxel
from anystar_batch.stars.rays import Rays, rays_from_config
from anystar_batch.stars.suppress import Status, suppress_block

CANDIDATES = "candidates"
"""Folder of the files after prediction."""

SURVIVORS = "survivors"
"""Folder of the files after suppression: kept and undecided."""


_NETWORK = threading.Lock()
"""Whoever holds it has the device to itself; other blocks read and suppress meanwhile."""


@dataclass(frozen=True, slots=True)
class Work:
    """What all tasks of a run share.

    Parameters
    ----------
    plan : Plan
        The run.
    folder : str
        Work directory.
    label : str
        Path of the label group that is written, hidden until it is published.
    factory : PredictorFactory
        Makes the network in a worker.
    threads : int
        Threads of a worker's network.
    """

    plan: Plan
    folder: str
    label: str
    factory: PredictorFactory
    threads: int


@dataclass(frozen=True, slots=True)
class PredictTask:
    """Tiles to run the network on.

    Parameters
    ----------
    work : Work
    time : int
        Time point.
    block : Block
        The block they belong to.
    tiles : tuple of (z, y, x)
        Those of its tiles that are not done.
    """

    work: Work
    time: int
    block: Block
    tiles: tuple[ZYX, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """What a task returns.

    Parameters
    ----------
    entries : dict
        JSON values for the ledger, by key of the piece.
    seconds : float
        Time in the worker.
    instances : int
        Candidates, survivors or labels, for display.
    """

    entries: Mapping[str, dict[str, object]]
    seconds: float
    instances: int


@dataclass(frozen=True, slots=True)
class SuppressTask:
    """A block of tiles and what is known around it.

    Parameters
    ----------
    work : Work
    time : int
    block : Block
        Tiles whose candidates to judge.
    near : tuple of Slice
        Candidates of every tile that meets `known`.
    known : Box
        Region of which all candidates are given, working voxels.
    reach : int
        Bound on every candidate's half extent, working voxels.
    """

    work: Work
    time: int
    block: Block
    near: tuple[Slice, ...]
    known: Box
    reach: int


@dataclass(frozen=True, slots=True)
class OwnTask:
    """A block of tiles whose survivors may or may not show in level 0.

    Parameters
    ----------
    work : Work
    time : int
    block : Block
    near : tuple of Slice
        Survivors of every tile from which one may reach a survivor of the block.
    """

    work: Work
    time: int
    block: Block
    near: tuple[Slice, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Owned:
    """Survivors of a block that the filters keep and that show in level 0.

    Parameters
    ----------
    keys : int64 [n]
        Position of each in the volume, see `position_keys`.
    hidden : int
        Survivors that the filters keep and that own no voxel.
    seconds : float
        Time in the worker.
    removed : dict
        Survivors that each filter removes.
    """

    keys: NDArray[np.int64]
    hidden: int
    seconds: float
    removed: Mapping[str, int] = field(default_factory=dict)
    entries: Mapping[str, dict[str, object]] = field(default_factory=dict)

    @property
    def instances(self) -> int:
        """Number of instances, for display."""
        return len(self.keys)


def tile_key(time: int, tile: ZYX) -> str:
    """Return a tile's name in the ledger, e.g. `0/1.3.2`."""
    return f"{time}/{index_name(tile)}"


def position_keys(points: NDArray[np.int32], shape: ZYX) -> NDArray[np.int64]:
    """Return one integer a point that sorts like (z, y, x).

    Parameters
    ----------
    points : int32 [n, 3]
        Working voxels, inside the volume.
    shape : (z, y, x)
        The volume, working voxels.
    """
    z, y, x = points.astype(np.int64).T
    keys: NDArray[np.int64] = (z * shape[1] + y) * shape[2] + x
    return keys


def model_rays(model: Model) -> Rays:
    """Return a model's rays, made once a process."""
    return _rays(model.rays_json)


def predict(task: PredictTask) -> Done:
    """Run the network on the tiles of a block and store their candidates.

    Candidates that a certain survivor of the same tiles suppresses are dropped: they could not
    suppress anybody, so nobody misses them. Certain survivors are noted as such.
    """
    started = clock.perf_counter()
    work, plan, time = task.work, task.work.plan, task.time
    reader = ImageReader(plan.source)
    contents = {t: tile_content(plan, reader, time, t) for t in task.tiles}
    found = {t: (Candidates.empty(len(model_rays(plan.model))), 0) for t in task.tiles}
    if plan.limits_of(time) is not None:
        for tile in task.tiles:
            if contents[tile]:
                found[tile] = tile_candidates(work, reader, time, tile)
    judged = _judged(plan, task, {t: c for t, (c, _) in found.items()})
    kept = {t: candidates for t, (candidates, _) in judged.items()}
    if plan.filters.min_contrast is not None:
        kept = {t: with_contrasts(plan, reader, time, t, c) for t, c in kept.items()}
    folder = Path(work.folder) / CANDIDATES
    parts = [(tile_key(time, t), kept[t], judged[t][1]) for t in task.tiles]
    slices = spool.save(folder, file_name(time, task.tiles, "npy"), parts)
    entries: dict[str, dict[str, object]] = {}
    for tile in task.tiles:
        piece = slices[tile_key(time, tile)]
        entries[tile_key(time, tile)] = {
            "file": piece.file,
            "start": piece.start,
            "stop": piece.stop,
            "content": contents[tile],
            "too_large": found[tile][1],
            "reach": float(kept[tile].dist.max(initial=0.0)),
        }
    count = sum(len(c) for c in kept.values())
    return Done(entries, clock.perf_counter() - started, count)


def tile_candidates(
    work: Work, reader: ImageReader, time: int, tile: ZYX
) -> tuple[Candidates, int]:
    """Return the candidates a tile owns, and how many were dropped as too large.

    Parameters
    ----------
    work : Work
    reader : ImageReader
        The image.
    time : int
    tile : (z, y, x)
        Index of the tile.
    """
    plan = work.plan
    found, too_large = [Candidates.empty(len(model_rays(plan.model)))], 0
    for view in plan.views:
        image = tile_image(plan, reader, time, tile, view)
        if image is None:
            continue
        with _NETWORK:
            points, prob, dist = _predictor(work.factory, plan.model, work.threads).find(
                image,
                view.tiles.window_box(tile),
                view.tiles.core_box(tile),
                plan.prob_thresh,
            )
        fits = is_storable(dist, plan.model.max_radius)
        too_large += int(np.sum(~fits))
        step = np.float32(view.step)
        radii = quantise(dist[fits] * step, plan.model.max_radius * view.step)
        found.append(Candidates(points[fits] * np.int32(view.step), prob[fits], radii))
    if len(plan.views) == 1:
        return found[-1], too_large
    together = Candidates.concatenate(found, len(model_rays(plan.model)))
    return together.take(_one_a_point(together)), too_large


def _one_a_point(candidates: Candidates) -> NDArray[np.int64]:
    """Keep, where two scales found something at one point: the surer, else the finer.

    The finer scale comes first in `candidates`; the rest keep their order.
    """
    order = np.lexsort((np.arange(len(candidates)), -candidates.prob))
    _, first = np.unique(candidates.points[order], axis=0, return_index=True)
    return np.sort(order[first])


def with_contrasts(
    plan: Plan, reader: ImageReader, time: int, tile: ZYX, candidates: Candidates
) -> Candidates:
    """Return a tile's candidates with their contrasts, measured on what the network saw.

    Parameters
    ----------
    plan : Plan
    reader : ImageReader
        The image.
    time : int
    tile : (z, y, x)
        Index of the tile.
    candidates : Candidates
        Some that the tile owns; what is measured of one does not depend on the others.
    """
    if not len(candidates):
        return candidates
    window = plan.tiles.window_box(tile)
    image = tile_image(plan, reader, time, tile)
    if image is None:
        # Seen at a coarser scale alone; at this one nothing differs from its surroundings.
        image = np.zeros(window.shape, np.float32)
    seen = window.intersect(Box.of_shape(plan.working.shape))
    values = contrasts(image, window.start, seen, candidates, model_rays(plan.model))
    return replace(candidates, contrast=values)


def suppress(task: SuppressTask) -> Done:
    """Judge the candidates of a block; store who is kept or undecided."""
    started = clock.perf_counter()
    plan = task.work.plan
    rays = model_rays(plan.model)
    folder = Path(task.work.folder)
    candidates, status = spool.load(folder / CANDIDATES, task.near, len(rays))
    near = _inside(candidates.points, task.known)
    candidates, kept = candidates.take(near), status[near] == Status.KEPT
    volume = Box.of_shape(plan.working.shape)
    status = suppress_block(candidates, rays, plan.nms_thresh, task.known, volume, task.reach, kept)
    alive = (status != Status.SUPPRESSED) & _inside(candidates.points, task.block.box)
    candidates, status = candidates.take(alive), status[alive]
    parts = []
    for tile in task.block.units:
        mine = _inside(candidates.points, plan.tiles.core_box(tile))
        parts.append((tile_key(task.time, tile), candidates.take(mine), status[mine]))
    slices = spool.save(folder / SURVIVORS, file_name(task.time, task.block.units, "npy"), parts)
    entries: dict[str, dict[str, object]] = {}
    for key, _, tile_status in parts:
        piece = slices[key]
        undecided = int(np.sum(tile_status == Status.UNDECIDED))
        entries[key] = {
            "file": piece.file,
            "start": piece.start,
            "stop": piece.stop,
            "undecided": undecided,
        }
    return Done(entries, clock.perf_counter() - started, len(candidates))


def own(task: OwnTask) -> Owned:
    """Return which survivors of a block the filters keep and own at least one voxel of level 0.

    Filters act on the neighbours too: who is removed hides nobody.
    """
    started = clock.perf_counter()
    plan = task.work.plan
    rays = model_rays(plan.model)
    survivors = load_survivors(task.work, task.time, task.near)
    mine = _inside(survivors.points, task.block.box)
    gone = removed(plan, survivors, rays)
    counts = {name: int(np.sum(fails & mine)) for name, fails in gone.items()}
    if gone:
        stays = ~np.logical_or.reduce(list(gone.values()))
        survivors, mine = survivors.take(stays), mine[stays]
    shown = owns_voxel(
        survivors,
        rays,
        plan.lattice,
        Box.of_shape(plan.source.shape_zyx(0)),
        mine,
    )
    keys = np.sort(position_keys(survivors.points[shown], plan.working.shape))
    hidden = int(mine.sum() - shown.sum())
    return Owned(keys, hidden, clock.perf_counter() - started, counts)


def load_survivors(work: Work, time: int, near: Sequence[Slice]) -> Candidates:
    """Return the final survivors of some tiles: kept, or undecided and resolved so.

    The filters have not acted on them; `own` says whom they keep.
    """
    rays = model_rays(work.plan.model)
    candidates, status = spool.load(Path(work.folder) / SURVIVORS, near, len(rays))
    resolved = np.load(resolved_path(work.folder, time), allow_pickle=False)
    keys = position_keys(candidates.points, work.plan.working.shape)
    final = (status == Status.KEPT) | np.isin(keys, resolved)
    return candidates.take(final)


def resolved_path(folder: str, time: int) -> Path:
    """Return the file of the position keys of undecided candidates that survive."""
    return Path(folder) / f"resolved-{time}.npy"


def label_keys_path(folder: str, time: int) -> Path:
    """Return the file of the sorted position keys of all instances: the n-th has label n."""
    return Path(folder) / f"instances-{time}.npy"


def near_box(box: Box, margin: float) -> Box:
    """Return a box grown by a margin, rounded up, voxels."""
    grow = math.ceil(margin)
    return box.grow((grow, grow, grow))


def _judged(
    plan: Plan, task: PredictTask, found: Mapping[ZYX, Candidates]
) -> dict[ZYX, tuple[Candidates, NDArray[np.int8]]]:
    """Candidates by tile with what the task knows of them, less those certainly suppressed."""
    whole = set(task.tiles) == set(task.block.units)
    regions = [task.block.box] if whole else [plan.tiles.core_box(t) for t in task.tiles]
    groups = [task.tiles] if whole else [(t,) for t in task.tiles]
    rays = model_rays(plan.model)
    result: dict[ZYX, tuple[Candidates, NDArray[np.int8]]] = {}
    for region, tiles in zip(regions, groups, strict=True):
        together = Candidates.concatenate([found[t] for t in tiles], len(rays))
        status = suppress_block(
            together,
            rays,
            plan.nms_thresh,
            region,
            Box.of_shape(plan.working.shape),
            math.ceil(plan.max_radius),
        )
        alive = status != Status.SUPPRESSED
        together, status = together.take(alive), status[alive]
        for tile in tiles:
            mine = _inside(together.points, plan.tiles.core_box(tile))
            result[tile] = together.take(mine), status[mine]
    return result


def _inside(points: NDArray[np.int32], box: Box) -> NDArray[np.bool_]:
    within = (points >= np.asarray(box.start)) & (points < np.asarray(box.stop))
    inside: NDArray[np.bool_] = np.logical_and.reduce(within, axis=1)
    return inside


def file_name(time: int, units: Sequence[ZYX], suffix: str) -> str:
    """Return a name that only the same tiles or write units of the same time have."""
    digest = hashlib.sha256(repr(units).encode()).hexdigest()[:12]
    return f"{time}-{index_name(units[0])}-{len(units)}-{digest}.{suffix}"


@lru_cache(maxsize=4)
def _rays(rays_json: str) -> Rays:
    return rays_from_config(json.loads(rays_json))


@lru_cache(maxsize=2)
def _predictor(factory: PredictorFactory, model: Model, threads: int) -> Predictor:
    """The network, loaded once a process."""
    return factory(model, threads)
