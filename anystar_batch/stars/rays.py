"""Ray directions of star-convex polyhedra, their triangulation; the one door to StarDist's rays.

Rays are unit vectors in working voxels, axes (z, y, x). Faces are triangles of ray indices that
partition the directions: the ray from the centre through any direction leaves through exactly one
face. The gauge (see `raster`) rests on that, so it is checked here, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from anystar_batch.errors import RaysError

MAX_RAYS = 256
"""Most rays a model may have: tables hold ray ids in one byte."""

MIN_DETERMINANT = 1e-6
"""Smallest determinant of a face's three unit vectors; below it weights lose half their digits."""

PARTITION_TOLERANCE = 1e-6
"""Largest accepted deviation of the faces' solid angles from the full sphere, as a share."""


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """Directions and faces shared by all polyhedra of a model.

    Parameters
    ----------
    vertices : float64 [n_rays, 3]
        Unit vectors, axes (z, y, x).
    faces : int64 [n_faces, 3]
        Ray indices of each triangle, all oriented alike.

    Raises
    ------
    RaysError
        If there are too many rays, or the faces do not partition the directions.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Check once; below, rays are trusted."""
        if len(self.vertices) > MAX_RAYS:
            message = (
                f"rays: got {len(self.vertices)}, expected at most {MAX_RAYS}; use "
                "Rays_GoldenSpiral with fewer rays"
            )
            raise RaysError(message)
        check_partition(self.vertices, self.faces)

    def __len__(self) -> int:
        """Return the number of rays."""
        return len(self.vertices)


def golden_spiral(n: int, anisotropy: tuple[float, float, float] | None = None) -> Rays:
    """Return `n` directions on a golden spiral, as StarDist's `Rays_GoldenSpiral`.

    Parameters
    ----------
    n : int
        Number of rays, at least 4.
    anisotropy : (z, y, x), optional
        Voxel size ratio the spiral is stretched by; None is (1, 1, 1).

    Returns
    -------
    Rays

    Raises
    ------
    RaysError
        If `n` is too small to enclose the centre.

    References
    ----------
    Weigert et al., Star-convex Polyhedra for 3D Object Detection and Segmentation in Microscopy,
    WACV 2020, doi:10.1109/WACV45572.2020.9093435, arXiv:1908.03636, section 3.1.
    """
    if n < 4:
        message = f"rays: got n={n}, a closed polyhedron needs at least 4"
        raise RaysError(message)
    golden_angle = (3.0 - np.sqrt(5.0)) * np.pi
    phi = golden_angle * np.arange(n)
    z = np.linspace(-1.0, 1.0, n)
    rho = np.sqrt(1.0 - z**2)
    vertices = np.stack([z, rho * np.sin(phi), rho * np.cos(phi)], axis=1)
    vertices = vertices / np.asarray(anisotropy if anisotropy is not None else (1.0, 1.0, 1.0))
    faces = _outward(vertices, ConvexHull(vertices).simplices)
    return Rays(vertices / np.linalg.norm(vertices, axis=1, keepdims=True), faces)


def rays_from_config(document: Mapping[str, object]) -> Rays:
    """Return the rays that a StarDist model's `rays_json` describes.

    Parameters
    ----------
    document : mapping
        `{"name": "Rays_GoldenSpiral", "kwargs": {"n": 96, "anisotropy": [z, y, x]}}`.

    Returns
    -------
    Rays

    Raises
    ------
    RaysError
        If the rays are unknown, more than 256, or their faces do not partition the directions
        (StarDist's `Rays_Cartesian`: rays that coincide at the poles).
    """
    name, kwargs = document.get("name"), document.get("kwargs")
    if name == "Rays_GoldenSpiral" and isinstance(kwargs, Mapping):
        anisotropy = kwargs.get("anisotropy")
        return golden_spiral(
            int(kwargs.get("n", 70)), None if anisotropy is None else tuple(anisotropy)
        )
    from stardist.rays3d import rays_from_json  # noqa: PLC0415  (1 s; only for foreign models)

    try:
        foreign = rays_from_json(dict(document))
    except Exception as error:
        message = f"rays: cannot build {name!r}: {error}; expected a name from stardist.rays3d"
        raise RaysError(message) from error
    return Rays(np.asarray(foreign.vertices, np.float64), np.asarray(foreign.faces, np.int64))


def check_partition(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> None:
    """Raise unless the faces cover every direction exactly once.

    Every edge must be shared by exactly two faces, in opposite senses; every face must be seen
    from the centre from the same side; the solid angles must add up to the full sphere.

    Raises
    ------
    RaysError
        With what was found.
    """
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    reverse = {(int(b), int(a)) for a, b in directed}
    edges = [(int(a), int(b)) for a, b in directed]
    if len(set(edges)) != len(edges) or set(edges) != reverse:
        message = (
            "rays: the faces do not close up (an edge without its one neighbour); expected a "
            "triangulation of the sphere; use Rays_GoldenSpiral"
        )
        raise RaysError(message)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    determinant = np.einsum("ij,ij->i", a, np.cross(b, c))
    turned = determinant * np.sign(np.median(determinant))
    if not (turned > MIN_DETERMINANT).all():
        flat = int(np.sum(turned <= MIN_DETERMINANT))
        message = (
            f"rays: {flat} of {len(faces)} faces are flat or turned over as seen from the "
            "centre; expected none; use Rays_GoldenSpiral"
        )
        raise RaysError(message)
    covered = float(np.sum(_solid_angles(a, b, c)) / (4.0 * np.pi))
    if abs(covered - 1.0) > PARTITION_TOLERANCE:
        message = (
            f"rays: the faces cover {covered:.4f} of the sphere; expected exactly 1; "
            "use Rays_GoldenSpiral"
        )
        raise RaysError(message)


def _solid_angles(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solid angle of each triangle of unit vectors (Van Oosterom and Strackee, 1983)."""
    numerator = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    dots = [np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a))]
    result: NDArray[np.float64] = 2.0 * np.arctan2(numerator, 1.0 + sum(dots))
    return result


def _outward(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """Orient faces so that det[a, b, c] > 0, and sort them so that builds of qhull agree."""
    ordered = faces.astype(np.int64)
    a, b, c = (vertices[ordered[:, k]] for k in range(3))
    wrong = np.einsum("ij,ij->i", a, np.cross(b, c)) < 0
    ordered[wrong] = ordered[wrong][:, [0, 2, 1]]
    # Start each triangle at its smallest ray, then sort: the order has no meaning.
    first = np.argmin(ordered, axis=1)
    rolled = np.stack([np.roll(row, -k) for row, k in zip(ordered, first, strict=True)])
    return rolled[np.lexsort(rolled.T[::-1])]
