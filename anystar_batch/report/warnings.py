"""What may be wrong with a result, in words: judged from the table and the run record.

Each rule has a threshold and a reason in `docs/report.md`. A rule keeps silent where there are too
few instances to say anything. One rule asks whether the sizes
fall into two groups: two modes of a density with a deep valley between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.report.digest import MARGIN, Digest
from anystar_batch.report.seams import SeamTest

MIN_INSTANCES = 30
"""Fewer say nothing of shares."""

LEAST_QUALITY = 0.45
"""Median quality below which a volume shows textures rather than objects (docs/second-look.md)."""

BORDER_EXCESS = 0.15
"""Share of instances cut by the border beyond what geometry makes."""

BORDER_DEVIATIONS = 4.0
"""The same in standard deviations of their number."""

SATURATED = 0.1
"""Share of instances that reach the very brightest value."""

MIN_LEVELS = 8
"""Least difference between the limits of an integer image, grey levels."""

DOUBTFUL = 0.3
"""Share of instances within `MARGIN` of the threshold."""

MIN_SIZES = 100
"""Fewer say nothing of two groups."""

MIN_SHARE = 0.1
"""Least share of the instances in either group."""

DEPTH = 0.5
"""Most density in the valley over that of the lower peak."""

DEVIATIONS = 3.0
"""By how many standard deviations of its count the valley is emptier than the lower peak."""

POINTS = 512
"""Places at which the density is computed."""


def warnings_of(
    digest: Digest, record: Mapping[str, Any], seams: Sequence[SeamTest], dtype: str
) -> list[str]:
    """Return what may be wrong, one or two sentences each: what was found, what to do.

    Parameters
    ----------
    digest : Digest
        Of the table.
    record : mapping
        The run record.
    seams : sequence of SeamTest
    dtype : str
        Type of the image.
    """
    texts = [
        _border(digest),
        _sizes(digest),
        _scale(record),
        _saturated(digest),
        _empty(record, dtype),
        _doubtful(digest, record),
        _out_of_range(digest),
        *(_seam(one) for one in seams),
    ]
    return [text for text in texts if text]


def _out_of_range(digest: Digest) -> str:
    if digest.instances < MIN_INSTANCES or "quality" not in digest.sample:
        return ""
    middle = float(np.median(digest.sample["quality"]))
    if middle >= LEAST_QUALITY:
        return ""
    return (
        "the image may be out of the model's range: the second look expects outlines of a median "
        f"IoU of {middle:.2f} (nuclei that the model knows have 0.6 to 0.75, textures 0.3 to 0.4). "
        "Look at the overlays before you count; give a higher --min-quality, "
        "another --diameter, or fine-tune on corrected labels (docs/finetune.md)"
    )


def _border(digest: Digest) -> str:
    n, touching, expected = digest.instances, digest.touching, digest.touching_expected
    deviation = math.sqrt(max(expected * (1 - expected / max(1, n)), 1.0))
    excess = touching - expected
    if n < MIN_INSTANCES or excess < max(BORDER_EXCESS * n, BORDER_DEVIATIONS * deviation):
        return ""
    return (
        f"{touching} of {n} instances ({touching / n:.0%}) touch the volume's border; objects of "
        f"this size, lying anywhere alike, would do so in {expected / n:.0%}. Look at the edges of "
        "the volume for false objects (padding, illumination), or give --min-prob"
    )


def _sizes(digest: Digest) -> str:
    whole = digest.sample["touches_border"] == 0
    groups = two_sizes(digest.sample["volume_um3"][whole])
    if groups is None:
        return ""
    return (
        f"the sizes fall into two groups: {groups.share:.0%} of the instances around "
        f"{_diameter(groups.small):.3g} um in diameter, the others around "
        f"{_diameter(groups.large):.3g} um; two kinds of objects, or fragments beside whole ones. "
        f"--min-volume {groups.valley:.3g} would remove the small ones"
    )


def _scale(record: Mapping[str, Any]) -> str:
    probe, typical = record.get("probe"), record["model"].get("diameter_voxels")
    if not probe or not probe["is_certain"] or not typical or len(probe["trials"]) < 2:
        return ""
    trials = sorted(probe["trials"], key=lambda t: float(t["voxel_um"]))
    best = max(trials, key=lambda t: float(t["evidence"]))
    # Objects smaller than typical ask for a scale still finer than the finest; and vice versa.
    ideal_um = float(best["diameter_um"]) / float(typical)
    if best is trials[0] and ideal_um <= float(best["voxel_um"]):
        end, beyond = "finest", "smaller"
    elif best is trials[-1] and ideal_um >= float(best["voxel_um"]):
        end, beyond = "coarsest", "larger"
    else:
        return ""
    return (
        f"the working scale is at the edge of the probe's range: its {end} trial found most, and "
        f"objects of {best['diameter_um']:.3g} um at that; the true ones may be {beyond}. Look at "
        "the outlines, and give --diameter if they do not fit"
    )


def _saturated(digest: Digest) -> str:
    n, clipped = digest.instances, digest.at_brightest
    if n < MIN_INSTANCES or clipped < SATURATED * n:
        return ""
    return (
        f"{clipped} of {n} instances ({clipped / n:.0%}) reach the same brightest value, "
        f"{digest.brightest:g}: the image is saturated. Intensities of the table are too low, and "
        "objects that touch may have been merged"
    )


def _empty(record: Mapping[str, Any], dtype: str) -> str:
    plan = record["plan"]
    pairs = dict(zip(plan["times"], plan["intensity_limits"], strict=True))
    without = [time for time, pair in pairs.items() if pair is None]
    if without:
        few = ", ".join(map(str, without[:10])) + (" and more" if len(without) > 10 else "")
        return (
            f"{len(without)} of {len(pairs)} time points have no contrast at all ({few}): nothing "
            "was found there. Check the image, --channel and --time"
        )
    least = min((high - low for low, high in pairs.values()), default=math.inf)
    if dtype.startswith(("int", "uint")) and least < MIN_LEVELS:
        return (
            f"the image is almost empty: only {least:g} grey levels lie between its darkest and "
            "its brightest voxels, so that noise looks like objects. Check --channel, and look at "
            "the outlines"
        )
    return ""


def _doubtful(digest: Digest, record: Mapping[str, Any]) -> str:
    n, doubtful = digest.instances, digest.doubtful
    if n < MIN_INSTANCES or doubtful < DOUBTFUL * n:
        return ""
    threshold = threshold_of(record)
    return (
        f"{doubtful} of {n} instances ({doubtful / n:.0%}) are within {MARGIN:g} of the least "
        f"probability, {threshold:g}: their number depends on where that is set. Look at the least "
        "certain ones, and give another --prob-thresh"
    )


def _seam(test: SeamTest) -> str:
    if not test.is_trace or test.p is None:
        return ""
    what = {
        "density": f"{test.density_ratio:.2f} times as many instances",
        "size": f"instances of {test.size_ratio:.2f} times the volume",
        "cuts": f"{test.cuts_ratio:.2f} times as many that begin or end",
    }[test.strongest]
    return (
        f"the borders of {test.name} left a trace in the labels (p = {test.p:.1g}): {what} there, "
        "against beside them. Do not count these labels; please report it with the run record"
    )


def threshold_of(record: Mapping[str, Any]) -> float:
    """Return the least probability that an instance could have."""
    plan = record["plan"]
    filters = plan.get("filters") or {}
    return max(float(plan["prob_thresh"]), float(filters.get("min_prob") or 0.0))


def _diameter(volume: float) -> float:
    return float((6 * volume / math.pi) ** (1 / 3))


@dataclass(frozen=True, slots=True)
class TwoSizes:
    """Two groups of sizes.

    Parameters
    ----------
    small, large : float
        Where the density peaks, in the unit of the values.
    valley : float
        Where it is least between them.
    share : float
        Share of the values below the valley.
    """

    small: float
    large: float
    valley: float
    share: float


def two_sizes(values: NDArray[Any]) -> TwoSizes | None:
    """Return the two groups into which positive values fall, None if they are one.

    Parameters
    ----------
    values : [n]
        Sizes, positive.

    Notes
    -----
    The density of the logarithms is a sum of Gaussians of Silverman's width, which is too wide
    where there are two groups: what is found is real, what is not found may be there.
    """
    logs = np.log(values)
    spread = min(float(logs.std()), float(np.subtract(*np.percentile(logs, [75, 25]))) / 1.34) if (
        len(logs) >= MIN_SIZES
    ) else 0.0  # fmt: skip
    if spread <= 0:
        return None
    width = 0.9 * spread * len(logs) ** -0.2
    at = np.linspace(logs.min() - 3 * width, logs.max() + 3 * width, POINTS)
    counts = np.histogram(logs, POINTS, (at[0], at[-1]))[0].astype(np.float64)
    offsets = (at - at.mean()) / width
    kernel = np.exp(-0.5 * offsets**2)
    density = np.convolve(counts, kernel / kernel.sum(), mode="same")
    below = np.cumsum(counts) / len(logs)
    inner = density[1:-1]
    peaks = 1 + np.flatnonzero((inner > density[:-2]) & (inner >= density[2:]))
    best: TwoSizes | None = None
    deepest = DEPTH
    for k, first in enumerate(peaks):
        for second in peaks[k + 1 :]:
            low = first + int(density[first:second].argmin())
            lower = min(density[first], density[second])
            share = float(below[low])
            depth = float(density[low] / lower)
            # Counts under a window as wide as the Gaussian.
            window = width / (at[1] - at[0]) * np.sqrt(2 * np.pi)
            contrast = (lower - density[low]) * window / np.sqrt((lower + density[low]) * window)
            if depth < deepest and MIN_SHARE <= share <= 1 - MIN_SHARE and contrast >= DEVIATIONS:
                small, large, valley = (float(np.exp(at[i])) for i in (first, second, low))
                best, deepest = TwoSizes(small, large, valley, share), depth
    return best
