"""Intensities of a batch: `trainer.synthesis.appearance.paint` without branches.

Every variant (background model, clutter, profile) is computed for every sample and one is taken.
What differs from the workers' painting: the classes of the Perlin model share four turned copies of
their warp and are looked up at the nearest voxel (there, each class turns the warp its own way, and
its noise is interpolated), and objects beyond the `OBJECTS`-th share mean and spread with an
earlier one.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from trainer.device.draws import Draws, Tensor, largest, smallest, wide
from trainer.device.matrices import fields, smooth
from trainer.synthesis.config import BACKGROUNDS, AppearanceConfig

OBJECTS = 1023
"""Objects of a sample with a mean and a spread of their own."""

_TURNS = 4
"""Turned copies of the warp, dealt out to the classes."""

_ORDERS = np.array(
    [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)], dtype=np.int32
)


def paint(
    draws: Draws, labels: Tensor, depth: Tensor, radius: Tensor, config: AppearanceConfig
) -> Tensor:
    """Draw the intensities of a batch.

    Parameters
    ----------
    draws : Draws
    labels : int32 (b, z, y, x)
        0 is background; samples are cubes.
    depth : float32 (b, z, y, x)
        Distance from the object's centre over its radius.
    radius : float32 (b)
        Mean radius of a sample's objects, voxels.
    config : AppearanceConfig

    Returns
    -------
    (b, z, y, x)
        Arbitrary unit, about 0 to 250; the void is not cut out yet.
    """
    n = labels.shape[1]
    inside = labels > 0
    alike = draws.chance(config.alike)
    means = _means(draws, alike, config)
    stds = draws.between(config.std, (OBJECTS,))

    present = _present(labels)
    allowed = np.array([BACKGROUNDS.index(name) for name in config.backgrounds], np.int32)
    model = ops.take(allowed, draws.integer(len(allowed)))
    bright = model == BACKGROUNDS.index("bright")
    lowest = ops.min(ops.where(present > 0.0, means, 1e9), axis=1)
    lowest = ops.where(lowest < 1e9, lowest, draws.between(config.mean))
    level = ops.where(bright, draws.uniform() * lowest, draws.between(config.mean))
    std = ops.where(bright, draws.between(config.plain_std), draws.between(config.std))
    behind = wide(level) + wide(std) * draws.normal((n, n, n))
    if "perlin" in config.backgrounds:
        perlin = _classes(draws, n, config)
        is_perlin = model == BACKGROUNDS.index("perlin")
        behind = ops.where(wide(is_perlin), perlin, behind)
        level = ops.where(is_perlin, ops.mean(perlin, axis=(1, 2, 3)), level)
    brighter = ops.maximum(means, level[:, None] + config.contrast)
    apart = _apart(draws, means, level, (present, alike), config.contrast)
    means = ops.where(bright[:, None], brighter, apart)
    if config.clutter > 0.0:
        behind = _clutter(draws, behind, radius, config)

    slot = ops.where(inside, (labels - 1) % OBJECTS, 0)
    front = _by_label(means, slot)
    if config.profiled > 0.0:
        profiled = wide(draws.chance(config.profiled))
        front = ops.where(profiled, front * _profile(draws, depth), front)
    front = front + _by_label(stds, slot) * draws.normal((n, n, n))
    if config.textured > 0.0:
        deep = wide(
            draws.between(config.texture) * ops.cast(draws.chance(config.textured), "float32")
        )
        texture = _texture(draws, n) * deep + (1.0 - deep)
        outside = ops.cast(ops.logical_not(inside), "float32")
        voxels = ops.sum(outside, axis=(1, 2, 3), keepdims=True)
        dimmer = ops.sum(texture * outside, axis=(1, 2, 3), keepdims=True)
        dimmer = ops.where(voxels > 0.0, dimmer / ops.maximum(voxels, 1.0), 0.5)
        # Without texture the share is exactly 1, not almost.
        behind = ops.where(deep > 0.0, behind * dimmer, behind)
        front = front * texture
    if config.domed > 0.0:
        domed = wide(draws.chance(config.domed))
        share = 1.0 - depth ** wide(draws.between(config.dome))
        front = ops.where(domed, behind + (front - behind) * share, front)
    return ops.where(inside, front, behind)


def _present(labels: Tensor) -> Tensor:
    """Which of the means belong to an object: float32 (b, OBJECTS)."""
    count = ops.max(labels, axis=(1, 2, 3))
    return ops.cast(np.arange(OBJECTS, dtype=np.int32)[None] < count[:, None], "float32")


def _by_label(table: Tensor, slot: Tensor) -> Tensor:
    """Look a value up for every voxel: (b, OBJECTS) by int32 (b, z, y, x)."""
    flat = ops.take_along_axis(table, ops.reshape(slot, (slot.shape[0], -1)), axis=1)
    return ops.reshape(flat, slot.shape)


def _means(draws: Draws, alike: Tensor, config: AppearanceConfig) -> Tensor:
    """Mean of every object: independent, or one stain with 20 % spread."""
    own = draws.between(config.mean, (OBJECTS,))
    stain = draws.between(config.mean)[:, None] * draws.uniform(0.8, 1.2, (OBJECTS,))
    return ops.where(alike[:, None], stain, own)


def _apart(
    draws: Draws,
    means: Tensor,
    background: Tensor,
    who: tuple[Tensor, Tensor],
    contrast: float,
) -> Tensor:
    """Push means away from the background's until the contrast is reached; alike ones together.

    `who` says which means are of objects that are there, and which samples have alike ones.
    """
    present, alike = who
    count = ops.maximum(ops.sum(present, axis=1), 1.0)
    shift = ops.sum(means * present, axis=1) / count - background
    missing = ops.maximum(contrast - ops.abs(shift), 0.0)
    together = means + ops.where(shift >= 0.0, missing, -missing)[:, None]
    near = ops.abs(means - background[:, None]) < contrast
    side = ops.where(draws.uniform(shape=(OBJECTS,)) < 0.5, contrast, -contrast)
    each = ops.where(near, background[:, None] + side, means)
    return ops.where(alike[:, None], together, each)


def _texture(draws: Draws, n: int) -> Tensor:
    """Noise of five scales, each with its own weight, rescaled to [0, 1]."""
    total: Tensor = 0.0
    for scale in (2.0, 4.0, 8.0, 16.0, 32.0):
        every = ops.full((draws.count,), scale)
        total = total + smooth(draws, n, every, scale) * wide(draws.uniform(0.0, 5.0))
    low = smallest(total)
    return (total - low) / ops.maximum(largest(total) - low, 1e-6)


def _clutter(draws: Draws, behind: Tensor, radius: Tensor, config: AppearanceConfig) -> Tensor:
    """Put specks much smaller than the objects, fibres or sheets into the background."""
    n = behind.shape[1]
    kind = draws.integer(3)
    specks = ops.maximum(radius * draws.uniform(0.15, 0.35), 1.0)
    scale = ops.maximum(ops.where(kind == 0, specks, radius * draws.uniform(0.7, 2.0)), 1.0)
    one, two = ops.unstack(fields(draws, n, scale, 1.0, 2), axis=1)
    speck = (one - wide(draws.uniform(0.6, 1.0))) * 4.0
    sheet = ops.abs(one)
    sheet = ops.where(wide(kind) == 1, ops.maximum(sheet, ops.abs(two)), sheet)
    # Half the width of a sheet is `thin` over the slope of the field, about 0.33 / 0.58 scale.
    thin = wide(0.57 / scale * draws.uniform(0.5, 1.5))
    share = ops.clip(ops.where(wide(kind) == 0, speck, (thin - sheet) / thin * 2.0), 0.0, 1.0)
    uneven = ops.exp(smooth(draws, n, ops.full((draws.count,), 12.0), 12.0))
    level = wide(draws.between(config.mean)) * ops.where(wide(draws.chance(0.5)), uneven, 1.0)
    share = share * wide(ops.cast(draws.chance(config.clutter), "float32"))
    return behind + (level - behind) * share


def _profile(draws: Draws, depth: Tensor) -> Tensor:
    """Factor that depends on the depth alone: a dark or bright core, a bright rim, a soft edge."""
    kind = wide(draws.integer(4))
    level = wide(draws.uniform(0.1, 0.8))
    core = ops.clip((depth - wide(draws.uniform(0.25, 0.6))) / 0.15, 0.0, 1.0)
    core = level + (1.0 - level) * core
    level = wide(draws.uniform(0.2, 0.8))
    rim = ops.exp(-(((1.0 - depth) / wide(draws.uniform(0.1, 0.35))) ** 2))
    rim = level + (1.0 - level) * rim
    edge = 1.0 - wide(draws.uniform(0.3, 0.8)) * depth**2
    return ops.where(kind == 0, core, ops.where(kind == 1, rim, edge))


def _classes(draws: Draws, n: int, config: AppearanceConfig) -> Tensor:
    """Background of warped noise classes, each a Gaussian like an object's.

    The winner of each group of classes is found on a plain grid, which is larger than the sample by
    `pad`, and then looked up where the group's warp leads, at the nearest voxel: two look-ups a
    group, where trilinear ones of all classes would be hundreds.
    """
    fewest, most = config.classes
    count = fewest + draws.integer(most - fewest + 1)
    each = -(-most // _TURNS)
    pad = int(min(config.class_scales))
    best, which = _winners(draws, n + 2 * pad, each, count, config)

    position = _turned(draws, _displacement(draws, n))
    voxel = ops.cast(ops.clip(ops.round(position + pad), 0, n + 2 * pad - 1), "int32")
    at = (voxel[0] * (n + 2 * pad) + voxel[1]) * (n + 2 * pad) + voxel[2]
    at = ops.reshape(at, (-1, n**3))
    best, which = (
        ops.reshape(ops.take_along_axis(table, at, axis=1), (-1, _TURNS, n**3))
        for table in (best, which)
    )
    group = ops.argmax(best, axis=1)
    winner = ops.take_along_axis(which, group[:, None], axis=1)
    winner = ops.reshape(winner, (-1, n, n, n))
    means = draws.between(config.mean, (_TURNS * each,))
    stds = draws.between(config.std, (_TURNS * each,))
    return _by_label(means, winner) + _by_label(stds, winner) * draws.normal((n, n, n))


def _winners(
    draws: Draws, m: int, each: int, count: Tensor, config: AppearanceConfig
) -> tuple[Tensor, Tensor]:
    """Largest noise of every group of classes, and whose it is, unwarped: (b * turns, m^3)."""
    values: Tensor = 0.0
    for scale in config.class_scales:
        size = int(np.ceil(m / scale)) + 1
        position = np.arange(m, dtype=np.float32)[:, None] / scale
        hats = np.maximum(1.0 - np.abs(position - np.arange(size, dtype=np.float32)), 0.0)
        field = ops.reshape(draws.normal((_TURNS * each, size, size, size)), (-1, size, size, size))
        for axes in ("ij,njyx->niyx", "ij,nzjx->nzix", "ij,nzyj->nzyi"):
            field = ops.einsum(axes, hats, field)
        values = values + field
    values = ops.reshape(values, (-1, each, m**3))
    number = np.tile(
        np.arange(_TURNS * each, dtype=np.int32).reshape(_TURNS, each), (draws.count, 1)
    )
    # Classes beyond the sample's number lose everywhere.
    lost = ops.cast(number >= ops.repeat(count, _TURNS)[:, None], "float32")
    values = values - 1e9 * lost[..., None]
    first = ops.convert_to_tensor(number[:, :1])
    return ops.max(values, axis=1), ops.cast(ops.argmax(values, axis=1), "int32") + first


def _displacement(draws: Draws, n: int) -> Tensor:
    """Return a smooth warp along z, y, x, voxels: (b, 3, n, n, n)."""
    scales = (8.0, 16.0, 32.0)
    parts = [fields(draws, n, ops.full((draws.count,), s), s, 3) for s in scales]
    return (parts[0] + parts[1] + parts[2]) * (4.0 / 0.33)


def _turned(draws: Draws, warp: Tensor) -> Tensor:
    """Where each turned copy of the warp leads, voxels: (3, b * turns, n, n, n)."""
    n = warp.shape[2]
    order = ops.take(_ORDERS, draws.integer(len(_ORDERS), (_TURNS,)), axis=0)
    sign = ops.where(draws.uniform(shape=(_TURNS, 3)) < 0.5, -1.0, 1.0)
    # A turn swaps axes and flips them: the product with a signed permutation.
    matrix = ops.cast(order[..., None] == np.arange(3), "float32") * sign[..., None]
    moved = ops.einsum("btij,bjzyx->ibtzyx", matrix, warp)
    voxel = np.indices((n, n, n)).astype(np.float32)[:, None]
    return ops.reshape(moved, (3, -1, n, n, n)) + voxel
