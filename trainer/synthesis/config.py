"""What a synthetic sample is made of: frozen values, checked once, JSON there and back.

`SampleConfig` alone decides what sample n is; it goes into the provenance of a model and, with a
seed, names every sample for good.

Presets of the appearance (METHOD.md section 3) and of the degradation (section 4)::

    as-mix  bright-plain  rand-plain  rand-perlin      which background models, equal odds
    ours    published                                  which steps, in which order, how likely
"""

from __future__ import annotations

from dataclasses import dataclass, field

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX, as_zyx

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


def check(condition: object, message: str) -> None:
    """Check that a condition holds.

    Raises
    ------
    ConfigError
        With `message`, if it does not.
    """
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
        check(
            2.0 <= self.radius[0] <= self.radius[1],
            f"shapes: got radius {self.radius}; expected 2 or more, smallest first",
        )
        check(
            1.0 <= self.spacing[0] <= self.spacing[1],
            f"shapes: got spacing {self.spacing}; expected 1 or more, smallest first",
        )
        check(
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
        check(
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
        check(
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
        check(
            len(set(self.shape)) == 1,
            f"sample: got shape {self.shape}; expected a cube, axes are swapped at random",
        )
        check(self.reuse >= 1, f"sample: got reuse {self.reuse}; expected 1 or more")

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
        check(name in PRESETS, f"preset: got {name!r}; expected one of {', '.join(PRESETS)}")
        check(
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
