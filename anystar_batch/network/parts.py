"""The network's parts, as `slabs` runs them one after the other: what computes them under Keras.

::

    image -> stem -> body -> features -> prob
                                     `-> dist, of chosen outputs

Plain Keras 3: under TensorFlow and JAX. `kept_parts` does the same without Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anystar_batch.network.unet import UNetConfig

if TYPE_CHECKING:
    import keras

Tensor = Any
"""An array on the device, of whatever backend: (1, z, y, x, channels)."""

Function = Callable[[Tensor], Tensor]


class Parts(Protocol):
    """A network with its weights, in parts; those that it does not have are None."""

    stem: Function | None
    body: Function | None
    features: Function | None
    prob: Function

    def tensor(self, array: NDArray[np.float32]) -> Tensor:
        """Return an array as the first part takes it."""
        ...

    def joined(self, pieces: Sequence[Tensor]) -> Tensor:
        """Return slabs as one, along z."""
        ...

    def dist(self, features: Tensor, chosen: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the distances (n, n_rays) of some outputs, which are numbered with z slowest."""
        ...


class KerasParts:
    """A network's parts under Keras.

    Parameters
    ----------
    model : keras.Model
        From `unet.build`, its weights loaded.
    config : UNetConfig
        What it was built from.
    """

    def __init__(self, model: keras.Model, config: UNetConfig) -> None:
        import keras  # noqa: PLC0415  (10 s)

        prob, dist = model.get_layer("prob"), model.get_layer("dist")
        has_features = config.net_conv_after_unet > 0
        trunk = (model.get_layer("features") if has_features else prob).input
        image, at_grid = model.inputs[0], model.inputs[0]
        if config.grid != (1, 1, 1):
            at_grid = model.get_layer("stem").output
        self.stem = None if at_grid is image else _compiled(keras.Model(image, at_grid))
        self.body = None if trunk is at_grid else _compiled(keras.Model(at_grid, trunk))
        self.features = _compiled(keras.Model(trunk, prob.input)) if has_features else None
        self.prob = _compiled(keras.Model(prob.input, prob.output))
        kernel, bias = dist.get_weights()
        self.kernel = keras.ops.convert_to_tensor(kernel.reshape(kernel.shape[-2:]), "float32")
        self.bias = keras.ops.convert_to_tensor(bias, "float32")

    def tensor(self, array: NDArray[np.float32]) -> Tensor:
        """Return an array as the first part takes it."""
        import keras  # noqa: PLC0415

        return keras.ops.convert_to_tensor(array)

    def joined(self, pieces: Sequence[Tensor]) -> Tensor:
        """Return slabs as one, along z."""
        import keras  # noqa: PLC0415

        return keras.ops.concatenate(pieces, axis=1)

    def dist(self, features: Tensor, chosen: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the distances (n, n_rays) of some outputs, which are numbered with z slowest."""
        import keras  # noqa: PLC0415

        ops = keras.ops
        rows = ops.reshape(features, (-1, int(features.shape[-1])))
        taken = ops.cast(ops.take(rows, chosen, axis=0), "float32")
        return np.asarray(ops.matmul(taken, self.kernel) + self.bias).astype(np.float32)


def _compiled(model: keras.Model) -> Function:
    """A function of tensors on the device: one trace (TensorFlow), one program a shape (JAX)."""
    import keras  # noqa: PLC0415

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415

        # One trace for windows of all shapes. XLA compiles convolutions badly for CPUs.
        (given,) = model.inputs
        function: Function = tf.function(
            lambda tensor: model(tensor, training=False),
            input_signature=[tf.TensorSpec(given.shape, given.dtype)],
            jit_compile=False,
        )
        return function
    import jax  # noqa: PLC0415

    call = jax.jit(lambda a, b, tensor: model.stateless_call(a, b, tensor, training=False)[0])
    trainable = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    return lambda tensor: call(trainable, fixed, tensor)
