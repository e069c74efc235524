"""How a command talks and ends: lines, logs and exit codes."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
    from anystar_batch.pipeline.plate_table import Gathered
    from anystar_batch.pipeline.run_record import Summary
    from anystar_batch.progress import Listener

logger = logging.getLogger(__name__)

DONE, FAILED, USAGE, WARNED, LATER, INTERRUPTED = 0, 1, 2, 3, 75, 130
"""Exit codes, see the package's docstring."""

SEVERITY = (FAILED, USAGE, LATER, WARNED, DONE)
"""Exit codes of images from the one that counts most."""

PLACE_FAILED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE}
"""What a place that was fit to be written may say later: a failure, not a wrong option."""


@contextlib.contextmanager
def interruptible(
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


def print_summary(summary: Summary, *, as_json: bool) -> None:
    """Print what a run has made: the result, on stdout."""
    if as_json:
        typer.echo(json.dumps(summary.to_json()))
        return
    done = "" if summary.status == "done" else f" ({summary.status})"
    typer.echo(f"labels {summary.label}: {summary.instances} instances{done}")
    typer.echo(f"table  {summary.stats}")
    if summary.report is not None:
        typer.echo(f"report {summary.report}")


def print_gathered(found: Gathered, *, as_json: bool) -> None:
    """Print what has become of a plate's table; fields that are not in it are a warning."""
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    elif found.fields:
        held = f"{found.rows} instances of {found.fields} fields"
        typer.echo(f"plate  {found.stats}: {held}")
    if found.missing:
        names = ", ".join(found.missing[:5]) + (", ..." if len(found.missing) > 5 else "")
        text = f"warning: {found.stats} lacks {len(found.missing)} fields without a result: {names}"
        typer.echo(text, err=True)


def listener(*, quiet: bool, verbose: bool, is_here: bool = True) -> Listener:
    """Return who shows a run at work: bars on a terminal, lines elsewhere; all on stderr.

    Parameters
    ----------
    quiet, verbose : bool
        The options.
    is_here : bool
        Whether this machine does the work: of others nobody knows the memory.
    """
    from rich.console import Console  # noqa: PLC0415

    from anystar_batch import progress  # noqa: PLC0415
    from anystar_batch.engine.machine import used_memory  # noqa: PLC0415

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


def start_log(log_file: str | None) -> None:
    """Send the log to a file; without one, what listeners do not show is dropped."""
    handler: logging.Handler = logging.NullHandler()
    if log_file is not None:
        try:
            Path(log_file).absolute().parent.mkdir(parents=True, exist_ok=True)
            handler = logging.FileHandler(log_file, encoding="utf-8")
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
