"""Degradation of a sample, one named step at a time.

`STEPS` maps a name to a function and its parameters' ranges as published (METHOD.md section 4;
MONAI's defaults where the paper gives none). A config may override ranges and probabilities, not
what a step does. Every step takes and returns float32 (z, y, x); only `cutout` also changes labels.

The steps `haze`, `lumps`, `fade`, `stack`, `acquire` and `shot_noise` are ours: they imitate what
real stacks suffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from anystar_batch.errors import ConfigError
from trainer.synthesis.config import Range, Step
from trainer.synthesis.noise import along_axes, smooth

Image = NDArray[np.float32]
Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of step.

    Parameters
    ----------
    apply : callable
        (rng, image, drawn parameter values) to image.
    ranges : mapping of str to Range
        Published range of every parameter, each drawn uniformly.
    """

    apply: Callable[[np.random.Generator, Image, Values], Image]
    ranges: dict[str, Range]


def corrupt(
    rng: np.random.Generator, image: Image, labels: NDArray[np.int32], steps: tuple[Step, ...]
) -> tuple[Image, NDArray[np.int32]]:
    """Apply steps in order, each with its probability.

    Parameters
    ----------
    rng : Generator
    image : (z, y, x)
    labels : (z, y, x)
        Changed by `cutout` alone; pieces it splits keep their common label.
    steps : tuple of Step

    Returns
    -------
    image, labels : (z, y, x)

    Raises
    ------
    ConfigError
        If a step, or a parameter of it, has an unknown name.
    """
    for step in steps:
        ranges = parameter_ranges(step)
        apply = rng.random() < step.probability
        values = {name: float(rng.uniform(*ranges[name])) for name in sorted(ranges)}
        if not apply:
            continue
        if step.name == "cutout":
            image, labels = cutout(rng, image, labels, values)
        else:
            image = STEPS[step.name].apply(rng, image, values).astype(np.float32, copy=False)
    return image, labels


def parameter_ranges(step: Step) -> dict[str, Range]:
    """Return the range of every parameter of a step: the published ones, or the config's.

    Parameters
    ----------
    step : Step

    Raises
    ------
    ConfigError
        If the step, or a parameter of it, has an unknown name.
    """
    kind = STEPS.get(step.name)
    if kind is None:
        message = f"step: got {step.name!r}; expected one of {', '.join(sorted(STEPS))}"
        raise ConfigError(message)
    ranges = kind.ranges | dict(step.ranges)
    unknown = sorted(set(ranges) - set(kind.ranges))
    if unknown:
        message = f"step {step.name}: got parameters {unknown}; expected {sorted(kind.ranges)}"
        raise ConfigError(message)
    return ranges


def min_max(_rng: np.random.Generator, image: Image, _values: Values) -> Image:
    """Map the smallest value to 0 and the largest to 1."""
    low, high = float(image.min()), float(image.max())
    return (image - np.float32(low)) / np.float32(max(high - low, 1e-6))


def invert(_rng: np.random.Generator, image: Image, _values: Values) -> Image:
    """Swap bright and dark within the sample's own range."""
    inverted: Image = image.max() + image.min() - image
    return inverted


def bias_field(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Multiply by the exponential of a cubic Legendre polynomial (MONAI RandBiasField)."""
    polynomials = []
    for n in image.shape:
        x = np.linspace(-1.0, 1.0, n, dtype=np.float32)
        polynomials.append(
            np.stack([np.ones_like(x), x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2])
        )
    coefficients = rng.uniform(0.0, values["coefficient"], (4, 4, 4)).astype(np.float32)
    order = np.add.outer(np.add.outer(np.arange(4), np.arange(4)), np.arange(4))
    coefficients *= (order <= 3) * np.where(rng.random((4, 4, 4)) < 0.5, -1.0, 1.0)
    field = along_axes(coefficients, [p.T.copy() for p in polynomials])
    result: Image = image * np.exp(field)
    return result


def gaussian_noise(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Add Gaussian noise."""
    return image + rng.standard_normal(image.shape, np.float32) * np.float32(values["std"])


def spikes(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Raise one point of k-space (MONAI RandKSpaceSpikeNoise): a wave over the whole sample."""
    spectrum = fft.fftn(image)
    at = tuple(int(rng.integers(n)) for n in image.shape)
    level = float(np.log(np.abs(spectrum) + 1e-10).mean()) * 2.5 * values["intensity"]
    spectrum[at] = np.exp(level + 1j * np.angle(spectrum[at]))
    result: Image = np.real(fft.ifftn(spectrum)).astype(np.float32)
    return result


def gamma(_rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Raise to a power within the sample's own range."""
    low = image.min()
    span = np.float32(max(float(image.max() - low), 1e-6))
    result: Image = ((image - low) / span) ** np.float32(values["gamma"]) * span + low
    return result


def blur(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Gaussian blur, each axis with a width of its own up to the drawn one."""
    result: Image = ndimage.gaussian_filter(
        image, rng.uniform(0.0, 1.0, 3) * values["sigma"], truncate=3.0
    )
    return result


def haze(_rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Add out-of-focus light: the sample itself, far blurred."""
    far = ndimage.uniform_filter(image, int(values["width"]), mode="nearest")
    result: Image = image + far * np.float32(values["amount"])
    return result


def stack(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Imitate an anisotropic stack: blur one axis, keep every nth plane, interpolate linearly."""
    axis = int(rng.integers(3))
    moved = ndimage.gaussian_filter1d(image, values["sigma"], axis=axis, truncate=3.0)
    step = values["step"]
    if step > 1.0:
        n = image.shape[axis]
        kept = np.arange(0, n + step, step)
        planes = np.take(moved, np.minimum(np.round(kept).astype(int), n - 1), axis=axis)
        position = np.arange(n) / step
        below = position.astype(int)
        share = (
            (position - below)
            .astype(np.float32)
            .reshape([-1 if k == axis else 1 for k in range(3)])
        )
        moved = np.take(planes, below, axis=axis) * (1 - share)
        moved += np.take(planes, below + 1, axis=axis) * share
    result: Image = moved
    return result


def shot_noise(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Count photons: Poisson noise, the brightest voxel at `10 ** log_photons`, maybe blurred."""
    photons = np.float32(10.0 ** values["log_photons"])
    bright = np.clip(image, 0.0, None) / np.float32(max(float(image.max()), 1e-6)) * photons
    counted = rng.poisson(bright).astype(np.float32) / photons
    if values["grain"] > 0.3:
        counted = ndimage.gaussian_filter(counted, values["grain"], truncate=2.0)
    return counted


def acquire(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Imitate a coarser microscope, then the resampling to the working voxel size.

    The sample is averaged into larger voxels (`plane` times the edge, one axis `axial` times that),
    photons are counted and read-out noise added *there*, and the result is interpolated linearly.
    The grain of the noise is then as coarse as the microscope's voxels: what an enlarged image
    shows in its background, and what must not be taken for objects.
    """
    factors = np.full(3, values["plane"])
    factors[int(rng.integers(3))] *= values["axial"]
    down, up = zip(
        *(_coarser(n, f) for n, f in zip(image.shape, factors, strict=True)), strict=True
    )
    coarse = along_axes(image, down)
    low, span = float(coarse.min()), max(float(coarse.max() - coarse.min()), 1e-6)
    photons = 10.0 ** values["log_photons"]
    counted = rng.poisson((coarse - low) / span * photons + 0.02 * photons) / photons
    counted += values["std"] * rng.standard_normal(coarse.shape)
    return along_axes((counted * span + low).astype(np.float32), up)


def _coarser(n: int, factor: float) -> tuple[Image, Image]:
    """Weights that average n voxels into ones `factor` times as long, and that interpolate back."""
    count = max(int(np.ceil(n / factor)), 2)
    centre = (np.arange(count) + 0.5) * factor - 0.5
    voxel = np.arange(n)
    overlap = np.clip(0.5 + factor / 2 - np.abs(voxel[None] - centre[:, None]), 0.0, 1.0)
    overlap += 1e-6 * (np.abs(voxel[None] - centre[:, None]).argmin(1)[:, None] == voxel[None])
    down = overlap / overlap.sum(axis=1, keepdims=True)
    position = np.clip((voxel + 0.5) / factor - 0.5, 0.0, count - 1.0)
    up = np.clip(1.0 - np.abs(position[:, None] - np.arange(count)[None]), 0.0, None)
    return down.astype(np.float32), up.astype(np.float32)


def rician_noise(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Magnitude of the image plus complex Gaussian noise."""
    noise = rng.standard_normal((2, *image.shape), np.float32) * np.float32(values["std"])
    result: Image = np.sqrt((image + noise[0]) ** 2 + noise[1] ** 2)
    return result


def gibbs(_rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Cut high frequencies off sharply (MONAI RandGibbsNoise): ringing.

    Parameters
    ----------
    _rng : Generator
        Not used.
    image : (z, y, x)
    values : mapping
        `alpha`: share of the radius in k-space that is lost, 0 to 1.
    """
    axes = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in image.shape)]
    radius = np.sqrt(sum(a.astype(np.float32) ** 2 for a in axes))
    largest = (1.0 - values["alpha"]) * float(radius.max()) * 2.0 / np.sqrt(2.0 * 3.0)
    mask = fft.ifftshift(radius <= largest)
    result: Image = np.real(fft.ifftn(fft.fftn(image) * mask)).astype(np.float32)
    return result


def sharpen(_rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Unsharp mask (MONAI RandGaussianSharpen)."""
    soft = ndimage.gaussian_filter(image, values["sigma"], truncate=3.0)
    softer = ndimage.gaussian_filter(soft, 0.5, truncate=3.0)
    result: Image = soft + np.float32(values["alpha"]) * (soft - softer)
    return result


def histogram_shift(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Map intensities through a random rising broken line (MONAI RandHistogramShift)."""
    count = int(values["points"])
    line = np.linspace(0.0, 1.0, count)
    moved = line.copy()
    for k in range(1, count - 1):
        moved[k] = rng.uniform(moved[k - 1], line[k + 1])
    low, span = float(image.min()), max(float(image.max() - image.min()), 1e-6)
    result: Image = (np.interp((image - low) / span, line, moved) * span + low).astype(np.float32)
    return result


def final_noise(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Gaussian, Poisson or speckle noise, only where the image is not 0."""
    kind = int(rng.integers(3))
    if kind == 0:
        noisy = gaussian_noise(rng, image, values)
    elif kind == 1:
        noisy = (rng.poisson(np.clip(image, 0.0, 1.0) * 255.0) / 255.0).astype(np.float32)
    else:
        normal = rng.standard_normal(image.shape, np.float32)
        noisy = image * (1.0 + np.float32(values["std"]) * normal)
    return np.where(image != 0, noisy, image)


def lumps(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Multiply by smooth noise over objects and background alike: uneven staining or light."""
    shape = (image.shape[0], image.shape[1], image.shape[2])
    field = smooth(rng, shape, values["scale"])
    result: Image = image * np.exp(field * np.float32(values["amount"]))
    return result


def fade(rng: np.random.Generator, image: Image, values: Values) -> Image:
    """Brighten along one direction: what local limits leave between a dim and a bright cell.

    From one end of the sample's diagonal to the other the brightness above the darkest voxel
    changes by the factor `exp(depth)`.
    """
    direction = rng.uniform(-1.0, 1.0, 3)
    direction = direction / max(float(np.linalg.norm(direction)), 1e-6)
    axes = np.ogrid[tuple(slice(-0.5, 0.5, n * 1j) for n in image.shape)]
    along = sum(axis * d for axis, d in zip(axes, direction, strict=True)) / np.sqrt(3.0)
    low = image.min()
    result: Image = (image - low) * np.exp(along * values["depth"]).astype(np.float32) + low
    return result


def cutout(
    rng: np.random.Generator, image: Image, labels: NDArray[np.int32], values: Values
) -> tuple[Image, NDArray[np.int32]]:
    """Set cubes of image and labels to 0; the paper's count is for 64^3 voxels."""
    image, labels = image.copy(), labels.copy()
    edge = int(values["edge"])
    count = round(values["holes"] * image.size / 64**3)
    for _ in range(count):
        hole = tuple(slice(s, s + edge) for s in (int(rng.integers(0, n)) for n in image.shape))
        image[hole] = 0.0
        labels[hole] = 0
    return image, labels


def _cutout_needs_labels(_rng: np.random.Generator, image: Image, _values: Values) -> Image:
    """Stand in the table for `cutout`, which `corrupt` calls with the labels."""
    return image


STEPS: dict[str, Kind] = {
    "min_max": Kind(min_max, {}),
    "invert": Kind(invert, {}),
    "bias_field": Kind(bias_field, {"coefficient": (0.0, 0.1)}),
    "gaussian_noise": Kind(gaussian_noise, {"std": (0.0, 0.1)}),
    "spikes": Kind(spikes, {"intensity": (0.95, 1.10)}),
    "gamma": Kind(gamma, {"gamma": (0.5, 4.5)}),
    "blur": Kind(blur, {"sigma": (0.0, 0.333)}),
    "rician_noise": Kind(rician_noise, {"std": (0.05, 0.05)}),
    "gibbs": Kind(gibbs, {"alpha": (0.0, 0.5)}),
    "sharpen": Kind(sharpen, {"sigma": (0.5, 1.0), "alpha": (10.0, 30.0)}),
    "histogram_shift": Kind(histogram_shift, {"points": (10.0, 10.0)}),
    "cutout": Kind(_cutout_needs_labels, {"holes": (20.0, 20.0), "edge": (12.0, 12.0)}),
    "final_noise": Kind(final_noise, {"std": (0.0, 0.1)}),
    "haze": Kind(haze, {"width": (9.0, 25.0), "amount": (0.2, 1.5)}),
    "lumps": Kind(lumps, {"scale": (6.0, 24.0), "amount": (0.0, 1.5)}),
    "fade": Kind(fade, {"depth": (0.0, 3.4)}),
    "stack": Kind(stack, {"sigma": (0.3, 2.0), "step": (1.0, 4.0)}),
    "acquire": Kind(
        acquire,
        {
            "plane": (1.0, 1.7),
            "axial": (1.0, 2.5),
            "log_photons": (1.0, 2.7),
            "std": (0.0, 0.08),
        },
    ),
    "shot_noise": Kind(shot_noise, {"log_photons": (0.9, 2.5), "grain": (0.0, 1.0)}),
}
"""Every step a config can name."""
