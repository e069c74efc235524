"""The frozen texture test: backgrounds that look like objects, and few objects; it never changes.

Twelve volumes of 96^3 voxels, two of each background. The generator is this file alone (NumPy and
SciPy, nothing of the trainer), and `texture.json` names what it made: the SHA-256 of every array,
and the means of the octants for machines on which the last grey level differs::

    python -m trainer.refine.texture OUT.json      how the manifest was written; never needed again

No weight, threshold or cut may be chosen on these volumes: they are for scores alone.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anystar_batch.errors import AnyStarBatchError, ConfigError

MANIFEST = Path(__file__).with_name("texture.json")
"""What is frozen."""

BACKGROUNDS = ("tissue", "grain", "fibres", "sheets", "haze", "stripes")
"""Structure of many scales, enlarged noise, threads, walls, light out of focus, shadows of it."""

SEED = 20_261_129
COUNT = 12
EDGE = 96
GREY = 4095.0


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """A volume of the test.

    Parameters
    ----------
    index : int
    background : str
    radius : float
        Mean radius of the objects, voxels.
    image : uint16 (z, y, x)
    labels : int32 (z, y, x)
        0 is background; at most six objects.
    """

    index: int
    background: str
    radius: float
    image: NDArray[np.uint16]
    labels: NDArray[np.int32]


def volume(index: int) -> Texture:
    """Make a volume.

    Parameters
    ----------
    index : int
        0 to 11.
    """
    rng = np.random.default_rng([SEED, index])
    background = BACKGROUNDS[index % len(BACKGROUNDS)]
    radius = round(float(rng.uniform(5.0, 11.0)), 3)
    labels = _objects(rng, radius, int(rng.integers(2, 7)))
    behind = _BEHIND[background](rng, radius)
    contrast = float(rng.uniform(0.7, 1.2))
    inside = (labels > 0) * (1.0 + 0.25 * _noise(rng, 0.3 * radius))
    image = ndimage.gaussian_filter(behind + contrast * inside, 0.8, truncate=3.0)
    image = image + rng.uniform(0.02, 0.08) * rng.standard_normal(image.shape)
    low, high = float(image.min()), float(image.max())
    grey = np.rint((image - low) / (high - low) * GREY).astype(np.uint16)
    return Texture(index, background, radius, grey, labels)


def _noise(rng: np.random.Generator, sigma: float) -> NDArray[np.float64]:
    """Gaussian noise of one scale, mean 0, spread 1."""
    field = ndimage.gaussian_filter(rng.standard_normal((EDGE,) * 3), sigma, truncate=3.0)
    spread: NDArray[np.float64] = (field - field.mean()) / field.std()
    return spread


def _objects(rng: np.random.Generator, radius: float, count: int) -> NDArray[np.int32]:
    """Ellipsoids apart from each other, their surfaces uneven."""
    labels = np.zeros((EDGE,) * 3, np.int32)
    grid = np.stack(np.meshgrid(*[np.arange(EDGE)] * 3, indexing="ij"), axis=-1)
    bumps = 0.12 * _noise(rng, 0.5 * radius)
    centres: list[NDArray[np.float64]] = []
    for _ in range(200):
        centre = rng.uniform(radius, EDGE - radius, 3)
        if all(np.linalg.norm(centre - c) > 2.6 * radius for c in centres):
            centres.append(centre)
        if len(centres) == count:
            break
    for number, centre in enumerate(centres, 1):
        axes = radius * np.exp(rng.uniform(-0.2, 0.2, 3))
        away = np.sqrt((((grid - centre) / axes) ** 2).sum(axis=-1))
        labels[away + bumps < 1.0] = number
    return labels


def _tissue(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Structure of many scales, as soft tissue in micro-CT."""
    weights = rng.uniform(0.3, 1.0, 4)
    fields = [
        w * _noise(rng, s * radius) for w, s in zip(weights, (0.2, 0.4, 0.7, 1.4), strict=True)
    ]
    summed: NDArray[np.float64] = 0.35 * np.sum(fields, axis=0)
    return summed


def _grain(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Noise of a coarser microscope, enlarged."""
    coarse = int(np.ceil(EDGE / max(2.0, 0.35 * radius))) + 1
    small = rng.standard_normal((coarse,) * 3)
    large: NDArray[np.float64] = ndimage.zoom(
        small, EDGE / coarse, order=1, grid_mode=True, mode="nearest"
    )
    scaled: NDArray[np.float64] = 0.3 * large
    return scaled


def _fibres(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Threads: where two smooth fields are both near 0."""
    a, b = _noise(rng, 0.7 * radius), _noise(rng, 0.7 * radius)
    thread = np.exp(-((np.maximum(abs(a), abs(b)) / 0.35) ** 2))
    return 0.8 * thread + 0.15 * _noise(rng, 0.4 * radius)


def _sheets(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Walls: where a smooth field is near 0."""
    wall = np.exp(-((_noise(rng, 0.8 * radius) / 0.3) ** 2))
    return 0.7 * wall + 0.1 * _noise(rng, 0.3 * radius)


def _haze(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Objects out of focus: soft clouds of the objects' size, unevenly bright."""
    cloud = np.exp(0.9 * _noise(rng, 0.6 * radius))
    return 0.25 * cloud * np.exp(0.5 * _noise(rng, 2.5 * radius))


def _stripes(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Shadows along one axis over lumpy light, as behind opaque pigment in a light sheet."""
    flat = ndimage.gaussian_filter(rng.standard_normal((EDGE, EDGE)), 0.3 * radius)
    shade = np.exp(0.5 * flat / flat.std())[:, :, None]
    result: NDArray[np.float64] = 0.5 * shade * (1.0 + 0.4 * _noise(rng, 0.6 * radius))
    return result


_BEHIND = {
    "tissue": _tissue,
    "grain": _grain,
    "fibres": _fibres,
    "sheets": _sheets,
    "haze": _haze,
    "stripes": _stripes,
}


def entry(made: Texture) -> dict[str, Any]:
    """Describe a volume, as the manifest does."""
    half = EDGE // 2
    parts = made.image.reshape(2, half, 2, half, 2, half).mean(axis=(1, 3, 5))
    return {
        "index": made.index,
        "background": made.background,
        "radius": made.radius,
        "objects": int(made.labels.max()),
        "octants": [round(float(m), 3) for m in parts.ravel()],
        "image_sha256": _digest(made.image.astype("<u2")),
        "labels_sha256": _digest(made.labels.astype("<i4")),
    }


def volumes(path: Path = MANIFEST) -> Iterator[tuple[Texture, bool]]:
    """Make every frozen volume; yield it, and whether it is frozen to the bit.

    Raises
    ------
    ConfigError
        If a volume is not what was frozen: other labels, or octants off by more than a grey level.
    """
    for wanted in json.loads(path.read_text())["volumes"]:
        made = volume(int(wanted["index"]))
        found = entry(made)
        shift = np.abs(np.subtract(found["octants"], wanted["octants"])).max()
        if found["labels_sha256"] != wanted["labels_sha256"] or shift > 1.0:
            message = (
                f"texture test: volume {made.index} is not the frozen one (octants differ by "
                f"{shift:.3g} grey levels); expected the generator of {path.name}: undo the change"
            )
            raise ConfigError(message)
        yield made, found["image_sha256"] == wanted["image_sha256"]


def freeze(path: Path) -> None:
    """Write the manifest of the generator as it is.

    Raises
    ------
    ConfigError
        If the file exists: what is frozen stays.
    """
    if path.exists():
        message = f"texture test: {path} exists; expected a new file: what is frozen stays"
        raise ConfigError(message)
    listed = [entry(volume(index)) for index in range(COUNT)]
    document = {"version": 1, "seed": SEED, "edge": EDGE, "volumes": listed}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


if __name__ == "__main__":
    try:
        freeze(Path(sys.argv[1]))
    except AnyStarBatchError as error:
        sys.exit(f"error: {error}")
