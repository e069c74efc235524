"""The order of work for one image, from the plan to the report.

::

    predict   tiles       -> candidates           network
    suppress  tiles       -> survivors            exact, whatever the blocks
    number    survivors   -> labels 1..n          by (t, z, y, x)
    paint     shards      -> level 0, sums
    pyramid   shards      -> level n from n - 1
    table     sums        -> CSV
    publish               -> visible, last
    report                -> what may be wrong; a page to look at

Every piece done is in the ledger; a rerun continues. Nothing is visible before everything is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.archive.images import read_image
from anystar_batch.archive.labels import discard, publish
from anystar_batch.archive.ngff import channel_index, metadata_fingerprint
from anystar_batch.archive.storage.atomic_write import write_bytes_atomic, write_json_atomic
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import exists
from anystar_batch.archive.tables import has_table
from anystar_batch.config import SegmentConfig
from anystar_batch.engine.engines import Engine, InlineEngine
from anystar_batch.engine.machine import MemoryMeter, available_memory
from anystar_batch.errors import ImageChangedError, shorten
from anystar_batch.events import Hearing, Listener, Note, ignore
from anystar_batch.kernel_cache import news
from anystar_batch.network.model import Model
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.pipeline.candidate_sets import (
    check_place,
    keep_candidates,
    lowest_above,
    open_store,
    probe_tiles,
    tell_not_kept,
    tell_stored,
)
from anystar_batch.pipeline.label_stages import begin_label, paint_label
from anystar_batch.pipeline.output_checks import check_left, check_outputs, check_table_output
from anystar_batch.pipeline.outputs import (
    Outputs,
    lock_outputs,
    named_errors,
)
from anystar_batch.pipeline.part_exchange import absorb
from anystar_batch.pipeline.part_ledgers import left_parts
from anystar_batch.pipeline.prepare import Request, check_network, decide, request
from anystar_batch.pipeline.publish import (
    PENDING_CONFIG,
    PENDING_PROBE,
    PENDING_RECORD,
    finish,
    hand_over,
    has_left,
    is_cut_short,
    is_missing,
    is_spent,
    make_folders,
    mend,
    pending_table,
    published,
    put_table,
    seen_by_workers,
    throw_away,
    write_report,
)
from anystar_batch.pipeline.run_record import (
    DONE,
    NOTHING_TO_DO,
    Summary,
    effective_toml,
    provenance,
    run_record,
)
from anystar_batch.pipeline.scarcity import tell_counts
from anystar_batch.pipeline.star_outputs import add_stars, check_stars, lacks_stars, make_stars
from anystar_batch.report.probe_figure import probe_svg
from anystar_batch.stages import (
    image_identity,
    predict,
)
from anystar_batch.stages.blocks import block_shape
from anystar_batch.stages.ledger import Ledger
from anystar_batch.stages.raw_tile import kind_of
from anystar_batch.stages.region_survey import wanted_tiles
from anystar_batch.stages.run import Run, removed_counts
from anystar_batch.stages.table import table_run
from anystar_batch.stages.task import Work, spec_of

__all__ = ["Summary", "segment"]


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
    requested = request(config, model, factory)
    outputs, parts, digest = requested.outputs, requested.parts, requested.digest
    listen = Hearing(on_event)
    _tell_ahead(config, outputs, on_event)
    check_table_output(config)
    check_place(config, outputs)
    check_stars(config, requested.source)
    check_outputs(outputs)
    with named_errors(outputs), lock_outputs(outputs, on_event) as fence:
        mend(outputs, fence)
        before = published(config, outputs, digest, parts)
        are_missing = before is not None and lacks_stars(config, outputs)
        if before is not None:
            taken = _take_up(requested, before, fence, listen)
            if not are_missing:
                return replace(taken, warnings=tuple(listen.warnings))
        check_network(requested.factory)
        check_left(outputs, digest, overwrite=config.run.overwrite, table=config.run.table)
        if config.run.restart or is_spent(outputs, digest):
            throw_away(outputs, digest, fence)
        make_folders(outputs)
        folder, engine = Path(outputs.work), engine or InlineEngine()
        with MemoryMeter() as meter, Ledger(folder, digest, parts, fence.check) as ledger:
            try:
                check_paths(engine, requested)
                run = _planned(requested, ledger, engine, fence, listen)
            except Exception:
                if not ledger.entries("predict") and not left_parts(outputs):
                    # Refused before work: better options must not meet what worse ones left.
                    throw_away(outputs, digest, fence)
                raise
            instances = _segment(run, outputs, parts)
            make_stars(run, config)
            kept = keep_candidates(run, config, parts, outputs)
        probing = {k: v for k, v in listen.seconds.items() if k == "probe"}
        summary = replace(
            blank_summary(requested),
            instances=instances,
            seconds={k: round(v, 3) for k, v in (probing | run.seconds).items()},
            peak_memory=meter.peak,
            warnings=tuple(listen.warnings),
            removed=removed_counts(run),
        )
        if are_missing:
            add_stars(run, config, outputs)
        else:
            _publish(run, requested, summary, kept)
            write_report(config, outputs, fence, listen)
    return replace(summary, report=_page(outputs), warnings=tuple(listen.warnings))


def _publish(run: Run, requested: Request, summary: Summary, kept: dict[str, Any] | None) -> None:
    """Bring the finished label, and what waits for it, to their places."""
    config, outputs, parts = requested.config, requested.outputs, requested.parts
    digest, fence = requested.digest, run.work.fence
    options = effective_toml(config, parts)
    record = run_record(config, run, summary) | ({"candidates": kept} if kept else {})
    _leave_record(record, options, outputs, fence)
    hand_over(outputs, fence)
    check = partial(_check_place, config, outputs, digest, fence)
    publish(outputs.label, run.spec, digest, provenance(run, parts), check)
    finish(config, outputs, fence)


def check_paths(engine: Engine, requested: Request) -> None:
    """Check that every worker sees what is read and where work goes."""
    region = [] if requested.region is None else [requested.region.source]
    for source in (requested.source, *region):
        engine.check_paths(seen_by_workers(source, requested.outputs))


def _tell_ahead(config: SegmentConfig, outputs: Outputs, on_event: Listener) -> None:
    """Say where compiled kernels are kept, and where the label goes, if that is no usual place."""
    text = news()
    if text is not None:
        on_event(Note(text))
    if config.output is None and outputs.label.is_standalone:
        where = f"it goes to {outputs.label.path}"
        on_event(Note(f"{config.image} is in a zip file, which takes no label: {where}"))


def _check_place(config: SegmentConfig, outputs: Outputs, digest: str, fence: Fence) -> None:
    """Raise if the lock is lost, or another result has taken the place since the run began."""
    fence.check()
    published(config, outputs, digest)


def _leave_record(record: dict[str, Any], options: str, outputs: Outputs, fence: Fence) -> None:
    """Leave the run record, its options and the probe's picture, where they wait for the label."""
    fence.check()
    write_bytes_atomic(Path(outputs.work) / PENDING_CONFIG, options.encode())
    if record["probe"] is not None:
        picture = probe_svg(record["probe"]).encode()
        write_bytes_atomic(Path(outputs.work) / PENDING_PROBE, picture)
    write_json_atomic(Path(outputs.work) / PENDING_RECORD, record)


def _take_up(
    requested: Request, before: Mapping[str, Any], fence: Fence, listen: Listener
) -> Summary:
    """Finish what is published already, if it was cut short, and its page; say what is there."""
    config, outputs = requested.config, requested.outputs
    status = _finish_published(config, outputs, requested.digest, fence, listen)
    tell_not_kept(config, outputs, listen)
    if status == DONE or is_missing(config, outputs):
        write_report(config, outputs, fence, listen)
    return replace(
        blank_summary(requested),
        status=status,
        report=_page(outputs),
        instances=int(before["instances"]),
        removed=before.get("removed", {}),
    )


def _finish_published(
    config: SegmentConfig, outputs: Outputs, digest: str, fence: Fence, listen: Listener
) -> str:
    """Finish what is published already, if it was cut short; return what that makes of the run."""
    if is_cut_short(outputs, digest):
        fence.check()
        discard(outputs.label, digest)
        finish(config, outputs, fence)
        return DONE
    if config.run.table and not has_table(config.image, config.label):
        fence.check()
        put_table(config, outputs)
    if not config.run.keep_work and has_left(outputs, digest):
        throw_away(outputs, digest, fence)
    if not exists(outputs.stats):
        text = (
            f"the label is there, but its table {outputs.stats} is not; give --overwrite to make "
            "both anew"
        )
        listen(Note(text, is_warning=True))
    return NOTHING_TO_DO


def _page(outputs: Outputs) -> str | None:
    """The page, if there is one."""
    return outputs.report if Path(outputs.report).exists() else None


def blank_summary(requested: Request) -> Summary:
    """What is known of a run before it has done anything."""
    config, outputs, source = requested.config, requested.outputs, requested.source
    times = config.result.segmented_times(source.num_times)
    channel = channel_index(source, config.result.channel)
    return Summary(
        image=config.image,
        label=outputs.label.path,
        stats=outputs.stats,
        status=DONE,
        instances=0,
        voxels=int(np.prod(source.shape_zyx(0), dtype=np.int64)) * len(times),
        seconds={},
        peak_memory=0,
        fingerprint=requested.digest,
        channel=f"{channel} ({shorten(source.channels[channel])})",
    )


def _segment(run: Run, outputs: Outputs, parts: Mapping[str, object]) -> int:
    """Do every stage up to the finished table; return the number of instances."""
    begin_label(run, outputs)
    image_identity.check_content(run)
    predict.predict_run(run)
    tell_stored(run, parts)
    paint_label(run)
    count = table_run(run, pending_table(outputs))
    image_identity.check_content(run)
    source = read_image(run.plan.source.path, run.plan.source.multiscale)
    if metadata_fingerprint(source) != parts["image"]:
        message = (
            f"{run.plan.source.path}: its metadata has changed during the run; nothing is "
            "published; give --restart to begin again"
        )
        raise ImageChangedError(message)
    tell_counts(run, parts, count)
    return count


def _planned(
    requested: Request, ledger: Ledger, engine: Engine, fence: Fence, listen: Listener
) -> Run:
    """Decide everything; what parts of this run have done counts as done."""
    parts = absorb(ledger, requested.outputs, requested.parts)
    run = run_of(requested, ledger, engine, fence, listen)
    plan = run.plan
    if parts:
        total = sum(int(wanted_tiles(plan, time).sum()) for time in plan.times)
        done = len(ledger.entries("predict"))
        rest = f"; {total - done} tiles are open and done now" if done < total else ""
        listen(Note(f"parts: {parts} have left {done} of {total} tiles{rest}"))
    return run


def run_of(
    requested: Request,
    ledger: Ledger,
    engine: Engine,
    fence: Fence,
    on_event: Listener,
    prefix: str = "",
) -> Run:
    """Decide everything, and put together what the stages need.

    How large blocks are follows from memory and workers.
    """
    config, outputs, parts = requested.config, requested.outputs, requested.parts
    store = open_store(outputs)
    keep_above = config.run.kept_above(config.result.prob_thresh or requested.model.prob_thresh)
    find = probe_tiles(store, parts, ledger, outputs.work, keep_above)
    plan = decide(requested, ledger, on_event, find)
    kind = kind_of(parts, plan)
    work = Work(
        plan=plan,
        folder=outputs.work,
        label=outputs.label.hidden_path(requested.digest),
        factory=requested.factory,
        threads=engine.network_threads,
        fence=fence,
        kind=kind,
        keep_above=lowest_above(store, kind, keep_above),
        prefix=prefix,
    )
    unit = spec_of(work.plan.source).write_unit_zyx(0)
    limits = [n for n in (config.run.memory, engine.memory) if n is not None]
    memory = min(limits) if limits else available_memory()
    asked = config.run.block_shape
    shape = block_shape(work.plan, memory, engine.workers, unit, engine.threads, asked)
    return Run(work, ledger, engine, on_event, shape, store=store)
