"""Backgrounds that a network mistakes for objects: structure of the objects' own size.

Every kind is a smooth random field of one scale, cut or bent, mixed into the background with a
contrast like the objects'.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX
from trainer.synthesis.noise import smooth

KINDS = ("lumps", "cells", "grain", "fibres", "sheets")
"""Clouds of the objects' size, patches with an edge, noise after resampling, threads, walls."""


def field(rng: np.random.Generator, shape: ZYX, kind: str, radius: float) -> NDArray[np.float32]:
    """Return a background structure.

    Parameters
    ----------
    rng : Generator
    shape : (z, y, x)
    kind : str
        One of `KINDS`.
    radius : float
        Mean radius of the objects, voxels.

    Returns
    -------
    (z, y, x)
        About -1 to 1 (`lumps`, `grain`) or 0 to 1.
    """
    # Splines with knots every s voxels show lumps of about s across.
    scale = radius * float(rng.uniform(0.8, 2.2))
    if kind == "grain":
        scale = max(1.0, radius * float(rng.uniform(0.12, 0.5)))
        return smooth(rng, shape, scale) / np.float32(0.66)
    noise = smooth(rng, shape, scale) / np.float32(0.33)
    if kind == "lumps":
        noise -= smooth(rng, shape, 2.5 * scale) / np.float32(0.33)
        return np.asarray(np.tanh(noise * np.float32(rng.uniform(0.4, 1.5))))
    if kind == "cells":
        cut = np.float32(rng.uniform(0.2, 1.0))
        return np.asarray(np.clip((noise - cut) * np.float32(rng.uniform(1.0, 8.0)), 0.0, 1.0))
    thickness = np.abs(noise)
    if kind == "fibres":
        thickness = np.maximum(thickness, np.abs(smooth(rng, shape, scale)) / np.float32(0.33))
    thin = np.float32(rng.uniform(0.15, 0.6))
    return np.asarray(np.clip((thin - thickness) / thin * np.float32(2.0), 0.0, 1.0))


def mixed(
    rng: np.random.Generator, image: NDArray[np.float32], labels: NDArray[np.int32], radius: float
) -> NDArray[np.float32]:
    """Return the image with one or two structures in its background.

    Parameters
    ----------
    rng : Generator
    image : (z, y, x)
        Before any degradation.
    labels : (z, y, x)
        0 is background, the only part that changes, but for one in five: there all of it.
    radius : float
        Voxels.

    Returns
    -------
    (z, y, x)
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    behind = labels == 0
    level = float(np.median(image[behind])) if behind.any() else float(image.mean())
    contrast = abs(float(image[~behind].mean()) - level) if not behind.all() else 60.0
    result = image
    everywhere = rng.random() < 0.2
    for kind in rng.choice(KINDS, int(rng.integers(1, 3)), replace=False):
        sign = 1.0 if rng.random() < 0.7 else -1.0
        amount = np.float32(sign * max(contrast, 20.0) * rng.uniform(0.25, 1.3))
        structure = field(rng, shape, str(kind), radius) * amount
        changed = result + structure
        result = changed if everywhere else np.where(behind, changed, result)
    return result.astype(np.float32)
