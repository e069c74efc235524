"""Which survivors the filters remove: each by its own values, whatever is around it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from anystar_batch.plan import Plan
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.measures import regularity
from anystar_batch.stars.polyhedra import volumes
from anystar_batch.stars.rays import Rays


def removed(plan: Plan, survivors: Candidates, rays: Rays) -> dict[str, NDArray[np.bool_]]:
    """Return which survivors each filter removes.

    Parameters
    ----------
    plan : Plan
    survivors : Candidates
        With contrasts, if the plan filters by contrast.
    rays : Rays

    Returns
    -------
    dict
        Name of the filter to bool [n], in the order in which they act: who fails several is removed
        by the first. Only filters that were given.

    Raises
    ------
    ValueError
        If contrasts are needed and were not measured.

    Notes
    -----
    A limit itself is kept. Values that a filter reads are those of the table, float32; a contrast
    that cannot be measured (NaN) removes nobody.
    """
    filters = plan.filters
    standing = np.ones(len(survivors), np.bool_)
    found: dict[str, NDArray[np.bool_]] = {}

    def remove(name: str, fails: NDArray[np.bool_]) -> None:
        found[name] = standing & fails
        standing[fails] = False

    if filters.min_volume is not None or filters.max_volume is not None:
        least, most = filters.volume_range(plan.scale_um)
        voxels = volumes(survivors.dist, rays) * math.prod(plan.lattice.scale)
        if filters.min_volume is not None:
            remove("min_volume", voxels < least)
        if filters.max_volume is not None:
            remove("max_volume", voxels > most)
    if filters.min_prob is not None:
        remove("min_prob", survivors.prob < np.float32(filters.min_prob))
    if filters.min_contrast is not None:
        measured = survivors.contrast
        if measured is None and len(survivors):
            message = "filters: survivors have no contrast; it is measured with the candidates"
            raise ValueError(message)
        values = np.empty(0, np.float32) if measured is None else measured
        remove("min_contrast", values < np.float32(filters.min_contrast))
    if filters.min_regularity is not None:
        # A hull is dear: only of those that no other filter removes.
        fails = np.zeros(len(survivors), np.bool_)
        solid = regularity(survivors.dist[standing], rays)
        fails[standing] = solid < np.float32(filters.min_regularity)
        remove("min_regularity", fails)
    return found
