"""Whether two label volumes are the same partition of the voxels into objects, and where not.

Numbers do not matter: two volumes are the same partition if every object of one has exactly the
voxels of one object of the other. All of it is read off the table of shared voxels (`overlaps`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.measure.overlaps import Objects, Overlaps

EDGES = (0.0, 0.1, 0.5, 0.7, 0.9, 1.0)
"""Between these IoU the objects that differ are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Each object of two volumes, and how well the other volume has it.

    Parameters
    ----------
    ours, theirs : Objects
        Of each side, ascending by label.
    iou_ours, iou_theirs : float64 [n]
        The largest IoU of each object with one of the other side: exactly 1 if it is there voxel
        by voxel, 0 if nothing of it is.
    """

    ours: Objects
    theirs: Objects
    iou_ours: NDArray[np.float64]
    iou_theirs: NDArray[np.float64]

    @property
    def equal(self) -> int:
        """Objects that both have, voxel by voxel."""
        return int((self.iou_ours == 1).sum())

    @property
    def is_same(self) -> bool:
        """Whether the two are the same partition."""
        return bool((self.iou_ours == 1).all() and (self.iou_theirs == 1).all())

    def to_json(self) -> dict[str, Any]:
        """Return counts as plain JSON values."""
        sides = {"labels": self.iou_ours, "against": self.iou_theirs}
        return {
            "same": self.is_same,
            "equal": self.equal,
            "objects": {name: len(iou) for name, iou in sides.items()},
            "differing": {name: int((iou < 1).sum()) for name, iou in sides.items()},
            "iou_of_differing": {
                name: [
                    {"from": low, "below": high, "objects": _between(iou, low, high)}
                    for low, high in itertools.pairwise(EDGES)
                ]
                for name, iou in sides.items()
            },
        }


def compare(overlaps: Overlaps) -> Agreement:
    """Compare two label volumes.

    Parameters
    ----------
    overlaps : Overlaps
        Voxels shared; the first of each pair (`true`) is ours.

    Returns
    -------
    Agreement

    Examples
    --------
    >>> from anystar_batch.measure.overlaps import match
    >>> a, b = np.array([1, 1, 2, 2, 0, 3]), np.array([7, 7, 5, 0, 0, 4])
    >>> found = compare(match(a, b))
    >>> found.is_same, found.equal, found.iou_ours.tolist()
    (False, 2, [1.0, 0.5, 1.0])
    """
    ours, theirs = overlaps.true_objects(), overlaps.found_objects()
    both = (ours.index >= 0) & (theirs.index >= 0)
    at, to, shared = ours.index[both], theirs.index[both], overlaps.voxels[both]
    union = ours.voxels[at] + theirs.voxels[to] - shared
    # The quotient of two different integers may round to 1 beyond 2^53 voxels only.
    iou = shared / union
    best = []
    for count, index in ((len(ours.labels), at), (len(theirs.labels), to)):
        most = np.zeros(count)
        np.maximum.at(most, index, iou)
        best.append(most)
    return Agreement(ours, theirs, best[0], best[1])


def _between(iou: NDArray[np.float64], low: float, high: float) -> int:
    return int(((iou >= low) & (iou < high)).sum())
