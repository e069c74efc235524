"""Painting at another voxel size, against solving for every tetrahedron."""

import numpy as np
import pytest

from anystar_batch.archive.star_group import StarReader
from anystar_batch.export.repaint import Painter
from anystar_batch.geometry import Box
from tests.support.starred_label import PROB, SHAPE, VOXEL, holds, write_starred_label


@pytest.mark.parametrize("voxel_um", [(0.7, 0.9, 1.1), (2.0, 2.0, 2.0), VOXEL])
def test_a_voxel_has_the_first_star_that_holds_its_centre(tmp_path, voxel_um):
    reader = StarReader(write_starred_label(tmp_path / "label.zarr"))
    painter = Painter(reader, voxel_um)
    assert painter.shape == tuple(
        int(np.ceil(n * a / b)) for n, a, b in zip(SHAPE, VOXEL, voxel_um, strict=True)
    )
    out = painter.box(Box.of_shape(painter.shape))
    index = np.random.default_rng(3).integers(0, painter.shape, (6000, 3))
    places = (index + 0.5) * voxel_um / VOXEL - 0.5
    expected = np.zeros(len(index), np.uint32)
    for star in np.argsort(-PROB)[::-1]:  # the most probable last: it covers the others
        expected[holds(places, star)] = star + 1
    assert len(np.unique(expected)) == 6
    assert (out[tuple(index.T)] == expected).mean() > 0.9995  # float32 on the very surface


def test_boxes_are_parts_of_the_whole_at_every_time(tmp_path):
    reader = StarReader(write_starred_label(tmp_path / "l.zarr", num_times=2, expand_um=1.5))
    whole, parts = Painter(reader), Painter(reader)
    for time, labels in ((0, {1, 2}), (1, {3, 4, 5})):
        expected = whole.box(Box.of_shape(SHAPE), time)
        assert set(np.unique(expected)) == labels | {0}
        for box in parts.boxes((17, 60, 50)):
            np.testing.assert_array_equal(parts.box(box, time), expected[box.slices])
