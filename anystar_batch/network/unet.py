"""StarDist-3D's U-Net as plain Keras 3, for any Keras backend.

One description (`UNetConfig`, what StarDist's `Config3D` can express) and one network (`build`).

::

    image (b, z, y, x, 1) -> [conv conv pool] per doubling of the grid -> U-Net -> features
          -> prob (b, z/g, y/g, x/g, 1)        sigmoid
          -> dist (b, z/g, y/g, x/g, n_rays)   linear, working voxels

Invariant: layers with weights come in the same order, with the same shapes, as StarDist3D's, so
that weights interchange by order; layer names do not matter. StarDist clips distances at 1e-3,
this network does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anystar_batch.errors import ConfigError, ModelError
from anystar_batch.geometry import ZYX, as_zyx

if TYPE_CHECKING:
    import keras

PRECISIONS = ("float32", "bfloat16")
"""Compute precisions of `build`; weights and both outputs are float32 always."""


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The shape of a network, as StarDist's `Config3D` names it.

    Parameters
    ----------
    n_rays : int
        Rays of a polyhedron: channels of `dist`.
    grid : (z, y, x)
        Voxels of input per voxel of output, powers of 2.
    unet_n_depth : int
        Levels of the U-Net below its first.
    unet_kernel_size : (z, y, x)
        Kernel of every convolution but the two heads.
    unet_n_filter_base : int
        Channels of the first level; every level below has `unet_expansion` times as many.
    unet_n_conv_per_depth : int
        Convolutions per level.
    unet_pool : (z, y, x)
        Pooling between levels.
    unet_expansion : float
        Growth of the channels per level.
    unet_activation, unet_last_activation : str
        Keras activations; the last is that of the U-Net's final convolution.
    unet_batch_norm : bool
        Batch normalisation after the U-Net's convolutions (not in the stem, as in StarDist).
    unet_dropout : float
        Share dropped in training after the U-Net's convolutions, 0 for none.
    net_conv_after_unet : int
        Channels of the convolution `features` before the heads, 0 for none.

    Raises
    ------
    ConfigError
        If a value cannot be built.
    """

    n_rays: int = 96
    grid: ZYX = (1, 1, 1)
    unet_n_depth: int = 2
    unet_kernel_size: ZYX = (3, 3, 3)
    unet_n_filter_base: int = 32
    unet_n_conv_per_depth: int = 2
    unet_pool: ZYX = (2, 2, 2)
    unet_expansion: float = 2.0
    unet_activation: str = "relu"
    unet_last_activation: str = "relu"
    unet_batch_norm: bool = False
    unet_dropout: float = 0.0
    net_conv_after_unet: int = 128

    def __post_init__(self) -> None:
        for axis_name, step in zip("zyx", self.grid, strict=True):
            if step < 1 or step & (step - 1):
                message = f"network: got grid {step} on axis {axis_name}; expected a power of 2"
                raise ConfigError(message)
        positive = {
            "n_rays": self.n_rays,
            "unet_n_filter_base": self.unet_n_filter_base,
            "unet_n_conv_per_depth": self.unet_n_conv_per_depth,
            "unet_kernel_size": min(self.unet_kernel_size),
            "unet_pool": min(self.unet_pool),
        }
        for name, value in positive.items():
            if value < 1:
                message = f"network: got {name}={value}; expected at least 1"
                raise ConfigError(message)
        if self.unet_n_depth < 0 or self.net_conv_after_unet < 0:
            message = (
                f"network: got unet_n_depth={self.unet_n_depth}, "
                f"net_conv_after_unet={self.net_conv_after_unet}; expected 0 or more"
            )
            raise ConfigError(message)

    @classmethod
    def from_stardist(cls, document: Mapping[str, object]) -> UNetConfig:
        """Parse a StarDist model's `config.json`.

        Parameters
        ----------
        document : mapping
            The parsed JSON; keys that concern training only are ignored.

        Returns
        -------
        UNetConfig

        Raises
        ------
        ModelError
            If the model is not a StarDist-3D model with a U-Net on one channel without classes.
        ConfigError
            If a value has the wrong type or cannot be built.
        """
        n_dim, axes = document.get("n_dim", 3), str(document.get("axes", "ZYXC"))
        if n_dim != 3 or not axes.startswith("ZYX"):
            message = f"model: got n_dim={n_dim}, axes={axes}; expected a StarDist-3D model (ZYX)"
            raise ModelError(message)
        backbone = document.get("backbone", "unet")
        if backbone != "unet":
            message = f"model: got backbone {backbone!r}; expected 'unet', no other is supported"
            raise ModelError(message)
        if document.get("n_classes") is not None:
            message = f"model: got n_classes={document['n_classes']}; classes are not supported"
            raise ModelError(message)
        if document.get("n_channel_in", 1) != 1:
            message = f"model: got n_channel_in={document['n_channel_in']}; expected 1"
            raise ModelError(message)
        prob_rays = document.get("n_rays")
        if not isinstance(prob_rays, int):
            message = f"model: got n_rays={prob_rays!r}; expected an integer"
            raise ConfigError(message)
        last = document.get("unet_last_activation", "relu")
        activation = _text(document, "unet_activation", "relu")
        return cls(
            n_rays=prob_rays,
            grid=_triple(document, "grid", (1, 1, 1)),
            unet_n_depth=_integer(document, "unet_n_depth", 2),
            unet_kernel_size=_triple(document, "unet_kernel_size", (3, 3, 3)),
            unet_n_filter_base=_integer(document, "unet_n_filter_base", 32),
            unet_n_conv_per_depth=_integer(document, "unet_n_conv_per_depth", 2),
            unet_pool=_triple(document, "unet_pool", (2, 2, 2)),
            unet_expansion=_number(document, "unet_expansion", 2.0),
            unet_activation=activation,
            unet_last_activation=activation if last is None else str(last),
            unet_batch_norm=bool(document.get("unet_batch_norm", False)),
            unet_dropout=_number(document, "unet_dropout", 0.0),
            net_conv_after_unet=_integer(document, "net_conv_after_unet", 128),
        )

    def to_stardist(self) -> dict[str, object]:
        """Return the keywords of `Config3D` that build this network."""
        return {
            "n_channel_in": 1,
            "n_rays": self.n_rays,
            "grid": list(self.grid),
            "backbone": "unet",
            "unet_n_depth": self.unet_n_depth,
            "unet_kernel_size": list(self.unet_kernel_size),
            "unet_n_filter_base": self.unet_n_filter_base,
            "unet_n_conv_per_depth": self.unet_n_conv_per_depth,
            "unet_pool": list(self.unet_pool),
            "unet_expansion": self.unet_expansion,
            "unet_activation": self.unet_activation,
            "unet_last_activation": self.unet_last_activation,
            "unet_batch_norm": self.unet_batch_norm,
            "unet_dropout": self.unet_dropout,
            "net_conv_after_unet": self.net_conv_after_unet,
        }

    def divisor(self) -> ZYX:
        """Return the step per axis that an input's shape must be a multiple of, voxels."""
        pairs = zip(self.grid, self.unet_pool, strict=True)
        return as_zyx(step * pool**self.unet_n_depth for step, pool in pairs)


def build(  # noqa: C901  (reads top to bottom, as the network runs)
    config: UNetConfig, precision: str = "float32", *, frozen_norm: bool = False
) -> keras.Model:
    """Build the network, with fresh weights.

    Parameters
    ----------
    config : UNetConfig
    precision : {"float32", "bfloat16"}
        Precision of the computation. The weights and both heads are float32 always.
    frozen_norm : bool
        Normalise by the moving statistics in training too, as inference does. The weights, their
        order and what may be trained stay the same.

    Returns
    -------
    keras.Model
        float32 (batch, z, y, x, 1), each axis a multiple of `config.divisor()`, to
        (prob, dist) as in the module's drawing.

    Raises
    ------
    ConfigError
        If the precision is unknown.

    References
    ----------
    Weigert et al., Star-convex Polyhedra for 3D Object Detection and Segmentation in Microscopy,
    WACV 2020, doi:10.1109/WACV45572.2020.9093435, arXiv:1908.03636. Ronneberger, Fischer
    and Brox, U-Net, MICCAI 2015, doi:10.1007/978-3-319-24574-4_28, arXiv:1505.04597.
    """
    if precision not in PRECISIONS:
        message = f"network: got precision {precision!r}; expected one of {', '.join(PRECISIONS)}"
        raise ConfigError(message)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras  # noqa: PLC0415  (10 s; not for --help)
    from keras import layers  # noqa: PLC0415

    class FrozenNorm(layers.BatchNormalization):  # type: ignore[misc]
        # A model hands its own `training` to every layer, over what the layer was called with.
        def call(
            self,
            inputs: keras.KerasTensor,
            training: bool | None = None,  # noqa: ARG002
            mask: keras.KerasTensor | None = None,
        ) -> keras.KerasTensor:
            return super().call(inputs, training=False, mask=mask)

    dtype = "float32" if precision == "float32" else "mixed_bfloat16"
    kernel = config.unet_kernel_size

    def block(tensor: keras.KerasTensor, filters: float, activation: str) -> keras.KerasTensor:
        channels = int(filters)
        if not config.unet_batch_norm:
            tensor = layers.Conv3D(
                channels, kernel, padding="same", activation=activation, dtype=dtype
            )(tensor)
        else:
            tensor = layers.Conv3D(channels, kernel, padding="same", dtype=dtype)(tensor)
            tensor = (FrozenNorm if frozen_norm else layers.BatchNormalization)(dtype=dtype)(tensor)
            tensor = layers.Activation(activation, dtype=dtype)(tensor)
        if config.unet_dropout > 0:
            tensor = layers.Dropout(config.unet_dropout, dtype=dtype)(tensor)
        return tensor

    base, growth, depth = (
        config.unet_n_filter_base,
        config.unet_expansion,
        config.unet_n_depth,
    )
    inner, last = config.unet_activation, config.unet_last_activation
    repeats = config.unet_n_conv_per_depth

    image = keras.Input((None, None, None, 1), name="input", dtype="float32")
    tensor = image
    pooled = (1, 1, 1)
    while pooled != config.grid:
        pool = as_zyx(1 + (g > p) for g, p in zip(config.grid, pooled, strict=True))
        pooled = as_zyx(p * q for p, q in zip(pooled, pool, strict=True))
        for _ in range(repeats):
            tensor = layers.Conv3D(base, kernel, padding="same", activation=inner, dtype=dtype)(
                tensor
            )
        name = "stem" if pooled == config.grid else None
        tensor = layers.MaxPooling3D(pool, dtype=dtype, name=name)(tensor)

    skips = []
    for level in range(depth):
        for _ in range(repeats):
            tensor = block(tensor, base * growth**level, inner)
        skips.append(tensor)
        name = "down" if level == 0 else None
        tensor = layers.MaxPooling3D(config.unet_pool, dtype=dtype, name=name)(tensor)
    for _ in range(repeats - 1):
        tensor = block(tensor, base * growth**depth, inner)
    tensor = block(tensor, base * growth ** max(0, depth - 1), inner)
    for level in reversed(range(depth)):
        name = "up" if level == 0 else None
        upsampled = layers.UpSampling3D(config.unet_pool, dtype=dtype, name=name)(tensor)
        tensor = layers.Concatenate(axis=-1, dtype=dtype)([upsampled, skips[level]])
        for _ in range(repeats - 1):
            tensor = block(tensor, base * growth**level, inner)
        final = inner if level > 0 else last
        tensor = block(tensor, base * growth ** max(0, level - 1), final)

    if config.net_conv_after_unet > 0:
        tensor = layers.Conv3D(
            config.net_conv_after_unet,
            kernel,
            name="features",
            padding="same",
            activation=inner,
            dtype=dtype,
        )(tensor)
    prob = layers.Conv3D(1, 1, name="prob", padding="same", activation="sigmoid", dtype="float32")(
        tensor
    )
    dist = layers.Conv3D(config.n_rays, 1, name="dist", padding="same", dtype="float32")(tensor)
    return keras.Model(image, [prob, dist])


def _triple(document: Mapping[str, object], key: str, default: ZYX) -> ZYX:
    value = document.get(key, default)
    if (
        not isinstance(value, Sequence)
        or len(value) != 3
        or not all(isinstance(v, int) for v in value)
    ):
        message = f"model: got {key}={value!r}; expected three integers (z, y, x)"
        raise ConfigError(message)
    return as_zyx(value)


def _integer(document: Mapping[str, object], key: str, default: int) -> int:
    value = document.get(key, default)
    if not isinstance(value, int):
        message = f"model: got {key}={value!r}; expected an integer"
        raise ConfigError(message)
    return value


def _number(document: Mapping[str, object], key: str, default: float) -> float:
    value = document.get(key, default)
    if value is None:
        return 0.0
    if not isinstance(value, int | float):
        message = f"model: got {key}={value!r}; expected a number"
        raise ConfigError(message)
    return float(value)


def _text(document: Mapping[str, object], key: str, default: str) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        message = f"model: got {key}={value!r}; expected a name"
        raise ConfigError(message)
    return value
