"""Everything a worker must know of a run, decided once before work starts: the `Plan`.

Planning reads the image's metadata and a bounded sample of its voxels; what it decides depends on
image, model and `ResultConfig` only. A plan is small and picklable: every task carries it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import (
    ImageSource,
    channel_index,
    level_index,
    metadata_fingerprint,
    multiscale_json,
)
from anystar_batch.config import Filters, ResultConfig
from anystar_batch.geometry import ZYXFloat, as_triple
from anystar_batch.network.limits_field import LimitsField
from anystar_batch.network.limits_grid import LimitsGrid
from anystar_batch.network.model import Model
from anystar_batch.network.scale import LevelMap, WorkingScale, size_text, working_scale
from anystar_batch.network.tiles import TileLattice, View, coarse_view, plan_tiles
from anystar_batch.stages.region import Region, region_json
from anystar_batch.stages.sampling import level_position
from anystar_batch.stages.second_look import SecondLook, plan_look, refiner_json
from anystar_batch.stars.polyhedra import LatticeMap

ALGORITHM = 6
"""Number of the method; raised whenever the same input and options may give another result."""

PROBE = "the same two regions at every scale; what is longer along z is looked at squeezed"
"""How the probe looks; another text whenever it may propose another diameter."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run over one image, decided.

    Parameters
    ----------
    source : ImageSource
        The image.
    model : Model
        The model.
    channel : int
        Channel that is segmented.
    times : tuple of int
        Time points that are segmented.
    limits : tuple of (low, high) or None
        Intensities that become 0 and 1, for each of `times`; None where nothing can be found
        because that time has no contrast.
    scale_um, translation_um : (z, y, x)
        Level-0 voxel size and position of voxel 0, micrometres; `--voxel-size` applied.
    diameter_um : float or None
        Diameter of the objects; None for a foreign model at its native scale.
    elongation : float
        Their length along z over that across.
    working : WorkingScale
        Level and zoom.
    level : LevelMap
        Where the level's voxels lie in level 0.
    prob_thresh, nms_thresh : float
        Thresholds.
    max_radius : float
        Longest ray of a believable candidate at the coarsest scale, working voxels.
    filters : Filters
        Which survivors to keep.
    views : tuple of View
        The tiles at every scale the network looks at, the working voxel first.
    course : tuple of int
        Times at which the intensities of what is found at the one of `times` are measured too.
    measure : tuple of str
        Further columns of the table.
    second_look : SecondLook or None
        Where every survivor is looked at once more; None: not at all.
    outline : float or None
        Share of the fall of an object's mean profile at which its surface is put; None: visible.
    expand_um : float
        How far surfaces are moved outward at last, micrometres; negative: inward.
    grids : tuple of LimitsGrid or None
        With `--limits local`, the limits that follow the image, for each of `times`; None where
        those of the whole hold everywhere. Empty with `--limits global`.
    region : Region or None
        Where an instance's point must lie; None: anywhere.
    """

    source: ImageSource
    model: Model
    channel: int
    times: tuple[int, ...]
    limits: tuple[tuple[float, float] | None, ...]
    scale_um: ZYXFloat
    translation_um: ZYXFloat
    diameter_um: float | None
    working: WorkingScale
    level: LevelMap
    prob_thresh: float
    nms_thresh: float
    max_radius: float
    views: tuple[View, ...]
    filters: Filters = field(default_factory=Filters)
    course: tuple[int, ...] = ()
    measure: tuple[str, ...] = ()
    second_look: SecondLook | None = None
    outline: float | None = None
    expand_um: float = 0.0
    grids: tuple[LimitsGrid | None, ...] = ()
    region: Region | None = None
    elongation: float = 1.0

    @property
    def suppressions(self) -> int:
        """How often stars suppress each other: 1, or 2 with a second look between."""
        return 1 if self.second_look is None else 2

    @property
    def tiles(self) -> TileLattice:
        """The lattice of tiles, working voxels: what the first view shows."""
        return self.views[0].tiles

    @property
    def lattice(self) -> LatticeMap:
        """The map from working voxels to level 0."""
        return LatticeMap(*self.working.to_level0(self.level))

    @property
    def size_text(self) -> str:
        """The size of the objects, in words; `native scale` where nothing is rescaled."""
        if self.diameter_um is None:
            return "native scale"
        return size_text(self.diameter_um, self.elongation)

    def limits_of(self, time: int) -> tuple[float, float] | None:
        """Return the intensities of a time point that become 0 and 1."""
        return self.limits[self.times.index(time)]

    def field_of(self, time: int) -> LimitsField | None:
        """Return the limits of a time that follow the image, over the voxels of the level read."""
        grid = self.grids[self.times.index(time)] if self.grids else None
        return None if grid is None else LimitsField(grid, self.level.step, self.level.offset)

    def look_field_of(self, time: int) -> LimitsField | None:
        """Return the same over the voxels of the level that the second look reads."""
        grid = self.grids[self.times.index(time)] if self.grids else None
        look = self.second_look
        if grid is None or look is None:
            return None
        # Voxel of that level -> working voxel -> level 0.
        scale, offset = self.working.to_level0(self.level)
        step = _times(scale, [1.0 / s for s in look.scale])
        moved = (o - s * shift for o, s, shift in zip(offset, step, look.offset, strict=True))
        return LimitsField(grid, step, as_triple(moved))

    def to_json(self) -> dict[str, object]:
        """Return what was decided as plain JSON values: for the run record and the attributes."""
        return (
            multiscale_json(self.source)
            | {
                "channel": self.channel,
                "times": list(self.times),
                "intensity_limits": [None if pair is None else list(pair) for pair in self.limits],
                "voxel_size_um": list(self.scale_um),
                "diameter_um": self.diameter_um,
                "level": self.working.level,
                "level_origin": self.level.origin,
                "level_offset": list(self.level.offset),
                "zoom": list(self.working.zoom),
                "working_voxel_um": list(self.working.voxel_um),
                "working_shape": list(self.working.shape),
                "tile": list(self.tiles.core),
                "tile_window": list(self.tiles.window),
                "prob_thresh": self.prob_thresh,
                "nms_thresh": self.nms_thresh,
                "max_radius": self.max_radius,
            }
            | _more_json(
                self.filters, tuple(view.step for view in self.views), self.course, self.measure
            )
            | self._look_json()
            | ({} if self.elongation == 1.0 else {"elongation": self.elongation})
            | ({} if self.outline is None else {"outline": self.outline})
            | ({"expand_um": self.expand_um} if self.expand_um else {})
            | self._grids_json()
            | ({} if self.region is None else {"inside": self.region.to_json()})
            | ({"unused_levels": list(self.source.unused)} if self.source.unused else {})
        )

    def _grids_json(self) -> dict[str, object]:
        """Whether limits follow the image, and how far; the grids themselves are in the record."""
        if not self.grids:
            return {}
        widths = [grid.width for grid in self.grids if grid is not None]
        cells = next((grid.cells for grid in self.grids if grid is not None), None)
        local: dict[str, object] = {"times": len(widths)}
        if cells is not None:
            local |= {
                "cells": list(cells),
                "narrowest": min(map(min, widths)),
                "widest": max(map(max, widths)),
            }
        return {"local_limits": local}

    def _look_json(self) -> dict[str, object]:
        """What the second look was, where there is one."""
        look = self.second_look
        return {} if look is None else {"second_look": {"level": look.level}}


def fingerprint_parts(
    source: ImageSource,
    model: Model,
    config: ResultConfig,
    precision: str,
    region: Region | None = None,
) -> dict[str, object]:
    """Return the JSON values that decide the result: image, model, options, method.

    Of a region its content is among them, wherever it lies. Not among them: the image's path,
    versions, blocks, workers, memory.
    """
    return (
        {
            "algorithm": ALGORITHM,
            "image": metadata_fingerprint(source),
            "model": model.sha256,
            "channel": channel_index(source, config.channel),
            "times": list(config.segmented_times(source.num_times)),
            "diameter": None
            if config.diameter is None
            else [config.diameter.value, config.diameter.unit],
            "voxel_size": None if config.voxel_size is None else list(config.voxel_size),
            "prob_thresh": config.prob_thresh
            if config.prob_thresh is not None
            else model.prob_thresh,
            "nms_thresh": config.nms_thresh if config.nms_thresh is not None else model.nms_thresh,
            "tile": config.tile if config.tile is not None else model.tile,
            "context": model.context,
            "max_radius": model.max_radius,
            "percentiles": [model.low_percentile, model.high_percentile],
            "model_diameter": model.diameter,
            "precision": precision,
            "backend": config.backend,
        }
        | _more_json(config.filters, config.scales, config.course(source.num_times), config.measure)
        | refiner_json(model, config)
        | ({} if config.outline is None else {"outline": config.outline})
        | ({} if config.expand is None else {"expand": [config.expand.value, config.expand.unit]})
        | multiscale_json(source)
        | _position_json(source, config)
        | ({} if config.level is None else {"level": config.level})
        | ({} if config.elongation is None else {"elongation": config.elongation})
        | _probe_json(model, config)
        | ({} if config.limits == "global" else {"limits": config.limits})
        | region_json(region)
    )


def _probe_json(model: Model, config: ResultConfig) -> dict[str, object]:
    """How the probe looks, where it runs."""
    is_probed = config.diameter is None and model.diameter is not None
    return {"probe": PROBE} if is_probed else {}


def _position_json(source: ImageSource, config: ResultConfig) -> dict[str, object]:
    """That a position in a known unit is kept beside another voxel size, where there is one."""
    position = zip(source.has_unit_zyx, source.translation_um(0), strict=True)
    is_kept = config.voxel_size is not None and any(has and where for has, where in position)
    return {"position": "kept"} if is_kept else {}


def fingerprint(parts: dict[str, object]) -> str:
    """Return the digest of `fingerprint_parts`: 64 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def level_scales(source: ImageSource, config: ResultConfig) -> tuple[list[ZYXFloat], ZYXFloat]:
    """Return every level's voxel size, and the position of level 0's voxel 0, micrometres.

    With `--voxel-size` the image's own ratios between levels are kept. So is a position in a known
    unit of length, where the stage stood; in any other one it goes with the voxel size.
    """
    declared = [source.scale_um(k) for k in range(len(source.levels))]
    translation = source.translation_um(0)
    if config.voxel_size is None:
        return declared, translation
    factor = [w / s for w, s in zip(config.voxel_size, declared[0], strict=True)]
    scaled = [_times(scale, factor) for scale in declared]
    moved = [1.0 if has else f for has, f in zip(source.has_unit_zyx, factor, strict=True)]
    return scaled, _times(translation, moved)


def make_plan(  # noqa: PLR0913  (image, model, options; what was decided before)
    reader: ImageReader,
    model: Model,
    config: ResultConfig,
    diameter_um: float | None,
    limits: tuple[tuple[float, float] | None, ...],
    reference: int | None = None,
    region: Region | None = None,
) -> Plan:
    """Decide everything.

    Parameters
    ----------
    reader : ImageReader
        The image.
    model : Model
    config : ResultConfig
    diameter_um : float or None
        Diameter of the objects, micrometres, given or probed; None: native scale.
    limits : tuple of (low, high) or None
        Intensity limits of the selected times, at least one of them known; see `all_limits`.
    reference : int, optional
        Time where to look for texture, see `reference_time`; None is the first with limits.
    region : Region, optional
        Where instances are wanted, placed in the image.

    Raises
    ------
    ConfigError
        If an option does not suit the image or the model.
    """
    source = reader.source
    channel = channel_index(source, config.channel)
    times = config.segmented_times(source.num_times)
    scales, translation = level_scales(source, config)
    config.filters.volume_range(scales[0])
    voxel_um = diameter_um / model.diameter if diameter_um and model.diameter else None
    shapes = [source.shape_zyx(k) for k in range(len(source.levels))]
    forced = level_index(source, config.level)
    levels = source.readable if forced is None else (forced,)
    working = working_scale(voxel_um, scales, shapes, levels, config.elongation or 1.0)
    tiles = plan_tiles(
        working.shape,
        config.tile if config.tile is not None else model.tile,
        model.context,
        model.divisor,
        config.scales,
    )
    if reference is None:
        reference = next(t for t, pair in zip(times, limits, strict=True) if pair is not None)
    level = level_position(reader, working.level, reference, channel)
    look = plan_look(reader, model, config, working, level, scales, diameter_um, reference)
    filters = config.filters
    if look is not None and filters.min_quality is None and look.refiner.quality_cut > 0.0:
        filters = replace(filters, min_quality=look.refiner.quality_cut)
    return Plan(
        source=source,
        model=model,
        channel=channel,
        times=times,
        limits=limits,
        scale_um=scales[0],
        translation_um=translation,
        diameter_um=diameter_um,
        working=working,
        level=level,
        prob_thresh=config.prob_thresh if config.prob_thresh is not None else model.prob_thresh,
        nms_thresh=config.nms_thresh if config.nms_thresh is not None else model.nms_thresh,
        max_radius=model.max_radius * max(config.scales),
        views=tuple(coarse_view(tiles, s, model.context, model.divisor) for s in config.scales),
        filters=filters,
        course=config.course(source.num_times),
        measure=config.measure,
        second_look=look,
        outline=config.outline,
        expand_um=0.0 if config.expand is None else config.expand.in_um(scales[0]),
        region=region,
        elongation=config.elongation or 1.0,
    )


def _more_json(
    filters: Filters, scales: tuple[int, ...], course: tuple[int, ...], measure: tuple[str, ...]
) -> dict[str, object]:
    """What few runs ask for, under its keys; without any nothing: such runs say what they said."""
    given = filters.to_json()
    more: dict[str, object] = {"filters": given} if given else {}
    more |= {"scales": list(scales)} if scales != (1,) else {}
    more |= {"course": list(course)} if course else {}
    return more | ({"measure": list(measure)} if measure else {})


def _times(values: ZYXFloat, factor: list[float]) -> ZYXFloat:
    z, y, x = (v * f for v, f in zip(values, factor, strict=True))
    return z, y, x
