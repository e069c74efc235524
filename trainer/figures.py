"""What a person looks at: a montage of samples, and the learning curve."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.synthesis.config import SampleConfig
from trainer.synthesis.sample import make_sample


def montage(path: Path, seed: int, config: SampleConfig, columns: int = 8, rows: int = 6) -> None:
    """Write a PNG of samples: the middle plane above its labels.

    Parameters
    ----------
    path : Path
    seed : int
    config : SampleConfig
    columns, rows : int
    """
    colours = np.random.default_rng(0).uniform(0.3, 1.0, (4096, 3))
    colours[0] = 0.0
    lines = []
    for row in range(rows):
        line = []
        for column in range(columns):
            # Samples that share shapes would look alike: one of each.
            sample = make_sample(seed, (row * columns + column) * config.reuse, config)
            line.append(_tile(sample.image, sample.labels, colours))
        lines.append(np.concatenate(line, axis=1))
    picture = np.repeat(np.repeat(np.concatenate(lines), 3, axis=0), 3, axis=1)
    Image.fromarray((picture * 255).astype(np.uint8)).save(path)


def learning_curve(run: Path, path: Path) -> None:
    """Draw a run's `curve.csv`, and its `scores.csv` if there is one.

    Parameters
    ----------
    run : Path
        Folder of the run.
    path : Path
        PNG.
    """
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    curve = read_columns(run / "curve.csv")
    figure, axes = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    for axis, name, label in (
        (axes[0], "loss_prob", "cross-entropy"),
        (axes[1], "loss_dist", "distance error (voxels)"),
    ):
        axis.plot(curve["minute"], curve[name], ".", alpha=0.3)
        axis.plot(curve["minute"], _running_mean(curve[name]))
        axis.set(xlabel="minutes", ylabel=label)
    if (run / "scores.csv").exists():
        scores = read_columns(run / "scores.csv")
        for name in scores:
            if name.startswith("acc_"):
                axes[2].plot(scores["minute"], scores[name], "o-", label=name.removeprefix("acc_"))
        axes[2].legend()
        axes[2].set(xlabel="minutes", ylabel="accuracy at IoU 0.5", ylim=(0, 1))
    else:
        axes[2].plot(curve["minute"], curve["samples_per_second"])
        axes[2].set(xlabel="minutes", ylabel="samples per second")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def read_columns(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read a CSV of numbers by column."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(r[name]) for r in rows]) for name in rows[0]} if rows else {}


def _tile(
    image: NDArray[np.float32], labels: NDArray[np.int32], colours: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One sample's middle plane above its labels, with a white edge."""
    middle = image.shape[0] // 2
    grey = np.repeat(image[middle, ..., None], 3, axis=-1)
    pair = np.concatenate([grey, colours[labels[middle] % len(colours)]], axis=0)
    return np.pad(pair, [(0, 2), (0, 2), (0, 0)], constant_values=1.0)


def _running_mean(values: NDArray[np.float64], width: int = 9) -> NDArray[np.float64]:
    """Mean over `width` neighbours, fewer at the ends."""
    kernel = np.ones(min(width, values.size))
    weight = np.convolve(np.ones(values.size), kernel, "same")
    mean: NDArray[np.float64] = np.convolve(values, kernel, "same") / weight
    return mean
