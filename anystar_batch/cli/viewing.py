"""`anystar-batch view`: an image and its labels in napari."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anystar_batch.cli import completing
from anystar_batch.cli import options as o
from anystar_batch.cli.screen import report
from anystar_batch.errors import AnyStarBatchError


def view(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="OME-Zarr image, or a label.")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Label to show; may be repeated. Default: all.",
            autocompletion=completing.labels,
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where segment --output wrote the labels.")
    ] = None,
    screenshot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a PNG of the window, and end.")
    ] = None,
    quiet: o.Quiet = False,
) -> None:
    """Show IMAGE and its labels in napari, whatever their size."""
    from anystar_batch import viewing, window  # noqa: PLC0415

    try:
        window.check_viewer()
        scene = viewing.scene(image, label or (), output)
        window.check_screen()
        for note in () if quiet else scene.notes:
            typer.echo(note, err=True)
        window.show(scene, screenshot)
    except AnyStarBatchError as error:
        raise typer.Exit(report(error)) from None
    if screenshot is not None:
        typer.echo(screenshot)
