"""Rows of stars: stored in the same bytes however they come, and read back as they were."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive import star_group
from anystar_batch.archive.star_group import StarFrame, StarReader, StarWriter, has_stars
from tests.support.starred_label import RAYS, columns, frame, write_starred_label


def files_below(path):
    return {p.relative_to(path): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("cuts", [[1, 4], [2], [1, 2, 3, 4]])
def test_rows_that_come_in_pieces_are_the_rows_at_once(tmp_path, monkeypatch, version, cuts):
    monkeypatch.setattr(star_group, "CHUNK", 2)
    whole = write_starred_label(tmp_path / "a.zarr", version, num_times=2, expand_um=1.0)
    other = write_starred_label(tmp_path / "b.zarr", version, num_times=2, expand_um=1.0)
    rows = columns(2, 1.0)
    writer = StarWriter(other, 2 if version == "0.4" else 3, frame(2, 1.0), RAYS)
    for start, stop in zip([0, *cuts], [*cuts, 5], strict=True):
        writer.append({name: values[start:stop] for name, values in rows.items()})
    writer.close()
    assert files_below(other) == files_below(whole)
    reader = StarReader(other)
    assert reader.frame == frame(2, 1.0)
    for name, values in rows.items():
        np.testing.assert_array_equal(reader.rows(name, 0, None), values)
    np.testing.assert_array_equal(reader.rays.vertices, RAYS.vertices)
    np.testing.assert_array_equal(reader.rays.faces, RAYS.faces)


def test_zarr_alone_is_enough_to_place_the_corners(tmp_path):
    path = write_starred_label(tmp_path / "a.zarr")
    assert has_stars(path)
    stars = zarr.open_group(f"{path}/stars", mode="r")
    meta = stars.attrs["anystar-batch-stars"]
    corners = (
        stars["points"][1] + stars["distances"][1][:, None] * stars["rays"][...] * meta["scale"]
    )
    um = corners * meta["voxel_size_um"] + meta["translation_um"]
    assert np.linalg.norm(um - um.mean(axis=0), axis=1) == pytest.approx(0.8 * 12, rel=0.02)


def test_a_label_without_objects_has_no_rows(tmp_path):
    none = StarFrame.from_json(frame().to_json() | {"count": 0})
    (tmp_path / "a.zarr").mkdir()
    StarWriter(str(tmp_path / "a.zarr"), 3, none, RAYS).close()
    assert StarReader(str(tmp_path / "a.zarr")).rows("distances", 0, None).shape == (0, 96)
