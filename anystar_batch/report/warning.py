"""What may be wrong with a result, in words: judged from the table and the run record.

Each rule has a threshold and a reason in `docs/report.md`. A rule keeps silent where there are too
few instances to say anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anystar_batch.report.digest import MARGIN, Digest
from anystar_batch.report.seams import SeamTest
from anystar_batch.report.sizes import two_sizes

MIN_INSTANCES = 30
"""Fewer say nothing of shares."""

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
    found = [
        _border(digest),
        _sizes(digest),
        _scale(record),
        _saturated(digest),
        _empty(record, dtype),
        _doubtful(digest, record),
        *(_seam(one) for one in seams),
    ]
    return [text for text in found if text]


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
    wanted = float(best["diameter_um"]) / float(typical)
    if best is trials[0] and wanted <= float(best["voxel_um"]):
        end, beyond = "finest", "smaller"
    elif best is trials[-1] and wanted >= float(best["voxel_um"]):
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
