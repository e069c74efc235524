"""What the stars themselves say of instances, beside the voxels that they own.

Values are of one star alone: the same bits whoever asks, among whichever others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region_survey import region_at
from anystar_batch.stages.surface import shown
from anystar_batch.stages.task import model_rays
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.measures import COLUMNS, regularity, shapes


def score_type(plan: Plan) -> np.dtype[np.void]:
    """Return the record of an instance, in the order of the table's columns.

    Returns
    -------
    dtype
        `prob`; with a region its number, `region`, int64; float32 all others: `quality` after the
        second look; `contrast` and `regularity` where their filter was given; the shapes asked for.
    """
    filters = plan.filters
    fields = [("prob", "<f4")]
    fields += [("region", "<i8")] if plan.region is not None else []
    names = ["quality"] if plan.second_look is not None else []
    names += ["contrast"] if filters.min_contrast is not None else []
    names += ["regularity"] if filters.min_regularity is not None else []
    names += [COLUMNS[name] for name in plan.measure]
    return np.dtype([*fields, *((name, "<f4") for name in names)])


def star_scores(plan: Plan, time: int, survivors: Candidates) -> NDArray[np.void]:
    """Return what stars say of themselves.

    Parameters
    ----------
    plan : Plan
    time : int
    survivors : Candidates
        Instances of this time, as they survived.

    Returns
    -------
    records [n]
        `score_type`.
    """
    scores = np.zeros(len(survivors), score_type(plan))
    names, rays = scores.dtype.names or (), model_rays(plan.model)
    scores["prob"] = survivors.prob
    if "region" in names:
        scores["region"] = region_at(plan, time, survivors.points)
    if "quality" in names and survivors.quality is not None:
        scores["quality"] = survivors.quality
    if "contrast" in names and survivors.contrast is not None:
        scores["contrast"] = survivors.contrast
    if "regularity" in names:
        scores["regularity"] = regularity(survivors.dist, rays)
    if plan.measure:
        dist = shown(plan, survivors).dist
        for name, values in shapes(dist, rays, plan.working.voxel_um, plan.measure).items():
            scores[name] = values
    return scores
