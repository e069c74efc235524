"""What a command prints and how it ends: lines, the plan of a dry run, logs, exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from anystar_batch.errors import (
    AnyStarBatchError,
    BlockError,
    ConfigError,
    DataError,
    LockedError,
    OutOfTimeError,
    OutputError,
    WorkersError,
)

if TYPE_CHECKING:
    from anystar_batch.cli.progress import Listener
    from anystar_batch.pipeline.plate_table import Gathered
    from anystar_batch.pipeline.run_record import Summary
if TYPE_CHECKING:
    from anystar_batch.config import SegmentConfig
    from anystar_batch.pipeline.dry_run import Preview

logger = logging.getLogger(__name__)

DONE, FAILED, USAGE, WARNED, UNDECIDED, LATER, INTERRUPTED = 0, 1, 2, 3, 4, 75, 130
"""Exit codes, see the package's docstring."""

UNSUITED = "not for this tool"
"""What is said of images that a container holds besides, and a sweep meets: no failure."""

SEVERITY = (FAILED, USAGE, LATER, WARNED, DONE)
"""Exit codes of images from the one that counts most."""

PLACE_FAILED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE}
"""What a place that was fit to be written may say later: a failure, not a wrong option."""


CONTINUED = "interrupted; what was not published yet is continued by the same command"
"""What Ctrl-C means of a run."""


@contextlib.contextmanager
def interruptible(close: Callable[[], None], text: str = CONTINUED) -> Iterator[None]:
    """Say what Ctrl-C means, and exit as the shell expects.

    Raises
    ------
    typer.Exit
        With `INTERRUPTED`, after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        close()
        typer.echo(text, err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def told(*, quiet: bool, interrupted: str = "interrupted") -> Iterator[Listener]:
    """Log and show a command at work; say what went wrong, and end as the shell expects.

    Parameters
    ----------
    quiet : bool
        The option.
    interrupted : str
        What Ctrl-C means.

    Yields
    ------
    Listener
        Who shows it.

    Raises
    ------
    typer.Exit
        After an error of ours, with its code, and after Ctrl-C.
    """
    start_log(None)
    progress = listener(quiet=quiet, verbose=False)
    try:
        with interruptible(progress.close, interrupted):
            yield progress
    except AnyStarBatchError as error:
        raise typer.Exit(report(error)) from None
    finally:
        progress.close()


def print_summary(summary: Summary, *, as_json: bool) -> None:
    """Print what a run has made: the result, on stdout."""
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
        return
    if summary.status.startswith("part "):
        typer.echo(f"{summary.status} of {summary.label}: done, nothing is published yet")
        return
    done = "" if summary.status == "done" else f" ({summary.status})"
    typer.echo(f"labels {summary.label}: {summary.instances} instances{done}")
    typer.echo(f"channel {summary.channel}")
    typer.echo(f"table  {summary.stats}")
    if summary.report is not None:
        typer.echo(f"report {summary.report}")


def print_gathered(table: Gathered, *, as_json: bool) -> None:
    """Print what has become of a plate's table; fields that are not in it are a warning."""
    if as_json:
        typer.echo(json.dumps(table.to_json()))
    elif table.fields:
        held = f"{table.rows} instances of {table.fields} fields"
        typer.echo(f"plate  {table.stats}: {held}")
    if table.missing:
        names = ", ".join(table.missing[:5]) + (", ..." if len(table.missing) > 5 else "")
        text = f"warning: {table.stats} lacks {len(table.missing)} fields without a result: {names}"
        typer.echo(text, err=True)


def print_unsuited(image: str, error: Exception, *, as_json: bool) -> None:
    """Print which image of a container or a plate is left out, and why."""
    if as_json:
        typer.echo(json.dumps({"image": image, "status": UNSUITED, "text": str(error)}))
    typer.echo(f"{UNSUITED}: {error}", err=True)


def listener(*, quiet: bool, verbose: bool, is_here: bool = True) -> Listener:
    """Return who shows a run at work: bars on a terminal, lines elsewhere; all on stderr.

    Parameters
    ----------
    quiet, verbose : bool
        The options.
    is_here : bool
        Whether this machine does the work: of others nobody knows the memory.
    """
    from rich.console import Console

    from anystar_batch.cli import progress
    from anystar_batch.engine.machine import used_memory

    memory = used_memory if is_here else None

    def emit(line: str) -> None:
        typer.echo(line, err=True)

    if quiet:
        return progress.QuietProgress(emit)
    if sys.stderr.isatty() and not verbose:
        return progress.RichProgress(Console(stderr=True), memory)
    return progress.LogProgress(emit, memory)


def report(error: Exception, image: str | None = None) -> int:
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
    passing = BlockError | DataError | WorkersError
    if isinstance(error, passing) or not isinstance(error, AnyStarBatchError):
        return FAILED
    return USAGE


def start_screen(options: Mapping[str, Any]) -> None:
    """Check how loud a command shall be, and start its log; options of `SCREEN` by name.

    Raises
    ------
    typer.Exit
        If quiet and verbose are both asked for, or the log cannot be written.
    """
    if options["quiet"] and options["verbose"]:
        raise typer.Exit(report(ConfigError("-q and -v contradict each other; give one of them")))
    start_log(options["log_file"])


class _Log(logging.FileHandler):
    """A log file that may become full: that is said once, and the work goes on."""

    is_lost = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002  (logging's)
        """Say once that the log is not complete."""
        if not self.is_lost:
            self.is_lost = True
            why = sys.exc_info()[1]
            typer.echo(f"warning: --log-file: cannot be written any more ({why})", err=True)


def start_log(log_file: str | None) -> None:
    """Send the log to a file; without one, what listeners do not show is dropped.

    Raises
    ------
    typer.Exit
        If the file cannot be written.
    """
    handler: logging.Handler = logging.NullHandler()
    if log_file is not None:
        try:
            Path(log_file).absolute().parent.mkdir(parents=True, exist_ok=True)
            handler = _Log(log_file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            message = f"--log-file: {log_file} cannot be written ({error.strerror})"
            raise typer.Exit(report(ConfigError(message))) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("anystar_batch")
    for old in root.handlers:
        old.close()
    root.setLevel(logging.DEBUG)
    root.handlers = [handler]
    root.propagate = False


def preview(config: SegmentConfig, *, as_json: bool) -> int:
    """Print what a run would do; return the exit code."""
    from anystar_batch.pipeline import dry_run

    preview = dry_run.preview(config)
    is_here = config.run.scheduler is None
    typer.echo(json.dumps(preview.to_json()) if as_json else _text(preview, is_here=is_here))
    for text in preview.warnings:
        typer.echo(f"warning: {text}", err=True)
    return DONE


def _text(preview: Preview, *, is_here: bool) -> str:
    from anystar_batch.pipeline.local_limits import grids_text

    plan = preview.plan
    document = preview.to_json()
    zoom = " x ".join(f"{z:.3g}" for z in plan.working.zoom)
    outside = f", {preview.tiles_outside} lie outside" if plan.region is not None else ""
    filters = [f"  filters     {plan.filters}"] if plan.filters.to_json() else []
    limits = (
        [f"  limits      {grids_text(plan).removeprefix('local limits: ')}"] if plan.grids else []
    )
    done = f", {preview.tiles_done} done by an unfinished run" if preview.tiles_done else ""
    done += f", {preview.tiles_stored} from kept candidates" if preview.tiles_stored else ""
    estimate = preview.estimate
    work = "" if estimate is None else f", about {_size(estimate.work_bytes)} of work files"
    return "\n".join(
        [
            f"image         {plan.source.path}",
            f"  channel     {preview.channel}",
            f"  volume      {plan.source.shape_zyx(0)} voxels (z, y, x), {len(plan.times)} time(s)",
            f"  diameter    {plan.size_text}",
            f"  reads       level {plan.working.level} ({plan.level.origin}), zoom {zoom}",
            f"  working     {plan.working.shape} voxels of "
            + " x ".join(f"{v:.4g}" for v in plan.working.voxel_um)
            + " um",
            f"  tiles       {preview.tiles} of {plan.tiles.core}, window {plan.tiles.window}"
            f"{outside}{done}",
            *limits,
            *filters,
            f"  blocks      {preview.blocks} of {preview.block_shape} level-0 voxels",
            f"  memory      {document['memory_per_worker'] / 1e9:.2f} GB a worker",
            f"  disk        {_size(preview.label_bytes)} of labels before compression{work}; "
            f"{preview.free_bytes / 1e9:.1f} GB free",
            f"  time        {_time_text(preview, is_here=is_here)}",
            f"label         {preview.outputs.label.path} ({preview.status})",
            f"table         {preview.outputs.stats}",
        ]
    )


def _time_text(preview: Preview, *, is_here: bool) -> str:
    """How long the run will take, and by what that is told."""
    from anystar_batch.cli.pace import duration

    estimate = preview.estimate
    if preview.status == "nothing to do":
        return "none: the very result is there"
    if not preview.tiles:
        return "none: no tile lies inside; label and table will be empty"
    if preview.tiles_stored and preview.tiles_done + preview.tiles_stored == preview.tiles:
        return "seconds: the network has nothing left to do"
    if estimate is None:
        return "unknown: nothing is stored in the tiles that were looked at"
    workers = f"{estimate.workers} worker" + ("" if estimate.workers == 1 else "s")
    tiles = f"{estimate.tiles} tile" + ("" if estimate.tiles == 1 else "s")
    where = "" if is_here else " of this machine; the cluster was not asked"
    return (
        f"about {duration(estimate.seconds)} for the network, an estimate: {tiles} of "
        f"{estimate.tile_seconds:.2g} s on {workers}{where}; other stages come on top"
    )


def _size(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.3g} GB" if count >= 10**9 else f"{count / 1e6:.3g} MB"
