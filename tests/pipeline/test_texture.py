"""Texture and the tiles that have most of it, in all of an image or in a region."""

from dataclasses import replace

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig
from anystar_batch.errors import ImageError
from anystar_batch.geometry import Box
from anystar_batch.pipeline import texture as texture_module
from anystar_batch.pipeline.texture import searched_voxels, texture, textured_tiles
from anystar_batch.stages.plan import make_plan
from anystar_batch.stages.region import Region, placed
from anystar_batch.stages.sampling import all_limits
from tests.support.fakes import make_model, write_image

MODEL = make_model(diameter=12.0, tile=32, context=16)


def textured_plan(path, diameter_um=12.0):
    reader = ImageReader(read_image(str(path)))
    limits = all_limits(reader, MODEL, 0, (0,))
    return make_plan(reader, MODEL, ResultConfig(), diameter_um, limits), reader


def test_texture_is_high_where_the_image_changes(tmp_path):
    data = np.full((32, 64, 64), 10, np.float32)
    data[10:20, 30:50, 8:24] += np.random.default_rng(0).normal(0, 5, (10, 20, 16))
    data[0, 0, 0] = np.nan
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(32, 32, 32))
    values, box, level = texture(ImageReader(read_image(path)), 0, 0)
    assert (box, level) == (Box.of_shape(data.shape), 0)
    assert np.isfinite(values).all()
    assert values[10:20, 30:50, 8:24].mean() > 20 * values[25:].mean()


def test_of_a_large_level_means_are_looked_at(tmp_path, monkeypatch):
    data = np.full((41, 50, 60), 10, np.uint8)
    data[20:32, 8:20, 36:48] += np.random.default_rng(0).integers(0, 99, (12, 12, 12), np.uint8)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(32, 32, 32))
    reader = ImageReader(read_image(path))
    fine, _, _ = texture(reader, 0, 0)
    monkeypatch.setattr(texture_module, "MOST_VOXELS", data.size // 8)
    values, box, _ = texture(reader, 0, 0)
    assert values.shape == box.shape == data.shape
    assert (values[20:32:2] == values[21:32:2]).all()
    assert not (fine[20:32:2] == fine[21:32:2]).all()
    assert values[20:32, 8:20, 36:48].mean() > 20 * values[:, 30:].mean()


def test_of_a_large_level_the_middle_is_looked_at(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 99, (20, 40, 80)).astype(np.uint8)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(32, 32, 32))
    monkeypatch.setattr(texture_module, "COARSE_LIMIT", data.size // 8)
    values, box, _ = texture(ImageReader(read_image(path)), 0, 0)
    assert box == Box((5, 10, 20), (15, 30, 60))
    assert values.shape == box.shape


def test_the_most_textured_tiles_are_taken(tmp_path):
    data = np.full((96, 128, 128), 10, np.uint16)
    rng = np.random.default_rng(0)
    data[40:60, 70:90, 100:120] += rng.integers(0, 90, (20, 20, 20)).astype(np.uint16)
    data[2:8, 100:106, 2:8] += rng.integers(0, 90, (6, 6, 6)).astype(np.uint16)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(32, 32, 32))
    plan, reader = textured_plan(path)
    assert plan.tiles.core == (32, 32, 32)
    assert textured_tiles(plan, reader, 0) == [(1, 2, 3), (0, 3, 0)]
    # The same tiles from a coarser working scale are other tiles, over the same voxels.
    coarse, _ = textured_plan(path, 24.0)
    assert coarse.tiles.counts == (1, 2, 2)
    assert textured_tiles(coarse, reader, 0)[0] == (0, 1, 1)


def test_equal_tiles_are_taken_by_position(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 99, (70, 100, 100)).astype(np.uint16)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(32, 32, 32))
    plan, reader = textured_plan(path)
    flat = (np.ones((64, 96, 96), np.float32), Box((0, 0, 0), (64, 96, 96)), 0)
    monkeypatch.setattr(texture_module, "texture", lambda *_: flat)
    assert textured_tiles(plan, reader, 0) == [(0, 0, 0), (0, 0, 1)]


def test_an_image_of_which_nothing_can_be_seen_is_refused(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.ome.zarr", [np.arange(64**3).reshape(64, 64, 64) % 99])
    plan, reader = textured_plan(path)
    nothing = (np.ones((0, 0, 0), np.float32), Box((0, 0, 0), (0, 0, 0)), 0)
    monkeypatch.setattr(texture_module, "texture", lambda *_: nothing)
    with pytest.raises(ImageError, match=r"the image has no voxels to probe"):
        textured_tiles(plan, reader, 0)


def with_region(plan, reader, folder, mask):
    path = write_image(folder / "mask.ome.zarr", [mask], chunks=(16, 16, 16))
    region, _ = placed(Region(read_image(path), "mask", (), str(path)), reader, 0, 0)
    return replace(plan, region=region)


def test_with_a_region_only_what_lies_inside_counts(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    data = np.full((96, 128, 128), 10, np.uint16)
    data[40:60, 70:90, 100:120] += rng.integers(0, 900, (20, 20, 20)).astype(np.uint16)  # debris
    data[5:15, 5:25, 70:90] += rng.integers(0, 900, (10, 20, 20)).astype(np.uint16)  # and near
    data[5:15, 5:25, 40:60] += rng.integers(0, 20, (10, 20, 20)).astype(np.uint16)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(32, 32, 32))
    plan, reader = textured_plan(path)
    mask = np.zeros(data.shape, np.uint8)
    mask[2:18, 2:28, 35:62] = 1
    inside = with_region(plan, reader, tmp_path, mask)
    assert textured_tiles(plan, reader, 0)[0] == (1, 2, 3)
    first, *others = textured_tiles(inside, reader, 0)
    assert first == (0, 0, 1)
    assert (1, 2, 3) not in others
    assert searched_voxels(inside, 0, (0, 0, 1)) == mask[:32, :32, 32:64].sum()
    assert searched_voxels(inside, 0, (1, 2, 3)) == 0
    assert searched_voxels(plan, 0, (1, 2, 3)) == 32**3
    # Of a level that is too large, what lies around the region.
    monkeypatch.setattr(texture_module, "COARSE_LIMIT", 40**3)
    assert textured_tiles(inside, reader, 0)[0] == (0, 0, 1)
