"""A label with stars, written by hand: ellipsoids on a working lattice that fits no voxel."""

import numpy as np
import zarr

from anystar_batch.archive.star_group import StarFrame, StarWriter
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.rays import golden_spiral
from tests.support.fakes import write_image

SHAPE, VOXEL, SHIFT = (50, 110, 120), (1.0, 0.5, 0.5), (5.0, 0.0, -3.0)
LATTICE, WORKING = LatticeMap((0.8, 1.6, 1.6), (0.25, -0.5, 0.125)), (0.8, 0.8, 0.8)
RAYS = golden_spiral(96)

POINTS = np.array([(15, 18, 18), (16, 18, 54), (46, 52, 18), (46, 50, 52), (46, 50, 66)], np.int32)
"""Working voxels; the last two overlap, the others touch nobody."""

RADII = np.array([(11, 13, 15), (12, 12, 12), (9, 14, 12), (10, 11, 12), (11, 9, 12)], float)
"""Working voxels."""

PROB = np.array([0.9, 0.8, 0.7, 0.6, 0.95], np.float32)
ALONE = 3
"""How many touch nobody."""

INSCRIBED = 0.939
"""Volume of the polyhedron of 96 rays in that of its ball: corners lie on the surface."""


def distances(radii=RADII):
    """From the centre of an ellipsoid to its surface, along every ray."""
    scaled = RAYS.vertices[None] / radii[:, None, :]
    return (1.0 / np.linalg.norm(scaled, axis=2)).astype(np.float32)


def frame(num_times=None, expand_um=0.0):
    return StarFrame(
        "f" * 64,
        len(POINTS),
        SHAPE,
        VOXEL,
        SHIFT,
        LATTICE,
        WORKING,
        num_times,
        expand_um,
        has_quality=True,
    )


def columns(num_times=None, expand_um=0.0):
    count = len(POINTS)
    dist = distances()
    found = {
        "label": np.arange(1, count + 1, dtype=np.uint32),
        "time": np.array([0, 0, 1, 1, 1] if num_times else [0] * count, np.int32),
        "points": POINTS * np.asarray(LATTICE.scale) + np.asarray(LATTICE.offset),
        "distances": dist + np.float32(expand_um / 0.8),
        "prob": PROB,
        "quality": np.full(count, 0.75, np.float32),
    }
    return found | ({"inner_distances": dist} if expand_um else {})


def write_starred_label(path, version="0.5", num_times=None, expand_um=0.0):
    """Write an empty label image, and its stars beside level 0."""
    axes, shape = ("tzyx", (num_times, *SHAPE)) if num_times else ("zyx", SHAPE)
    chunks = (1, 32, 64, 64) if num_times else (32, 64, 64)
    image = np.zeros(shape, np.uint32)
    write_image(path, [image], version=version, scale=VOXEL, axes=axes, chunks=chunks)
    root = zarr.open_group(str(path), mode="r+")
    if version == "0.4":
        root.attrs["image-label"] = {"version": "0.4"}
    else:
        root.attrs["ome"] = root.attrs["ome"] | {"image-label": {}}
    zarr_format = 2 if version == "0.4" else 3
    writer = StarWriter(str(path), zarr_format, frame(num_times, expand_um), RAYS)
    writer.append(columns(num_times, expand_um))
    writer.close()
    return str(path)


def holds(places, star):
    """Which places (voxels of level 0, [m, 3]) a star's tetrahedra hold, by solving for each.

    Shares nothing with the gauge: a place is inside if one tetrahedron of centre and face has it.
    """
    centre = POINTS[star] * np.asarray(LATTICE.scale) + np.asarray(LATTICE.offset)
    offsets = (places - centre) / np.asarray(LATTICE.scale)
    corners = RAYS.vertices * distances()[star].astype(float)[:, None]
    inside = np.zeros(len(places), bool)
    for face in RAYS.faces:
        weights = np.linalg.solve(corners[face].T, offsets.T)
        inside |= (weights >= 0).all(axis=0) & (weights.sum(axis=0) <= 1)
    return inside
