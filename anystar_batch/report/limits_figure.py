"""A picture of limits that follow the image: both limits, cell by cell, as SVG without any library.

::

    becomes 0      +------+ +--+        each side is the mean over the axis that it looks along,
                   |  xy  | |zy|        bright cells have high limits; from dark to white
                   +------+ +--+        logarithmically where a limit is many times another
    becomes 1      +------+ +--+
                   |  xy  | |zy|
                   +------+ +--+
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH = 640
"""Of the picture, pixels."""

SIDE, GAP, TOP, LEFT = 170, 14, 22, 12
"""Longest edge of a side, between two, above the first, beside it; pixels."""

MOST = 32
"""Most cells of a side along an axis; of more every second, third, ... is drawn."""


def limits_svg(grid: Mapping[str, Any]) -> str:
    """Draw a grid of limits.

    Parameters
    ----------
    grid : mapping
        As `network.limits_grid.LimitsGrid.to_json` gives it.

    Returns
    -------
    str
        An SVG document.
    """
    low, width = (np.reshape(grid[name], grid["cells"]) for name in ("low", "width"))
    z, y, x = (float(n) for n in grid["shape"])
    unit = SIDE / max(x, y, z)
    tall = max(8.0, unit * y)
    deep = max(8.0, unit * z)
    height = TOP + tall + GAP
    left = LEFT
    parts: list[str] = []
    for name, values in (("becomes 0", low), ("becomes 1", low + width)):
        first, last = float(values.min()), float(values.max())
        parts.append(
            f'<text x="{left}" y="14">{name}: {first:.4g}'
            f"{'' if first == last else f' to {last:.4g}'}</text>"
        )
        grey = _grey(values)
        parts += _side(grey.mean(axis=0), left, max(8.0, unit * x), tall)
        across = left + max(8.0, unit * x) + 6
        parts += _side(grey.mean(axis=2).T, across, deep, tall)
        left += WIDTH // 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        'font-family="sans-serif" font-size="12"><title>Intensities that become 0 and 1, xy and '
        "zy</title>"
    )
    rect = f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>'
    return "\n".join([head, rect, *parts, "</svg>\n"])


def _grey(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as 0 to 1; by their logarithms where all are positive and differ much."""
    least, most = float(values.min()), float(values.max())
    if least > 0.0 and most > 4.0 * least:
        values, least, most = np.log(values), float(np.log(least)), float(np.log(most))
    span = most - least
    scaled: NDArray[np.float64] = (
        (values - least) / span if span > 0.0 else np.full_like(values, 0.5)
    )
    return scaled


def _side(grey: NDArray[np.float64], left: float, width: float, height: float) -> list[str]:
    """Rectangles of one side, rows from the top."""
    rows, columns = (range(0, n, -(-n // MOST)) for n in grey.shape)
    tall, wide = height / len(rows), width / len(columns)
    parts = []
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            level = round(40 + 215 * float(grey[row, column]))
            at = f'x="{left + j * wide:.1f}" y="{TOP + i * tall:.1f}"'
            parts.append(
                f'<rect {at} width="{wide + 0.2:.1f}" '
                f'height="{tall + 0.2:.1f}" fill="rgb({level},{level},{level})"/>'
            )
    edge = f"M{left:.1f} {TOP}h{width:.1f}v{height:.1f}h{-width:.1f}z"
    return [*parts, f'<path d="{edge}" fill="none" stroke="#8a8a8a"/>']
