"""The network's parts, as `slabs` runs them one after the other: what computes them under Keras.

::

    image -> stem -> down -> body -> up -> features -> prob
                      `------------^          `-> dist, of chosen outputs

`down` and `up` are the U-Net's first level on both sides, where its layers are largest, and `body`
is all between them; a U-Net of no depth is all body.

Plain Keras 3: under TensorFlow and JAX. `kept_parts` does the same without Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anystar_batch.network.unet import UNetConfig

if TYPE_CHECKING:
    import keras

Tensor = Any
"""An array on the device, of whatever backend: (1, z, y, x, channels)."""

Function = Callable[..., Tensor]


class Parts(Protocol):
    """A network with its weights, in parts; those that it does not have are None."""

    stem: Function | None
    down: Function | None
    body: Function | None
    up: Function | None
    features: Function | None
    prob: Function

    def tensor(self, array: NDArray[np.float32]) -> Tensor:
        """Return an array as the first part takes it."""
        ...

    def joined(self, pieces: Iterable[Tensor], planes: int) -> Tensor:
        """Return slabs as one, along z; together they have so many planes."""
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
        self.stem = None if at_grid is image else _compiled([image], at_grid)
        self.down: Function | None = None
        self.up: Function | None = None
        self.body: Function | None = None
        if config.unet_n_depth > 0:
            skip, inner = model.get_layer("down").input, model.get_layer("up").input
            self.down = _compiled([at_grid], skip)
            self.body = _compiled([skip], inner)
            self.up = _compiled([inner, skip], trunk)
        elif trunk is not at_grid:
            self.body = _compiled([at_grid], trunk)
        self.features = _compiled([trunk], prob.input) if has_features else None
        self.prob = _compiled([prob.input], prob.output)
        kernel, bias = dist.get_weights()
        self.kernel = keras.ops.convert_to_tensor(kernel.reshape(kernel.shape[-2:]), "float32")
        self.bias = keras.ops.convert_to_tensor(bias, "float32")

    def tensor(self, array: NDArray[np.float32]) -> Tensor:
        """Return an array as the first part takes it."""
        import keras  # noqa: PLC0415

        return keras.ops.convert_to_tensor(array)

    def joined(self, pieces: Iterable[Tensor], planes: int) -> Tensor:  # noqa: ARG002
        """Return slabs as one, along z; together they have so many planes."""
        import keras  # noqa: PLC0415

        slabs = list(pieces)
        return slabs[0] if len(slabs) == 1 else keras.ops.concatenate(slabs, axis=1)

    def dist(self, features: Tensor, chosen: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the distances (n, n_rays) of some outputs, which are numbered with z slowest."""
        import keras  # noqa: PLC0415

        ops = keras.ops
        rows = ops.reshape(features, (-1, int(features.shape[-1])))
        taken = ops.cast(ops.take(rows, chosen, axis=0), "float32")
        return np.asarray(ops.matmul(taken, self.kernel) + self.bias).astype(np.float32)


def _compiled(inputs: list[keras.KerasTensor], output: keras.KerasTensor) -> Function:
    """A function of the inputs on the device: one trace (TensorFlow), one program a shape (JAX)."""
    import keras  # noqa: PLC0415

    model = keras.Model(inputs, output)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415

        # One trace for windows of all shapes. XLA compiles convolutions badly for CPUs.
        function: Function = tf.function(
            lambda *tensors: model(list(tensors), training=False),
            input_signature=[tf.TensorSpec(given.shape, given.dtype) for given in model.inputs],
            jit_compile=False,
        )
        return function
    import jax  # noqa: PLC0415

    call = jax.jit(
        lambda trained, fixed, tensors: model.stateless_call(
            trained, fixed, list(tensors), training=False
        )[0]
    )
    variables = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    return lambda *tensors: call(variables, others, tensors)
