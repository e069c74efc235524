"""The picture: outlines lie on the edges of labels; odd images are drawn too."""

import numpy as np
import pytest

from anystar_batch.report import pictures as module
from anystar_batch.report.pictures import colours, overlay


def labelled():
    labels = np.zeros((8, 16, 16), np.uint32)
    labels[2:6, 4:10, 5:12] = 7
    image = np.random.default_rng(0).normal(100, 5, labels.shape) + 50 * (labels > 0)
    return image.astype(np.float32), labels


def test_only_the_edges_of_labels_are_coloured():
    image, labels = labelled()
    picture = overlay(image, labels)
    zoom = module.MAX_EDGE // 16
    panel = picture[: 16 * zoom, : 16 * zoom].astype(int)
    coloured = np.ptp(panel, axis=-1) > 0
    rows, columns = np.nonzero(coloured)
    assert (rows.min() // zoom, rows.max() // zoom) == (4, 9)
    assert (columns.min() // zoom, columns.max() // zoom) == (5, 11)
    assert not coloured[6 * zoom : 8 * zoom, 7 * zoom : 10 * zoom].any()


def test_a_volume_without_labels_is_grey():
    image, labels = labelled()
    picture = overlay(image, np.zeros_like(labels)).astype(int)
    assert np.ptp(picture, axis=-1).max() == 0


def test_side_views_are_stretched_by_the_voxels_height():
    image, labels = labelled()
    flat, tall = overlay(image, labels, 1.0), overlay(image, labels, 3.0)
    zoom = module.MAX_EDGE // 16
    assert tall.shape[0] - flat.shape[0] == 2 * 8 * zoom


def test_nan_and_constant_images_are_drawn():
    image, labels = labelled()
    image[0] = np.nan
    overlay(image, labels)
    overlay(np.zeros_like(image), labels)


@pytest.mark.parametrize("a", [1, 2, 3, 500])
def test_neighbouring_numbers_differ_in_colour(a):
    pair = colours(np.array([a, a + 1], np.uint32)).astype(int)
    assert np.abs(pair[0] - pair[1]).max() > 60
