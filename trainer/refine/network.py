"""The second look's network in plain Keras 3: convolutions along each ray, neighbours asked twice.

::

    ray:     33 samples x (own, neighbours' mean, mean of all rays, outside)
               5 wide, stride 2 -> 12    3 wide, stride 2 -> 16    beside it its neighbours' mean
               3 wide -> 16    all of it, and all rays' mean of it -> 48 -> 32 -> log factor
    object:  means of the 48 and of the 32 over the rays -> 32 -> quality

Rays lie on one axis and are treated alike, so an object costs one pass. `weights` names the arrays
as `anystar_batch.network.refiner` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.network.profiles import CHANNELS, NEAREST, SAMPLES, SCALARS
from anystar_batch.network.refiner_kernel import MOST_LOG, NAMES, WIDTHS

if TYPE_CHECKING:
    import keras


LAYERS = ("conv1", "conv2", "conv3", "own", "second", "judged")
"""Layers that have a width of their own, in the order of `build`'s widths."""


def build(near: NDArray[np.int64], widths: Sequence[int] = WIDTHS) -> Any:  # noqa: ANN401  (Keras has no types)
    """Return a fresh network.

    Parameters
    ----------
    near : int64 [n_rays, 6]
        From `profiles.neighbours`.
    widths : six int
        Channels of the three convolutions, of the two layers of a ray, and of the quality's.

    Returns
    -------
    keras.Model
        (values, scalars) as from `profiles.profiles` to (log factor [b, n_rays], quality [b]).
    """
    import keras  # noqa: PLC0415  (10 s)

    ops, layers = keras.ops, keras.layers
    n_rays = len(near)
    matrix = np.zeros((n_rays, n_rays), np.float32)
    matrix[np.repeat(np.arange(n_rays), NEAREST), near.ravel()] = 1.0 / NEAREST
    values = keras.Input((SAMPLES, CHANNELS, n_rays), name="values")
    scalars = keras.Input((SCALARS, n_rays), name="scalars")

    def along(width: int, taps: int, stride: int, name: str) -> keras.layers.Layer:
        return layers.Conv2D(
            width, (1, taps), (1, stride), padding="same", activation="relu", name=name
        )

    x = ops.transpose(values, (0, 3, 1, 2))
    x = along(widths[0], 5, 2, "conv1")(x)
    x = along(widths[1], 3, 2, "conv2")(x)
    places = x.shape[2]
    flat = ops.reshape(x, (-1, n_rays, places * widths[1]))
    around = ops.matmul(matrix, flat)
    x = ops.concatenate([x, ops.reshape(around, (-1, n_rays, places, widths[1]))], axis=-1)
    x = along(widths[2], 3, 1, "conv3")(x)
    flat = ops.reshape(x, (-1, n_rays, places * widths[2]))
    whole = layers.Dense(widths[3], use_bias=False, name="whole")(ops.mean(flat, axis=1))
    own = ops.concatenate([flat, ops.transpose(scalars, (0, 2, 1))], axis=-1)
    own = layers.Dense(widths[3], name="own")(own)
    first = ops.relu(own + ops.expand_dims(whole, 1))
    second = layers.Dense(widths[4], activation="relu", name="second")(first)
    factor = layers.Dense(1, kernel_initializer="zeros", name="factor")(second)
    factor = ops.clip(ops.squeeze(factor, -1), -MOST_LOG, MOST_LOG)
    means = ops.concatenate([ops.mean(first, axis=1), ops.mean(second, axis=1)], axis=-1)
    judged = layers.Dense(widths[5], activation="relu", name="judged")(means)
    quality = layers.Dense(1, activation="sigmoid", name="quality")(judged)
    return keras.Model([values, scalars], [factor, ops.squeeze(quality, -1)])


def weights(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Return the network's arrays by name, each matrix as [outputs, inputs].

    Parameters
    ----------
    model : keras.Model
        From `build`.

    Returns
    -------
    dict
        `NAMES` of `anystar_batch.network.refiner`; inputs of a convolution are tap by tap.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    for name in NAMES:
        layer, _, kind = name.partition("_")
        values = model.get_layer(layer).get_weights()
        if kind == "bias":
            arrays[name] = np.ascontiguousarray(values[1], np.float32)
        else:
            kernel = values[0].reshape(-1, values[0].shape[-1])
            arrays[name] = np.ascontiguousarray(kernel.T, np.float32)
    return arrays


def restored(near: NDArray[np.int64], arrays: Mapping[str, NDArray[np.float32]]) -> Any:  # noqa: ANN401
    """Return a network with the arrays that `weights` returned of another.

    Parameters
    ----------
    near : int64 [n_rays, 6]
        As of `build`.
    arrays : mapping
        With `NAMES` of `anystar_batch.network.refiner_kernel`.

    Returns
    -------
    keras.Model
        As from `build`.
    """
    model = build(near, [len(arrays[f"{layer}_bias"]) for layer in LAYERS])
    given: dict[str, list[NDArray[np.float32]]] = {}
    for name in NAMES:  # of each layer the kernel comes first
        layer, _, kind = name.partition("_")
        values = model.get_layer(layer).get_weights()
        old = values[1 if kind == "bias" else 0]
        new = arrays[name] if kind == "bias" else arrays[name].T.reshape(old.shape)
        given.setdefault(layer, []).append(new)
    for layer, values in given.items():
        model.get_layer(layer).set_weights(values)
    return model
