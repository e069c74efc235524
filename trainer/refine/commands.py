"""`python -m trainer refine`: make finds, train, score, export the second look."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from anystar_batch.errors import ConfigError
from trainer.refine.config import RefineConfig

if TYPE_CHECKING:
    from anystar_batch.network.refiner import Refiner
    from trainer.score import Scorer

logger = logging.getLogger("trainer")


def add_refine(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser; it sets `call`."""
    parser = commands.add_parser("refine", help="train and score the second look at every find")
    steps = parser.add_subparsers(dest="step", required=True)
    for name, call, text in (
        ("data", data, "make the finds that are trained on"),
        ("train", train, "train, or go on training"),
        ("score", score, "score a run"),
        ("texture", texture, "count false finds on the frozen texture test"),
        ("join", join, "put a network for small objects beside another"),
        ("export", export, "score, and write refiner.npz and refiner.json"),
    ):
        step = steps.add_parser(name, help=text)
        step.add_argument("--run", type=Path, default=Path("runs/refine"))
        step.set_defaults(call=call)
        if name in ("data", "train"):
            step.add_argument("--config", type=Path, help="JSON, as a run's refine.json")
        if name == "data":
            step.add_argument("--workers", type=int, default=2, help="processes")
        if name == "train":
            step.add_argument("--steps", type=int, help="instead of the config's")
            step.add_argument(
                "--teachers", type=Path, nargs="+", default=[],
                help="refiners (.npz) whose mean answer is learnt, from the first one on",
            )  # fmt: skip
            step.add_argument("--start", type=Path, help="refiner (.npz) where training begins")
        if name == "join":
            step.add_argument("--large", type=Path, required=True, help="refiner (.npz)")
            step.add_argument("--small", type=Path, required=True, help="refiner (.npz)")
            step.add_argument(
                "--stretch", type=float, default=1.0, help="factor on the small one's distances"
            )
        if name in ("score", "texture", "export"):
            step.add_argument(
                "--stretch", type=float, default=1.0, help="factor on the run's refined distances"
            )
        if name in ("score", "export"):
            step.add_argument("--final", action="store_true", help="score what no choice may see")
        if name in ("score", "texture"):
            step.add_argument("--refiner", type=Path, help="a model folder's, instead of the run's")
            step.add_argument("--json", type=Path, help="write the scores there as JSON")
        if name == "export":
            step.add_argument("--model", type=Path, default=Path("models/anystar-mix"))
            step.add_argument("--made-with", default="", help="commit that made data and weights")


def data(options: argparse.Namespace) -> None:
    """Make the shards that are missing."""
    from trainer.refine.data import make  # noqa: PLC0415

    config = run_config(options)
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "refine.json").write_text(config.to_json() + "\n")
    make(config, options.run, options.workers)
    print(options.run)  # noqa: T201


def train(options: argparse.Namespace) -> None:
    """Train, or go on training."""
    from anystar_batch.network.refiner import from_arrays  # noqa: PLC0415
    from trainer.refine.export import read_arrays  # noqa: PLC0415
    from trainer.refine.fit import fit  # noqa: PLC0415

    config = run_config(options)
    if options.steps is not None:
        config = dataclasses.replace(config, steps=options.steps)
    teachers = [read_arrays(path) for path in options.teachers]
    digests = tuple(from_arrays(arrays).sha256 for arrays in teachers)
    config = dataclasses.replace(config, teachers=digests)
    start = None if options.start is None else read_arrays(options.start)
    if start is not None:
        config = dataclasses.replace(config, start=from_arrays(start).sha256)
    fit(config, options.run, teachers, start)
    print(options.run / "weights.npz")  # noqa: T201


def join(options: argparse.Namespace) -> None:
    """Write one refiner of two: who looks at large objects, and who at small ones."""
    from anystar_batch.network.refiner import from_arrays  # noqa: PLC0415
    from trainer.refine.export import DESCRIPTION, LARGE, joined, read_arrays  # noqa: PLC0415
    from trainer.refine.fit import save_arrays  # noqa: PLC0415
    from trainer.refine.scores import stretched  # noqa: PLC0415

    large, small = (from_arrays(read_arrays(path)) for path in (options.large, options.small))
    options.run.mkdir(parents=True, exist_ok=True)
    save_arrays(options.run / "weights.npz", joined(large, stretched(small, options.stretch)))
    described = options.large.parent / DESCRIPTION
    if described.exists():
        (options.run / LARGE).write_bytes(described.read_bytes())
    print(options.run / "weights.npz")  # noqa: T201


def score(options: argparse.Namespace) -> None:
    """Score a run on held-out scenes and on the real volumes."""
    refiner, scorer = _loaded(options)
    show(_scores(options, refiner, scorer), options.json)


def texture(options: argparse.Namespace) -> None:
    """Count false finds on the frozen texture test."""
    from trainer.refine.measure import texture_scores  # noqa: PLC0415

    refiner, scorer = _loaded(options)
    show(texture_scores(scorer, refiner), options.json)


def export(options: argparse.Namespace) -> None:
    """Score a run and write it into a model's folder."""
    from trainer.refine.export import LARGE  # noqa: PLC0415
    from trainer.refine.export import export as write  # noqa: PLC0415
    from trainer.refine.measure import texture_scores  # noqa: PLC0415

    options.refiner = None
    refiner, scorer = _loaded(options)
    scores = _scores(options, refiner, scorer)
    scores["texture"] = texture_scores(scorer, refiner)
    scores["made_with"] = options.made_with
    path = options.run / LARGE
    large = json.loads(path.read_text()) if path.exists() else None
    config = run_config(options)
    write(refiner.named(), config, refiner.quality_cut, scores, options.model, large)
    print(options.model / "refiner.npz")  # noqa: T201


def run_config(options: argparse.Namespace) -> RefineConfig:
    """Return the config of the options, or of the run, or the defaults."""
    given = getattr(options, "config", None)
    path = given if given is not None else options.run / "refine.json"
    if given is None and not path.exists():
        return RefineConfig()
    return RefineConfig.from_json(path.read_text())


def show(scores: dict[str, object], path: Path | None) -> None:
    """Print scores as JSON, and write them if asked."""
    text = json.dumps(scores, indent=1)
    if path is not None:
        path.write_text(text + "\n")
    print(text)  # noqa: T201


def _loaded(options: argparse.Namespace) -> tuple[Refiner, Scorer]:
    """Return the second look with its cut, and the first look."""
    from anystar_batch.network.model import load_model  # noqa: PLC0415
    from anystar_batch.network.refiner import from_arrays, load_refiner  # noqa: PLC0415
    from trainer.refine.data import load  # noqa: PLC0415
    from trainer.refine.export import read_arrays  # noqa: PLC0415
    from trainer.refine.scores import chosen_cut, stretched  # noqa: PLC0415
    from trainer.score import scorer_of  # noqa: PLC0415

    scorer = scorer_of(load_model(run_config(options).model))
    if options.refiner is not None:
        released = load_refiner(options.refiner)
        if released is None:
            message = f"--refiner: {options.refiner} holds no refiner.npz; expected a model folder"
            raise ConfigError(message)
        return released, scorer
    refiner = from_arrays(read_arrays(options.run / "weights.npz"))
    refiner = from_arrays(stretched(refiner, options.stretch))
    cut = chosen_cut(refiner, load(options.run, "held_out", _sizes(options, refiner)))
    return dataclasses.replace(refiner, quality_cut=cut), scorer


def _sizes(options: argparse.Namespace, refiner: Refiner) -> tuple[float, float]:
    """Return which finds to score: all, if networks were joined; else those trained on."""
    return run_config(options).sizes if refiner.small is None else (0.0, math.inf)


def _scores(options: argparse.Namespace, refiner: Refiner, scorer: Scorer) -> dict[str, object]:
    """Return all scores but those of the texture test."""
    from trainer.refine.data import load  # noqa: PLC0415
    from trainer.refine.measure import real_sets  # noqa: PLC0415
    from trainer.refine.scores import held_out, tuned_stretch  # noqa: PLC0415

    scores: dict[str, object] = {"cut": refiner.quality_cut, "stretch": options.stretch}
    data = load(options.run, "held_out", _sizes(options, refiner))
    scores["held_out"] = held_out(refiner, data)
    scores["held_out_stretch"] = tuned_stretch(refiner, data)
    return scores | real_sets(scorer, refiner, options.final)
