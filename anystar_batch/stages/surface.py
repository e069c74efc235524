"""Where the surfaces of survivors are put at last: the outline that was asked for, then moved.

What suppression compares are the visible surfaces. `--outline` and `--expand` come after it, when
survivors are counted, painted and measured: they decide where surfaces lie, never who survives.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stages.plan import Plan
from anystar_batch.stages.task import model_rays
from anystar_batch.stars.candidates import LEAST_STEP, Candidates


def outlined(survivors: Candidates) -> Candidates:
    """Return survivors with their surfaces where `--outline` puts them; without it as they are."""
    if survivors.fall is None:
        return survivors
    return replace(survivors, dist=survivors.dist * survivors.fall[:, None], fall=None)


def shown(plan: Plan, survivors: Candidates) -> Candidates:
    """Return survivors with the surfaces that are painted and measured.

    Parameters
    ----------
    plan : Plan
    survivors : Candidates
        As they survived.

    Returns
    -------
    Candidates
        Outlined, and every corner moved along its ray by `plan.expand_um`. A corner that would pass
        its centre stops there.
    """
    stars = outlined(survivors)
    if not plan.expand_um:
        return stars
    moved = np.maximum(stars.dist + _shifts(plan), np.float32(LEAST_STEP))
    return replace(stars, dist=moved)


def lasts(plan: Plan, survivors: Candidates) -> NDArray[np.bool_]:
    """Return who is left when surfaces are moved inward: bool [n], False for the too thin."""
    return np.asarray((outlined(survivors).dist + _shifts(plan) > 0.0).any(axis=1))


def growth(plan: Plan) -> float:
    """Return how far a surface moves outward at most, working voxels."""
    return max(float(_shifts(plan).max()), 0.0)


def _shifts(plan: Plan) -> NDArray[np.float32]:
    """How far each corner moves along its ray, float32 [n_rays], working voxels."""
    steps = model_rays(plan.model).vertices * np.asarray(plan.working.voxel_um)
    shifts: NDArray[np.float32] = (plan.expand_um / np.linalg.norm(steps, axis=1)).astype(
        np.float32
    )
    return shifts
