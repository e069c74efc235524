"""A picture of an image with its labels: outlines over slices and projections, as PNG.

Bounded: a coarse level is read where level 0 is larger than a screen. Four panels::

    middle slice xy, outlined       maximum projection xy, outlined
    middle slice xz, outlined       maximum projection xz, outlined
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_image import LabelWriter, label_spec
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.storage.files import write_bytes_atomic
from anystar_batch.geometry import Box

MAX_VOXELS = 64 * 10**6
"""Largest level that is drawn; of a larger one the next coarser is taken."""

MAX_EDGE = 512
"""Width that panels are enlarged to, pixels."""

GAP = 6
"""Pixels between panels."""

GOLDEN = 0.618033988749895
"""Step of the hue from one label to the next: neighbours in number differ in colour."""


def draw_overlay(
    image: str, label: str, path: Path, *, time: int = 0, channel: int = 0, level: int | None = None
) -> None:
    """Draw an image and one of its labels, and write a PNG.

    Parameters
    ----------
    image : str
        OME-Zarr image.
    label : str
        Path of the label's group: in the image, or standalone.
    path : Path
        The PNG; an older file is replaced.
    time, channel : int
        What to draw.
    level : int, optional
        Level to draw; None takes the finest that is not too large.
    """
    source = read_image(image)
    shapes = [source.shape_zyx(k) for k in range(len(source.levels))]
    sizes = [float(np.prod(shape, dtype=np.float64)) for shape in shapes]
    chosen = level
    if chosen is None:
        chosen = next((k for k, size in enumerate(sizes) if size <= MAX_VOXELS), len(sizes) - 1)
    box = Box.of_shape(source.shape_zyx(chosen))
    voxels = ImageReader(source).read_box(chosen, time, channel, box)
    labels = LabelWriter(label, label_spec(source)).read_box(chosen, time, box)
    picture = overlay(voxels, labels, _aspect(source, chosen))
    write_png(picture, path)


def overlay(
    image: NDArray[np.number], labels: NDArray[np.uint32], aspect: float = 1.0
) -> NDArray[np.uint8]:
    """Return slices and projections with the outlines of every label.

    Parameters
    ----------
    image : (z, y, x)
        Intensities.
    labels : uint32 (z, y, x)
        0 is background.
    aspect : float
        Height of a voxel over its width in the plane.

    Returns
    -------
    uint8 (rows, columns, 3)
    """
    grey = _grey(image)
    z, y = image.shape[0] // 2, image.shape[1] // 2
    nearest, side = _front_labels(labels, axis=0), _front_labels(labels, axis=1)
    zoom = max(1, MAX_EDGE // max(image.shape[1:]))
    tall = max(1, round(zoom * aspect))
    rows = [
        [
            _panel(grey[z], labels[z], zoom, zoom),
            _panel(grey.max(axis=0), nearest, zoom, zoom),
        ],
        [
            _panel(grey[:, y], labels[:, y], tall, zoom),
            _panel(grey.max(axis=1), side, tall, zoom),
        ],
    ]
    return _stack([_stack(row, axis=1) for row in rows], axis=0)


def write_png(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture (rows, columns, 3) so that the file is whole or absent."""
    stream = BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", optimize=True)
    write_bytes_atomic(path, stream.getvalue())


def colours(labels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return a bright colour (..., 3) for every label; the same number has always the same."""
    hue = np.mod(labels.astype(np.float64) * GOLDEN, 1.0) * 6.0
    channels = [np.clip(np.abs(np.mod(hue + k, 6.0) - 3.0) - 1.0, 0.0, 1.0) for k in (0, 4, 2)]
    return (55 + 200 * np.stack(channels, axis=-1)).astype(np.uint8)


def _grey(image: NDArray[np.number]) -> NDArray[np.uint8]:
    values = np.nan_to_num(image.astype(np.float32))
    low, high = (float(v) for v in np.percentile(values, [1.0, 99.8]))
    scaled = (values - low) / max(high - low, 1e-12)
    grey: NDArray[np.uint8] = (np.clip(scaled, 0.0, 1.0) ** 0.7 * 255).astype(np.uint8)
    return grey


def _front_labels(labels: NDArray[np.uint32], axis: int) -> NDArray[np.uint32]:
    """Label met first along an axis: whole outlines; the brightest voxel's would be ragged."""
    where = np.expand_dims((labels > 0).argmax(axis=axis), axis)
    return np.take_along_axis(labels, where, axis).squeeze(axis)


def _panel(
    grey: NDArray[np.uint8], labels: NDArray[np.uint32], tall: int, wide: int
) -> NDArray[np.uint8]:
    """One panel: enlarged, outlines one pixel wide."""
    big = np.repeat(np.repeat(grey, tall, axis=0), wide, axis=1)
    names = np.repeat(np.repeat(labels, tall, axis=0), wide, axis=1)
    edge = np.zeros(names.shape, bool)
    edge[:-1] |= names[:-1] != names[1:]
    edge[:, :-1] |= names[:, :-1] != names[:, 1:]
    edge[1:] |= names[:-1] != names[1:]
    edge[:, 1:] |= names[:, :-1] != names[:, 1:]
    edge &= names > 0
    picture = np.repeat(big[..., None], 3, axis=-1)
    picture[edge] = colours(names[edge])
    return picture


def _stack(pictures: list[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    """Put pictures side by side (axis 1) or below each other (axis 0), with a gap."""
    other = 1 - axis
    length = max(p.shape[other] for p in pictures)
    padded = []
    for k, picture in enumerate(pictures):
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[other] = (0, length - picture.shape[other])
        pad[axis] = (0 if k == 0 else GAP, 0)
        padded.append(np.pad(picture, pad, constant_values=40))
    return np.concatenate(padded, axis=axis)


def _aspect(source: ImageSource, level: int) -> float:
    z, y, x = source.scale_um(level)
    return float(z / np.sqrt(y * x))
