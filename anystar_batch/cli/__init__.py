"""What the user types: options become a config, the pipeline runs, the result is printed.

stdout carries the result, stderr everything else. Heavy imports wait until they are needed, so that
`--help` answers at once.

In the order in which a command passes them: `completion` (what TAB offers), `parameters` (options
as Typer takes them), `config_file` (the same from a file); the commands: `segment`, `sweep`,
`export`, `seamtest`, and in `commands` the shorter ones; `progress` (bars and the log) with `pace`
(how fast, how long still); `screen` (prints the result, and ends), into `streams` that may be full
or closed.

Exit codes: 0 done or nothing to do; 1 something failed (nothing of it is published, a rerun
resumes); 2 wrong usage or input; 3 published, with warnings made fatal, or the seam test found a
trace; 4 the seam test cannot tell; 75 locked or out of time; 130 interrupted. Over several images 1
beats 2 beats 75 beats 3; what a container or a plate holds besides and is not for this tool (2D) is
named and counts only alone, as 2. A sweep never fails for such images, nor for links, other formats
and what it may not read.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from anystar_batch import __version__
from anystar_batch.cli import export, seamtest, segment, sweep
from anystar_batch.cli.commands import demo, evaluate, info, models, review, selftest, tune, view
from anystar_batch.cli.screen import INTERRUPTED, exit_code, report, start_log
from anystar_batch.cli.streams import find_temporary, guard
from anystar_batch.network.imports import declare_own

__all__ = ["app", "exit_code", "main"]

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
    start_log(None)  # or Python shows what is logged, beside what is said of it


_COMMANDS = (
    segment.segment,
    sweep.sweep,
    info,
    view,
    export.export,
    tune,
    review,
    evaluate,
    seamtest.seamtest,
    models,
    demo,
    selftest,
)
for _command in _COMMANDS:
    app.command()(_command)


def main() -> None:
    """Run the command."""
    arguments: Any = app
    guard()
    declare_own()
    find_temporary()
    try:
        arguments()
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(INTERRUPTED)
    except OSError as error:  # of a place that no check has thought of
        sys.exit(report(error))
