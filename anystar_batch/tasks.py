"""What a worker does for one block of tiles after the network: suppress, own; files in, files out.

Every function takes one picklable task and returns something small. Nothing is shared between
workers but the work directory. What comes before, with the network, is in `finding`.
"""

from __future__ import annotations

import hashlib
import json
import math
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch import spool
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.blocks import Block
from anystar_batch.geometry import ZYX, Box, index_name, inside
from anystar_batch.network.bundled import Model
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.plan import Plan
from anystar_batch.selection import removed
from anystar_batch.spool import Slice
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.raster import owns_voxel
from anystar_batch.stars.rays import Rays, rays_from_config
from anystar_batch.stars.suppress import Status, suppress_block

CANDIDATES = "candidates"
"""Folder of the files after prediction."""

SURVIVORS = "survivors"
"""Folder of the files after suppression: kept and undecided."""


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
    fence : Fence
        Asked before anything is written.
    """

    plan: Plan
    folder: str
    label: str
    factory: PredictorFactory
    threads: int
    fence: Fence = field(default_factory=Fence)


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
    further : dict
        The same as `entries`, by name of the stage, of later stages that it did on the way.
    """

    entries: Mapping[str, dict[str, object]]
    seconds: float
    instances: int
    further: Mapping[str, Mapping[str, dict[str, object]]] = field(default_factory=dict)


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
        Survivors of every tile that meets `known`.
    known : Box
        Region of those that may reach a survivor of the block, working voxels.
    """

    work: Work
    time: int
    block: Block
    near: tuple[Slice, ...]
    known: Box


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
    further: Mapping[str, Mapping[str, dict[str, object]]] = field(default_factory=dict)

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


def suppress(task: SuppressTask) -> Done:
    """Judge the candidates of a block; store who is kept or undecided."""
    started = clock.perf_counter()
    plan = task.work.plan
    rays = model_rays(plan.model)
    folder = Path(task.work.folder)
    candidates, status = spool.load(folder / CANDIDATES, task.near, len(rays), task.known)
    kept = status == Status.KEPT
    volume = Box.of_shape(plan.working.shape)
    status = suppress_block(candidates, rays, plan.nms_thresh, task.known, volume, task.reach, kept)
    alive = (status != Status.SUPPRESSED) & inside(candidates.points, task.block.box)
    candidates, status = candidates.take(alive), status[alive]
    parts = []
    for tile in task.block.units:
        mine = inside(candidates.points, plan.tiles.core_box(tile))
        parts.append((tile_key(task.time, tile), candidates.take(mine), status[mine]))
    task.work.fence.check()
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
    survivors = load_survivors(task.work, task.time, task.near, task.known)
    mine = inside(survivors.points, task.block.box)
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


def load_survivors(
    work: Work, time: int, near: Sequence[Slice], region: Box | None = None
) -> Candidates:
    """Return the final survivors of some tiles, or those of them whose points lie in a region.

    They were kept, or undecided and resolved so.

    The filters have not acted on them; `own` says whom they keep.
    """
    rays = model_rays(work.plan.model)
    candidates, status = spool.load(Path(work.folder) / SURVIVORS, near, len(rays), region)
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


def file_name(time: int, units: Sequence[ZYX], suffix: str) -> str:
    """Return a name that only the same tiles or write units of the same time have."""
    digest = hashlib.sha256(repr(units).encode()).hexdigest()[:12]
    return f"{time}-{index_name(units[0])}-{len(units)}-{digest}.{suffix}"


@lru_cache(maxsize=4)
def _rays(rays_json: str) -> Rays:
    return rays_from_config(json.loads(rays_json))
