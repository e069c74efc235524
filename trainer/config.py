"""What the trainer is told: frozen values, checked once, JSON there and back.

Two halves. `SampleConfig` alone decides what sample n is; it goes into the provenance of a model
and, with a seed, names every sample for good. `TrainConfig` says which network is trained on
which samples, for how long.

Presets of the appearance (METHOD.md section 3) and of the degradation (section 4)::

    as-mix  bright-plain  rand-plain  rand-perlin      which background models, equal odds
    ours    published                                  which steps, in which order, how likely
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX, as_zyx
from anystar_batch.network.unet import UNetConfig

Range = tuple[float, float]
"""Smallest and largest value of a uniform draw."""

BACKGROUNDS = ("bright", "rand", "perlin")
"""Background models: darker than every object, like an object, classes of warped noise."""

PRESETS: dict[str, tuple[str, ...]] = {
    "as-mix": BACKGROUNDS,
    "bright-plain": ("bright",),
    "rand-plain": ("rand",),
    "rand-perlin": ("perlin",),
}
"""Background models of AS-Mix and of the paper's three ablations."""


APPEARANCES = ("workers", "device")
"""Where appearance can be made."""

PRECISIONS = ("auto", "float32", "bfloat16")
"""In what a step can be computed."""


def _check(condition: object, message: str) -> None:
    """Raise a ConfigError with `message` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class ShapesConfig:
    """Labels: perturbed spheres on a jittered lattice, seen through one smooth deformation.

    Parameters
    ----------
    radius : Range
        Mean radius of a volume's objects *in the sample*, log-uniform, voxels. The zoom changes
        the lattice that is seen, not this number: it is the radius the network meets.
    radius_spread : Range
        An object's radius over the mean.
    spacing : Range
        Lattice spacing over the mean radius (the paper: 2).
    jitter : float
        Largest shift of a centre per axis over the mean radius.
    dropped : float
        Largest share of objects left out, the share itself drawn uniformly.
    sparse : float
        Probability that the largest share is 1 instead: volumes almost or quite without objects.
    noise : Range
        Amplitude of the Perlin noise added to the distance, over the mean radius (the paper: 0.9).
    noise_cell : Range
        Cell of the Perlin noise over the mean radius (the paper: 16 / 12).
    elongation : Range
        Longest over shortest axis of an object before the deformation (the paper: 1), log-uniform.
    rotation : float
        Largest rotation about each axis, degrees.
    scale, shear : float
        Largest relative stretch and shear per axis (MONAI's elastic step: 0.3, 0.5).
    elastic_sigma, elastic_magnitude : Range
        Smoothness, voxels, and magnitude of random displacements before smoothing, voxels.
    empty_border : float
        Probability that a part of the sample beyond a plane holds nothing (zero padding).
    smallest : float
        Pieces below this share of a mean sphere's volume are erased, unless the border cut them.
    """

    radius: Range = (3.0, 14.0)
    radius_spread: Range = (0.6, 1.2)
    spacing: Range = (1.5, 2.2)
    jitter: float = 0.5
    dropped: float = 0.33
    sparse: float = 0.15
    noise: Range = (0.3, 0.9)
    noise_cell: Range = (1.1, 2.2)
    elongation: Range = (1.0, 2.0)
    rotation: float = 45.0
    scale: float = 0.3
    shear: float = 0.3
    elastic_sigma: Range = (2.0, 5.0)
    elastic_magnitude: Range = (8.0, 20.0)
    empty_border: float = 0.1
    smallest: float = 0.08

    def __post_init__(self) -> None:
        _check(
            2.0 <= self.radius[0] <= self.radius[1],
            f"shapes: got radius {self.radius}; expected 2 or more, smallest first",
        )
        _check(
            1.0 <= self.spacing[0] <= self.spacing[1],
            f"shapes: got spacing {self.spacing}; expected 1 or more, smallest first",
        )
        _check(
            1.0 <= self.elongation[0] <= self.elongation[1] <= 4.0,
            f"shapes: got elongation {self.elongation}; expected 1 to 4, smallest first",
        )

    @classmethod
    def published(cls) -> ShapesConfig:
        """Return the paper's shapes: METHOD.md sections 2 and 4, radius 12 zoomed by 0.4 to 1.4."""
        return cls(
            radius=(12.0 * 0.4, 12.0 * 1.4),
            spacing=(2.0, 2.0),
            sparse=0.0,
            noise=(0.9, 0.9),
            noise_cell=(16.0 / 12.0, 16.0 / 12.0),
            elongation=(1.0, 1.0),
            shear=0.5,
            smallest=0.0,
        )


@dataclass(frozen=True, slots=True)
class AppearanceConfig:
    """Intensities of objects and background, before any degradation.

    Parameters
    ----------
    backgrounds : tuple of str
        Background models to draw from, equal odds; see `BACKGROUNDS`.
    mean, std : Range
        Mean and spread of an object's voxels.
    plain_std : Range
        Spread of the background of the bright model.
    alike : float
        Probability that all objects of a volume share one mean but for 20 % (nuclei of one stain).
    contrast : float
        Least distance of an object's mean from the mean of a plain background, intensity units.
    textured : float
        Probability that the objects are multiplied by smooth noise (the paper: 1).
    texture : Range
        Depth of that noise: 1 reaches down to 0 (the paper), where an object cannot be seen.
    profiled : float
        Probability that the objects have a radial profile: bright rim, dark core, soft edge.
    domed : float
        Probability that the objects fade into the background towards their border.
    dome : Range
        Exponent of that fading, by distance from the centre over the radius: at 4 the half maximum
        lies at 0.84 of the radius.
    classes : tuple of int
        Fewest and most classes of the Perlin model.
    class_scales : tuple of float
        Scales of the noise whose largest channel is the class, voxels.
    clutter : float
        Probability that the background holds what is no object: specks, fibres or sheets.
    """

    backgrounds: tuple[str, ...] = BACKGROUNDS
    mean: Range = (25.0, 225.0)
    std: Range = (5.0, 25.0)
    plain_std: Range = (0.0, 5.0)
    alike: float = 0.5
    contrast: float = 45.0
    textured: float = 0.7
    texture: Range = (0.2, 0.9)
    profiled: float = 0.5
    domed: float = 0.0
    dome: Range = (3.0, 10.0)
    classes: tuple[int, int] = (1, 20)
    class_scales: tuple[float, ...] = (12.0, 24.0)
    clutter: float = 0.3

    def __post_init__(self) -> None:
        unknown = sorted(set(self.backgrounds) - set(BACKGROUNDS))
        _check(
            self.backgrounds and not unknown,
            f"appearance: got backgrounds {self.backgrounds}; expected some of {BACKGROUNDS}",
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the degradation, by name; `corruption.STEPS` holds what each one does.

    Parameters
    ----------
    name : str
    probability : float
    ranges : tuple of (str, Range)
        Ranges of its parameters that differ from the published ones, as pairs.
    """

    name: str
    probability: float = 1.0
    ranges: tuple[tuple[str, Range], ...] = ()

    def __post_init__(self) -> None:
        _check(
            0.0 <= self.probability <= 1.0,
            f"step {self.name}: got probability {self.probability}; expected 0 to 1",
        )


PUBLISHED_STEPS = (
    Step("min_max"),
    Step("bias_field"),
    Step("gaussian_noise", 0.25),
    Step("spikes", 0.2),
    Step("gamma", 0.8),
    Step("blur", 0.8),
    Step("rician_noise", 0.2),
    Step("gibbs", 0.5),
    Step("sharpen", 0.25),
    Step("histogram_shift", 0.1),
    Step("min_max"),
    Step("cutout", 0.2),
    Step("final_noise", 0.2),
)
"""METHOD.md section 4, image steps in its order; its geometric steps are in `ShapesConfig`."""

OUR_STEPS = (
    Step("min_max"),
    Step("bias_field", 0.5, (("coefficient", (0.0, 0.3)),)),
    Step("haze", 0.25),
    Step("gamma", 0.6, (("gamma", (0.5, 2.5)),)),
    Step("blur", 0.8, (("sigma", (0.0, 1.2)),)),
    Step("stack", 0.25),
    Step("acquire", 0.5),
    Step("shot_noise", 0.2, (("log_photons", (1.0, 2.5)),)),
    Step("gaussian_noise", 0.2, (("std", (0.0, 0.08)),)),
    Step("rician_noise", 0.1, (("std", (0.0, 0.05)),)),
    Step("spikes", 0.05),
    Step("gibbs", 0.15),
    Step("sharpen", 0.05),
    Step("histogram_shift", 0.1),
    Step("min_max"),
    Step("cutout", 0.05),
    Step("final_noise", 0.1),
)
"""Milder where the published ranges bury the objects, further where real stacks are worse."""


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Everything that decides what sample n of a seed is.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels of a sample.
    shapes : ShapesConfig
    appearance : AppearanceConfig
    steps : tuple of Step
        Degradation, in order.
    reuse : int
        Samples that share one set of shapes, each with its own flip, appearance and degradation.
    low_percentile, high_percentile : float
        Limits of `intensity.limits`, the same at inference.
    dimmed : float
        Probability that a sample covers only a sub-range of [0, 1], as a dim region of a large
        volume does.
    clipped : float
        Probability that the top of the range is clipped, as a few bright spots elsewhere cause
        the opposite of.
    """

    shape: ZYX = (48, 48, 48)
    shapes: ShapesConfig = field(default_factory=ShapesConfig)
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    steps: tuple[Step, ...] = OUR_STEPS
    reuse: int = 2
    low_percentile: float = 1.0
    high_percentile: float = 99.9
    dimmed: float = 0.5
    clipped: float = 0.3

    def __post_init__(self) -> None:
        _check(
            len(set(self.shape)) == 1,
            f"sample: got shape {self.shape}; expected a cube, axes are swapped at random",
        )
        _check(self.reuse >= 1, f"sample: got reuse {self.reuse}; expected 1 or more")

    @classmethod
    def preset(cls, name: str, degradation: str = "ours", edge: int = 48) -> SampleConfig:
        """Return a preset.

        Parameters
        ----------
        name : str
            One of `PRESETS`.
        degradation : {"ours", "published"}
            The published one takes the paper's shapes and appearance ranges along.
        edge : int
            Voxels per axis.

        Returns
        -------
        SampleConfig

        Raises
        ------
        ConfigError
            If there is no such preset.
        """
        _check(name in PRESETS, f"preset: got {name!r}; expected one of {', '.join(PRESETS)}")
        _check(
            degradation in ("ours", "published"),
            f"degradation: got {degradation!r}; expected ours or published",
        )
        shape = as_zyx((edge, edge, edge))
        if degradation == "ours":
            return cls(shape=shape, appearance=AppearanceConfig(backgrounds=PRESETS[name]))
        appearance = AppearanceConfig(
            backgrounds=PRESETS[name],
            alike=0.0,
            contrast=0.0,
            textured=1.0,
            texture=(1.0, 1.0),
            profiled=0.0,
            class_scales=(32.0, 64.0),
            clutter=0.0,
        )
        return cls(
            shape=shape,
            shapes=ShapesConfig.published(),
            appearance=appearance,
            steps=PUBLISHED_STEPS,
            dimmed=0.0,
            clipped=0.0,
        )


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
        _check(
            self.seed != self.validation_seed,
            f"train: got seed {self.seed} for training and validation; expected two",
        )
        _check(self.batch >= 1, f"train: got batch {self.batch}; expected 1 or more")
        _check(self.echo >= 1, f"train: got echo {self.echo}; expected 1 or more")
        _check(self.workers >= 1, f"train: got workers {self.workers}; expected 1 or more")
        _check(
            self.appearance in APPEARANCES,
            f"train: got appearance {self.appearance!r}; expected {' or '.join(APPEARANCES)}",
        )
        _check(
            0.0 <= self.fall_from < 1.0,
            f"train: got fall_from {self.fall_from}; expected 0 to less than 1",
        )
        _check(
            self.average_window >= 0,
            f"train: got average_window {self.average_window}; expected 0 or more",
        )
        _check(
            self.precision in PRECISIONS,
            f"train: got precision {self.precision!r}; expected {', '.join(PRECISIONS)}",
        )
        _check(
            self.minutes > 0 or self.steps > 0,
            f"train: got minutes={self.minutes}, steps={self.steps}; expected a budget",
        )
        divisor = self.network.divisor()
        _check(
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
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            message = f"train: the config is no JSON: {error}"
            raise ConfigError(message) from error
        _check(isinstance(document, dict), "train: the config is no JSON object")
        parsed: TrainConfig = _parse(cls, document)
        return parsed


_NESTED: dict[tuple[type, str], type] = {
    (TrainConfig, "sample"): SampleConfig,
    (TrainConfig, "network"): UNetConfig,
    (SampleConfig, "shapes"): ShapesConfig,
    (SampleConfig, "appearance"): AppearanceConfig,
}


def _parse(cls: type, document: Mapping[str, Any]) -> Any:  # noqa: ANN401  (any of our dataclasses)
    """Build a config dataclass from parsed JSON."""
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(document) - known)
    _check(
        not unknown, f"{cls.__name__}: got unknown keys {unknown}; expected some of {sorted(known)}"
    )
    values: dict[str, Any] = {}
    for key, value in document.items():
        if (cls, key) in _NESTED:
            values[key] = _parse(_NESTED[cls, key], value)
        elif key == "steps" and isinstance(value, list):
            values[key] = tuple(
                Step(s["name"], s.get("probability", 1.0), _tuples(s.get("ranges", [])))
                for s in value
            )
        else:
            values[key] = _tuples(value)
    return cls(**values)


def _tuples(value: Any) -> Any:  # noqa: ANN401  (parsed JSON)
    """Turn lists into tuples, all the way down."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
