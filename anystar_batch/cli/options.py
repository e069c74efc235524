"""The options of the commands that segment: each declared once, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from anystar_batch.cli import completion

if TYPE_CHECKING:
    pass


Label = Annotated[str, typer.Option(help="Name of the label.")]


Output = Annotated[
    str | None, typer.Option(metavar="DIR", help="Write everything here, not into the images.")
]


Channel = Annotated[
    str,
    typer.Option(help="Channel to segment: index or name.", autocompletion=completion.channels),
]


Time = Annotated[str, typer.Option(help="Times to segment: all, 3, or 0,2,5-8.")]


ReferenceTime = Annotated[
    int | None,
    typer.Option(metavar="T", help="Segment this time only; measure its objects at every --time."),
]


Measure = Annotated[
    str,
    typer.Option(
        help="Further columns: solidity,sphericity,surface,feret.",
        autocompletion=completion.measures,
    ),
]


Diameter = Annotated[
    str | None,
    typer.Option(help="Typical object: 12um, or 9px in the plane. Default: probed."),
]


Scales = Annotated[
    str, typer.Option(help="1,2 also looks for objects twice as large (--diameter: the small).")
]


VoxelSize = Annotated[
    tuple[float, float, float] | None,
    typer.Option(metavar="Z Y X", help="Level-0 voxel in um, instead of the image's."),
]


ProbThresh = Annotated[
    float | None, typer.Option(help="Least object probability. Default: the model's.")
]


NmsThresh = Annotated[
    float | None, typer.Option(help="Largest shared volume. Default: the model's.")
]


MinVolume = Annotated[
    str | None,
    typer.Option(
        metavar="VOLUME", help="Remove smaller objects: 500 (um3), or 120px (level-0 voxels)."
    ),
]


MaxVolume = Annotated[str | None, typer.Option(metavar="VOLUME", help="Remove larger objects.")]


MinProb = Annotated[
    float | None,
    typer.Option(help="Remove objects less probable; unlike --prob-thresh after suppression."),
]


MinContrast = Annotated[
    float | None,
    typer.Option(help="Remove objects less unlike their surroundings, in standard deviations."),
]


MinRegularity = Annotated[
    float | None,
    typer.Option(help="Remove objects that fill less of their convex hull, 0 to 1."),
]


Model = Annotated[
    str,
    typer.Option(help="Bundled model, or a StarDist-3D folder.", autocompletion=completion.models),
]


Tile = Annotated[int | None, typer.Option(help="Core edge of a network tile, working voxels.")]


Precision = Annotated[
    str,
    typer.Option(
        help="Of the network: float32, bfloat16, or auto: what is fast here.",
        autocompletion=completion.one_of("PRECISIONS"),
    ),
]


Backend = Annotated[
    str,
    typer.Option(
        help="Of the network: tensorflow or jax.", autocompletion=completion.one_of("BACKENDS")
    ),
]


BlockShape = Annotated[
    tuple[int, int, int] | None,
    typer.Option(metavar="Z Y X", help="Block of work in level-0 voxels. No effect on results."),
]


Memory = Annotated[
    str | None, typer.Option(help="Memory of all processes, e.g. 4GB. Default: 80 % of free.")
]


Workers = Annotated[
    int | None,
    typer.Option(help="Processes; default one per GPU and per four cores, as memory allows."),
]


Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS|FILE", help="Running Dask cluster that does the work."),
]


WorkDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Place for ledger and intermediate files.")
]


Overwrite = Annotated[
    bool, typer.Option("--overwrite/--no-overwrite", help="Replace a published label once done.")
]


Table = Annotated[
    bool,
    typer.Option(
        "--table/--no-table", help="Put the table into the image too, for ngio and Fractal."
    ),
]


NoReport = Annotated[
    bool, typer.Option("--no-report/--report", help="Leave out the page that shows the result.")
]


FailOnWarning = Annotated[
    bool,
    typer.Option(
        "--fail-on-warning/--no-fail-on-warning", help="Exit 3 if published with warnings."
    ),
]


DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")]


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object an image.")]


LogFile = Annotated[str | None, typer.Option(metavar="F", help="Write a detailed log here.")]


Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.")]


Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Plain lines, also on a terminal.")]
