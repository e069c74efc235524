"""Labelled OME-Zarr images, as the command sees them: windows of image and labels.

An image is seen as the command sees it: the same level, working voxels, intensity limits and
resampling. Its labels are looked up at level 0, nearest voxel (a pyramid may be older than a
correction). The volume is split along the axis on which the objects spread furthest, where the last
share of the objects begins; what lies beyond the cut is never learnt::

    |<-------- learnt from --------->|<- held out ->|        working voxels

Nothing is read as a whole: objects are counted chunk by chunk, patches read box by box.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.discovery import find_images
from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_list import existing_labels
from anystar_batch.archive.label_place import KEY
from anystar_batch.archive.ngff import ImageSource, channel_index
from anystar_batch.archive.nodes import read_node
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.geometry import Box, ZYXFloat, as_triple, as_zyx
from anystar_batch.network.model import Model
from anystar_batch.network.resample import tile_taps, working_shape
from anystar_batch.network.scale import LevelMap, WorkingScale, elongations, squeeze, working_scale
from anystar_batch.network.window import window_image
from anystar_batch.stages.sampling import intensity_limits, level_position
from trainer.finetune.config import FinetuneConfig, Labelled
from trainer.synthesis.shapes import connected_pieces
from trainer.volumes import Truth

MOST_READ = 2**25
"""Voxels of labels read at once."""

logger = logging.getLogger(__name__)

MOST_HELD_OUT = 160
"""Largest edge of the region of an image that thresholds are tuned on, working voxels."""

HELD_OUT, MOST_BOXES = 64, 32
"""Edge and most of the regions where labels are known in part, working voxels."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """What is labelled.

    Parameters
    ----------
    voxels : int64 [n]
        Voxels of level 0 of every object.
    centroid : float64 [n, 3]
        Level-0 voxels, (z, y, x).
    spread : float64 [n, 3]
        Standard deviation of the volume along each axis, level-0 voxels.
    """

    voxels: NDArray[np.int64]
    centroid: NDArray[np.float64]
    spread: NDArray[np.float64]

    def diameter(self, voxel: ZYXFloat) -> float:
        """Return the diameter of the sphere with the median object's volume, unit of `voxel`."""
        median = float(np.median(self.voxels)) * float(np.prod(voxel))
        return float(np.cbrt(6.0 * median / np.pi))

    def elongation(self, voxel: ZYXFloat) -> float:
        """Return by how much the network sees them squeezed: as the probe would have it."""
        longer = elongations(self.spread * voxel)
        return squeeze(float(np.median(longer)), len(longer))


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVolume:
    """One time and channel of an image, its labels, and how the network sees it.

    Parameters
    ----------
    name : str
        For messages and the provenance.
    image, labels : ImageSource
        Level 0 of both has the same shape.
    time, channel : int
    limits : (low, high)
        Intensities that become 0 and 1.
    working : WorkingScale
    position : LevelMap
        Of the level that is read.
    objects : Objects
        Without what is ignored.
    ignore : int or None
        Label of voxels of which nothing is known.
    background : int or None
        Label of what is known to be background; then nothing is known of voxels with label 0.
    cut : (axis, position)
        Level-0 coordinate from which on nothing is learnt; see `split`.
    """

    name: str
    image: ImageSource
    labels: ImageSource
    time: int
    channel: int
    limits: tuple[float, float]
    working: WorkingScale
    position: LevelMap
    objects: Objects
    ignore: int | None
    cut: tuple[int, float]
    background: int | None = None

    def parts(self) -> tuple[Box, Box]:
        """Return the part to learn from and the part held out, working voxels."""
        shape, (axis, position) = self.working.shape, self.cut
        scale, offset = self.working.to_level0(self.position)
        cut = min(max(round((position - offset[axis]) / scale[axis]), 0), shape[axis])
        stop, start = list(shape), [0, 0, 0]
        stop[axis] = start[axis] = cut
        return Box((0, 0, 0), as_zyx(stop)), Box(as_zyx(start), shape)

    def centres(self) -> NDArray[np.float64]:
        """Return the objects' centroids in working voxels [n, 3]."""
        scale, offset = self.working.to_level0(self.position)
        centres: NDArray[np.float64] = (self.objects.centroid - offset) / scale
        return centres

    def inside(self, box: Box) -> NDArray[np.intp]:
        """Return the indices of the objects whose centroid lies in a box of working voxels."""
        centres = self.centres()
        return np.flatnonzero(((centres >= box.start) & (centres < box.stop)).all(axis=1))

    def zoomed(self, factor: float) -> LabelledVolume:
        """Return the same with working voxels `factor` times as long."""
        w = self.working
        zoom, voxel = (as_triple(v * factor for v in each) for each in (w.zoom, w.voxel_um))
        shape = working_shape(self.image.shape_zyx(w.level), zoom)
        return replace(self, working=WorkingScale(w.level, zoom, voxel, shape))

    def read_image(self, window: Box) -> NDArray[np.float32]:
        """Return a window of working voxels as the network sees it; mirrored beyond the volume."""
        level = self.working.level
        image, _ = window_image(
            lambda box: _reader(self.image).read_box(level, self.time, self.channel, box),
            tile_taps(window, self.working.shape, self.image.shape_zyx(level), self.working.zoom),
            self.limits,
            self.image.chunks_zyx(level)[0],
        )
        return image

    def read_labels(self, window: Box) -> NDArray[np.int64]:
        """Return the labels at the working voxels of a window; beyond the volume the nearest.

        Background is 0, and -1 is not known, whatever numbers the file has for them.
        """
        scale, offset = self.working.to_level0(self.position)
        index = [
            np.clip(np.rint(np.arange(a, b) * s + o).astype(np.int64), 0, n - 1)
            for a, b, s, o, n in zip(
                window.start, window.stop, scale, offset, self.labels.shape_zyx(0), strict=True
            )
        ]
        z, y, x = index
        plane = int(y[-1] - y[0] + 1) * int(x[-1] - x[0] + 1)
        labels = np.zeros(window.shape, np.int64)
        first = 0
        while first < len(z):
            # As many planes as may be read together, one at least.
            last = int(np.searchsorted(z, z[first] + max(1, MOST_READ // plane), "left"))
            start = as_zyx((z[first], y[0], x[0]))
            box = Box(start, as_zyx((z[last - 1] + 1, y[-1] + 1, x[-1] + 1)))
            time = self.time if self.labels.num_times > 1 else 0
            values = _reader(self.labels).read_box(0, time, 0, box)
            labels[first:last] = values[np.ix_(z[first:last] - z[first], y - y[0], x - x[0])]
            first = last
        unknown = labels == 0 if self.background is not None else np.zeros(labels.shape, np.bool_)
        if self.ignore is not None:
            unknown |= labels == self.ignore
        if self.background is not None:
            labels[labels == self.background] = 0
        labels[unknown] = -1
        return labels


def measure(labels: ImageSource, time: int, *others: int | None) -> Objects:
    """Count voxels and find centroids, stored chunk by stored chunk.

    Parameters
    ----------
    labels : ImageSource
    time : int
    *others : int or None
        Labels that are no objects, beside 0.

    Raises
    ------
    ImageError
        If the labels are no whole numbers, or fewer than two are there.
    """
    if labels.dtype.kind not in "iu":
        message = (
            f"{labels.path}: the labels are {labels.dtype}; expected whole numbers, one per object"
        )
        raise ImageError(message)
    parts: list[NDArray[np.float64]] = []
    reader = _reader(labels)
    for _, box in reader.existing_chunks(0, time, 0):
        values = reader.read_box(0, time, 0, box)
        if not values.any():
            continue
        names, inverse = np.unique(values, return_inverse=True)
        inverse = inverse.ravel()
        rows = np.empty((len(names), 8))
        rows[:, 0] = names
        rows[:, 1] = np.bincount(inverse)
        for axis in range(3):
            line = np.arange(box.start[axis], box.stop[axis], dtype=np.float64)
            line = line.reshape([-1 if k == axis else 1 for k in range(3)])
            for column, values in ((2 + axis, line), (5 + axis, line**2)):
                rows[:, column] = np.bincount(inverse, np.broadcast_to(values, box.shape).ravel())
        parts.append(rows)
    table = np.concatenate(parts) if parts else np.empty((0, 8))
    names, inverse = np.unique(table[:, 0], return_inverse=True)
    sums = np.stack([np.bincount(inverse.ravel(), table[:, k]) for k in range(1, 8)], axis=1)
    sums = sums[~np.isin(names, [0, *(name for name in others if name is not None)])]
    if len(sums) < 2:
        message = (
            f"{labels.path}: {len(sums)} labelled objects at time {time}; expected two or more, "
            "each with a number of its own (a mask has one number for all)"
        )
        raise ImageError(message)
    centroid, squares = sums[:, 1:4] / sums[:, :1], sums[:, 4:] / sums[:, :1]
    # A voxel is no point: its own volume spreads by a twelfth.
    spread = np.sqrt(np.maximum(squares - centroid**2, 0.0) + 1.0 / 12.0)
    return Objects(sums[:, 0].astype(np.int64), centroid, spread)


def split(objects: Objects, source: ImageSource, share: float) -> tuple[int, float]:
    """Return where the last objects begin, on the axis (in micrometres) on which they spread most.

    Parameters
    ----------
    objects : Objects
    source : ImageSource
    share : float
        Of the objects, to hold out; 0 holds nothing out.

    Returns
    -------
    axis : int
    position : float
        Level-0 coordinate.
    """
    axis = int(np.argmax(np.ptp(objects.centroid, axis=0) * source.scale_um(0)))
    if share == 0.0:
        return axis, float(source.shape_zyx(0)[axis])
    return axis, float(np.quantile(objects.centroid[:, axis], 1.0 - share))


@lru_cache(maxsize=64)
def _reader(source: ImageSource) -> ImageReader:
    """One reader of an image per process: its arrays stay open."""
    return ImageReader(source)


def open_volumes(one: Labelled, config: FinetuneConfig, model: Model) -> list[LabelledVolume]:
    """Open an image with its labels, once for every labelled time.

    Raises
    ------
    ImageError, ConfigError
        If they cannot be used together.
    """
    paths = find_images(one.image)
    if len(paths) > 1:
        message = (
            f"{one.image}: {len(paths)} images; expected one; give them one by one: "
            f"{', '.join(paths)}"
        )
        raise ImageError(message)
    image = read_image(paths[0])
    labels = read_image(one.labels or f"{image.path}/labels/{_label_name(image, config.label)}")
    if labels.shape_zyx(0) != image.shape_zyx(0) or labels.num_times not in (1, image.num_times):
        message = (
            f"{labels.path}: the labels have {labels.num_times} times of {labels.shape_zyx(0)} "
            f"voxels (z, y, x), {image.path} has {image.num_times} of {image.shape_zyx(0)}; "
            "expected the same at level 0; export the labels at full resolution"
        )
        raise ImageError(message)
    return [_volume(image, labels, time, config, model) for time in config.times]


def held_out_truths(volume: LabelledVolume) -> list[Truth]:
    """Return the held-out part, or its middle where it is large, in working voxels.

    Where labels are known in part only: surroundings of held-out objects, spread over all of them.
    Nothing if no labelled object is in it.
    """
    _, part = volume.parts()
    centres = volume.centres()[volume.inside(part)]
    if not len(centres):
        return []
    if volume.background is None:
        return [_truth(volume, part, np.median(centres, axis=0), MOST_HELD_OUT)]
    shown = np.linspace(0, len(centres) - 1, min(len(centres), MOST_BOXES)).round().astype(int)
    return [_truth(volume, part, centre, HELD_OUT) for centre in centres[shown]]


def _truth(volume: LabelledVolume, part: Box, middle: NDArray[np.float64], edge: int) -> Truth:
    """What is known of a box of the part, as near to a middle as it goes."""
    start = [
        min(max(round(c - edge / 2), a), max(b - edge, a))
        for c, a, b in zip(middle, part.start, part.stop, strict=True)
    ]
    box = Box(as_zyx(start), as_zyx(a + edge for a in start)).intersect(part)
    labels = volume.read_labels(box)
    unknown = labels == -1
    pieces = connected_pieces(np.maximum(labels, 0), 8.0, 8.0)
    return Truth(
        volume.name, volume.read_image(box), pieces, unknown=unknown if unknown.any() else None
    )


def _volume(
    image: ImageSource, labels: ImageSource, time: int, config: FinetuneConfig, model: Model
) -> LabelledVolume:
    """Measure one time, and decide how the network sees it, as the command would."""
    name = f"{Path(image.path).name} time {time}"
    if not 0 <= time < image.num_times:
        message = f"--time: got {time}; {image.path} has times 0 to {image.num_times - 1}"
        raise ConfigError(message)
    channel = channel_index(image, config.channel)
    background = config.background
    if background is None:
        background = known_background(labels)
    at = time if labels.num_times > 1 else 0
    objects = measure(labels, at, config.ignore, background)
    reader = ImageReader(image)
    limits = intensity_limits(reader, time, channel, (model.low_percentile, model.high_percentile))
    if limits is None:
        message = f"{name}: all voxels are equal; expected an image; check --channel and --time"
        raise ImageError(message)
    diameter = config.diameter or objects.diameter(image.scale_um(0))
    elongation = objects.elongation(image.scale_um(0))
    working = working_scale(
        None if model.diameter is None else diameter / model.diameter,
        [image.scale_um(k) for k in range(len(image.levels))],
        [image.shape_zyx(k) for k in range(len(image.levels))],
        elongation=1.0 if model.diameter is None else elongation,
    )
    text = "%s: %d objects, diameter %.3g um, elongation %.3g"
    logger.info(text, name, len(objects.voxels), diameter, elongation)
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
        background=background,
    )


def known_background(labels: ImageSource) -> int | None:
    """Return the label of background where the file says so, as those of a review do; else None."""
    node = read_node(labels.path)
    ours = {} if node is None else node.attributes.get(KEY)
    background = ours.get("background") if isinstance(ours, dict) else None
    return background if isinstance(background, int) else None


def _label_name(image: ImageSource, name: str | None) -> str:
    """The label to learn from: the one asked for, or the only one."""
    names = sorted(existing_labels(image.path))
    listed = ", ".join(names) or "none"
    if name is not None:
        if name not in names:
            message = f"--label: got {name!r}; {image.path} has the labels {listed}"
            raise ConfigError(message)
        return name
    if len(names) != 1:
        message = (
            f"{image.path}: {len(names)} labels ({listed}); expected one; name it with --label, "
            "or give labels that lie elsewhere with --pair IMAGE LABELS"
        )
        raise ConfigError(message)
    return names[0]
