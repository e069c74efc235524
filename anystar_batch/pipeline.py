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

import os
import platform
import shutil
import time as clock
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch import __version__, render, stages, tasks
from anystar_batch.archive.labels import (
    KEY,
    create_label,
    discard,
    publish,
    published_attributes,
    recover,
)
from anystar_batch.archive.ledger import Ledger
from anystar_batch.archive.lock import hold
from anystar_batch.archive.store import (
    ImageReader,
    check_writable,
    read_image,
    write_json_atomic,
)
from anystar_batch.blocks import units_per_block
from anystar_batch.config import SegmentConfig, parse_times
from anystar_batch.engine import Engine, InlineEngine, threads_per_worker
from anystar_batch.errors import LedgerMismatchError, OutputExistsError
from anystar_batch.events import Event, Listener, Note, StageDone, StageStarted, ignore
from anystar_batch.geometry import ZYX, grid_shape
from anystar_batch.measure.partials import SHAPE, Partials, intensity_dtype, merge
from anystar_batch.measure.table import Frame, write_csv
from anystar_batch.memory import (
    PROCESS_BYTES,
    MemoryMeter,
    available_memory,
    block_bytes,
    default_block_shape,
    network_bytes,
)
from anystar_batch.network.bundled import Model, load_model
from anystar_batch.network.predictor import KerasPredictor, PredictorFactory
from anystar_batch.places import Places, move_atomic, run_places
from anystar_batch.plan import (
    Plan,
    all_limits,
    channel_index,
    fingerprint,
    fingerprint_parts,
    level_scales,
    limits_content,
    make_plan,
)
from anystar_batch.probe import probe_diameter
from anystar_batch.stages import Run
from anystar_batch.tasks import Work

PENDING_RECORD = "run.json"
"""The run record in the work directory, until the label is published."""

PENDING_TABLE = "table.csv"
"""The finished table in the work directory, until the label is published."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run has to show.

    Parameters
    ----------
    image, label, stats : str
        Paths of image, published label and table.
    status : str
        `done`, or `nothing to do` where the same result was there already.
    instances : int
        Number of labels.
    voxels : int
        Level-0 voxels of the segmented channel and times.
    seconds : dict
        Wall time by stage.
    peak_memory : int
        Largest memory of this process and its workers, bytes.
    fingerprint : str
        Digest of what decides the result.
    warnings : tuple of str
        What may not be as wanted.
    """

    image: str
    label: str
    stats: str
    status: str
    instances: int
    voxels: int
    seconds: Mapping[str, float]
    peak_memory: int
    fingerprint: str
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: the answer of a dry run.

    Parameters
    ----------
    plan : Plan
        What was decided.
    block_shape : (z, y, x)
        Level-0 voxels of a block.
    blocks : int
        Blocks of tiles over all times.
    tiles : int
        Tiles over all times.
    label_bytes : int
        Uncompressed size of the label's levels.
    tile_bytes, block_bytes : int
        Memory of the network for one tile, and of a block besides.
    places : Places
        Where results would go.
    """

    plan: Plan
    block_shape: ZYX
    blocks: int
    tiles: int
    label_bytes: int
    tile_bytes: int
    block_bytes: int
    places: Places

    def to_json(self) -> dict[str, Any]:
        """Return the preview as plain JSON values."""
        return {
            "image": self.plan.source.path,
            "label": self.places.label.path,
            "stats": self.places.stats,
            "plan": self.plan.to_json(),
            "block_shape": list(self.block_shape),
            "blocks": self.blocks,
            "tiles": self.tiles,
            "label_bytes_uncompressed": self.label_bytes,
            "memory_per_worker": self.tile_bytes + self.block_bytes + PROCESS_BYTES,
        }


def segment(
    config: SegmentConfig,
    on_event: Listener = ignore,
    *,
    engine: Engine | None = None,
    factory: PredictorFactory = KerasPredictor,
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
    factory : PredictorFactory
        Makes the network; tests pass another.
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
    source = read_image(config.image)
    places = run_places(config)
    parts = fingerprint_parts(source, model, config.result, _backend())
    digest = fingerprint(parts)
    _check_places(places)
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note) and event.is_warning:
            warnings.append(event.text)
        on_event(event)

    with hold(places.lock):
        recover(places.label)
        before = _published_before(config, places, digest)
        if before is not None:
            return before
        if config.run.restart:
            shutil.rmtree(places.work, ignore_errors=True)
            discard(places.label, _token(digest))
        _make_folders(places)
        with MemoryMeter() as meter, Ledger(Path(places.work), digest, parts) as ledger:
            plan = _plan(ImageReader(source), model, config, ledger, factory, listen)
            run = _run(config, plan, places, ledger, engine or InlineEngine(), factory, listen)
            instances = _segment(run, places)
            seconds = {stage: round(value, 3) for stage, value in run.seconds.items()}
        summary = Summary(
            image=config.image,
            label=places.label.path,
            stats=places.stats,
            status="done",
            instances=instances,
            voxels=int(np.prod(source.shape_zyx(0), dtype=np.int64)) * len(plan.times),
            seconds=seconds,
            peak_memory=meter.peak,
            fingerprint=digest,
            warnings=tuple(warnings),
        )
        record = _record(config, run, summary)
        write_json_atomic(Path(places.work) / PENDING_RECORD, record)
        publish(places.label, run.spec, _token(digest), _provenance(run, parts, digest))
        _finish(config, places)
    return summary


def preview(
    config: SegmentConfig, factory: PredictorFactory = KerasPredictor, model: Model | None = None
) -> Preview:
    """Decide everything and do nothing: read, probe, plan; write no file.

    Parameters
    ----------
    config : SegmentConfig
        What is wanted.
    factory : PredictorFactory
        Makes the network, for the probe.
    model : Model, optional
        Instead of the one that `config.model` names.

    Raises
    ------
    AnyStarBatchError
        Whatever would stop the run before work starts.
    """
    model = load_model(config.model) if model is None else model
    source = read_image(config.image)
    places = run_places(config)
    _check_places(places)
    plan = _plan(ImageReader(source), model, config, None, factory, ignore)
    spec = render.spec_of(source)
    shape = _block_shape(config, plan, spec.write_unit_zyx(0))
    groups = units_per_block(shape, plan.tiles.core, plan.lattice.scale)
    counts = plan.tiles.counts
    sizes = [int(np.prod(info.shape, dtype=np.int64)) * 4 for info in spec.arrays]
    return Preview(
        plan=plan,
        places=places,
        block_shape=shape,
        blocks=int(np.prod(grid_shape(counts, groups))) * len(plan.times),
        tiles=int(np.prod(counts)) * len(plan.times),
        label_bytes=sum(sizes),
        tile_bytes=network_bytes(plan),
        block_bytes=block_bytes(plan, shape),
    )


def _segment(run: Run, places: Places) -> int:
    """Do every stage up to the finished table; return the number of instances."""
    create_label(places.label, run.spec, _token(run.ledger.fingerprint))
    stages.check_content(run)
    stages.predict(run)
    stages.suppress(run)
    stages.number(run)
    stages.paint(run)
    stages.pyramid(run)
    count = _table(run, places)
    stages.check_content(run)
    dropped = sum(int(e["too_large"]) for e in run.ledger.entries("predict").values())
    if dropped:
        text = (
            f"{dropped} candidates were larger than the network's largest believable object "
            f"(radius {run.plan.max_radius:g} working voxels) and were dropped; if objects are "
            "missing, give a larger --diameter"
        )
        run.on_event(Note(text))
    if count == 0:
        run.on_event(Note("no objects were found", is_warning=True))
    return count


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
        limits = all_limits(reader, model, channel, times)
        scales, _ = level_scales(source, wanted)
        known = {"limits": limits, "content": content, "probe": None, "diameter_um": None}
        if wanted.diameter is not None:
            known["diameter_um"] = wanted.diameter.in_um(scales[0])
        elif model.diameter is not None:
            on_event(StageStarted("probe", 1))
            started = clock.perf_counter()
            probe = probe_diameter(reader, model, wanted, limits, factory, threads_per_worker(1))
            known["probe"] = probe.to_json()
            known["diameter_um"] = probe.diameter_um
            on_event(StageDone("probe", clock.perf_counter() - started))
        if ledger is not None:
            ledger.done("plan", {"": known})
    elif known["content"] != content:
        message = (
            f"{source.path} has changed since an earlier, unfinished run read it; give --restart "
            "to begin again"
        )
        raise LedgerMismatchError(message)
    pairs = tuple(None if p is None else (float(p[0]), float(p[1])) for p in known["limits"])
    plan = make_plan(reader, model, wanted, known["diameter_um"], pairs)
    _tell(plan, known["probe"], on_event)
    return plan


def _tell(plan: Plan, probe: dict[str, Any] | None, on_event: Listener) -> None:
    """Say which scale is used and why."""
    if probe is not None and not probe["is_certain"]:
        text = (
            "the probe found no objects at any scale; the image's own scale is used; give "
            "--diameter if you know it"
        )
        on_event(Note(text, is_warning=True))
    if plan.diameter_um is not None:
        how = "probed" if probe is not None else "given"
        text = (
            f"object diameter {plan.diameter_um:.3g} um ({how}); level {plan.working.level}, "
            f"working voxel {_triple_text(plan.working.voxel_um)}, working shape "
            f"{plan.working.shape}"
        )
        on_event(Note(text))


def _run(
    config: SegmentConfig,
    plan: Plan,
    places: Places,
    ledger: Ledger,
    engine: Engine,
    factory: PredictorFactory,
    on_event: Listener,
) -> Run:
    """Put together what the stages need."""
    hidden = places.label.hidden_path(_token(ledger.fingerprint))
    work = Work(plan, places.work, hidden, factory, threads_per_worker(engine.workers))
    unit = render.spec_of(plan.source).write_unit_zyx(0)
    return Run(work, ledger, engine, on_event, _block_shape(config, plan, unit))


def _block_shape(config: SegmentConfig, plan: Plan, unit: ZYX) -> ZYX:
    memory = config.run.memory if config.run.memory is not None else available_memory()
    largest = default_block_shape(plan, memory, config.run.workers, unit)
    return config.run.block_shape if config.run.block_shape is not None else largest


def _table(run: Run, places: Places) -> int:
    """Merge the sums and write the table into the work directory; return the number of rows."""
    started = clock.perf_counter()
    run.on_event(StageStarted("table", 1))
    source, plan = run.plan.source, run.plan
    painted = run.ledger.entries("paint")
    parts = render.load_partials(run.folder, painted)
    kind = intensity_dtype(source.dtype)
    empty = Partials(np.zeros(0, SHAPE), np.zeros((0, source.num_channels), kind))
    statistics = merge([empty, *parts])
    count = stages.instance_count(run)
    labels = statistics.shape["label"]
    if not np.array_equal(labels, np.arange(1, count + 1)):
        message = (
            f"{len(labels)} labels were painted, {count} numbered: the work directory "
            f"{places.work} is damaged; give --restart"
        )
        raise LedgerMismatchError(message)
    times = None
    if source.t_axis is not None:
        numbered = run.ledger.entries("number")
        counts = [int(numbered[str(t)]["count"]) for t in plan.times]
        times = np.repeat(np.asarray(plan.times, np.int64), counts)
    frame = Frame(source.shape_zyx(0), plan.scale_um, plan.translation_um, source.channels)
    write_csv(
        Path(places.work) / PENDING_TABLE, statistics, frame, stages.probabilities(run), times
    )
    run.seconds["table"] = clock.perf_counter() - started
    run.on_event(StageDone("table", run.seconds["table"]))
    return count


def _provenance(run: Run, parts: dict[str, object], digest: str) -> dict[str, object]:
    """What the label says of its making: the same for equal runs, whenever and wherever made."""
    counted = run.ledger.entries("number").values()
    known = run.ledger.entry("plan", "") or {}
    return {
        "fingerprint": digest,
        "instances": stages.instance_count(run),
        "hidden": sum(int(e["hidden"]) for e in counted),
        "model": {"name": run.plan.model.name, "version": run.plan.model.version},
        "options": {k: v for k, v in parts.items() if k != "image"},
        "decided": run.plan.to_json(),
        "probe": known.get("probe"),
        "times_segmented": list(run.plan.times),
    }


def _record(config: SegmentConfig, run: Run, summary: Summary) -> dict[str, object]:
    """What the run was: with time, host, workers and blocks, which the label never mentions."""
    known = run.ledger.entry("plan", "") or {}
    predicted = run.ledger.entries("predict").values()
    return {
        "anystar_batch": __version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "config": config.to_json(),
        "workers": run.engine.workers,
        "block_shape": list(run.block_shape),
        "model": {"name": run.plan.model.name, "sha256": run.plan.model.sha256},
        "plan": run.plan.to_json(),
        "probe": known.get("probe"),
        "candidates_too_large": sum(int(e["too_large"]) for e in predicted),
        "survivors_hidden": sum(int(e["hidden"]) for e in run.ledger.entries("number").values()),
        "summary": summary.to_json(),
    }


def _check_places(places: Places) -> None:
    """Raise before work if something cannot be written."""
    check_writable(places.label.parent)
    check_writable(places.folder)
    check_writable(places.work)
    check_writable(str(Path(places.stats).parent))


def _make_folders(places: Places) -> None:
    for name in (tasks.CANDIDATES, tasks.SURVIVORS, render.PARTIALS):
        (Path(places.work) / name).mkdir(parents=True, exist_ok=True)
    Path(places.stats).parent.mkdir(parents=True, exist_ok=True)


def _published_before(config: SegmentConfig, places: Places, digest: str) -> Summary | None:
    """Finish or find this very result; raise if another one has its place."""
    attributes = published_attributes(places.label)
    if attributes is not None and not config.run.overwrite:
        provenance = attributes.get(KEY)
        ours = provenance if isinstance(provenance, dict) else {}
        if ours.get("fingerprint") != digest:
            what = "by another model or other options" if ours else "by another program"
            message = (
                f"{places.label.path} exists already, made {what}; give another --label, or "
                "--overwrite to replace it once the new one is complete"
            )
            raise OutputExistsError(message)
        status = "nothing to do"
        if (Path(places.work) / PENDING_RECORD).exists():
            # Published, then cut short.
            _finish(config, places)
            status = "done"
        return Summary(
            image=config.image,
            label=places.label.path,
            stats=places.stats,
            status=status,
            instances=int(str(ours.get("instances", 0))),
            voxels=0,
            seconds={},
            peak_memory=0,
            fingerprint=digest,
        )
    if attributes is None and Path(places.stats).exists() and not config.run.overwrite:
        message = (
            f"{places.stats} exists already and belongs to no label here; give another --stats, or "
            "--overwrite to replace it"
        )
        raise OutputExistsError(message)
    return None


def _finish(config: SegmentConfig, places: Places) -> None:
    """Bring table and record to their places after the label is published; tidy up."""
    work = Path(places.work)
    for pending, final in ((PENDING_TABLE, places.stats), (PENDING_RECORD, places.record)):
        if (work / pending).exists():
            move_atomic(work / pending, Path(final))
    if not config.run.keep_work:
        shutil.rmtree(work, ignore_errors=True)


def _token(digest: str) -> str:
    """What tells the hidden label of this result from that of another."""
    return digest[:12]


def _backend() -> str:
    return os.environ.get("ANYSTAR_BATCH_BACKEND", "tensorflow")


def _triple_text(values: tuple[float, float, float]) -> str:
    return " x ".join(f"{v:.4g}" for v in values) + " um"
