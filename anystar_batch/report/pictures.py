"""Flat pictures as data URIs: grey values below, coloured outlines above, each a file of its own.

Two layers, so that the page can take the outlines away. The grey layer has the voxels that were
read, or fewer; the browser stretches it. The outlines are drawn at the size shown.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from anystar_batch.report.overlay import GOLDEN, colours

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
    only: int | None = None,
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
    only : int, optional
        Label that is outlined in white, the others thin; None outlines all alike.
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
            thick = names == only
            thick &= ~_shrunk(_shrunk(thick))
            index = np.where(thick, HUES + 1, np.where(edge & (names != only), HUES + 2, 0))
        outlines = _palette_png(index.astype(np.uint8), 255)
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
        picture.convert("RGB").save(stream, format="WEBP", quality=QUALITY, method=4)
        return _uri("image/webp", stream.getvalue())
    picture.save(stream, format="JPEG", quality=QUALITY)
    return _uri("image/jpeg", stream.getvalue())


def _palette_png(index: NDArray[np.uint8], opacity: int) -> str:
    """Colour numbers as a PNG; 0 is clear, after the hues come white and grey."""
    hues = colours(_HUE_LABELS)
    table = np.concatenate([[[0, 0, 0]], hues, [[255, 255, 255]], [[150, 150, 150]]])
    picture = Image.frombytes("P", (index.shape[1], index.shape[0]), index.tobytes())
    picture.putpalette(table.astype(np.uint8).tobytes())
    stream = BytesIO()
    alpha = bytes([0, *[opacity] * (HUES + 2)])
    picture.save(stream, format="PNG", optimize=True, transparency=alpha, bits=8)
    return _uri("image/png", stream.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _hue(names: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Colour number of every label, 0 for the background; the same label has always the same."""
    turn = np.mod(names.astype(np.float64) * GOLDEN, 1.0)
    return np.where(names > 0, 1 + (turn * HUES).astype(np.uint8), 0).astype(np.uint8)


def _edges(names: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Pixels of a label beside another one or the background."""
    edge = np.zeros(names.shape, bool)
    edge[:-1] |= names[:-1] != names[1:]
    edge[1:] |= names[:-1] != names[1:]
    edge[:, :-1] |= names[:, :-1] != names[:, 1:]
    edge[:, 1:] |= names[:, :-1] != names[:, 1:]
    return edge & (names > 0)


def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without its outermost pixels; beyond the picture it goes on."""
    padded = np.pad(mask, 1, mode="edge")
    inner: NDArray[np.bool_] = (
        mask & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    )
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
    wanted = (np.arange(HUES) + 0.5) / HUES
    return np.asarray(labels[np.abs(turn[None] - wanted[:, None]).argmin(axis=1)])


_HUE_LABELS = _representatives()
