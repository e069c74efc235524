"""Open labelled images: find the label, measure its objects, decide how the network sees them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from anystar_batch.archive.discovery import find_images
from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_list import existing_labels
from anystar_batch.archive.ngff import ImageSource, channel_index
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.network.model import Model
from anystar_batch.network.scale import working_scale
from anystar_batch.stages.sampling import intensity_limits, level_position
from trainer.finetune_config import FinetuneConfig, Labelled
from trainer.labelled import LabelledVolume, measure, split
from trainer.shapes import connected_pieces
from trainer.volumes import Truth

logger = logging.getLogger(__name__)

MOST_HELD_OUT = 160
"""Largest edge of the region of an image that thresholds are tuned on, working voxels."""


def open_volumes(one: Labelled, config: FinetuneConfig, model: Model) -> list[LabelledVolume]:
    """Open an image with its labels, once for every labelled time.

    Raises
    ------
    ImageError, ConfigError
        If they cannot be used together.
    """
    found = find_images(one.image)
    if len(found) > 1:
        message = (
            f"{one.image}: {len(found)} images; expected one; give them one by one: "
            f"{', '.join(found)}"
        )
        raise ImageError(message)
    image = read_image(found[0])
    labels = read_image(one.labels or f"{image.path}/labels/{_label_name(image, config.label)}")
    if labels.shape_zyx(0) != image.shape_zyx(0) or labels.num_times not in (1, image.num_times):
        message = (
            f"{labels.path}: the labels have {labels.num_times} times of {labels.shape_zyx(0)} "
            f"voxels (z, y, x), {image.path} has {image.num_times} of {image.shape_zyx(0)}; "
            "expected the same at level 0; export the labels at full resolution"
        )
        raise ImageError(message)
    return [_volume(image, labels, time, config, model) for time in config.times]


def held_out_truth(volume: LabelledVolume) -> Truth | None:
    """Return the held-out part, or its middle where it is large, in working voxels.

    None if no labelled object is in it.
    """
    _, part = volume.parts()
    inside = volume.inside(part)
    if not len(inside):
        return None
    middle = np.median(volume.centres()[inside], axis=0)
    start = [
        min(max(round(c - MOST_HELD_OUT / 2), a), max(b - MOST_HELD_OUT, a))
        for c, a, b in zip(middle, part.start, part.stop, strict=True)
    ]
    edge = as_zyx([MOST_HELD_OUT] * 3)
    box = Box(as_zyx(start), as_zyx(a + n for a, n in zip(start, edge, strict=True)))
    box = box.intersect(part)
    labels = volume.read_labels(box)
    if volume.ignore is not None:
        labels[labels == volume.ignore] = 0
    return Truth(volume.name, volume.read_image(box), connected_pieces(labels, 8.0, 8.0))


def _volume(
    image: ImageSource, labels: ImageSource, time: int, config: FinetuneConfig, model: Model
) -> LabelledVolume:
    """Measure one time, and decide how the network sees it, as the command would."""
    name = f"{Path(image.path).name} time {time}"
    if not 0 <= time < image.num_times:
        message = f"--time: got {time}; {image.path} has times 0 to {image.num_times - 1}"
        raise ConfigError(message)
    channel = channel_index(image, config.channel)
    objects = measure(labels, time if labels.num_times > 1 else 0, config.ignore)
    reader = ImageReader(image)
    limits = intensity_limits(reader, time, channel, (model.low_percentile, model.high_percentile))
    if limits is None:
        message = f"{name}: all voxels are equal; expected an image; check --channel and --time"
        raise ImageError(message)
    levels = range(len(image.levels))
    diameter = config.diameter or objects.diameter(image.scale_um(0))
    working = working_scale(
        None if model.diameter is None else diameter / model.diameter,
        [image.scale_um(k) for k in levels],
        [image.shape_zyx(k) for k in levels],
    )
    logger.info("%s: %d objects, diameter %.3g um", name, len(objects.voxels), diameter)
    return LabelledVolume(
        name=name,
        image=image,
        labels=labels,
        time=time,
        channel=channel,
        limits=limits,
        working=working,
        position=level_position(reader, working.level, time, channel),
        objects=objects,
        ignore=config.ignore,
        cut=split(objects, image, config.held_out),
    )


def _label_name(image: ImageSource, wanted: str | None) -> str:
    """The label to learn from: the one asked for, or the only one."""
    names = sorted(existing_labels(image.path))
    listed = ", ".join(names) or "none"
    if wanted is not None:
        if wanted not in names:
            message = f"--label: got {wanted!r}; {image.path} has the labels {listed}"
            raise ConfigError(message)
        return wanted
    if len(names) != 1:
        message = (
            f"{image.path}: {len(names)} labels ({listed}); expected one; name it with --label, "
            "or give labels that lie elsewhere with --pair IMAGE LABELS"
        )
        raise ConfigError(message)
    return names[0]
