"""Where points lie in a region, against distances in micrometres; and its digest."""

import shutil

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.errors import ImageError
from anystar_batch.stages.region import (
    Region,
    extent,
    placed,
    region_content,
    region_lattice,
    region_numbers,
)
from tests.support.fakes import mean_level, write_image

SHAPE = (20, 34, 41)
SCALE = (2.0, 0.5, 0.7)
RNG = np.random.default_rng(3)
MASK = RNG.integers(0, 4, (9, 13, 11)).astype(np.uint16)


def image_of(folder, **more):
    level = RNG.integers(0, 900, SHAPE).astype(np.uint16)
    return write_image(folder / "image.ome.zarr", [level], scale=SCALE, **more)


def region_of(path, ids=(), has_scale=True):
    return Region(read_image(str(path)), "mask", ids, "", has_scale)


def place(region, image):
    return placed(region, ImageReader(read_image(image)), 0, 0)


def by_distance(position_um, mask, scale, translation):
    """The number of the nearest voxel, axis by axis, if it is less than a voxel away."""
    index = []
    for p, n, s, t in zip(position_um, mask.shape, scale, translation, strict=True):
        away = np.abs(p - (t + s * np.arange(n))) / s
        best = int(away.argmin())
        if away[best] >= 1.0:
            return 0
        index.append(best)
    return int(mask[tuple(index)])


@pytest.mark.parametrize(
    ("scale", "translation"),
    [
        ((4.0, 1.3, 2.1), (0.3, 0.2, 0.9)),
        ((4.1, 1.25, 2.6), (-5.0, 7.1, -3.3)),
        ((0.9, 0.25, 0.35), (11.0, 3.0, 8.0)),  # finer than the image, and a part of it
    ],
)
@pytest.mark.parametrize("chunks", [(9, 13, 11), (2, 5, 3)])
def test_a_point_has_the_number_of_the_nearest_voxel(tmp_path, scale, translation, chunks):
    image = image_of(tmp_path, translations=[(1.0, -2.0, 0.4)])
    path = tmp_path / "mask.ome.zarr"
    write_image(path, [MASK], scale=scale, translations=[translation], chunks=chunks)
    region, level = place(region_of(path), image)
    assert level is None
    points = RNG.uniform(-0.5, np.array(SHAPE) - 0.5, (3000, 3))
    physical = points * SCALE + (1.0, -2.0, 0.4)
    expected = [by_distance(p, MASK, scale, translation) for p in physical]
    assert region_numbers(region, 0, points).tolist() == expected
    assert len(set(expected)) > 1
    axes = [np.sort(RNG.uniform(-0.5, n - 0.5, 7)) for n in SHAPE]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inside = region_numbers(region, 0, grid).reshape(7, 7, 7) > 0
    assert np.array_equal(region_lattice(region, 0, axes), inside)


def test_of_two_voxels_as_near_the_later_one_counts(tmp_path):
    image = image_of(tmp_path)
    mask = np.zeros((10, 34, 41), np.uint8)
    mask[3] = 1
    path = write_image(tmp_path / "m.ome.zarr", [mask], scale=(4.0, *SCALE[1:]))
    region, _ = place(region_of(path), image)
    found = region_numbers(region, 0, np.array([(z, 1, 1) for z in range(20)], float))
    assert np.flatnonzero(found).tolist() == [5, 6]


def test_named_numbers_alone_count(tmp_path):
    image = image_of(tmp_path)
    path = write_image(tmp_path / "m.ome.zarr", [MASK], scale=(4.0, 1.3, 2.1))
    points = RNG.uniform(0, np.array(SHAPE) - 1.0, (300, 3))
    whole, _ = place(region_of(path), image)
    some, _ = place(region_of(path, ids=((1, 1), (3, 9))), image)
    numbers = region_numbers(whole, 0, points)
    expected = np.where(np.isin(numbers, (1, 3)), numbers, 0)
    assert np.array_equal(region_numbers(some, 0, points), expected)


def test_a_unit_counts_and_none_is_the_image_s(tmp_path):
    image = image_of(tmp_path)
    scale_nm = tuple(1000.0 * s for s in (4.0, 1.3, 2.1))
    points = RNG.uniform(0, np.array(SHAPE) - 1.0, (200, 3))
    found = []
    for name, scale, unit in [
        ("um", (4.0, 1.3, 2.1), "micrometer"),
        ("nm", scale_nm, "nanometer"),
        ("none", (4.0, 1.3, 2.1), None),
    ]:
        path = write_image(tmp_path / name, [MASK], scale=scale, unit=unit)
        found.append(region_numbers(place(region_of(path), image)[0], 0, points))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_what_says_nothing_lies_where_the_level_of_its_shape_does(tmp_path):
    base = RNG.integers(0, 900, (20, 34, 40)).astype(np.uint16)
    levels = [base, mean_level(base, (1, 2, 2))]
    image = write_image(tmp_path / "i.ome.zarr", levels, scale=SCALE)
    mask = np.zeros((20, 17, 20), np.uint8)
    mask[:, 4, :] = 1
    points = np.array([(3, y, 5) for y in range(34)], float)
    for name, more in [
        ("bare", {"scale": (1.0, 1.0, 1.0), "unit": None}),
        ("level", {"scale": (2.0, 1.0, 1.4)}),  # no translation: that of the level is meant
    ]:
        path = write_image(tmp_path / name, [mask], **more)
        region, level = place(region_of(path), image)
        assert level == 1
        assert np.flatnonzero(region_numbers(region, 0, points)).tolist() == [8, 9]
    moved = write_image(
        tmp_path / "j.ome.zarr", levels, scale=SCALE, translations=[(9, 8, 7), (9, 8.25, 7.35)]
    )
    region, level = place(region, moved)
    assert level == 1
    assert np.flatnonzero(region_numbers(region, 0, points)).tolist() == [8, 9]
    # It says where it lies, and is believed: a quarter of a micrometre to the left.
    declared = {"scale": (2.0, 1.0, 1.4), "translations": [(0.0, 0.0, 0.0)]}
    region, level = place(region_of(write_image(tmp_path / "said", [mask], **declared)), image)
    assert level is None
    assert np.flatnonzero(region_numbers(region, 0, points)).tolist() == [7, 8]


def test_a_bare_array_needs_the_shape_of_a_level(tmp_path):
    image = image_of(tmp_path)
    path = write_image(tmp_path / "m.ome.zarr", [MASK])
    with pytest.raises(ImageError, match="shape of a level of the image"):
        place(region_of(path, has_scale=False), image)


def test_what_lies_beside_the_image_is_no_part_of_it(tmp_path):
    image = image_of(tmp_path)
    source = read_image(image)
    path = write_image(tmp_path / "m", [MASK], scale=SCALE, translations=[(0.0, 100.0, 0.0)])
    assert extent(place(region_of(path), image)[0], source).size == 0
    path = write_image(tmp_path / "n", [MASK], scale=SCALE, translations=[(-4.0, 10.0, 21.0)])
    box = extent(place(region_of(path), image)[0], source)
    assert (box.start, box.stop) == ((2, 0, 0), (9, 13, 11))


def test_the_digest_is_of_content_alone(tmp_path):
    path = write_image(tmp_path / "m.ome.zarr", [MASK], chunks=(4, 4, 4))
    first = region_content(read_image(path))
    copied = shutil.copytree(path, tmp_path / "copy.ome.zarr", copy_function=shutil.copyfile)
    assert region_content(read_image(str(copied))) == first
    array = zarr.open_array(f"{path}/0", mode="r+")
    array[0, 0, 0] += 1
    changed = region_content(read_image(path))
    assert changed != first
    array[0, 0, 0] -= 1
    assert region_content(read_image(path)) == first
    array[:4, :4, :4] = 0  # a chunk that goes
    assert region_content(read_image(path)) not in {first, changed}
