"""Labelled OME-Zarr images as a source of training batches, in place of synthetic samples.

An image is seen as the command sees it: the same level, working voxels, intensity limits and
resampling. Its labels are looked up at level 0, nearest voxel (a pyramid may be older than a
correction). The volume is split along the axis on which the objects spread furthest, where the last
share of the objects begins; what lies beyond the cut is never learnt::

    |<-------- learnt from --------->|<- held out ->|        working voxels
        [ patch ]   at an object, mirrored and turned, at 0.85 to 1.18 of its size

Rays that leave the learnt part are known from below only, as those that leave a synthetic sample.
Nothing is read as a whole: objects are counted chunk by chunk, patches read box by box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.store import ImageReader
from anystar_batch.errors import ImageError
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx
from anystar_batch.network.intensity import normalise
from anystar_batch.network.resample import resample, source_box, tile_taps, working_shape
from anystar_batch.network.scale import LevelMap, WorkingScale
from anystar_batch.stars.rays import golden_spiral
from trainer.config import Step, TrainConfig
from trainer.corruption import corrupt
from trainer.feed import Batch, bent
from trainer.sample import make_sample
from trainer.shapes import connected_pieces
from trainer.targets import targets

ZOOM = 1.18
"""Largest change of an object's size, either way."""

AT_OBJECT = 0.9
"""Share of the patches that lie around an object."""

MOST_READ = 2**25
"""Voxels of labels read at once."""

MILD_STEPS = (
    Step("bias_field", 0.3, (("coefficient", (0.0, 0.2)),)),
    Step("gamma", 0.3, (("gamma", (0.7, 1.5)),)),
    Step("blur", 0.3, (("sigma", (0.0, 0.7)),)),
    Step("gaussian_noise", 0.3, (("std", (0.0, 0.04)),)),
)
"""Degradation of real patches, which are degraded already."""

_CHOICE, _PATCH = 2, 3
"""Last word of the generators' seeds; `sample` has 0 and 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """What is labelled.

    Parameters
    ----------
    voxels : int64 [n]
        Voxels of level 0 of every object.
    centroid : float64 [n, 3]
        Level-0 voxels, (z, y, x).
    """

    voxels: NDArray[np.int64]
    centroid: NDArray[np.float64]

    def diameter(self, voxel: ZYXFloat) -> float:
        """Return the diameter of the sphere with the median object's volume, unit of `voxel`."""
        median = float(np.median(self.voxels)) * float(np.prod(voxel))
        return float(np.cbrt(6.0 * median / np.pi))


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
        zoom = _scaled(w.zoom, factor)
        shape = working_shape(self.image.shape_zyx(w.level), zoom)
        return replace(
            self, working=WorkingScale(w.level, zoom, _scaled(w.voxel_um, factor), shape)
        )

    def read_image(self, window: Box) -> NDArray[np.float32]:
        """Return a window of working voxels as the network sees it; mirrored beyond the volume."""
        level, low = self.working.level, self.limits[0]
        axes = tile_taps(window, self.working.shape, self.image.shape_zyx(level), self.working.zoom)
        box = source_box(axes)
        crop = _reader(self.image).read_box(level, self.time, self.channel, box)
        # As `tasks.tile_image`: the low limit goes first, in float64.
        raised = (crop.astype(np.float64) - low).astype(np.float32)
        raised[np.isnan(raised)] = 0.0
        return normalise(resample(raised, box.start, axes), 0.0, self.limits[1] - low)

    def read_labels(self, window: Box) -> NDArray[np.int64]:
        """Return the labels at the working voxels of a window; beyond the volume the nearest."""
        scale, offset = self.working.to_level0(self.position)
        index = [
            np.clip(np.rint(np.arange(a, b) * s + o).astype(np.int64), 0, n - 1)
            for a, b, s, o, n in zip(
                window.start, window.stop, scale, offset, self.labels.shape_zyx(0), strict=True
            )
        ]
        z, y, x = index
        plane = int(y[-1] - y[0] + 1) * int(x[-1] - x[0] + 1)
        found = np.zeros(window.shape, np.int64)
        first = 0
        while first < len(z):
            # As many planes as may be read together, one at least.
            last = int(np.searchsorted(z, z[first] + max(1, MOST_READ // plane), "left"))
            start = as_zyx((z[first], y[0], x[0]))
            box = Box(start, as_zyx((z[last - 1] + 1, y[-1] + 1, x[-1] + 1)))
            time = self.time if self.labels.num_times > 1 else 0
            values = _reader(self.labels).read_box(0, time, 0, box)
            found[first:last] = values[np.ix_(z[first:last] - z[first], y - y[0], x - x[0])]
            first = last
        return found


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSource:
    """Batches of patches, mixed with synthetic samples.

    Parameters
    ----------
    config : TrainConfig
        Its `sample` gives the patches' shape and the synthetic samples.
    volumes : tuple of LabelledVolume
        Each with objects in the part to learn from.
    synthetic : float
        Share of synthetic samples.
    """

    config: TrainConfig
    volumes: tuple[LabelledVolume, ...]
    synthetic: float = 0.5

    def batch(self, index: int) -> Batch:
        """Return batch `index`: the same bytes whatever was made before."""
        size, seed = self.config.batch, self.config.seed
        rays = golden_spiral(self.config.network.n_rays)
        grid = self.config.network.grid
        images, probs, dists = [], [], []
        for n in range(index * size, (index + 1) * size):
            if np.random.default_rng([seed, n, _CHOICE]).random() < self.synthetic:
                sample = make_sample(seed, n, self.config.sample)
                image, (prob, dist) = sample.image, targets(sample.labels, rays, grid)
            else:
                image, labels, learnt = self.patch(n)
                (prob, dist) = _partial_targets(labels, learnt, grid, self.config.network.n_rays)
            images.append(image[..., None])
            probs.append(prob[..., None])
            weight = np.maximum(prob, 0.0)[..., None]
            dists.append(np.concatenate([dist, weight], axis=-1).astype(np.float16))
        return Batch(np.stack(images), np.stack(probs), np.stack(dists))

    def patch(self, n: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Make patch `n`.

        Returns
        -------
        image : (z, y, x)
            0 to 1.
        labels : (z, y, x)
            As in the file; those to ignore are -1.
        learnt : (z, y, x)
            A box: where labels may be learnt from.
        """
        rng = np.random.default_rng([self.config.seed, n, _PATCH])
        shape = self.config.sample.shape
        factor = float(np.exp(rng.uniform(-np.log(ZOOM), np.log(ZOOM))))
        volume = self.volumes[int(rng.integers(len(self.volumes)))].zoomed(factor)
        part, _ = volume.parts()
        if rng.random() < AT_OBJECT:
            inside = volume.inside(part)
            # A coarser lattice may move the only centroid across the cut.
            at = inside[int(rng.integers(len(inside)))] if len(inside) else 0
            centre = volume.centres()[at] + rng.uniform(-0.25, 0.25, 3) * shape
        else:
            centre = rng.uniform(part.start, part.stop)
        window = _window(centre, shape, part)
        image, labels = volume.read_image(window), volume.read_labels(window)
        if volume.ignore is not None:
            labels[labels == volume.ignore] = -1
        learnt = np.zeros(shape, np.bool_)
        learnt[part.intersect(window).relative_to(window.start).slices] = True
        order = tuple(int(a) for a in rng.permutation(3))
        flips = tuple(slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(3))
        image = np.ascontiguousarray(image.transpose(order)[flips])
        if rng.random() < 0.5:
            image = bent(rng, image[None, ..., None])[0, ..., 0]
        image, _ = corrupt(rng, image, np.zeros((1, 1, 1), np.int32), MILD_STEPS)
        return (
            np.clip(image, 0.0, 1.0),
            np.ascontiguousarray(labels.transpose(order)[flips]),
            np.ascontiguousarray(learnt.transpose(order)[flips]),
        )


def measure(labels: ImageSource, time: int, ignore: int | None = None) -> Objects:
    """Count voxels and find centroids, stored chunk by stored chunk.

    Parameters
    ----------
    labels : ImageSource
    time : int
    ignore : int, optional
        Label that is no object.

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
    found: list[NDArray[np.float64]] = []
    reader = _reader(labels)
    for _, box in reader.existing_chunks(0, time, 0):
        values = reader.read_box(0, time, 0, box)
        if not values.any():
            continue
        names, inverse = np.unique(values, return_inverse=True)
        inverse = inverse.ravel()
        rows = np.empty((len(names), 5))
        rows[:, 0] = names
        rows[:, 1] = np.bincount(inverse)
        for axis in range(3):
            line = np.arange(box.start[axis], box.stop[axis], dtype=np.float64)
            line = line.reshape([-1 if k == axis else 1 for k in range(3)])
            rows[:, 2 + axis] = np.bincount(inverse, np.broadcast_to(line, box.shape).ravel())
        found.append(rows)
    table = np.concatenate(found) if found else np.empty((0, 5))
    names, inverse = np.unique(table[:, 0], return_inverse=True)
    sums = np.stack([np.bincount(inverse.ravel(), table[:, k]) for k in range(1, 5)], axis=1)
    sums = sums[(names != 0) & (names != (0 if ignore is None else ignore))]
    if len(sums) < 2:
        message = (
            f"{labels.path}: {len(sums)} labelled objects at time {time}; expected two or more, "
            "each with a number of its own (a mask has one number for all)"
        )
        raise ImageError(message)
    return Objects(sums[:, 0].astype(np.int64), sums[:, 1:] / sums[:, :1])


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


def _partial_targets(
    labels: NDArray[np.int64], learnt: NDArray[np.bool_], grid: ZYX, n_rays: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets inside the learnt box, as if the sample ended there; probability -1 elsewhere."""
    points = as_zyx(-(-n // g) for n, g in zip(labels.shape, grid, strict=True))
    prob = np.full(points, np.float32(-1.0))
    dist = np.zeros((*points, n_rays), np.float32)
    at = np.argwhere(learnt)
    # On whole grid points, so that targets of the box are targets of the patch.
    start = [-(-int(a) // g) * g for a, g in zip(at.min(axis=0), grid, strict=True)]
    box = Box(as_zyx(start), as_zyx(at.max(axis=0) + 1))
    if box.size == 0:
        return prob, dist
    part = labels[box.slices]
    pieces = connected_pieces(np.maximum(part, 0), 8.0, 4.0)
    inner = targets(pieces, golden_spiral(n_rays), grid)
    unknown = (part == -1)[tuple(slice(None, None, g) for g in grid)]
    first = as_zyx(a // g for a, g in zip(start, grid, strict=True))
    where = Box(first, as_zyx(a + n for a, n in zip(first, inner[0].shape, strict=True))).slices
    prob[where] = np.where(unknown, np.float32(-1.0), inner[0])
    dist[where] = inner[1]
    return prob, dist


def _window(centre: NDArray[np.float64], shape: ZYX, part: Box) -> Box:
    """The patch nearest to a centre that lies in a part; about its middle where it is too large."""
    start = []
    for c, n, a, b in zip(centre, shape, part.start, part.stop, strict=True):
        room = b - a - n
        start.append(min(max(round(c - n / 2), a), a + room) if room >= 0 else a + room // 2)
    return Box(as_zyx(start), as_zyx(s + n for s, n in zip(start, shape, strict=True)))


def _scaled(values: ZYXFloat, factor: float) -> ZYXFloat:
    z, y, x = (v * factor for v in values)
    return z, y, x


@lru_cache(maxsize=64)
def _reader(source: ImageSource) -> ImageReader:
    """One reader of an image per process: its arrays stay open."""
    return ImageReader(source)
