"""`anystar-batch sweep`: every image below a directory, for cron."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from anystar_batch import options as o
from anystar_batch.cli import options as cli_options
from anystar_batch.cli.config_file import ConfigFile
from anystar_batch.cli.screen import (
    DONE,
    FAILED,
    LATER,
    WARNED,
    interruptible,
    listener,
    report,
    start_log,
)
from anystar_batch.errors import AnyStarBatchError, ConfigError

if TYPE_CHECKING:
    from anystar_batch.cli.progress import Listener
    from anystar_batch.engine.stop import Stop
    from anystar_batch.pipeline.sweep import SweepConfig
    from anystar_batch.pipeline.sweep_outcome import Outcome, Swept


def sweep(  # noqa: PLR0913  (one parameter an option)
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="Directory below which the images lie.")
    ],
    pattern: Annotated[
        str, typer.Option(help="Names of the directories that are images.")
    ] = "*.ome.zarr",
    max_hours: Annotated[
        float | None,
        typer.Option(metavar="H", help="Stop between blocks after so long; the next continues."),
    ] = None,
    settle: Annotated[
        str,
        typer.Option(metavar="TIME", help="Leave images with a file younger than this: 90s, 2h."),
    ] = "15min",
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
    table: cli_options.Table = False,
    overwrite: cli_options.Overwrite = False,
    no_report: cli_options.NoReport = False,
    fail_on_warning: cli_options.FailOnWarning = False,
    dry_run: cli_options.DryRun = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object an image, and one of the sweep.")
    ] = False,
    log_file: cli_options.LogFile = None,
    quiet: cli_options.Quiet = False,
    verbose: cli_options.Verbose = False,
) -> None:
    """Segment every image below ROOT that is complete and has no current label, oldest first.

    Exit codes: 0 all is well; 1 an image failed; 2 wrong usage; 3 --fail-on-warning found one.

    75 out of time, SIGTERM, or another sweep holds ROOT; the next one continues.
    """
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
    )
    progress = listener(quiet=quiet, verbose=verbose, is_here=scheduler is None)
    try:
        wanted = _config(chosen, root, pattern, settle)
        with interruptible(progress.close):
            swept = (
                _preview(wanted, as_json=as_json)
                if dry_run
                else _sweep(wanted, _stop(max_hours), progress, as_json=as_json)
            )
    except AnyStarBatchError as error:
        progress.close()
        code = report(error)
        if as_json:
            typer.echo(json.dumps({"root": root, "error": str(error), "exit": code}))
        raise typer.Exit(code) from None
    code = FAILED if swept.has_failed else DONE if swept.stopped is None else LATER
    if code == DONE and fail_on_warning and swept.has_warned:
        code = WARNED
    typer.echo(json.dumps(swept.to_json() | {"exit": code}) if as_json else _swept_text(swept))
    raise typer.Exit(code)


def _config(chosen: o.Chosen, root: str, pattern: str, settle: str) -> SweepConfig:
    from anystar_batch.parsing import parse_duration  # noqa: PLC0415
    from anystar_batch.pipeline.sweep import SweepConfig  # noqa: PLC0415

    wanted = chosen.segment_config(root)
    return SweepConfig(root, wanted, pattern, parse_duration("--settle", settle))


def _stop(max_hours: float | None) -> Stop:
    from anystar_batch.engine.stop import Stop  # noqa: PLC0415

    if max_hours is not None and not max_hours > 0:
        message = f"--max-hours: got {max_hours:g}; expected more than 0"
        raise ConfigError(message)
    return Stop(None if max_hours is None else 3600 * max_hours)


def _preview(config: SweepConfig, *, as_json: bool) -> Swept:
    from anystar_batch.pipeline import sweep as s  # noqa: PLC0415

    return s.preview(config, lambda outcome: _print_outcome(outcome, as_json=as_json))


def _sweep(config: SweepConfig, stop: Stop, progress: Listener, *, as_json: bool) -> Swept:
    """Sweep with one engine."""
    from anystar_batch.cli.progress import log_event  # noqa: PLC0415
    from anystar_batch.engine.engines import open_engine  # noqa: PLC0415
    from anystar_batch.engine.machine import available_memory  # noqa: PLC0415
    from anystar_batch.events import Event  # noqa: PLC0415
    from anystar_batch.network.devices import gpu_names  # noqa: PLC0415
    from anystar_batch.pipeline import sweep as s  # noqa: PLC0415

    run = config.wanted.run
    memory = run.memory if run.memory is not None else available_memory()

    def listen(event: Event) -> None:
        log_event(event)
        progress(event)

    def tell(outcome: Outcome) -> None:
        progress.close()
        _print_outcome(outcome, as_json=as_json)

    try:
        gpus = gpu_names(config.wanted.result.backend)
        opened = open_engine(run.workers, memory, stop, scheduler=run.scheduler, gpus=gpus)
        with _asked_to_stop(stop), opened as engine:
            return s.sweep(config, tell, listen, engine=engine)
    finally:
        progress.close()


@contextlib.contextmanager
def _asked_to_stop(stop: Stop) -> Iterator[None]:
    """Let SIGTERM stop between blocks; service managers send it."""
    before = signal.signal(signal.SIGTERM, lambda *_: stop.ask("by SIGTERM"))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_outcome(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(outcome.to_json()))
        return
    from anystar_batch.cli.pace import duration  # noqa: PLC0415

    parts = []
    if outcome.summary is not None:
        parts.append(f"{outcome.summary.instances} instances")
        seconds = sum(outcome.summary.seconds.values())
        parts += [duration(seconds)] if seconds else []
    # Messages name the image they speak of.
    where = "" if outcome.image in outcome.text else outcome.image
    said = "; ".join([*parts, *([" ".join(outcome.text.split())] if outcome.text else [])])
    typer.echo(f"{outcome.status:<14}{': '.join(part for part in (where, said) if part)}")


def _swept_text(swept: Swept) -> str:
    from anystar_batch.cli.pace import duration  # noqa: PLC0415

    counts = ", ".join(f"{count} {status}" for status, count in swept.counts.items())
    ended = "" if swept.stopped is None else f"; {swept.stopped}"
    found = counts or "no images"
    return f"sweep of {swept.root}: {found}; {duration(swept.seconds)}{ended}"
