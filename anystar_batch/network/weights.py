"""A network's weights as the legacy `.h5` file that StarDist reads; no code in it is executed.

Weights interchange by the order of the layers and their shapes; names do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import keras


def load_weights(model: keras.Model, path: Path) -> None:
    """Load a legacy `.h5` weights file by layer order; no code in it is executed.

    Parameters
    ----------
    model : keras.Model
        As `build` gives it.
    path : Path
        Groups per layer, as StarDist writes `weights_best.h5`.

    Raises
    ------
    ModelError
        If the file is missing, is no weights file of that layout, or belongs to another network.
    """
    import h5py  # noqa: PLC0415

    path = Path(path)
    if not path.is_file():
        message = f"model: no weights file {path}; expected weights_best.h5 in the model's folder"
        raise ModelError(message)
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            stored = _ordered_arrays(root)
    except (OSError, KeyError) as error:
        message = f"model: {path} is no Keras weights file of the legacy layout: {error}"
        raise ModelError(message) from error
    layers = [layer for layer in model.layers if layer.weights]
    if len(stored) != len(layers):
        message = (
            f"model: {path} holds {len(stored)} layers with weights; config.json describes "
            f"{len(layers)}; the two files do not belong together"
        )
        raise ModelError(message)
    for layer, (name, arrays) in zip(layers, stored, strict=True):
        expected = [tuple(w.shape) for w in layer.weights]
        shapes = [a.shape for a in arrays]
        if shapes != expected:
            message = (
                f"model: layer {name} of {path} has shapes {shapes}; config.json describes "
                f"{expected}; the two files do not belong together"
            )
            raise ModelError(message)
    for layer, (_, arrays) in zip(layers, stored, strict=True):
        # Trainable first: the order of the file; `layer.weights` interleaves on no layer used.
        layer.set_weights(arrays)


def save_weights(model: keras.Model, path: Path) -> None:
    """Write weights in the legacy `.h5` layout that StarDist and `load_weights` read.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    model : keras.Model
    path : Path
        Must end in `.h5` but not in `.weights.h5`, which means another layout to Keras.

    Raises
    ------
    ConfigError
        If the name means another layout.
    """
    import h5py  # noqa: PLC0415
    import keras  # noqa: PLC0415

    path = Path(path)
    if path.suffix != ".h5" or path.name.endswith(".weights.h5"):
        message = f"model: got the file name {path.name}; expected one such as weights_best.h5"
        raise ConfigError(message)
    temporary = path.with_name(f".{path.name}.partial")
    with h5py.File(temporary, "w", libver=("earliest", "v110")) as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = str(keras.__version__)
        for layer in model.layers:
            group = file.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [f"{layer.name}/{re.sub(r'[^a-z_0-9]', '_', w.name)}" for w in weights]
            group.attrs["weight_names"] = [n.encode() for n in names]
            for name, weight in zip(names, weights, strict=True):
                group.create_dataset(name, data=np.asarray(weight.numpy(), np.float32))
    temporary.replace(path)


def _ordered_arrays(root: Mapping[str, object]) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """Arrays of every layer that has any, in the file's order of layers."""
    ordered = []
    for layer_name in _names(root, "layer_names"):
        group = root[layer_name]
        arrays = [np.asarray(group[n], np.float32) for n in _names(group, "weight_names")]  # type: ignore[index]
        if arrays:
            ordered.append((layer_name, arrays))
    return ordered


def _names(group: object, attribute: str) -> list[str]:
    """Read a list of names kept in an attribute; Keras splits a long one over several."""
    attributes: Mapping[str, Sequence[bytes | str]] = group.attrs  # type: ignore[attr-defined]
    if attribute in attributes:
        raw = list(attributes[attribute])
    else:
        raw = []
        part = 0
        while f"{attribute}{part}" in attributes:
            raw.extend(attributes[f"{attribute}{part}"])
            part += 1
        if not raw:
            message = f"attribute {attribute} is missing"
            raise KeyError(message)
    return [n.decode() if isinstance(n, bytes) else str(n) for n in raw]
