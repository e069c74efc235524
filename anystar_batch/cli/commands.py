"""The commands beside segmenting: look at images, labels and models, score labels, try it out."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from anystar_batch.cli import completion
from anystar_batch.cli.parameters import AsJson, Backend, Model, Precision, Quiet
from anystar_batch.cli.screen import (
    CONTINUED,
    DONE,
    FAILED,
    USAGE,
    print_summary,
    report,
    told,
)
from anystar_batch.errors import AnyStarBatchError

if TYPE_CHECKING:
    from anystar_batch.pipeline.selftest import Selftest
import io
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = (
    ("tp", "TP"),
    ("fp", "FP"),
    ("fn", "FN"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("accuracy", "accuracy"),
    ("f1", "F1"),
    ("panoptic_quality", "panoptic"),
    ("mean_true_score", "mean true"),
    ("mean_matched_score", "mean matched"),
)
"""Keys of a score and their headings."""


def info(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="OME-Zarr image or plate.")],
    as_json: AsJson = False,
) -> None:
    """Show what an image is, or each field of a plate: axes, levels, voxel sizes, labels."""
    from anystar_batch.pipeline.info import describe, describe_text, field_text

    has_failed, described, unsuited = False, 0, 0
    try:
        plate, documents = describe(image)
        if plate is not None and not as_json:
            typer.echo(plate)
        for document in documents:
            has_failed = has_failed or "error" in document
            unsuited += "unsuited" in document
            described += document.keys().isdisjoint(("error", "unsuited"))
            text = describe_text if plate is None else field_text
            typer.echo(json.dumps(document) if as_json else text(document))
    except AnyStarBatchError as error:
        raise typer.Exit(report(error)) from None
    # What is not for this tool counts only where it is all that there is.
    raise typer.Exit(USAGE if has_failed or (unsuited and not described) else DONE)


def evaluate(  # noqa: PLR0913  (one parameter an option)
    labels: Annotated[
        str, typer.Argument(metavar="LABELS", help="Label to score, image with one, or array.")
    ],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="The true labels, likewise.")],
    level: Annotated[int, typer.Option(help="Level of both; 0 is the full resolution.")] = 0,
    channel: Annotated[
        str | None, typer.Option(help="Channel: index or name, where there are several.")
    ] = None,
    time: Annotated[str, typer.Option(help="Times to score: all, 3, or 0,2,5-8.")] = "all",
    block_shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="Z Y X", help="Box read at once, voxels. No effect on results."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score the objects of LABELS against those of TRUTH: counts, IoU matches, volumes."""
    from anystar_batch.pipeline import evaluate as e

    with told(quiet=quiet) as progress:
        config = e.EvaluateConfig(labels, truth, level, channel, time, block_shape)
        document = e.evaluate(config, progress).to_json()
    typer.echo(json.dumps(document) if as_json else scores_text(document))


def review(  # noqa: PLR0913  (one parameter an option)
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="OME-Zarr image.")],
    label: Annotated[
        str,
        typer.Option(metavar="NAME", help="Label to review.", autocompletion=completion.labels),
    ] = "anystar",
    answers: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Take the answers that the page saved; write no page."),
    ] = None,
    count: Annotated[int, typer.Option(help="Instances drawn by chance.")] = 100,
    worst: Annotated[int, typer.Option(help="Further instances, the worst first.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the random sample.")] = 0,
    page: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The page. Default: IMAGE.LABEL.review.html."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where segment --output wrote the label.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: Quiet = False,
) -> None:
    """Have a person say what is right: write a page, or with --answers give the error rate."""
    from anystar_batch.pipeline import review as r

    with told(quiet=quiet) as progress:
        config = r.ReviewConfig(image, label, output, count, worst, seed, page)
        if answers is None:
            written = r.write_page(config, progress)
            document, text = written.to_json(), r.page_text(written)
        else:
            document = r.take_answers(config, answers, progress)
            text = r.answers_text(document)
    typer.echo(json.dumps(document) if as_json else text)


def tune(  # noqa: PLR0913  (one parameter an option)
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="OME-Zarr image.")],
    label: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Label whose options the candidates are of.",
            autocompletion=completion.labels,
        ),
    ] = "anystar",
    nms_thresh: Annotated[
        float | None, typer.Option(help="Largest shared volume. Default: that of the run.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where segment --output wrote.")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete the kept candidates instead.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what each --prob-thresh would find, from the candidates that segment has kept."""
    from anystar_batch.pipeline import tune as t

    with told(quiet=quiet) as progress:
        config = t.TuneConfig(image, label, output, nms_thresh)
        if remove:
            document = t.remove_candidates(config)
            text = t.removed_text(document)
        else:
            document = t.tune(config, progress)
            text = t.tuned_text(document)
    typer.echo(json.dumps(document) if as_json else text)


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a model.")] = False,
) -> None:
    """List the bundled models."""
    from anystar_batch.network.model import bundled_models, load_model

    try:
        loaded = [load_model(name) for name in bundled_models()]
    except AnyStarBatchError as error:
        raise typer.Exit(report(error)) from None
    for model in loaded:
        if as_json:
            document = {
                "name": model.name,
                "version": model.version,
                "folder": model.folder,
                "sha256": model.sha256,
                "diameter_voxels": model.diameter,
                "grid": list(model.grid),
                "prob_thresh": model.prob_thresh,
                "nms_thresh": model.nms_thresh,
                "tile": model.tile,
                "context": model.context,
            }
            typer.echo(json.dumps(document))
        else:
            typer.echo(
                f"{model.name} {model.version}: objects of about {model.diameter} working voxels, "
                f"grid {model.grid}, prob {model.prob_thresh:g}, nms {model.nms_thresh:g}, "
                f"tile {model.tile}, context {model.context}"
            )


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write volume, labels, table, picture.")
    ] = Path("demo"),
) -> None:
    """Segment a small volume that ships with a dependency, and draw what was found."""
    from anystar_batch.pipeline.demo import run_demo

    with told(quiet=False, interrupted=CONTINUED) as progress:
        made = run_demo(folder, progress)
    print_summary(made.summary, as_json=False)
    typer.echo(f"image  {made.overlay}")


def selftest(
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for phantom and results; else thrown away."),
    ] = None,
    model: Model = "anystar-mix",
    precision: Precision = "auto",
    backend: Backend = "tensorflow",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: Quiet = False,
) -> None:
    """Segment a phantom with known truth, in one block and in many; exit 1 if anything is off."""
    from anystar_batch.pipeline.selftest import run_selftest

    with told(quiet=quiet) as progress, ExitStack() as stack:
        folder = keep or Path(stack.enter_context(TemporaryDirectory(prefix="anystar-batch-")))
        test = run_selftest(folder, progress, model=model, backend=backend, precision=precision)
    typer.echo(json.dumps(test.to_json()) if as_json else selftest_text(test))
    if not test.is_passed:
        raise typer.Exit(FAILED)


def selftest_text(test: Selftest) -> str:
    """What a self-test found, for reading."""
    lines = [
        f"{'ok    ' if check.is_passed else 'FAILED'}  {check.name}: {check.found}"
        for check in test.checks
    ]
    versions = ", ".join(f"{name} {text}" for name, text in test.versions.items())
    return "\n".join(
        [
            *lines,
            f"device    {', '.join(test.devices)}; {test.backend}, {test.precision}",
            f"speed     {test.voxels_per_second / 1e6:.2f} million voxels a second in the network",
            f"memory    {test.peak_memory / 1e9:.1f} GB at most",
            f"versions  {versions}",
        ]
    )


def view(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="OME-Zarr image, or a label.")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Label to show; may be repeated. Default: all.",
            autocompletion=completion.labels,
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where segment --output wrote the labels.")
    ] = None,
    screenshot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a PNG of the window, and end.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Show IMAGE and its labels in napari, whatever their size."""
    from anystar_batch.report.viewer import layers, window

    try:
        window.check_viewer()
        scene = layers.scene(image, label or (), output)
        window.check_screen()
        for note in () if quiet else scene.notes:
            typer.echo(note, err=True)
        window.show(scene, screenshot)
    except AnyStarBatchError as error:
        raise typer.Exit(report(error)) from None
    if screenshot is not None:
        typer.echo(screenshot)


def scores_text(document: dict[str, Any]) -> str:
    """Return an evaluation's JSON document as lines and a table.

    Parameters
    ----------
    document : dict
        Of `Evaluation.to_json`.

    Returns
    -------
    str
        Without a final newline; as wide as the table needs.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("IoU", justify="right")
    for _, heading in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for score in document["scores"]:
        values = [score[key] for key, _ in COLUMNS]
        shown = [f"{v:.3f}" if isinstance(v, float) else f"{v}" for v in values]
        table.add_row(f"{score['iou']:.1f}", *shown)
    out = io.StringIO()
    # Wide enough for counts of nine digits: a table cut short would hide them.
    Console(file=out, width=140, color_system=None).print(table)
    drawn = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join([*_lines(document), *drawn]).rstrip()


def _lines(document: dict[str, Any]) -> list[str]:
    relative = document["count_error_relative"]
    share = "" if relative is None else f" ({relative:+.1%})"
    lines = [
        f"labels  {document['labels']}: {_objects(document, 'found')}",
        f"truth   {document['truth']}: {_objects(document, 'true')}",
        f"count   {document['count_error']:+d}{share}; {document['splits']} true objects split, "
        f"{document['merges']} found objects merge several",
    ]
    if len(document["times"]) > 1:
        lines.append(f"times   {len(document['times'])}, pooled")
    for ratio in document["volume_ratio"]:
        what = f"volume  found / true of {ratio['pairs']} pairs at IoU {ratio['iou']:g}"
        if ratio["pairs"]:
            what += f": median {ratio['median']:.3f}, mean {ratio['mean']:.3f}"
        lines.append(what)
    return lines


def _objects(document: dict[str, Any], side: str) -> str:
    count = f"{document[side]} objects"
    for unit, name in (("um", "um"), ("voxels", "voxels")):
        diameter = document[f"median_diameter_{unit}"][side]
        if diameter is not None:
            return f"{count}, median diameter {diameter:.3g} {name}"
    return count
