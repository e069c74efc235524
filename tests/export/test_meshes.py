"""Meshes read back by code of their formats' descriptions: closed, outward, of the right size."""

import json

import numpy as np
import pytest

from anystar_batch.archive.star_group import StarReader
from anystar_batch.export.meshes import write_obj, write_ply
from anystar_batch.export.neuroglancer import write_precomputed
from anystar_batch.export.repaint import Painter
from anystar_batch.export.selection import Selection
from anystar_batch.geometry import Box
from anystar_batch.stars.measures import shapes
from tests.support.starred_label import (
    ALONE,
    INSCRIBED,
    RADII,
    RAYS,
    SHAPE,
    VOXEL,
    WORKING,
    distances,
    write_starred_label,
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return StarReader(write_starred_label(tmp_path_factory.mktemp("mesh") / "label.zarr"))


def read_ply(path):
    """By the header: doubles, then lists of ints with a label."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    words = header.decode().split()
    vertices, faces = (int(words[words.index(w) + 1]) for w in ("vertex", "face"))
    places = np.frombuffer(body, "<f8", vertices * 3).reshape(-1, 3)
    kind = np.dtype([("n", "u1"), ("corners", "<i4", 3), ("label", "<u4")])
    rows = np.frombuffer(body, kind, faces, vertices * 24)
    assert len(body) == vertices * 24 + faces * kind.itemsize
    return places, rows["corners"], rows["label"]


def volume_and_area(places, faces):
    a, b, c = (places[faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    return np.einsum("ij,ij->i", a, normals).sum() / 6, np.linalg.norm(normals, axis=1).sum() / 2


def is_closed(faces):
    edges = [tuple(face[[k, (k + 1) % 3]]) for face in faces for k in range(3)]
    return len(set(edges)) == len(edges) and {(b, a) for a, b in edges} == set(edges)


def test_ply_is_closed_outward_and_in_micrometres(reader, tmp_path):
    write_ply(Selection(reader), tmp_path / "a.ply")
    places, faces, labels = read_ply(tmp_path / "a.ply")
    table = shapes(distances(), RAYS, WORKING, ["surface"])["surface_area_um2"]
    for n, radii in enumerate(RADII):
        mine = faces[labels == n + 1]
        assert is_closed(mine)
        volume, area = volume_and_area(places, mine)
        assert volume == pytest.approx(INSCRIBED * 4 / 3 * np.pi * radii.prod() * 0.8**3, rel=0.02)
        assert area == pytest.approx(table[n], rel=1e-5)
    corners = places[np.unique(faces[labels == 1])]
    centre = np.array([18, 18, 15]) * [1.6, 1.6, 0.8] + [0.125, -0.5, 0.25]
    np.testing.assert_allclose(corners.mean(axis=0), centre * [0.5, 0.5, 1] + [-3, 0, 5], atol=0.3)


def test_volumes_are_those_of_the_voxels_within_3_percent(reader, tmp_path):
    write_ply(Selection(reader), tmp_path / "a.ply")
    places, faces, labels = read_ply(tmp_path / "a.ply")
    counts = np.bincount(Painter(reader).box(Box.of_shape(SHAPE)).ravel())
    for n in range(1, ALONE + 1):
        volume, _ = volume_and_area(places, faces[labels == n])
        assert volume == pytest.approx(counts[n] * np.prod(VOXEL), rel=0.03)


def test_obj_says_the_same(reader, tmp_path):
    write_ply(Selection(reader, [(2, 2), (5, 5)]), tmp_path / "a.ply")
    write_obj(Selection(reader, [(5, 5), (2, 2)]), tmp_path / "a.obj")
    lines = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    assert [line[1] for line in lines if line[0] == "o"] == ["label_2", "label_5"]
    places, faces, labels = read_ply(tmp_path / "a.ply")
    np.testing.assert_allclose(
        [[*map(float, x[1:])] for x in lines if x[0] == "v"], places, atol=1e-6
    )
    np.testing.assert_array_equal([[*map(int, x[1:])] for x in lines if x[0] == "f"], faces + 1)
    assert set(labels) == {2, 5}


def test_precomputed_meshes_are_those_of_the_ply_in_nanometres(reader, tmp_path):
    chosen = Selection(reader, [(3, 4)])
    write_ply(chosen, tmp_path / "a.ply")
    write_precomputed(chosen, tmp_path / "ng")
    places, faces, labels = read_ply(tmp_path / "a.ply")
    info = json.loads((tmp_path / "ng/info").read_text())
    assert info["scales"][0]["resolution"] == [500.0, 500.0, 1000.0]
    assert (
        json.loads((tmp_path / "ng/mesh/info").read_text())["@type"] == "neuroglancer_legacy_mesh"
    )
    for label in (3, 4):
        (name,) = json.loads((tmp_path / f"ng/mesh/{label}:0").read_text())["fragments"]
        data = (tmp_path / "ng/mesh" / name).read_bytes()
        count = int(np.frombuffer(data, "<u4", 1)[0])
        nm = np.frombuffer(data, "<f4", 3 * count, 4).reshape(-1, 3)
        triangles = np.frombuffer(data, "<u4", -1, 4 + 12 * count).reshape(-1, 3)
        mine = faces[labels == label]
        np.testing.assert_allclose(nm[triangles], 1000 * places[mine], rtol=1e-5, atol=1e-2)
