"""A picture of the probe: what each working scale found, as SVG without any library.

::

    evidence |        o                     0.75 um: none
             |  o             *              1.5 um: 41 of 9.8 um
             |                        o      2.1 um: 38 of 10.3 um   <- chosen
             +--------------------------
               working voxel (log)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Trial = Mapping[str, Any]
"""One of the probe's `trials`, as plain JSON values."""

WIDTH, HEIGHT = 640, 320
"""Size of the picture, pixels."""

LEFT, RIGHT, TOP, BOTTOM = 64, 210, 48, 56
"""Margins around the axes, pixels."""

LINE = 20
"""From one line of the list to the next, pixels."""

TICK_WIDTH = 36
"""Room that the number at a tick takes, pixels."""

INK, PALE, MARK = "#222222", "#8a8a8a", "#c0392b"
"""Colours of text and axes, of the scales left aside, of the chosen one."""


def probe_svg(probe: Mapping[str, Any]) -> str:
    """Draw a probe.

    Parameters
    ----------
    probe : mapping
        As `Probe.to_json` gives it.

    Returns
    -------
    str
        An SVG document.
    """
    trials: list[Trial] = probe["trials"]
    chosen = max(trials, key=lambda t: float(t["evidence"])) if probe["is_certain"] else None
    title = (
        f"Diameter {probe['diameter_um']:.3g} um"
        if probe["is_certain"]
        else "No objects at any scale: the image's own scale is used"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{title}</text>',
        *_axes(trials),
    ]
    for line, trial in enumerate(sorted(trials, key=lambda t: float(t["voxel_um"]))):
        parts += _mark(trial, _place(trial, trials), trial is chosen, TOP + LINE * (line + 1))
    return "\n".join([*parts, "</svg>\n"])


def _place(trial: Trial, trials: Sequence[Trial]) -> tuple[float, float]:
    """Pixels of a trial: working voxel logarithmic along x, evidence up."""
    logs = [math.log(t["voxel_um"]) for t in trials]
    middle, half = (min(logs) + max(logs)) / 2, max((max(logs) - min(logs)) / 2, 0.1) * 1.25
    top = max((t["evidence"] for t in trials), default=0.0) or 1.0
    x = (math.log(trial["voxel_um"]) - middle) / half * 0.5 + 0.5
    return (
        LEFT + x * (WIDTH - LEFT - RIGHT),
        HEIGHT - BOTTOM - trial["evidence"] / top * 0.85 * (HEIGHT - TOP - BOTTOM),
    )


def _axes(trials: Sequence[Trial]) -> list[str]:
    """Axes, their names, and a tick at every scale."""
    floor = HEIGHT - BOTTOM
    lines = [
        f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="{INK}"/>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 10}" text-anchor="middle">'
        "working voxel, um</text>",
        f'<text transform="translate(18 {(TOP + floor) / 2:.1f}) rotate(-90)" '
        'text-anchor="middle">surface of the finds, 1/um</text>',
    ]
    top = max((t["evidence"] for t in trials), default=0.0)
    if top > 0.0:
        y = _place(max(trials, key=lambda t: t["evidence"]), trials)[1]
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top:.2g}</text>')
    free = -math.inf
    for trial in sorted(trials, key=lambda t: float(t["voxel_um"])):
        x, voxel = _place(trial, trials)[0], f"{trial['voxel_um']:.3g}"
        lines.append(f'<path d="M{x:.1f} {floor}v5" stroke="{INK}"/>')
        if x > free:
            lines.append(f'<text x="{x:.1f}" y="{floor + 19}" text-anchor="middle">{voxel}</text>')
            free = x + TICK_WIDTH
    return lines


def _mark(trial: Trial, centre: tuple[float, float], is_chosen: bool, line: int) -> list[str]:
    """A dot, and what was found there, in the list beside the axes."""
    x, y = centre
    colour, size = (MARK, 6) if is_chosen else (PALE, 4)
    objects = f"{trial['objects']} of {trial['diameter_um']:.3g} um" if trial["objects"] else "none"
    text = f"{trial['voxel_um']:.3g} um: {objects}"
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}"/>',
        f'<text x="{WIDTH - RIGHT + 20}" y="{line}" fill="{colour}">{text}</text>',
    ]
