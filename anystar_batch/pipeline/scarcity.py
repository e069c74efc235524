"""What a run says of its counts; why it found next to nothing: what lay just below.

The tiles with most texture are looked at once more with a lower threshold. It takes as long as one
trial of the probe, and happens only where a run ends with next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anystar_batch.archive.images import ImageReader
from anystar_batch.errors import AnyStarBatchError
from anystar_batch.events import Note
from anystar_batch.pipeline.region import region_text
from anystar_batch.pipeline.texture import textured_tiles
from anystar_batch.stages.predict import tile_candidates
from anystar_batch.stages.region_survey import inside_region, share, wanted_tiles
from anystar_batch.stages.run import Run, removed_counts
from anystar_batch.stages.task import Work, model_rays
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.suppress import suppress

FEW = 3
"""Most objects that may be next to nothing."""

ROOM = 1000
"""Objects for which there must be room for each that was found, if it is next to nothing."""

BELOW = 0.5
"""What lies between the threshold and so much of it is just below."""


def tell_counts(run: Run, parts: Mapping[str, object], count: int) -> None:
    """Say what a run has dropped and removed, and why it has found next to nothing, if it has.

    Parameters
    ----------
    run : Run
        Its label is painted.
    parts : mapping
        What its fingerprint is made of.
    count : int
        Its instances.
    """
    dropped = sum(int(e["too_large"]) for e in run.ledger.entries("predict").values())
    if dropped:
        text = (
            f"{dropped} candidates were larger than the network's largest believable object "
            f"(radius {run.plan.max_radius:g} working voxels) and were dropped; if objects are "
            "missing, give a larger --diameter"
        )
        run.on_event(Note(text))
    removed = removed_counts(run)
    if removed:
        given = parts.get("filters")
        run.on_event(Note(_removed_text(removed, given if isinstance(given, dict) else {})))
    if is_next_to_nothing(run.work, count, sum(removed.values())):
        probe = (run.ledger.entry("plan", "") or {}).get("probe")
        text = little_found(run.work, count, sum(removed.values()), probe)
        run.on_event(Note(text, is_warning=True))


def _removed_text(removed: Mapping[str, int], given: Mapping[str, object]) -> str:
    """How many objects the filters have removed, in words; what was not given is the model's."""
    named = {name: f"--{name.replace('_', '-')}" for name in removed}
    named |= {name: f"the model's own {text}" for name, text in named.items() if name not in given}
    each = ", ".join(f"{n} by {named[name]}" for name, n in removed.items())
    return f"the filters removed {sum(removed.values())} objects: {each}"


def is_next_to_nothing(work: Work, count: int, removed: int) -> bool:
    """Return whether a run has found so little that something may be wrong.

    Parameters
    ----------
    work : Work
    count : int
        Objects that are left.
    removed : int
        Objects that the filters have removed: they were found.
    """
    if count == 0:
        return True
    typical = work.plan.model.diameter
    if count + removed > FEW or typical is None:
        return False
    plan = work.plan
    room = math.prod(plan.working.shape) * len(plan.times) / typical**3
    room *= 1.0 if plan.region is None else share(plan.region, plan.source, plan.times)
    return room >= ROOM * count


def little_found(work: Work, count: int, removed: int, probe: dict[str, Any] | None) -> str:
    """Say what was looked at, in one line.

    Parameters
    ----------
    work : Work
    count, removed : int
        As in `is_next_to_nothing`.
    probe : dict or None
        What the probe found, as the ledger has it.
    """
    plan = work.plan
    region = plan.region
    if region is not None and not share(region, plan.source, plan.times):
        return (
            f"no objects were found: nothing of the image lies inside {region.name} at the times "
            "that were segmented, and nothing was looked at; label and table are empty"
        )
    none = "no objects are left" if removed else "no objects were found"
    few = f"only {count} object{'' if count == 1 else 's'} {'is' if count == 1 else 'are'} left"
    voxel = " x ".join(f"{v:.4g}" for v in plan.working.voxel_um)
    size = "objects of the model's native size"
    if plan.diameter_um is not None:
        size = f"objects of {plan.size_text}"
    pairs = [pair for pair in plan.limits if pair is not None]
    low, high = min(p[0] for p in pairs), max(p[1] for p in pairs)
    parts = [
        f"level {plan.working.level}, working voxel {voxel} um, working shape {plan.working.shape}",
        f"looked for: {size}",
        f"intensities from {low:.6g} (black) to {high:.6g} (white)",
    ]
    if region is not None:
        parts += [f"only inside {region_text(region, plan.source, plan.times)}"]
    parts += [f"the filters removed {removed}"] if removed else []
    parts += [text] if (text := _just_below(work)) else []
    parts += [text] if (text := _alternatives(probe)) else []
    return (
        f"{few if count else none}. Looked at: {'; '.join(parts)}. Check --channel, --diameter and "
        "--voxel-size; a lower --prob-thresh keeps what lies just below"
    )


def _just_below(work: Work) -> str:
    """How many objects the most textured tiles show just below the threshold."""
    plan = work.plan
    lower = replace(work, plan=replace(plan, prob_thresh=BELOW * plan.prob_thresh))
    reader = ImageReader(plan.source)
    pairs = zip(plan.times, plan.limits, strict=True)
    time = next((t for t, pair in pairs if pair and wanted_tiles(plan, t).any()), None)
    if time is None:
        return ""
    try:
        tiles = textured_tiles(plan, reader, time)
        found = [tile_candidates(lower, reader, time, tile)[0] for tile in tiles]
    except AnyStarBatchError:
        return ""  # the sentence is told without it: the run itself has gone well
    rays = model_rays(plan.model)
    together = Candidates.concatenate([Candidates.empty(len(rays)), *found], len(rays))
    survivors = together.take(suppress(together, rays, plan.nms_thresh))
    prob = survivors.take(inside_region(plan, time, survivors.points)).prob
    below = int((prob <= plan.prob_thresh).sum())
    best = f", the best {float(prob.max()):.2g}" if len(prob) else ""
    return (
        f"the {len(tiles)} most textured tiles have {below} candidates between "
        f"{BELOW * plan.prob_thresh:.2g} and the threshold, {plan.prob_thresh:.2g}{best}"
    )


def _alternatives(probe: dict[str, Any] | None) -> str:
    """What the probe found at other scales."""
    if probe is None:
        return ""
    each = [
        f"{t['objects']} of {t['diameter_um']:.3g} um with voxels of {t['voxel_um']:.3g} um"
        for t in probe["trials"]
        if t["objects"]
    ]
    return "the probe found " + (", ".join(each) if each else "nothing at any scale")
