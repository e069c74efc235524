"""The four presets and a supervised network at equal training: `python -m bench.presets OUT`.

Each network begins from nothing, has the released one's shape, recipe and budget of steps, and sees
as many patches; only the background models of its samples differ, or that they are patches of real,
labelled embryos (the upper bound of the paper's figure 4: BBBC050, embryos 1 to 6). Each is scored
with thresholds tuned on its own training distribution (the supervised one: prob 0.5, nms 0.3), on
every set with the true diameter known. Parts that are done are not done again.

    OUT/presets.json   every score         OUT/presets.md   the table
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anystar_batch.network.model import bundled_models
from bench.quality import write_truth
from trainer import testset
from trainer.config import TrainConfig
from trainer.export import load
from trainer.matches import Tally
from trainer.score import Scorer, tally
from trainer.synthesis.config import PRESETS
from trainer.volumes import Truth, bbbc050, gonuclear, tgmm

logger = logging.getLogger(__name__)

SUPERVISED = "supervised"
"""Name of the network trained on labels."""

TRAINED_ON = range(1, 7)
"""Embryos whose labels it sees."""

DIAMETER = 7.0
"""Working size of every network, voxels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--parts", nargs="*", default=[*PRESETS, SUPERVISED])
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    path = options.out / "presets.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in options.parts:
        if name in found:
            continue
        folder = options.out / name
        if name == SUPERVISED:
            samples = train_supervised(folder, options.steps, options.rate)
        else:
            samples = train_preset(folder, name, options.steps, options.rate)
        found[name] = {"samples": samples, **score(folder, name)}
        path.write_text(json.dumps(found, indent=1))
    text = table(found)
    (options.out / "presets.md").write_text(text)
    print(text)


def released() -> TrainConfig:
    """Return the config of the released model's last run."""
    document = json.loads((bundled_models()["anystar-mix"] / "provenance.json").read_text())
    return TrainConfig.from_json(json.dumps(document["training"]["config"]))


def train_preset(folder: Path, preset: str, steps: int, rate: float) -> int:
    """Train on one preset's samples; return how many different ones it has seen."""
    config = released()
    appearance = dataclasses.replace(config.sample.appearance, backgrounds=PRESETS[preset])
    config = dataclasses.replace(
        config,
        sample=dataclasses.replace(config.sample, appearance=appearance),
        seed=101,
        minutes=0.0,
        steps=steps,
        learning_rate=rate,
        freeze_norm_from=0.35,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    trainer("train", "--run", folder, "--config", folder / "config.json")
    with (folder / "curve.csv").open() as file:
        return int(float(list(csv.DictReader(file))[-1]["samples"]))


def train_supervised(folder: Path, steps: int, rate: float) -> int:
    """Train on labelled embryos; return the patches seen."""
    images = []
    for truth in bbbc050(TRAINED_ON):
        images.append(folder / "images" / f"{truth.name}.ome.zarr")
        if not images[-1].exists():
            write_truth(images[-1], truth, with_labels=True)
    more = ("--steps", steps, "--minutes", 0, "--rate", rate, "--held-out", 0)
    trainer("finetune", *images, "--scratch", "--synthetic", 0, *more, "-o", folder / "model")
    return steps * released().batch


def trainer(*arguments: object) -> None:
    """Run a command of the trainer."""
    command = [sys.executable, "-m", "trainer", *map(str, arguments)]
    subprocess.run(command, check=True)


def score(folder: Path, name: str) -> dict[str, Any]:
    """Return accuracies at IoU .1 / .3 / .5 / .7 by set."""
    if name == SUPERVISED:
        model, network = load(folder / "model")
        scorer, thresholds = Scorer(model, network, released().sample), (0.5, 0.3)
    else:
        from anystar_batch.network.unet import build
        from anystar_batch.network.weights import load_weights
        from trainer.score import tune
        from trainer.volumes import synthetic

        config = TrainConfig.from_json((folder / "train.json").read_text())
        model = build(config.network)
        load_weights(model, folder / "weights_best.h5")
        scorer = Scorer(model, config.network, config.sample)
        larger = dataclasses.replace(config.sample, shape=(64, 64, 64))
        own = synthetic(config.validation_seed, 16, larger)
        thresholds = tune(scorer.predictions(own, None))
    frozen = [truth for _, truth, _ in testset.volumes(testset.frozen()[::4])]
    sets: dict[str, Sequence[Truth]] = {
        "frozen synthetic": frozen,
        "BBBC050 1-6": bbbc050(TRAINED_ON),
        "BBBC050 7-11": bbbc050(range(7, 12)),
        "GoNuclear 1135": gonuclear(),
        "tgmm": tgmm(),
    }
    scores: dict[str, Any] = {"thresholds": list(thresholds)}
    for key, truths in sets.items():
        total = sum((tally(scorer.predictions([t], DIAMETER), thresholds) for t in truths), Tally())
        scores[key] = [round(a, 4) for a in total.accuracy()]
        logger.info("%s, %s: %s", name, key, scores[key])
    return scores


def table(found: dict[str, Any]) -> str:
    """Return the scores as a Markdown table."""
    names = [k for k in next(iter(found.values())) if k not in ("samples", "thresholds")]
    lines = [
        "| network | patches seen | " + " | ".join(names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for name, scores in found.items():
        each = " | ".join(" / ".join(f"{v:.3f}" for v in scores[k]) for k in names)
        lines.append(f"| {name} | {scores['samples']} | {each} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
