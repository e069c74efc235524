"""`--config run.toml`: options from a file, below what the command line says.

The file is flat TOML; a key is an option's name, with `-` or `_`. What the options of a command are
is read off its signature, so that a new option can be written in a file at once. Click takes the
values as defaults: whatever is typed wins, and both go through the same checks.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from anystar_batch.cli.screen import report
from anystar_batch.errors import ConfigError, did_you_mean, shorten

BARE = frozenset({"channel", "time", "min_volume", "max_volume"})
"""Options that are text, of which a number may be given as one."""

LISTS = frozenset({"time", "scales", "measure"})
"""Options that are text with commas, which may be given as a list."""

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
"""What the values of each type are called."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command.

    Parameters
    ----------
    name : str
        Of the function's parameter.
    key : str
        As typed, without the dashes in front.
    kind : type
        `str`, `int`, `float` or `bool`.
    count : int
        How many of it: 1, or 3 for a triple.
    """

    name: str
    key: str
    kind: type
    count: int

    @property
    def words(self) -> str:
        """What is expected, for a message."""
        return KINDS[self.kind] if self.count == 1 else f"{self.count} numbers, as [1, 2, 3]"


def options_of(command: Callable[..., object]) -> tuple[Option, ...]:
    """Return the options of a command that a file may hold: all but `--config` and arguments."""
    hints = get_type_hints(command, include_extras=True)
    return tuple(
        _option(name, get_args(hints[name])[0])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.default is not inspect.Parameter.empty and name != "config"
    )


def _option(name: str, annotation: Any) -> Option:  # noqa: ANN401  (types are no one type)
    if get_origin(annotation) is UnionType:
        (annotation,) = set(get_args(annotation)) - {NoneType}
    kinds = get_args(annotation) if get_origin(annotation) is tuple else (annotation,)
    return Option(name, name.removeprefix("as_").replace("_", "-"), kinds[0], len(kinds))


def checked(
    document: Mapping[str, object], options: Iterable[Option], place: str
) -> dict[str, object]:
    """Return the values of a document by the names of parameters, as the command line gives them.

    Parameters
    ----------
    document : mapping
        Keys are names of options, with `-` or `_`.
    options : iterable of Option
        That may be given.
    place : str
        Where the document is from, for messages.

    Raises
    ------
    ConfigError
        If a key is no option or is given twice, or a value is of another type.
    """
    known = {option.key: option for option in options}
    found: dict[str, object] = {}
    for given, value in document.items():
        option = known.get(given.replace("_", "-"))
        if option is None:
            section = "; options stand alone, without sections" if isinstance(value, dict) else ""
            near = did_you_mean(given.replace("_", "-"), known)
            message = f"{place}: {given!r} is no option of this command{section}{near}"
            raise ConfigError(message)
        if option.name in found:
            message = f"{place}: {option.key!r} is given twice, with '-' and with '_'; drop one"
            raise ConfigError(message)
        found[option.name] = _value(option, value, f"{place}: {given}")
    return found


def _value(option: Option, value: object, place: str) -> object:
    """The value as the command line gives it."""
    items = list(value) if isinstance(value, list | tuple) else None
    if option.count > 1:
        if items is not None and len(items) == option.count and all(_is(v, option) for v in items):
            return tuple(items)
    elif _is(value, option):
        return value
    elif option.name in LISTS and items is not None and all(_is_word(v) for v in items):
        return ",".join(map(str, items))
    elif option.name in BARE and _is_number(value):
        return str(value)
    message = f"{place}: got {shorten(repr(value))}; expected {option.words}"
    raise ConfigError(message)


def _is(value: object, option: Option) -> bool:
    if option.kind is float:
        return _is_number(value)
    # In Python, true is a whole number.
    return isinstance(value, option.kind) and (option.kind is bool or not isinstance(value, bool))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_word(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


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
    """Let click take what a file says where the command line is silent; for `--config`."""
    if value is None or context.resilient_parsing:
        return value
    command: Any = context.command
    try:
        options = options_of(inspect.unwrap(command.callback))
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
    ),
]
