"""The region that `--inside` names: find it, check that it suits the image, say what it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anystar_batch.address import absolute_place
from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.label_lookup import image_labels
from anystar_batch.archive.label_place import label_place
from anystar_batch.archive.label_source import read_label_source
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.nodes import read_node
from anystar_batch.config import Inside, SegmentConfig
from anystar_batch.errors import ConfigError, DataError, ImageError, did_you_mean, shorten
from anystar_batch.events import Listener, Note
from anystar_batch.network.model import Model
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.stages.image_identity import white_content
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region import Region, extent, placed, region_content
from anystar_batch.stages.region_limits import region_limits
from anystar_batch.stages.region_survey import share, some_numbers, survey_region
from anystar_batch.stages.sampling import level_position, limits_level, reference_time

LISTED = 8
"""Most numbers of regions that a message names."""

FITS = 0.01
"""By so much a voxel size may differ from the image's own to be the same."""


def find_region(config: SegmentConfig, source: ImageSource, outputs: Outputs) -> Region | None:
    """Return the region that a run asks for; None for none.

    Parameters
    ----------
    config : SegmentConfig
    source : ImageSource
        The image.
    outputs : Outputs
        Of the run: its label cannot be the region.

    Returns
    -------
    Region or None
        Not placed yet.

    Raises
    ------
    ConfigError
        If the image has no such label, or it is the one that is written.
    ImageError
        If it cannot be a region: no whole numbers, several channels, other times than the image.
    """
    inside = config.result.inside
    if inside is None:
        return None
    path = inside.name if inside.is_path else _label(config, inside)
    if absolute_place(path) == absolute_place(outputs.label.path):
        message = (
            f"--inside {inside}: that is the label that this run writes ({outputs.label.path}); "
            "give the new one another name, --label NAME"
        )
        raise ConfigError(message)
    try:
        labels = read_label_source(path, with_masks=True)
    except ImageError as error:
        # Of the image nobody shall say for that that it is not for this tool.
        kind = DataError if isinstance(error, DataError) else ImageError
        raise kind(f"--inside {inside}: {error}") from error
    if absolute_place(labels.path) == absolute_place(outputs.label.path):
        message = (
            f"--inside {inside}: the only label there is the one that this run writes; give the "
            "new one another name, --label NAME"
        )
        raise ConfigError(message)
    mask = labels.source
    if mask.num_channels > 1:
        message = (
            f"--inside {inside}: {labels.path} has {mask.num_channels} channels; expected one "
            "number a voxel: give a label, or an image of one channel"
        )
        raise ImageError(message)
    if mask.num_times not in {1, source.num_times}:
        message = (
            f"--inside {inside}: {labels.path} has {mask.num_times} times, the image "
            f"{source.num_times}; expected as many, or one for all"
        )
        raise ImageError(message)
    name = labels.path.rstrip("/").rpartition("/")[2]
    return Region(mask, name, inside.ids, region_content(mask), labels.has_scale)


def _label(config: SegmentConfig, inside: Inside) -> str:
    """The path of a label of the image: in it, or where an earlier run has put it apart."""
    paths = [f"{config.image}/labels/{inside.name}"]
    for output in (None, config.output):
        home, stem = config.home, config.stem
        paths.append(
            label_place(config.image, inside.name, home=home, stem=stem, output=output).path
        )
    for path in dict.fromkeys(paths):
        if read_node(path) is not None:
            return path
    names = list(image_labels(config.image))
    known = f"its labels are {', '.join(map(shorten, names))}" if names else "it has no labels"
    message = (
        f"{config.image}: --inside {inside}: the image has no label {inside.name}; "
        f"{known}{did_you_mean(inside.name, names)}; a path has a slash, as ./{inside.name}"
    )
    raise ConfigError(message)


def decide_region(
    region: Region,
    reader: ImageReader,
    model: Model,
    channel: int,
    limits: Mapping[int, tuple[float, float] | None],
) -> dict[str, Any]:
    """Decide with voxels where a region lies, and what else depends on it.

    Parameters
    ----------
    region : Region
        Not placed yet.
    reader : ImageReader
        The image.
    model : Model
    channel : int
        That is segmented.
    limits : mapping of int to (low, high) or None
        Intensity limits of the selected times, of the whole image.

    Returns
    -------
    dict
        JSON values for the ledger: `limits` of the selected times, the `reference` time, the first
        of the series with contrast and region, the `pair` of its limits, and what `region_of` needs
        of the `region`.

    Raises
    ------
    ImageError
        If the region lies beside the image, or numbers that were named are not there.
    """
    source, times = reader.source, tuple(limits)
    reference, pair = reference_time(reader, model, channel, limits)
    at, level = placed(region, reader, reference, channel)
    check_region_place(at, source)
    check_ids(at, source, times)

    def is_there(time: int) -> bool:
        return survey_region(at, source, time).voxels > 0

    is_empty = not any(is_there(time) for time in times)
    if not is_empty:
        reference, pair = reference_time(reader, model, channel, limits, is_there)
    place = level_position(reader, limits_level(source), reference, channel)
    white = white_content(reader, at, place, times, channel)

    def inside(time: int, whole: tuple[float, float] | None) -> tuple[float, float] | None:
        if whole is None or not is_there(time):
            return whole
        return region_limits(reader, at, place, (time, channel), whole, model.high_percentile)

    return {
        "limits": [inside(time, whole) for time, whole in limits.items()],
        "reference": reference,
        "pair": inside(reference, pair),
        "region": {
            "scale": at.scale,
            "offset": at.offset,
            "level": level,
            "place": [place.step, place.offset, place.origin],
            "white": white,
            "is_empty": is_empty,
        },
    }


def region_of(region: Region | None, entry: Mapping[str, Any]) -> Region | None:
    """Return a region where `decide_region` has found it to lie; None without one.

    Parameters
    ----------
    region : Region or None
    entry : mapping
        What was decided, perhaps read from the ledger.
    """
    if region is None:
        return None
    scale, offset = (
        (float(z), float(y), float(x))
        for z, y, x in (entry["region"]["scale"], entry["region"]["offset"])
    )
    return replace(region, scale=scale, offset=offset)


def tell_region(plan: Plan, entry: Mapping[str, Any], on_event: Listener) -> None:
    """Say how much of the image a region is, and warn of what may not be as wanted."""
    region = plan.region
    if region is None:
        return
    for text in region_warnings(region, plan.source, entry["region"]["level"]):
        on_event(Note(text, is_warning=True))
    on_event(Note(f"inside {region_text(region, plan.source, plan.times)}"))


def check_region_place(region: Region, image: ImageSource) -> None:
    """Check that a region lies where the image does.

    Parameters
    ----------
    region : Region
        Placed.
    image : ImageSource

    Raises
    ------
    ImageError
        If they have nothing in common.
    """
    if extent(region, image).size == 0:
        message = (
            f"--inside {region.name}: it lies beside the image: the image covers "
            f"{_span(image)}, the region {_span(region.source)} (z, y, x); expected the same "
            "field; check the region's scale, translation and unit"
        )
        raise ImageError(message)


def check_ids(region: Region, image: ImageSource, times: tuple[int, ...]) -> None:
    """Check that the numbers that were named are there, at one of the times at least.

    Parameters
    ----------
    region : Region
        Placed.
    image : ImageSource
    times : tuple of int
        That are segmented.

    Raises
    ------
    ImageError
        If some are not.
    """
    if not region.ids:
        return
    present = {k for time in times for k in survey_region(region, image, time).present}
    missing = [pair for k, pair in enumerate(region.ids) if k not in present]
    if not missing:
        return
    absent = Inside(region.name, tuple(missing))
    others = some_numbers(region, image, times, LISTED + 1)
    known = ", ".join(map(str, others[:LISTED])) + (", ..." if len(others) > LISTED else "")
    has = f"there are {known}" if known else "there is nothing but 0"
    message = (
        f"--inside {region.name}: no voxel of the image has the number "
        f"{str(absent).partition(':')[2]}; {has}"
    )
    raise ImageError(message)


def region_warnings(region: Region, image: ImageSource, level: int | None) -> list[str]:
    """Return what may not be as wanted of where a region lies.

    Parameters
    ----------
    region : Region
        Placed.
    image : ImageSource
    level : int or None
        Level of the image whose voxels are the region's own.
    """
    mask, texts = region.source, []
    voxel = list(zip(mask.scale_um(0), image.scale_um(0), strict=True))
    is_same_shape = mask.shape_zyx(0) == image.shape_zyx(0)
    if level is None and is_same_shape and any(abs(a / b - 1.0) > FITS for a, b in voxel):
        texts.append(
            f"--inside {region.name}: it has the image's shape, {mask.shape_zyx(0)}, but another "
            f"voxel size ({_triple([a for a, _ in voxel])} um, the image "
            f"{_triple([b for _, b in voxel])} um); it is laid where its voxel size says"
        )
    box, shape = extent(region, image), image.shape_zyx(0)
    covered = [
        min(1.0, (b - a) / (n * s))
        for a, b, n, s in zip(box.start, box.stop, shape, region.scale, strict=True)
    ]
    short = [
        n * s - (b - a) >= 2.0
        for a, b, n, s in zip(box.start, box.stop, shape, region.scale, strict=True)
    ]
    if any(short):
        texts.append(
            f"--inside {region.name}: it covers {math.prod(covered):.0%} of the image "
            f"({_span(mask)} of {_span(image)}, z, y, x); nothing is segmented beyond it"
        )
    return texts


def region_text(region: Region, image: ImageSource, times: tuple[int, ...]) -> str:
    """Return what a person is told of a region: its name and how much of the image it is."""
    part = 100 * share(region, image, times)
    return f"{Inside(region.name, region.ids)}, {part:.3g} % of the image"


def _span(source: ImageSource) -> str:
    """What an image covers along each axis."""
    each = zip(source.shape_zyx(0), source.scale_um(0), source.translation_um(0), strict=True)
    return " x ".join(f"{p - s / 2:.4g} to {p - s / 2 + n * s:.4g}" for n, s, p in each) + " um"


def _triple(values: list[float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values)
