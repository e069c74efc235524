"""Train a model further on images whose labels were corrected, and write it as a model of its own.

::

    images + labels -> open_volumes -> LabelledSource -> fit, from MODEL's weights -> tune -> folder
                       synthetic samples ---^

The thresholds are tuned on the held-out part of the user's own images, which is allowed here: the
new model is not zero-shot any more, and its provenance says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anystar_batch.errors import ConfigError, ImageError, ModelError, OutputExistsError
from anystar_batch.network.model import WEIGHTS, Model, load_model
from anystar_batch.network.unet import build
from anystar_batch.network.weights import load_weights, save_weights
from trainer.export import FILES
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.labelled import LabelledVolume, held_out_truths, open_volumes
from trainer.finetune.patches import LabelledSource
from trainer.fit import fit
from trainer.score import Prediction, Scorer, tally, tune

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)


def finetune(
    config: FinetuneConfig, folder: Path
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Train, tune, and write a model folder.

    Parameters
    ----------
    config : FinetuneConfig
    folder : Path
        New model folder; curve and checkpoints go to `<folder>.run` beside it, from where a run
        that was cut short goes on.

    Returns
    -------
    before, after : tuple of float or None
        Accuracy on the held-out part at the IoUs of `matches.IOUS`, thresholds tuned on it in both
        cases (those of `config.model` where labels are known in part); None without a held-out
        part, and before a run from scratch.

    Raises
    ------
    OutputExistsError
        If the folder exists.
    ImageError, ConfigError, ModelError
        If an image, its labels, an option or the model cannot be used.
    """
    if folder.exists():
        message = f"{folder} exists; expected a new folder; delete it or name another one"
        raise OutputExistsError(message)
    base = load_model(config.model)
    check_rays(base)
    volumes = tuple(v for one in config.images for v in open_volumes(one, config, base))
    learnt = sum(len(v.inside(v.parts()[0])) for v in volumes)
    for volume in volumes:
        if not len(volume.inside(volume.parts()[0])):
            message = (
                f"{volume.name}: no labelled object in the part to learn from; expected at least "
                "one; label more, or give a smaller --held-out"
            )
            raise ImageError(message)
    truths = [truth for volume in volumes for truth in held_out_truths(volume)]
    is_partial = any(volume.background is not None for volume in volumes)
    logger.info("%d objects to learn from, %d volumes held out", learnt, len(truths))
    train = config.training(base)
    scorer = Scorer(build(base.unet), base.unet, train.sample)
    old = (base.prob_thresh, base.nms_thresh)
    before = None
    scores: dict[str, Any] = {}
    if truths and not config.scratch:
        load_weights(scorer.model, Path(base.folder) / WEIGHTS)
        predictions = scorer.predictions(truths, None)
        scores["before_own_thresholds"] = _accuracy(predictions, old)
        best = old if is_partial else tune(predictions)
        before = scores["before"] = _accuracy(predictions, best)
    run = folder.with_name(f"{folder.name}.run")
    run.mkdir(parents=True, exist_ok=True)
    _claim(run, config, base)
    start = None if config.scratch else Path(base.folder) / WEIGHTS
    fit(train, run, _report, start, LabelledSource(train, volumes, config.synthetic))
    load_weights(scorer.model, run / WEIGHTS)
    thresholds, after = old, None
    if truths:
        predictions = scorer.predictions(truths, None)
        if is_partial:
            logger.warning(
                "labels known in part do not show false finds: thresholds of %s stay", base.name
            )
        else:
            thresholds = tune(predictions)
        after = scores["after"] = _accuracy(predictions, thresholds)
    else:
        logger.warning("nothing held out: the thresholds stay those of %s", base.name)
    origin = {
        "zero_shot": False,
        "made_from": None if config.scratch else _identity(base),
        "objects": learnt,
        "volumes": [_described(v) for v in volumes],
        "held_out_scores": {k: list(v) for k, v in scores.items()},
        "config": _shown(config),
        "training": dataclasses.asdict(train),
    }
    write_model(scorer.model, base, folder, thresholds, origin)
    return before, after


def check_rays(model: Model) -> None:
    """Check that the rays are those that targets are made for.

    Raises
    ------
    ModelError
        If they are others.
    """
    rays = json.loads(model.rays_json)
    anisotropy = rays.get("kwargs", {}).get("anisotropy")
    if rays.get("name") != "Rays_GoldenSpiral" or anisotropy is not None:
        message = (
            f"model: {model.name} has the rays {model.rays_json}; expected Rays_GoldenSpiral "
            "without anisotropy; begin with another model"
        )
        raise ModelError(message)


def write_model(
    network: keras.Model,
    base: Model,
    folder: Path,
    thresholds: tuple[float, float],
    origin: dict[str, Any],
) -> None:
    """Write a model folder: hidden first, loaded back, then moved into place.

    Parameters
    ----------
    network : keras.Model
        With the weights to write.
    base : Model
        Whose network and working size it has.
    folder : Path
        New; its name is the model's.
    thresholds : (prob_thresh, nms_thresh)
    origin : dict
        What it was made from, `finetuning` in the provenance.
    """
    draft = folder.with_name(f".{folder.name}.partial")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    (draft / "config.json").write_bytes((Path(base.folder) / "config.json").read_bytes())
    _write_json(draft / "thresholds.json", {"prob": thresholds[0], "nms": thresholds[1]})
    save_weights(network, draft / WEIGHTS)
    document = {
        "name": folder.name,
        "version": "1",
        "diameter": base.diameter,
        "max_radius": base.max_radius,
        "tile": base.tile,
        "context": base.context,
        "intensity": {
            "low_percentile": base.low_percentile,
            "high_percentile": base.high_percentile,
        },
        "sha256": {
            name: hashlib.sha256((draft / name).read_bytes()).hexdigest()
            for name in FILES
            if name != "provenance.json"
        },
        "finetuning": origin,
    }
    _write_json(draft / "provenance.json", document)
    load_weights(network, Path(load_model(str(draft)).folder) / WEIGHTS)
    draft.rename(folder)


def _claim(run: Path, config: FinetuneConfig, base: Model) -> None:
    """Write what the run learns from into its folder, or refuse a folder of another run."""
    path = run / "finetune.json"
    ours = json.loads(json.dumps({"config": dataclasses.asdict(config), "model": base.sha256}))
    for free in ("minutes", "steps", "workers"):
        del ours["config"][free]
    if path.exists() and json.loads(path.read_text()) != ours:
        message = (
            f"finetune: {run} holds a run on other images, options or another model; expected the "
            "same to go on; delete the folder, or name another output"
        )
        raise ConfigError(message)
    _write_json(path, ours)


def _accuracy(predictions: list[Prediction], thresholds: tuple[float, float]) -> tuple[float, ...]:
    return tuple(round(a, 4) for a in tally(predictions, thresholds).accuracy())


def _identity(base: Model) -> dict[str, str]:
    return {"name": base.name, "version": base.version, "sha256": base.sha256}


def _described(volume: LabelledVolume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "label": Path(volume.labels.path).name,
        "objects": len(volume.objects.voxels),
        "diameter_um": round(volume.objects.diameter(volume.image.scale_um(0)), 4),
        "elongation": round(volume.objects.elongation(volume.image.scale_um(0)), 4),
        "working_voxel_um": list(volume.working.voxel_um),
    }


def _shown(config: FinetuneConfig) -> dict[str, Any]:
    """The options, without paths: a model is given away."""
    document = dataclasses.asdict(config)
    del document["images"]
    document["model"] = Path(config.model).name
    return document


def _report(row: dict[str, float]) -> None:
    logger.info(
        "minute %.1f  step %d  loss %.3f + %.2f  waiting %.0f %%",
        row["minute"],
        row["step"],
        row["loss_prob"],
        row["loss_dist"],
        100 * row["waiting_share"],
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n")
