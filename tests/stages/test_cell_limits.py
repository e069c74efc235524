"""What is read for limits that follow the image: the right level, every cell once, in parts."""

import math
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, SegmentConfig
from anystar_batch.geometry import Box
from anystar_batch.network.limits_grid import cell_counts
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.prepare import decide, request
from anystar_batch.stages import cell_limits as cells
from anystar_batch.stages.cell_limits import cell_boxes, cell_limits, grid_level
from tests.network.test_limits_grid import balls
from tests.support.dim_phantom import Peaks
from tests.support.fakes import make_model, mean_level, write_image

UNIT = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Bright along the first half of x, dim along the second; three levels."""
    rows = [np.concatenate([balls(b, k) for k in range(2)], axis=1) for b in (900, 900, 15, 15)]
    base = np.rint(10 * np.concatenate(rows, axis=2)).astype(np.uint16)
    levels = [base]
    for _ in range(2):
        levels.append(mean_level(levels[-1], (2, 2, 2)))
    path = tmp_path_factory.mktemp("cells") / "a.ome.zarr"
    return read_image(str(write_image(path, levels, chunks=(16, 16, 16), scale=UNIT)))


def limits_of(source):
    return cell_limits(ImageReader(source), 0, 0, (100.0, 9100.0), 12.0, UNIT)


def test_the_dim_half_gets_limits_of_its_own(source):
    grid = limits_of(source)
    assert grid.cells == (1, 2, 4)
    width = np.reshape(grid.width, grid.cells)
    assert (width[..., :2] == 9000.0).all()
    assert (width[..., 2:] < 700.0).all()


def test_the_coarsest_level_that_shows_an_object_is_read(source):
    assert grid_level(source, 12.0, UNIT) == 2
    assert grid_level(source, 11.0, UNIT) == 1
    assert grid_level(source, 3.0, UNIT) == 0
    assert grid_level(source, 24.0, (2.0, 2.0, 2.0)) == 2


@pytest.mark.parametrize("together", [1, 20, 10_000])
def test_groups_and_slabs_change_nothing(source, monkeypatch, together):
    expected = limits_of(source)
    monkeypatch.setattr(cells, "TOGETHER", together)
    monkeypatch.setattr(cells, "SLAB_VOXELS", 50)
    assert limits_of(source) == expected


@pytest.mark.parametrize("most", [10**9, 5000])
def test_every_cell_is_read_once_and_a_large_level_in_part(source, monkeypatch, most):
    monkeypatch.setattr(cells, "MOST_VOXELS", most)
    shape = source.shape_zyx(0)
    counts = cell_counts(shape, UNIT, 4.0)
    seen, voxels = set(), 0
    for group, inner in cell_boxes(source, 0, counts):
        for index, box in inner:
            assert index not in seen
            seen.add(index)
            assert group.intersect(box) == box
            assert Box.of_shape(shape).intersect(box) == box
            voxels += box.size
    assert len(seen) == math.prod(counts)
    assert voxels == math.prod(shape) if most == 10**9 else voxels <= most


def test_memory_is_a_group_of_cells_however_large_the_volume(source, monkeypatch):
    monkeypatch.setattr(cells, "TOGETHER", 8)
    read = []
    plain = ImageReader.read_box

    def noted(self, level, time, channel, box):
        read.append(box.size)
        return plain(self, level, time, channel, box)

    monkeypatch.setattr(ImageReader, "read_box", noted)
    limits_of(source)
    assert max(read) <= 9 * 9 * 9
    assert len(read) == 8


def test_what_is_not_stored_is_not_read_and_tells_nothing(source, tmp_path):
    values = np.zeros((36, 36, 144), np.uint16)
    values[..., :36], values[..., 108:] = 40_000 + 10 * balls(900), 40_000 + 10 * balls(15)
    path = write_image(tmp_path / "sparse.ome.zarr", [values], chunks=(36, 36, 36), scale=UNIT)
    for stored in Path(path).glob("0/c/0/0/[12]"):
        stored.unlink()
    reader = ImageReader(read_image(str(path)))
    grid = cell_limits(reader, 0, 0, (40_100.0, 49_100.0), 12.0, UNIT)
    assert grid.cells == (1, 1, 4)
    assert grid.width[0] == 9000.0
    # Were voxels that are not stored zeros, the whole would have five times the range.
    assert grid.width[3] == pytest.approx(3 * 150, rel=0.2)
    # The middle cells hold nothing: each takes what its own neighbour has.
    assert grid.width[1] == 9000.0
    assert grid.width[2] == grid.width[3] < 700.0


def test_a_flat_volume_keeps_the_limits_of_the_whole(tmp_path):
    image = np.concatenate([10 * balls(900), 10 * balls(15)], axis=2)[:2].astype(np.uint16)
    path = write_image(tmp_path / "flat.ome.zarr", [image], chunks=(2, 36, 36), scale=UNIT)
    grid = cell_limits(ImageReader(read_image(str(path))), 0, 0, (100.0, 9100.0), 12.0, UNIT)
    assert grid is None or grid.cells == (1, 1, 2)


def test_a_time_has_the_same_limits_alone_as_with_the_others(tmp_path):
    frames = []
    for seed, brightness in enumerate((15, 40, 900)):
        halves = [balls(900, seed), balls(900, seed + 3), balls(brightness, seed + 6)]
        frames.append(np.rint(10 * np.concatenate(halves, axis=2)).astype(np.uint16))
    data = np.stack(frames)
    path = write_image(tmp_path / "t.zarr", [data], axes="tzyx", chunks=(1, 18, 18, 18), scale=UNIT)
    grids = []
    for times in ("all", "1"):
        result = ResultConfig(time=times, limits="local", diameter=Quantity(12.0, "um"))
        config = SegmentConfig(image=str(path), result=result)
        notes: list[object] = []
        plan = decide(request(config, make_model(tile=32), Peaks()), None, notes.append)
        grids.append(plan.grids)
        assert plan.field_of(1).grid == plan.grids[plan.times.index(1)]
        assert any("local limits" in str(note) for note in notes)
    (first, second, third), (alone,) = grids
    assert alone == second
    assert first is not None
    assert first.width[-1] < second.width[-1]
    assert third is None
