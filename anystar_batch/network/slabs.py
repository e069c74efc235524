"""The network over a large window, part by part: what is large is made and used up in slabs.

At full resolution a window of 300 voxels an edge fills gigabytes a layer, and 97 channels of
output fill as much again. Neither is ever whole here::

    image   ==[ stem ]==> at the grid        slabs of planes with a halo, as convolutions see
            ==[ down ]==> skip               the U-Net's first level, in slabs too
    all of it [ body ]    inner              the levels below it: an eighth of the outputs or less
    core    ==[ up ]====> trunk              back at the first level, slabs of the core alone
            ==[ heads ]=> features, prob     of each slab at once
            chosen ==> dist                  rows of features whose probability is high enough

Slabs change what is computed together, not what is computed: the halo holds every voxel that a
layer can see, and beyond the window's border the layers pad with zeros as ever. Probabilities of
the core and the chosen rows are all that leaves the device.

What computes the parts is given (`parts`): Keras, or TensorFlow's own library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ModelError
from anystar_batch.geometry import ZYX, Box, as_zyx, grid_shape
from anystar_batch.network.parts import Function, Parts, Tensor
from anystar_batch.network.unet import UNetConfig

SLAB_BYTES = 192 * 1024**2
"""Most that a slab's largest layer takes, float32. Thinner slabs compute more of their halos, and
thicker ones take memory for nothing: a window of 304 voxels an edge has 32 planes a slab."""

LEAST_ROWS = 64
"""Fewest rows of a product: of fewer, libraries add up in another order on some processors."""

Made = TypeVar("Made")

Trunk = Callable[[Box], Tensor]
"""Tells what the U-Net says of the outputs of a box: (1, z, y, x, channels)."""

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
            extent = grid_shape(as_zyx(image.shape), self._config.grid)
            return self._choose(self._trunk(image), extent, core, prob_thresh)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = (
                f"network: no memory for a window of {image.shape} voxels; give a smaller --tile"
            )
            raise ModelError(message) from error

    def _trunk(self, image: NDArray[np.float32]) -> Trunk:
        """What the heads ask: all but the first level's way back is computed here."""
        parts = self._parts
        if parts.down is None or parts.body is None or parts.up is None:
            at_grid = self._at_grid(image)
            whole = at_grid if parts.body is None else parts.body(at_grid)
            return lambda box: whole[:, *box.slices]
        skip = self._down(parts.down, self._at_grid(image))
        return partial(self._up, parts.up, parts.body(skip), skip)

    def _at_grid(self, image: NDArray[np.float32]) -> Tensor:
        """What the stem says of the image, or the image."""
        parts, tensor = self._parts, image[None, ..., None]
        stem = parts.stem
        if stem is None:
            return parts.tensor(tensor)
        grid = self._config.grid[0]
        halo = -(-stem_reach(self._config) // grid) * grid
        plane = image[0].size * self._config.unet_n_filter_base * 4

        def run(start: int, stop: int) -> Tensor:
            low, high = max(0, start - halo), min(len(image), stop + halo)
            part = stem(parts.tensor(tensor[:, low:high]))
            return part[:, (start - low) // grid : (stop - low) // grid]

        pieces = in_slabs(len(image), self._slab_bytes // plane, grid, halo, run)
        return parts.joined(pieces, len(image) // grid)

    def _down(self, down: Function, at_grid: Tensor) -> Tensor:
        """What the U-Net's first level says of what lies at the grid."""
        _, planes, *sides, _ = (int(n) for n in at_grid.shape)
        reach = level_reach(self._config)[0]
        plane = math.prod(sides) * self._config.unet_n_filter_base * 4

        def run(start: int, stop: int) -> Tensor:
            low, high = max(0, start - reach), min(planes, stop + reach)
            return down(at_grid[:, low:high])[:, start - low : stop - low]

        pieces = in_slabs(planes, self._slab_bytes // plane, 1, reach, run)
        return self._parts.joined(pieces, planes)

    def _up(self, up: Function, inner: Tensor, skip: Tensor, box: Box) -> Tensor:
        """What the first level says of a box once it has heard those below it."""
        pool = self._config.unet_pool
        seen = box.grow(level_reach(self._config)).intersect(Box.of_shape(as_zyx(skip.shape[1:4])))
        below = Box(
            as_zyx(a // p for a, p in zip(seen.start, pool, strict=True)),
            grid_shape(seen.stop, pool),
        )
        around = Box(
            as_zyx(a * p for a, p in zip(below.start, pool, strict=True)),
            as_zyx(b * p for b, p in zip(below.stop, pool, strict=True)),
        )
        part = up(inner[:, *below.slices], skip[:, *around.slices])
        return part[:, *box.relative_to(around.start).slices]

    def _choose(self, trunk: Trunk, extent: ZYX, core: Box, prob_thresh: float) -> Chosen:
        """Probabilities of the core, and the distances of the chosen, slab by slab."""
        parts, config = self._parts, self._config
        reach = config.unet_kernel_size if config.net_conv_after_unet else (1, 1, 1)
        margin = as_zyx(k // 2 for k in reach)
        seen = core.grow(margin).intersect(Box.of_shape(extent))
        halo = margin[0] if parts.up is None else margin[0] + level_reach(config)[0]
        channels = config.unet_n_filter_base + config.net_conv_after_unet
        plane = seen.shape[1] * seen.shape[2] * channels * 4

        def run(start: int, stop: int) -> Chosen:
            ours = Box(
                (core.start[0] + start, *core.start[1:]), (core.start[0] + stop, *core.stop[1:])
            )
            near = ours.grow(margin).intersect(seen)
            features = trunk(near)
            if parts.features is not None:
                features = parts.features(features)
            prob, inside = parts.prob(features), ours.relative_to(near.start)
            values = np.asarray(prob)[0, ..., 0][inside.slices]
            index = np.argwhere(values > prob_thresh)
            at = index + np.asarray(inside.start)
            flat = np.ravel_multi_index(tuple(at.T), near.shape)
            dist = self._dist(features, flat)
            index += np.asarray(ours.start, np.int64)
            return index, values[values > prob_thresh].astype(np.float32), dist

        chosen = in_slabs(core.shape[0], self._slab_bytes // plane, 1, halo, run)
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


def in_slabs(
    length: int, most: int, step: int, halo: int, run: Callable[[int, int], Made]
) -> Iterator[Made]:
    """Yield what a function makes of `[0, length)` in slabs; where memory runs out, thinner ones.

    Slabs are as thick as each other once each has its halo, which the outer two have on one side
    alone: then what one leaves free is what the next one needs.

    Parameters
    ----------
    length : int
        A multiple of `step`.
    most : int
        Largest slab with its halo to begin with; at least `step` is taken.
    step : int
        Slabs begin at multiples of it.
    halo : int
        Beside a slab, a multiple of `step`.
    run : callable
        Given start and stop of a slab, without its halo. If it runs out of memory it must have done
        nothing.

    Yields
    ------
    What `run` returned, in order.
    """
    span = length
    if length > most:
        inner = max(step, length - 2 * halo)
        room = max(step, (most - 2 * halo) // step * step)
        span = -(-inner // (-(-inner // room) * step)) * step + 2 * halo
    start = 0
    while start < length:
        low = max(0, start - halo)
        stop = length if low + span >= length else max(start + step, low + span - halo)
        try:
            made = run(start, stop)
        except Exception as error:
            if not is_out_of_memory(error) or stop - start <= step:
                raise
            span = start - low + max(step, (stop - start) // 2 // step * step) + halo
            continue
        yield made
        del made
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


def level_reach(config: UNetConfig) -> ZYX:
    """Return how far the convolutions of one of the U-Net's levels see, its voxels."""
    return as_zyx(config.unet_n_conv_per_depth * (k // 2) for k in config.unet_kernel_size)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether TensorFlow, JAX or Python says that memory has run out."""
    text = f"{type(error).__name__} {error}".lower()
    signs = ("resource_exhausted", "resourceexhausted", "out of memory", "oom when allocating")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)
