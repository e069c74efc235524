"""The classical method a model has to beat: Otsu's threshold and a distance-transform watershed.

At its defaults, on the same rescaled volume that the network sees; never inverted, so it finds
nothing useful where objects are darker than their surroundings.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trainer.score import Truth, rescale

SIGMA = 1.5
"""Width of the Gaussian before the threshold, working voxels."""

MIN_DISTANCE = 4
"""Least distance of two seeds, working voxels."""


def otsu_watershed(truth: Truth, diameter: float | None) -> NDArray[np.int32]:
    """Segment one volume.

    Parameters
    ----------
    truth : Truth
        Its labels decide the scale only, as for the network.
    diameter : float or None
        Working voxels that the median object's diameter becomes; None leaves the volume as it is.

    Returns
    -------
    (z, y, x)
        Labels at the volume's own voxels.
    """
    # By module: scikit-image's functions carry no types.
    feature, filters, segmentation = (
        import_module(f"skimage.{name}") for name in ("feature", "filters", "segmentation")
    )
    volume = np.asarray(truth.image, np.float32)
    step = (1.0, 1.0, 1.0)
    if diameter is not None:
        size = truth.diameter() / diameter
        step = (size / truth.voxel[0], size / truth.voxel[1], size / truth.voxel[2])
        volume, _ = rescale(truth.image, step)
    smooth = ndimage.gaussian_filter(volume, SIGMA)
    mask = smooth > filters.threshold_otsu(smooth)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    peaks = feature.peak_local_max(
        distance, min_distance=MIN_DISTANCE, labels=ndimage.label(mask)[0]
    )
    seeds = np.zeros(volume.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: NDArray[np.int32] = segmentation.watershed(-distance, seeds, mask=mask)
    index = [
        np.clip(np.round((np.arange(n) - (s - 1.0) / 2.0) / s), 0, m - 1).astype(int)
        for n, s, m in zip(truth.labels.shape, step, volume.shape, strict=True)
    ]
    painted: NDArray[np.int32] = labels[np.ix_(*index)]
    return painted
