"""The command `seamtest`: a trace of tiles in the labels of any program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from anystar_batch.cli.parameters import Quiet
from anystar_batch.cli.screen import (
    DONE,
    UNDECIDED,
    WARNED,
    told,
)

ZYX = "Z Y X"

SIGNS = {
    ("density", True): "more objects lie near planes than beside them: split, or found twice",
    ("density", False): "fewer objects lie near planes than beside them: lost, or merged",
    ("size", True): "objects near planes are larger: merged",
    ("size", False): "objects near planes are smaller: cut",
    ("cuts", True): "objects begin or end at planes: cut",
    ("cuts", False): "hardly an object begins or ends at planes: merged across them",
    ("contacts", True): "objects meet in flat faces that lie in planes: split",
    ("contacts", False): "objects that touch elsewhere do not do so across planes: merged",
}
"""What a measure that stands out means, by its name and whether there is more than elsewhere."""


def seamtest(  # noqa: PLR0913  (one parameter an option)
    labels: Annotated[
        str,
        typer.Argument(metavar="LABELS", help="Label of any program, image with one, or array."),
    ],
    tile: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar=ZYX, help="Step of its grid, level-0 voxels; 0: no planes."),
    ] = None,
    first: Annotated[
        tuple[float, float, float], typer.Option(metavar=ZYX, help="Where the first plane lies.")
    ] = (0.0, 0.0, 0.0),
    overlap: Annotated[
        tuple[float, float, float],
        typer.Option(metavar=ZYX, help="Voxels a tile shares with the one before it."),
    ] = (0.0, 0.0, 0.0),
    period: Annotated[
        tuple[float, float, float],
        typer.Option(metavar=ZYX, help="Step of its own lattice, as StarDist's grid, voxels."),
    ] = (1.0, 1.0, 1.0),
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Labels of the same image made with other tiles."),
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Channel: index or name, where there are several.")
    ] = None,
    time: Annotated[str, typer.Option(help="Times to test, together: all, 3, or 0,2,5-8.")] = "all",
    alpha: Annotated[float, typer.Option(help="A trace is a p below this.")] = 0.001,
    block_shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar=ZYX, help="Box read at once, voxels. No effect on results."),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Draw what lies at which distance from planes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: Quiet = False,
) -> None:
    """Did tiles leave a trace in LABELS of any program? Exit 0: none, 3: a trace, 4: no answer."""
    from anystar_batch.pipeline import seamtest as s
    from anystar_batch.pipeline.tile_grid import TileGrid

    with told(quiet=quiet) as progress:
        grid = None if tile is None else TileGrid(tile, first, overlap, period)
        config = s.SeamtestConfig(labels, grid, against, channel, time, alpha, block_shape)
        found = s.seamtest(config, progress)
        if figure is not None:
            s.draw(found, figure)
    document = found.to_json()
    typer.echo(json.dumps(document) if as_json else seamtest_text(document))
    raise typer.Exit(_code(document))


def _code(document: dict[str, Any]) -> int:
    against = document.get("against")
    if document["verdict"] == "trace" or (against is not None and not against["same"]):
        return WARNED
    return UNDECIDED if document["verdict"] == "cannot tell" else DONE


def seamtest_text(document: dict[str, Any]) -> str:
    """Return a seam test's JSON document as lines.

    Parameters
    ----------
    document : dict
        Of `Seamtest.to_json`.
    """
    extent = " x ".join(f"{v:.3g}" for v in document["extent_voxels"])
    lines = [
        f"labels     {document['labels']}: {document['objects']} objects, "
        f"extent {extent} voxels (z, y, x)"
    ]
    if len(document["times"]) > 1:
        lines.append(f"times      {len(document['times'])}, together")
    for grid in document["tests"]:
        lines += _grid_lines(grid)
    if document["verdict"] is not None:
        lines.append(f"verdict    {_verdict(document)}")
    if "against" in document:
        lines += _against_lines(document["against"])
    return "\n".join(lines)


def _grid_lines(grid: dict[str, Any]) -> list[str]:
    """The numbers of one family of planes."""
    lines = [f"grid       {grid['planes'] or len(grid['contacts']['planes'])} {grid['name']}"]
    if grid["p"] is None:
        return [*lines, f"           not tested: {grid['why_not']}"]
    for name, score in grid["scores"].items():
        ratio = grid[f"{name}_ratio"]
        shown = "-" if ratio is None else f"{ratio:.2f}"
        lines.append(f"  {name:<9}at planes {shown} times beside them, deviation {score:+.1f}")
    at, elsewhere = (grid["contacts"][k]["share"] for k in ("at_planes", "elsewhere"))
    if at is not None and elsewhere is not None:
        lines.append(
            f"  inside objects, {at:.2%} of the pairs of voxels across planes change label, "
            f"{elsewhere:.2%} elsewhere"
        )
    lines.append(f"  p        {grid['p']:.2g} (the least that these planes can show: "
                 f"{grid['floor']:.2g})")  # fmt: skip
    return lines


def _verdict(document: dict[str, Any]) -> str:
    alpha = document["alpha"]
    if document["verdict"] == "trace":
        worst = min((g for g in document["tests"] if g["p"] is not None), key=lambda g: g["p"])
        name = worst["strongest"]
        sign = SIGNS[name, worst["scores"][name] > 0]
        planes = [p for p in worst["contacts"]["planes"] if p["share"]][:3]
        most = ", ".join(f"{p['axis']} {p['edge']} ({p['share']:.0%})" for p in planes)
        where = f"; most label changes at {most}" if most and name == "contacts" else ""
        return f"trace, p {worst['p']:.2g}: {sign}{where}"
    if document["verdict"] == "cannot tell":
        why = next((g["why_not"] for g in document["tests"] if g["p"] is None), None)
        weak = f"too few planes or objects for a p below {alpha:g}"
        return f"cannot tell: {why or weak}"
    return f"no trace of these planes at p < {alpha:g}; what the test cannot see: docs/seamtest.md"


def _against_lines(against: dict[str, Any]) -> list[str]:
    """Whether two volumes agree, and where not."""
    count = against["objects"]
    lines = [f"against    {against['path']}: {count['against']} objects"]
    if against["same"]:
        how = "voxel by voxel, numbers too" if against["identical"] else "numbered otherwise"
        return [*lines, f"partition  the same: {against['equal']} objects, {how}"]
    differing = against["differing"]
    lines.append(
        f"partition  not the same: {against['equal']} objects are equal; {differing['labels']} of "
        f"{count['labels']} and {differing['against']} of {count['against']} differ"
    )
    bins = ", ".join(
        f"{b['from']:g} to {b['below']:g}: {b['objects']}"
        for b in against["iou_of_differing"]["labels"]
    )
    lines.append(f"  largest IoU of those of LABELS  {bins}")
    for test in against["near_planes"]:
        if test["p"] is None:
            lines.append(f"  at {test['name']}: cannot tell, {test['why_not']}")
        else:
            ratio = test["density_ratio"]
            shown = "-" if ratio is None else f"{ratio:.2f}"
            lines.append(
                f"  those of LABELS lie at {test['name']} {shown} times as densely as beside them, "
                f"p {test['p']:.2g} by {test['strongest']}"
            )
    return lines
