"""Intensities: every object and every background class a Gaussian, textures and profiles on top.

References
----------
METHOD.md section 3 (arXiv 2307.07044, section 3.2).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trainer.synthesis.config import AppearanceConfig
from trainer.synthesis.noise import displacement, smooth
from trainer.synthesis.shapes import Geometry


def paint(
    rng: np.random.Generator, geometry: Geometry, config: AppearanceConfig
) -> NDArray[np.float32]:
    """Draw the intensities of one sample.

    Parameters
    ----------
    rng : Generator
    geometry : Geometry
    config : AppearanceConfig

    Returns
    -------
    (z, y, x)
        Arbitrary unit, about 0 to 250; 0 in the void.
    """
    labels = geometry.labels
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    model = config.backgrounds[int(rng.integers(len(config.backgrounds)))]
    count = int(labels.max())
    alike = rng.random() < config.alike
    means = _means(rng, count, alike, config)
    stds = rng.uniform(*config.std, count)
    texture = None
    if rng.random() < config.textured:
        depth = np.float32(rng.uniform(*config.texture))
        texture = _texture(rng, shape) * depth + (np.float32(1.0) - depth)

    if model == "perlin":
        behind = _classes(rng, shape, config)
        means = _apart(rng, means, float(behind.mean()), config, alike)
    else:
        if model == "bright":
            lowest = float(means.min()) if count else float(rng.uniform(*config.mean))
            mean, std = float(rng.uniform(0.0, 1.0)) * lowest, float(rng.uniform(*config.plain_std))
            means = np.maximum(means, mean + config.contrast)
        else:
            mean, std = float(rng.uniform(*config.mean)), float(rng.uniform(*config.std))
            means = _apart(rng, means, mean, config, alike)
        behind = rng.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean)
    if rng.random() < config.clutter:
        behind = _clutter(rng, behind, geometry.radius, config)
    if texture is not None:
        outside = labels == 0
        level = float(texture[outside].mean()) if outside.any() else 0.5
        behind = behind * np.float32(level)

    lookup_mean = np.concatenate([[0.0], means]).astype(np.float32)
    lookup_std = np.concatenate([[0.0], stds]).astype(np.float32)
    front = lookup_mean[labels]
    if count and rng.random() < config.profiled:
        front = front * _profile(rng, geometry.depth)
    front += lookup_std[labels] * rng.standard_normal(shape, np.float32)
    if texture is not None:
        front *= texture
    if config.domed and rng.random() < config.domed:
        share = np.float32(1.0) - geometry.depth ** np.float32(rng.uniform(*config.dome))
        front = behind + (front - behind) * share
    image = np.where(labels > 0, front, behind).astype(np.float32)
    image[geometry.void] = 0.0
    return image


def _means(
    rng: np.random.Generator, count: int, alike: bool, config: AppearanceConfig
) -> NDArray[np.float64]:
    """Mean of every object: independent, or one stain with 20 % spread."""
    if not alike:
        return rng.uniform(*config.mean, count)
    return rng.uniform(*config.mean) * rng.uniform(0.8, 1.2, count)


def _apart(
    rng: np.random.Generator,
    means: NDArray[np.float64],
    background: float,
    config: AppearanceConfig,
    alike: bool,
) -> NDArray[np.float64]:
    """Push means away from the background's until the contrast is reached; alike ones together."""
    if alike and means.size:
        shift = float(means.mean()) - background
        missing = max(0.0, config.contrast - abs(shift))
        return means + (missing if shift >= 0 else -missing)
    difference = means - background
    near = np.abs(difference) < config.contrast
    side = np.where(rng.random(means.size) < 0.5, 1.0, -1.0)
    pushed: NDArray[np.float64] = np.where(near, background + side * config.contrast, means)
    return pushed


def _texture(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Noise of five scales, each with its own weight, rescaled to [0, 1]."""
    total = np.zeros(shape, np.float32)
    for scale in (2.0, 4.0, 8.0, 16.0, 32.0):
        total += smooth(rng, shape, scale) * np.float32(rng.uniform(0.0, 5.0))
    total -= total.min()
    total /= np.float32(max(float(total.max()), 1e-6))
    return total


def _clutter(
    rng: np.random.Generator, behind: NDArray[np.float32], radius: float, config: AppearanceConfig
) -> NDArray[np.float32]:
    """Put specks much smaller than the objects, fibres or sheets into the background."""
    shape = (behind.shape[0], behind.shape[1], behind.shape[2])
    kind = int(rng.integers(3))
    if kind == 0:
        field = smooth(rng, shape, max(1.0, radius * float(rng.uniform(0.15, 0.35))))
        inside = (field - rng.uniform(0.6, 1.0)) * 4.0
    else:
        scale = radius * float(rng.uniform(0.7, 2.0))
        field = np.abs(smooth(rng, shape, scale))
        if kind == 1:
            field = np.maximum(field, np.abs(smooth(rng, shape, scale)))
        # Half the width of a sheet is `thin` over the slope of the field, about 0.33 / 0.58 scale.
        thin = 0.57 / scale * float(rng.uniform(0.5, 1.5))
        inside = (thin - field) / thin * 2.0
    share = np.clip(inside, 0.0, 1.0).astype(np.float32)
    level = np.full(shape, rng.uniform(*config.mean), np.float32)
    if rng.random() < 0.5:
        level *= np.exp(smooth(rng, shape, 12.0))
    result: NDArray[np.float32] = (behind + (level - behind) * share).astype(np.float32)
    return result


def _profile(rng: np.random.Generator, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Factor that depends on the depth alone: a dark or bright core, a bright rim, a soft edge."""
    kind = int(rng.integers(4))
    if kind == 0:
        radius, level = rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.8)
        core = np.clip((depth - radius) / 0.15, 0.0, 1.0)
        return np.asarray(level + (1.0 - level) * core, np.float32)
    if kind == 1:
        width, level = rng.uniform(0.1, 0.35), rng.uniform(0.2, 0.8)
        rim = np.exp(-(((1.0 - depth) / width) ** 2))
        return np.asarray(level + (1.0 - level) * rim, np.float32)
    fall = rng.uniform(0.3, 0.8)
    return np.asarray(1.0 - fall * depth**2, np.float32)


def _classes(
    rng: np.random.Generator, shape: tuple[int, int, int], config: AppearanceConfig
) -> NDArray[np.float32]:
    """Background of warped noise classes, each a Gaussian like an object's."""
    count = int(rng.integers(config.classes[0], config.classes[1] + 1))
    means = rng.uniform(*config.mean, count).astype(np.float32)
    stds = rng.uniform(*config.std, count).astype(np.float32)
    if count == 1:
        index = np.zeros(shape, np.int64)
    else:
        tables = [
            rng.standard_normal(
                (count, *(int(np.ceil(n / scale)) + 4 for n in shape)), dtype=np.float32
            )
            for scale in config.class_scales
        ]
        warp = np.sum([displacement(rng, shape, s, 4.0) for s in (8.0, 16.0, 32.0)], axis=0)
        best = np.full(shape, -np.inf, np.float32)
        index = np.zeros(shape, np.int64)
        # Each channel sees the one warp turned its own way: as good as its own, and much cheaper.
        for channel in range(count):
            sign = np.where(rng.random(3) < 0.5, -1.0, 1.0).astype(np.float32)
            order = rng.permutation(3)
            _compete(
                best,
                index,
                channel,
                tuple(t[channel] for t in tables),
                np.array(config.class_scales),
                np.ascontiguousarray(warp[..., order]) * sign,
            )
    noise = rng.standard_normal(shape, np.float32)
    return means[index] + stds[index] * noise


@njit(cache=True)
def _compete(
    best: NDArray[np.float32],
    index: NDArray[np.int64],
    channel: int,
    tables: tuple[NDArray[np.float32], ...],
    scales: NDArray[np.float64],
    warp: NDArray[np.float32],
) -> None:
    """Where this channel's warped noise exceeds the best so far, it becomes the class."""
    nz, ny, nx = best.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                value = np.float32(0.0)
                for s in range(len(tables)):
                    table = tables[s]
                    inverse = 1.0 / scales[s]
                    value += _linear(
                        table,
                        (z + warp[z, y, x, 0]) * inverse + 1.0,
                        (y + warp[z, y, x, 1]) * inverse + 1.0,
                        (x + warp[z, y, x, 2]) * inverse + 1.0,
                    )
                if value > best[z, y, x]:
                    best[z, y, x] = value
                    index[z, y, x] = channel


@njit(cache=True, inline="always")
def _linear(table: NDArray[np.float32], z: float, y: float, x: float) -> np.float32:
    """Trilinear look-up, clamped to the table."""
    z = min(max(z, 0.0), table.shape[0] - 1.001)
    y = min(max(y, 0.0), table.shape[1] - 1.001)
    x = min(max(x, 0.0), table.shape[2] - 1.001)
    i, j, k = int(z), int(y), int(x)
    u, v, w = z - i, y - j, x - k
    a = table[i, j, k] * (1 - w) + table[i, j, k + 1] * w
    b = table[i, j + 1, k] * (1 - w) + table[i, j + 1, k + 1] * w
    c = table[i + 1, j, k] * (1 - w) + table[i + 1, j, k + 1] * w
    d = table[i + 1, j + 1, k] * (1 - w) + table[i + 1, j + 1, k + 1] * w
    e = a * (1 - v) + b * v
    f = c * (1 - v) + d * v
    return np.float32(e * (1 - u) + f * u)
