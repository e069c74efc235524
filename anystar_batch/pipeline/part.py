"""One part of a run: a share of its work, done by a process that needs no scheduler.

Any number of processes (a Slurm array, an indexed job of Kubernetes, AWS or Google Batch, GNU
parallel) run the network over one image, each over a share of its tiles, and meet in the work
directory alone, or in the object store that results go to (`part_exchange`). Parts that find all
tiles done do their share of the rest (`part_units`). Nothing is published: the same command without
`--part` takes what they have done, does what is left, and publishes. A part may die, run twice, or
never run. A tile's candidates are a pure function of image and options, so the result is that of a
single run, byte for byte.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.address import is_remote
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import make_folder
from anystar_batch.config import SegmentConfig
from anystar_batch.engine.engines import Engine, InlineEngine
from anystar_batch.engine.machine import MemoryMeter
from anystar_batch.errors import ConfigError
from anystar_batch.events import Hearing, Listener, Note, ignore
from anystar_batch.geometry import as_zyx
from anystar_batch.network.model import Model
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.pipeline import segment as pipeline
from anystar_batch.pipeline.candidate_sets import check_place
from anystar_batch.pipeline.output_checks import check_outputs
from anystar_batch.pipeline.outputs import (
    Outputs,
    named_errors,
    taken_over,
)
from anystar_batch.pipeline.part_exchange import own_work, part_ledger
from anystar_batch.pipeline.part_ledgers import (
    check_unfinished,
    hold_part,
    known_entries,
)
from anystar_batch.pipeline.part_units import Together, do_units
from anystar_batch.pipeline.prepare import Request, check_network, request
from anystar_batch.pipeline.publish import make_folders, published
from anystar_batch.pipeline.run_record import NOTHING_TO_DO, Summary
from anystar_batch.pipeline.segment import blank_summary, check_paths, run_of
from anystar_batch.pipeline.star_outputs import lacks_stars
from anystar_batch.stages import image_identity
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.predict import predict_run
from anystar_batch.stages.region_survey import wanted_tiles
from anystar_batch.stages.task import piece_key
from anystar_batch.stages.workdir import FOLDERS


def segment_asked(
    config: SegmentConfig, on_event: Listener = ignore, *, engine: Engine | None = None
) -> Summary:
    """Do the part of a run that the options ask for, or else the whole of it.

    Parameters
    ----------
    config, on_event, engine
        As of `segment_part` and `segment.segment`, and so is what is returned and raised.
    """
    if config.run.part is None:
        return pipeline.segment(config, on_event, engine=engine)
    return segment_part(config, on_event, engine=engine)


def segment_part(
    config: SegmentConfig,
    on_event: Listener = ignore,
    *,
    engine: Engine | None = None,
    factory: PredictorFactory | None = None,
    model: Model | None = None,
) -> Summary:
    """Do one part of a run over one image: the network on its share of the tiles, or what is next.

    Parameters
    ----------
    config : SegmentConfig
        What is wanted; `config.run.part` says which part.
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
        With the status `part I/N`; nothing is published.

    Raises
    ------
    ConfigError
        If the work of all parts would be thrown away.
    LockedError
        If this very part, or the run that finishes, is at work.
    AnyStarBatchError
        With a message for the user. What is done is kept; a rerun continues.
    """
    part = config.run.part
    if part is None:
        message = "--part: got none; expected I/N, such as 3/8"
        raise ConfigError(message)
    requested = request(config, model, factory)
    outputs, digest = requested.outputs, requested.digest
    if config.run.restart:
        message = (
            "--part and --restart contradict each other: the work directory belongs to all parts; "
            f"delete {outputs.work} before the first of them"
        )
        raise ConfigError(message)
    listen = Hearing(on_event)
    check_place(config, outputs)
    check_outputs(outputs)
    empty = replace(blank_summary(requested), status=f"part {part[0]}/{part[1]}")
    with named_errors(outputs), MemoryMeter() as meter:
        try:
            make_folder(outputs.parts)
            tell = lambda who: listen(taken_over(who))  # noqa: E731
            with hold_part(outputs, part, tell) as fence:
                check_unfinished(outputs)
                before = published(config, outputs, digest, requested.parts)
                if before is not None and not lacks_stars(config, outputs):
                    count = int(before["instances"])
                    return replace(empty, status=NOTHING_TO_DO, instances=count)
                check_network(requested.factory)
                with own_work(outputs, part) as mine:
                    make_folders(mine)
                    asked = replace(requested, outputs=mine)
                    seconds, text = _work(asked, part, fence, engine, listen)
        finally:
            _tidy(outputs)
    listen(Note(f"part {part[0]}/{part[1]}: {text}"))
    return replace(empty, seconds=seconds, peak_memory=meter.peak, warnings=tuple(listen.warnings))


def _work(
    requested: Request,
    part: tuple[int, int],
    fence: Fence,
    engine: Engine | None,
    listen: Listener,
) -> tuple[dict[str, float], str]:
    """Do the part's tiles, or its share of the rest; return seconds by stage, and what is done."""
    outputs, engine = requested.outputs, engine or InlineEngine()
    known = _known(requested)
    digest, parts = requested.digest, requested.parts
    with part_ledger(outputs, outputs.work, part, digest, parts, fence.check) as ledger:
        if ledger.entry("plan", "") is None and known["plan"]:
            ledger.done("plan", known["plan"])
        check_paths(engine, requested)
        prefix = f"{part[0]}-of-{part[1]}."
        run = run_of(requested, ledger, engine, fence, listen, prefix)
        own = ledger.entries("predict")
        elsewhere = known["predict"].keys() - own.keys()
        everything = _share(run.plan, (1, 1))
        is_next = everything <= (elsewhere | own.keys()) and not is_remote(outputs.parts)
        if is_next:
            together = Together(outputs, part, run, parts)
            text = _PAINTED if do_units(run, together, outputs, part) else _WAITED
        else:
            mine = _share(run.plan, part)
            image_identity.check_content(run)
            predict_run(run, mine - elsewhere)
            image_identity.check_content(run)
            done = mine & (elsewhere | own.keys())
            text = f"{len(done)} of its {len(mine)} tiles are done; {_NEXT}"
    return {k: round(v, 3) for k, v in run.seconds.items()}, text


_FINISH = "the same command without --part does what is left and publishes"

_NEXT = f"when all parts have ended, {_FINISH}"

_PAINTED = f"all parts have painted their share of the label; {_FINISH}"

_WAITED = f"its share is done, and other parts that are not at work have something left; {_FINISH}"


def _known(requested: Request) -> dict[str, dict[str, dict[str, Any]]]:
    """Plan and tiles that are done already, by others and by this part: entries by key."""
    known: dict[str, dict[str, dict[str, Any]]] = {"plan": {}, "predict": {}}
    for stage, entries in known_entries(requested.outputs, requested.digest, requested.parts):
        if stage in known:
            known[stage] |= entries
    return known


def _share(plan: Plan, part: tuple[int, int]) -> set[str]:
    """The pieces of a part: tiles side by side, so that parts read few chunks twice."""
    index, count = part
    wanted = [np.argwhere(wanted_tiles(plan, time)) for time in plan.times]
    ends = np.cumsum([0, *map(len, wanted)])
    first, last = (n * int(ends[-1]) // count for n in (index - 1, index))
    return {
        piece_key(time, as_zyx(tile))
        for time, tiles, end in zip(plan.times, wanted, ends, strict=False)
        for tile in tiles[max(0, first - int(end)) : max(0, last - int(end))]
    }


def _tidy(outputs: Outputs) -> None:
    """Remove directories that nothing was put into: the run may have been finished meanwhile."""
    if is_remote(outputs.parts):  # a part's own directory there is gone already
        return
    work = Path(outputs.work)
    for folder in (Path(outputs.parts), *(work / name for name in FOLDERS), work):
        with contextlib.suppress(OSError):
            folder.rmdir()
