"""GeoParquet read by pyarrow and a reader of WKB that is not ours to share."""

import json
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest

from anystar_batch.archive.star_group import StarReader
from anystar_batch.export.outlines import write_outlines, write_spheres
from anystar_batch.export.selection import Selection
from anystar_batch.stars.sections import across, section
from tests.support.starred_label import INSCRIBED, RADII, RAYS, write_starred_label


def rings_of(wkb):
    """The rings of a polygon, or of all polygons."""
    kind, count = struct.unpack_from("<II", wkb, 1)
    at, rings = 9, []
    for _ in range(count if kind == 6 else 1):
        if kind == 6:
            assert struct.unpack_from("<BI", wkb, at) == (1, 3)
            count = struct.unpack_from("<I", wkb, at + 5)[0]
            at += 9
        for _ in range(count):
            (points,) = struct.unpack_from("<I", wkb, at)
            rings.append(np.frombuffer(wkb, "<f8", 2 * points, at + 4).reshape(-1, 2))
            at += 4 + 16 * points
    assert at == len(wkb)
    return rings


def area(ring):
    assert (ring[0] == ring[-1]).all()
    x, y = ring.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return StarReader(write_starred_label(tmp_path_factory.mktemp("outline") / "label.zarr"))


def test_areas_of_all_planes_add_up_to_the_volume(reader, tmp_path):
    write_outlines(Selection(reader, [(1, 3)]), tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert (geo["version"], geo["columns"]["geometry"]["encoding"]) == ("1.1.0", "WKB")
    rows = table.to_pylist()
    for label in (1, 2, 3):
        mine = [row for row in rows if row["label"] == label]
        rings = [ring for row in mine for ring in rings_of(row["geometry"])]  # 1 um apart
        volume = INSCRIBED * 4 / 3 * np.pi * RADII[label - 1].prod() * 0.8**3
        assert sum(map(area, rings)) == pytest.approx(volume, rel=0.02)
        assert [row["z_um"] for row in mine] == [row["z"] + 5.0 for row in mine]
    x, y = np.concatenate(rings_of(rows[0]["geometry"])).mean(axis=0)
    assert (x, y) == pytest.approx((18 * 0.8 + 0.0625 - 3, 18 * 0.8 - 0.25), abs=0.8)


def test_a_bowl_has_a_hole_and_a_dumbbell_two_parts():
    beyond = across(RAYS)
    up = RAYS.vertices[:, 0] > 0.8
    bowl = RAYS.vertices * np.where(up, 1.0, 10.0)[:, None]  # a dent above the centre
    loops = section(bowl, 2.0, RAYS, beyond)
    areas = sorted(area(np.concatenate([loop, loop[:1]])) for loop in loops)
    assert len(areas) == 2
    assert areas[0] < 0 < -areas[0] < areas[1]
    side = np.abs(RAYS.vertices[:, 2]) > 0.7
    bell = RAYS.vertices * np.where(side, 10.0, 1.0)[:, None]
    assert len(section(bell, 3.0, RAYS, beyond)) == 2


def test_a_plane_through_a_corner_cuts_a_closed_loop_and_one_beside_it_none():
    corners = 5 * RAYS.vertices
    beyond = across(RAYS)
    for k in (10, 48, 80):
        (loop,) = section(corners, corners[k, 0], RAYS, beyond)
        assert area(np.concatenate([loop, loop[:1]])) > 0
    assert section(corners, 6.0, RAYS, beyond) == []


def test_spheres_lie_at_the_centres_of_mass(reader, tmp_path):
    write_spheres(Selection(reader, [(2, 2)]), tmp_path / "s.parquet")
    (row,) = pq.read_table(tmp_path / "s.parquet").to_pylist()
    kind, x, y, z = struct.unpack("<I3d", row["geometry"][1:])
    assert kind == 1001
    centre = (54 * 0.8 - 2.9375, 18 * 0.8 - 0.25, 16 * 0.8 + 5.25)
    assert (x, y, z) == pytest.approx(centre, abs=0.1)
    assert row["radius"] == pytest.approx(0.8 * 12 * np.cbrt(INSCRIBED), rel=0.01)
