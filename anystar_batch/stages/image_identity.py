"""Is the image still the one that was read: digests of the stored chunks of what a stage reads.

A digest is taken before its voxels are read, noted in the ledger, and compared before anything is
published: a result never mixes two images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from anystar_batch.archive.images import ImageReader, OneLookReader
from anystar_batch.errors import ImageChangedError
from anystar_batch.events import StageStarted, ignore, timed_stage
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx, grid_box
from anystar_batch.network.limits_grid import cell_counts
from anystar_batch.network.scale import LevelMap
from anystar_batch.stages.cell_limits import cell_boxes, grid_level
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.preprocess import tile_source
from anystar_batch.stages.region import Region, region_content
from anystar_batch.stages.region_limits import limits_boxes
from anystar_batch.stages.run import Run
from anystar_batch.stages.sampling import _sample_boxes, limits_level
from anystar_batch.stages.task import parse_key


def check_content(run: Run) -> None:
    """Compare the identity of every input chunk that was read with what is stored now.

    Raises
    ------
    ImageChangedError
        If the image has changed since.
    """
    reader, plan = OneLookReader(run.plan.source), run.plan
    unit, shape = run.spec.write_unit_zyx(0), run.spec.shape_zyx(0)
    predicted, painted = run.ledger.entries("predict"), run.ledger.entries("paint")
    refined, look = run.ledger.entries("refine"), plan.second_look
    planned = run.ledger.entry("plan", "")
    with timed_stage(run.on_event if predicted else ignore, StageStarted("check", 1)):
        _check_limits(plan, reader, planned)
        _check_region(plan, reader, planned)
        for key, entry in predicted.items():
            time, tile = parse_key(key)
            if tile_content(plan, reader, time, tile) != entry["content"]:
                raise ImageChangedError(_changed(plan, f"tile {key}"))
        for key, entry in refined.items():
            if look is not None and "read" in entry:
                start, stop = as_zyx(entry["read"][:3]), as_zyx(entry["read"][3:])
                box = Box(start, stop)
                content = box_content(plan, reader, look.level, parse_key(key)[0], box)
                if content != entry["content"]:
                    raise ImageChangedError(_changed(plan, f"objects of tile {key}"))
        for key, entry in painted.items():
            time, index = parse_key(key)
            box = grid_box(index, unit, shape)
            if unit_content(plan, reader, time, box) != entry["content"]:
                raise ImageChangedError(_changed(plan, f"{box}, time {time}"))


def _check_limits(plan: Plan, reader: ImageReader, planned: Mapping[str, Any] | None) -> None:
    """Compare what the intensity limits come from with what was planned with."""
    if planned is None:
        return
    if planned["content"] != limits_content(reader, plan.times, plan.channel):
        raise ImageChangedError(_changed(plan, "where the intensity limits come from"))
    if "cells" not in planned or plan.diameter_um is None:
        return
    content = cells_content(reader, plan.times, plan.channel, plan.diameter_um, plan.scale_um)
    if planned["cells_content"] != content:
        raise ImageChangedError(_changed(plan, "where the local intensity limits come from"))


def _changed(plan: Plan, where: str) -> str:
    return (
        f"{plan.source.path} has changed since it was read ({where}); the result would mix two "
        "images; give --restart to begin again"
    )


def limits_content(reader: ImageReader, times: tuple[int, ...], channel: int) -> str:
    """Return the digest of the identity of every chunk that the intensity limits come from."""
    level = limits_level(reader.source)
    digest = hashlib.sha256()
    for time in times:
        for box in _sample_boxes(reader, level, time, channel):
            digest.update(repr(reader.identities(level, time, channel, box)).encode())
    return digest.hexdigest()[:16]


def cells_content(
    reader: ImageReader,
    times: tuple[int, ...],
    channel: int,
    diameter_um: float,
    scale_um: ZYXFloat,
) -> str:
    """Return the digest of every chunk that limits which follow the image come from.

    Parameters
    ----------
    reader : ImageReader
        The image.
    times : tuple of int
    channel : int
    diameter_um : float
        Of the objects, micrometres.
    scale_um : (z, y, x)
        Level-0 voxel size, micrometres.
    """
    source = reader.source
    level = grid_level(source, diameter_um, scale_um)
    counts = cell_counts(source.shape_zyx(0), scale_um, diameter_um, source.num_times)
    digest = hashlib.sha256()
    for time in times:
        for box, _ in cell_boxes(source, level, counts):
            digest.update(repr(reader.identities(level, time, channel, box)).encode())
    return digest.hexdigest()[:16]


def white_content(
    reader: ImageReader,
    region: Region,
    place: LevelMap,
    times: tuple[int, ...],
    channel: int,
) -> str:
    """Return the digest of every chunk that white comes from, see `region_limits`."""
    level = limits_level(reader.source)
    digest = hashlib.sha256()
    for time in times:
        for box in limits_boxes(reader, region, place, (time, channel)):
            digest.update(repr(reader.identities(level, time, channel, box)).encode())
    return digest.hexdigest()[:16]


def _check_region(plan: Plan, reader: ImageReader, planned: Mapping[str, Any] | None) -> None:
    """Compare what is stored of a region, and of the image where white comes from, with before."""
    region = plan.region
    if region is None:
        return
    if region_content(region.source) != region.content:
        message = (
            f"--inside {region.name}: {region.source.path} has changed since the run began; the "
            "result would mix two regions; give --restart to begin again"
        )
        raise ImageChangedError(message)
    if planned is not None:
        place = LevelMap(*planned["region"]["place"])
        white = white_content(reader, region, place, plan.times, plan.channel)
        if planned["region"]["white"] != white:
            raise ImageChangedError(_changed(plan, "where white comes from"))


def tile_content(plan: Plan, reader: ImageReader, time: int, tile: ZYX) -> str:
    """Return the digest of the identity of every chunk that a tile reads."""
    box = tile_source(plan, tile)
    return content_digest(reader.identities(plan.working.level, time, plan.channel, box))


def box_content(plan: Plan, reader: ImageReader, level: int, time: int, box: Box) -> str:
    """Return the digest of every chunk of the segmented channel that a box of a level reads."""
    return content_digest(reader.identities(level, time, plan.channel, box))


def unit_content(plan: Plan, reader: ImageReader, time: int, box: Box) -> str:
    """Return the digest of every chunk that measuring a box of level 0 reads.

    Parameters
    ----------
    plan : Plan
    reader : ImageReader
        The image.
    time : int
        Time point; with it go those of `plan.course`.
    box : Box
        Level-0 voxels; of all channels.
    """
    identities: list[tuple[str, int, int | str]] = []
    for t in (time, *plan.course):
        for channel in range(plan.source.num_channels):
            identities.extend(reader.identities(0, t, channel, box))
    return content_digest(identities)


def content_digest(identities: Sequence[tuple[str, int, int | str]]) -> str:
    """Return a digest of keys, sizes and times; empty where nothing is stored."""
    if not identities:
        return ""
    return hashlib.sha256(json.dumps(identities).encode()).hexdigest()[:16]
