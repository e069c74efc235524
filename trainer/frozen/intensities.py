"""Intensities and degradation of a frozen volume (METHOD.md sections 3 and 4). NEVER EDIT.

All arithmetic is in float64; `volume` quantises the result to 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft, ndimage

from trainer.frozen.geometry import Float, Recipe, Stream, labels, pieces, smooth

BACKGROUNDS = ("bright", "rand", "perlin")
"""Background models: darker than every object, like an object, classes of warped noise."""

GREY = 65535
"""Grey level that intensity 1 becomes."""


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One frozen volume.

    Parameters
    ----------
    image : uint16 (z, y, x)
        The published pipeline's [0, 1] times `GREY`, clipped and rounded.
    labels : int32 (z, y, x)
        0 is background, objects are 1..n.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.int32]


def volume(seed: int, edge: int, radius: float, background: str) -> Volume:
    """Make a volume.

    Parameters
    ----------
    seed : int
        64 bits.
    edge : int
        Voxels per axis.
    radius : float
        Mean radius, voxels.
    background : str
        One of `BACKGROUNDS`.
    """
    recipe = Recipe()
    stream = Stream(seed)
    truth, void = labels(stream, edge, radius, recipe)
    image = _painted(stream, truth, background, recipe)
    # The elastic step comes after the intensity steps, and pads with 0.
    image = _min_max(_degraded(stream, image))
    image[void] = 0.0
    image = _min_max(image)
    if stream.happens(0.2):
        for _ in range(round(20 * image.size / 64**3)):
            hole = tuple(slice(s, s + 12) for s in (stream.below(edge) for _ in range(3)))
            image[hole] = 0.0
            truth[hole] = 0
        truth = pieces(truth.astype(np.int64), recipe.smallest)
    if stream.happens(0.2):
        image = _final_noise(stream, image)
    return Volume(np.rint(np.clip(image, 0.0, 1.0) * GREY).astype(np.uint16), truth)


def _painted(stream: Stream, truth: NDArray[np.int32], background: str, recipe: Recipe) -> Float:
    """Intensities before any degradation."""
    shape = (truth.shape[0], truth.shape[1], truth.shape[2])
    count = int(truth.max())
    means = stream.uniforms(*recipe.mean, (count,))
    stds = stream.uniforms(*recipe.std, (count,))
    texture = np.zeros(shape)
    for scale in recipe.texture_scales:
        texture += smooth(stream, shape, scale) * stream.uniform(0.0, 5.0)
    texture = _min_max(texture)
    if background == "perlin":
        behind = _classes(stream, shape, recipe)
    else:
        lowest = float(means.min()) if count else stream.uniform(*recipe.mean)
        if background == "bright":
            mean, std = stream.uniform(0.0, 1.0) * lowest, stream.uniform(*recipe.plain_std)
        else:
            mean, std = stream.uniform(*recipe.mean), stream.uniform(*recipe.std)
        behind = mean + std * stream.normals(shape)
    outside = truth == 0
    behind = behind * (float(texture[outside].mean()) if outside.any() else 0.5)
    front = np.concatenate([[0.0], means])[truth]
    front += np.concatenate([[0.0], stds])[truth] * stream.normals(shape)
    return np.where(outside, behind, front * texture)


def _classes(stream: Stream, shape: tuple[int, int, int], recipe: Recipe) -> Float:
    """Background of warped noise classes, each a Gaussian like an object's."""
    low, high = recipe.classes
    count = low + stream.below(high - low + 1)
    means = stream.uniforms(*recipe.mean, (count,))
    stds = stream.uniforms(*recipe.std, (count,))
    warp = np.zeros((*shape, 3))
    for scale in recipe.warp_scales:
        for axis in range(3):
            # Three scales of 16 / 3 voxels at most, three standard deviations.
            warp[..., axis] += smooth(stream, shape, scale) * (16.0 / 3.0)
    best = np.full(shape, -np.inf)
    index = np.zeros(shape, np.int64)
    for channel in range(count):
        tables = [
            stream.normals((n, n, n)) for n in (int(shape[0] // s) + 4 for s in recipe.class_scales)
        ]
        # Each channel sees the one warp turned its own way: as good as its own, and cheaper.
        order = np.argsort(stream.uniforms(0.0, 1.0, (3,)), kind="stable")
        sign = np.where(stream.uniforms(0.0, 1.0, (3,)) < 0.5, -1.0, 1.0)
        turned = np.ascontiguousarray(warp[..., order]) * sign
        total = np.zeros(shape)
        for table, scale in zip(tables, recipe.class_scales, strict=True):
            total += _linear(table, turned, scale, stream.uniforms(1.0, 2.0, (3,)))
        index[total > best] = channel
        best = np.maximum(best, total)
    painted: Float = means[index] + stds[index] * stream.normals(shape)
    return painted


@njit(cache=True)
def _linear(table: Float, warp: Float, scale: float, phase: Float) -> Float:
    """Trilinear look-up of a table at warped positions, clamped to the table."""
    edge, last = warp.shape[0], table.shape[0] - 1.001
    out = np.empty((edge, edge, edge))
    p = np.empty(3)
    for z in range(edge):
        for y in range(edge):
            for x in range(edge):
                v = (z, y, x)
                for k in range(3):
                    p[k] = min(max((v[k] + warp[z, y, x, k]) / scale + phase[k], 0.0), last)
                i, j, k = int(p[0]), int(p[1]), int(p[2])
                total = 0.0
                for corner in range(8):
                    a, b, c = corner >> 2, corner >> 1 & 1, corner & 1
                    weight = p[0] - i if a else 1.0 - (p[0] - i)
                    weight *= p[1] - j if b else 1.0 - (p[1] - j)
                    weight *= p[2] - k if c else 1.0 - (p[2] - k)
                    total += weight * table[i + a, j + b, k + c]
                out[z, y, x] = total
    return out


def _degraded(stream: Stream, image: Float) -> Float:
    """The image steps of the published pipeline up to the histogram shift."""
    image = _bias(stream, _min_max(image))
    if stream.happens(0.25):
        image = image + stream.uniform(0.0, 0.1) * stream.normals(image.shape)
    if stream.happens(0.2):
        image = _spike(stream, image)
    if stream.happens(0.8):
        low, span = image.min(), max(float(np.ptp(image)), 1e-6)
        image = ((image - low) / span) ** stream.uniform(0.5, 4.5) * span + low
    if stream.happens(0.8):
        image = ndimage.gaussian_filter(image, stream.uniforms(0.0, 0.333, (3,)), truncate=3.0)
    if stream.happens(0.2):
        real, imaginary = (0.05 * stream.normals(image.shape) for _ in range(2))
        image = np.sqrt((image + real) ** 2 + imaginary**2)
    if stream.happens(0.5):
        image = _gibbs(image, stream.uniform(0.0, 0.5))
    if stream.happens(0.25):
        soft = ndimage.gaussian_filter(image, stream.uniform(0.5, 1.0), truncate=3.0)
        softer = ndimage.gaussian_filter(soft, 0.5, truncate=3.0)
        image = soft + stream.uniform(10.0, 30.0) * (soft - softer)
    if stream.happens(0.1):
        line = np.linspace(0.0, 1.0, 10)
        moved = line.copy()
        for k in range(1, 9):
            moved[k] = stream.uniform(moved[k - 1], line[k + 1])
        image = np.interp(_min_max(image), line, moved)
    return image


def _min_max(image: Float) -> Float:
    """Map the smallest value to 0 and the largest to 1."""
    low = float(image.min())
    scaled: Float = (image - low) / max(float(image.max()) - low, 1e-6)
    return scaled


def _bias(stream: Stream, image: Float) -> Float:
    """Multiply by the exponential of a cubic Legendre polynomial."""
    terms = []
    for n in image.shape:
        x = np.linspace(-1.0, 1.0, n)
        terms.append(np.stack([np.ones(n), x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2]))
    coefficients = stream.uniforms(-0.1, 0.1, (4, 4, 4))
    order = np.add.outer(np.add.outer(np.arange(4), np.arange(4)), np.arange(4))
    field = coefficients * (order <= 3)
    for term in terms:
        field = np.tensordot(field, term, axes=(0, 0))
    biased: Float = image * np.exp(field)
    return biased


def _spike(stream: Stream, image: Float) -> Float:
    """Raise one point of k-space: a wave over the whole volume."""
    spectrum = fft.fftn(image)
    at = tuple(stream.below(n) for n in image.shape)
    level = float(np.log(np.abs(spectrum) + 1e-10).mean()) * 2.5 * stream.uniform(0.95, 1.10)
    spectrum[at] = np.exp(level + 1j * np.angle(spectrum[at]))
    wave: Float = np.real(fft.ifftn(spectrum))
    return wave


def _gibbs(image: Float, alpha: float) -> Float:
    """Cut high frequencies off sharply: ringing."""
    axes = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in image.shape)]
    radius = np.sqrt(sum(a.astype(np.float64) ** 2 for a in axes))
    largest = (1.0 - alpha) * float(radius.max()) * 2.0 / np.sqrt(6.0)
    cut: Float = np.real(fft.ifftn(fft.fftn(image) * fft.ifftshift(radius <= largest)))
    return cut


def _final_noise(stream: Stream, image: Float) -> Float:
    """Gaussian, Poisson or speckle noise, only where the image is not 0."""
    kind, std = stream.below(3), stream.uniform(0.0, 0.1)
    if kind == 1:
        noisy = _poisson(stream, np.clip(image, 0.0, 1.0) * 255.0) / 255.0
    else:
        normal = std * stream.normals(image.shape)
        noisy = image + normal if kind == 0 else image * (1.0 + normal)
    return np.where(image != 0, noisy, image)


def _poisson(stream: Stream, mean: Float) -> Float:
    """Poisson numbers by inversion; means up to 255."""
    wanted = stream.uniforms(0.0, 1.0, mean.shape)
    term = np.exp(-mean)
    total, counts = term.copy(), np.zeros(mean.shape)
    for k in range(1, 400):
        below = total < wanted
        if not below.any():
            break
        counts += below
        term = term * mean / k
        total += term
    return counts
