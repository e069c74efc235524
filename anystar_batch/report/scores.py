"""The scores of a label volume, as text for a person."""

from __future__ import annotations

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
