"""What a review knows of a volume, as labels for training: much is not known, and says so.

::

    0                not known: nobody looked, or what was there is wrong
    label            an instance that was called right
    BACKGROUND       beside one that is right, and nothing next to it was missed

0 where nothing is known costs nothing: no chunk is stored, and a viewer shows the image through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box

BACKGROUND = 2**32 - 1
"""Label of background that is known to be one."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A reviewed instance.

    Parameters
    ----------
    label : int
    around : Box
        Itself and what a person sees beside it, voxels.
    is_right : bool
    is_complete : bool
        Whether nothing next to it was missed.
    """

    label: int
    around: Box
    is_right: bool
    is_complete: bool


def partial_truth(
    labels: NDArray[np.uint32], box: Box, judged: Sequence[Judged]
) -> NDArray[np.uint32]:
    """Return what is known of a box.

    Parameters
    ----------
    labels : uint32 (z, y, x)
        The label that was reviewed, 0 is background.
    box : Box
        Where it lies.
    judged : sequence of Judged
        All whose `around` shares a voxel with the box, in any order: the result is the same.

    Returns
    -------
    uint32 (z, y, x)
        Of the module's three kinds. Where a wrong instance or a missed object may reach, nothing is
        known but the right instances themselves.
    """
    known = np.zeros_like(labels)
    parts = [(one, one.around.intersect(box).relative_to(box.start).slices) for one in judged]
    for one, part in parts:
        if one.is_right:
            known[part][labels[part] == 0] = BACKGROUND
    for one, part in parts:
        if not (one.is_right and one.is_complete):
            known[part] = 0
    for one, part in parts:
        if one.is_right:
            known[part][labels[part] == one.label] = one.label
    return known
