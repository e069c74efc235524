"""Propose the objects' diameter when the user gives none: try five working scales on two regions.

The network finds objects over a range of sizes around the one it was made for, and a second look
refines each at the image's own resolution. So each trial scale votes (how much surface its trusted
finds of a size the network knows have) and measures (their median diameter in micrometres); the
winner's diameter is proposed, and how much longer its finds are along z than across: a microscope
blurs along its axis, and the network, made for objects as wide as long, splits what is much longer.
Votes by volume favour the one
large thing that a coarse scale finds, votes by number the crumbs of a fine one.
Trial scales and regions follow from the image alone: the probe gives the same answer every time.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress as suppress_error
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.config import MAX_SCALE, ResultConfig
from anystar_batch.errors import ConfigError
from anystar_batch.events import BlockDone, Listener, StageStarted, ignore, timed_stage
from anystar_batch.geometry import ZYX
from anystar_batch.network.model import Model
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.network.scale import elongations, squeeze
from anystar_batch.network.tiles import View, plan_tiles
from anystar_batch.pipeline.texture import Texture, searched_voxels, texture_inside, textured_tiles
from anystar_batch.stages.plan import Plan, level_scales, make_plan
from anystar_batch.stages.predict import tile_candidates
from anystar_batch.stages.refine import refine_survivors
from anystar_batch.stages.region import Region
from anystar_batch.stages.region_survey import inside_region
from anystar_batch.stages.second_look import wanted_refiner
from anystar_batch.stages.task import Work, model_rays
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.polyhedra import spreads, volumes
from anystar_batch.stars.suppress import suppress

TRIALS = (0.75, 1.06, 1.5, 2.12, 3.0)
"""Trial working voxels, in level-0 voxels of the plane."""

EDGE = 128
"""Edge of a region looked at, level-0 voxels of the plane: the same at every trial scale, so that
it costs what a region holds, and no scale is shown more of the void than another."""

CONTEXT = 16
"""Most context around it, working voxels: less than a run's, as sizes are told by many objects."""

KNOWN = (0.857, 2.857)
"""Finds that count, in diameters of the network's typical object: what noise makes is smaller."""

CONFIDENT = 0.7
"""Least probability of a find that counts, where there is no second look."""

TRUSTED = (0.5, 0.3)
"""Least probability and quality of a find that counts, after a second look."""

REFINED = (0.833, 3.333)
"""As `KNOWN`, after a second look: it tells objects from what noise makes."""

CLEAR = (0.5, 0.5)
"""Least probability and quality of a find that speaks for another population."""

APART = 2.75
"""Least ratio of the diameters of two populations: nearer ones show at one scale."""

SECOND = (5, 0.15)
"""Fewest objects of another population, and their least share of the winner's evidence."""


Find = Callable[[Work, ImageReader, int, ZYX], tuple[Candidates, int]]
"""Finds the candidates of a tile, as `tile_candidates` does."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one working scale found.

    Parameters
    ----------
    voxel_um : float
        Working voxel, micrometres.
    objects : int
        Confident finds of a size the network knows.
    diameter_um : float
        Their median diameter, micrometres; 0 without any.
    evidence : float
        Their surface (volume to the power 2/3), weighted by their probability, per volume of the
        tiles, 1 / micrometre.
    elongation : float
        Their median length along z over that across; 1 without any.
    """

    voxel_um: float
    objects: int
    diameter_um: float
    evidence: float
    elongation: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Finds:
    """The clear finds of a trial: those that speak for a population of their own.

    Parameters
    ----------
    diameters_um : float64 [n]
        Micrometres.
    surfaces : float64 [n]
        What each adds to the evidence, 1 / micrometre.
    """

    diameters_um: NDArray[np.float64]
    surfaces: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Population:
    """Objects of quite another size than the proposed one.

    Parameters
    ----------
    objects : int
        So many were found.
    diameter_um : float
        Their median diameter, micrometres.
    evidence : float
        Their surface per volume of the tiles, 1 / micrometre.
    """

    objects: int
    diameter_um: float
    evidence: float


@dataclass(frozen=True, slots=True)
class Probe:
    """The proposal and what it rests on.

    Parameters
    ----------
    diameter_um : float
        Diameter of a typical object, micrometres.
    trials : tuple of Trial
        One a working scale, in the order in which they were tried.
    is_certain : bool
        Whether any trial found objects; if none did, level 0's scale is taken.
    other : Population or None
        Another population, where the evidence for one is clear.
    elongation : float
        Length of the objects along z over that across, at which they are looked at.
    """

    diameter_um: float
    trials: tuple[Trial, ...]
    is_certain: bool
    other: Population | None = None
    elongation: float = 1.0

    def to_json(self) -> dict[str, object]:
        """Return the proposal as plain JSON values."""
        return {
            "diameter_um": self.diameter_um,
            "is_certain": self.is_certain,
            "elongation": self.elongation,
            "trials": [asdict(trial) for trial in self.trials],
        } | ({} if self.other is None else {"other_population": asdict(self.other)})


def probe_diameter(  # noqa: PLR0913  (what makes a plan, what runs it, who is told)
    reader: ImageReader,
    model: Model,
    config: ResultConfig,
    limits: tuple[tuple[float, float] | None, ...],
    factory: PredictorFactory,
    threads: int,
    on_event: Listener = ignore,
    region: Region | None = None,
    find: Find = tile_candidates,
) -> Probe:
    """Propose the diameter of the objects.

    Parameters
    ----------
    reader : ImageReader
        The image.
    model : Model
        With a known diameter.
    config : ResultConfig
    limits : tuple of (low, high) or None
        Intensity limits of the selected times; the first with contrast is looked at.
    factory : PredictorFactory
        Makes the network.
    threads : int
        Threads of the network.
    on_event : callable
        Told of every scale as of a block.
    region : Region, optional
        Where to look; what is found elsewhere does not count.
    find : callable, optional
        Finds the candidates of a tile, as `tile_candidates` does.

    Returns
    -------
    Probe

    Raises
    ------
    ConfigError
        If the model has no known diameter.
    """
    if model.diameter is None:
        message = f"model {model.name} has no known diameter: nothing can be probed"
        raise ConfigError(message)
    has_refiner = wanted_refiner(model, config) is not None
    # By the model's own thresholds: how big objects are does not depend on how many are wanted.
    refine = "on" if has_refiner else "off"
    asked = replace(
        config, scales=(1,), refine=refine, prob_thresh=None, nms_thresh=None, tile=None
    )
    scales, _ = level_scales(reader.source, config)
    base = min(scales[0][1], scales[0][2])
    typical = model.diameter

    plans: list[tuple[float, Plan]] = []
    for factor in TRIALS:
        # Where the volume is too small for a scale, it is left out.
        with suppress_error(ConfigError):
            voxel_um = factor * base
            diameter = voxel_um * typical
            plan = make_plan(reader, model, asked, diameter, limits, region=region)
            plans.append((voxel_um, _in_regions(plan, factor)))
    trials: list[Trial] = []
    finds: list[Finds] = []
    seen: Texture | None = None
    with timed_stage(on_event, StageStarted("probe", len(plans))):
        for voxel_um, plan in plans:
            began = clock.perf_counter()
            seen = seen or texture_inside(plan, reader, _time_looked_at(plan))
            trial, clear = _trial(Work(plan, "", "", factory, threads), voxel_um, find, seen)
            trials.append(trial)
            finds.append(clear)
            on_event(BlockDone("probe", f"{voxel_um:.3g} um", clock.perf_counter() - began))
    best = max(trials, key=lambda t: t.evidence, default=None)
    given, tried = config.elongation, tuple(trials)
    if best is None or best.objects == 0:
        alike = 1.0 if given is None else given
        return Probe(base * typical, tried, is_certain=False, elongation=alike)
    other = _other_population(best, finds) if has_refiner else None
    elongation = squeeze(best.elongation, best.objects) if given is None else given
    return Probe(best.diameter_um, tried, is_certain=True, other=other, elongation=elongation)


def _in_regions(plan: Plan, factor: float) -> Plan:
    """A trial's plan whose tiles are the regions, as near as the network can take them."""
    step = max(plan.model.divisor)
    edge = max(1, round(EDGE / factor / step)) * step
    context = min(plan.model.context, -(-CONTEXT // step) * step)
    tiles = plan_tiles(plan.working.shape, edge, context, plan.model.divisor)
    return replace(plan, views=(View(1, tiles),))


def _other_population(best: Trial, finds: Sequence[Finds]) -> Population | None:
    """The population of quite another size for which one trial has most evidence, if it is clear.

    What is larger or smaller by less than `APART` shows at the winner's scale.
    """
    found = []
    for each in finds:
        ratio = each.diameters_um / best.diameter_um
        for apart in (ratio >= APART, ratio <= 1.0 / APART):
            if apart.any():
                median = float(np.median(each.diameters_um[apart]))
                evidence = float(each.surfaces[apart].sum())
                found.append(Population(int(apart.sum()), median, evidence))
    clear = [p for p in found if p.objects >= SECOND[0] and p.evidence >= SECOND[1] * best.evidence]
    return max(clear, key=lambda p: p.evidence, default=None)


def _time_looked_at(plan: Plan) -> int:
    """The first of a plan's times that shows any contrast."""
    return next(t for t, pair in zip(plan.times, plan.limits, strict=True) if pair is not None)


def _trial(work: Work, voxel_um: float, find: Find, seen: Texture) -> tuple[Trial, Finds]:
    """Run the network on the most textured tiles of one scale, and measure what it finds."""
    plan = work.plan
    reader, time = ImageReader(plan.source), _time_looked_at(plan)
    rays = model_rays(plan.model)
    per_tile, searched = [Candidates.empty(len(rays))], 0
    for tile in textured_tiles(plan, reader, time, seen):
        searched += searched_voxels(plan, time, tile)
        per_tile.append(find(work, reader, time, tile)[0])
    candidates = Candidates.concatenate(per_tile, len(rays))
    survivors = candidates.take(suppress(candidates, rays, plan.nms_thresh))
    survivors = survivors.take(inside_region(plan, time, survivors.points))
    # One network for all sizes: with two, trials near their border could not be compared.
    look = plan.second_look and replace(plan.second_look, one_network=True)
    survivors = refine_survivors(replace(plan, second_look=look), reader, time, survivors)
    sizes = volumes(survivors.dist, rays)
    diameters = np.cbrt(6.0 * sizes / np.pi)
    typical = plan.model.diameter or 1.0
    counts = survivors.prob > (CONFIDENT if survivors.quality is None else TRUSTED[0])
    if survivors.quality is not None:
        counts &= survivors.quality >= TRUSTED[1]
    least, most = KNOWN if survivors.quality is None else REFINED
    of_known_size = counts & (diameters >= least * typical) & (diameters <= most * typical)
    unit = float(np.cbrt(np.prod(plan.working.voxel_um)))
    spread = spreads(survivors.dist[of_known_size], rays) * plan.working.voxel_um
    lengths = elongations(spread)
    surfaces = survivors.priority * np.cbrt(sizes) ** 2 / (max(1, searched) * unit)
    trial = Trial(
        voxel_um=voxel_um,
        objects=int(of_known_size.sum()),
        diameter_um=float(np.median(diameters[of_known_size]) * unit)
        if of_known_size.any()
        else 0.0,
        evidence=float(surfaces[of_known_size].sum()),
        elongation=float(np.median(lengths)) if len(lengths) else 1.0,
    )
    clear = of_known_size & (survivors.prob > CLEAR[0])
    if survivors.quality is not None:
        clear &= survivors.quality >= CLEAR[1]
    return trial, Finds(diameters[clear] * unit, surfaces[clear])


def with_elongation(options: ResultConfig, entry: Mapping[str, Any]) -> ResultConfig:
    """Return options whose elongation is the one decided, where the probe decided it.

    Parameters
    ----------
    options : ResultConfig
    entry : mapping
        What was decided, as the ledger has it.
    """
    probed = entry.get("elongation")
    return options if probed is None else replace(options, elongation=float(probed))


def trial_text(trial: Mapping[str, Any]) -> str:
    """Return what a trial found, in words.

    Parameters
    ----------
    trial : mapping
        A `Trial`, as plain JSON values.
    """
    finding = (
        f"{trial['objects']} objects of {trial['diameter_um']:.3g} um, {trial['elongation']:.2f} "
        f"times as long along z as across, {trial['evidence']:.2g} um2 of surface in a um3"
        if trial["objects"]
        else "nothing of a size the network knows"
    )
    return f"working voxel {trial['voxel_um']:.3g} um finds {finding}"


def two_sizes_text(diameter_um: float, other: dict[str, Any]) -> str:
    """Return what is said where the probe has found objects of two quite different sizes.

    Parameters
    ----------
    diameter_um : float
        The proposed diameter, micrometres.
    other : dict
        The other `Population`.
    """
    small, large = sorted((diameter_um, float(other["diameter_um"])))
    step = min(MAX_SCALE, max(2, round(large / small / 1.6)))
    return (
        f"the probe found objects of two sizes: {diameter_um:.3g} um, which this run looks for, "
        f"and {other['objects']} of {other['diameter_um']:.3g} um, of which it may miss many; give "
        f"--diameter {small:.3g}um --scales 1,{step} to look for both"
    )
