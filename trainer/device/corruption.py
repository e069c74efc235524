"""Degradation of a batch: every step of `trainer.synthesis.corruption.STEPS` without branches.

Names, order, probabilities and ranges are those of the config, and the ranges a config leaves out
are those of `synthesis.corruption`. Every step is computed for every sample and taken where it is
on. `cutout` alone is drawn by the workers (`trainer.device.batch`), because it changes the targets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from keras import ops

from anystar_batch.errors import ConfigError
from trainer.device.draws import Draws, Tensor, largest, smallest, wide
from trainer.device.matrices import along, box, coarser, gaussian, kept_planes, smooth
from trainer.device.spectrum import low_passed, spiked
from trainer.synthesis import corruption
from trainer.synthesis.config import Range, Step

Values = dict[str, Tensor]
"""A step's drawn parameters, each (b)."""

Ranges = dict[str, Range]
"""What they were drawn from: known when the function is compiled."""


def corrupt(draws: Draws, image: Tensor, holes: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """Apply steps in order, each with its probability.

    Parameters
    ----------
    draws : Draws
    image : float32 (b, z, y, x)
    holes : uint8 (b, z, y, x)
        Bit k is set where the config's k-th `cutout` empties the sample.
    steps : tuple of Step

    Returns
    -------
    (b, z, y, x)

    Raises
    ------
    ConfigError
        If a step, or a parameter of it, has an unknown name, or a parameter a range that this
        implementation has no fixed shape for.
    """
    check(steps)
    cutouts = 0
    for step in steps:
        ranges = corruption.parameter_ranges(step)
        if step.name == "cutout":
            hole = (ops.cast(holes, "int32") // 2**cutouts) % 2 == 1
            image = ops.where(hole, 0.0, image)
            cutouts += 1
            continue
        if step.probability == 0.0:
            continue
        values = {name: draws.between(ranges[name]) for name in sorted(ranges)}
        stepped = STEPS[step.name](draws, image, values, ranges)
        on = wide(draws.chance(step.probability))
        image = stepped if step.probability == 1.0 else ops.where(on, stepped, image)
    return image


def check(steps: tuple[Step, ...]) -> None:
    """Refuse steps that the device cannot do.

    Raises
    ------
    ConfigError
        As `corrupt`.
    """
    for step in steps:
        ranges = corruption.parameter_ranges(step)
        if step.name not in STEPS and step.name != "cutout":
            message = f"step {step.name}: not made on the device; use appearance 'workers'"
            raise ConfigError(message)
        for name in _AT_LEAST_1.get(step.name, ()):
            if ranges[name][0] < 1.0:
                message = (
                    f"step {step.name}: got {name} from {ranges[name][0]}; expected 1 or more on "
                    "the device; use appearance 'workers'"
                )
                raise ConfigError(message)


_AT_LEAST_1 = {"acquire": ("plane", "axial"), "lumps": ("scale",), "haze": ("width",)}
"""Parameters that decide the size of a matrix."""


def min_max(_draws: Draws, image: Tensor, _values: Values, _ranges: Ranges) -> Tensor:
    """Map the smallest value to 0 and the largest to 1."""
    low = smallest(image)
    return (image - low) / ops.maximum(largest(image) - low, 1e-6)


def invert(_draws: Draws, image: Tensor, _values: Values, _ranges: Ranges) -> Tensor:
    """Swap bright and dark within the sample's own range."""
    return largest(image) + smallest(image) - image


def bias_field(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Multiply by the exponential of a cubic Legendre polynomial."""
    size = values["coefficient"][:, None, None, None] * draws.uniform(shape=(4, 4, 4))
    sign = ops.where(draws.uniform(shape=(4, 4, 4)) < 0.5, -1.0, 1.0)
    order = np.add.outer(np.add.outer(np.arange(4), np.arange(4)), np.arange(4))
    coefficients = size * sign * (order <= 3).astype(np.float32)[None]
    polynomials = tuple(_legendre(draws.count, n) for n in image.shape[1:])
    return image * ops.exp(along(coefficients, (polynomials[0], polynomials[1], polynomials[2])))


def _legendre(count: int, n: int) -> Tensor:
    """The first four Legendre polynomials from -1 to 1: (b, n, 4)."""
    x = np.linspace(-1.0, 1.0, n, dtype=np.float32)
    table = np.stack([np.ones_like(x), x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2], axis=-1)
    return ops.tile(ops.convert_to_tensor(table[None]), (count, 1, 1))


def gaussian_noise(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Add Gaussian noise."""
    return image + draws.normal(tuple(image.shape[1:])) * wide(values["std"])


def spikes(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Raise one point of k-space: a wave over the whole sample."""
    at = ops.stack([draws.integer(n) for n in image.shape[1:]], axis=1)
    return spiked(image, at, values["intensity"])


def gamma(_draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Raise to a power within the sample's own range."""
    low = smallest(image)
    span = ops.maximum(largest(image) - low, 1e-6)
    return ops.power((image - low) / span, wide(values["gamma"])) * span + low


def blur(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Gaussian blur, each axis with a width of its own up to the drawn one."""
    return _blurred(image, draws.uniform(shape=(3,)) * values["sigma"][:, None], 3.0)


def _blurred(image: Tensor, sigma: Tensor, truncate: float) -> Tensor:
    """Blur with the widths (b, 3)."""
    z, y, x = (gaussian(sigma[:, k], image.shape[1 + k], truncate) for k in range(3))
    return along(image, (z, y, x))


def _evenly(sigma: Tensor) -> Tensor:
    """The same width for all axes: (b, 3)."""
    return ops.stack([sigma, sigma, sigma], axis=1)


def haze(_draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Add out-of-focus light: the sample itself, far blurred."""
    z, y, x = (box(values["width"], n) for n in image.shape[1:])
    return image + along(image, (z, y, x)) * wide(values["amount"])


def stack(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Imitate an anisotropic stack: blur one axis, keep every nth plane, interpolate linearly."""
    axis = draws.integer(3)
    z, y, x = (
        ops.matmul(
            kept_planes(ops.where(axis == k, values["step"], 1.0), n),
            gaussian(ops.where(axis == k, values["sigma"], 0.0), n, 3.0),
        )
        for k, n in enumerate(image.shape[1:])
    )
    return along(image, (z, y, x))


def acquire(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Imitate a coarser microscope: average, count photons, add read-out noise, interpolate."""
    axis = draws.integer(3)
    pairs = [
        coarser(values["plane"] * ops.where(axis == k, values["axial"], 1.0), n)
        for k, n in enumerate(image.shape[1:])
    ]
    real = (
        pairs[0][2][:, :, None, None] * pairs[1][2][:, None, :, None] * pairs[2][2][:, None, None]
    )
    coarse = along(image, (pairs[0][0], pairs[1][0], pairs[2][0]))
    low = smallest(ops.where(real > 0.0, coarse, 1e9))
    span = ops.maximum(largest(ops.where(real > 0.0, coarse, -1e9)) - low, 1e-6)
    photons = wide(10.0 ** values["log_photons"])
    bright = ops.maximum((coarse - low) / span, 0.0) * photons + 0.02 * photons
    counted = draws.counts(bright) / photons
    counted = counted + wide(values["std"]) * draws.normal(tuple(coarse.shape[1:]))
    return along(counted * span + low, (pairs[0][1], pairs[1][1], pairs[2][1]))


def shot_noise(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Count photons: Poisson noise, the brightest voxel at `10 ** log_photons`, maybe blurred."""
    photons = wide(10.0 ** values["log_photons"])
    bright = ops.maximum(image, 0.0) / ops.maximum(largest(image), 1e-6) * photons
    grain = ops.where(values["grain"] > 0.3, values["grain"], 0.0)
    return _blurred(draws.counts(bright) / photons, _evenly(grain), 2.0)


def rician_noise(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Magnitude of the image plus complex Gaussian noise."""
    noise = draws.normal((2, *image.shape[1:])) * wide(values["std"])[..., None]
    return ops.sqrt((image + noise[:, 0]) ** 2 + noise[:, 1] ** 2)


def gibbs(_draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Cut high frequencies off sharply: ringing."""
    return low_passed(image, values["alpha"])


def sharpen(_draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Unsharp mask."""
    soft = _blurred(image, _evenly(values["sigma"]), 3.0)
    softer = _blurred(soft, _evenly(ops.full_like(values["sigma"], 0.5)), 3.0)
    return soft + wide(values["alpha"]) * (soft - softer)


def histogram_shift(draws: Draws, image: Tensor, values: Values, ranges: Ranges) -> Tensor:
    """Map intensities through a random rising broken line."""
    last = ops.floor(values["points"]) - 1.0
    moved = [ops.zeros_like(last)]
    for k in range(1, int(ranges["points"][1])):
        inner = draws.uniform(moved[-1], ops.minimum((k + 1.0) / last, 1.0))
        moved.append(ops.where(k < last, inner, 1.0))
    low = smallest(image)
    span = ops.maximum(largest(image) - low, 1e-6)
    position = (image - low) / span * wide(last)
    # Hat functions add up to the broken line: no look-up.
    line: Tensor = 0.0
    for k, value in enumerate(moved):
        line = line + ops.maximum(1.0 - ops.abs(position - k), 0.0) * wide(value)
    return line * span + low


def final_noise(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Gaussian, Poisson or speckle noise, only where the image is not 0."""
    kind = wide(draws.integer(3))
    noise = draws.normal(tuple(image.shape[1:])) * wide(values["std"])
    counted = draws.counts(ops.clip(image, 0.0, 1.0) * 255.0) / 255.0
    noisy = ops.where(kind == 0, image + noise, image * (1.0 + noise))
    noisy = ops.where(kind == 1, counted, noisy)
    return ops.where(image != 0.0, noisy, image)


def lumps(draws: Draws, image: Tensor, values: Values, ranges: Ranges) -> Tensor:
    """Multiply by smooth noise over objects and background alike: uneven staining or light."""
    field = smooth(draws, image.shape[1], values["scale"], ranges["scale"][0])
    return image * ops.exp(field * wide(values["amount"]))


def fade(draws: Draws, image: Tensor, values: Values, _ranges: Ranges) -> Tensor:
    """Brighten along one direction."""
    direction = draws.uniform(-1.0, 1.0, (3,))
    length = ops.sqrt(ops.sum(direction * direction, axis=1, keepdims=True))
    direction = direction / ops.maximum(length, 1e-6)
    place: Tensor = 0.0
    for k, n in enumerate(image.shape[1:]):
        shape = [1, 1, 1, 1]
        shape[1 + k] = n
        axis = np.linspace(-0.5, 0.5, n, dtype=np.float32).reshape(shape)
        place = place + axis * wide(direction[:, k])
    low = smallest(image)
    return (image - low) * ops.exp(place * wide(values["depth"] / 3.0**0.5)) + low


STEPS: dict[str, Callable[[Draws, Tensor, Values, Ranges], Tensor]] = {
    "min_max": min_max,
    "invert": invert,
    "bias_field": bias_field,
    "gaussian_noise": gaussian_noise,
    "spikes": spikes,
    "gamma": gamma,
    "blur": blur,
    "rician_noise": rician_noise,
    "gibbs": gibbs,
    "sharpen": sharpen,
    "histogram_shift": histogram_shift,
    "final_noise": final_noise,
    "haze": haze,
    "lumps": lumps,
    "fade": fade,
    "stack": stack,
    "acquire": acquire,
    "shot_noise": shot_noise,
}
"""Every step but `cutout`."""
