"""What fine-tuning is told: frozen, checked once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from anystar_batch.errors import ConfigError
from anystar_batch.network.model import Model
from trainer.config import TrainConfig
from trainer.synthesis.config import SampleConfig

PATCH = 48
"""Edge of a patch, working voxels, rounded up to what the network divides by."""


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
    background : int or None
        Label of what is known to be background; then nothing is known of label 0. None: what the
        labels themselves say of it, and 0 without a word.
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
    background: int | None = None
    synthetic: float = 0.25
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
        if self.background is not None and self.background in (0, self.ignore):
            message = f"--background: got {self.background}; expected another label than --ignore"
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
