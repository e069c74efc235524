"""A picture of the seam test: what lies at which distance from the planes, as one SVG document."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from anystar_batch.geometry import ZYXFloat
from anystar_batch.report.charts import HEIGHT, WIDTH, curve, number
from anystar_batch.report.html import text
from anystar_batch.report.nearness import contact_nearness, nearness
from anystar_batch.report.profiles import Profiles
from anystar_batch.report.seams import BorderGrid

HEAD = 34
"""Height of the title, units of the charts."""

STYLE = (
    "text{font-family:sans-serif;font-size:10.5px;fill:#5a6469}.head{font-size:14px;fill:#1d2326}"
    ".axis{stroke:#5a6469;fill:none}.rule{stroke:#eceeed}.band{fill:#dde5e4}"
    ".one{stroke:#5a6469;stroke-dasharray:3 3}.line{stroke:#0b6e75;stroke-width:1.6;fill:none}"
    ".dot{fill:#0b6e75}"
)
"""Colours of a picture that stands alone; in a page `page.css` has them."""


def seam_svg(profiles: Profiles, grid: BorderGrid, extent: ZYXFloat, verdict: str) -> str:
    """Draw density, size and changes of label against the distance to the planes.

    Parameters
    ----------
    profiles : Profiles
        With pairs of voxels.
    grid : BorderGrid
        With planes.
    extent : (z, y, x)
        Extent of a typical instance, voxels.
    verdict : str
        What the test says.

    Returns
    -------
    str
        An SVG document.
    """
    charts = []
    near = nearness(profiles, grid, extent, (1.0, 1.0, 1.0))
    if near is not None:
        rows = (("density", near.density, near.density_band), ("size", near.size, near.size_band))
        charts += [
            _chart(near.distance_um, values, band, f"{name}, over all")
            for name, values, band in rows
        ]
    touch = contact_nearness(profiles, grid, extent)
    if touch is not None:
        title = "changes of label inside objects, over all"
        charts.append(_chart(touch.distance, touch.share, touch.band, title))
    width = WIDTH * max(1, len(charts))
    placed = [
        chart.replace(
            "<svg ", f'<svg x="{k * WIDTH}" y="{HEAD}" width="{WIDTH}" height="{HEIGHT}" ', 1
        )
        for k, chart in enumerate(charts)
    ]
    head = f"{verdict}: {grid.name}; the band is what 95 % of grids elsewhere show"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEAD + HEIGHT}">',
            f"<style>{STYLE}</style>",
            f'<rect width="{width}" height="{HEAD + HEIGHT}" fill="white"/>',
            f'<text class="head" x="12" y="22">{text(head)}</text>',
            *placed,
            "</svg>\n",
        ]
    )


def _chart(distance: NDArray[Any], values: NDArray[Any], band: NDArray[Any], title: str) -> str:
    sides = ([float(v) for v in band[0]], [float(v) for v in band[1]])
    said = f"{title}: {number(float(values[0]))} nearest to a plane."
    axes = ("distance to the nearest plane, voxels", title)
    return curve([float(v) for v in distance], [float(v) for v in values], sides, axes, said)
