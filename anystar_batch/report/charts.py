"""Charts as inline SVG, drawn by hand; every chart says in words what it shows.

Colours come from the page's style, so that they turn dark with it.

::

    TOP  +--------------------+
         |   marks            |     x: value, linear or logarithmic
         |                    |     y: from 0 upwards, or between two values
         +--------------------+
    LEFT   ticks, axis title     RIGHT
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 300, 190
"""Size of a chart, units of its own."""

LEFT, RIGHT, TOP, BOTTOM = 52, 10, 20, 38
"""Margins around the axes."""

BINS = (6, 36)
"""Fewest and most bars of a histogram; between them twice the cube root of the values."""

TICKS = 5
"""Ticks aimed at."""

_SUPER = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart.

    Parameters
    ----------
    low, high : float
        What it spans.
    title : str
        What it shows, with the unit.
    is_log : bool
        Whether it is logarithmic.
    """

    low: float
    high: float
    title: str = ""
    is_log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1."""
        low, high, at = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return (at - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[float]:
        """Return round values inside, at most a few."""
        if not self.is_log:
            return _round_ticks(self.low, self.high)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for steps in ((1,), (1, 3), (1, 2, 5)):
            marks = [s * 10.0**k for k in range(first, last + 1) for s in steps]
            inside = [v for v in marks if self.low <= v <= self.high]
            if len(inside) >= 3:
                return inside[:: -(-len(inside) // (TICKS + 1))]
        return _round_ticks(self.low, self.high)


def histogram(
    values: NDArray[Any],
    title: str,
    *,
    is_log: bool = False,
    span: tuple[float, float] | None = None,
) -> str:
    """Draw how values are distributed, with a line at their median.

    Parameters
    ----------
    values : [n]
        Finite; positive if logarithmic.
    title : str
        What they are, with the unit.
    is_log : bool
        Whether the bars are equally wide in the logarithm.
    span : (low, high), optional
        What to show; None is from the least to the largest.

    Returns
    -------
    str
        SVG; a line of text where there is nothing to show.
    """
    values = values[np.isfinite(values) & ((values > 0) | (not is_log))]
    if len(values) == 0:
        return _nothing(title)
    low, high = span if span is not None else (float(values.min()), float(values.max()))
    if low >= high:
        pad = abs(low) * 0.1 or 1.0
        low, high = (low / 1.1, high * 1.1) if is_log else (low - pad, high + pad)
    x = Axis(low, high, title, is_log)
    bins = int(np.clip(math.ceil(2 * len(values) ** (1 / 3)), *BINS))
    edges = np.geomspace(low, high, bins + 1) if is_log else np.linspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    counts = np.histogram(values, edges)[0]
    y = Axis(0.0, float(counts.max()) * 1.06, "instances")
    bars = []
    for k, count in enumerate(counts):
        left, right = _x(x, float(edges[k])), _x(x, float(edges[k + 1]))
        top = _y(y, float(count))
        if count:
            bars.append(
                f'<rect class="bar" x="{left + 0.4:.1f}" y="{top:.1f}" '
                f'width="{right - left - 0.8:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"/>'
            )
    low, middle, high = (float(v) for v in np.percentile(values, [5, 50, 95]))
    at = _x(x, min(max(middle, x.low), x.high))
    mark = f'<path class="mark" d="M{at:.1f} {TOP - 4}V{HEIGHT - BOTTOM}"/>' + _text(
        at, TOP - 6, f"median {number(middle)}", "marked", _anchor(at)
    )
    said = (
        f"Histogram of {title}: median {number(middle)}, nine in ten between {number(low)} and "
        f"{number(high)}."
    )
    return _svg(said, [*_frame(x, y), *bars, mark])


def steps(edges: NDArray[Any], heights: NDArray[Any], x_title: str, y_title: str) -> str:
    """Draw heights over equal parts of an axis, as an area.

    Parameters
    ----------
    edges : [n + 1]
        Ends of the parts.
    heights : [n]
        Not negative.
    x_title, y_title : str
        What they are, with the unit.
    """
    if not len(heights):
        return _nothing(x_title)
    x = Axis(float(edges[0]), float(edges[-1]), x_title)
    y = Axis(0.0, float(heights.max()) * 1.08 or 1.0, y_title)
    points = []
    for k, height in enumerate(heights):
        top = _y(y, float(height))
        points += [f"{_x(x, float(edges[k])):.1f} {top:.1f}"]
        points += [f"{_x(x, float(edges[k + 1])):.1f} {top:.1f}"]
    floor = HEIGHT - BOTTOM
    line = "L".join(points)
    area = f"M{LEFT} {floor}L{line}L{WIDTH - RIGHT} {floor}Z"
    said = (
        f"{y_title} along {x_title}: from {number(float(heights.min()))} to "
        f"{number(float(heights.max()))}."
    )
    marks = [f'<path class="area" d="{area}"/>', f'<path class="line" d="M{line}"/>']
    return _svg(said, [*_frame(x, y), *marks])


def curve(
    x_values: Sequence[float],
    y_values: Sequence[float],
    band: tuple[Sequence[float], Sequence[float]],
    titles: tuple[str, str],
    said: str,
) -> str:
    """Draw points around 1, and the band in which they are expected.

    Parameters
    ----------
    x_values, y_values : sequence of float
        NaN where there is none.
    band : (low, high)
        Sequences like `y_values`.
    titles : (x, y)
        What they are, with the unit.
    said : str
        What the chart shows, in words.
    """
    shown = [k for k, v in enumerate(y_values) if math.isfinite(v) and math.isfinite(band[0][k])]
    if len(shown) < 2:
        return _nothing(titles[1])
    values = [v for k in shown for v in (y_values[k], band[0][k], band[1][k], 1.0)]
    room = 0.08 * (max(values) - min(values)) or 0.1
    x = Axis(0.0, float(max(x_values[k] for k in shown)) * 1.03, titles[0])
    y = Axis(max(0.0, min(values) - room), max(values) + room, titles[1])
    upper = "L".join(_point(x, y, x_values[k], band[1][k]) for k in shown)
    lower = "L".join(_point(x, y, x_values[k], band[0][k]) for k in reversed(shown))
    line = "L".join(_point(x, y, x_values[k], y_values[k]) for k in shown)
    dots = [
        f'<circle class="dot" cx="{_x(x, x_values[k]):.1f}" cy="{_y(y, y_values[k]):.1f}" r="2.6"/>'
        for k in shown
    ]
    one = f'<path class="one" d="M{LEFT} {_y(y, 1.0):.1f}H{WIDTH - RIGHT}"/>'
    inner = [f'<path class="band" d="M{upper}L{lower}Z"/>', one]
    return _svg(said, [*_frame(x, y), *inner, f'<path class="line" d="M{line}"/>', *dots])


def number(value: float) -> str:
    """Return a number for reading: three digits, thousands apart, powers of ten far out.

    Examples
    --------
    >>> number(1234567), number(0.012345), number(12.345), number(3.2e12)
    ('1,234,567', '0.0123', '12.3', '3.2·10¹²')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    size = abs(value)
    if size >= 1e10 or size < 1e-3:
        power = math.floor(math.log10(size))
        return f"{value / 10**power:.3g}·10{str(power).translate(_SUPER)}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _frame(x: Axis, y: Axis) -> list[str]:
    """Axes, ticks and titles."""
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path class="axis" d="M{LEFT} {floor}H{right}"/>']
    for value in y.ticks():
        at = _y(y, value)
        parts.append(f'<path class="rule" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(_text(LEFT - 5, at + 3.5, _short(value), "tick", "end"))
    for value in x.ticks():
        at = _x(x, value)
        parts.append(f'<path class="axis" d="M{at:.1f} {floor}v4"/>')
        parts.append(_text(at, floor + 15, _short(value), "tick", "middle"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 5, x.title, "title", "middle"))
    middle = (TOP + floor) / 2
    parts.append(
        f'<text class="title" text-anchor="middle" transform="translate(10 {middle:.1f}) '
        f'rotate(-90)">{escape(y.title)}</text>'
    )
    return parts


def _short(value: float) -> str:
    """A tick's number: 12000 is 12k."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if sign == 'k' else unit):g}{sign}"
    return f"{value:g}" if value == 0 or abs(value) >= 1e-3 else number(value)


def _round_ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / TICKS)) if high > low else 1.0
    step *= next(m for m in (1, 2, 2.5, 5, 10) if (high - low) / (m * step) <= TICKS)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + k) * step, 12) for k in range(count)]


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {where}>{escape(text)}</text>'


def _anchor(x: float) -> str:
    """How a text at x stays inside the chart."""
    if x > WIDTH - RIGHT - 50:
        return "end"
    return "start" if x < LEFT + 45 else "middle"


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.share(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - BOTTOM - TOP)


def _point(x: Axis, y: Axis, a: float, b: float) -> str:
    return f"{_x(x, a):.1f} {_y(y, b):.1f}"


def _nothing(title: str) -> str:
    return f'<p class="nothing">Nothing to show for {escape(title)}.</p>'


def _svg(said: str, parts: list[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(said)}"><title>{escape(said)}</title>{"".join(parts)}</svg>'
    )
