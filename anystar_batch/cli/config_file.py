"""`--config run.toml`: options from a file, below what the command line says.

The file is flat TOML; a key is an option's name, with `-` or `_`. Click takes the values as
defaults: whatever is typed wins, and both go through the same checks.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from anystar_batch.cli.screen import report
from anystar_batch.errors import ConfigError, shorten
from anystar_batch.options import RUN, checked


def read_document(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        If it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        message = f"--config: {path} cannot be read ({error.strerror}); expected a TOML file"
        raise ConfigError(message) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"--config: {path} is no TOML: {shorten(error)}"
        raise ConfigError(message) from error


def take_config(context: typer.Context, value: Path | None) -> Path | None:
    """Let click take what a file says where the command line is silent; for `--config`.

    Raises
    ------
    typer.Exit
        If the file cannot be read, or says what is no option or no value of one.
    """
    if value is None or context.resilient_parsing:
        return value
    command: Any = context.command
    try:
        options = command.callback.options  # `parameters.takes` has put them there
        context.default_map = checked(read_document(value), options, f"--config: {value}")
    except ConfigError as error:
        raise typer.Exit(report(error)) from None
    return value


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=take_config,
        is_eager=True,
        help="Options from a TOML file; what is typed wins.",
        rich_help_panel=RUN,
    ),
]
