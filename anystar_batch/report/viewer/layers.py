"""What a viewer is given of an image: channels and labels in micrometres, nothing read yet.

Nothing here knows a viewer; `window` hands the layers to napari.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anystar_batch.address import image_stem
from anystar_batch.archive import metadata
from anystar_batch.archive.discovery import find_images, plate_fields
from anystar_batch.archive.images import read_image
from anystar_batch.archive.label_lookup import chosen_labels, label_name, labels_of
from anystar_batch.archive.label_source import read_label_source
from anystar_batch.archive.labels import image_of, multiscale_of
from anystar_batch.archive.ngff import JSON, ImageSource
from anystar_batch.archive.nodes import read_node
from anystar_batch.errors import ImageError
from anystar_batch.network import intensity
from anystar_batch.report.viewer.levels import LazyLevel, lazy_levels

COLOURS = ("#00ff00", "#ff00ff", "#00ffff", "#ffff00", "#ff0000", "#0000ff")
"""Of channels whose metadata name none, where there are several."""

GREY = "#ffffff"
"""Of an only channel: from black to white."""

SHOWN_CHANNELS = 4
"""Channels that are visible at first, where the metadata do not say which."""

SAMPLE_EDGE = 128
"""Longest edge of the box that contrast is taken from, voxels of the coarsest stored level."""

SLOW_BYTES, MOST_BYTES = 2**32, 2**36
"""What reading one plane of the coarsest stored level may take before it is said, or refused."""

TIME_UNITS = ("second", "millisecond", "microsecond", "nanosecond", "minute", "hour", "day")
"""Units of time that a viewer knows; others are left out."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewLayer:
    """One layer of a viewer: a channel or a label.

    Parameters
    ----------
    kind : {"image", "labels"}
    name : str
    levels : tuple of LazyLevel
        Finest first.
    axes : tuple of str
        Names of their axes: t, if the image has one, z, y, x.
    scale, translate : tuple of float
        Units in a voxel, and where the centre of voxel 0 lies, per axis.
    units : tuple of str
        Per axis; `pixel` is none.
    is_visible : bool
        At first.
    contrast : (low, high) or None
        Intensities shown as black and as the colour; None for labels.
    colour : str or None
        `#rrggbb`; None for labels.
    """

    kind: Literal["image", "labels"]
    name: str
    levels: tuple[LazyLevel, ...]
    axes: tuple[str, ...]
    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]
    is_visible: bool
    contrast: tuple[float, float] | None = None
    colour: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a viewer shows at once.

    Parameters
    ----------
    name : str
        Of the image.
    layers : tuple of ViewLayer
        From the lowest to the topmost.
    notes : tuple of str
        What the user should know, a sentence each.
    """

    name: str
    layers: tuple[ViewLayer, ...]
    notes: tuple[str, ...]


def scene(path: str, labels: Sequence[str] = (), output: str | None = None) -> Scene:
    """Return the layers of an image and of its labels; metadata are read, and a box for contrast.

    Parameters
    ----------
    path : str
        Path or address of an image, or of a label, which is shown with its image.
    labels : sequence of str
        Names of the labels to show; none is all.
    output : str, optional
        Directory or address to which `segment --output` wrote labels.

    Raises
    ------
    ImageError
        If it is not one image, or a label cannot be shown.
    ConfigError
        If there is no label of a name.
    """
    image, own, index, notes = _one_image(path)
    chosen = chosen_labels(own or labels_of(image, output), labels, image, output)
    volumes = []
    for name, label_path in chosen.items():
        try:
            volumes.append((name, read_label_source(label_path).source))
        except ImageError as error:
            if labels or own:
                raise
            notes.append(f"label {name} is left out: {error}")
    if not chosen:
        notes.append("the image has no labels; give --output DIR if segment was given one")
    source = None if image in own.values() else read_image(image, index)
    if source is not None and source.others:
        notes.append(f"further multiscales of the image are not shown: {', '.join(source.others)}")
    for one in (*(() if source is None else (source,)), *(volume for _, volume in volumes)):
        notes += _slowness(one)
    if source is not None and source.unit_assumed:
        notes.append("the image states no unit of length; micrometres are assumed")
    channels = () if source is None else _channels(source)
    return Scene(
        name=image_stem(image.rpartition("/")[2]),
        layers=(*channels, *(_label(name, one, n) for n, (name, one) in enumerate(volumes))),
        notes=tuple(notes),
    )


def _one_image(path: str) -> tuple[str, dict[str, str], int, list[str]]:
    """The image to show; of a label's path, this label by its name; which multiscale; notes.

    Of a label whose image is not known, or is no longer there, image and label are the same.
    """
    fields = plate_fields(path)
    if fields is not None:
        example = f", e.g. {fields[0].path}" if fields else ""
        message = f"{path}: a plate or a well of {len(fields)} images (HCS); give one{example}"
        raise ImageError(message)
    images = find_images(path)
    if len(images) > 1:
        message = f"{path}: a container of {len(images)} images; give one, e.g. {images[0]}"
        raise ImageError(message)
    image = images[0]
    node = read_node(image)
    attributes = {} if node is None else node.attributes
    if node is None or not metadata.is_label(attributes, node.zarr_format):
        return image, {}, 0, []
    own = {label_name(image, attributes, node.zarr_format): image}
    source = image_of(image, attributes)
    if source is None:
        return image, own, 0, ["the label does not say which image it is of; it is shown alone"]
    if read_node(source) is None:
        return image, own, 0, [f"the label's image {source} is not there; it is shown alone"]
    return source, own, multiscale_of(attributes), []


def _channels(source: ImageSource) -> list[ViewLayer]:
    """One layer a channel."""
    node = read_node(source.path)
    ome = {} if node is None else metadata.all_attributes(node.attributes, node.zarr_format)
    omero = ome.get("omero")
    listed = omero.get("channels") if isinstance(omero, dict) else None
    said = [one if isinstance(one, dict) else {} for one in listed or []] or [{}]
    if len(said) != source.num_channels:
        said = [{}] * source.num_channels
    layers = []
    for channel, words in enumerate(said):
        levels = lazy_levels(source, channel)
        stored = levels[len(source.levels) - 1]
        name = source.channels[channel]
        colour = str(words.get("color", "")).lstrip("#")
        is_named = source.num_channels > 1
        default = COLOURS[channel % len(COLOURS)] if is_named else GREY
        layers.append(
            ViewLayer(
                kind="image",
                name=(f"channel {name}" if name.isdigit() else name)
                if is_named
                else image_stem(source.path.rpartition("/")[2]),
                levels=levels,
                **_geometry(source),
                is_visible=words.get("active", channel < SHOWN_CHANNELS) is not False,
                contrast=_stated_contrast(words, source.dtype) or _contrast(stored),
                colour=f"#{colour[:6].lower()}"
                if is_named and re.fullmatch(r"[0-9A-Fa-f]{6,8}", colour)
                else default,
            )
        )
    return layers


def _label(name: str, source: ImageSource, number: int) -> ViewLayer:
    """The layer of a label; only the first is visible."""
    return ViewLayer(
        kind="labels",
        name=name,
        levels=lazy_levels(source, 0),
        **_geometry(source),
        is_visible=number == 0,
    )


def _geometry(source: ImageSource) -> dict[str, Any]:
    """Axes, scale, translation and units of a layer."""
    axes, scale, translate = tuple("zyx"), source.scale_um(), source.translation_um()
    units: tuple[str, ...] = ("micrometer",) * 3
    if source.t_axis is None:
        return {"axes": axes, "scale": scale, "translate": translate, "units": units}
    level, unit = source.levels[0], source.axes[source.t_axis].unit
    step = level.scale[source.t_axis]
    return {
        "axes": ("t", *axes),
        "scale": (step if step > 0 else 1.0, *scale),
        "translate": (level.translation[source.t_axis], *translate),
        "units": (unit if unit in TIME_UNITS else "pixel", *units),
    }


def _slowness(source: ImageSource) -> list[str]:
    """What to say of an image without coarse levels, all of whose chunks a plane has to read.

    Raises
    ------
    ImageError
        If nobody would wait for it.
    """
    level = len(source.levels) - 1
    chunks, shape = source.chunks_zyx(level), source.shape_zyx(level)
    plane = [-(-n // c) * c for n, c in zip(shape[1:], chunks[1:], strict=True)]
    read = math.prod(plane) * min(chunks[0], shape[0]) * source.dtype.itemsize
    if read <= SLOW_BYTES:
        return []
    text = (
        f"{source.path}: its coarsest level is {shape} voxels: {read / 1e9:.0f} GB are read to "
        "show a plane"
    )
    if read > MOST_BYTES:
        message = f"{text}; expected coarse levels; make them, e.g. with ome-zarr or bioformats2raw"
        raise ImageError(message)
    return [f"{text}, for want of coarse levels"]


def _stated_contrast(words: JSON, dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """The window that the metadata state; None if there is none, or it is all that the type holds.

    The latter is what writers state who have not looked.
    """
    window = words.get("window")
    ends = [window.get("start"), window.get("end")] if isinstance(window, dict) else []
    pair = [float(v) for v in ends if isinstance(v, int | float) and math.isfinite(v)]
    if len(pair) != 2 or pair[0] >= pair[1]:
        return None
    if dtype.kind in "iu" and pair[0] <= np.iinfo(dtype).min and pair[1] >= np.iinfo(dtype).max:
        return None
    return pair[0], pair[1]


def _contrast(level: LazyLevel) -> tuple[float, float]:
    """Contrast limits from the middle of a level, at the middle of time."""
    box: list[Any] = [n // 2 for n in level.shape[:-3]]
    for length in level.shape[-3:]:
        start = max(0, (length - SAMPLE_EDGE) // 2)
        box.append(slice(start, min(length, start + SAMPLE_EDGE)))
    try:
        return intensity.limits(np.asarray(level[tuple(box)]))
    except ImageError:  # no contrast there, or not to be read: the viewer will say so
        return 0.0, 1.0
