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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anystar_batch.archive.labels import existing_labels
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.store import ImageReader, find_images, read_image
from anystar_batch.errors import ConfigError, ImageError, ModelError, OutputExistsError
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.network.bundled import WEIGHTS, Model, load_model
from anystar_batch.network.scale import working_scale
from anystar_batch.network.unet import build, load_weights, save_weights
from anystar_batch.plan import channel_index, intensity_limits, level_position
from trainer.config import SampleConfig, TrainConfig
from trainer.export import FILES
from trainer.fit import fit
from trainer.labelled import LabelledSource, LabelledVolume, measure, split
from trainer.score import Prediction, Scorer, Truth, tally, tune
from trainer.shapes import connected_pieces

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

PATCH = 48
"""Edge of a patch, working voxels, rounded up to what the network divides by."""

MOST_HELD_OUT = 160
"""Largest edge of the region of an image that thresholds are tuned on, working voxels."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image and where its labels are.

    Parameters
    ----------
    image : str
        Path of an OME-Zarr image.
    labels : str or None
        Path of an OME-Zarr label image of the same shape; None: a label inside the image.
    """

    image: str
    labels: str | None


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """One fine-tuning.

    Parameters
    ----------
    images : tuple of Labelled
    model : str
        Bundled model or model folder to begin with.
    label : str or None
        Name of the label inside the images; None where each has one.
    channel : str
        Name or index.
    times : tuple of int
        Labelled time points.
    diameter : float or None
        Of the objects, micrometres; None: that of the median labelled object of each image.
    ignore : int or None
        Label of voxels of which nothing is known.
    synthetic : float
        Share of synthetic samples, so that the network does not forget.
    held_out : float
        Share of every image's objects, all at one side, that thresholds are tuned on.
    minutes, steps : float, int
        Budget of training.
    rate : float
        Learning rate at the start.
    scratch : bool
        Begin with fresh weights: the model gives the network and the working size only.
    seed, workers, batch : int
    """

    images: tuple[Labelled, ...]
    model: str = "anystar-mix"
    label: str | None = None
    channel: str = "0"
    times: tuple[int, ...] = (0,)
    diameter: float | None = None
    ignore: int | None = None
    synthetic: float = 0.5
    held_out: float = 0.2
    minutes: float = 15.0
    steps: int = 0
    rate: float = 1e-4
    scratch: bool = False
    seed: int = 7
    workers: int = 1
    batch: int = 4
    precision: str = field(default="bfloat16")

    def __post_init__(self) -> None:
        if not self.images:
            message = "finetune: got no image; expected LABELLED.ome.zarr, or --pair IMAGE LABELS"
            raise ConfigError(message)
        if not 0.0 <= self.synthetic < 1.0:
            message = f"--synthetic: got {self.synthetic:g}; expected 0 or more, below 1"
            raise ConfigError(message)
        if not 0.0 <= self.held_out <= 0.5:
            message = f"--held-out: got {self.held_out:g}; expected 0 to 0.5"
            raise ConfigError(message)
        if self.diameter is not None and not self.diameter > 0.0:
            message = f"--diameter: got {self.diameter:g} um; expected more than 0"
            raise ConfigError(message)
        if self.ignore == 0:
            message = "--ignore: got 0, which is the background; expected a label"
            raise ConfigError(message)
        if not self.rate > 0.0:
            message = f"--rate: got {self.rate:g}; expected more than 0"
            raise ConfigError(message)

    def training(self, model: Model) -> TrainConfig:
        """Return the config of the run."""
        divisor = int(np.lcm.reduce(model.divisor))
        edge = -(-PATCH // divisor) * divisor
        sample = dataclasses.replace(
            SampleConfig.preset("as-mix", edge=edge),
            low_percentile=model.low_percentile,
            high_percentile=model.high_percentile,
        )
        config = TrainConfig(
            sample=sample,
            network=model.unet,
            seed=self.seed,
            batch=self.batch,
            learning_rate=self.rate,
            minutes=self.minutes,
            steps=self.steps,
            average_from=0.7,
            workers=self.workers,
            precision=self.precision,
        )
        if self.scratch:
            return config
        # A trained network's statistics are better than those of four patches.
        return dataclasses.replace(config, freeze_norm_from=0.0)


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
        Accuracy on the held-out part at the IoUs of `score.IOUS`, thresholds tuned on it in both
        cases; None without a held-out part, and before a run from scratch.

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
    truths = [t for v in volumes if (t := held_out_truth(v)) is not None]
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
        before = scores["before"] = _accuracy(predictions, tune(predictions))
    run = folder.with_name(f"{folder.name}.run")
    run.mkdir(parents=True, exist_ok=True)
    _claim(run, config, base)
    start = None if config.scratch else Path(base.folder) / WEIGHTS
    fit(train, run, _report, start, LabelledSource(train, volumes, config.synthetic))
    load_weights(scorer.model, run / WEIGHTS)
    thresholds, after = old, None
    if truths:
        predictions = scorer.predictions(truths, None)
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
    """Raise a ModelError unless the rays are those that targets are made for."""
    rays = json.loads(model.rays_json)
    anisotropy = rays.get("kwargs", {}).get("anisotropy")
    if rays.get("name") != "Rays_GoldenSpiral" or anisotropy is not None:
        message = (
            f"model: {model.name} has the rays {model.rays_json}; expected Rays_GoldenSpiral "
            "without anisotropy; begin with another model"
        )
        raise ModelError(message)


def open_volumes(one: Labelled, config: FinetuneConfig, model: Model) -> list[LabelledVolume]:
    """Open an image with its labels, once for every labelled time.

    Raises
    ------
    ImageError, ConfigError
        If they cannot be used together.
    """
    found = find_images(one.image)
    if len(found) > 1:
        message = (
            f"{one.image}: {len(found)} images; expected one; give them one by one: "
            f"{', '.join(found)}"
        )
        raise ImageError(message)
    image = read_image(found[0])
    labels = read_image(one.labels or f"{image.path}/labels/{_label_name(image, config.label)}")
    if labels.shape_zyx(0) != image.shape_zyx(0) or labels.num_times not in (1, image.num_times):
        message = (
            f"{labels.path}: the labels have {labels.num_times} times of {labels.shape_zyx(0)} "
            f"voxels (z, y, x), {image.path} has {image.num_times} of {image.shape_zyx(0)}; "
            "expected the same at level 0; export the labels at full resolution"
        )
        raise ImageError(message)
    return [_volume(image, labels, time, config, model) for time in config.times]


def held_out_truth(volume: LabelledVolume) -> Truth | None:
    """Return the held-out part, or its middle where it is large, in working voxels.

    None if no labelled object is in it.
    """
    _, part = volume.parts()
    inside = volume.inside(part)
    if not len(inside):
        return None
    middle = np.median(volume.centres()[inside], axis=0)
    start = [
        min(max(round(c - MOST_HELD_OUT / 2), a), max(b - MOST_HELD_OUT, a))
        for c, a, b in zip(middle, part.start, part.stop, strict=True)
    ]
    edge = as_zyx([MOST_HELD_OUT] * 3)
    box = Box(as_zyx(start), as_zyx(a + n for a, n in zip(start, edge, strict=True)))
    box = box.intersect(part)
    labels = volume.read_labels(box)
    if volume.ignore is not None:
        labels[labels == volume.ignore] = 0
    return Truth(volume.name, volume.read_image(box), connected_pieces(labels, 8.0, 8.0))


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


def _volume(
    image: ImageSource, labels: ImageSource, time: int, config: FinetuneConfig, model: Model
) -> LabelledVolume:
    """Measure one time, and decide how the network sees it, as the command would."""
    name = f"{Path(image.path).name} time {time}"
    if not 0 <= time < image.num_times:
        message = f"--time: got {time}; {image.path} has times 0 to {image.num_times - 1}"
        raise ConfigError(message)
    channel = channel_index(image, config.channel)
    objects = measure(labels, time if labels.num_times > 1 else 0, config.ignore)
    reader = ImageReader(image)
    limits = intensity_limits(reader, time, channel, (model.low_percentile, model.high_percentile))
    if limits is None:
        message = f"{name}: all voxels are equal; expected an image; check --channel and --time"
        raise ImageError(message)
    levels = range(len(image.levels))
    diameter = config.diameter or objects.diameter(image.scale_um(0))
    working = working_scale(
        None if model.diameter is None else diameter / model.diameter,
        [image.scale_um(k) for k in levels],
        [image.shape_zyx(k) for k in levels],
    )
    logger.info("%s: %d objects, diameter %.3g um", name, len(objects.voxels), diameter)
    return LabelledVolume(
        name=name,
        image=image,
        labels=labels,
        time=time,
        channel=channel,
        limits=limits,
        working=working,
        position=level_position(reader, working.level, time, channel),
        objects=objects,
        ignore=config.ignore,
        cut=split(objects, image, config.held_out),
    )


def _label_name(image: ImageSource, wanted: str | None) -> str:
    """The label to learn from: the one asked for, or the only one."""
    names = sorted(existing_labels(image.path))
    listed = ", ".join(names) or "none"
    if wanted is not None:
        if wanted not in names:
            message = f"--label: got {wanted!r}; {image.path} has the labels {listed}"
            raise ConfigError(message)
        return wanted
    if len(names) != 1:
        message = (
            f"{image.path}: {len(names)} labels ({listed}); expected one; name it with --label, "
            "or give labels that lie elsewhere with --pair IMAGE LABELS"
        )
        raise ConfigError(message)
    return names[0]


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
