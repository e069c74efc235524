"""Colours for the labels of a small image: neighbours in number are far apart in hue."""

from __future__ import annotations

import colorsys

from anystar_batch.archive.ngff import JSON

MOST = 256
"""Labels that get a colour each; with more, viewers do better by their own hash."""

GOLDEN = 0.618033988749895
"""Step of the hue: no two of many are alike."""


def colours(count: int) -> list[JSON]:
    """Return the colours of labels 1 to `count` as `image-label` wants them; none if too many.

    Parameters
    ----------
    count : int
        Number of labels.

    Returns
    -------
    list of dict
        `label-value` and `rgba`, opaque, 0 to 255.

    Examples
    --------
    >>> colours(1)
    [{'label-value': 1, 'rgba': [82, 129, 242, 255]}]
    """
    if count > MOST:
        return []
    found: list[JSON] = []
    for label in range(1, count + 1):
        saturation = 0.66 + 0.09 * (1 - label % 2)
        value = 0.95 - 0.05 * (1 - label % 2)
        rgb = colorsys.hsv_to_rgb(label * GOLDEN % 1.0, saturation, value)
        found.append({"label-value": label, "rgba": [*(round(255 * c) for c in rgb), 255]})
    return found
