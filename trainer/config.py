"""What the trainer is told: which network is trained on which samples, for how long.

Frozen values, checked once, JSON there and back; the samples are `synthesis.config`'s.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from anystar_batch.network.unet import UNetConfig
from trainer.config_json import parse
from trainer.synthesis.config import SampleConfig, check

APPEARANCES = ("workers", "device")
"""Where appearance can be made."""


PRECISIONS = ("auto", "float32", "bfloat16")
"""In what a step can be computed."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run.

    Parameters
    ----------
    sample : SampleConfig
    network : UNetConfig
    seed : int
        Seed of the training samples; validation samples come from `validation_seed`.
    validation_seed : int
    batch : int
        Samples per step.
    echo : int
        Steps per batch. Making samples costs a third of the time on two cores: a batch is met again
        a few steps later, with its intensities bent.
    learning_rate : float
        At the start; falls linearly to 0 at the end of the budget.
    fall_from : float
        Share of the budget up to which the learning rate stays flat. A copy of the run's folder
        with fewer minutes is a branch: it shares the flat part and has a fall of its own.
    minutes : float
        Budget of wall-clock time, over all resumed parts. The learning rate follows it, so a run
        on a busy machine still ends at 0 and on time.
    steps : int
        Budget of steps, 0 for none. Whichever budget is nearer its end sets the learning rate.
    dist_weight : float
        Weight of the mean absolute error of the distances, voxels, beside the cross-entropy (the
        paper: 0.2). Large objects have the large errors.
    iou_weight : float
        Weight of minus the logarithm of the IoU of two star-shaped bodies around the same point,
        the true and the found one: small and large objects count alike, and an error too large
        costs what one too small costs.
    freeze_norm_from : float
        Share of the budget after which batch normalisation uses its moving statistics, as
        inference does: four unlike samples make poor statistics. 1 for never.
    average_from : float
        Share of the budget after which the weights are averaged (the exported ones).
    average_window : int
        Weights that the average remembers, one every ten steps, the older the fainter; 0 for all
        alike. With a flat rate the average stands in for the fall.
    workers : int
        Processes that make samples.
    appearance : {"workers", "device"}
        Where intensities and degradation are made: by the workers, or on the device that trains,
        from shapes and targets that the workers send; then `echo` paints each of those anew.
    precision : {"auto", "float32", "bfloat16"}
        Of the arithmetic; weights are float32 always. `auto` times a step of both.
    checkpoint_minutes : float
        Between checkpoints.
    """

    sample: SampleConfig = field(default_factory=SampleConfig)
    network: UNetConfig = field(
        default_factory=lambda: UNetConfig(
            grid=(2, 2, 2),
            unet_n_depth=2,
            unet_expansion=3.0,
            unet_n_filter_base=16,
            unet_batch_norm=True,
            net_conv_after_unet=64,
        )
    )
    seed: int = 7
    validation_seed: int = 1_000_003
    batch: int = 4
    echo: int = 2
    learning_rate: float = 5e-4
    fall_from: float = 0.0
    minutes: float = 60.0
    steps: int = 0
    dist_weight: float = 0.1
    iou_weight: float = 0.3
    freeze_norm_from: float = 0.35
    average_from: float = 0.85
    average_window: int = 0
    workers: int = 1
    appearance: str = "workers"
    precision: str = "bfloat16"
    checkpoint_minutes: float = 3.0

    def __post_init__(self) -> None:
        check(
            self.seed != self.validation_seed,
            f"train: got seed {self.seed} for training and validation; expected two",
        )
        check(self.batch >= 1, f"train: got batch {self.batch}; expected 1 or more")
        check(self.echo >= 1, f"train: got echo {self.echo}; expected 1 or more")
        check(self.workers >= 1, f"train: got workers {self.workers}; expected 1 or more")
        check(
            self.appearance in APPEARANCES,
            f"train: got appearance {self.appearance!r}; expected {' or '.join(APPEARANCES)}",
        )
        check(
            0.0 <= self.fall_from < 1.0,
            f"train: got fall_from {self.fall_from}; expected 0 to less than 1",
        )
        check(
            self.average_window >= 0,
            f"train: got average_window {self.average_window}; expected 0 or more",
        )
        check(
            self.precision in PRECISIONS,
            f"train: got precision {self.precision!r}; expected {', '.join(PRECISIONS)}",
        )
        check(
            self.minutes > 0 or self.steps > 0,
            f"train: got minutes={self.minutes}, steps={self.steps}; expected a budget",
        )
        divisor = self.network.divisor()
        check(
            all(n % d == 0 for n, d in zip(self.sample.shape, divisor, strict=True)),
            f"train: got samples of {self.sample.shape}; expected multiples of {divisor}, "
            "the network's grid times its pooling",
        )

    def to_json(self) -> str:
        """Return the config as a JSON document."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Parse what `to_json` wrote; keys left out take their defaults.

        Raises
        ------
        ConfigError
            If the text is no JSON object, or has a key that is not known.
        """
        parsed: TrainConfig = parse(cls, text, "train")
        return parsed
