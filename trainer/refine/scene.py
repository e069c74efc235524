"""A scene: an image as a microscope shows it, and the labels before it was looked at.

::

    shapes -> intensities -> structure, gains -> blur, planes left out -> degradation
       |                                                                            |
       +-> labels, fine voxels (isotropic)            image, its own voxels <-------+

The labels keep the fine voxels: an outline is where the object was, not where its planes are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anystar_batch.geometry import ZYXFloat
from anystar_batch.network.scale import elongations, squeeze
from trainer.refine.config import SceneConfig
from trainer.refine.negatives import mixed
from trainer.synthesis.appearance import paint
from trainer.synthesis.config import OUR_STEPS, AppearanceConfig, SampleConfig, ShapesConfig
from trainer.synthesis.corruption import corrupt
from trainer.synthesis.sample import turned_geometry

MOST_PER_RADIUS = 0.45
"""Most voxels from plane to plane over the radius: an object is in four planes at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image and where its objects are.

    Parameters
    ----------
    image : float32 (z, y, x)
        Any unit; as many planes as the stack has.
    labels : int32 (z, y, x)
        Fine voxels.
    step : (z, y, x)
        Fine voxels per voxel of the image.
    offset : (z, y, x)
        Fine coordinate of the image's voxel 0.
    radius : float
        Mean radius, fine voxels.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    step: ZYXFloat
    offset: ZYXFloat
    radius: float

    def diameter(self) -> float:
        """Return the diameter of the sphere with the median object's volume, fine voxels."""
        sizes = np.bincount(self.labels.ravel())[1:]
        if not (sizes > 0).any():
            return 2.0 * self.radius
        return float(np.cbrt(6.0 * np.median(sizes[sizes > 0]) / np.pi))

    def elongation(self) -> float:
        """Return by how much objects are to be squeezed along axis 0, as the probe would say it."""
        names = np.flatnonzero(np.bincount(self.labels.ravel())[1:]) + 1
        if not len(names):
            return 1.0
        spread = []
        for axis in range(3):
            line = np.arange(self.labels.shape[axis], dtype=np.float64)
            place = np.broadcast_to(
                line.reshape([-1 if k == axis else 1 for k in range(3)]), self.labels.shape
            )
            # A voxel is no point: its own volume spreads by a twelfth.
            spread.append(np.sqrt(ndimage.variance(place, self.labels, names) + 1.0 / 12.0))
        return squeeze(float(np.median(elongations(np.stack(spread, axis=1)))), len(names))


def sample_config(config: SceneConfig) -> SampleConfig:
    """Return the recipe of the shapes and intensities."""
    return SampleConfig(
        shape=(config.edge,) * 3,
        shapes=ShapesConfig(radius=config.radius, noise=config.surface, sparse=config.sparse),
        appearance=AppearanceConfig(domed=0.4, clutter=config.clutter),
        steps=tuple(step for step in OUR_STEPS if step.name != "cutout"),
        reuse=1,
    )


def make_scene(seed: int, index: int, config: SceneConfig) -> Scene:
    """Make scene `index` of a seed.

    Parameters
    ----------
    seed, index : int
        Not negative.
    config : SceneConfig

    Returns
    -------
    Scene
        The same bytes for the same arguments.
    """
    recipe = sample_config(config)
    rng, geometry = turned_geometry(seed, index, recipe)
    image = paint(rng, geometry, recipe.appearance)
    if rng.random() < config.textured:
        image = mixed(rng, image, geometry.labels, geometry.radius)
    if rng.random() < config.unequal:
        image = unequal(rng, image, geometry.labels, config.unequal_by)
    labels, step, offset = geometry.labels, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    axis = 0 if rng.random() < 0.6 else int(rng.integers(3))
    is_stack = rng.random() < config.stacked
    image, labels = spread(rng, image, labels, geometry.radius, axis if is_stack else None, config)
    if is_stack:
        image, step, offset = planes(rng, image, geometry.radius, axis, config)
    image, _ = corrupt(rng, image, np.zeros(image.shape, np.int32), recipe.steps)
    return Scene(np.ascontiguousarray(image, np.float32), labels, step, offset, geometry.radius)


def unequal(
    rng: np.random.Generator, image: NDArray[np.float32], labels: NDArray[np.int32], by: float
) -> NDArray[np.float32]:
    """Return the image with every object's contrast times a factor of its own, 1 / by to 1.

    Parameters
    ----------
    rng : Generator
    image, labels : (z, y, x)
    by : float
    """
    behind = labels == 0
    level = np.float32(np.median(image[behind]) if behind.any() else image.min())
    gains = np.exp(rng.uniform(-np.log(by), 0.0, int(labels.max()) + 1)).astype(np.float32)
    gains[0] = 1.0
    return (level + (image - level) * gains[labels]).astype(np.float32)


def spread(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    labels: NDArray[np.int32],
    radius: float,
    axis: int | None,
    config: SceneConfig,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Blur as optics do, and move the labels to where the blurred objects are seen.

    Parameters
    ----------
    rng : Generator
    image, labels : (z, y, x)
    radius : float
        Voxels.
    axis : int or None
        That of the stack, blurred more.
    config : SceneConfig
    """
    sigma = np.full(3, max(0.0, radius * float(rng.uniform(*config.blur))))
    if axis is not None:
        sigma[axis] = np.hypot(sigma[axis], radius * float(rng.uniform(*config.axial_blur)))
    blurred = ndimage.gaussian_filter(image, sigma, truncate=3.0)
    return blurred, seen(labels, sigma, config.seen)


def seen(labels: NDArray[np.int32], sigma: NDArray[np.float64], share: float) -> NDArray[np.int32]:
    """Return where objects are seen once their light is spread.

    Who draws labels draws what the image shows, not what was there before the microscope.

    Parameters
    ----------
    labels : (z, y, x)
    sigma : float64 [3]
        Spread per axis, voxels.
    share : float
        Of an object's light, from which a voxel is called the object's.
    """
    if sigma.max() < 0.3 or not labels.any():
        return labels
    light = ndimage.gaussian_filter((labels > 0).astype(np.float32), sigma, truncate=3.0)
    near = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return np.where(light >= share, labels[tuple(near)], 0).astype(np.int32)


def planes(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    radius: float,
    axis: int,
    config: SceneConfig,
) -> tuple[NDArray[np.float32], ZYXFloat, ZYXFloat]:
    """Keep a plane every few voxels.

    Parameters
    ----------
    rng : Generator
    image : (z, y, x)
    radius : float
        Voxels.
    axis : int
    config : SceneConfig

    Returns
    -------
    image : (z, y, x)
    step, offset : (z, y, x)
        Of `Scene`.
    """
    distance = min(float(rng.uniform(*config.planes)), max(1.0, MOST_PER_RADIUS * radius))
    first = float(rng.uniform(0.0, distance - 1.0)) if distance > 1.0 else 0.0
    count = int((image.shape[axis] - 1 - first) / distance) + 1
    position = first + distance * np.arange(count)
    below = np.minimum(position.astype(int), image.shape[axis] - 2)
    share = (position - below).astype(np.float32)
    share = share.reshape([-1 if k == axis else 1 for k in range(3)])
    kept = np.take(image, below, axis) * (1 - share) + np.take(image, below + 1, axis) * share
    step = [distance if k == axis else 1.0 for k in range(3)]
    offset = [first if k == axis else 0.0 for k in range(3)]
    return kept, (step[0], step[1], step[2]), (offset[0], offset[1], offset[2])
