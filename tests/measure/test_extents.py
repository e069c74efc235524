"""Extents: counts, centroids and boxes of labels of any type, from any boxes, as SciPy has them."""

import numpy as np
import pytest

from anystar_batch.geometry import grid_box, grid_shape, iter_grid
from anystar_batch.measure import extents, merger
from tests.support import seam_volumes
from tests.support.dense_labels import cells


def measured(labels, step):
    def parts():
        for index in iter_grid(grid_shape(labels.shape, step)):
            box = grid_box(index, step, labels.shape)
            narrow, names = extents.narrowed(labels[box.slices])
            yield extents.box_extents(narrow, names, box.start)

    return extents.merge(parts())


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.uint64])
def test_rows_are_what_scipy_says_for_any_boxes(kind, monkeypatch):
    monkeypatch.setattr(merger, "PENDING", 50)
    rng = np.random.default_rng(3)
    small = cells(rng, (17, 20, 23), 40, 5.0)
    named = {np.uint8: small, np.int32: small * 1000}.get(kind, small.astype(np.int64) * 2**34)
    labels = named.astype(kind)
    expected = seam_volumes.rows(small)
    for step in ((17, 20, 23), (5, 7, 9), (1, 20, 4)):
        rows = measured(labels, step)
        assert rows["label"].tolist() == [int(v) for v in np.unique(labels) if v]
        for name, values in extents.columns(rows).items():
            assert np.allclose(values, expected[name], rtol=1e-13), name


def test_numbers_without_background_keep_0_for_it():
    labels = np.full((2, 2, 2), 2**40, np.uint64)
    narrow, names = extents.narrowed(labels)
    assert narrow.tolist() == np.ones((2, 2, 2)).tolist()
    assert names.tolist() == [0, 2**40]
    assert extents.box_extents(narrow, names, (0, 0, 0))["label"].tolist() == [2**40]


def test_nothing_gives_no_rows():
    assert len(measured(np.zeros((4, 4, 4), np.uint16), (2, 2, 2))) == 0
    assert len(extents.merge([])) == 0
