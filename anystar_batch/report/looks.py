"""The sections of a page that show voxels: views of the volume, a close look, the gallery."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from anystar_batch.report.charts import number
from anystar_batch.report.findings import Findings
from anystar_batch.report.gallery import CloseUp, Crop, Gallery
from anystar_batch.report.html import section, text, view
from anystar_batch.report.pictures import MOST_EDGE, contrast, layers, stretched
from anystar_batch.report.views import Pictures, Views

THINNEST = 0.14
"""Least height of a side view over the width of the view along z; a flatter one is stretched."""

TOGGLE = '<label class="toggle"><input type="checkbox" id="outlines" checked> Show outlines</label>'
"""Takes the outlines away by style alone."""


def looks(found: Findings, views: Views, close: CloseUp | None) -> str:
    """Return the section with projections and slices."""
    kind = "Minimum" if views.is_dark else "Maximum"
    figures = [
        _ortho(found, views, views.projection, views.projection_labels, f"{kind} projections"),
        _ortho(found, views, views.slices, views.slice_labels, "Middle slices"),
    ]
    if close is not None:
        bar = _scale_bar(close.edge_um)
        said = f"Close look of {number(close.edge_um)} micrometres with outlines"
        figures.append(
            f"<figure>{view(close.picture, said, name='xy', bar=bar)}<figcaption>Close look around "
            f"instance {close.label}, level {close.level}.</figcaption></figure>"
        )
    body = f'{TOGGLE}<div class="sides">{"".join(figures)}</div>'
    return section("Does it look right?", _shown(found, views), body, "looks")


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
        f"{number(crop.diameter_um)} µm<br>p {crop.prob:.2f}</figcaption></figure>"
    )


def _ortho(found: Findings, views: Views, image: Pictures, labels: Pictures, heading: str) -> str:
    """Three sides of the volume, joined at their common edges."""
    z, y, x = (n * s for n, s in zip(views.box.shape, views.scale_um, strict=True))
    deep = max(z, THINNEST * max(y, x))
    unit = max(x + deep, y + deep) / MOST_EDGE
    wide, tall, side = (max(1, round(v / unit)) for v in (x, y, deep))
    known = found.digest.sample["equivalent_diameter_um"]
    diameter = (float(np.median(known)) if len(known) else 0.0) / unit
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
        said = f"{heading}, {name}, {found.digest.instances} instances outlined"
        cells.append(view(picture, said, name=name, bar=scale))
    note = f" z is stretched {deep / z:.2g} times." if is_deepened else ""
    return (
        f'<figure><div class="ortho" style="grid-template-columns:{wide}fr {side}fr">'
        f"{''.join(cells)}</div><figcaption>{text(heading)}.{note}</figcaption></figure>"
    )


def _shown(found: Findings, views: Views) -> str:
    """What of the volume is shown, in words."""
    count = len(found.source.levels)
    voxel = " × ".join(number(s) for s in views.scale_um)
    levels = f" (of 0 to {count - 1})" if count > 1 else ""
    parts = [f"Level {views.level}{levels}, {voxel} µm a voxel (z, y, x)"]
    if found.frame.times > 1:
        parts.append(f"time {views.time}, which has most instances")
    if found.source.num_channels > 1:
        parts.append(f"channel {found.frame.channel}")
    said = "; ".join(parts) + "."
    if not views.is_whole:
        share = views.box.size / math.prod(found.source.shape_zyx(views.level))
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
