"""`export`: the stars of a label in the formats of other programs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from anystar_batch.cli import completion
from anystar_batch.cli.parameters import AsJson, Quiet
from anystar_batch.cli.screen import told


def export(  # noqa: PLR0913  (one parameter an option)
    image: Annotated[
        str, typer.Argument(metavar="IMAGE|LABEL", help="OME-Zarr image with a label, or a label.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="File or directory to write.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="ply, obj, neuroglancer, geff, geoparquet or labels. Default: by the name of OUT.",
            autocompletion=completion.formats,
        ),
    ] = None,
    label: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Of an image: which label.", autocompletion=completion.labels
        ),
    ] = "anystar",
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where segment --output wrote the label.")
    ] = None,
    labels: Annotated[
        str, typer.Option(metavar="N,N-N", help="Only these objects: 1,5-9. Default: all.")
    ] = "",
    time: Annotated[str, typer.Option(help="Times to export: all, 3, or 0,2,5-8.")] = "all",
    voxel_size: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="Z Y X", help="Of --to labels, in um. Default: the label's own."),
    ] = None,
    shape: Annotated[
        str, typer.Option(help="Of --to geoparquet: outlines, one a plane, or spheres.")
    ] = "outlines",
    alternatives: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Of --to geff: further labels of the image, whose stars are nodes too.",
        ),
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier export wrote.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the stars that `segment --stars` published as meshes, graphs, outlines or labels."""
    from anystar_batch.pipeline import export as e

    with told(quiet=quiet) as progress:
        config = e.ExportConfig(
            image,
            out,
            to,
            label,
            output,
            labels,
            time,
            voxel_size,
            shape,
            alternatives,
            overwrite,
        )
        done = e.export(config, progress)
    text = f"{done.path}  {done.format}, {done.stars} stars, {done.bytes / 1e6:.3g} MB"
    typer.echo(json.dumps(done.to_json()) if as_json else text)
