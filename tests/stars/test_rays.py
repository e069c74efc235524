from __future__ import annotations

import numpy as np
import pytest
from stardist.geometry import polyhedron_to_label
from stardist.rays3d import Rays_GoldenSpiral, Rays_Octo

from anystar_batch.errors import RaysError
from anystar_batch.geometry import Box
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import Rays, golden_spiral, rays_from_config
from tests.support.star_scenes import SAME


def config(name, **kwargs):
    return {"name": name, "kwargs": kwargs}


@pytest.mark.parametrize(
    ("n", "anisotropy"), [(96, None), (32, None), (96, (4, 1, 1)), (64, (1, 2.5, 2.5)), (256, None)]
)
def test_golden_spiral_is_stardists(n, anisotropy):
    ours, theirs = golden_spiral(n, anisotropy), Rays_GoldenSpiral(n, anisotropy)
    assert np.abs(ours.vertices - theirs.vertices).max() < 1e-7
    assert {tuple(sorted(f)) for f in ours.faces} == {tuple(sorted(f)) for f in theirs.faces}


def test_a_models_rays_are_read_from_its_config():
    rays = rays_from_config(config("Rays_GoldenSpiral", n=32, anisotropy=[2, 1, 1]))
    assert np.array_equal(rays.vertices, golden_spiral(32, (2, 1, 1)).vertices)
    assert len(rays_from_config(config("Rays_Tetra", n_level=3))) == 34


def test_unknown_rays_are_refused():
    with pytest.raises(RaysError, match="cannot build 'Rays_Nonsense'"):
        rays_from_config(config("Rays_Nonsense"))


def test_too_few_rays_are_refused():
    with pytest.raises(RaysError, match="at least 4"):
        golden_spiral(3)


@pytest.mark.parametrize(("name", "n"), [("Rays_GoldenSpiral", 257), ("Rays_Octo", 258)])
def test_more_rays_than_a_byte_can_name_are_refused(name, n):
    kwargs = {"n": n} if name == "Rays_GoldenSpiral" else {"n_level": 4}
    with pytest.raises(RaysError, match=f"got {n}, expected at most 256"):
        rays_from_config(config(name, **kwargs))


def test_rays_that_coincide_at_the_poles_are_refused():
    with pytest.raises(RaysError, match="do not close up"):
        rays_from_config(config("Rays_Cartesian", n_rays_x=11, n_rays_z=5))


def test_faces_that_leave_a_hole_are_refused():
    whole = golden_spiral(32)
    with pytest.raises(RaysError, match="do not close up"):
        Rays(whole.vertices, whole.faces[1:])


def test_a_face_turned_over_is_refused():
    whole = golden_spiral(32)
    vertices = whole.vertices.copy()
    vertices[5] = -vertices[5]
    with pytest.raises(RaysError, match="flat or turned over"):
        Rays(vertices, whole.faces)


def test_faces_that_cover_the_sphere_twice_are_refused():
    # Two spheres in one: every edge has its neighbour, every face looks outwards.
    one = golden_spiral(32)
    vertices = np.concatenate([one.vertices, one.vertices])
    faces = np.concatenate([one.faces, one.faces + len(one)])
    with pytest.raises(RaysError, match=r"cover 2\.0000 of the sphere"):
        Rays(vertices, faces)


def test_octo_partitions_cleanly_and_stardist_misses_voxels_on_its_face_borders():
    # Octo's faces meet in the planes z = 0, y = 0, x = 0 and z = y, ...: full of voxel centres.
    # There StarDist's float32 test of one tetrahedron after the other can miss them all. Traced
    # here: every differing voxel has an exact gauge below 1 and lies on a border of two faces.
    theirs = Rays_Octo(3)
    rays = rays_from_config(config("Rays_Octo", n_level=3))
    rng = np.random.default_rng(0)
    different = 0
    inverse = np.linalg.inv(np.swapaxes(rays.vertices[rays.faces], 1, 2))
    for _ in range(8):
        dist = quantise(np.maximum(rng.normal(8, 1, (1, len(rays))), 2), 30)
        star = Candidates(np.full((1, 3), 16, np.int32), np.ones(1, np.float32), dist)
        out = np.zeros((33, 33, 33), np.uint32)
        paint(out, Box.of_shape(out.shape), star, np.ones(1, np.uint32), rays, SAME)
        oracle = polyhedron_to_label(dist, star.points, theirs, out.shape, verbose=False)
        for voxel in np.argwhere(out != oracle):
            weights = inverse @ (voxel - 16)
            face = weights.min(1).argmax()
            assert out[tuple(voxel)] == 1
            assert (weights[face] / dist[0, rays.faces[face]]).sum() < 1
            assert abs(weights[face].min()) < 1e-6
            different += 1
    assert different > 0
