"""The order of work for one image: plan, predict, suppress, number, paint, pyramid, table, publish.

::

    predict   tiles       -> candidates           network
    suppress  tiles       -> survivors            exact, whatever the blocks
    number    survivors   -> labels 1..n          by (t, z, y, x)
    paint     shards      -> level 0, sums
    pyramid   shards      -> level n from n - 1
    table     sums        -> CSV
    publish               -> visible, last

Every piece done is in the ledger; a rerun continues. Nothing is visible before everything is done.
"""

from __future__ import annotations

import importlib.util
import time as clock
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch import publication, render, stages
from anystar_batch.archive.fence import Fence
from anystar_batch.archive.labels import (
    create_label,
    discard,
    publish,
    published_attributes,
    recover,
)
from anystar_batch.archive.ledger import Ledger
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.store import (
    ImageReader,
    find_images,
    metadata_fingerprint,
    read_image,
    write_bytes_atomic,
    write_json_atomic,
)
from anystar_batch.blocks import units_per_block
from anystar_batch.config import SegmentConfig, parse_times
from anystar_batch.engine import Engine, InlineEngine, block_threads, threads_per_worker
from anystar_batch.errors import (
    ImageChangedError,
    ImageError,
    LedgerMismatchError,
    ModelError,
    OutputExistsError,
)
from anystar_batch.events import Event, Listener, Note, StageDone, StageStarted, ignore
from anystar_batch.geometry import ZYX, grid_shape
from anystar_batch.memory import (
    MemoryMeter,
    available_memory,
    block_bytes,
    default_block_shape,
    network_bytes,
)
from anystar_batch.network.bundled import Model, load_model
from anystar_batch.network.devices import natural_precision
from anystar_batch.network.predictor import KerasFactory, PredictorFactory, extra_of
from anystar_batch.network.unet import PRECISIONS
from anystar_batch.places import Places, run_places
from anystar_batch.plan import (
    Plan,
    channel_index,
    fingerprint,
    fingerprint_parts,
    level_scales,
    make_plan,
)
from anystar_batch.probe import probe_diameter
from anystar_batch.publication import token
from anystar_batch.record import (
    DONE,
    NOTHING_TO_DO,
    Preview,
    Summary,
    provenance,
    run_record,
)
from anystar_batch.report.probe_figure import probe_svg
from anystar_batch.sampling import all_limits, limits_content, reference_time
from anystar_batch.stages import Run
from anystar_batch.tabulate import table
from anystar_batch.tasks import Work

__all__ = ["Preview", "Standing", "Summary", "preview", "segment", "standing"]


def segment(
    config: SegmentConfig,
    on_event: Listener = ignore,
    *,
    engine: Engine | None = None,
    factory: PredictorFactory | None = None,
    model: Model | None = None,
) -> Summary:
    """Segment one image and publish the label and its table.

    Parameters
    ----------
    config : SegmentConfig
        What is wanted.
    on_event : callable
        Told of every stage and block.
    engine : Engine, optional
        Runs the blocks; None works in this process.
    factory : PredictorFactory, optional
        Makes the network; None is the model's own, under Keras.
    model : Model, optional
        Instead of the one that `config.model` names.

    Returns
    -------
    Summary

    Raises
    ------
    AnyStarBatchError
        With a message for the user. Nothing is published then; a rerun continues.
    """
    model = load_model(config.model) if model is None else model
    source = _open(config.image)
    places = run_places(config)
    parts = _settled(config, source, model, places)
    digest = fingerprint(parts)
    factory = factory or KerasFactory(str(parts["precision"]), config.result.backend)
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note) and event.is_warning:
            warnings.append(event.text)
        on_event(event)

    publication.check_places(places)
    with publication.named_errors(places), publication.hold_places(places) as fence:
        recover(places.label)
        before = publication.published(config, places, digest)
        if before is not None:
            status = _take_up(config, places, digest, fence, listen)
            count = int(before["instances"])
            empty = _summary(config, places, source, digest)
            return replace(
                empty,
                status=status,
                instances=count,
                warnings=tuple(warnings),
                removed=before.get("removed", {}),
            )
        _check_network(factory)
        if config.run.restart or publication.is_spent(places, digest):
            publication.throw_away(places, digest, fence)
        publication.make_folders(places)
        folder, engine = Path(places.work), engine or InlineEngine()
        threads = threads_per_worker(engine.workers)
        with MemoryMeter() as meter, Ledger(folder, digest, parts, fence.check) as ledger:
            try:
                plan = _plan(ImageReader(source), model, config, ledger, factory, listen)
                hidden = places.label.hidden_path(token(digest))
                work = Work(plan, places.work, hidden, factory, threads, fence)
                run = _run(config, work, ledger, engine, listen)
            except Exception:
                if not ledger.entries("predict"):
                    # Refused before work: better options must not meet what worse ones left.
                    publication.throw_away(places, digest, fence)
                raise
            instances = _segment(run, places, parts)
        summary = replace(
            _summary(config, places, source, digest),
            instances=instances,
            seconds={stage: round(value, 3) for stage, value in run.seconds.items()},
            peak_memory=meter.peak,
            warnings=tuple(warnings),
            removed=stages.removed_counts(run),
        )
        record = run_record(config, run, summary)
        fence.check()
        if record["probe"] is not None:
            picture = probe_svg(record["probe"]).encode()
            write_bytes_atomic(Path(places.work) / publication.PENDING_PROBE, picture)
        write_json_atomic(Path(places.work) / publication.PENDING_RECORD, record)
        publish(places.label, run.spec, token(digest), provenance(run, parts), fence.check)
        _finish(config, places, fence)
    return summary


def preview(
    config: SegmentConfig,
    factory: PredictorFactory | None = None,
    model: Model | None = None,
) -> Preview:
    """Decide everything and do nothing: read, probe, plan; write no file.

    Parameters
    ----------
    config : SegmentConfig
        What is wanted.
    factory : PredictorFactory, optional
        Makes the network, for the probe; None is the model's own, under Keras.
    model : Model, optional
        Instead of the one that `config.model` names.

    Raises
    ------
    AnyStarBatchError
        Whatever would stop the run before work starts.
    """
    model = load_model(config.model) if model is None else model
    source = _open(config.image)
    places = run_places(config)
    parts = _settled(config, source, model, places)
    digest = fingerprint(parts)
    factory = factory or KerasFactory(str(parts["precision"]), config.result.backend)
    publication.check_permissions(places)
    before = publication.published(config, places, digest)
    _check_network(factory)
    plan = _plan(ImageReader(source), model, config, None, factory, ignore)
    spec = render.spec_of(source)
    threads = block_threads(config.run.workers)
    shape = _block_shape(config, plan, spec.write_unit_zyx(0), threads)
    groups = units_per_block(shape, plan.tiles.core, plan.lattice.scale)
    counts = plan.tiles.counts
    sizes = [int(np.prod(info.shape, dtype=np.int64)) * 4 for info in spec.arrays]
    exists = Path(places.label.path).exists()
    return Preview(
        plan=plan,
        status=NOTHING_TO_DO if before is not None else "replace" if exists else "new",
        places=places,
        block_shape=shape,
        blocks=int(np.prod(grid_shape(counts, groups))) * len(plan.times),
        tiles=int(np.prod(counts)) * len(plan.times),
        label_bytes=sum(sizes),
        tile_bytes=network_bytes(plan),
        block_bytes=block_bytes(plan, shape),
    )


class Standing(StrEnum):
    """What a run over an image would meet."""

    WANTED = "wanted"
    CURRENT = "current"
    OTHER = "other"


def standing(config: SegmentConfig, model: Model | None = None) -> tuple[Standing, str]:
    """Say whether an image has the very label that a run would make; reads metadata only.

    Parameters
    ----------
    config : SegmentConfig
        What is wanted; `overwrite` is not looked at.
    model : Model, optional
        Instead of the one that `config.model` names.

    Returns
    -------
    Standing
        `CURRENT` if a run would do nothing at all; `OTHER` if another label or table has the place;
        else `WANTED`, also where only the end of a run that was cut short is missing.
    text
        Why it is another, or what is missing beside a current one; else empty.

    Raises
    ------
    AnyStarBatchError
        If it is no image that can be segmented.
    """
    model = load_model(config.model) if model is None else model
    config = replace(config, run=replace(config.run, overwrite=False))
    source = _open(config.image)
    places = run_places(config)
    digest = fingerprint(_settled(config, source, model, places))
    is_there = published_attributes(places.label) is not None
    if is_there and not Path(places.label.path).exists():
        return Standing.WANTED, ""  # cut short while it was replaced: a run recovers it
    try:
        before = publication.published(config, places, digest)
    except OutputExistsError as error:
        return Standing.OTHER, str(error)
    if before is None or publication.is_cut_short(places) or publication.is_spent(places, digest):
        return Standing.WANTED, ""
    text = "" if Path(places.stats).exists() else f"its table {places.stats} is missing"
    return Standing.CURRENT, text


def _open(path: str) -> ImageSource:
    """Read the description of an image; of what is none, say what it is."""
    images = find_images(path)
    if len(images) > 1 or Path(images[0]).absolute() != Path(path).absolute():
        message = f"{path}: a container of {len(images)} series; give one of them: {images[0]}"
        raise ImageError(message)
    return read_image(path)


def _settled(
    config: SegmentConfig, source: ImageSource, model: Model, places: Places
) -> dict[str, object]:
    """What decides the result; a precision left open is that of what was begun here, if any."""
    wanted = config.result
    if wanted.precision != "auto":
        return fingerprint_parts(source, model, wanted, wanted.precision)
    natural = natural_precision(wanted.backend)
    either = [
        fingerprint_parts(source, model, wanted, precision)
        for precision in sorted(PRECISIONS, key=lambda name: name != natural)
    ]
    begun = publication.fingerprints(places, with_label=not config.run.overwrite)
    return next((parts for parts in either if fingerprint(parts) in begun), either[0])


def _check_network(factory: PredictorFactory) -> None:
    """Raise before work if the network cannot run, without loading it."""
    if isinstance(factory, KerasFactory) and importlib.util.find_spec(factory.backend) is None:
        message = (
            f"network: {factory.backend} is not installed; install the package with the extra "
            f"{extra_of(factory.backend)}"
        )
        raise ModelError(message)


def _take_up(
    config: SegmentConfig, places: Places, digest: str, fence: Fence, listen: Listener
) -> str:
    """Finish what is published already, if it was cut short; return what that makes of the run."""
    if publication.is_cut_short(places):
        fence.check()
        discard(places.label, token(digest))
        _finish(config, places, fence)
        return DONE
    if not config.run.keep_work and publication.is_spent(places, digest):
        publication.throw_away(places, digest, fence)
    if not Path(places.stats).exists():
        text = (
            f"the label is there, but its table {places.stats} is not; give --overwrite to make "
            "both anew"
        )
        listen(Note(text, is_warning=True))
    return NOTHING_TO_DO


def _summary(config: SegmentConfig, places: Places, source: ImageSource, digest: str) -> Summary:
    """What is known of a run before it has done anything."""
    times = parse_times(config.result.time, source.num_times)
    return Summary(
        image=config.image,
        label=places.label.path,
        stats=places.stats,
        status=DONE,
        instances=0,
        voxels=int(np.prod(source.shape_zyx(0), dtype=np.int64)) * len(times),
        seconds={},
        peak_memory=0,
        fingerprint=digest,
    )


def _segment(run: Run, places: Places, parts: Mapping[str, object]) -> int:
    """Do every stage up to the finished table; return the number of instances."""
    hidden = Path(places.label.hidden_path(token(run.ledger.fingerprint)))
    if run.ledger.entries("paint") and not hidden.exists():
        message = (
            f"{places.work} speaks of a half-painted label that is gone ({hidden}); give --restart"
        )
        raise LedgerMismatchError(message)
    run.work.fence.check()
    create_label(places.label, run.spec, token(run.ledger.fingerprint))
    stages.check_content(run)
    stages.predict(run)
    stages.suppress(run)
    stages.number(run)
    stages.paint(run)
    stages.pyramid(run)
    count = table(run, Path(places.work) / publication.PENDING_TABLE)
    stages.check_content(run)
    if metadata_fingerprint(read_image(run.plan.source.path)) != parts["image"]:
        message = (
            f"{run.plan.source.path}: its metadata has changed during the run; nothing is "
            "published; give --restart to begin again"
        )
        raise ImageChangedError(message)
    dropped = sum(int(e["too_large"]) for e in run.ledger.entries("predict").values())
    if dropped:
        text = (
            f"{dropped} candidates were larger than the network's largest believable object "
            f"(radius {run.plan.max_radius:g} working voxels) and were dropped; if objects are "
            "missing, give a larger --diameter"
        )
        run.on_event(Note(text))
    removed = stages.removed_counts(run)
    if removed:
        run.on_event(Note(_removed_text(removed)))
    if count == 0:
        none = "no objects are left" if any(removed.values()) else "no objects were found"
        run.on_event(Note(none, is_warning=True))
    return count


def _removed_text(removed: Mapping[str, int]) -> str:
    """How many objects the filters have removed, in words."""
    each = ", ".join(f"{n} by --{name.replace('_', '-')}" for name, n in removed.items())
    return f"the filters removed {sum(removed.values())} objects: {each}"


def _plan(
    reader: ImageReader,
    model: Model,
    config: SegmentConfig,
    ledger: Ledger | None,
    factory: PredictorFactory,
    on_event: Listener,
) -> Plan:
    """Decide everything; what took voxels to decide is kept in the ledger."""
    source, wanted = reader.source, config.result
    if source.unit_assumed and wanted.voxel_size is None:
        text = (
            f"{source.path}: the image states no unit of length; micrometres are assumed "
            f"(voxel {_triple_text(source.scale_um(0))}); give --voxel-size Z Y X to override"
        )
        on_event(Note(text, is_warning=True))
    channel = channel_index(source, wanted.channel)
    times = parse_times(wanted.time, source.num_times)
    content = limits_content(reader, times, channel)
    known = None if ledger is None else ledger.entry("plan", "")
    if known is None:
        known = {**_decide(reader, model, config, factory, on_event), "content": content}
        if ledger is not None:
            ledger.done("plan", {"": known})
    elif known["content"] != content:
        message = (
            f"{source.path} has changed since an earlier, unfinished run read it; give --restart "
            "to begin again"
        )
        raise ImageChangedError(message)
    pairs = tuple(None if p is None else (float(p[0]), float(p[1])) for p in known["limits"])
    plan = make_plan(reader, model, wanted, known["diameter_um"], pairs, known["reference"])
    _tell(plan, known["probe"], on_event)
    return plan


def _decide(
    reader: ImageReader,
    model: Model,
    config: SegmentConfig,
    factory: PredictorFactory,
    on_event: Listener,
) -> dict[str, Any]:
    """Decide what takes voxels to decide: intensity limits and working scale, as JSON values."""
    wanted = config.result
    channel = channel_index(reader.source, wanted.channel)
    times = parse_times(wanted.time, reader.source.num_times)
    scales, _ = level_scales(reader.source, wanted)
    given = None if wanted.diameter is None else wanted.diameter.in_um(scales[0])
    limits = all_limits(reader, model, channel, times)
    reference, pair = reference_time(reader, model, channel, dict(zip(times, limits, strict=True)))
    known: dict[str, Any] = {"limits": limits, "reference": reference}
    if given is not None or model.diameter is None:
        return known | {"probe": None, "diameter_um": given}
    on_event(StageStarted("probe", 1))
    started = clock.perf_counter()
    alone = replace(wanted, time=str(reference))
    probe = probe_diameter(reader, model, alone, (pair,), factory, threads_per_worker(1))
    on_event(StageDone("probe", clock.perf_counter() - started))
    return known | {"probe": probe.to_json(), "diameter_um": probe.diameter_um}


def _tell(plan: Plan, probe: dict[str, Any] | None, on_event: Listener) -> None:
    """Say which scale is used and why."""
    if probe is not None and not probe["is_certain"]:
        text = (
            "the probe found no objects at any scale; the image's own scale is used; give "
            "--diameter if you know it"
        )
        on_event(Note(text, is_warning=True))
    for trial in () if probe is None else probe["trials"]:
        found = (
            f"{trial['objects']} objects of {trial['diameter_um']:.3g} um, "
            f"{trial['evidence']:.2g} um2 of surface in a um3"
            if trial["objects"]
            else "nothing of a size the network knows"
        )
        on_event(Note(f"probe: working voxel {trial['voxel_um']:.3g} um finds {found}"))
    if plan.diameter_um is not None:
        how = "probed" if probe is not None else "given"
        text = (
            f"object diameter {plan.diameter_um:.3g} um ({how}); level {plan.working.level}, "
            f"working voxel {_triple_text(plan.working.voxel_um)}, working shape "
            f"{plan.working.shape}"
        )
        on_event(Note(text))


def _run(
    config: SegmentConfig, work: Work, ledger: Ledger, engine: Engine, on_event: Listener
) -> Run:
    """Put together what the stages need."""
    unit = render.spec_of(work.plan.source).write_unit_zyx(0)
    shape = _block_shape(config, work.plan, unit, engine.threads)
    return Run(work, ledger, engine, on_event, shape)


def _block_shape(config: SegmentConfig, plan: Plan, unit: ZYX, threads: int) -> ZYX:
    memory = config.run.memory if config.run.memory is not None else available_memory()
    largest = default_block_shape(plan, memory, config.run.workers, unit, threads)
    return config.run.block_shape if config.run.block_shape is not None else largest


def _finish(config: SegmentConfig, places: Places, fence: Fence) -> None:
    """Bring table and record to their places; the run is over."""
    publication.finish(config, places, fence)


def _triple_text(values: tuple[float, float, float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values) + " um"
