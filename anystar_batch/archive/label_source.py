"""Find the label volume that a path names, and describe it as an image whose values are labels.

What a path may be, and what is taken:

| path | taken |
|---|---|
| an image with labels | its label, if there is exactly one |
| an image without labels; so every label | its own pixels |
| a container with one series | as above, for the series |
| a Zarr array of three axes | itself; its voxel size is not known |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anystar_batch.address import absolute, parent
from anystar_batch.archive.arrays import array_info
from anystar_batch.archive.discovery import find_images
from anystar_batch.archive.images import read_image
from anystar_batch.archive.label_lookup import image_labels
from anystar_batch.archive.ngff import Axis, ImageSource, Level
from anystar_batch.archive.nodes import Node, read_object, read_root
from anystar_batch.errors import ImageError


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A volume of labels.

    Parameters
    ----------
    path : str
        The label, image or array that is read.
    source : ImageSource
        As `ImageReader` takes it. Of a bare array: the directory above, with the array as level 0.
    has_scale : bool
        Whether the voxel size is known.
    """

    path: str
    source: ImageSource
    has_scale: bool


def read_label_source(path: str, *, with_masks: bool = False) -> LabelSource:
    """Read the description of the label volume at a path.

    Parameters
    ----------
    path : str
        See the module's table.
    with_masks : bool
        Whether true and false are numbers, too.

    Returns
    -------
    LabelSource
        Every level has an integer type; or bool, with masks.

    Raises
    ------
    ImageError
        If there is no image or array, there are several labels or series, or the values are no
        integers.
    """
    path, node = read_root(path)
    if node.kind == "array":
        labels = _bare(path, node)
    else:
        chosen = _chosen(path)
        labels = LabelSource(chosen, read_image(chosen), has_scale=True)
    for level in labels.source.levels:
        info = array_info(labels.source.path, level.path, labels.source.zarr_format)
        if np.dtype(info.dtype).kind not in ("iub" if with_masks else "iu"):
            message = (
                f"{labels.path}: level {level.path} has the type {info.dtype}; expected integer "
                "labels, one number for every object: give a label volume, as "
                f"{labels.path}/labels/NAME"
            )
            raise ImageError(message)
    return labels


def _chosen(path: str) -> str:
    """Return the label to read at the path of a group."""
    images = find_images(path)
    if len(images) > 1:
        message = f"{path}: a container of {len(images)} images; give one, e.g. {images[0]}"
        raise ImageError(message)
    image = images[0]
    labels = image_labels(image)
    paths = [path for path, _ in labels.values()]
    if len(paths) > 1:
        message = (
            f"{image}: the image has {len(paths)} labels: {', '.join(labels)}; give one, "
            f"e.g. {paths[0]}"
        )
        raise ImageError(message)
    return paths[0] if paths else image


def _bare(path: str, node: Node) -> LabelSource:
    """Describe an array without OME metadata."""
    # The working directory itself, or `a/..`, has no name to read it by.
    whole = absolute(path)
    above, name = parent(whole), whole.rpartition("/")[2]
    info = array_info(above, name, node.zarr_format)
    document = read_object(f"{path}/zarr.json") or {}
    names = document.get("dimension_names") or list("zyx")
    if len(info.shape) != 3 or sorted(map(str, names)) != list("xyz"):
        axes = ", ".join(map(str, names)) if len(names) == len(info.shape) else "without names"
        message = (
            f"{path}: a Zarr array of shape {info.shape} (axes {axes}) without OME metadata; "
            "expected axes z, y, x: give the OME-Zarr group that names its axes"
        )
        raise ImageError(message)
    if 0 in info.shape:
        message = f"{path}: the array is empty: its shape is {info.shape}"
        raise ImageError(message)
    level = Level(
        path=name,
        shape=info.shape,
        chunks=info.chunks,
        shards=info.shards,
        dtype=info.dtype,
        scale=(1.0,) * 3,
        translation=(0.0,) * 3,
        has_translation=False,
    )
    source = ImageSource(
        path=above,
        name=name,
        version="0.4" if node.zarr_format == 2 else "0.5",
        axes=tuple(Axis(str(n), "space", None) for n in names),
        levels=(level,),
        channels=("0",),
        multiscales={},
        was_consolidated=False,
    )
    return LabelSource(path, source, has_scale=False)
