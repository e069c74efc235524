"""Intensities as the network sees them: two limits of a whole image, mapped to 0 and 1, clipped.

The limits belong to the image (one time, one channel), never to a block: two blocks that share a
voxel must agree on its value, or an object on their border is found twice. `trainer` calls these
very functions, so that training and inference cannot drift apart.

NaN and infinities carry no intensity: they do not move the limits, and become 0, 0 and 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ImageError
from anystar_batch.kernel_cache import compiled

LOW_PERCENTILE = 1.0
"""Percentile that becomes 0, unless a model's provenance says otherwise."""

HIGH_PERCENTILE = 99.9
"""Percentile that becomes 1, unless a model's provenance says otherwise."""


def limits(
    sample: NDArray[np.number],
    low_percentile: float = LOW_PERCENTILE,
    high_percentile: float = HIGH_PERCENTILE,
) -> tuple[float, float]:
    """Return the intensities that become 0 and 1.

    Parameters
    ----------
    sample : any shape
        Intensities in the image's own unit: the whole image, or a fixed sample of it.
    low_percentile, high_percentile : float
        Percentiles over the finite values, 0 to 100.

    Returns
    -------
    low, high : float
        `low < high`.

    Raises
    ------
    ImageError
        If no value is finite, or all finite values are equal.

    Notes
    -----
    An image whose background is constant and whose objects fill less than
    `100 - high_percentile` percent has equal percentiles; its minimum and maximum are used then.

    Examples
    --------
    >>> limits(np.arange(101), 0.0, 50.0)
    (0.0, 50.0)
    """
    values = np.asarray(sample).ravel()
    if not np.issubdtype(values.dtype, np.integer):
        values = values[np.isfinite(values)]
    if values.size == 0:
        message = "intensity: no voxel is finite; expected an image with finite intensities"
        raise ImageError(message)
    low, high = (float(v) for v in np.percentile(values, [low_percentile, high_percentile]))
    if high > low:
        return low, high
    low, high = float(values.min()), float(values.max())
    if high > low:
        return low, high
    message = (
        f"intensity: every voxel is {low:g}; expected an image with contrast; "
        "check the channel and the time"
    )
    raise ImageError(message)


def raised(crop: NDArray[np.number], low: float) -> tuple[NDArray[np.float32], float | None]:
    """Return intensities above a limit, and the one value that all voxels have, if they have one.

    Parameters
    ----------
    crop : any shape
        Intensities, any number type.
    low : float
        What becomes 0. It is taken off in float64: large integers with little contrast keep it.

    Returns
    -------
    same shape, float32
        NaN becomes 0.
    float or None
        The value of all voxels, NaN if none has any; None if they differ.
    """
    native = crop.dtype.isnative and (crop.dtype.kind in "iu" or crop.dtype in (np.float32, float))
    values = np.ascontiguousarray(crop if native else crop.astype(np.float64))
    above = np.empty(values.shape, np.float32)
    if _raise(values.ravel(), low, above.ravel()):
        return above, float(values.flat[0])
    return above, None


@compiled()
def _raise(values: NDArray[Any], low: float, out: NDArray[np.float32]) -> bool:
    """Fill `out`; return whether all values are one, or all NaN."""
    first = values[0]
    same = missing = True
    for i in range(len(values)):
        value = values[i]
        same &= value == first
        above = np.float64(value) - low
        is_number = above == above
        missing &= not is_number
        out[i] = np.float32(above) if is_number else np.float32(0.0)
    return same or missing


def normalise(image: NDArray[np.number], low: float, high: float) -> NDArray[np.float32]:
    """Map intensities linearly so that `low` becomes 0 and `high` becomes 1, and clip.

    Parameters
    ----------
    image : any shape
        Intensities, in the unit of the limits.
    low, high : float
        Intensities that become 0 and 1.

    Returns
    -------
    same shape
        Dimensionless, 0 to 1; NaN becomes 0.

    Raises
    ------
    ImageError
        If `high` does not exceed `low`: the image is constant.

    Examples
    --------
    >>> normalise(np.array([0.0, 5.0, 20.0, np.nan]), 0.0, 10.0)
    array([0. , 0.5, 1. , 0. ], dtype=float32)
    """
    if not high > low:
        message = (
            f"intensity: got limits low={low:g}, high={high:g}; expected high above low; "
            "the image is constant"
        )
        raise ImageError(message)
    # float64 until the end: uint32 and int64 intensities do not fit float32.
    values = np.ascontiguousarray(image)
    values = values if values.dtype == np.float32 else values.astype(np.float64)
    scaled = np.empty(values.shape, np.float32)
    _scale(values.ravel(), low, high - low, scaled.ravel())
    return scaled


@compiled()
def _scale(
    values: NDArray[np.floating[Any]], low: float, width: float, out: NDArray[np.float32]
) -> None:
    """Scale and clip in one pass; NaN becomes 0."""
    for i in range(len(values)):
        scaled = (np.float64(values[i]) - low) / width
        if scaled > 0.0:
            out[i] = np.float32(min(scaled, 1.0))
        else:
            out[i] = np.float32(0.0)
