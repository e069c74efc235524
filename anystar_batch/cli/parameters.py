"""Options of `anystar_batch.options` as parameters of commands: names, help, panels, completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from anystar_batch.cli import completion
from anystar_batch.options import PANELS, Option, named


def parameter(option: Option) -> Any:  # noqa: ANN401  (what Typer takes)
    """Return what Typer has to know of an option.

    Parameters
    ----------
    option : Option
    """
    return typer.Option(
        *option.flags,
        metavar=option.metavar,
        help=option.help,
        autocompletion=getattr(completion, option.completion) if option.completion else None,
        rich_help_panel=option.panel,
    )


def annotation(option: Option) -> Any:  # noqa: ANN401  (a type)
    """Return the type of an option's parameter, with what Typer has to know of it.

    Parameters
    ----------
    option : Option
    """
    one: Any = option.kind
    kind: Any = one if option.count == 1 else tuple.__class_getitem__((one,) * option.count)
    return Annotated[kind | None if option.default is None else kind, parameter(option)]


def takes(*options: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options; it gets their values as one mapping, its parameter `options`.

    Parameters
    ----------
    *options : Option

    Returns
    -------
    decorator
        The command has its own parameters and one for each option, in the order of the panels.
        `options` of the command are its options: what a file may hold.
    """
    ordered = sorted(options, key=lambda option: PANELS.index(option.panel))

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        def call(**given: Any) -> None:  # noqa: ANN401
            values = {option.name: given.pop(option.name) for option in ordered}
            command(**given, options=values)

        hints = get_type_hints(command, include_extras=True)
        own = [
            p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name])
            for p in inspect.signature(command).parameters.values()
            if p.name != "options"
        ]
        added = [
            inspect.Parameter(
                option.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=option.default,
                annotation=annotation(option),
            )
            for option in ordered
        ]
        # A panel stands where its first option does, so options of the command's own come last.
        arguments = [p for p in own if p.default is p.empty]
        every = [*arguments, *added, *(p for p in own if p not in arguments)]
        call.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in every}
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__module__ = command.__module__
        call.options = options  # type: ignore[attr-defined]
        return call

    return decorated


AsJson = Annotated[bool, parameter(named("as_json"))]
Quiet = Annotated[bool, parameter(named("quiet"))]
Model = Annotated[str, parameter(named("model"))]
Precision = Annotated[str, parameter(named("precision"))]
Backend = Annotated[str, parameter(named("backend"))]
