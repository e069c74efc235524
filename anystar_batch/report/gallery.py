"""Single instances to look at: crops through their centres, along z and along y.

How many voxels are decoded for all of them together has a bound: whole chunks are, however small
the crop. What is beyond it is left out, and the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box, as_zyx, grid_range, grid_shape
from anystar_batch.report.digest import EXTREMES, Columns, Digest
from anystar_batch.report.pictures import (
    Layers,
    Marked,
    Window,
    contrast,
    fitted,
    layers,
    stretched,
)
from anystar_batch.report.views import Read, Volume

MOST_DECODED = 10**9
"""Voxels decoded for the whole gallery."""

MOST_EDGE = 96
"""Longest edge of a crop, voxels of the level it is read from."""

AROUND = 1.9
"""Edge of a crop over the longest extent of its instance."""

PIXELS = 168
"""Edge of a crop as shown."""


CLOSE_DIAMETERS = 14.0
"""Width of a close look, typical diameters."""

CLOSE_VOXELS = 12.0
"""Least voxels of the level across a typical instance, where the image has them."""

CLOSE_PIXELS = 640
"""Longest edge of a close look, as shown."""


CERTAINTY = {"prob": "probability", "quality": "expected overlap (IoU) with the true outline"}
"""What orders the least certain, in words, by column."""


@dataclass(frozen=True, slots=True)
class Crop:
    """One instance.

    Parameters
    ----------
    label : int
    prob, diameter_um : float
    quality : float or None
        After a second look.
    edge_um : float
        Extent of the crops, micrometres.
    xy, xz : Layers
        Planes through its centroid.
    """

    label: int
    prob: float
    diameter_um: float
    edge_um: float
    xy: Layers
    xz: Layers
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Instances of one kind.

    Parameters
    ----------
    name, text : str
        Heading, and how they were chosen.
    crops : tuple of Crop
    left_out : int
        Instances for which too much would have to be decoded.
    """

    name: str
    text: str
    crops: tuple[Crop, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class CloseUp:
    """A part of one plane, large enough to judge outlines.

    Parameters
    ----------
    label : int
        Instance in its middle.
    level : int
        Level that was read.
    edge_um : float
        Width, micrometres.
    picture : Layers
    """

    label: int
    level: int
    edge_um: float
    picture: Layers


def close_up(volume: Volume, digest: Digest, time: int) -> CloseUp | None:
    """Return a close look at the typical instance nearest to the middle; None if there is none.

    Parameters
    ----------
    volume : Volume
    digest : Digest
        Of its table.
    time : int
        Time point.

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded.
    """
    rows = digest.sample
    here = rows["t"] == time
    if not here.any():
        return None
    points = np.stack([rows[f"centroid_{a}"][here] for a in "zyx"], axis=1) * volume.scale_um
    middle = np.median(points, axis=0)
    k = int(np.flatnonzero(here)[((points - middle) ** 2).sum(axis=1).argmin()])
    diameter = float(np.median(rows["equivalent_diameter_um"]))
    edge = CLOSE_DIAMETERS * diameter
    level = next(
        (n for n in reversed(volume.source.readable)
         if diameter / max(volume.voxel_um(n)[1:]) >= CLOSE_VOXELS),
        0,
    )  # fmt: skip
    voxel, shape = volume.voxel_um(level), volume.source.shape_zyx(level)
    centre = [
        (float(rows[f"centroid_{a}"][k]) + 0.5) / step - 0.5
        for a, step in zip("zyx", volume.step(level), strict=True)
    ]
    half = [0, *(max(1, round(edge / 2 / v)) for v in voxel[1:])]
    at = [min(max(round(c), 0), n - 1) for c, n in zip(centre, shape, strict=True)]
    box = Box(
        as_zyx(a - h for a, h in zip(at, half, strict=True)),
        as_zyx(a + h + 1 for a, h in zip(at, half, strict=True)),
    ).intersect(Box.of_shape(shape))
    if _decoded(volume, level, box) > MOST_DECODED:
        return None
    image, labels = volume.reader()(level, time, box)
    wide, tall = box.shape[2] * voxel[2], box.shape[1] * voxel[1]
    size = fitted((tall, wide), CLOSE_PIXELS)
    grey = stretched(image[0], contrast(image[0]))
    picture = layers(grey, labels[0], size, diameter=diameter / wide * size[1])
    return CloseUp(int(rows["label"][k]), level, wide, picture)


def galleries(volume: Volume, digest: Digest) -> list[Gallery]:
    """Return instances to look at: typical, smallest, largest, least certain.

    Parameters
    ----------
    volume : Volume
    digest : Digest
        Of its table.

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded.
    """
    kinds = (
        ("Typical", "Nearest to the median volume, those cut by the border last", _typical(digest)),
        ("Least certain", f"Lowest {CERTAINTY[digest.certainty]}", digest.least_certain),
        ("Smallest", "Fewest voxels, none cut by the border", digest.smallest),
        ("Largest", "Most voxels", digest.largest),
    )
    budget, read = [MOST_DECODED], volume.reader()
    listed = []
    for name, text, rows in kinds:
        crops = [_crop(volume, row, read, budget) for row in _each(rows)]
        shown = tuple(crop for crop in crops if crop is not None)
        listed.append(Gallery(name, text, shown, len(crops) - len(shown)))
    return listed


def _typical(digest: Digest) -> Columns:
    rows = digest.sample
    logs = np.log(rows["num_voxels"])
    whole = rows["touches_border"] == 0
    away = np.abs(logs - np.median(logs)) if len(logs) else logs
    order = np.lexsort((rows["label"], away, ~whole))[:EXTREMES]
    return {name: values[order] for name, values in rows.items()}


def _each(rows: Columns) -> Iterator[dict[str, float]]:
    for k in range(len(rows["label"])):
        yield {name: float(values[k]) for name, values in rows.items()}


@dataclass(frozen=True, slots=True)
class CropPlace:
    """Where the crops of an instance lie, in voxels of the level they are read from.

    Parameters
    ----------
    level : int
    at : (z, y, x)
        Voxel of the centroid, inside the level.
    box : Box
        Whole voxels that the crops touch; may reach beyond the level.
    spans : (z, y, x) of (first, last)
        Edges of what is shown, from the start of `box`.
    edge_um : float
        The same in micrometres, alike on all axes: crops are square.
    """

    level: int
    at: ZYX
    box: Box
    spans: tuple[tuple[float, float], ...]
    edge_um: float


def crop_place(volume: Volume, row: dict[str, float], around: float = AROUND) -> CropPlace:
    """Return where the crops of an instance lie.

    Parameters
    ----------
    volume : Volume
    row : dict
        Columns of its row of the table.
    around : float
        Edge over the longest extent of the instance.
    """
    scale = volume.scale_um
    extents = [
        (row[f"bbox_{a}_max"] - row[f"bbox_{a}_min"]) * s for a, s in zip("zyx", scale, strict=True)
    ]
    edge = around * max(*extents, 6 * min(scale))
    level = _level(volume, edge)
    # The centroid in voxels of the level, and half a crop around it.
    centre = [
        (row[f"centroid_{a}"] + 0.5) / step - 0.5
        for a, step in zip("zyx", volume.step(level), strict=True)
    ]
    half = [edge / 2 / v for v in volume.voxel_um(level)]
    start = as_zyx(round(c) - math.ceil(h) for c, h in zip(centre, half, strict=True))
    stop = as_zyx(round(c) + math.ceil(h) + 1 for c, h in zip(centre, half, strict=True))
    # Whole voxels are read, and of them just what the crop spans is shown: crops are square.
    spans = tuple(
        (c + 0.5 - h - a, c + 0.5 + h - a) for c, h, a in zip(centre, half, start, strict=True)
    )
    shape = volume.source.shape_zyx(level)
    at = as_zyx(min(max(round(c), 0), n - 1) for c, n in zip(centre, shape, strict=True))
    return CropPlace(level, at, Box(start, stop), spans, edge)


def _crop(volume: Volume, row: dict[str, float], read: Read, budget: list[int]) -> Crop | None:
    """The two planes through an instance, None if the budget does not allow them."""
    place = crop_place(volume, row)
    level, whole = place.level, place.box
    label = int(row["label"])
    shown = []
    for axis in (0, 1):
        at = place.at[axis]
        box = Box(_with(whole.start, axis, at), _with(whole.stop, axis, at + 1))
        inside = box.intersect(Box.of_shape(volume.source.shape_zyx(level)))
        cost = _decoded(volume, level, inside)
        if cost > budget[0]:
            return None
        budget[0] -= cost
        window = (place.spans[1 - axis], place.spans[2])
        shown.append(_shown(read(level, int(row["t"]), inside), inside, box, window, label))
    diameter_um, quality = row["equivalent_diameter_um"], row.get("quality")
    return Crop(label, row["prob"], diameter_um, place.edge_um, shown[0], shown[1], quality)


def _shown(
    voxels: tuple[NDArray[Any], NDArray[np.uint32]],
    inside: Box,
    box: Box,
    window: Window,
    label: int,
) -> Layers:
    """A plane of image and labels; what lies beyond the volume is NaN."""
    pad = [
        (a - b, d - c)
        for a, b, c, d in zip(inside.start, box.start, inside.stop, box.stop, strict=True)
    ]
    axis = box.shape.index(1)
    image = np.pad(voxels[0], pad, constant_values=np.nan).squeeze(axis)
    labels = np.pad(voxels[1], pad).squeeze(axis)
    size = (PIXELS, PIXELS)
    grey = stretched(image, contrast(image))
    return layers(grey, labels, size, diameter=PIXELS / AROUND, only=Marked(label), window=window)


def _level(volume: Volume, edge: float) -> int:
    """The finest level at which a crop is small enough."""
    for level in volume.source.readable:
        if edge / min(volume.voxel_um(level)) <= MOST_EDGE:
            return level
    return volume.source.readable[-1]


def _decoded(volume: Volume, level: int, box: Box) -> int:
    """Voxels of all chunks that share a voxel with a box."""
    chunk, shape = volume.source.chunks_zyx(level), volume.source.shape_zyx(level)
    count = sum(1 for _ in grid_range(box, chunk, grid_shape(shape, chunk)))
    return count * chunk[0] * chunk[1] * chunk[2]


def _with(values: tuple[int, int, int], axis: int, value: int) -> tuple[int, int, int]:
    return as_zyx(value if a == axis else v for a, v in enumerate(values))
