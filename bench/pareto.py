"""Accuracy against speed of networks: `python -m bench pareto OUT --runs RUN... [--final]`.

The released model and the networks of some run folders of the trainer, all at the released model's
thresholds. Accuracy at IoU .1 / .3 / .5 / .7 on the frozen test set, with its sizes as they are and
with the median known, and on embryos 1 to 4 of BBBC050; `--final` scores the sets that no choice
may see. Speed is that of one window of the released tile, through the command's own predictor, the
networks in turn.

    OUT/pareto.json   everything      OUT/pareto.md   the table      OUT/pareto.png   the front
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.geometry import Box
from anystar_batch.network.model import Model, load_model
from anystar_batch.network.predictor import KerasPredictor
from trainer import testset
from trainer.config import TrainConfig
from trainer.matches import Tally
from trainer.score import scorer_of, tally
from trainer.synthesis.phantom import Phantom
from trainer.volumes import Truth, bbbc050, gonuclear, tgmm

logger = logging.getLogger(__name__)

PRECISIONS = ("bfloat16", "float32")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bench pareto", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="run folders")
    parser.add_argument("--size", type=int, default=256, help="edge of the window timed, voxels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--volumes", type=int, default=0, help="of the frozen set; 0 for all")
    parser.add_argument("--final", action="store_true", help="sets that no choice may see, too")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    models = networks(options.runs)
    speeds = times(models, options.size, options.repeats)
    rows = []
    for name, model in models.items():
        scored = scores(model, options.volumes or None, is_final=options.final)
        rows.append({"network": name, **described(model), **speeds[name], **scored})
        logger.info("%s", rows[-1])
    (options.out / "pareto.json").write_text(json.dumps(rows, indent=2) + "\n")
    (options.out / "pareto.md").write_text(table(rows))
    figure(options.out / "pareto.png", rows)
    print(table(rows))


def networks(runs: Iterable[Path]) -> dict[str, Model]:
    """Return the released model, and those of the runs with all else as released."""
    released = load_model("anystar-mix")
    found = {f"{released.name} {released.version}": released}
    for run in runs:
        config = TrainConfig.from_json((run / "train.json").read_text())
        found[run.name] = dataclasses.replace(released, unet=config.network, folder=str(run))
    return found


def described(model: Model) -> dict[str, Any]:
    """What the network is."""
    from anystar_batch.network.unet import build

    unet = model.unet
    return {
        "base": unet.unet_n_filter_base,
        "growth": unet.unet_expansion,
        "depth": unet.unet_n_depth,
        "parameters": int(build(unet).count_params()),
    }


def times(models: dict[str, Model], size: int, repeats: int) -> dict[str, dict[str, float]]:
    """Return Mvoxel/s of wall and of CPU time, medians; the networks take turns."""
    box = Box((0, 0, 0), (size, size, size))
    image = Phantom(box.shape, 3.5, "dense").image(box).astype(np.float32)
    image = np.clip((image - image.min()) / np.ptp(image), 0, 1)
    found: dict[str, dict[str, float]] = {name: {} for name in models}
    for precision in PRECISIONS:
        ready = {name: KerasPredictor(m, 2, precision) for name, m in models.items()}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
        for turn in range(repeats + 1):
            for name, predictor in ready.items():
                a, b = time.perf_counter(), time.process_time()
                predictor.find(image, box, box, 2.0)
                if turn > 0:  # the first compiles
                    spent[name].append((time.perf_counter() - a, time.process_time() - b))
        for name, seconds in spent.items():
            wall, cpu = (statistics.median(column) for column in zip(*seconds, strict=True))
            found[name][f"{precision}_wall"] = round(box.size / wall / 1e6, 2)
            found[name][f"{precision}_cpu"] = round(box.size / cpu / 1e6, 2)
    return found


def scores(model: Model, volumes: int | None, *, is_final: bool) -> dict[str, list[float]]:
    """Return accuracies by set."""
    scorer = scorer_of(model)
    frozen = testset.score(model, scorer, testset.frozen()[:volumes])
    found = {
        "frozen, native": frozen["native"]["overall"],
        "frozen, sizes known": frozen["working"]["overall"],
    }
    sets: dict[str, Sequence[Truth]] = {"BBBC050 1-4": bbbc050(range(1, 5))}
    if is_final:
        sets["BBBC050 5-11"] = bbbc050(range(5, 12))
        sets["GoNuclear 1135"] = gonuclear()
        sets["tgmm"] = tgmm()
    thresholds = (model.prob_thresh, model.nms_thresh)
    for name, truths in sets.items():
        predictions = (scorer.predictions([truth], model.diameter) for truth in truths)
        total = sum((tally(one, thresholds) for one in predictions), Tally())
        found[name] = [round(float(value), 4) for value in total.accuracy()]
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    sets = [key for key, value in rows[0].items() if isinstance(value, list)]
    head = ["network", "base", "parameters", "bfloat16, Mvoxel/s", "float32, Mvoxel/s", *sets]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["network"], row["base"], f"{row['parameters'] / 1e6:.2f} M"]
        cells += [row["bfloat16_wall"], row["float32_wall"]]
        cells += [" / ".join(f"{v:.3f}".lstrip("0") for v in row[name]) for name in sets]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def figure(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw accuracy at IoU 0.5 over speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axis = pyplot.subplots(figsize=(7, 4))
    ordered = sorted(rows, key=lambda row: row["bfloat16_wall"])
    for name in [key for key, value in rows[0].items() if isinstance(value, list)]:
        axis.plot(
            [row["bfloat16_wall"] for row in ordered],
            [row[name][2] for row in ordered],
            "o-",
            label=name,
        )
    low, _ = axis.get_ylim()
    for row in ordered:
        axis.annotate(row["network"], (row["bfloat16_wall"], low), fontsize=7, rotation=20)
    axis.set_xlabel("voxels a second of one window, millions (bfloat16)")
    axis.set_ylabel("accuracy at IoU 0.5")
    axis.legend(fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
