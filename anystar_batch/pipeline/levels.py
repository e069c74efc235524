"""Which levels of an image are read, and what to say of those that are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from anystar_batch.archive.ngff import ImageSource
from anystar_batch.config import ResultConfig
from anystar_batch.network.scale import working_scale
from anystar_batch.stages.levels import Verdict
from anystar_batch.stages.plan import Plan, level_scales


def with_verdicts(source: ImageSource, verdicts: Sequence[Verdict]) -> ImageSource:
    """Return an image of which only those levels are read that agree with level 0."""
    return replace(source, unused=tuple(v.level for v in verdicts if not v.agrees))


def level_warnings(plan: Plan, config: ResultConfig, verdicts: Sequence[Verdict]) -> list[str]:
    """Return what to say of levels that are left out or not used, and what that costs.

    Parameters
    ----------
    plan : Plan
        Which level the network reads.
    config : ResultConfig
    verdicts : sequence of Verdict
        Of every level.
    """
    source = plan.source
    texts = [
        f"{source.path}: level {path} is left out, of the label too: {why}"
        for path, why in source.left_out
    ]
    without = _level_if_all_agreed(plan, config)
    for verdict in verdicts:
        if verdict.lost:
            texts.append(
                f"{source.path}: level 0 holds nothing where level {verdict.level} shows "
                f"something, at {verdict.lost}: chunks of level 0 may be missing; it is not "
                "repaired"
            )
        if verdict.agrees:
            continue
        level = source.levels[verdict.level]
        said = f"{source.path}: level {verdict.level} ({level.path}) does not agree with level 0: "
        said += f"{verdict.why}. "
        if config.level == verdict.level:
            texts.append(f"{said}It is read all the same, as --level asks for it")
            continue
        said += "It is not used; " + _cost(plan, verdict.level, without)
        if level.fault:
            said += "; level " + level.path + " of the label lies where its shape says"
        texts.append(said)
    if source.left_out and len(source.readable) == 1:
        texts.append(
            f"{source.path}: only level 0 is left of {len(source.levels) + len(source.left_out)} "
            f"levels; {_cost(plan, 0, without)}"
        )
    return texts


def _level_if_all_agreed(plan: Plan, config: ResultConfig) -> int:
    """The level that the network would read if all of them agreed."""
    if config.level is not None or plan.diameter_um is None or plan.model.diameter is None:
        return plan.working.level
    scales, _ = level_scales(plan.source, config)
    shapes = [plan.source.shape_zyx(k) for k in range(len(scales))]
    voxel_um = plan.diameter_um / plan.model.diameter
    return working_scale(voxel_um, scales, shapes, elongation=plan.elongation).level


def _cost(plan: Plan, level: int, without: int) -> str:
    """What it costs that a level is not used."""
    used = plan.working.level
    if not used < level <= without:
        return f"the network reads level {used}"
    sizes = [math.prod(plan.source.shape_zyx(k)) for k in (used, without)]
    return (
        f"the network reads level {used} instead of {without}, "
        f"{sizes[0] / sizes[1]:.3g} times as many voxels"
    )
