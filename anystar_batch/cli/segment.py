"""`anystar-batch segment`: images named one by one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from anystar_batch import options as o
from anystar_batch.cli import options as cli_options
from anystar_batch.cli.config_file import ConfigFile
from anystar_batch.cli.screen import (
    DONE,
    SEVERITY,
    WARNED,
    interruptible,
    listener,
    preview,
    print_gathered,
    print_summary,
    report,
    start_log,
)
from anystar_batch.errors import AnyStarBatchError, ConfigError

if TYPE_CHECKING:
    from anystar_batch.cli.progress import Listener
    from anystar_batch.config import SegmentConfig
    from anystar_batch.engine.engines import Engine
    from anystar_batch.pipeline.inputs import Plate
    from anystar_batch.pipeline.run_record import Summary


def segment(  # noqa: PLR0913  (one parameter an option)
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="OME-Zarr images or plates, 0.4 or 0.5."),
    ],
    config: ConfigFile = None,
    label: cli_options.Label = "anystar",
    output: cli_options.Output = None,
    channel: cli_options.Channel = "0",
    time: cli_options.Time = "all",
    reference_time: cli_options.ReferenceTime = None,
    diameter: cli_options.Diameter = None,
    scales: cli_options.Scales = "1",
    voxel_size: cli_options.VoxelSize = None,
    prob_thresh: cli_options.ProbThresh = None,
    nms_thresh: cli_options.NmsThresh = None,
    min_volume: cli_options.MinVolume = None,
    max_volume: cli_options.MaxVolume = None,
    min_prob: cli_options.MinProb = None,
    min_contrast: cli_options.MinContrast = None,
    min_regularity: cli_options.MinRegularity = None,
    measure: cli_options.Measure = "",
    model: cli_options.Model = "anystar-mix",
    tile: cli_options.Tile = None,
    precision: cli_options.Precision = "auto",
    backend: cli_options.Backend = "tensorflow",
    block_shape: cli_options.BlockShape = None,
    memory: cli_options.Memory = None,
    workers: cli_options.Workers = None,
    scheduler: cli_options.Scheduler = None,
    work_dir: cli_options.WorkDir = None,
    stats: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Table of a single image or plate: .csv or .parquet."),
    ] = None,
    table: cli_options.Table = False,
    overwrite: cli_options.Overwrite = False,
    restart: Annotated[
        bool, typer.Option("--restart/--no-restart", help="Throw away what an unfinished run left.")
    ] = False,
    no_report: cli_options.NoReport = False,
    fail_on_warning: cli_options.FailOnWarning = False,
    dry_run: cli_options.DryRun = False,
    as_json: cli_options.AsJson = False,
    log_file: cli_options.LogFile = None,
    quiet: cli_options.Quiet = False,
    verbose: cli_options.Verbose = False,
) -> None:
    """Find every star-convex object in IMAGE and write labels and statistics."""
    del config  # its values are among the others
    if quiet and verbose:
        raise typer.Exit(report(ConfigError("-q and -v contradict each other; give one of them")))
    start_log(log_file)
    chosen = o.Chosen(
        label=label,
        output=output,
        channel=channel,
        time=time,
        reference_time=reference_time,
        diameter=diameter,
        scales=scales,
        voxel_size=voxel_size,
        prob_thresh=prob_thresh,
        nms_thresh=nms_thresh,
        min_volume=min_volume,
        max_volume=max_volume,
        min_prob=min_prob,
        min_contrast=min_contrast,
        min_regularity=min_regularity,
        measure=measure,
        model=model,
        tile=tile,
        precision=precision,
        backend=backend,
        block_shape=block_shape,
        memory=memory,
        workers=workers,
        scheduler=scheduler,
        work_dir=work_dir,
        table=table,
        overwrite=overwrite,
        no_report=no_report,
        restart=restart,
    )
    from anystar_batch.pipeline.inputs import image_configs  # noqa: PLC0415
    from anystar_batch.pipeline.plate_table import check_table  # noqa: PLC0415

    try:
        todo, plates = image_configs(chosen, images, stats)
        for plate in plates:
            check_table(plate, overwrite=chosen.overwrite)
    except AnyStarBatchError as error:
        raise typer.Exit(report(error)) from None
    if dry_run:
        with interruptible(lambda: None, "interrupted"):
            code = _each(todo, lambda config: preview(config, as_json=as_json), as_json=as_json)
    else:
        progress = listener(quiet=quiet, verbose=verbose, is_here=scheduler is None)
        with interruptible(progress.close):
            code = _segment_all(todo, progress, as_json=as_json, fail_on_warning=fail_on_warning)
            code = _gather_all(plates, code, as_json=as_json)
    raise typer.Exit(code)


def _gather_all(plates: list[Plate], code: int, *, as_json: bool) -> int:
    """Put the tables of plates together; return the exit code that counts most."""
    from anystar_batch.pipeline.plate_table import gather  # noqa: PLC0415

    codes = [code]
    for plate in plates:
        try:
            print_gathered(gather(plate), as_json=as_json)
        except AnyStarBatchError as error:
            codes.append(report(error))
            if as_json:
                document = {"plate": plate.path, "error": str(error), "exit": codes[-1]}
                typer.echo(json.dumps(document))
    return min(codes, key=SEVERITY.index)


def _segment_all(
    configs: list[SegmentConfig], progress: Listener, *, as_json: bool, fail_on_warning: bool
) -> int:
    """Segment one image after another with one engine; return the exit code that counts most."""
    from anystar_batch.engine.engines import open_engine  # noqa: PLC0415
    from anystar_batch.engine.machine import available_memory  # noqa: PLC0415
    from anystar_batch.events import Note  # noqa: PLC0415
    from anystar_batch.network.devices import gpu_names  # noqa: PLC0415

    shared = configs[0].run
    memory = shared.memory if shared.memory is not None else available_memory()

    number = itertools.count(1)

    def run(config: SegmentConfig, engine: Engine) -> int:
        if len(configs) > 1:
            progress(Note(f"image {next(number)} of {len(configs)}: {config.image}"))
        try:
            summary = _segment_one(config, engine, progress)
        finally:
            progress.close()
        print_summary(summary, as_json=as_json)
        return WARNED if fail_on_warning and summary.warnings else DONE

    try:
        gpus = gpu_names(configs[0].result.backend)
        with open_engine(shared.workers, memory, scheduler=shared.scheduler, gpus=gpus) as engine:
            return _each(configs, lambda config: run(config, engine), as_json=as_json)
    except AnyStarBatchError as error:
        return report(error)


def _segment_one(config: SegmentConfig, engine: Engine, progress: Listener) -> Summary:
    from anystar_batch.cli.progress import log_event  # noqa: PLC0415
    from anystar_batch.events import Event  # noqa: PLC0415
    from anystar_batch.pipeline import segment as pipeline  # noqa: PLC0415

    def listen(event: Event) -> None:
        log_event(event)
        progress(event)

    return pipeline.segment(config, listen, engine=engine)


def _each(
    configs: list[SegmentConfig], run: Callable[[SegmentConfig], int], *, as_json: bool
) -> int:
    """Do every image, whatever becomes of the others; return the exit code that counts most."""
    codes = [DONE]
    for config in configs:
        try:
            codes.append(run(config))
        except Exception as error:  # noqa: BLE001  (one broken image never stops the others)
            codes.append(report(error, config.image if len(configs) > 1 else None))
            if as_json:
                document = {"image": config.image, "error": str(error), "exit": codes[-1]}
                typer.echo(json.dumps(document))
    return min(codes, key=SEVERITY.index)
