from __future__ import annotations

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.network import window
from anystar_batch.stages.image_identity import content_digest, tile_content
from anystar_batch.stages.preprocess import tile_image, tile_source
from tests.stages.test_plan import plan_of
from tests.stages.test_tasks import MODEL, SHAPE, make_work, truth
from tests.support.fakes import write_image

__all__ = ["truth"]


def test_content_is_a_digest_or_nothing():
    assert content_digest([]) == ""
    one = content_digest([("0/c/0", 5, 7)])
    assert one != content_digest([("0/c/0", 5, 8)])
    assert one != content_digest([("0/c/1", 5, 7)])
    assert one == content_digest([("0/c/0", 5, 7)])


def test_a_tiles_content_changes_with_a_chunk_it_reads_and_no_other(tmp_path, truth):
    work = make_work(tmp_path, truth)
    reader = ImageReader(work.plan.source)
    before = {t: tile_content(work.plan, reader, 0, t) for t in iter_grid(work.plan.tiles.counts)}
    array = zarr.open_array(f"{work.plan.source.path}/0")
    array[0, 0, 74] = 4321
    touched = Box((0, 0, 64), (16, 16, 75))
    for tile, content in before.items():
        reads = tile_source(work.plan, tile).intersect(touched).size > 0
        assert (tile_content(work.plan, reader, 0, tile) != content) == reads


def test_a_tile_sees_the_volume_normalised_and_mirrored(tmp_path, truth):
    data = truth.image()
    work = make_work(tmp_path, truth, data)
    plan, reader = work.plan, ImageReader(work.plan.source)
    low, high = plan.limits_of(0)
    scaled = np.clip((data.astype(np.float64) - low) / (high - low), 0, 1)
    for tile in iter_grid(plan.tiles.counts):
        box = plan.tiles.window_box(tile)
        seen = tile_image(plan, reader, 0, tile)
        index = []
        for a, b, n in zip(box.start, box.stop, SHAPE, strict=True):
            axis = np.arange(a, b) % (2 * n)
            index.append(np.where(axis < n, axis, 2 * n - 1 - axis))
        np.testing.assert_allclose(seen, scaled[np.ix_(*index)], atol=1e-6)
        assert seen.dtype == np.float32


def test_undefined_voxels_are_dark_and_large_integers_keep_their_contrast(tmp_path, truth):
    contrast = truth.labels() > 0
    data = (2**52 + 10 * contrast).astype(np.int64)
    work = make_work(tmp_path, truth, data)
    seen = tile_image(work.plan, ImageReader(work.plan.source), 0, (0, 0, 0))
    assert set(np.unique(seen)) == {0.0, 1.0}


def test_undefined_voxels_are_dark(tmp_path, truth):
    data = truth.image().astype(np.float32)
    data[::3, ::5, ::7] = np.nan
    work = make_work(tmp_path, truth, data)
    seen = tile_image(work.plan, ImageReader(work.plan.source), 0, (0, 0, 0))
    assert np.isfinite(seen).all()
    z, y, x = (-start for start in work.plan.tiles.window_box((0, 0, 0)).start)
    assert seen[z, y, x] == 0.0
    assert seen[z + 3, y + 5, x + 7] == 0.0


@pytest.mark.parametrize("zoom", [0.6, 1.0, 2.7])
@pytest.mark.parametrize("chunk", [(4, 32, 32), (16, 75, 75), (40, 70, 75)])
def test_slabs_show_what_the_whole_tile_shows(tmp_path, truth, zoom, chunk, monkeypatch):
    data = np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.uint16)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=chunk)
    plan = plan_of(path, diameter_um=MODEL.diameter * zoom, model=MODEL)
    reader = ImageReader(plan.source)
    reads = []
    honest = ImageReader.read_box

    def counted(self, level, time, channel, box):
        reads.append((box.start[0], box.stop[0]))
        return honest(self, level, time, channel, box)

    tiles = list(iter_grid(plan.tiles.counts))[:: max(1, int(np.prod(plan.tiles.counts)) // 6)]
    for tile in tiles:
        monkeypatch.setattr(window, "SLAB_VOXELS", 10**9)
        whole = tile_image(plan, reader, 0, tile)
        reads.clear()
        monkeypatch.setattr(window, "SLAB_VOXELS", 1)
        monkeypatch.setattr(ImageReader, "read_box", counted)
        thin = tile_image(plan, reader, 0, tile)
        monkeypatch.setattr(ImageReader, "read_box", honest)
        np.testing.assert_array_equal(thin, whole)
        assert thin.shape == plan.tiles.window_box(tile).shape
        # No plane of the level twice, each read to the end of a chunk or of the tile.
        assert [a for a, _ in reads[1:]] == [b for _, b in reads[:-1]]
        assert all(b % chunk[0] == 0 for _, b in reads[:-1])


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_a_tile_of_one_value_shows_nothing(tmp_path, truth, monkeypatch, value):
    monkeypatch.setattr(window, "SLAB_VOXELS", 1)
    data = truth.image().astype(np.float32)
    data[:, :32] = value
    data[:, :30, 36:] = 8
    work = make_work(tmp_path, truth, data)
    plan, reader = work.plan, ImageReader(work.plan.source)
    alone = [t for t in iter_grid(plan.tiles.counts) if tile_image(plan, reader, 0, t) is None]
    values = {t: np.unique(data[tile_source(plan, t).slices]) for t in iter_grid(plan.tiles.counts)}
    assert alone == [t for t, v in values.items() if len(v) == 1]
    assert 0 < len(alone) < len(values)
