"""What the user types: options become a config, the pipeline runs, the result is printed.

stdout carries the result, stderr everything else. Heavy imports wait until they are needed, so that
`--help` answers at once.

Exit codes: 0 done or nothing to do; 1 something failed (nothing of it is published, a rerun
resumes); 2 wrong usage or input; 3 published, with warnings made fatal; 75 locked or out of time;
130 interrupted. Over several images 1 beats 2 beats 75 beats 3.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystar_batch import __version__
from anystar_batch.errors import (
    AnyStarBatchError,
    BlockError,
    ConfigError,
    DataError,
    LockedError,
    OutOfTimeError,
    OutputError,
)

if TYPE_CHECKING:
    from anystar_batch.config import SegmentConfig
    from anystar_batch.engine import Engine
    from anystar_batch.progress import Listener
    from anystar_batch.record import Preview, Summary

logger = logging.getLogger(__name__)

DONE, FAILED, USAGE, WARNED, LATER, INTERRUPTED = 0, 1, 2, 3, 75, 130
"""Exit codes, see the module's docstring."""

SEVERITY = (FAILED, USAGE, LATER, WARNED, DONE)
"""Exit codes of images from the one that counts most."""

PLACE_FAILED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE}
"""What a place that was fit to be written may say later: a failure, not a wrong option."""

app = typer.Typer(
    name="anystar-batch",
    help="Segment every star-convex object in huge OME-Zarr volumes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"anystar-batch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Segment every star-convex object in huge OME-Zarr volumes, exactly, from the shell."""
    del version


@app.command()
def segment(  # noqa: PLR0913  (one parameter an option)
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="OME-Zarr images, 0.4 or 0.5.")
    ],
    label: Annotated[str, typer.Option(help="Name of the label.")] = "anystar",
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write everything here, not into the images.")
    ] = None,
    channel: Annotated[str, typer.Option(help="Channel to segment: index or name.")] = "0",
    time: Annotated[str, typer.Option(help="Times to segment: all, 3, or 0,2,5-8.")] = "all",
    diameter: Annotated[
        str | None,
        typer.Option(help="Typical object: 12um, or 9px in the plane. Default: probed."),
    ] = None,
    scales: Annotated[
        str,
        typer.Option(help="1,2 also looks for objects twice as large (--diameter: the small)."),
    ] = "1",
    voxel_size: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="Z Y X", help="Level-0 voxel in um, instead of the image's."),
    ] = None,
    prob_thresh: Annotated[
        float | None, typer.Option(help="Least object probability. Default: the model's.")
    ] = None,
    nms_thresh: Annotated[
        float | None, typer.Option(help="Largest shared volume. Default: the model's.")
    ] = None,
    min_volume: Annotated[
        str | None,
        typer.Option(
            metavar="VOLUME", help="Remove smaller objects: 500 (um3), or 120px (level-0 voxels)."
        ),
    ] = None,
    max_volume: Annotated[
        str | None, typer.Option(metavar="VOLUME", help="Remove larger objects.")
    ] = None,
    min_prob: Annotated[
        float | None,
        typer.Option(help="Remove objects less probable; unlike --prob-thresh after suppression."),
    ] = None,
    min_contrast: Annotated[
        float | None,
        typer.Option(help="Remove objects less unlike their surroundings, in standard deviations."),
    ] = None,
    min_regularity: Annotated[
        float | None,
        typer.Option(help="Remove objects that fill less of their convex hull, 0 to 1."),
    ] = None,
    model: Annotated[str, typer.Option(help="Bundled model, or a StarDist-3D folder.")] = (
        "anystar-mix"
    ),
    tile: Annotated[
        int | None, typer.Option(help="Core edge of a network tile, working voxels.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the network: float32, bfloat16, or auto: what is fast here.")
    ] = "auto",
    backend: Annotated[str, typer.Option(help="Of the network: tensorflow or jax.")] = "tensorflow",
    block_shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            metavar="Z Y X", help="Block of work in level-0 voxels. No effect on results."
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory of all processes, e.g. 4GB. Default: 80 % of free.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    work_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Place for ledger and intermediate files.")
    ] = None,
    stats: Annotated[
        str | None, typer.Option(metavar="FILE.csv", help="Table, for a single image.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a published label once done.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an unfinished run left.")
    ] = False,
    fail_on_warning: Annotated[
        bool, typer.Option("--fail-on-warning", help="Exit 3 if published with warnings.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = (
        False
    ),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an image.")] = False,
    log_file: Annotated[
        str | None, typer.Option(metavar="F", help="Write a detailed log here.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Plain lines, also on a terminal.")
    ] = False,
) -> None:
    """Find every star-convex object in IMAGE and write labels and statistics."""
    if quiet and verbose:
        raise typer.Exit(_report(ConfigError("-q and -v contradict each other; give one of them")))
    _start_log(log_file)

    def configs() -> list[SegmentConfig]:
        from anystar_batch import config as c  # noqa: PLC0415
        from anystar_batch.filters import Filters, parse_volume  # noqa: PLC0415
        from anystar_batch.places import name_images  # noqa: PLC0415

        result = c.ResultConfig(
            channel=channel,
            time=time,
            diameter=None if diameter is None else c.parse_diameter(diameter),
            voxel_size=voxel_size,
            prob_thresh=prob_thresh,
            nms_thresh=nms_thresh,
            tile=tile,
            scales=c.parse_scales(scales),
            precision=precision,
            backend=backend,
            filters=Filters(
                min_volume=None if min_volume is None else parse_volume("--min-volume", min_volume),
                max_volume=None if max_volume is None else parse_volume("--max-volume", max_volume),
                min_prob=min_prob,
                min_contrast=min_contrast,
                min_regularity=min_regularity,
            ),
        )
        run = c.RunConfig(
            block_shape=block_shape,
            memory=None if memory is None else c.parse_memory(memory),
            workers=workers,
            work_dir=work_dir,
            overwrite=overwrite,
            restart=restart,
        )
        named = name_images(images, with_output=output is not None)
        if stats is not None and len(named) > 1:
            message = f"--stats names one table, but there are {len(named)} images; leave it out"
            raise ConfigError(message)
        return [
            c.SegmentConfig(
                image=image.path,
                label=label,
                output=None if output is None else os.path.abspath(output),  # noqa: PTH100
                home=image.home,
                stem=image.stem,
                stats=None if stats is None else os.path.abspath(stats),  # noqa: PTH100
                model=model,
                result=result,
                run=run,
            )
            for image in named
        ]

    try:
        todo = configs()
    except AnyStarBatchError as error:
        raise typer.Exit(_report(error)) from None
    if dry_run:
        code = _preview_all(todo, as_json=as_json)
    else:
        listener = _listener(quiet=quiet, verbose=verbose)
        with _interruptible(listener.close):
            code = _segment_all(todo, listener, as_json=as_json, fail_on_warning=fail_on_warning)
    raise typer.Exit(code)


@app.command()
def info(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="OME-Zarr image.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an image.")] = False,
) -> None:
    """Show what an image is: axes, levels, voxel sizes, channels, labels."""
    from anystar_batch.describe import describe, describe_text  # noqa: PLC0415

    try:
        documents = describe(image)
    except AnyStarBatchError as error:
        raise typer.Exit(_report(error)) from None
    for document in documents:
        typer.echo(json.dumps(document) if as_json else describe_text(document))


@app.command()
def evaluate(  # noqa: PLR0913  (one parameter an option)
    labels: Annotated[
        str, typer.Argument(metavar="LABELS", help="Label to score, image with one, or array.")
    ],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="The true labels, likewise.")],
    level: Annotated[int, typer.Option(help="Level of both; 0 is the full resolution.")] = 0,
    channel: Annotated[
        str | None, typer.Option(help="Channel: index or name, where there are several.")
    ] = None,
    time: Annotated[str, typer.Option(help="Times to score: all, 3, or 0,2,5-8.")] = "all",
    block_shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="Z Y X", help="Box read at once, voxels. No effect on results."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.")] = False,
) -> None:
    """Score the objects of LABELS against those of TRUTH: counts, IoU matches, volumes."""
    from anystar_batch import evaluate as e  # noqa: PLC0415
    from anystar_batch.report.scores import scores_text  # noqa: PLC0415

    _start_log(None)
    listener = _listener(quiet=quiet, verbose=False)
    try:
        with _interruptible(listener.close, "interrupted"):
            config = e.EvaluateConfig(labels, truth, level, channel, time, block_shape)
            document = e.evaluate(config, listener).to_json()
    except AnyStarBatchError as error:
        raise typer.Exit(_report(error)) from None
    finally:
        listener.close()
    typer.echo(json.dumps(document) if as_json else scores_text(document))


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a model.")] = False,
) -> None:
    """List the bundled models."""
    from anystar_batch.network.bundled import bundled_models, load_model  # noqa: PLC0415

    try:
        found = [load_model(name) for name in bundled_models()]
    except AnyStarBatchError as error:
        raise typer.Exit(_report(error)) from None
    for model in found:
        if as_json:
            document = {
                "name": model.name,
                "version": model.version,
                "folder": model.folder,
                "sha256": model.sha256,
                "diameter_voxels": model.diameter,
                "grid": list(model.grid),
                "prob_thresh": model.prob_thresh,
                "nms_thresh": model.nms_thresh,
                "tile": model.tile,
                "context": model.context,
            }
            typer.echo(json.dumps(document))
        else:
            typer.echo(
                f"{model.name} {model.version}: objects of about {model.diameter} working voxels, "
                f"grid {model.grid}, prob {model.prob_thresh:g}, nms {model.nms_thresh:g}, "
                f"tile {model.tile}, context {model.context}"
            )


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write volume, labels, table, picture.")
    ] = Path("demo"),
) -> None:
    """Segment a small volume that ships with a dependency, and draw what was found."""
    from anystar_batch.demo import run_demo  # noqa: PLC0415

    _start_log(None)
    listener = _listener(quiet=False, verbose=False)
    try:
        with _interruptible(listener.close):
            made = run_demo(folder, listener)
    except AnyStarBatchError as error:
        raise typer.Exit(_report(error)) from None
    finally:
        listener.close()
    _print_summary(made.summary, as_json=False)
    typer.echo(f"image  {made.overlay}")


def _segment_all(
    configs: list[SegmentConfig], listener: Listener, *, as_json: bool, fail_on_warning: bool
) -> int:
    """Segment one image after another with one engine; return the exit code that counts most."""
    from anystar_batch.engine import open_engine  # noqa: PLC0415
    from anystar_batch.memory import available_memory  # noqa: PLC0415

    shared = configs[0].run
    memory = shared.memory if shared.memory is not None else available_memory()

    def run(config: SegmentConfig, engine: Engine) -> int:
        try:
            summary = _segment_one(config, engine, listener)
        finally:
            listener.close()
        _print_summary(summary, as_json=as_json)
        return WARNED if fail_on_warning and summary.warnings else DONE

    try:
        with open_engine(shared.workers, memory) as engine:
            return _each(configs, lambda config: run(config, engine), as_json=as_json)
    except AnyStarBatchError as error:
        return _report(error)


def _segment_one(config: SegmentConfig, engine: Engine, listener: Listener) -> Summary:
    from anystar_batch import pipeline  # noqa: PLC0415
    from anystar_batch.events import Event  # noqa: PLC0415
    from anystar_batch.progress import log_event  # noqa: PLC0415

    def listen(event: Event) -> None:
        log_event(event)
        listener(event)

    return pipeline.segment(config, listen, engine=engine)


def _preview_all(configs: list[SegmentConfig], *, as_json: bool) -> int:
    """Print the plan of every image; return the exit code that counts most."""
    from anystar_batch import pipeline  # noqa: PLC0415

    def run(config: SegmentConfig) -> int:
        found = pipeline.preview(config)
        typer.echo(json.dumps(found.to_json()) if as_json else _preview_text(found))
        return DONE

    with _interruptible(lambda: None):
        return _each(configs, run, as_json=as_json)


def _each(
    configs: list[SegmentConfig], run: Callable[[SegmentConfig], int], *, as_json: bool
) -> int:
    """Do every image, whatever becomes of the others; return the exit code that counts most."""
    codes = [DONE]
    for config in configs:
        try:
            codes.append(run(config))
        except Exception as error:  # noqa: BLE001  (one broken image never stops the others)
            codes.append(_report(error, config.image if len(configs) > 1 else None))
            if as_json:
                document = {"image": config.image, "error": str(error), "exit": codes[-1]}
                typer.echo(json.dumps(document))
    return min(codes, key=SEVERITY.index)


@contextlib.contextmanager
def _interruptible(
    close: Callable[[], None],
    text: str = "interrupted; what was not published yet is continued by the same command",
) -> Iterator[None]:
    """Say what Ctrl-C means, and exit as the shell expects."""
    try:
        yield
    except KeyboardInterrupt:
        close()
        typer.echo(text, err=True)
        raise typer.Exit(INTERRUPTED) from None


def _preview_text(preview: Preview) -> str:
    plan = preview.plan
    document = preview.to_json()
    diameter = "native scale" if plan.diameter_um is None else f"{plan.diameter_um:.3g} um"
    zoom = " x ".join(f"{z:.3g}" for z in plan.working.zoom)
    filters = [f"  filters     {plan.filters}"] if plan.filters.to_json() else []
    return "\n".join(
        [
            f"image         {plan.source.path}",
            f"  volume      {plan.source.shape_zyx(0)} voxels (z, y, x), {len(plan.times)} time(s)",
            f"  diameter    {diameter}",
            f"  reads       level {plan.working.level} ({plan.level.origin}), zoom {zoom}",
            f"  working     {plan.working.shape} voxels of "
            + " x ".join(f"{v:.4g}" for v in plan.working.voxel_um)
            + " um",
            f"  tiles       {preview.tiles} of {plan.tiles.core}, window {plan.tiles.window}",
            *filters,
            f"  blocks      {preview.blocks} of {preview.block_shape} level-0 voxels",
            f"  memory      {document['memory_per_worker'] / 1e9:.2f} GB a worker",
            f"  output      {preview.label_bytes / 1e9:.3f} GB of labels before compression",
            f"label         {preview.places.label.path} ({preview.status})",
            f"table         {preview.places.stats}",
        ]
    )


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
        return
    done = "" if summary.status == "done" else f" ({summary.status})"
    typer.echo(f"labels {summary.label}: {summary.instances} instances{done}")
    typer.echo(f"table  {summary.stats}")


def _listener(*, quiet: bool, verbose: bool) -> Listener:
    from rich.console import Console  # noqa: PLC0415

    from anystar_batch import progress  # noqa: PLC0415

    def emit(line: str) -> None:
        typer.echo(line, err=True)

    if quiet:
        return progress.QuietProgress(emit)
    if sys.stderr.isatty() and not verbose:
        return progress.RichProgress(Console(stderr=True))
    return progress.LogProgress(emit)


def _report(error: Exception, image: str | None = None) -> int:
    """Print one message for an error and return its exit code."""
    where = f"{image}: " if image is not None and image not in str(error) else ""
    if isinstance(error, AnyStarBatchError):
        typer.echo(f"error: {where}{error}", err=True)
        logger.error("%s", error)
    else:
        logger.critical("unexpected", exc_info=error)
        typer.echo(
            f"error: {where}unexpected {type(error).__name__}: {error}; this is a bug: please "
            "report it with the file that --log-file F writes",
            err=True,
        )
    return exit_code(error)


def exit_code(error: Exception) -> int:
    """Return the exit code of an error.

    Examples
    --------
    >>> exit_code(LockedError("held")), exit_code(ConfigError("--tile: got 0"))
    (75, 2)
    """
    if isinstance(error, LockedError | OutOfTimeError):
        return LATER
    if isinstance(error, OutputError):
        return FAILED if error.errno in PLACE_FAILED else USAGE
    if isinstance(error, BlockError | DataError) or not isinstance(error, AnyStarBatchError):
        return FAILED
    return USAGE


def _start_log(log_file: str | None) -> None:
    """Send the log to a file; without one, what listeners do not show is dropped."""
    handler: logging.Handler = logging.NullHandler()
    if log_file is not None:
        try:
            Path(log_file).absolute().parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(log_file, encoding="utf-8")
        except OSError as error:
            message = f"--log-file: {log_file} cannot be written ({error.strerror})"
            raise typer.Exit(_report(ConfigError(message))) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("anystar_batch")
    for old in root.handlers:
        old.close()
    root.setLevel(logging.DEBUG)
    root.handlers = [handler]
    root.propagate = False


def main() -> None:
    """Run the command."""
    arguments: Any = app
    arguments()
