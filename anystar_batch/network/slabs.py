"""The network over a large window, part by part: what is large is made and used up in slabs.

At full resolution a window of 300 voxels an edge fills gigabytes a layer, and 97 channels of
output fill as much again. Neither is ever whole here::

    image   ==[ stem ]==> at the grid        slabs of planes with a halo, as convolutions see
    all of it [ body ]                       the U-Net, once: one output per `grid` voxels
    core    ==[ heads ]=> features, prob     slabs of planes of the core alone
            chosen ==> dist                  rows of features whose probability is high enough

Slabs change what is computed together, not what is computed: the halo holds every voxel that a
layer can see, and beyond the window's border the layers pad with zeros as ever. Probabilities of
the core and the chosen rows are all that leaves the device.

What computes the parts is given (`parts`): Keras, or TensorFlow's own library.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ModelError
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.network.parts import Parts, Tensor
from anystar_batch.network.unet import UNetConfig

SLAB_BYTES = 512 * 1024**2
"""Most that a slab's largest layer takes, float32: a device is then full, its memory is not."""

LEAST_ROWS = 64
"""Fewest rows of a product: of fewer, libraries add up in another order on some processors."""

Chosen = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]
"""index [n, 3] of outputs, z slowest; prob [n]; dist [n, n_rays]."""


class SlabNetwork:
    """A network that answers with the outputs worth having.

    Parameters
    ----------
    parts : Parts
        What computes; a network with its weights.
    config : UNetConfig
        What it was built from.
    slab_bytes : int
        See `SLAB_BYTES`.
    """

    def __init__(self, parts: Parts, config: UNetConfig, slab_bytes: int = SLAB_BYTES) -> None:
        self._parts = parts
        self._config = config
        self._slab_bytes = slab_bytes

    def find(self, image: NDArray[np.float32], core: Box, prob_thresh: float) -> Chosen:
        """Return the outputs in the core whose probability exceeds a threshold.

        Parameters
        ----------
        image : float32 (z, y, x)
            Each axis a multiple of `config.divisor()`.
        core : Box
            Where answers are wanted, outputs: voxels of the image over the grid.
        prob_thresh : float

        Returns
        -------
        Chosen
            Distances in voxels of the image, as the network says them: not clipped.

        Raises
        ------
        ModelError
            If the device's memory cannot hold the body of the network for such an image.
        """
        try:
            return self._choose(self._trunk(image), core, prob_thresh)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = (
                f"network: no memory for a window of {image.shape} voxels; give a smaller --tile"
            )
            raise ModelError(message) from error

    def _trunk(self, image: NDArray[np.float32]) -> Tensor:
        """What the U-Net says of the whole window: (1, z, y, x, channels)."""
        parts, tensor = self._parts, image[None, ..., None]
        stem = parts.stem
        if stem is not None:
            grid = self._config.grid[0]
            halo = -(-stem_reach(self._config) // grid) * grid
            plane = image[0].size * self._config.unet_n_filter_base * 4
            pieces: list[Tensor] = []

            def run(start: int, stop: int) -> None:
                low, high = max(0, start - halo), min(len(image), stop + halo)
                part = stem(parts.tensor(tensor[:, low:high]))
                pieces.append(part[:, (start - low) // grid : (stop - low) // grid])

            in_slabs(len(image), self._slab_bytes // plane, grid, run)
            tensor = pieces[0] if len(pieces) == 1 else parts.joined(pieces)
        else:
            tensor = parts.tensor(tensor)
        return tensor if parts.body is None else parts.body(tensor)

    def _choose(self, trunk: Tensor, core: Box, prob_thresh: float) -> Chosen:
        """Probabilities of the core, and the distances of the chosen, slab by slab."""
        parts = self._parts
        reach = self._config.unet_kernel_size if self._config.net_conv_after_unet else (1, 1, 1)
        halo = tuple(k // 2 for k in reach)
        seen = Box(
            as_zyx(max(0, a - h) for a, h in zip(core.start, halo, strict=True)),
            as_zyx(
                min(n, b + h) for b, h, n in zip(core.stop, halo, trunk.shape[1:4], strict=True)
            ),
        )
        z, y, x = seen.slices
        trunk = trunk[:, z, y, x]
        inside = core.relative_to(seen.start)
        channels = self._config.net_conv_after_unet or int(trunk.shape[-1])
        plane = int(np.prod(seen.shape[1:])) * (channels + int(trunk.shape[-1])) * 4
        chosen: list[Chosen] = []

        def run(start: int, stop: int) -> None:
            start, stop = start + inside.start[0], stop + inside.start[0]
            low, high = max(0, start - halo[0]), min(seen.shape[0], stop + halo[0])
            features = trunk[:, low:high]
            if parts.features is not None:
                features = parts.features(features)
            prob = parts.prob(features)
            ours = Box((start - low, *inside.start[1:]), (stop - low, *inside.stop[1:]))
            values = np.asarray(prob)[0, ..., 0][ours.slices]
            index = np.argwhere(values > prob_thresh)
            at = index + np.asarray(ours.start)
            flat = np.ravel_multi_index(tuple(at.T), tuple(features.shape[1:4]))
            dist = self._dist(features, flat)
            first = start - inside.start[0]
            index += np.asarray((core.start[0] + first, *core.start[1:]), np.int64)
            chosen.append((index, values[values > prob_thresh].astype(np.float32), dist))

        in_slabs(core.shape[0], self._slab_bytes // max(1, plane), 1, run)
        index, prob, dist = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
        return index, prob, dist

    def _dist(self, features: Tensor, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """The distances of some outputs: the last layer sees each of them alone."""
        if len(chosen) == 0:
            return np.empty((0, self._config.n_rays), np.float32)
        # Few sizes, so that a backend that compiles for each compiles seldom.
        room = max(LEAST_ROWS, 1 << int(len(chosen) - 1).bit_length())
        padded = np.zeros(room, np.int32)
        padded[: len(chosen)] = chosen
        return self._parts.dist(features, padded)[: len(chosen)]


def in_slabs(length: int, most: int, step: int, run: Callable[[int, int], None]) -> None:
    """Run a function over `[0, length)` in slabs; where memory runs out, in thinner ones.

    Parameters
    ----------
    length : int
        A multiple of `step`.
    most : int
        Largest slab to begin with; at least `step` is taken.
    step : int
        Slabs begin at multiples of it.
    run : callable
        Given start and stop of a slab. If it runs out of memory it must have done nothing.
    """
    count = -(-length // max(step, most // step * step))
    thickness = -(-length // (count * step)) * step
    start = 0
    while start < length:
        stop = min(length, start + thickness)
        try:
            run(start, stop)
        except Exception as error:
            if not is_out_of_memory(error) or thickness <= step:
                raise
            thickness = max(step, thickness // 2 // step * step)
            continue
        start = stop


def stem_reach(config: UNetConfig) -> int:
    """Return how far the convolutions before the U-Net see, voxels along z."""
    reach, pooled = 0, 1
    while pooled < max(config.grid):
        # All axes are pooled together, as long as each has to be.
        reach += (
            config.unet_n_conv_per_depth
            * (config.unet_kernel_size[0] // 2)
            * min(pooled, config.grid[0])
        )
        pooled *= 2
    return reach


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether TensorFlow, JAX or Python says that memory has run out."""
    text = f"{type(error).__name__} {error}".lower()
    signs = ("resource_exhausted", "resourceexhausted", "out of memory", "oom when allocating")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)
