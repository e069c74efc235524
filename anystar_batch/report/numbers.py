"""The sections of a page that show numbers: how many, how big, where, and the seam check."""

from __future__ import annotations

import math

import numpy as np

from anystar_batch.report.charts import curve, histogram, number, steps
from anystar_batch.report.findings import Findings
from anystar_batch.report.html import card, grid_table, key, section, text
from anystar_batch.report.nearness import Nearness, nearness
from anystar_batch.report.seams import ALPHA, DRAWS, BorderGrid, SeamTest

PARTS = (8, 60)
"""Fewest and most parts of an axis along which density is shown; about 8 instances in each."""


def keys(found: Findings) -> str:
    """Return the numbers that are asked for first."""
    digest, frame = found.digest, found.frame
    n, rows = digest.instances, digest.sample
    whole = math.prod(a * b for a, b in zip(frame.shape, frame.scale_um, strict=True))
    seen = whole * max(1, len(found.record["plan"]["times"]))
    items = [key("Instances", f"{n:,}", "", _per_time(found))]
    if n:
        diameters = rows["equivalent_diameter_um"]
        low, middle, high = (float(v) for v in np.percentile(diameters, [25, 50, 75]))
        items += [
            key("Diameter", number(middle), "µm",
                f"median; half are {number(low)} to {number(high)}"),
            key("Volume", number(float(np.median(rows["volume_um3"]))), "µm³",
                f"median; together {digest.volume_um3 / seen:.1%} of the image"),
            key("Per mm³", number(_rounded(n / seen * 1e9)), "",
                f"in {_mm3(seen)}"),
        ]  # fmt: skip
        if len(digest.neighbour_um):
            items.append(
                key("Next neighbour", number(float(np.median(digest.neighbour_um))), "µm",
                    "median, centroid to centroid")
            )  # fmt: skip
        items += [
            key("Probability", f"{np.median(rows['prob']):.2f}", "",
                f"median; least possible {frame.threshold:g}"),
            key("Cut by border", f"{digest.touching / n:.0%}", "",
                f"{digest.touching_expected / n:.0%} expected at this size"),
        ]  # fmt: skip
    return f'<dl class="keys">{"".join(items)}</dl>'


def sizes(found: Findings) -> str:
    """Return the section with distributions."""
    rows, channel = found.digest.sample, found.frame.channel
    charts = [
        card("Volume", histogram(rows["volume_um3"], "volume, µm³", is_log=True)),
        card("Diameter", histogram(rows["equivalent_diameter_um"], "equivalent diameter, µm")),
        card(
            "Probability",
            histogram(rows["prob"], "object probability", span=(min(found.frame.threshold,
                      float(rows["prob"].min(initial=1.0))), 1.0)),
        ),
        card("Intensity", histogram(rows["intensity"], f"mean intensity, channel {channel}")),
    ]  # fmt: skip
    lead = "Every instance counts once, those that the volume's border cuts as well."
    if found.digest.is_sampled:
        lead = f"Of a fixed sample of {len(rows['label']):,} instances. {lead}"
    body = f'<div class="charts">{"".join(charts)}</div>'
    return section("How big are they?", lead, body, "sizes")


def space(found: Findings) -> str:
    """Return the section with density along the axes and distances."""
    digest, scale = found.digest, found.frame.scale_um
    charts = []
    for a, name in enumerate("zyx"):
        profile = digest.profiles.axes[a]
        count = min(int(np.clip(digest.instances // 8, *PARTS)), profile.length)
        cuts = np.rint(np.linspace(0, profile.length, count + 1)).astype(np.int64)
        sums = np.add.reduceat(profile.count, cuts[:-1])
        others = math.prod(
            n * s for k, (n, s) in enumerate(zip(found.frame.shape, scale, strict=True)) if k != a
        )
        volume = np.diff(cuts) * scale[a] * others * max(1, len(found.record["plan"]["times"]))
        chart = steps(cuts * scale[a], sums / volume * 1e9, f"{name}, µm", "instances per mm³")
        charts.append(card(f"Density along {name}", chart))
    nearest = histogram(digest.neighbour_um, "distance to the nearest centroid, µm")
    charts.append(card("Nearest neighbours", nearest))
    if found.frame.times > 1:
        edges = np.arange(found.frame.times + 1)
        charts.append(card("Over time", steps(edges, digest.per_time, "time point", "instances")))
    lead = "Centroids; positions are of level 0, counted from the first voxel."
    return section("Where are they?", lead, f'<div class="charts">{"".join(charts)}</div>', "space")


def seams(found: Findings) -> str:
    """Return the section on traces of the block grid."""
    lead = (
        "Work was cut into blocks. Had that left a trace, instances near the borders would be "
        "more, fewer, larger or smaller than elsewhere, or many would end there. Borders are "
        f"compared with the same borders moved elsewhere, {DRAWS:,} times; no distribution is "
        "assumed."
    )
    if not found.seams:
        body = "<p>The volume was done in a single block and a single tile: there are no seams.</p>"
        return section("Seam check", "", body, "seams")
    parts = [f"<p>{text(_verdict(found.seams))}</p>"]
    if any(test.p is not None for test in found.seams):
        parts.append(_tests(found.seams))
    for test in found.seams:
        grid = next(g for g in found.grids if g.name == test.name)
        near = nearness(found.digest.profiles, grid, found.extent, found.frame.scale_um)
        if near is not None and test.p is not None:
            parts.append(_near_charts(near, grid))
            break
    return section("Seam check", lead, "".join(parts), "seams")


def _verdict(tests: tuple[SeamTest, ...]) -> str:
    if all(test.p is None for test in tests):
        return f"Nothing can be said: {tests[0].why_not}."
    traced = [test.name for test in tests if test.is_trace]
    if traced:
        return f"The borders of {' and of '.join(traced)} left a trace in the labels."
    weak = "" if any(test.floor < ALPHA for test in tests) else (
        " The volume has too few borders for a trace to be told for certain."
    )  # fmt: skip
    return f"No trace of the borders was found.{weak}"


def _tests(tests: tuple[SeamTest, ...]) -> str:
    rows = []
    for test in tests:
        if test.p is None:
            rows.append([f"{test.name}: {test.why_not}", "–", "–", "–", "–", "no answer"])
            continue
        ratios = [test.density_ratio, test.size_ratio, test.cuts_ratio]
        p = f"{test.p:.2g}" if test.p > test.floor * 1.01 else f"≤ {test.floor:.1g}"
        said = f"{p}, trace" if test.is_trace else p
        rows.append([test.name, str(test.planes), *map(_times, ratios), said])
    heads = ("borders of", "planes", "density", "volume", "ends", "p")
    return grid_table(heads, rows) + (
        '<p class="lead">Density, mean volume and number of instances that begin or end: at the '
        f"borders over beside them. p below {ALPHA:g} is a trace.</p>"
    )


def _near_charts(near: Nearness, grid: BorderGrid) -> str:
    distance = [float(v) for v in near.distance_um]
    charts = []
    for heading, values, band in (
        ("Density", near.density, near.density_band),
        ("Mean volume", near.size, near.size_band),
    ):
        said = (
            f"{heading} against the distance to the nearest border of {grid.name}: "
            f"{number(float(values[0]))} times the mean nearest to it. The band is what 95 % of "
            "grids elsewhere show."
        )
        titles = (f"distance to the border of {grid.name}, µm", f"{heading.lower()}, over all")
        sides = ([float(v) for v in band[0]], [float(v) for v in band[1]])
        chart = curve(distance, [float(v) for v in values], sides, titles, said)
        charts.append(card(f"{heading} near borders", chart))
    note = '<p class="lead">Band: 95 % of grids of the same step that lie elsewhere.</p>'
    return f'<div class="charts">{"".join(charts)}</div>{note}'


def _per_time(found: Findings) -> str:
    times = len(found.record["plan"]["times"])
    return f"in {times} time points" if times > 1 else ""


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×" if math.isfinite(ratio) else "–"


def _rounded(value: float) -> float:
    """Three digits: more would be noise."""
    return float(f"{value:.3g}")


def _mm3(um3: float) -> str:
    return f"{number(um3 / 1e9)} mm³" if um3 >= 1e6 else f"{number(um3)} µm³"
