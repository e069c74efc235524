"""Tables and curves of the quality bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

AT_HALF = 2
"""Where IoU 0.5 lies among a row's accuracies."""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table.

    Parameters
    ----------
    rows : sequence of mapping
        As `Row.to_json` gives them.
    """
    lines = [
        "| set | how | true | found | accuracy at IoU .1 / .3 / .5 / .7 | mean .5 to .95 "
        "| precision, recall | F1 at .5 | volume ratio | diameter used (true), um |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        how = f"{row['how']} {row['at']:.3g}" if row["at"] else row["how"]
        used = f"{row['diameter']:.3g}" if row["diameter"] else ""
        if used and row["true_diameter"]:
            used += f" ({row['true_diameter']:.3g})"
        if row["true"]:
            accuracy = " / ".join(f"{v:.3f}" for v in row["accuracy"])
            found = f"{row['precision']:.3f}, {row['recall']:.3f}"
            scores = f"{accuracy} | {row['mean_accuracy']:.3f} | {found}"
            scores += f" | {row['f1'][AT_HALF]:.3f} | {row['volume_ratio']}"
        else:
            scores = " | | | | "
        lines.append(
            f"| {row['set']} | {how} | {row['true'] or '-'} | {row['found']} | {scores} | {used} |"
        )
    return "\n".join(lines) + "\n"


def curves(path: Path, rows: Sequence[Mapping[str, Any]], axis: str) -> None:
    """Draw accuracy at IoU 0.5 along a change, one panel a set.

    Parameters
    ----------
    path : Path
        PNG to write.
    rows : sequence of mapping
        As `Row.to_json` gives them; rows of one `set` and `how` make a line.
    axis : str
        Name of the x axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["set"] for row in rows))
    figure, panels = pyplot.subplots(1, len(names), figsize=(4 * len(names), 3.2), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        for how in dict.fromkeys(row["how"] for row in rows):
            mine = [row for row in rows if row["set"] == name and row["how"] == how]
            at = [row["at"] for row in mine]
            accuracy = [row["accuracy"][AT_HALF] for row in mine]
            panel.plot(at, accuracy, "o-" if len(mine) > 1 else "*", markersize=6, label=how)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel(axis, fontsize=8)
        panel.set_ylim(0.0, 1.0)
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("accuracy at IoU 0.5", fontsize=8)
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
