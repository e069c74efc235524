"""Everything a worker must know of a run, decided once before work starts: the `Plan`.

Planning reads the image's metadata and a bounded sample of its voxels; what it decides depends on
image, model and `ResultConfig` only. A plan is small and picklable: every task carries it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.store import ImageReader, metadata_fingerprint
from anystar_batch.config import ResultConfig, parse_times
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.filters import Filters
from anystar_batch.geometry import (
    ZYX,
    Box,
    ZYXFloat,
    as_zyx,
    grid_box,
    grid_shape,
    iter_grid,
)
from anystar_batch.network import intensity
from anystar_batch.network.bundled import Model
from anystar_batch.network.scale import (
    LevelMap,
    WorkingScale,
    choose_offset,
    level_map,
    working_scale,
)
from anystar_batch.network.tiles import TileLattice, View, coarse_view, plan_tiles
from anystar_batch.stars.raster import LatticeMap

ALGORITHM = 3
"""Number of the method; raised whenever the same input and options may give another result."""

LIMITS_MIN_VOXELS = 10**6
"""Intensity limits come from the coarsest level with at least so many voxels."""

LIMITS_MAX_VOXELS = 32 * 10**6
"""Where that level is larger, a fixed lattice of its chunks, about so many voxels, is read."""

CROP = 24
"""Edge of the crops that tell how an undeclared level was made, voxels of the level."""

FINE_CROP = 192
"""Most level-0 voxels along an edge of such a crop, as far as 4 voxels of the level allow."""

FEW_CHUNKS = 8
"""A lattice that meets fewer stored chunks says too little; all that is stored is listed then."""


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

    @property
    def tiles(self) -> TileLattice:
        """The lattice of tiles, working voxels: what the first view shows."""
        return self.views[0].tiles

    @property
    def lattice(self) -> LatticeMap:
        """The map from working voxels to level 0."""
        return LatticeMap(*self.working.to_level0(self.level))

    def limits_of(self, time: int) -> tuple[float, float] | None:
        """Return the intensities of a time point that become 0 and 1."""
        return self.limits[self.times.index(time)]

    def to_json(self) -> dict[str, object]:
        """Return what was decided as plain JSON values: for the run record and the attributes."""
        return {
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
        } | _more_json(self.filters, tuple(view.step for view in self.views))


def fingerprint_parts(
    source: ImageSource, model: Model, config: ResultConfig, precision: str
) -> dict[str, object]:
    """Return the JSON values that decide the result: image, model, options, method.

    Not among them: the image's path, versions, blocks, workers, memory.
    """
    return {
        "algorithm": ALGORITHM,
        "image": metadata_fingerprint(source),
        "model": model.sha256,
        "channel": channel_index(source, config.channel),
        "times": list(parse_times(config.time, source.num_times)),
        "diameter": None
        if config.diameter is None
        else [config.diameter.value, config.diameter.unit],
        "voxel_size": None if config.voxel_size is None else list(config.voxel_size),
        "prob_thresh": config.prob_thresh if config.prob_thresh is not None else model.prob_thresh,
        "nms_thresh": config.nms_thresh if config.nms_thresh is not None else model.nms_thresh,
        "tile": config.tile if config.tile is not None else model.tile,
        "context": model.context,
        "max_radius": model.max_radius,
        "percentiles": [model.low_percentile, model.high_percentile],
        "model_diameter": model.diameter,
        "precision": precision,
        "backend": config.backend,
    } | _more_json(config.filters, config.scales)


def fingerprint(parts: dict[str, object]) -> str:
    """Return the digest of `fingerprint_parts`: 64 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def channel_index(source: ImageSource, channel: str) -> int:
    """Return the index of a channel given by name or index.

    Raises
    ------
    ConfigError
        If the image has no such channel.
    """
    if channel in source.channels:
        return source.channels.index(channel)
    if channel.isdecimal() and int(channel) < source.num_channels:
        return int(channel)
    names = ", ".join(f"{i} ({n})" for i, n in enumerate(source.channels))
    message = f"--channel: got {channel!r}; the image has {names}"
    raise ConfigError(message)


def level_scales(source: ImageSource, config: ResultConfig) -> tuple[list[ZYXFloat], ZYXFloat]:
    """Return every level's voxel size, and the position of level 0's voxel 0, micrometres.

    With `--voxel-size` the image's own ratios between levels are kept.
    """
    declared = [source.scale_um(k) for k in range(len(source.levels))]
    translation = source.translation_um(0)
    if config.voxel_size is None:
        return declared, translation
    factor = [w / s for w, s in zip(config.voxel_size, declared[0], strict=True)]
    scaled = [_times(scale, factor) for scale in declared]
    return scaled, _times(translation, factor)


def level_position(reader: ImageReader, level: int, time: int, channel: int) -> LevelMap:
    """Return where a level's voxels lie in level 0: declared, or told from a textured crop.

    Parameters
    ----------
    reader : ImageReader
        The image.
    level : int
        Level that will be read.
    time, channel : int
        Where to look for texture.
    """
    source = reader.source
    scale, finest = source.scale_um(level), source.scale_um(0)
    step = _divided(scale, finest)
    if level == 0:
        return level_map(step, None, None)
    if source.levels[level].has_translation:
        shift = [
            b - a
            for a, b in zip(source.translation_um(0), source.translation_um(level), strict=True)
        ]
        return level_map(step, _divided(shift, finest), None)
    crop = _textured_crop(reader, level, time, channel, step)
    start = as_zyx(round(a * s) for a, s in zip(crop.start, step, strict=True))
    stop = as_zyx(
        min(n, round(b * s)) for b, s, n in zip(crop.stop, step, source.shape_zyx(0), strict=True)
    )
    fine = reader.read_box(0, time, channel, Box(start, stop))
    coarse = reader.read_box(level, time, channel, crop)
    return level_map(step, None, *choose_offset(fine, coarse, crop.start, step))


def intensity_limits(
    reader: ImageReader, time: int, channel: int, percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the intensities of one time and channel that become 0 and 1, for the whole volume.

    Parameters
    ----------
    reader : ImageReader
        The image.
    time, channel : int
        Which volume.
    percentiles : (low, high)
        Percentiles over the finite voxels of existing chunks.

    Returns
    -------
    (low, high) or None
        None where all voxels are equal or none is finite: nothing can be found there.
    """
    level = _limits_level(reader.source)
    boxes = _sample_boxes(reader, level, time, channel)
    if not boxes:
        return None
    values = np.concatenate([reader.read_box(level, time, channel, b).ravel() for b in boxes])
    try:
        return intensity.limits(values, *percentiles)
    except ImageError:
        return None


def limits_content(reader: ImageReader, times: tuple[int, ...], channel: int) -> str:
    """Return the digest of the identity of every chunk that the intensity limits come from."""
    level = _limits_level(reader.source)
    digest = hashlib.sha256()
    for time in times:
        for box in _sample_boxes(reader, level, time, channel):
            digest.update(repr(reader.identities(level, time, channel, box)).encode())
    return digest.hexdigest()[:16]


def make_plan(
    reader: ImageReader,
    model: Model,
    config: ResultConfig,
    diameter_um: float | None,
    limits: tuple[tuple[float, float] | None, ...],
    reference: int | None = None,
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

    Raises
    ------
    ConfigError
        If an option does not suit the image or the model.
    """
    source = reader.source
    channel = channel_index(source, config.channel)
    times = parse_times(config.time, source.num_times)
    scales, translation = level_scales(source, config)
    config.filters.volume_range(scales[0])
    voxel_um = None
    if diameter_um is not None and model.diameter is not None:
        voxel_um = diameter_um / model.diameter
    shapes = [source.shape_zyx(k) for k in range(len(source.levels))]
    working = working_scale(voxel_um, scales, shapes)
    tiles = plan_tiles(
        working.shape,
        config.tile if config.tile is not None else model.tile,
        model.context,
        model.divisor,
        config.scales,
    )
    if reference is None:
        reference = next(t for t, pair in zip(times, limits, strict=True) if pair is not None)
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
        level=level_position(reader, working.level, reference, channel),
        prob_thresh=config.prob_thresh if config.prob_thresh is not None else model.prob_thresh,
        nms_thresh=config.nms_thresh if config.nms_thresh is not None else model.nms_thresh,
        max_radius=model.max_radius * max(config.scales),
        views=tuple(coarse_view(tiles, s, model.context, model.divisor) for s in config.scales),
        filters=config.filters,
    )


def all_limits(
    reader: ImageReader, model: Model, channel: int, times: tuple[int, ...]
) -> tuple[tuple[float, float] | None, ...]:
    """Return the intensity limits of every selected time.

    Raises
    ------
    ImageError
        If no selected time has any contrast.
    """
    percentiles = (model.low_percentile, model.high_percentile)
    found = tuple(intensity_limits(reader, t, channel, percentiles) for t in times)
    if all(pair is None for pair in found):
        name = reader.source.channels[channel]
        message = (
            f"{reader.source.path}: channel {name} is constant or empty at every selected time; "
            "expected an image with contrast; check --channel and --time"
        )
        raise ImageError(message)
    return found


def reference_time(
    reader: ImageReader,
    model: Model,
    channel: int,
    known: Mapping[int, tuple[float, float] | None],
) -> tuple[int, tuple[float, float]]:
    """Return the first time of the whole series with any contrast, and its intensity limits.

    What is decided once for a series (the probed scale, how a level was made) is decided there,
    whichever times are selected: a time gives the same instances alone as with the others.

    Parameters
    ----------
    reader : ImageReader
        The image.
    model : Model
    channel : int
        Channel that is segmented.
    known : mapping of int to (low, high) or None
        Limits of the selected times; at least one has contrast.
    """
    percentiles = (model.low_percentile, model.high_percentile)
    for time in range(reader.source.num_times):
        pair = (
            known[time] if time in known else intensity_limits(reader, time, channel, percentiles)
        )
        if pair is not None:
            return time, pair
    message = f"{reader.source.path}: no time of the series has any contrast"
    raise ImageError(message)


def _more_json(filters: Filters, scales: tuple[int, ...]) -> dict[str, object]:
    """Filters and scales under their keys; without any nothing: such runs say what they said."""
    given = filters.to_json()
    more: dict[str, object] = {"filters": given} if given else {}
    return more | ({"scales": list(scales)} if scales != (1,) else {})


def _limits_level(source: ImageSource) -> int:
    """The coarsest level with at least `LIMITS_MIN_VOXELS`, or level 0."""
    sizes = [np.prod(source.shape_zyx(k), dtype=np.float64) for k in range(len(source.levels))]
    return max((k for k, size in enumerate(sizes) if size >= LIMITS_MIN_VOXELS), default=0)


def _sample_boxes(reader: ImageReader, level: int, time: int, channel: int) -> list[Box]:
    """Stored chunks to take the limits from: all, or of a large level a fixed lattice of them."""
    shape, step = reader.source.shape_zyx(level), reader.source.storage_zyx(level)
    counts = grid_shape(shape, step)
    most = max(1, LIMITS_MAX_VOXELS // _middle(Box.of_shape(step)).size)
    stride = 1
    while math.prod(len(axis) for axis in _every(counts, stride)) > most:
        stride += 1
    axes = _every(counts, stride)
    boxes = []
    for picks in iter_grid(as_zyx(len(axis) for axis in axes)):
        index = as_zyx(axis[i] for axis, i in zip(axes, picks, strict=True))
        if reader.chunk_exists(level, time, channel, index):
            boxes.append(_middle(grid_box(index, step, shape)))
    if stride > 1 and len(boxes) < FEW_CHUNKS:
        # A sparse volume that the lattice misses.
        stored = [box for _, box in reader.existing_chunks(level, time, channel)]
        wanted = min(len(stored), most)
        boxes = [_middle(stored[k * len(stored) // wanted]) for k in range(wanted)]
    return boxes


def _every(counts: ZYX, stride: int) -> tuple[range, range, range]:
    """Every `stride`-th chunk of each axis; of an axis with fewer, the middle one."""
    z, y, x = (range(min(stride, n) // 2, n, stride) for n in counts)
    return z, y, x


def _middle(box: Box) -> Box:
    """At most 256 voxels an axis of a huge chunk or shard, from its middle."""
    edge = 256
    start = as_zyx(a + max(0, (n - edge) // 2) for a, n in zip(box.start, box.shape, strict=True))
    stop = as_zyx(a + min(n, edge) for a, n in zip(start, box.shape, strict=True))
    return Box(start, stop)


def _textured_crop(reader: ImageReader, level: int, time: int, channel: int, step: ZYXFloat) -> Box:
    """The crop of a level with the largest variance, among up to 5 an axis on a fixed lattice."""
    shape = reader.source.shape_zyx(level)
    edge = as_zyx(
        min(n, max(4, min(CROP, int(FINE_CROP / s)))) for n, s in zip(shape, step, strict=True)
    )
    best, most = Box((0, 0, 0), edge), 0.0
    starts: list[list[int]] = [
        sorted({round(k * (n - e) / 4) for k in range(5)}) for n, e in zip(shape, edge, strict=True)
    ]
    lattice = (
        as_zyx(s[i] for s, i in zip(starts, index, strict=True))
        for index in iter_grid(as_zyx(len(s) for s in starts))
    )
    # Where the lattice sees nothing, as in a sparse volume, the first stored chunks.
    stored = (box.start for _, box in reader.existing_chunks(level, time, channel))
    for places in (lattice, itertools.islice(stored, 64)):
        for place in places:
            start = as_zyx(min(a, n - e) for a, n, e in zip(place, shape, edge, strict=True))
            box = Box(start, as_zyx(a + e for a, e in zip(start, edge, strict=True)))
            variance = _variance(reader.read_box(level, time, channel, box))
            if variance > most:
                best, most = box, variance
        if most > 0.0:
            break
    return best


def _variance(values: NDArray[np.number]) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(finite.var()) if finite.size else 0.0


def _times(values: ZYXFloat, factor: list[float]) -> ZYXFloat:
    z, y, x = (v * f for v, f in zip(values, factor, strict=True))
    return z, y, x


def _divided(values: ZYXFloat | list[float], by: ZYXFloat) -> ZYXFloat:
    z, y, x = (v / b for v, b in zip(values, by, strict=True))
    return z, y, x
