"""The classical methods a model has to beat, on the same rescaled volume that the network sees.

`Otsu`: smooth, Otsu's threshold, watershed from the peaks of the distance transform. `BlobLog`:
maxima over places and scales of the scale-normalised Laplacian of a Gaussian, each a ball. Neither
is ever inverted, so they find nothing useful where objects are darker than their surroundings.

`GRIDS` are the settings among which a method's best is looked for, on the very data it is scored
on: what an expert with the truth at hand could reach, which no user has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anystar_batch.geometry import ZYX, ZYXFloat, as_zyx
from anystar_batch.network.intensity import limits, normalise
from trainer.score import rescale
from trainer.volumes import Truth

DIAMETER = 14.0
"""Working voxels at which the defaults are meant to be used."""


class Method(Protocol):
    """A way to segment one volume."""

    def segment(self, truth: Truth, diameter: float | None) -> NDArray[np.int32]:
        """Segment one volume.

        Parameters
        ----------
        truth : Truth
            Its labels decide the scale only, as for the network.
        diameter : float or None
            Working voxels that the median object's diameter becomes; None leaves the volume as it
            is.

        Returns
        -------
        (z, y, x)
            Labels at the volume's own voxels.
        """


@dataclass(frozen=True, slots=True)
class Otsu:
    """Otsu's threshold and a distance-transform watershed.

    Parameters
    ----------
    sigma : float
        Width of the Gaussian before the threshold, working voxels.
    min_distance : int
        Least distance of two seeds, working voxels.
    """

    sigma: float = 1.5
    min_distance: int = 4

    def segment(self, truth: Truth, diameter: float | None) -> NDArray[np.int32]:
        """Segment one volume; see `Method`."""
        volume, step = _working(truth, diameter)
        smooth = ndimage.gaussian_filter(volume, self.sigma)
        mask = smooth > _skimage("filters").threshold_otsu(smooth)
        distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
        peaks = _skimage("feature").peak_local_max(
            distance, min_distance=self.min_distance, labels=ndimage.label(mask)[0]
        )
        seeds = np.zeros(volume.shape, np.int32)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        labels = _skimage("segmentation").watershed(-distance, seeds, mask=mask)
        return _own_voxels(labels, as_zyx(truth.labels.shape), step)


@dataclass(frozen=True, slots=True)
class BlobLog:
    """Laplacian of a Gaussian; every blob is a ball of radius sqrt(3) sigma.

    Parameters
    ----------
    threshold : float
        Least response, of an image scaled to [0, 1].
    sigma : (smallest, largest)
        Scales, working voxels; five of them.
    """

    threshold: float = 0.05
    sigma: tuple[float, float] = (2.0, 6.0)

    def segment(self, truth: Truth, diameter: float | None) -> NDArray[np.int32]:
        """Segment one volume; see `Method`."""
        volume, step = _working(truth, diameter)
        image = normalise(volume, *limits(volume, 1.0, 99.9))
        blobs = _skimage("feature").blob_log(
            image,
            min_sigma=self.sigma[0],
            max_sigma=self.sigma[1],
            num_sigma=5,
            threshold=self.threshold,
        )
        labels = np.zeros(volume.shape, np.int32)
        # Where balls overlap the smaller one, painted last, is seen whole.
        blobs = blobs[np.argsort(-blobs[:, 3], kind="stable")]
        for number, (*centre, sigma) in enumerate(blobs, start=1):
            radius = np.sqrt(3.0) * sigma
            low = [max(0, int(np.floor(c - radius))) for c in centre]
            high = [
                min(n, int(np.ceil(c + radius)) + 1)
                for c, n in zip(centre, volume.shape, strict=True)
            ]
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            axes = np.ogrid[box]
            squared = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
            labels[box][squared <= radius**2] = number
        return _own_voxels(labels, as_zyx(truth.labels.shape), step)


GRIDS: dict[str, Sequence[Method]] = {
    "Otsu + watershed": [Otsu(s, d) for s in (0.7, 1.0, 1.5, 2.5) for d in (3, 4, 6)],
    "LoG": [BlobLog(t, s) for t in (0.02, 0.05, 0.1, 0.2) for s in ((2.0, 6.0), (3.0, 5.0))],
}
"""Settings of each method; those of its defaults are among them."""

DEFAULTS: dict[str, Method] = {"Otsu + watershed": Otsu(), "LoG": BlobLog()}
"""Each method as it comes."""


def _working(truth: Truth, diameter: float | None) -> tuple[NDArray[np.float32], ZYXFloat]:
    """The volume in working voxels, and its own voxels per working voxel."""
    if diameter is None:
        return np.asarray(truth.image, np.float32), (1.0, 1.0, 1.0)
    size = truth.diameter() / diameter
    step = (size / truth.voxel[0], size / truth.voxel[1], size / truth.voxel[2])
    volume, _ = rescale(truth.image, step)
    return volume, step


def _own_voxels(labels: NDArray[np.integer], shape: ZYX, step: ZYXFloat) -> NDArray[np.int32]:
    """Labels at the volume's own voxels, by the nearest working voxel."""
    index = [
        np.clip(np.round((np.arange(n) - (s - 1.0) / 2.0) / s), 0, m - 1).astype(int)
        for n, s, m in zip(shape, step, labels.shape, strict=True)
    ]
    painted: NDArray[np.int32] = labels[np.ix_(*index)].astype(np.int32)
    return painted


def _skimage(name: str) -> Any:  # noqa: ANN401  (scikit-image's functions carry no types)
    return import_module(f"skimage.{name}")
