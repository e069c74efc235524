"""What each threshold would find, from kept candidates: objects, their quality, size, certainty.

Candidates are suppressed, looked at once more, filtered and counted as a run does it. A small image
whole, so the counts are those of runs; of a large one a sample of tiles, always the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.events import BlockDone, Listener, StageStarted, timed_stage
from anystar_batch.geometry import ZYX, Box, inside
from anystar_batch.stages.candidate_store import CandidateSet
from anystar_batch.stages.image_identity import tile_content
from anystar_batch.stages.number import owners, removed
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.predict import counting
from anystar_batch.stages.raw_tile import Found, StoredTile, load_found, origin_of, tile_key
from anystar_batch.stages.refine import refine_survivors
from anystar_batch.stages.region_survey import block_cells, inside_region
from anystar_batch.stages.surface import outlined
from anystar_batch.stages.task import model_rays, near_box, parse_key
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.polyhedra import volumes
from anystar_batch.stars.suppress import suppress

MOST = 150_000
"""Candidates that are looked at; where there are more, a sample of tiles."""

STEP = 0.05
"""Between two thresholds of the table."""

HIGHEST = 0.95
"""Of the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one threshold would find.

    Parameters
    ----------
    prob_thresh : float
    objects : int
        Their number, of a sample multiplied.
    median_quality : float or None
        IoU that the second look expects; None without one.
    median_volume_um3 : float or None
        Of the whole star; None without objects.
    median_prob : float or None
    is_current : bool
        Whether the label, or else the run that kept the candidates, has this threshold.
    """

    prob_thresh: float
    objects: int
    median_quality: float | None
    median_volume_um3: float | None
    median_prob: float | None
    is_current: bool


@dataclass(frozen=True, slots=True)
class ThresholdTable:
    """What each threshold would find.

    Parameters
    ----------
    rows : tuple of Row
        Rising; the last one finds nothing, or is the highest.
    tiles, usable, seen : int
        That are kept; that can be used, of those that were read; that were counted.
    """

    rows: tuple[Row, ...]
    tiles: int
    usable: int
    seen: int


def threshold_table(
    plan: Plan, chosen: CandidateSet, current: float, listen: Listener
) -> ThresholdTable:
    """Count what each threshold would find.

    Parameters
    ----------
    plan : Plan
        Without a filter by contrast.
    chosen : CandidateSet
        Of the plan's kind.
    current : float
        Threshold that gets a row, if it is not below the set's.
    listen : callable
        Told of every group of tiles.
    """
    reader, above = ImageReader(plan.source), float(chosen.header["above"])
    tiles = dict(chosen.tiles())
    kept = _Kept(plan, reader, str(chosen.header["kind"]), tiles, above)
    seen, groups, todo = 0, list[_Judged](), _groups(tiles)
    with timed_stage(listen, StageStarted("tune", len(todo))):
        for time, some in todo:
            groups.append(_judged(plan, reader, time, kept, some))
            seen += len(some)
            listen(BlockDone("tune", f"{time}/{len(some)}", 0.0))
    shares = (round(k * STEP, 2) for k in range(1, round(HIGHEST / STEP) + 1))
    scale = len(tiles) / max(1, seen)
    rows: list[Row] = []
    for value in sorted(v for v in {above, current, *shares} if v >= above):
        rows.append(_row(plan, groups, value, scale, is_current=value == current))
        if not rows[-1].objects and value >= current:
            break
    return ThresholdTable(tuple(rows), len(tiles), len(tiles) - len(kept.unusable), seen)


def _groups(tiles: Mapping[str, StoredTile]) -> list[tuple[int, list[ZYX]]]:
    """Times with the tiles to look at together: all of them, or a sample, tile by tile."""
    indices = {key: parse_key(key.partition("/")[2]) for key in tiles}
    if sum(one.stop - one.start for one in tiles.values()) <= MOST:
        times = sorted({time for time, _ in indices.values()})
        return [(t, [tile for time, tile in indices.values() if time == t]) for t in times]
    chosen: list[tuple[int, list[ZYX]]] = []
    count = 0
    for key in sorted(
        tiles, key=lambda key: hashlib.sha256(key.partition("/")[2].encode()).digest()
    ):
        count += tiles[key].stop - tiles[key].start
        if chosen and count > MOST:
            break
        chosen.append((indices[key][0], [indices[key][1]]))
    return chosen


class _Kept:
    """The tiles of a set, read when asked for."""

    def __init__(
        self,
        plan: Plan,
        reader: ImageReader,
        kind: str,
        tiles: Mapping[str, StoredTile],
        above: float,
    ) -> None:
        self._plan, self._reader, self._kind = plan, reader, kind
        self._tiles, self._above = tiles, above
        self.unusable: set[str] = set()

    def read(self, time: int, tile: ZYX) -> Candidates:
        """Return the candidates of a tile; none where they cannot be used."""
        plan, n_rays = self._plan, len(model_rays(self._plan.model))
        key = tile_key(self._kind, time, tile)
        if key not in self._tiles:
            return Candidates.empty(n_rays)
        content = tile_content(plan, self._reader, time, tile)
        origin = origin_of(self._kind, plan, time, content)
        found = load_found(self._tiles[key], origin, self._above, n_rays)
        if isinstance(found, Found):
            has_region = plan.region is not None
            cells = block_cells(plan, time, plan.tiles.core_box(tile)) if has_region else None
            return counting(plan, cells, found.over(self._above)[0])
        self.unusable.add(key)
        return Candidates.empty(n_rays)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """Survivors of the first suppression in a group, with their qualities, if anybody knows them.

    Where there is a second look, they have been looked at, and are to be suppressed once more.
    """

    time: int
    survivors: Candidates
    quality: NDArray[np.float32] | None


def _judged(
    plan: Plan, reader: ImageReader, time: int, kept: _Kept, tiles: Sequence[ZYX]
) -> _Judged:
    """Suppress a group: all tiles of a time, or one with what lies around it.

    Survivors above a threshold are the same whatever is below it: the surer judge first.
    """
    rays = model_rays(plan.model)
    together = Candidates.concatenate([kept.read(time, tile) for tile in tiles], len(rays))
    mine = np.ones(len(together), np.bool_)
    if len(tiles) == 1:
        core = plan.tiles.core_box(tiles[0])
        region = near_box(core, 2 * math.ceil(together.dist.max(initial=1.0)))
        region = region.intersect(Box.of_shape(plan.working.shape))
        beside = [kept.read(time, t) for t in plan.tiles.tiles_near(region) if t != tiles[0]]
        around = Candidates.concatenate(beside, len(rays))
        around = around.take(inside(around.points, region))
        together = Candidates.concatenate([together, around], len(rays))
        mine = inside(together.points, core)
    survivors = together.take(suppress(together, rays, plan.nms_thresh) & mine)
    refined = refine_survivors(plan, reader, time, survivors)
    return _Judged(time, refined, refined.quality)


def _row(
    plan: Plan, groups: Sequence[_Judged], prob_thresh: float, scale: float, *, is_current: bool
) -> Row:
    """What is left of all groups above a threshold."""
    prob, quality, sizes = list[float](), list[float](), list[float]()
    for stars, qualities in _instances(plan, groups, prob_thresh):
        voxels = volumes(stars.dist, model_rays(plan.model)) * math.prod(plan.lattice.scale)
        sizes += (voxels * math.prod(plan.scale_um)).tolist()
        prob += stars.prob.tolist()
        quality += [] if qualities is None else qualities.tolist()
    return Row(
        prob_thresh=prob_thresh,
        objects=round(len(prob) * scale),
        median_quality=_median(quality),
        median_volume_um3=_median(sizes),
        median_prob=_median(prob),
        is_current=is_current,
    )


def _instances(
    plan: Plan, groups: Sequence[_Judged], prob_thresh: float
) -> Iterator[tuple[Candidates, NDArray[np.float32] | None]]:
    """What becomes an instance of each group, its surfaces where they are asked for."""
    rays = model_rays(plan.model)
    for group in groups:
        stars, quality = group.survivors, group.quality
        index = np.flatnonzero(stars.prob > prob_thresh)
        if plan.second_look is not None:
            index = index[suppress(stars.take(index), rays, plan.nms_thresh)]
        index = index[inside_region(plan, group.time, stars.points[index])]
        shown = outlined(stars.take(index))
        gone = list(removed(plan, shown, rays).values())
        if gone:
            stays = ~np.logical_or.reduce(gone)
            index, shown = index[stays], shown.take(stays)
        visible = owners(plan, shown, np.ones(len(shown), np.bool_))
        yield shown.take(visible), None if quality is None else quality[index[visible]]


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
