"""`anystar-batch segment`: images named one by one."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystar_batch.cli.config_file import ConfigFile
from anystar_batch.cli.parameters import takes
from anystar_batch.cli.screen import (
    DONE,
    SEVERITY,
    WARNED,
    interruptible,
    listener,
    preview,
    print_gathered,
    print_summary,
    print_unsuited,
    report,
    start_screen,
)
from anystar_batch.errors import AnyStarBatchError, UnsuitedError
from anystar_batch.options import SCREEN, SEGMENT

if TYPE_CHECKING:
    from anystar_batch.cli.progress import Listener
    from anystar_batch.config import SegmentConfig
    from anystar_batch.engine.engines import Engine
    from anystar_batch.pipeline.inputs import Plate
    from anystar_batch.pipeline.run_record import Summary


@takes(*SEGMENT, *SCREEN)
def segment(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="OME-Zarr images or plates, 0.4 to 0.6."),
    ],
    options: Mapping[str, Any],
    config: ConfigFile = None,
) -> None:
    """Find every star-convex object in IMAGE and write labels and statistics."""
    del config  # its values are among the others
    from anystar_batch.pipeline.inputs import image_configs
    from anystar_batch.pipeline.plate_table import check_table

    start_screen(options)
    as_json, is_fatal = options["as_json"], options["fail_on_warning"]
    try:
        configs, plates = image_configs(options, images)
        several = _several(images, configs)
        for plate in plates:
            check_table(plate, overwrite=options["overwrite"])
    except AnyStarBatchError as error:
        raise typer.Exit(report(error)) from None
    if options["dry_run"]:
        with interruptible(lambda: None, "interrupted"):
            code = _each(
                configs, several, lambda one: preview(one, as_json=as_json), as_json=as_json
            )
    else:
        progress = listener(
            quiet=options["quiet"],
            verbose=options["verbose"],
            is_here=options["scheduler"] is None,
        )
        with interruptible(progress.close):
            code = _segment_all(
                configs, several, progress, as_json=as_json, fail_on_warning=is_fatal
            )
            code = _gather_all(plates, code, as_json=as_json)
    raise typer.Exit(code)


def _several(images: list[str], configs: list[SegmentConfig]) -> dict[str, str]:
    """The containers and plates among what was named, by the images that each holds."""
    from anystar_batch.address import absolute

    named = [absolute(image) for image in images]
    return {
        config.image: top
        for top in named
        for config in configs
        if config.image.startswith(f"{top}/") and config.image not in named
    }


def _gather_all(plates: list[Plate], code: int, *, as_json: bool) -> int:
    """Put the tables of plates together; return the exit code that counts most."""
    from anystar_batch.pipeline.plate_table import gather

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
    configs: list[SegmentConfig],
    several: Mapping[str, str],
    progress: Listener,
    *,
    as_json: bool,
    fail_on_warning: bool,
) -> int:
    """Segment one image after another with one engine; return the exit code that counts most."""
    from anystar_batch.events import Note
    from anystar_batch.pipeline.prepare import engine_for

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
        with engine_for(configs[0]) as engine:
            return _each(configs, several, lambda config: run(config, engine), as_json=as_json)
    except AnyStarBatchError as error:
        return report(error)


def _segment_one(config: SegmentConfig, engine: Engine, progress: Listener) -> Summary:
    from anystar_batch.cli.progress import log_event
    from anystar_batch.events import Event
    from anystar_batch.pipeline.part import segment_asked

    def listen(event: Event) -> None:
        log_event(event)
        progress(event)

    return segment_asked(config, listen, engine=engine)


def _each(
    configs: list[SegmentConfig],
    several: Mapping[str, str],
    run: Callable[[SegmentConfig], int],
    *,
    as_json: bool,
) -> int:
    """Do every image, whatever becomes of the others; return the exit code that counts most.

    What a container or a plate holds besides and is not for this tool is told, and counts only
    where it is all that there is.
    """
    codes = [DONE]
    left_out, tried = Counter[str](), Counter(several.values())
    for config in configs:
        top = several.get(config.image)
        try:
            codes.append(run(config))
        except Exception as error:  # noqa: BLE001  (one broken image never stops the others)
            if top is not None and isinstance(error, UnsuitedError):
                print_unsuited(config.image, error, as_json=as_json)
                left_out[top] += 1
                continue
            codes.append(report(error, config.image if len(configs) > 1 else None))
            if as_json:
                document = {"image": config.image, "error": str(error), "exit": codes[-1]}
                typer.echo(json.dumps(document))
    for top in (top for top, count in left_out.items() if count == tried[top]):
        message = f"{top}: none of its {tried[top]} images is for this tool; see above"
        codes.append(report(UnsuitedError(message)))
    return min(codes, key=SEVERITY.index)
