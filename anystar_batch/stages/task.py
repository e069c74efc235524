"""What tasks of all stages share: the run as a worker sees it, results, names of their pieces.

A task is picklable, and returns something small. Nothing is shared between workers but the work
directory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.label_image import LabelSpec, label_spec
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.geometry import ZYX, Box, as_zyx, index_name
from anystar_batch.network.model import Model
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.stages.plan import Plan
from anystar_batch.stars.rays import Rays, rays_from_config


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
    prefix : str
        How names of files begin that no other process may write meanwhile.
    """

    plan: Plan
    folder: str
    label: str
    factory: PredictorFactory
    threads: int
    fence: Fence = field(default_factory=Fence)
    prefix: str = ""


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


def piece_key(time: int, index: ZYX) -> str:
    """Return the name of a tile or a write unit in the ledger, e.g. `0/1.3.2`."""
    return f"{time}/{index_name(index)}"


def parse_key(key: str) -> tuple[int, ZYX]:
    """Return time and index of a piece from its name in the ledger: `piece_key` undone.

    Examples
    --------
    >>> parse_key("0/1.3.2")
    (0, (1, 3, 2))
    """
    time, _, index = key.partition("/")
    return int(time), as_zyx(index.split("."))


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


@lru_cache(maxsize=2)
def spec_of(source: ImageSource) -> LabelSpec:
    """Return the label image of an image."""
    return label_spec(source)


def model_rays(model: Model) -> Rays:
    """Return a model's rays, made once a process."""
    return _rays(model.rays_json)


@lru_cache(maxsize=4)
def _rays(rays_json: str) -> Rays:
    return rays_from_config(json.loads(rays_json))


def near_box(box: Box, margin: float) -> Box:
    """Return a box grown by a margin, rounded up, voxels."""
    grow = math.ceil(margin)
    return box.grow((grow, grow, grow))
