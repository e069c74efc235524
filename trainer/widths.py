"""Give a trained network more channels, or fewer, and go on training from there.

More: channels are doubled, and what reads them shares its weights among the copies at random. The
answer stays the same to rounding, and as the shares differ, so do the copies' gradients. Fewer:
the channels that are loudest stay; the answer changes, and training has to mend it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError

if TYPE_CHECKING:
    import keras

Origins = NDArray[np.intp]
"""For each channel of a new tensor the old channel that it was."""


def resize(old: keras.Model, new: keras.Model, seed: int = 0) -> None:
    """Fill a network with what another of the same layers but other widths has learnt.

    Parameters
    ----------
    old : keras.Model
        As `anystar_batch.network.unet.build` gives it, trained.
    new : keras.Model
        Likewise; its weights are replaced.
    seed : int
        Of the channels that are doubled and of the shares of their copies.

    Raises
    ------
    ConfigError
        If the two differ in more than the numbers of their channels.

    References
    ----------
    Chen et al., Net2Net, ICLR 2016, arXiv 1511.05641.
    """
    kinds = [[type(layer).__name__ for layer in model.layers] for model in (old, new)]
    if kinds[0] != kinds[1]:
        message = (
            f"resize: got {len(kinds[0])} and {len(kinds[1])} layers, or other ones; expected "
            "networks that differ in base, growth and features alone"
        )
        raise ConfigError(message)
    rng = np.random.default_rng(seed)
    names = [layer.name for layer in new.layers]
    origins: dict[str, Origins] = {}
    for index, (before, after) in enumerate(zip(old.layers, new.layers, strict=True)):
        sources = [names.index(name) for name in _inputs(after)]
        if not sources:
            origins[after.name] = np.arange(1)
            continue
        parts = [(origins[names[i]], old.layers[i].output.shape[-1]) for i in sources]
        read = _joined(parts)
        weights = before.get_weights()
        if not weights:
            origins[after.name] = read
        elif len(weights) == 4:  # batch normalisation: scale, offset, mean, variance
            after.set_weights([one[read] for one in weights])
            origins[after.name] = read
        else:
            kernel, bias = weights
            loud = _loudness(old.layers, index, kernel)
            kept = _choose(loud, after.output.shape[-1], rng)
            shares = _shares(read, rng)
            after.set_weights([(kernel[..., read, :] * shares[:, None])[..., kept], bias[kept]])
            origins[after.name] = kept


def _inputs(layer: keras.Layer) -> list[str]:
    """Names of the layers that a layer reads."""
    nodes = layer._inbound_nodes  # noqa: SLF001  (Keras has no public word for it)
    return [one.operation.name for one in nodes[0].parent_nodes]


def _joined(parts: Sequence[tuple[Origins, int]]) -> Origins:
    """Origins of tensors that are concatenated, with how many channels each had."""
    offsets = np.cumsum([0, *(count for _, count in parts[:-1])])
    return np.concatenate([own + off for (own, _), off in zip(parts, offsets, strict=True)])


def _loudness(layers: Sequence[Any], index: int, kernel: NDArray[np.float32]) -> NDArray[Any]:
    """How much each channel of a convolution says: by its normalisation, else by its kernel."""
    following = layers[index + 1].get_weights() if index + 1 < len(layers) else []
    if len(following) == 4:
        return np.asarray(np.abs(following[0]))
    return np.asarray(np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0))


def _choose(loudness: NDArray[Any], count: int, rng: np.random.Generator) -> Origins:
    """The old channels of `count` new ones."""
    old = len(loudness)
    if count <= old:
        return np.sort(np.argsort(-loudness, kind="stable")[:count])
    copies = [rng.permutation(old) for _ in range(-(-(count - old) // old))]
    return np.concatenate([np.arange(old), *copies])[:count]


def _shares(read: Origins, rng: np.random.Generator) -> NDArray[np.float32]:
    """What each channel hands on, so that the copies of one hand on what it did: they sum to 1."""
    weight = rng.uniform(0.3, 0.7, len(read))
    total = np.zeros(int(read.max()) + 1)
    np.add.at(total, read, weight)
    return (weight / total[read]).astype(np.float32)
