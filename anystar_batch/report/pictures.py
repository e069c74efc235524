"""Flat pictures: grey values below, coloured outlines above; as data URIs for the page, as PNG.

The page gets two layers, so that it can take the outlines away. The grey one has the voxels that
were read, or fewer; the browser stretches it. The outlines are drawn at the size shown.

The PNG is bounded: a coarse level is read where level 0 is larger than a screen. Four panels::

    middle slice xy, outlined       maximum projection xy, outlined
    middle slice xz, outlined       maximum projection xz, outlined
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_image import LabelWriter, label_spec
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.storage.atomic_write import write_bytes_atomic
from anystar_batch.geometry import Box

HUES = 24
"""Colours of outlines; 0 is none."""

MOST_EDGE = 820
"""Longest edge of a picture, pixels."""

LEAST_OUTLINED = 7.0
"""Objects of fewer pixels are tinted: an outline would hide them."""

TINT = 110
"""Opacity of a tint, of 255."""

QUALITY = 82
"""Of the grey layer."""

Window = tuple[tuple[float, float], tuple[float, float]]
"""Part of a picture: first and last edge of its rows and of its columns, voxels."""

MAX_VOXELS = 64 * 10**6
"""Largest level that is drawn; of a larger one the next coarser is taken."""

MAX_EDGE = 512
"""Width that panels are enlarged to, pixels."""

GAP = 6
"""Pixels between panels."""

GOLDEN = 0.618033988749895
"""Step of the hue from one label to the next: neighbours in number differ in colour."""


@dataclass(frozen=True, slots=True)
class Marked:
    """A label that is told apart from all others.

    Parameters
    ----------
    label : int
    own, others : (red, green, blue)
        Colours of its outline and of theirs, 0 to 255.
    """

    label: int
    own: tuple[int, int, int] = (255, 255, 255)
    others: tuple[int, int, int] = (150, 150, 150)


@dataclass(frozen=True, slots=True)
class Layers:
    """A picture in two layers of the same extent.

    Parameters
    ----------
    grey, outlines : str
        Data URIs.
    width, height : int
        Pixels of the outlines.
    """

    grey: str
    outlines: str
    width: int
    height: int


def layers(
    grey: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    size: tuple[int, int],
    *,
    diameter: float,
    only: Marked | None = None,
    window: Window | None = None,
) -> Layers:
    """Return a picture and its outlines.

    Parameters
    ----------
    grey : uint8 (rows, columns)
        What `stretched` gives.
    labels : uint32 (rows, columns)
        0 is background.
    size : (height, width)
        Pixels of the outlines.
    diameter : float
        Of a typical object, pixels of the outlines.
    only : Marked, optional
        Label that is outlined thick, the others thin; None outlines all alike.
    window : (rows, columns), optional
        What of it to show, from edge to edge, voxels and parts of them; None shows all.
    """
    height, width = size
    rows, columns = window or ((0.0, labels.shape[0]), (0.0, labels.shape[1]))
    names = labels[_nearest(rows, height)][:, _nearest(columns, width)]
    if diameter < LEAST_OUTLINED and only is None:
        index = _hue(names)
        outlines = _palette_png(index, TINT)
    else:
        edge = _edges(names)
        if only is None:
            if diameter > 4 * LEAST_OUTLINED:
                edge |= _edges(np.where(edge, 0, names))
            index = np.where(edge, _hue(names), 0).astype(np.uint8)
        else:
            thick = names == only.label
            thick &= ~_shrunk(_shrunk(thick))
            index = np.where(thick, HUES + 1, np.where(edge & (names != only.label), HUES + 2, 0))
        outlines = _palette_png(index.astype(np.uint8), 255, only)
    return Layers(_grey_uri(grey, size, (rows, columns)), outlines, width, height)


def fitted(shape_um: tuple[float, float], most: int = MOST_EDGE) -> tuple[int, int]:
    """Return (height, width) in pixels of something of this extent, its longest edge `most`."""
    unit = max(shape_um) / most
    return max(1, round(shape_um[0] / unit)), max(1, round(shape_um[1] / unit))


def contrast(*images: NDArray[Any]) -> tuple[float, float]:
    """Return the intensities that become black and white in all of some pictures; not NaN."""
    values = np.concatenate([image.ravel() for image in images])
    low, high = np.percentile(values[~np.isnan(values)], [1.0, 99.8])
    return float(low), float(high)


def stretched(image: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Return intensities as grey, dark values raised; NaN, beyond the volume, is hatched.

    Parameters
    ----------
    image : (rows, columns)
    limits : (low, high)
        What becomes black and white.
    """
    values, (low, high) = image.astype(np.float32), limits
    beyond = np.isnan(values)
    scaled = np.clip((np.where(beyond, low, values) - low) / max(high - low, 1e-12), 0.0, 1.0)
    grey: NDArray[np.uint8] = (scaled**0.7 * 255).astype(np.uint8)
    diagonal = np.add.outer(np.arange(grey.shape[0]), np.arange(grey.shape[1])) % 4 == 0
    return np.where(beyond, np.where(diagonal, 105, 60), grey).astype(np.uint8)


def _grey_uri(grey: NDArray[np.uint8], size: tuple[int, int], window: Window) -> str:
    picture = Image.fromarray(grey)
    (top, bottom), (left, right) = window
    rows, columns = (min(max(1, round(b - a)), s) for (a, b), s in zip(window, size, strict=True))
    if (rows, columns) != grey.shape or window != ((0, rows), (0, columns)):
        box = (left, top, right, bottom)
        picture = picture.resize((columns, rows), Image.Resampling.BOX, box)
    return _lossy_uri(picture)


def _lossy_uri(picture: Image.Image) -> str:
    stream = BytesIO()
    if features.check("webp"):
        picture.convert("RGB").save(stream, format="WEBP", quality=QUALITY, method=2)
        return _uri("image/webp", stream.getvalue())
    picture.save(stream, format="JPEG", quality=QUALITY)
    return _uri("image/jpeg", stream.getvalue())


def _palette_png(index: NDArray[np.uint8], opacity: int, marked: Marked | None = None) -> str:
    """Colour numbers as a PNG; 0 is clear, after the hues come the colours of a marked label."""
    hues = colours(_HUE_LABELS)
    pens = marked or Marked(0)
    table = np.concatenate([[[0, 0, 0]], hues, [pens.own, pens.others]])
    picture = Image.frombytes("P", (index.shape[1], index.shape[0]), index.tobytes())
    picture.putpalette(table.astype(np.uint8).tobytes())
    stream = BytesIO()
    alpha = bytes([0, *[opacity] * (HUES + 2)])
    picture.save(stream, format="PNG", compress_level=6, transparency=alpha, bits=8)
    return _uri("image/png", stream.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _hue(names: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Colour number of every label, 0 for the background; the same label has always the same."""
    most = int(names.max(initial=0))
    if most < names.size:  # each label once, not each pixel
        return _hue_of(np.arange(most + 1))[names]
    return _hue_of(names)


def _hue_of(names: NDArray[np.integer]) -> NDArray[np.uint8]:
    turn = np.mod(names.astype(np.float64) * GOLDEN, 1.0)
    return np.where(names > 0, 1 + (turn * HUES).astype(np.uint8), 0).astype(np.uint8)


def _edges(names: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Pixels of a label beside another one or the background."""
    edge = np.zeros(names.shape, bool)
    down, right = names[:-1] != names[1:], names[:, :-1] != names[:, 1:]
    edge[:-1] |= down
    edge[1:] |= down
    edge[:, :-1] |= right
    edge[:, 1:] |= right
    return edge & (names > 0)


def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without its outermost pixels; beyond the picture it goes on."""
    inner = mask.copy()
    inner[:-1] &= mask[1:]
    inner[1:] &= mask[:-1]
    inner[:, :-1] &= mask[:, 1:]
    inner[:, 1:] &= mask[:, :-1]
    return inner


def _nearest(span: tuple[float, float], pixels: int) -> NDArray[np.intp]:
    """Index of the voxel that each pixel shows, of those between two edges."""
    low, high = span
    at = (low + (np.arange(pixels) + 0.5) * (high - low) / pixels).astype(np.intp)
    return np.minimum(at, math.ceil(high) - 1)


def _representatives() -> NDArray[np.uint32]:
    """One label of each hue, in the middle of its range as far as small numbers go."""
    labels = np.arange(1, 2000, dtype=np.uint32)
    turn = np.mod(labels.astype(np.float64) * GOLDEN, 1.0)
    middles = (np.arange(HUES) + 0.5) / HUES
    return np.asarray(labels[np.abs(turn[None] - middles[:, None]).argmin(axis=1)])


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
    sizes = {k: float(np.prod(source.shape_zyx(k), dtype=np.float64)) for k in source.readable}
    chosen = level
    if chosen is None:
        chosen = next((k for k, size in sizes.items() if size <= MAX_VOXELS), max(sizes))
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


_HUE_LABELS = _representatives()
