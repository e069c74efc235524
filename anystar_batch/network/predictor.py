"""A tile of image to candidates: the protocol, and the Keras network that fulfils it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ModelError
from anystar_batch.geometry import Box, grid_shape
from anystar_batch.network.imports import quiet_imports
from anystar_batch.network.kept_parts import keep, kept_network
from anystar_batch.network.model import WEIGHTS, Model
from anystar_batch.network.parts import KerasParts
from anystar_batch.network.slabs import SlabNetwork
from anystar_batch.network.unet import PRECISIONS, build
from anystar_batch.network.weights import load_weights

MIN_DIST = 1e-3
"""Shortest ray, working voxels: StarDist's own clip of the network's linear output."""

Found = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]
"""points [n, 3] (z, y, x) in working voxels of the volume; prob [n]; dist [n, n_rays]."""


class Predictor(Protocol):
    """Finds the candidates of a tile."""

    def find(self, image: NDArray[np.float32], window: Box, core: Box, prob_thresh: float) -> Found:
        """Return the candidates whose point lies in the core.

        Parameters
        ----------
        image : float32 (z, y, x)
            The window, normalised, working voxels.
        window : Box
            What `image` shows, working voxels of the volume.
        core : Box
            Where points are wanted, working voxels of the volume; inside `window`.
        prob_thresh : float
            Only candidates whose probability exceeds this.
        """
        ...


class PredictorFactory(Hashable, Protocol):
    """Makes a predictor in a worker; picklable, and cheap until called."""

    def __call__(self, model: Model, threads: int) -> Predictor:
        """Return a predictor for the model that may use `threads` threads."""
        ...


class KerasPredictor:
    """The model's network under plain Keras.

    One tile is one batch: a tile's bits cannot depend on its neighbours in a batch, and it is large
    enough to fill a device. What outgrows the memory is cut into slabs (`slabs.SlabNetwork`).

    Parameters
    ----------
    model : Model
        The model whose weights to load.
    threads : int
        Threads for the network's operations.
    precision : {"float32", "bfloat16"}
        See `unet.build`.
    backend : {"tensorflow", "jax"}
        Keras's backend; of the first predictor in a process.

    Raises
    ------
    ModelError
        If the weights do not fit the model, or the backend is not installed.
    """

    def __init__(
        self,
        model: Model,
        threads: int,
        precision: str = "float32",
        backend: str = "tensorflow",
    ) -> None:
        is_kept = backend == "tensorflow" and precision in PRECISIONS
        network = kept_network(model, precision, threads) if is_kept else None
        self._network = network or _built_network(model, threads, precision, backend)
        self._grid = model.grid

    def find(self, image: NDArray[np.float32], window: Box, core: Box, prob_thresh: float) -> Found:
        """Return the candidates whose point lies in the core; see `Predictor.find`."""
        inside = core.relative_to(window.start)
        # Output i speaks of input voxel i * grid.
        mine = Box(grid_shape(inside.start, self._grid), grid_shape(inside.stop, self._grid))
        index, prob, dist = self._network.find(image, mine, prob_thresh)
        points = index * np.asarray(self._grid) + np.asarray(window.start)
        return points.astype(np.int32), prob, np.maximum(dist, np.float32(MIN_DIST))


@dataclass(frozen=True, slots=True)
class KerasFactory:
    """Makes `KerasPredictor`.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
    backend : {"tensorflow", "jax"}
    """

    precision: str = "float32"
    backend: str = "tensorflow"

    def __call__(self, model: Model, threads: int) -> KerasPredictor:
        """Return a predictor for the model; loads the backend."""
        return KerasPredictor(model, threads, self.precision, self.backend)


def extra_of(backend: str) -> str:
    """Return how to install a backend, in words."""
    extras = ("cpu", "gpu") if backend == "tensorflow" else (backend,)
    package = f"'anystar-batch[{extras[0]}]'"
    return (
        f"{' or '.join(f'`{extra}`' for extra in extras)}, e.g. pip install {package}, or with "
        f"pipx: pipx inject anystar-batch {package}"
    )


def _built_network(model: Model, threads: int, precision: str, backend: str) -> SlabNetwork:
    """The network under Keras, kept for later processes."""
    try:
        with quiet_imports(backend):
            _limit_threads(threads)
            network = build(model.unet, precision)
            load_weights(network, Path(model.folder) / WEIGHTS)
            parts = KerasParts(network, model.unet)
            if backend == "tensorflow":
                keep(parts, model, precision, threads)
    except ModuleNotFoundError as error:
        message = (
            f"network: {error.name} is not installed; install the package with the extra "
            f"{extra_of(backend)}"
        )
        raise ModelError(message) from error
    return SlabNetwork(parts, model.unet)


def _limit_threads(threads: int) -> None:
    """Bound TensorFlow's threads; without effect once it has run an operation."""
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        return
    import tensorflow as tf  # noqa: PLC0415  (10 s)

    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
