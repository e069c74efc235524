"""Accuracy of the released versions over the samples they have seen: `python -m bench.history`.

Reads `models/history.csv` (accuracy at IoU 0.5; samples and minutes are sums over the versions),
draws `models/history.png`, and prints the gain of the last doubling.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

MODELS = Path(__file__).parent.parent / "models"


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with (MODELS / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    drawing, axis = pyplot.subplots(figsize=(7, 4))
    for name in list(rows[0])[3:]:
        known = [(int(row["samples"]), float(row[name])) for row in rows if row[name]]
        samples, accuracy = map(np.array, zip(*known, strict=True))
        axis.semilogx(samples, accuracy, "o-", base=2, label=name.replace("_", " "))
        before = np.interp(np.log(samples[-1] / 2), np.log(samples), accuracy)
        print(f"{name}: {accuracy[-1]:.3f}, last doubling {accuracy[-1] - before:+.3f}")
    axis.set_xticks([int(row["samples"]) for row in rows])
    axis.set_xticklabels([f"{int(row['samples']) / 1000:.0f}k\nv{row['version']}" for row in rows])
    axis.set_xlabel("different samples seen")
    axis.set_ylabel("accuracy at IoU 0.5")
    axis.legend(fontsize=8)
    drawing.tight_layout()
    drawing.savefig(MODELS / "history.png", dpi=110)


if __name__ == "__main__":
    main()
