"""A crop of a level against the finer one: how it was made, where it lies, whether it is filled."""

import numpy as np
import pytest
from scipy import ndimage

from anystar_batch.geometry import Box
from anystar_batch.network.downsampling import HERE, MOVES, Place, is_constant, likeness
from tests.support.pyramids import coarser

SHAPE = (36, 48, 60)
FACTORS = (2, 3, 2)


def fine(noise=20.0, dtype=np.uint16):
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3)
    values = 200 + 100 * smooth / smooth.std() + noise * rng.standard_normal(SHAPE)
    return np.clip(values, 0, 900).astype(dtype)


def compared(image, level, box=None, shift=(0.0, 0.0, 0.0)):
    place = Place(tuple(map(float, FACTORS)), shift, level.shape, image.shape)
    box = Box.of_shape(level.shape) if box is None else box
    return likeness(level[box.slices], box, image[place.fine_box(box).slices], place)


@pytest.mark.parametrize("noise", [0.0, 20.0, 200.0])
@pytest.mark.parametrize("way", ["mean", "stride", "gaussian", "median", "nearest"])
def test_every_known_way_is_like_the_finer_level_and_in_place(way, noise):
    image = fine(noise)
    found = compared(image, coarser(image, FACTORS, way))
    assert found.correlation > (0.99 if way == "median" else 0.7)
    assert int(np.nanargmax(found.moved)) == HERE
    assert not found.is_empty
    assert not found.is_lost
    assert 0.3 < found.gain < 3
    assert abs(found.offset) < 1


@pytest.mark.parametrize("move", [(1, 0, 0), (0, -1, 0), (1, 1, -1), (0, 0, 2)])
def test_a_moved_level_fits_better_where_it_is(move):
    image = fine()
    level = np.roll(coarser(image, FACTORS, "mean"), move, axis=(0, 1, 2))
    box = Box((4, 4, 4), (14, 12, 26))
    best = MOVES[int(np.nanargmax(compared(image, level, box).moved))]
    assert best == tuple(-m for m in move)


def test_a_declared_shift_is_taken_into_account():
    image = fine()
    level = coarser(image, FACTORS, "mean")
    found = compared(image, level, Box((4, 4, 4), (14, 12, 26)), shift=(2.0, 3.0, 2.0))
    assert MOVES[int(np.nanargmax(found.moved))] == (-1, -1, -1)


def test_another_image_is_not_like_it():
    image = fine(0.0)
    assert compared(image, coarser(image[::-1, ::-1], FACTORS, "mean")).correlation < 0.4


def test_an_empty_crop_is_empty_only_where_the_finer_level_is_not():
    image = fine()
    level = np.zeros_like(coarser(image, FACTORS, "mean"))
    assert compared(image, level).is_empty
    assert not compared(np.full_like(image, 7), level).is_empty
    spots = np.full_like(image, 7)
    spots[5, 7, 9] = 60000  # a single hot voxel, which a stride or a median does not see
    assert not compared(spots, np.full_like(level, 7)).is_empty
    assert compared(spots, level).is_empty, "0 is no value of the finer level"


def test_what_the_finer_level_has_lost_is_told():
    image = fine()
    level = coarser(image, FACTORS, "mean")
    assert compared(np.zeros_like(image), level).is_lost
    assert not compared(np.zeros_like(image), np.zeros_like(level)).is_lost


def test_other_intensities_are_told():
    image = fine()
    found = compared(image, (coarser(image, FACTORS, "mean") * 40.0).astype(np.float32))
    assert found.gain == pytest.approx(40, rel=0.1)
    assert found.offset > 4


def test_what_is_no_number_counts_as_the_mean():
    image = fine(dtype=np.float32)
    level = coarser(image, FACTORS, "mean")
    image[3:6], level[2] = np.nan, np.nan
    assert compared(image, level).correlation > 0.8
    assert is_constant(np.full((2, 2), np.nan))


def test_the_finer_box_stays_inside_and_is_never_empty():
    place = Place((2.0, 2.0, 2.0), (-40.0, 0.0, 40.0), (4, 4, 4), (8, 8, 8))
    box = place.fine_box(Box((0, 0, 0), (4, 4, 4)))
    assert box == Box((0, 0, 7), (1, 8, 8))


def test_a_plane_that_one_way_of_making_leaves_constant_is_not_empty():
    """A thin object at the edge of a plane, between the voxels that the nearest neighbour takes."""
    image = np.zeros((12, 48, 60), np.uint16)
    image[3:9, 10:30, 10:40] = 900
    image[:3, 0:1, 4:40] = image[:3, 2:3, 4:40] = 900
    level = image[:, 1::3, 1::3]
    assert not level[0].any()
    place = Place((1.0, 3.0, 3.0), (0.0, 0.0, 0.0), level.shape, image.shape)
    box = Box.of_shape(level.shape)
    assert not likeness(level, box, image[place.fine_box(box).slices], place).is_empty
