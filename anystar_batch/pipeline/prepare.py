"""Prepare one image before work: which result is asked for, by what model, at which scale."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from anystar_batch.archive.discovery import find_images
from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_lookup import label_warnings
from anystar_batch.archive.names import numbered
from anystar_batch.archive.ngff import ImageSource, channel_index, level_index
from anystar_batch.config import ResultConfig, SegmentConfig
from anystar_batch.engine.engines import Engine, open_engine, threads_per_worker
from anystar_batch.engine.machine import available_memory
from anystar_batch.engine.stop import Stop
from anystar_batch.errors import ConfigError, ImageChangedError, ImageError, ModelError, shorten
from anystar_batch.events import Listener, Note
from anystar_batch.network.devices import gpu_names, natural_precision
from anystar_batch.network.model import Model, load_model
from anystar_batch.network.predictor import KerasFactory, PredictorFactory, extra_of
from anystar_batch.network.unet import PRECISIONS
from anystar_batch.pipeline import publish
from anystar_batch.pipeline.levels import level_warnings, with_verdicts
from anystar_batch.pipeline.local_limits import check_local, grids_text, read_grids, with_grids
from anystar_batch.pipeline.outputs import Outputs, output_paths
from anystar_batch.pipeline.probe import (
    Find,
    probe_diameter,
    trial_text,
    two_sizes_text,
    with_elongation,
)
from anystar_batch.pipeline.region import decide_region, find_region, region_of, tell_region
from anystar_batch.stages.image_identity import limits_content
from anystar_batch.stages.ledger import Ledger
from anystar_batch.stages.level_zero import level_zero_faults
from anystar_batch.stages.levels import Verdict, check_levels
from anystar_batch.stages.plan import (
    Plan,
    fingerprint,
    fingerprint_parts,
    level_scales,
    make_plan,
)
from anystar_batch.stages.predict import tile_candidates
from anystar_batch.stages.region import Region
from anystar_batch.stages.sampling import all_limits, reference_time


@dataclass(frozen=True, slots=True)
class Request:
    """One result: of which image, made how, to lie where.

    Parameters
    ----------
    config : SegmentConfig
    model : Model
    source : ImageSource
        The image.
    outputs : Outputs
    parts : dict
        All that decides the result, as plain JSON values.
    digest : str
        Their fingerprint.
    factory : PredictorFactory
        Makes the network.
    region : Region or None
        Where instances are wanted, not placed yet.
    """

    config: SegmentConfig
    model: Model
    source: ImageSource
    outputs: Outputs
    parts: dict[str, object]
    digest: str
    factory: PredictorFactory
    region: Region | None = None


def request(
    config: SegmentConfig, model: Model | None = None, factory: PredictorFactory | None = None
) -> Request:
    """Say which result is wanted; reads metadata, and of a region what is stored.

    Parameters
    ----------
    config : SegmentConfig
        What the user asks for.
    model : Model, optional
        Instead of the one that `config.model` names.
    factory : PredictorFactory, optional
        Makes the network; None is the model's own, under Keras.

    Raises
    ------
    AnyStarBatchError
        If it is no image that can be segmented, or there is no such model.
    """
    model = load_model(config.model) if model is None else model
    source = _open(config.image, config.result.multiscale)
    _check_units(source, config)
    level_index(source, config.result.level)
    outputs = output_paths(config)
    region = find_region(config, source, outputs)
    parts = _settled(config, source, model, outputs, region)
    factory = factory or KerasFactory(str(parts["precision"]), config.result.backend)
    return Request(config, model, source, outputs, parts, fingerprint(parts), factory, region)


def _check_units(source: ImageSource, config: SegmentConfig) -> None:
    """Raise if an axis states a unit that is no length we know, and nobody gives the voxel size."""
    if config.result.voxel_size is None and source.unknown_units:
        axis, unit = next(iter(source.unknown_units.items()))
        message = (
            f"{source.path}: axis {axis} states the unit {unit!r}; expected a length, such as "
            "micrometer, nanometer or millimeter; give the voxel size, --voxel-size Z Y X in "
            "micrometres, or correct the metadata"
        )
        raise ImageError(message)


def decide(
    result: Request, ledger: Ledger | None, on_event: Listener, find: Find = tile_candidates
) -> Plan:
    """Decide everything; what took voxels to decide is kept in the ledger.

    Parameters
    ----------
    result : Request
    ledger : Ledger or None
        Of the work directory; None keeps nothing.
    on_event : callable
        Told of the probe, and which scale is used and why.
    find : callable, optional
        How the probe gets the candidates of a tile.

    Raises
    ------
    ImageChangedError
        If the image is no longer the one that an unfinished run has read.
    ConfigError
        If the options do not fit the image.
    """
    source, options = result.source, result.config.result
    if source.unit_assumed and options.voxel_size is None:
        text = (
            f"{source.path}: the image states no unit of length; micrometres are assumed "
            f"(voxel {_triple_text(source.scale_um(0))}); give --voxel-size Z Y X to override"
        )
        on_event(Note(text, is_warning=True))
    _tell_position(source, options, on_event)
    channel = channel_index(source, options.channel)
    _tell_channel(source, options.channel, channel, on_event)
    times = options.segmented_times(source.num_times)
    entry = None if ledger is None else ledger.entry("plan", "")
    if entry is None:
        verdicts = check_levels(ImageReader(source), channel)
    else:
        verdicts = tuple(Verdict.from_json(one) for one in entry.get("levels", ()))
    reader = ImageReader(with_verdicts(source, verdicts))
    content = limits_content(reader, times, channel)
    if entry is None:
        judged = [verdict.to_json() for verdict in verdicts]
        entry = {**_look(reader, result, on_event, find), "content": content, "levels": judged}
        if ledger is not None:
            ledger.done("plan", {"": entry})
    elif entry["content"] != content:
        message = (
            f"{source.path} has changed since an earlier, unfinished run read it; give --restart "
            "to begin again"
        )
        raise ImageChangedError(message)
    pairs = tuple(None if p is None else (float(p[0]), float(p[1])) for p in entry["limits"])
    diameter, reference = entry["diameter_um"], entry["reference"]
    region = region_of(result.region, entry)
    sized = with_elongation(options, entry)
    plan = make_plan(reader, result.model, sized, diameter, pairs, reference, region)
    plan = with_grids(plan, entry)
    tell_region(plan, entry, on_event)
    warnings = (*label_warnings(source.path), *level_warnings(plan, options, verdicts))
    for text in (*warnings, *entry.get("level_zero", ())):
        on_event(Note(text, is_warning=True))
    _tell(plan, entry["probe"], on_event)
    return plan


def _look(reader: ImageReader, result: Request, on_event: Listener, find: Find) -> dict[str, Any]:
    """Decide what takes voxels to decide: intensity limits and working scale, as JSON values."""
    options, model = result.config.result, result.model
    channel = channel_index(reader.source, options.channel)
    times = options.segmented_times(reader.source.num_times)
    scales, _ = level_scales(reader.source, options)
    given = None if options.diameter is None else options.diameter.in_um(scales[0])
    limits = all_limits(reader, model, channel, times)
    reference, pair = reference_time(reader, model, channel, dict(zip(times, limits, strict=True)))
    by_time = dict(zip(times, limits, strict=True))
    check_local(options, model)
    entry: dict[str, Any] = {
        "limits": limits,
        "reference": reference,
        "level_zero": level_zero_faults(reader, channel, by_time),
    }
    if result.region is not None:
        further = decide_region(result.region, reader, model, channel, by_time)
        entry, pair = entry | further, further["pair"]
    is_empty = "region" in entry and entry["region"]["is_empty"]
    if given is not None or model.diameter is None or is_empty:
        entry |= {"probe": None, "diameter_um": given}
        return entry | read_grids(reader, options, by_time, given, on_event)
    alone = replace(options, time=str(entry["reference"]))
    probe = probe_diameter(
        reader,
        model,
        alone,
        (pair,),
        result.factory,
        threads_per_worker(1),
        on_event,
        region_of(result.region, entry),
        find,
    )
    sizes = {"diameter_um": probe.diameter_um, "elongation": probe.elongation}
    entry |= {"probe": probe.to_json(), **sizes}
    return entry | read_grids(reader, options, by_time, probe.diameter_um, on_event)


def _tell_position(source: ImageSource, options: ResultConfig, on_event: Listener) -> None:
    """Say what a voxel size given by the user makes of the image's position; warn if it moves."""
    scales, position = level_scales(source, options)
    before, voxel = source.translation_um(0), scales[0]
    if options.voxel_size is None or not any(before):
        return
    if all(abs(a - b) <= v for a, b, v in zip(before, position, voxel, strict=True)):
        text = f"--voxel-size: the image's position {_triple_text(position)} is kept"
        on_event(Note(text))
        return
    text = (
        f"--voxel-size: the image's position ({', '.join(f'{v:.6g}' for v in before)}) is in no "
        f"known unit; it goes with the voxel size and is {_triple_text(position)}; positions in "
        "the table count from there"
    )
    on_event(Note(text, is_warning=True))


def _tell_channel(source: ImageSource, asked: str, index: int, on_event: Listener) -> None:
    """Warn where a channel's name is another one's index."""
    other = int(asked) if asked.isdecimal() else index
    if other != index and other < source.num_channels:
        text = (
            f"{source.path}: --channel {asked} is the name of channel {index}, and the index of "
            f"channel {other} ({source.channels[other]}); the name counts: for the other give "
            f"--channel {source.channels[other]}"
        )
        on_event(Note(text, is_warning=True))


def _tell(plan: Plan, probe: dict[str, Any] | None, on_event: Listener) -> None:
    """Say which scale is used and why."""
    if probe is not None and not probe["is_certain"]:
        text = (
            "the probe found no objects at any scale; the image's own scale is used; give "
            "--diameter if you know it"
        )
        on_event(Note(text, is_warning=True))
    if plan.grids:
        on_event(Note(grids_text(plan)))
    if probe is not None and "other_population" in probe and len(plan.views) == 1:
        on_event(
            Note(two_sizes_text(probe["diameter_um"], probe["other_population"]), is_warning=True)
        )
    for trial in () if probe is None else probe["trials"]:
        on_event(Note(f"probe: {trial_text(trial)}"))
    if plan.second_look is not None:
        on_event(Note(f"second look: every survivor, at level {plan.second_look.level}"))
    on_event(Note(f"channel {plan.channel} ({plan.source.channels[plan.channel]})"))
    if plan.source.others:
        names, index = plan.source.multiscale_names, plan.source.multiscale
        text = (
            f"multiscale {index} ({names[index]}); not read: {numbered(names, but=index)}; "
            "--multiscale takes one of them"
        )
        on_event(Note(text))
    if plan.diameter_um is not None:
        how = "probed" if probe is not None else "given"
        text = (
            f"object diameter {plan.size_text} ({how}); level {plan.working.level}, "
            f"working voxel {_triple_text(plan.working.voxel_um)}, working shape "
            f"{plan.working.shape}"
        )
        on_event(Note(text))


def _open(path: str, multiscale: str | None) -> ImageSource:
    """Read the description of an image; of what is none, say what it is."""
    images = find_images(path)
    if images != [path]:
        message = f"{path}: a container of {len(images)} series; give one of them: {images[0]}"
        raise ImageError(message)
    return read_image(path, multiscale)


def _settled(
    config: SegmentConfig,
    source: ImageSource,
    model: Model,
    outputs: Outputs,
    region: Region | None,
) -> dict[str, object]:
    """What decides the result; a precision left open is that of what was begun here, if any."""
    options = config.result
    if options.precision != "auto":
        return fingerprint_parts(source, model, options, options.precision, region)
    natural = natural_precision(options.backend)
    either = [
        fingerprint_parts(source, model, options, precision, region)
        for precision in sorted(PRECISIONS, key=lambda name: name != natural)
    ]
    begun = publish.fingerprints(outputs, with_label=not config.run.overwrite)
    return next((parts for parts in either if fingerprint(parts) in begun), either[0])


def resources(config: SegmentConfig) -> tuple[int, tuple[str, ...]]:
    """Return the memory that all processes may take, bytes, and the GPUs that the network may use.

    Parameters
    ----------
    config : SegmentConfig
    """
    memory = config.run.memory
    return available_memory() if memory is None else memory, tuple(gpu_names(config.result.backend))


@contextlib.contextmanager
def engine_for(config: SegmentConfig, stop: Stop | None = None) -> Iterator[Engine]:
    """Run workers as a config asks for them, on this machine or on a cluster, while a block runs.

    Parameters
    ----------
    config : SegmentConfig
        Of one image, or what is asked of all of them.
    stop : Stop, optional
        When to begin no further block.

    Yields
    ------
    Engine

    Raises
    ------
    ConfigError
        If the memory is too small, the cluster does not answer, or there is no temporary place.
    """
    _check_temporary()
    memory, gpus = resources(config)
    run = config.run
    with open_engine(run.workers, memory, stop, scheduler=run.scheduler, gpus=gpus) as engine:
        yield engine


def _check_temporary() -> None:
    """Check that there is a temporary place: the network and the workers need one."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        message = (
            f"no temporary directory can be written ({shorten(error.strerror)}); set TMPDIR to one "
            "that can"
        )
        raise ConfigError(message) from error


def check_network(factory: PredictorFactory) -> None:
    """Check before work, without loading it, that the network can run.

    Raises
    ------
    ModelError
        If its backend is not installed.
    """
    if isinstance(factory, KerasFactory) and importlib.util.find_spec(factory.backend) is None:
        message = (
            f"network: {factory.backend} is not installed; install the package with the extra "
            f"{extra_of(factory.backend)}"
        )
        raise ModelError(message)


def _triple_text(values: tuple[float, float, float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values) + " um"
