"""Shards of finds: made once by as many processes as there are, read by every training.

A run's folder holds `train_000.npz, ...` and `held_out_000.npz, ...`, a shard each of some scenes:
their images (float16, one after the other) and the finds on them. A shard is written whole or not
at all, so making them can be stopped and goes on where it was.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYXFloat
from anystar_batch.network.profiles import CHANNELS, SAMPLES, SCALARS, centres, profiles
from anystar_batch.network.refiner_kernel import ray_voxels
from anystar_batch.stars.rays import golden_spiral
from trainer.refine.config import RefineConfig, SceneConfig
from trainer.refine.finds import Finds, finds
from trainer.refine.scene import make_scene
from trainer.synthesis.config import Range

logger = logging.getLogger(__name__)

PARTS = ("train", "held_out")


def make(config: RefineConfig, folder: Path, workers: int = 2) -> None:
    """Make the shards that are missing.

    Parameters
    ----------
    config : RefineConfig
    folder : Path
    workers : int
        Processes; each loads the first look.
    """
    missing = [task for task in shards(config, folder) if not task.path.exists()]
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(workers, len(missing))) as pool:
        for path, count in pool.imap_unordered(_make_shard, missing):
            logger.info("%s: %d finds", path, count)


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard to make.

    Parameters
    ----------
    config : RefineConfig
    path : Path
    scene : SceneConfig
    seed : int
    scenes : range
        Which of the seed.
    """

    config: RefineConfig
    path: Path
    scene: SceneConfig
    seed: int
    scenes: range


def shards(config: RefineConfig, folder: Path) -> list[Shard]:
    """Return all shards of a run: those of its scenes, then those of its small scenes."""
    found = []
    for part in PARTS:
        number = 0
        for one in (config, config.small):
            is_train = part == "train"
            count = one.scenes if is_train else one.held_out
            seed = one.seed if is_train else one.held_out_seed
            for first in range(0, count, config.shard):
                scenes = range(first, min(first + config.shard, count))
                path = folder / f"{part}_{number:03d}.npz"
                found.append(Shard(config, path, one.scene, seed, scenes))
                number += 1
    return found


def _make_shard(shard: Shard) -> tuple[str, int]:
    """Make and write one shard; return its name and how many finds it has."""
    from trainer.score import scorer_of  # noqa: PLC0415  (TensorFlow)

    config, seed = shard.config, shard.seed
    _single_thread()
    from anystar_batch.network.model import load_model  # noqa: PLC0415

    scorer = scorer_of(load_model(config.model))
    made = []
    for index in shard.scenes:
        scene = make_scene(seed, index, shard.scene)
        found = finds(scene, scorer, config, np.random.default_rng([seed, index, 2]))
        if found is not None and len(found):
            made.append(found)
    write(made, shard.path)
    return shard.path.name, sum(len(found) for found in made)


def _single_thread() -> None:
    """One thread a process: there is a process a core."""
    import tensorflow as tf  # noqa: PLC0415

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        logger.debug("TensorFlow runs already")


def write(made: Sequence[Finds], path: Path) -> None:
    """Write a shard, whole or not at all.

    Parameters
    ----------
    made : sequence of Finds
        One a scene.
    path : Path
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    n_rays = made[0].dist.shape[1] if made else 0
    scene = [np.full(len(f), k, np.int32) for k, f in enumerate(made)]
    arrays = {
        "voxels": np.concatenate(
            [*(f.image.ravel() for f in made), np.empty(0, np.float32)]
        ).astype(np.float16),
        "shapes": np.array([f.image.shape for f in made], np.int64).reshape(-1, 3),
        "steps": np.array([f.step for f in made], np.float64).reshape(-1, 3),
        "scene": np.concatenate([*scene, np.empty(0, np.int32)]),
        "points": np.concatenate([*(f.points for f in made), np.empty((0, 3))]),
        "prob": np.concatenate([*(f.prob for f in made), np.empty(0, np.float32)]),
        "dist": np.concatenate([*(f.dist for f in made), np.empty((0, n_rays), np.float32)]),
        "truth": np.concatenate([*(f.truth for f in made), np.empty((0, n_rays), np.float32)]),
    }
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    temporary.replace(path)


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """All finds of some shards, and the images they are on.

    Parameters
    ----------
    images : list of float32 (z, y, x)
    steps : list of (z, y, x)
        Voxels of the image per working voxel.
    scene : int32 [n]
        Image of each find.
    points, prob, dist, truth
        As in `Finds`.
    """

    images: list[NDArray[np.float32]]
    steps: list[ZYXFloat]
    scene: NDArray[np.int32]
    points: NDArray[np.float64]
    prob: NDArray[np.float32]
    dist: NDArray[np.float32]
    truth: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of finds."""
        return len(self.points)

    @property
    def is_true(self) -> NDArray[np.bool_]:
        """Which finds have an object."""
        return np.asarray((self.truth > 0).any(axis=1))

    def ray_voxels(
        self, index: NDArray[np.int64] | slice, dist: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return the mean length of finds' rays, float64 [n], voxels of the image.

        Parameters
        ----------
        index : int64 [n] or slice
            Finds.
        dist : float32 [n, n_rays]
            Working voxels.
        """
        steps, directions = np.array(self.steps), golden_spiral(dist.shape[1]).vertices
        lengths: NDArray[np.float64] = ray_voxels(dist, steps[self.scene[index]], directions)
        return lengths


def load(folder: Path, part: str, sizes: Range = (0.0, math.inf)) -> Data:
    """Read all shards of a part.

    Parameters
    ----------
    folder : Path
    part : {"train", "held_out"}
    sizes : Range
        Mean length of a find's rays, voxels of the image: others are left out.

    Raises
    ------
    ConfigError
        If there is none.
    """
    images: list[NDArray[np.float32]] = []
    steps: list[ZYXFloat] = []
    columns: dict[str, list[NDArray[np.generic]]] = {}
    for path in sorted(folder.glob(f"{part}_*.npz")):
        with np.load(path, allow_pickle=False) as file:
            at = 0
            columns.setdefault("scene", []).append(file["scene"] + np.int32(len(images)))
            voxels = file["voxels"]
            for shape, step in zip(file["shapes"], file["steps"], strict=True):
                size = int(np.prod(shape))
                images.append(voxels[at : at + size].astype(np.float32).reshape(shape))
                steps.append((float(step[0]), float(step[1]), float(step[2])))
                at += size
            for name in ("points", "prob", "dist", "truth"):
                columns.setdefault(name, []).append(file[name])
    if not images:
        message = f"refine: {folder} holds no finds ({part}_*.npz); run `refine data` first"
        raise ConfigError(message)
    joined = {name: np.concatenate([p for p in parts if len(p)]) for name, parts in columns.items()}
    whole = Data(images=images, steps=steps, **joined)
    length = whole.ray_voxels(slice(None), whole.dist)
    kept = (length >= sizes[0]) & (length <= sizes[1])
    return Data(images=images, steps=steps, **{name: part[kept] for name, part in joined.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Profiles of finds of a data set, for distances of any origin.

    Parameters
    ----------
    data : Data
    directions : float64 [n_rays, 3]
    near : int64 [n_rays, 6]
    """

    data: Data
    directions: NDArray[np.float64]
    near: NDArray[np.int64]

    def inputs(
        self, index: Iterable[int], dist: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what the network sees.

        Parameters
        ----------
        index : integers [n]
            Finds.
        dist : float32 [n, n_rays]
            Where their surfaces are believed to be, working voxels.

        Returns
        -------
        values : float32 [n, SAMPLES, CHANNELS, n_rays]
        scalars : float32 [n, SCALARS, n_rays]
        """
        n, n_rays = dist.shape
        values = np.empty((n, SAMPLES, CHANNELS, n_rays), np.float32)
        scalars = np.empty((n, SCALARS, n_rays), np.float32)
        data, zero = self.data, np.zeros(3, np.int64)
        for k, i in enumerate(index):
            image = data.images[data.scene[i]]
            whole, fraction = centres(data.points[i : i + 1])
            one = slice(k, k + 1)
            profiles(
                image, zero, np.array(image.shape), whole, fraction, dist[one],
                self.directions * np.asarray(data.steps[data.scene[i]]), self.near,
                values[one], scalars[one],
            )  # fmt: skip
        return values, scalars
