"""What the first look finds on a scene, and how far the surface really is along each ray.

The truth starts at the find's own point: along each ray to where the label that the point lies in
ends, exactly. A ray that leaves the scene says nothing; a find whose point lies in no label is a
false one, and has no distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from anystar_batch.errors import ImageError
from anystar_batch.geometry import ZYXFloat, as_triple
from anystar_batch.network.intensity import limits, normalise
from anystar_batch.network.scale import long_voxel
from anystar_batch.stars.rays import Rays, golden_spiral
from trainer.refine.config import RefineConfig
from trainer.refine.scene import Scene
from trainer.score import Scorer, predict, rescale, survivors

UNKNOWN = -1.0
"""Distance of a ray that leaves the scene."""

GAIN = (0.98, 1.06)
"""Bounds of the stretch after which a polyhedron has its object's volume: corners that lie on a
surface miss what bulges between the rays, and what a ray cannot see (`targets`)."""

USUAL_GAIN = 1.03
"""Of an object that the border cuts, whose volume is not known."""

MOST_FALSE = 60
"""False finds kept of a scene, drawn at random."""

LEAST_KNOWN = 24
"""Rays that must end inside the scene."""


@dataclass(frozen=True, slots=True, eq=False)
class Finds:
    """Survivors of the first look on one image, and the truth.

    Parameters
    ----------
    image : float32 (z, y, x)
    step : (z, y, x)
        Voxels of the image per working voxel.
    points : float64 [n, 3]
        Centres, axes (z, y, x), voxels of the image.
    prob : float32 [n]
    dist : float32 [n, n_rays]
        Of the first look, working voxels.
    truth : float32 [n, n_rays]
        Working voxels; `UNKNOWN` where the ray leaves the scene; all 0 of a false find.
    """

    image: NDArray[np.float32]
    step: ZYXFloat
    points: NDArray[np.float64]
    prob: NDArray[np.float32]
    dist: NDArray[np.float32]
    truth: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of finds."""
        return len(self.points)

    def take(self, index: NDArray[np.generic]) -> Finds:
        """Return those at `index`, or where a mask is."""
        return Finds(
            self.image,
            self.step,
            self.points[index],
            self.prob[index],
            self.dist[index],
            self.truth[index],
        )


def finds(
    scene: Scene, scorer: Scorer, config: RefineConfig, rng: np.random.Generator
) -> Finds | None:
    """Run the first look on a scene.

    Parameters
    ----------
    scene : Scene
    scorer : Scorer
        The first look.
    config : RefineConfig
    rng : Generator
        Of the working diameter, and of which false finds are kept.

    Returns
    -------
    Finds or None
        None for an image without contrast.
    """
    fine_step = working_voxel(scene, config, rng)
    step = as_triple(w / s for w, s in zip(fine_step, scene.step, strict=True))
    working, lattice = rescale(scene.image, step)
    try:
        low, high = limits(scene.image)
    except ImageError:
        return None
    prob, dist = predict(scorer.model, scorer.network, normalise(working, low, high))
    thresholds = (config.prob_thresh, config.nms_thresh)
    found = survivors(prob, dist, scorer.network.grid, thresholds)
    points = found.points * np.asarray(lattice.scale) + np.asarray(lattice.offset)
    fine = points * np.asarray(scene.step) + np.asarray(scene.offset)
    rays = golden_spiral(dist.shape[-1])
    truth = distances(scene.labels, fine, rays.vertices * fine_step)
    stretch = gains(truth, scene.labels, fine, rays, float(np.prod(fine_step)))[:, None]
    truth = np.where(truth > 0, truth * stretch, truth).astype(np.float32)
    made = Finds(scene.image, step, points, found.prob, found.dist, truth)
    false = np.flatnonzero((truth == 0).all(axis=1))
    kept = (truth > 0).sum(axis=1) >= LEAST_KNOWN
    kept[rng.permutation(false)[:MOST_FALSE]] = True
    return made.take(kept)


def working_voxel(scene: Scene, config: RefineConfig, rng: np.random.Generator) -> ZYXFloat:
    """Return the working voxel of a scene, (z, y, x), fine voxels: as `network.scale` has it."""
    size = scene.diameter() / float(rng.uniform(*config.working))
    is_squeezed = config.squeezed > 0 and rng.random() < config.squeezed
    return long_voxel(size, scene.elongation() if is_squeezed else 1.0)


def gains(
    truth: NDArray[np.float32],
    labels: NDArray[np.int32],
    points: NDArray[np.float64],
    rays: Rays,
    voxel: float = 1.0,
) -> NDArray[np.float64]:
    """Return by how much each star is to be stretched to have its object's volume.

    Parameters
    ----------
    truth : float32 [n, n_rays]
        From `distances`.
    labels : (z, y, x)
    points : float64 [n, 3]
        Voxels of the labels.
    rays : Rays
    voxel : float
        Voxels of the labels that a unit cube of the distances holds.

    Returns
    -------
    float64 [n]
        Within `GAIN`; `USUAL_GAIN` where a ray leaves the scene; 1 of a false find.
    """
    at = np.clip(np.rint(points).astype(int), 0, np.array(labels.shape) - 1)
    voxels = np.bincount(labels.ravel())[labels[tuple(at.T)]] / voxel
    a, b, c = (rays.vertices[rays.faces[:, k]] for k in range(3))
    sixth = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c))) / 6.0
    corners = truth.astype(np.float64)[:, rays.faces].prod(axis=2)
    volume = np.maximum((corners * sixth).sum(axis=1), 1e-6)
    stretch = np.clip(np.cbrt(voxels / volume), *GAIN)
    stretch[(truth < 0).any(axis=1)] = USUAL_GAIN
    stretch[(truth == 0).all(axis=1)] = 1.0
    return np.asarray(stretch)


def distances(
    labels: NDArray[np.int32], points: NDArray[np.float64], directions: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the way from points to where their label ends, along each ray.

    Parameters
    ----------
    labels : (z, y, x)
        Voxels are unit cubes around integer coordinates; 0 is background.
    points : float64 [n, 3]
        Voxels; anywhere.
    directions : float64 [n_rays, 3]
        Not zero.

    Returns
    -------
    float32 [n, n_rays]
        Multiples of the direction (voxels, of a unit vector); `UNKNOWN` where the ray leaves the
        array; all 0 of a point in no label.
    """
    found: NDArray[np.float32] = _march(np.ascontiguousarray(labels), points, directions)
    return found


@njit(cache=True)
def _march(  # noqa: C901  (one kernel)
    labels: NDArray[np.int32], points: NDArray[np.float64], directions: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Walk from voxel face to voxel face.

    References
    ----------
    Amanatides and Woo, A Fast Voxel Traversal Algorithm for Ray Tracing, Eurographics 1987.
    """
    out = np.zeros((len(points), len(directions)), np.float32)
    at, step = np.empty(3, np.int64), np.empty(3, np.int64)
    start, face, width = np.empty(3, np.int64), np.empty(3), np.empty(3)
    for i in range(len(points)):
        inside = True
        for a in range(3):
            start[a] = math.floor(points[i, a] + 0.5)
            inside = inside and 0 <= start[a] < labels.shape[a]
        label = labels[start[0], start[1], start[2]] if inside else 0
        if label == 0:
            continue
        for ray in range(len(directions)):
            for a in range(3):
                d = directions[ray, a]
                at[a], step[a] = start[a], 1 if d > 0 else -1
                width[a] = 1.0 / abs(d) if abs(d) > 1e-9 else np.inf
                to_face = 0.5 + (start[a] - points[i, a]) * step[a]
                face[a] = to_face * width[a] if width[a] < np.inf else np.inf
            while True:
                a = 0
                if face[1] < face[a]:
                    a = 1
                if face[2] < face[a]:
                    a = 2
                t = face[a]
                face[a] += width[a]
                at[a] += step[a]
                if at[a] < 0 or at[a] >= labels.shape[a]:
                    out[i, ray] = UNKNOWN
                    break
                if labels[at[0], at[1], at[2]] != label:
                    out[i, ray] = max(t, 1e-3)
                    break
    return out
