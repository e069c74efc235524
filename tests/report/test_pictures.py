"""What is shown: which level and how much of it, projections, outlines, crops, charts."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystar_batch.archive.images import read_image
from anystar_batch.geometry import Box
from anystar_batch.report import charts, gallery, views
from anystar_batch.report.digest import Frame, digest_table
from anystar_batch.report.gallery import galleries
from anystar_batch.report.pictures import Marked, contrast, layers, stretched
from anystar_batch.report.views import Volume, see, shown_box
from tests.support import tiny_volume
from tests.support.fakes import write_image


def opened(uri):
    """The picture of a data URI."""
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def outlined(picture):
    """Colour numbers of the outlines, 0 where there is none."""
    return np.array(opened(picture.outlines))


def grey(values):
    return stretched(values, contrast(values))


def test_the_level_shown_is_fine_enough_and_small_enough():
    huge = [(40_000 >> k, 80_000 >> k, 80_000 >> k) for k in range(9)]
    level, box = shown_box(huge)
    assert box == Box.of_shape(huge[level])
    assert box.size <= views.MOST_VOXELS
    assert np.prod(huge[level - 1]) > views.MOST_VOXELS, "the finest that is small enough"
    assert shown_box([(10, 4000 >> k, 4000 >> k) for k in range(5)])[0] == 2, (
        "not finer than it must be"
    )
    assert shown_box([(30, 60, 50)]) == (0, Box.of_shape((30, 60, 50)))


def test_of_a_huge_level_without_a_coarser_one_the_middle_is_shown():
    level, box = shown_box([(4000, 8000, 6000)])
    assert level == 0
    assert views.MOST_VOXELS / 2 < box.size <= views.MOST_VOXELS
    middle = [(a + b) / 2 for a, b in zip(box.start, box.stop, strict=True)]
    assert middle == pytest.approx([2000, 4000, 3000], abs=1)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    image = tiny_volume.small_image(tmp_path_factory.mktemp("shown") / "a.zarr")
    tiny_volume.segment(image, run={"block_shape": None})
    return image


@pytest.fixture
def volume(segmented):
    source = read_image(segmented)
    return Volume(source, f"{segmented}/labels/anystar", 0, (0.5, 0.5, 0.5))


@pytest.fixture
def digest(segmented):
    frame = Frame(tiny_volume.SHAPE, (0.5, 0.5, 0.5), "0", 0.5)
    return digest_table(Path(segmented).with_name("a.anystar.csv"), frame)


@pytest.mark.parametrize("slab", [1, 20_000, 10**9])
def test_projections_and_slices_are_those_of_the_whole_volume(volume, monkeypatch, slab):
    monkeypatch.setattr(views, "SLAB", slab)
    image, labels = volume.reader()(0, 0, Box.of_shape(tiny_volume.SHAPE))
    found = see(volume, 0)
    assert found.is_whole
    assert not found.is_dark
    z, y, x = (n // 2 for n in tiny_volume.SHAPE)
    for mine, plain in (
        (found.projection, (image.max(0), image.max(1), image.max(2).T)),
        (found.slices, (image[z], image[:, y], image[:, :, x].T)),
        (found.slice_labels, (labels[z], labels[:, y], labels[:, :, x].T)),
    ):
        for picture, expected in zip((mine.xy, mine.xz, mine.zy), plain, strict=True):
            assert np.array_equal(picture, expected)
    names = found.projection_labels.xy
    assert np.array_equal(names > 0, labels.any(axis=0))
    where = np.argwhere(names > 0)[7]
    line = labels[:, where[0], where[1]]
    assert names[tuple(where)] == line[line > 0][0]


def test_dark_objects_are_projected_by_their_darkest_voxels(tmp_path, volume):
    image, _ = volume.reader()(0, 0, Box.of_shape(tiny_volume.SHAPE))
    path = write_image(tmp_path / "dark.zarr", [5000 - image.astype(np.uint16)])
    found = see(Volume(read_image(path), volume.label, 0, (0.5,) * 3), 0)
    assert found.is_dark
    assert np.array_equal(found.projection.xy, (5000 - image).min(0))


def test_outlines_lie_on_the_borders_of_the_labels():
    labels = np.zeros((10, 12), np.uint32)
    labels[2:8, 3:9] = 5
    picture = layers(grey(labels), labels, (10, 12), diameter=20.0)
    edge = outlined(picture) > 0
    expected = np.zeros((10, 12), bool)
    expected[2:8, 3:9] = True
    expected[3:7, 4:8] = False
    assert np.array_equal(edge, expected)
    assert (picture.width, picture.height) == (12, 10)
    # Where an outline would hide the object, it is tinted.
    assert (outlined(layers(grey(labels), labels, (10, 12), diameter=3.0)) > 0).sum() == 36


def test_one_label_is_outlined_before_the_others():
    labels = np.zeros((12, 24), np.uint32)
    labels[1:11, 1:11], labels[1:11, 13:23] = 1, 2
    found = outlined(layers(grey(labels), labels, (12, 24), diameter=90.0, only=Marked(2)))
    assert len(np.unique(found[:, :12])) == len(np.unique(found[:, 12:])) == 2
    assert found[1, 13] != found[1, 1]
    assert (found[:, 12:] > 0).sum() > (found[:, :12] > 0).sum()


def test_a_window_shows_just_its_part():
    labels = np.zeros((20, 20), np.uint32)
    labels[5:15, 5:15] = 1
    image = np.add.outer(np.arange(20.0), np.zeros(20))
    window = ((4.5, 9.5), (5.0, 15.0))
    picture = layers(grey(image), labels, (50, 100), diameter=90.0, window=window)
    shown = outlined(picture) > 0
    # The outermost pixels above, left and right: the part begins half a voxel above the object.
    assert not shown[:5].any()
    assert shown[5].all()
    assert not shown[20, 40]
    assert opened(picture.grey).size == (10, 5)


def test_grey_values_are_stretched_and_what_lies_beyond_is_hatched():
    image = np.linspace(1000, 2000, 400).reshape(20, 20)
    image[:, :4] = np.nan
    found = grey(image)
    assert (found.max(), found[:, 4:].min()) == (255, 0)
    assert set(np.unique(found[:, :4])) == {60, 105}
    assert np.array_equal(grey(np.full((3, 3), 7.0)), np.zeros((3, 3)))
    # One contrast for several: the fainter one stays faint.
    both = contrast(image, image / 2)
    assert stretched(image / 2, both)[:, 4:].max() < 128 < stretched(image, both)[:, 4:].max()


def test_crops_are_square_wherever_they_lie(volume, digest):
    kinds = galleries(volume, digest)
    assert [kind.name for kind in kinds] == ["Typical", "Least certain", "Smallest", "Largest"]
    assert len(kinds[0].crops) == 5
    for crop in kinds[0].crops:
        for side in (crop.xy, crop.xz):
            wide, tall = opened(side.grey).size
            assert wide == tall
            assert side.width == side.height
            middle = outlined(side)[60:108, 60:108]
            assert (outlined(side) > 0).any()
            assert not (middle > 0).all()


def test_a_gallery_that_would_decode_too_much_is_cut(volume, digest, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_DECODED", 50_000)
    kinds = galleries(volume, digest)
    assert 0 < sum(len(kind.crops) for kind in kinds) < 8
    assert all(kind.left_out + len(kind.crops) == 5 for kind in kinds[:2])


def test_a_histogram_counts_every_value_once():
    values = np.random.default_rng(0).lognormal(3, 1, 500)
    for is_log in (False, True):
        svg = charts.histogram(values, "size", is_log=is_log)
        heights = [float(h) for h in re.findall(r'class="bar".*?height="([\d.]+)"', svg)]
        highest = max(heights)
        low, high = values.min(), values.max()
        edges = np.geomspace(low, high, 17) if is_log else np.linspace(low, high, 17)
        counts = np.histogram(values, edges)[0]
        mine = np.array(heights) / highest * counts.max()
        assert mine == pytest.approx(counts[counts > 0], abs=counts.max() * 0.002)
    assert f"median {charts.number(float(np.median(values)))}" in svg


@pytest.mark.parametrize("values", [[], [np.nan], [0.0, -1.0]])
def test_a_histogram_of_nothing_says_so(values):
    said = charts.histogram(np.array(values), "size & <more>", is_log=True)
    assert said == '<p class="nothing">Nothing to show for size &amp; &lt;more&gt;.</p>'


def test_equal_values_have_a_histogram():
    svg = charts.histogram(np.full(9, 4.0), "size")
    assert svg.count('class="bar"') == 1
    assert "nan" not in svg


def test_ticks_are_round_and_inside():
    for low, high in ((0.0, 1.0), (3.2, 17.9), (1e-4, 3e-4), (0.0, 7e6)):
        ticks = charts.Axis(low, high).ticks()
        assert 2 <= len(ticks) <= 6
        assert all(low - 1e-12 <= t <= high + 1e-12 for t in ticks)
    assert charts.Axis(2.0, 30000.0, is_log=True).ticks() == [10.0, 100.0, 1000.0, 10000.0]
