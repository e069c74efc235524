"""Turn a run into a model folder that this package and StarDist load.

Four files: `config.json` (StarDist's), `weights_best.h5`, `thresholds.json` (tuned on synthetic
validation samples), `provenance.json` (what the pipeline and a reader need to know). Written to a
hidden folder, loaded back, tried on a phantom, and only then moved into place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anystar_batch.errors import ModelError
from anystar_batch.network.unet import UNetConfig, build
from anystar_batch.network.weights import load_weights, save_weights
from trainer.config import TrainConfig
from trainer.score import Scorer, predict, tally
from trainer.volumes import Truth

if TYPE_CHECKING:
    import keras

FILES = ("config.json", "thresholds.json", "weights_best.h5", "provenance.json")
"""A model folder, complete."""

PHANTOM_COUNT = 27
"""Spheres in the phantom."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a model says about itself.

    Parameters
    ----------
    name, version : str
    diameter : float
        Object diameter at which the model is best, working voxels.
    diameter_range : (min, max)
        Diameters it was made for, working voxels.
    max_radius : float
        Longest ray that counts, working voxels; candidates beyond are dropped.
    tile, context : int
        Default core edge of a tile and its margin per side, working voxels, both multiples of the
        network's divisor.
    thresholds : (prob_thresh, nms_thresh)
    scores : dict
        Measured accuracies, by data set.
    samples, minutes : int, float
        Training samples seen, and wall-clock time of training.
    """

    name: str
    version: str
    diameter: float
    diameter_range: tuple[float, float]
    max_radius: float
    tile: int
    context: int
    thresholds: tuple[float, float]
    scores: dict[str, list[float]] = field(default_factory=dict)
    samples: int = 0
    minutes: float = 0.0


def export(model: keras.Model, config: TrainConfig, card: Card, folder: Path) -> None:
    """Write a model folder, replacing an older one only when the new one works.

    Parameters
    ----------
    model : keras.Model
        With the weights to ship.
    config : TrainConfig
        Of its run.
    card : Card
    folder : Path
        Its name is the model's name.

    Raises
    ------
    ModelError
        If a tile does not fit the network, or the files, loaded back, miss spheres of a phantom.
    """
    for name, edge in (("tile", card.tile), ("context", card.context)):
        if any(edge % d for d in config.network.divisor()):
            message = (
                f"export: got {name} {edge}; expected a multiple of {config.network.divisor()}, "
                "the network's grid times its pooling"
            )
            raise ModelError(message)
    draft = folder.with_name(f".{folder.name}.partial")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    _write_json(draft / "config.json", stardist_config(config))
    prob, nms = card.thresholds
    _write_json(draft / "thresholds.json", {"prob": prob, "nms": nms})
    save_weights(model, draft / "weights_best.h5")
    hashes = {
        name: hashlib.sha256((draft / name).read_bytes()).hexdigest()
        for name in ("config.json", "thresholds.json", "weights_best.h5")
    }
    _write_json(draft / "provenance.json", provenance(config, card, hashes))
    count = phantom_count(draft)
    if count != PHANTOM_COUNT:
        message = (
            f"export: the model finds {count} of {PHANTOM_COUNT} spheres in a phantom (true less "
            f"false ones); expected all and no more; the draft stays in {draft}; train longer"
        )
        raise ModelError(message)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (draft / name).replace(folder / name)
    draft.rmdir()


def stretch(model: keras.Model, factor: float) -> None:
    """Multiply all distances by a factor, in the weights of the last layer.

    Parameters
    ----------
    model : keras.Model
        Changed in place.
    factor : float
        From `score.tune_stretch`.
    """
    layer = model.get_layer("dist")
    layer.set_weights([weight * np.float32(factor) for weight in layer.get_weights()])


def stardist_config(config: TrainConfig) -> dict[str, object]:
    """Return the `config.json` that `stardist.models.StarDist3D` reads."""
    network = config.network
    return {
        "n_dim": 3,
        "axes": "ZYXC",
        "n_channel_out": 1 + network.n_rays,
        "anisotropy": None,
        "rays_json": {
            "name": "Rays_GoldenSpiral",
            "kwargs": {"n": network.n_rays, "anisotropy": None},
        },
        "n_classes": None,
        **network.to_stardist(),
        "train_patch_size": list(config.sample.shape),
        "train_batch_size": config.batch,
        "train_learning_rate": config.learning_rate,
        "train_dist_loss": "mae",
        "train_loss_weights": [1, config.dist_weight],
    }


def provenance(config: TrainConfig, card: Card, hashes: dict[str, str]) -> dict[str, object]:
    """Return the `provenance.json`: how to use the model, and where it comes from."""
    return {
        "name": card.name,
        "version": card.version,
        "diameter": card.diameter,
        "diameter_range": list(card.diameter_range),
        "max_radius": card.max_radius,
        "tile": card.tile,
        "context": card.context,
        "intensity": {
            "low_percentile": config.sample.low_percentile,
            "high_percentile": config.sample.high_percentile,
        },
        "sha256": hashes,
        "training": {
            "config": dataclasses.asdict(config),
            "samples": card.samples,
            "minutes": round(card.minutes, 1),
            "scores": card.scores,
        },
    }


def load(folder: Path, precision: str = "float32") -> tuple[keras.Model, UNetConfig]:
    """Load a model folder.

    Parameters
    ----------
    folder : Path
    precision : {"float32", "bfloat16"}

    Returns
    -------
    model, config

    Raises
    ------
    ModelError
        If a file is missing.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        message = f"model: {folder} lacks {', '.join(missing)}; expected {', '.join(FILES)}"
        raise ModelError(message)
    config = UNetConfig.from_stardist(json.loads((folder / "config.json").read_text()))
    model = build(config, precision)
    load_weights(model, folder / "weights_best.h5")
    return model, config


def phantom(diameter: float) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return bright, slightly blurred spheres in noise, 3 x 3 x 3 of them, and their labels.

    Parameters
    ----------
    diameter : float
        Voxels.

    Returns
    -------
    image : (z, y, x)
        0 to 1.
    labels : (z, y, x)
        1..27.
    """
    pitch = round(1.8 * diameter)
    edge = 3 * pitch
    position = np.indices((edge, edge, edge), np.float32)
    cell = (position // pitch).astype(np.int32)
    offset = position - cell * pitch - (pitch - 1) / 2.0
    inside = np.sqrt((offset**2).sum(axis=0)) < diameter / 2.0
    labels = np.where(inside, 1 + cell[0] * 9 + cell[1] * 3 + cell[2], 0).astype(np.int32)
    image = ndimage.gaussian_filter(0.1 + 0.7 * inside.astype(np.float32), 0.7)
    image += 0.02 * np.random.default_rng(0).standard_normal(image.shape, np.float32)
    return np.clip(image, 0.0, 1.0), labels


def phantom_count(folder: Path) -> int:
    """Return how many spheres of the phantom a model finds (IoU 0.5), less what else it finds."""
    model, network = load(folder)
    document = json.loads((folder / "provenance.json").read_text())
    thresholds = json.loads((folder / "thresholds.json").read_text())
    image, labels = phantom(float(document["diameter"]))
    scorer = Scorer(model, network, TrainConfig().sample)
    predictions = scorer.predictions([Truth("phantom", image, labels)], None)
    counts = tally(predictions, (thresholds["prob"], thresholds["nms"]))
    at_half = 2
    return counts.tp[at_half] - counts.fp[at_half]


def effective_context(
    model: keras.Model, config: UNetConfig, image: NDArray[np.float32], core: int
) -> dict[int, float]:
    """Measure what cutting a volume into tiles costs, for growing margins.

    Parameters
    ----------
    model : keras.Model
    config : UNetConfig
    image : (z, y, x)
        Normalised, with edges of at least core + 2 * the largest margin.
    core : int
        Edge of the tile in the middle, voxels.

    Returns
    -------
    dict
        Margin in voxels to the largest difference of the probability in the core.
    """
    step = max(config.divisor())
    start = (image.shape[0] - core) // 2 // step * step
    whole, _ = predict(model, config, image)
    grid = config.grid[0]
    expected = whole[(slice(start // grid, (start + core) // grid),) * 3]
    errors = {}
    for margin in range(0, start + 1, step):
        box = (slice(start - margin, start + core + margin),) * 3
        part, _ = predict(model, config, image[box])
        inner = part[(slice(margin // grid, (margin + core) // grid),) * 3]
        errors[margin] = float(np.abs(inner - expected).max())
    return errors


def _write_json(path: Path, document: dict[str, object]) -> None:
    """Write a JSON document."""
    path.write_text(json.dumps(document, indent=2) + "\n")
