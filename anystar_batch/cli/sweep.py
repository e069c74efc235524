"""`anystar-batch sweep`: every image below a directory, for cron."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystar_batch.cli.config_file import ConfigFile
from anystar_batch.cli.parameters import takes
from anystar_batch.cli.screen import (
    DONE,
    FAILED,
    LATER,
    WARNED,
    interruptible,
    listener,
    report,
    start_screen,
)
from anystar_batch.errors import AnyStarBatchError, ConfigError
from anystar_batch.options import SCREEN, SEGMENT, SWEEP, segment_config

if TYPE_CHECKING:
    from anystar_batch.cli.progress import Listener
    from anystar_batch.engine.stop import Stop
    from anystar_batch.pipeline.sweep import SweepConfig
    from anystar_batch.pipeline.sweep_outcome import Outcome, Swept


@takes(*SWEEP, *(option for option in SEGMENT if option.in_sweep), *SCREEN)
def sweep(
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="Directory below which the images lie.")
    ],
    options: Mapping[str, Any],
    config: ConfigFile = None,
) -> None:
    """Segment every image below ROOT that is complete and has no current label, oldest first.

    Exit codes: 0 all is well; 1 an image failed; 2 wrong usage; 3 --fail-on-warning found one.

    75 out of time, SIGTERM, or another sweep holds ROOT; the next one continues.
    """
    del config  # its values are among the others
    start_screen(options)
    as_json = options["as_json"]
    progress = listener(
        quiet=options["quiet"],
        verbose=options["verbose"],
        is_here=options["scheduler"] is None,
    )
    try:
        sweep_config = _config(options, root)
        with interruptible(progress.close):
            swept = (
                _preview(sweep_config, as_json=as_json)
                if options["dry_run"]
                else _sweep(sweep_config, _stop(options["max_hours"]), progress, as_json=as_json)
            )
    except AnyStarBatchError as error:
        progress.close()
        code = report(error)
        if as_json:
            typer.echo(json.dumps({"root": root, "error": str(error), "exit": code}))
        raise typer.Exit(code) from None
    code = FAILED if swept.has_failed else DONE if swept.stopped is None else LATER
    if code == DONE and options["fail_on_warning"] and swept.has_warned:
        code = WARNED
    typer.echo(json.dumps(swept.to_json() | {"exit": code}) if as_json else _swept_text(swept))
    raise typer.Exit(code)


def _config(options: Mapping[str, Any], root: str) -> SweepConfig:
    from anystar_batch.parsing import parse_duration
    from anystar_batch.pipeline.sweep import SweepConfig

    settle = parse_duration("--settle", options["settle"])
    return SweepConfig(root, segment_config(options, root), options["pattern"], settle)


def _stop(max_hours: float | None) -> Stop:
    from anystar_batch.engine.stop import Stop

    if max_hours is not None and not max_hours > 0:
        message = f"--max-hours: got {max_hours:g}; expected more than 0"
        raise ConfigError(message)
    return Stop(None if max_hours is None else 3600 * max_hours)


def _preview(config: SweepConfig, *, as_json: bool) -> Swept:
    from anystar_batch.pipeline import sweep as s

    return s.preview(config, lambda outcome: _print_outcome(outcome, as_json=as_json))


def _sweep(config: SweepConfig, stop: Stop, progress: Listener, *, as_json: bool) -> Swept:
    """Sweep with one engine."""
    from anystar_batch.cli.progress import log_event
    from anystar_batch.events import Event
    from anystar_batch.pipeline import sweep as s
    from anystar_batch.pipeline.prepare import engine_for

    def listen(event: Event) -> None:
        log_event(event)
        progress(event)

    def tell(outcome: Outcome) -> None:
        progress.close()
        _print_outcome(outcome, as_json=as_json)

    try:
        with _asked_to_stop(stop), engine_for(config.template, stop) as engine:
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
    from anystar_batch.cli.pace import duration

    parts = []
    if outcome.summary is not None:
        parts.append(f"{outcome.summary.instances} instances")
        seconds = sum(outcome.summary.seconds.values())
        parts += [duration(seconds)] if seconds else []
    # Messages name the image they speak of.
    where = "" if outcome.image in outcome.text else outcome.image
    said = "; ".join([*parts, *([" ".join(outcome.text.split())] if outcome.text else [])])
    typer.echo(f"{outcome.status:<19}{': '.join(part for part in (where, said) if part)}")


def _swept_text(swept: Swept) -> str:
    from anystar_batch.cli.pace import duration

    counts = ", ".join(f"{count} {status}" for status, count in swept.counts.items()) or "no images"
    ended = "" if swept.stopped is None else f"; {swept.stopped}"
    return f"sweep of {swept.root}: {counts}; {duration(swept.seconds)}{ended}"
