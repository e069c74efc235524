"""`python -m trainer`: look at samples, train, score, export, or all of it (`build`).

These commands work on a run folder (`--run`), which holds the config, the curve and the weights;
`test`, `finetune` and `phantom` are in `commands`.
Real volumes are scored where ANYSTAR_BATCH_DATA names their folder, and left out where not.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anystar_batch.errors import AnyStarBatchError, ConfigError
from anystar_batch.network.imports import stable_kernels
from trainer.commands import add_commands
from trainer.config import APPEARANCES, TrainConfig
from trainer.synthesis.config import PRESETS, SampleConfig

if TYPE_CHECKING:
    import keras

    from trainer.score import Prediction, Scorer

logger = logging.getLogger("trainer")

DIAMETERS = (7.0, 8.0, 9.0, 10.0, 11.0, 13.0)
"""Working sizes tried on the embryos that are for choices."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 2 wrong usage or input."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stable_kernels()
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "montage": montage,
        "train": train,
        "score": score,
        "export": export,
        "build": build_all,
    }
    try:
        call = commands.get(options.command) or options.call
        call(options)
    except AnyStarBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # A folder without a run, a config that is not there, a disk that is full.
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def montage(options: argparse.Namespace) -> None:
    """Write a picture of samples."""
    from trainer.figures import montage as draw

    config = run_config(options)
    options.run.mkdir(parents=True, exist_ok=True)
    path = options.run / "montage.png"
    draw(path, config.seed, config.sample)
    print(path)


def train(options: argparse.Namespace) -> None:
    """Train, or go on training."""
    from trainer.figures import learning_curve
    from trainer.fit import fit

    config = run_config(options)
    fit(config, options.run, report, options.start)
    learning_curve(options.run, options.run / "curve.png")
    print(options.run / "weights_best.h5")


def score(options: argparse.Namespace) -> None:
    """Score the weights, append a row to scores.csv, redraw the curve."""
    from trainer.figures import learning_curve

    scores = measure(options, load_run(options, saved_config(options.run)))
    print(json.dumps(scores, indent=2))
    learning_curve(options.run, options.run / "curve.png")


def export(options: argparse.Namespace) -> None:
    """Score, and write the model folder."""
    from trainer.export import Card
    from trainer.export import export as write

    if getattr(options, "bioimageio", None) is not None:
        from trainer.bioimageio import write_bioimageio

        write_bioimageio(options.model, options.bioimageio)
        print(options.bioimageio)
        return
    config = saved_config(options.run)
    model = load_run(options, config)
    scores = measure(options, model)
    minute, samples = last_point(options.run)
    thresholds = scores["thresholds"]
    card = Card(
        name=options.model.name,
        version=options.version,
        diameter=options.diameter,
        diameter_range=(5.0, 20.0),
        max_radius=32.0,
        tile=options.tile,
        context=options.context,
        thresholds=(float(thresholds[0]), float(thresholds[1])),
        scores=scores,
        samples=samples,
        minutes=minute,
    )
    write(model, config, card, options.model)
    print(options.model)


def build_all(options: argparse.Namespace) -> None:
    """Montage, training, score and export, one after the other."""
    montage(options)
    train(options)
    export(options)


def report(row: dict[str, float]) -> None:
    """Log one row of the curve."""
    logger.info(
        "minute %.1f  step %d  samples %d  loss %.3f + %.2f  waiting %.0f %%  %.1f samples/s",
        row["minute"],
        row["step"],
        row["samples"],
        row["loss_prob"],
        row["loss_dist"],
        100 * row["waiting_share"],
        row["samples_per_second"],
    )


def run_config(options: argparse.Namespace) -> TrainConfig:
    """Return the run's own config if there is one, else that of the options."""
    if (options.run / "train.json").exists() and options.config is None:
        config = saved_config(options.run)
    elif options.config is not None:
        config = TrainConfig.from_json(options.config.read_text())
    else:
        config = TrainConfig(sample=SampleConfig.preset(options.preset, options.degradation))
    free = {k: getattr(options, k) for k in ("minutes", "steps", "workers", "appearance")}
    return dataclasses.replace(config, **{k: v for k, v in free.items() if v is not None})


def saved_config(run: Path) -> TrainConfig:
    """Return the config of a run that was begun.

    Raises
    ------
    ConfigError
        If the folder holds no run.
    """
    path = run / "train.json"
    if not path.exists():
        message = f"trainer: {run} holds no run (no train.json); train first"
        raise ConfigError(message)
    return TrainConfig.from_json(path.read_text())


def load_run(options: argparse.Namespace, config: TrainConfig) -> keras.Model:
    """Build the run's network with the chosen weights."""
    from anystar_batch.network.unet import build
    from anystar_batch.network.weights import load_weights

    model = build(config.network, config.precision)
    load_weights(model, options.run / options.weights)
    return model


def last_point(run: Path) -> tuple[float, int]:
    """Return minute and samples of the curve's last row."""
    from trainer.figures import read_columns

    curve = read_columns(run / "curve.csv")
    if not curve:
        return 0.0, 0
    return float(curve["minute"][-1]), int(curve["samples"][-1])


def measure(options: argparse.Namespace, model: keras.Model) -> dict[str, list[float]]:
    """Tune on one half of the synthetic samples, score the other half and real data.

    `thresholds` are [prob, nms], `stretch` is [factor], which the model's distances are multiplied
    by; every other entry is the accuracy at IoU 0.1, 0.3, 0.5, 0.7. Both are tuned on synthetic
    samples brought to the working size that the model is used at.
    """
    from trainer.export import stretch
    from trainer.score import Scorer, tune, tune_stretch
    from trainer.volumes import bbbc050, synthetic

    config = saved_config(options.run)
    scorer = Scorer(model, config.network, config.sample)
    held_out = synthetic(
        config.validation_seed,
        2 * options.samples,
        dataclasses.replace(config.sample, shape=(64, 64, 64)),
    )
    # A sample without objects has no size to be brought to.
    shown = [truth for truth in held_out[: options.samples] if truth.labels.any()]
    tuning = scorer.predictions(shown, options.diameter)
    factor = options.stretch or tune_stretch(tuning, options.thresholds or tune(tuning))
    thresholds = options.thresholds or tune([p.stretched(factor) for p in tuning])
    stretch(model, factor)
    scores: dict[str, list[float]] = {"thresholds": list(thresholds), "stretch": [factor]}
    scores["synthetic"] = accuracy(
        scorer.predictions(held_out[options.samples :], None), thresholds
    )
    if os.environ.get("ANYSTAR_BATCH_DATA"):
        embryos = bbbc050([1, 2, 3, 4])
        for diameter in DIAMETERS if options.sizes else (options.diameter,):
            name = f"bbbc050_1_4_at_{diameter:g}"
            scores[name] = accuracy(scorer.predictions(embryos, diameter), thresholds)
        if options.final:
            scores |= final_scores(scorer, thresholds, options.diameter)
    append_scores(options.run, scores)
    return scores


def final_scores(
    scorer: Scorer, thresholds: tuple[float, float], diameter: float
) -> dict[str, list[float]]:
    """Score the volumes that no choice ever saw, and the classical baseline beside them."""
    from trainer.baseline import DIAMETER, Otsu
    from trainer.matches import Tally, match
    from trainer.volumes import bbbc050, gonuclear, tgmm

    scores: dict[str, list[float]] = {}
    sets = {
        "bbbc050_5_11": bbbc050(range(5, 12)),
        "gonuclear_1135": gonuclear(),
        "tgmm": tgmm(),
    }
    for name, truths in sets.items():
        scores[name] = accuracy(scorer.predictions(truths, diameter), thresholds)
        total = Tally()
        for truth in truths:
            total = total + match(truth.labels, Otsu().segment(truth, DIAMETER))
        scores[f"{name}_otsu_at_{DIAMETER:g}"] = [round(a, 4) for a in total.accuracy()]
    return scores


def accuracy(predictions: list[Prediction], thresholds: tuple[float, float]) -> list[float]:
    """Return the accuracies of a set, at every IoU."""
    from trainer.score import tally

    return [round(a, 4) for a in tally(predictions, thresholds).accuracy()]


def append_scores(run: Path, scores: dict[str, list[float]]) -> None:
    """Add a row to scores.csv: minute, samples, thresholds and accuracies at IoU 0.5."""
    minute, samples = last_point(run)
    row = {
        "minute": minute,
        "samples": samples,
        "prob_thresh": scores["thresholds"][0],
        "nms_thresh": scores["thresholds"][1],
    }
    at_half = 2
    row |= {f"acc_{k}": v[at_half] for k, v in scores.items() if len(v) > at_half}
    path = run / "scores.csv"
    rows: list[dict[str, float | str]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [dict(r) for r in csv.DictReader(file)]
    rows.append(dict(row))
    names = list(dict.fromkeys(k for r in rows for k in r))
    temporary = path.with_name(".scores.csv.partial")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval=str(np.nan))
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def _parser() -> argparse.ArgumentParser:
    """Options of all commands."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("montage", "train", "score", "export", "build"):
        command = commands.add_parser(name)
        command.add_argument("--run", type=Path, default=Path("runs/anystar-mix"))
        if name in ("montage", "train", "build"):
            command.add_argument("--config", type=Path, help="JSON, as a run's train.json")
            command.add_argument("--preset", choices=sorted(PRESETS), default="as-mix")
            command.add_argument("--degradation", choices=["ours", "published"], default="ours")
            command.add_argument("--start", type=Path, help="weights (.h5) to begin a new run with")
            command.add_argument("--minutes", type=float, help="wall-clock budget")
            command.add_argument("--steps", type=int, help="budget of steps")
            command.add_argument("--workers", type=int)
            command.add_argument(
                "--appearance", choices=APPEARANCES, help="where intensities are made"
            )
        if name in ("score", "export", "build"):
            command.add_argument("--weights", default="weights_best.h5")
            command.add_argument("--diameter", type=float, default=7.0)
            command.add_argument(
                "--samples",
                type=int,
                default=32,
                help="synthetic volumes to tune on; as many others are scored",
            )
            command.add_argument(
                "--thresholds",
                type=float,
                nargs=2,
                metavar=("PROB", "NMS"),
                help="instead of tuned ones",
            )
            command.add_argument(
                "--stretch", type=float, help="factor on all distances, instead of a tuned one"
            )
            command.add_argument("--sizes", action="store_true", help="score several working sizes")
            command.add_argument(
                "--final", action="store_true", help="score what no choice may see"
            )
        if name in ("export", "build"):
            command.add_argument("--model", type=Path, default=Path("models/anystar-mix"))
            command.add_argument("--version", default="1")
            command.add_argument("--tile", type=int, default=256)
            command.add_argument("--context", type=int, default=32)
        if name == "export":
            command.add_argument(
                "--bioimageio",
                type=Path,
                metavar="OUT.zip",
                help="instead: the finished --model as a package of the BioImage Model Zoo",
            )
    add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
