"""Finished measurements: sums become columns, batches of rows for a file.

Columns named `_um`, `_um2`, `_um3` are physical; all others are in voxels of level 0. A voxel's
centre has the integer coordinate, as in scikit-image, whose definitions the columns follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, ZYXFloat
from anystar_batch.measure.partials import INTEGER, Statistics

ROWS = 65536
"""Rows of a batch: bounds the memory, changes no byte."""

INTENSITIES = ("mean", "std", "min", "max", "sum")
"""What is told of a channel's intensities within an object."""

Batch = dict[str, NDArray[Any]]
"""Columns by name, in order, as long as each other."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What turns sums of voxels into measurements.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels of level 0.
    scale_um : (z, y, x)
        Micrometres per voxel of level 0.
    translation_um : (z, y, x)
        Position of the centre of voxel 0, micrometres.
    channels : tuple of str
        Names of the measured channels.
    """

    shape: ZYX
    scale_um: ZYXFloat
    translation_um: ZYXFloat
    channels: tuple[str, ...]


def column_names(
    channels: tuple[str, ...], *, has_time: bool, scores: Sequence[str] = ()
) -> list[str]:
    """Return the names of the columns, in order.

    Parameters
    ----------
    channels : tuple of str
        Names of the measured channels.
    has_time : bool
        Whether the image has a time axis.
    scores : sequence of str
        Names of what is known of each object besides `prob`.

    Returns
    -------
    list of str

    Examples
    --------
    >>> column_names(("DAPI",), has_time=True)[:4]
    ['label', 't', 'prob', 'centroid_z']
    >>> column_names(("DAPI",), has_time=False)[-1]
    'intensity_sum_DAPI'
    """
    return [
        "label",
        *(["t"] if has_time else []),
        "prob",
        *scores,
        *(f"centroid_{a}" for a in "zyx"),
        *(f"centroid_{a}_um" for a in "zyx"),
        *(f"bbox_{a}_{side}" for a in "zyx" for side in ("min", "max")),
        "num_voxels",
        "volume_um3",
        "equivalent_diameter_um",
        *(f"axis_{a}_um" for a in ("major", "middle", "minor")),
        "touches_border",
        *_intensity_names(channels),
    ]


def _intensity_names(channels: Sequence[str]) -> list[str]:
    return [f"intensity_{what}_{channel}" for channel in channels for what in INTENSITIES]


def columns(statistics: Statistics, frame: Frame) -> dict[str, NDArray[Any]]:
    """Finish the measurements of some labels.

    Parameters
    ----------
    statistics : Statistics
        Sums of whole labels.
    frame : Frame
        Voxel size, position and names.

    Returns
    -------
    dict
        Column to values, one a label; all of `column_names` but `t`, `prob` and other scores.

    Raises
    ------
    ValueError
        If a label's second moments do not fit 63 bits: an object of more than 10^8 voxels that is
        also more than 10^5 long.

    Notes
    -----
    Standard deviations are of the population (n, not n - 1). Axis lengths are those of the
    ellipsoid with the same second moments: the square roots of 20 times the eigenvalues of the
    covariance. An image that is NaN in all of a label gives NaN, and the sum 0.
    """
    shape = statistics.shape
    low, high, count = shape["low"], shape["high"], shape["num_voxels"]
    centroid, covariance = _central_moments(statistics)
    scale = np.array(frame.scale_um)
    volume = count * float(scale[0] * scale[1] * scale[2])
    # Eigenvalues ascend; rounding may leave those of flat objects just below 0.
    eigenvalues = np.linalg.eigvalsh(covariance * scale[:, None] * scale[None, :])
    lengths = np.sqrt(20 * np.maximum(eigenvalues, 0.0))
    batch: dict[str, NDArray[Any]] = {"label": shape["label"]}
    for i, a in enumerate("zyx"):
        batch[f"centroid_{a}"] = centroid[:, i]
        batch[f"centroid_{a}_um"] = frame.translation_um[i] + scale[i] * centroid[:, i]
        batch[f"bbox_{a}_min"], batch[f"bbox_{a}_max"] = low[:, i], high[:, i]
    batch["num_voxels"] = count
    batch["volume_um3"] = volume
    batch["equivalent_diameter_um"] = np.cbrt(6 / np.pi * volume)
    for i, name in enumerate(("minor", "middle", "major")):
        batch[f"axis_{name}_um"] = lengths[:, i]
    batch["touches_border"] = ((low == 0) | (high == np.array(frame.shape))).any(axis=1)
    return batch | _intensities(statistics, frame.channels, 0)


def _intensities(statistics: Statistics, channels: Sequence[str], first: int) -> Batch:
    """Finish the intensities of some channels, the first of which is in column `first`."""
    batch: Batch = {}
    for i, channel in enumerate(channels, start=first):
        rows, count = statistics.intensity[:, i], statistics.shape["num_voxels"]
        finished = _integers(rows, count) if rows.dtype == INTEGER else _floats(rows)
        batch |= {f"intensity_{what}_{channel}": values for what, values in finished.items()}
    return batch


def _central_moments(statistics: Statistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centroids (z, y, x) and covariances, voxels, from sums modulo 2^64.

    Moments about the corner of the label's box are small and exact in 64 bits, so the large
    coordinates of a huge volume cost no digits.
    """
    shape = statistics.shape
    count = shape["num_voxels"]
    low = shape["low"]
    extent = (shape["high"] - low).astype(np.float64)
    if len(count) and (count * extent.max(axis=1) ** 2).max() >= 2.0**63:
        message = "a label is too large for exact second moments (voxels x length^2 >= 2^63)"
        raise ValueError(message)
    n, corner = count.astype(np.uint64), low.astype(np.uint64)
    sums = shape["sums"] - n[:, None] * corner
    mean = sums.astype(np.float64) / count[:, None]
    covariance = np.empty((len(count), 3, 3))
    for column, (a, b) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
        about = (
            shape["moments"][:, column]
            - corner[:, a] * shape["sums"][:, b]
            - corner[:, b] * shape["sums"][:, a]
            + n * corner[:, a] * corner[:, b]
        )
        central = about.astype(np.float64) / count - mean[:, a] * mean[:, b]
        covariance[:, a, b] = covariance[:, b, a] = central
    return low + mean, covariance


def _integers(rows: NDArray[Any], count: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Finish integer intensities; the variance in integers of any size, rounded once."""
    variances = [
        (n * ((high << 32) + low) - total * total) / (n * n)
        for n, total, high, low in zip(
            count.tolist(),
            rows["sum"].tolist(),
            rows["squares_high"].tolist(),
            rows["squares_low"].tolist(),
            strict=True,
        )
    ]
    return {
        "mean": rows["sum"] / count,
        "std": np.sqrt(np.array(variances, np.float64)),
        "min": rows["min"],
        "max": rows["max"],
        "sum": rows["sum"],
    }


def _floats(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Finish float intensities."""
    count = rows["count"]
    is_seen = count > 0

    def seen(values: NDArray[Any]) -> NDArray[Any]:
        return np.where(is_seen, values, np.nan)

    return {
        "mean": seen(rows["mean"]),
        "std": seen(np.sqrt(rows["m2"] / np.maximum(count, 1))),
        "min": seen(rows["min"]),
        "max": seen(rows["max"]),
        "sum": rows["mean"] * count,
    }


def batches(
    statistics: Statistics,
    frame: Frame,
    prob: NDArray[np.floating[Any]],
    times: NDArray[np.integer[Any]] | None,
    scores: Mapping[str, NDArray[np.number]] | None = None,
) -> Iterator[Batch]:
    """Yield the rows of some labels, one a label, in the order given.

    Parameters
    ----------
    statistics : Statistics
        Sums of whole labels; the first intensities are those of the frame's channels.
    frame : Frame
        Voxel size, position and names.
    prob : [n]
        Object probability of each.
    times : [n] or None
        Time index of each; None for an image without a time axis.
    scores : dict, optional
        Further columns after `prob`, [n] each.

    Yields
    ------
    Batch
        `ROWS` rows at most; one without rows if there are no labels, for the columns' sake.
    """
    scores = {} if scores is None else scores
    names = column_names(frame.channels, has_time=times is not None, scores=tuple(scores))
    for start in range(0, max(1, len(statistics.shape)), ROWS):
        rows = slice(start, start + ROWS)
        batch = columns(statistics.select(rows), frame)
        batch["prob"] = prob[rows]
        batch |= {name: values[rows] for name, values in scores.items()}
        if times is not None:
            batch["t"] = times[rows]
        yield {name: batch[name] for name in names}


def courses(
    statistics: Statistics, channels: Sequence[str], times: Sequence[int]
) -> Iterator[Batch]:
    """Yield the intensities of some labels over time, one row a label and time, label by label.

    Parameters
    ----------
    statistics : Statistics
        Sums of whole labels; intensities of all channels where the label was found, then at the
        first of `times`, at the second...
    channels : sequence of str
        Names of the channels.
    times : sequence of int
        Time indices.

    Yields
    ------
    Batch
        `label`, `t` and the intensities; one without rows if there are no labels.
    """
    step = max(1, ROWS // len(times))
    for start in range(0, max(1, len(statistics.shape)), step):
        piece = statistics.select(slice(start, start + step))
        count = len(piece.shape)
        batch: Batch = {
            "label": np.repeat(piece.shape["label"], len(times)),
            "t": np.tile(np.asarray(times, np.int64), count),
        }
        at_times = [
            _intensities(piece, channels, (k + 1) * len(channels)) for k in range(len(times))
        ]
        for name in _intensity_names(channels):
            batch[name] = np.stack([at[name] for at in at_times], axis=1).reshape(-1)
        yield batch
