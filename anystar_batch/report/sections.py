"""The sections of a page: views of voxels and the gallery; charts, numbers and the seam check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anystar_batch.measure.review import KINDS
from anystar_batch.report.charts import curve, histogram, number, steps
from anystar_batch.report.digest import Columns
from anystar_batch.report.findings import Findings
from anystar_batch.report.gallery import CloseUp, Crop, Gallery
from anystar_batch.report.html import card, grid_table, key, section, text, view
from anystar_batch.report.nearness import Nearness, nearness
from anystar_batch.report.pictures import MOST_EDGE, contrast, layers, stretched
from anystar_batch.report.seams import ALPHA, DRAWS, BorderGrid, SeamTest
from anystar_batch.report.views import Pictures, Views

THINNEST = 0.14
"""Least height of a side view over the width of the view along z; a flatter one is stretched."""

TOGGLE = '<label class="toggle"><input type="checkbox" id="outlines" checked> Show outlines</label>'
"""Takes the outlines away by style alone."""

PARTS = (8, 60)
"""Fewest and most parts of an axis along which density is shown; about 8 instances in each."""


def review(said: Mapping[str, Any]) -> str:
    """Return the section with what a person said of a random sample.

    Parameters
    ----------
    said : mapping
        As `measure.review.judge` gives it, with `instances` and `seed`.
    """
    rate = said["error_rate"]
    lead = (
        f"A person looked at {rate['of']} of {said['instances']:,} instances, drawn by chance "
        f"(seed {said['seed']}); with 95 % intervals (Wilson)."
    )
    if said["not_answered"]:
        lead += f" {said['not_answered']} of those drawn were not answered."
    rows = [
        (words, one["text"])
        for kind, words in KINDS.items()
        if (one := said["kinds"][kind])["count"] or kind == "right"
    ]
    rows.append(("with a missed object beside it", said["missed_next_to_it"]["text"]))
    body = card(f"Error rate {rate['text']}", grid_table(("said", "share"), rows))
    return section("How often is it wrong?", lead, body, "review")


def looks(findings: Findings, views: Views, close: CloseUp | None) -> str:
    """Return the section with projections and slices."""
    kind = "Minimum" if views.is_dark else "Maximum"
    figures = [
        _ortho(findings, views, views.projection, views.projection_labels, f"{kind} projections"),
        _ortho(findings, views, views.slices, views.slice_labels, "Middle slices"),
    ]
    if close is not None:
        bar = _scale_bar(close.edge_um)
        said = f"Close look of {number(close.edge_um)} micrometres with outlines"
        figures.append(
            f"<figure>{view(close.picture, said, name='xy', bar=bar)}<figcaption>Close look around "
            f"instance {close.label}, level {close.level}.</figcaption></figure>"
        )
    body = f'{TOGGLE}<div class="sides">{"".join(figures)}</div>'
    return section("Does it look right?", _shown(findings, views), body, "looks")


def gallery(kinds: Sequence[Gallery]) -> str:
    """Return the section with single instances."""
    parts = []
    for kind in kinds:
        left = f" {kind.left_out} left out: the image's chunks are too large." * bool(kind.left_out)
        crops = "".join(map(_crop, kind.crops))
        parts.append(
            f'<div><h3>{text(kind.name)}</h3><div class="crops">{crops}</div>'
            f"<figcaption>{text(kind.text)}.{left}</figcaption></div>"
        )
    lead = (
        "Planes through the centroid, along z (above) and along y (below); the instance is "
        "outlined in white, its neighbours in grey. Contrast is stretched for every crop."
    )
    return section("Instances", lead, f'<div class="gallery">{"".join(parts)}</div>', "gallery")


def _crop(crop: Crop) -> str:
    said = f"instance {crop.label}, {number(crop.edge_um)} micrometres across"
    return (
        f'<figure class="crop">{view(crop.xy, f"xy plane of {said}")}'
        f"{view(crop.xz, f'xz plane of {said}')}<figcaption><b>#{crop.label}</b><br>"
        f"{number(crop.diameter_um)} µm<br>p {crop.prob:.2f}"
        f"{'' if crop.quality is None else f'<br>IoU {crop.quality:.2f}'}</figcaption></figure>"
    )


def _ortho(
    findings: Findings, views: Views, image: Pictures, labels: Pictures, heading: str
) -> str:
    """Three sides of the volume, joined at their common edges."""
    z, y, x = (n * s for n, s in zip(views.box.shape, views.scale_um, strict=True))
    deep = max(z, THINNEST * max(y, x))
    unit = max(x + deep, y + deep) / MOST_EDGE
    wide, tall, side = (max(1, round(v / unit)) for v in (x, y, deep))
    diameters = findings.digest.sample["equivalent_diameter_um"]
    diameter = (float(np.median(diameters)) if len(diameters) else 0.0) / unit
    is_deepened = deep > 1.01 * z
    bar = _scale_bar(x)
    limits = contrast(image.xy, image.zy, image.xz)
    cells = []
    for name, flat, names, size, scale in (
        ("xy", image.xy, labels.xy, (tall, wide), bar),
        ("zy", image.zy, labels.zy, (tall, side), None),
        ("xz", image.xz, labels.xz, (side, wide), None),
    ):
        picture = layers(stretched(flat, limits), names, size, diameter=diameter)
        said = f"{heading}, {name}, {findings.digest.instances} instances outlined"
        cells.append(view(picture, said, name=name, bar=scale))
    note = f" z is stretched {deep / z:.2g} times." if is_deepened else ""
    return (
        f'<figure><div class="ortho" style="grid-template-columns:{wide}fr {side}fr">'
        f"{''.join(cells)}</div><figcaption>{text(heading)}.{note}</figcaption></figure>"
    )


def _shown(findings: Findings, views: Views) -> str:
    """What of the volume is shown, in words."""
    count = len(findings.source.levels)
    voxel = " × ".join(number(s) for s in views.scale_um)
    levels = f" (of 0 to {count - 1})" if count > 1 else ""
    parts = [f"Level {views.level}{levels}, {voxel} µm a voxel (z, y, x)"]
    if findings.frame.times > 1:
        parts.append(f"time {views.time}, which has most instances")
    if findings.source.num_channels > 1:
        parts.append(f"channel {findings.frame.channel}")
    said = "; ".join(parts) + "."
    if not views.is_whole:
        share = views.box.size / math.prod(findings.source.shape_zyx(views.level))
        shape = " × ".join(str(n) for n in views.box.shape)
        said += (
            f" The image has no level small enough to be shown whole: these are the {shape} voxels "
            f"around its middle, {share:.1%} of it."
        )
    if views.is_dark:
        said += " The instances are darker than what surrounds them: the darkest voxels are shown."
    return said + " In projections the instance met first is outlined."


def _scale_bar(extent_um: float) -> tuple[float, str]:
    """A round length of about a fifth of the extent: its part of it, and what it is."""
    about = extent_um / 5
    power = 10.0 ** math.floor(math.log10(about))
    length = max(m * power for m in (1, 2, 5) if m * power <= about)
    unit, value = ("mm", length / 1000) if length >= 1000 else ("µm", length)
    return length / extent_um, f"{value:g} {unit}"


def keys(findings: Findings) -> str:
    """Return the numbers that are asked for first."""
    digest, frame = findings.digest, findings.frame
    n, rows = digest.instances, digest.sample
    whole = math.prod(a * b for a, b in zip(frame.shape, frame.scale_um, strict=True))
    inside = findings.record.get("inside")
    seen = whole * max(1, len(findings.record["plan"]["times"]))
    seen *= 1.0 if inside is None else inside["share"]
    what = "image" if inside is None else "region"
    items = [key("Instances", f"{n:,}", "", _per_time(findings))]
    if n:
        diameters = rows["equivalent_diameter_um"]
        low, middle, high = (float(v) for v in np.percentile(diameters, [25, 50, 75]))
        items += [
            key("Diameter", number(middle), "µm",
                f"median; half are {number(low)} to {number(high)}"),
            key("Volume", number(float(np.median(rows["volume_um3"]))), "µm³",
                f"median; together {digest.volume_um3 / seen:.1%} of the {what}"),
            key("Per mm³", number(_rounded(n / seen * 1e9)), "",
                f"in {_mm3(seen)}{'' if inside is None else ' of the region'}"),
        ]  # fmt: skip
        if len(digest.neighbour_um):
            items.append(
                key("Next neighbour", number(float(np.median(digest.neighbour_um))), "µm",
                    "median, centroid to centroid")
            )  # fmt: skip
        items += [
            key("Probability", f"{np.median(rows['prob']):.2f}", "",
                f"median; least possible {frame.threshold:g}"),
            *_quality_key(rows),
            key("Cut by border", f"{digest.touching / n:.0%}", "",
                f"{digest.touching_expected / n:.0%} expected at this size"),
        ]  # fmt: skip
    return f'<dl class="keys">{"".join(items)}</dl>'


def _quality_key(rows: Columns) -> list[str]:
    """The key number of the second look, where there was one."""
    if "quality" not in rows or not len(rows["quality"]):
        return []
    middle = float(np.median(rows["quality"]))
    return [
        key("Quality", f"{middle:.2f}", "", "median IoU that the outlines are expected to have")
    ]


def sizes(findings: Findings) -> str:
    """Return the section with distributions."""
    rows, channel = findings.digest.sample, findings.frame.channel
    charts = [
        card("Volume", histogram(rows["volume_um3"], "volume, µm³", is_log=True)),
        card("Diameter", histogram(rows["equivalent_diameter_um"], "equivalent diameter, µm")),
        card(
            "Probability",
            histogram(rows["prob"], "object probability", span=(min(findings.frame.threshold,
                      float(rows["prob"].min(initial=1.0))), 1.0)),
        ),
        *(
            [card("Quality", histogram(rows["quality"], "expected IoU", span=(0.0, 1.0)))]
            if "quality" in rows
            else []
        ),
        card("Intensity", histogram(rows["intensity"], f"mean intensity, channel {channel}")),
    ]  # fmt: skip
    lead = "Every instance counts once, those that the volume's border cuts as well."
    if findings.digest.is_sampled:
        lead = f"Of a fixed sample of {len(rows['label']):,} instances. {lead}"
    body = f'<div class="charts">{"".join(charts)}</div>'
    return section("How big are they?", lead, body, "sizes")


def space(findings: Findings) -> str:
    """Return the section with density along the axes and distances."""
    digest, scale = findings.digest, findings.frame.scale_um
    charts = []
    for a, name in enumerate("zyx"):
        profile = digest.profiles.axes[a]
        count = min(int(np.clip(digest.instances // 8, *PARTS)), profile.length)
        cuts = np.rint(np.linspace(0, profile.length, count + 1)).astype(np.int64)
        sums = np.add.reduceat(profile.count, cuts[:-1])
        others = math.prod(
            n * s
            for k, (n, s) in enumerate(zip(findings.frame.shape, scale, strict=True))
            if k != a
        )
        volume = np.diff(cuts) * scale[a] * others * max(1, len(findings.record["plan"]["times"]))
        chart = steps(cuts * scale[a], sums / volume * 1e9, f"{name}, µm", "instances per mm³")
        charts.append(card(f"Density along {name}", chart))
    nearest = histogram(digest.neighbour_um, "distance to the nearest centroid, µm")
    charts.append(card("Nearest neighbours", nearest))
    if findings.frame.times > 1:
        edges = np.arange(findings.frame.times + 1)
        charts.append(card("Over time", steps(edges, digest.per_time, "time point", "instances")))
    lead = "Centroids; positions are of level 0, counted from the first voxel."
    return section("Where are they?", lead, f'<div class="charts">{"".join(charts)}</div>', "space")


def seams(findings: Findings) -> str:
    """Return the section on traces of the block grid."""
    lead = (
        "Work was cut into blocks. Had that left a trace, instances near the borders would be "
        "more, fewer, larger or smaller than elsewhere, or many would end there. Borders are "
        f"compared with the same borders moved elsewhere, {DRAWS:,} times; no distribution is "
        "assumed."
    )
    if not findings.seams:
        body = "<p>The volume was done in a single block and a single tile: there are no seams.</p>"
        return section("Seam check", "", body, "seams")
    parts = [f"<p>{text(_verdict(findings.seams))}</p>"]
    if any(test.p is not None for test in findings.seams):
        parts.append(_tests(findings.seams))
    for test in findings.seams:
        grid = next(g for g in findings.grids if g.name == test.name)
        near = nearness(findings.digest.profiles, grid, findings.extent, findings.frame.scale_um)
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


def _per_time(findings: Findings) -> str:
    times = len(findings.record["plan"]["times"])
    return f"in {times} time points" if times > 1 else ""


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×" if math.isfinite(ratio) else "–"


def _rounded(value: float) -> float:
    """Three digits: more would be noise."""
    return float(f"{value:.3g}")


def _mm3(um3: float) -> str:
    return f"{number(um3 / 1e9)} mm³" if um3 >= 1e6 else f"{number(um3)} µm³"
