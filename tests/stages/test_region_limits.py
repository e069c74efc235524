"""White is of the region, black of the image; against percentiles of all voxels."""

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.network.scale import LevelMap
from anystar_batch.stages import region_limits as limits
from anystar_batch.stages.region import Region, placed
from tests.support.fakes import write_image

SHAPE = (16, 48, 64)
HERE = LevelMap((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), "level 0")


def opened(folder, image, mask, chunks=(16, 16, 16)):
    path = write_image(folder / "i.ome.zarr", [image], chunks=chunks)
    name = write_image(folder / "m.ome.zarr", [mask], chunks=(8, 8, 8))
    reader = ImageReader(read_image(path))
    region, _ = placed(Region(read_image(name), "mask", (), str(folder)), reader, 0, 0)
    return reader, region


def dim_organoid_beside_bright_debris():
    rng = np.random.default_rng(5)
    image = rng.integers(90, 140, SHAPE).astype(np.uint16)
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:12, 10:30, 5:25] = 1
    image[mask > 0] += rng.integers(0, 60, int(mask.sum())).astype(np.uint16)
    image[:, 35:45, 40:60] = 30_000
    return image, mask


def test_white_is_the_percentile_of_the_region_s_voxels(tmp_path):
    image, mask = dim_organoid_beside_bright_debris()
    reader, region = opened(tmp_path, image, mask)
    found = limits.region_limits(reader, region, HERE, (0, 0), (91.0, 30_000.0), 99.9)
    assert found == (91.0, pytest.approx(np.percentile(image[mask > 0], 99.9)))


def test_only_boxes_that_meet_the_region_are_read_and_few_of_many(tmp_path, monkeypatch):
    image, mask = dim_organoid_beside_bright_debris()
    reader, region = opened(tmp_path, image, mask, chunks=(8, 8, 8))
    boxes = limits.limits_boxes(reader, region, HERE, (0, 0))
    assert all(mask[max(0, b.start[0] - 1) : b.stop[0] + 1].any() for b in boxes)
    held = sum(int(mask[box.slices].sum()) for box in boxes)
    assert held == mask.sum()
    assert len(boxes) < 2 * 6 * 8
    monkeypatch.setattr(limits, "MOST_VOXELS", 4 * 512)
    few = limits.limits_boxes(reader, region, HERE, (0, 0))
    assert len(few) == 4
    assert set(few) < set(boxes)


def test_where_the_region_is_no_brighter_than_black_the_image_s_white_stays(tmp_path):
    image, mask = dim_organoid_beside_bright_debris()
    image[mask > 0] = 5
    reader, region = opened(tmp_path, image, mask)
    assert limits.region_limits(reader, region, HERE, (0, 0), (5.0, 900.0), 99.9) == (5.0, 900.0)
