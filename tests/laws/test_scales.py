"""Two scales: objects that differ twice in size, found at their own and suppressed across."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.errors import ConfigError
from anystar_batch.geometry import Box
from anystar_batch.network.resample import resample, source_box, tile_taps
from anystar_batch.network.tiles import coarse_view, plan_tiles
from anystar_batch.parsing import Quantity, parse_scales
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.predict import _one_a_point
from anystar_batch.stars.candidates import Candidates
from tests.support.blobs import Blobs
from tests.support.fakes import make_model, write_image

SMALL, LARGE = 4.0, 11.0
"""Radii of the two kinds of objects, voxels."""

KNOWN = (2.6, 7.0)
"""Radii that the network below knows, voxels of what it sees."""


@dataclass(frozen=True)
class OfOneSize:
    """Finds objects of a limited range of sizes, as a network does."""

    def __call__(self, model, threads):
        return self

    def find(self, image, window, core, prob_thresh):
        blobs = Blobs((2, 2, 2), reach=16.0)
        points, prob, dist = blobs.find(image, window, core, prob_thresh)
        radius = dist.mean(axis=1) if len(dist) else np.empty(0)
        known = (radius >= KNOWN[0]) & (radius <= KNOWN[1])
        return points[known], prob[known], dist[known]


def write_mixed(path, shape=(72, 110, 120)):
    """Balls of two sizes on a lattice, soft at the surface."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    image, truth = np.zeros(shape), np.zeros(shape, np.int32)
    places = [(z, y, x) for z in (18, 52) for y in (18, 54, 90) for x in (18, 58, 98)]
    for number, place in enumerate(places, start=1):
        radius = LARGE if number % 2 else SMALL
        away = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, place, strict=True)))
        image = np.maximum(image, np.clip(radius - away + 0.5, 0.0, 1.0))
        truth[away <= radius] = number
    pixels = np.rint(100 + 900 * ndimage.gaussian_filter(image, 0.5)).astype(np.uint16)
    return write_image(path, [pixels], chunks=(32, 64, 64)), truth


def run_mixed(image, scales, block_shape=None):
    config = SegmentConfig(
        image=str(image),
        result=ResultConfig(diameter=Quantity(8.0, "px"), scales=scales),
        run=RunConfig(block_shape=block_shape, overwrite=True, memory=6 * 10**9),
    )
    model = make_model(diameter=8.0, tile=32, context=16, max_radius=16.0)
    return segment(config, factory=OfOneSize(), model=model)


def test_the_second_scale_finds_the_large_objects_in_their_place_and_size(tmp_path):
    image, truth = write_mixed(tmp_path / "a.ome.zarr")
    large = [n for n in range(1, 19) if n % 2]
    assert run_mixed(image, (1,)).instances == 18 - len(large)
    assert run_mixed(image, (1, 2)).instances == 18
    label = read_image(f"{image}/labels/anystar")
    found = ImageReader(label).read_box(0, 0, 0, Box.of_shape(truth.shape))
    for number in large:
        inside = truth == number
        values, counts = np.unique(found[inside], return_counts=True)
        mine = found == values[np.argmax(counts)]
        assert (mine & inside).sum() / (mine | inside).sum() > 0.85
        # A half voxel of the coarse scale would be a whole one here.
        shift = np.subtract(ndimage.center_of_mass(mine), ndimage.center_of_mass(inside))
        assert np.abs(shift).max() < 0.3
        assert mine.sum() / inside.sum() == pytest.approx(1.0, abs=0.1)


def test_scales_enter_the_fingerprint_and_one_alone_says_nothing(tmp_path):
    from anystar_batch.stages.plan import fingerprint_parts

    image, _ = write_mixed(tmp_path / "a.ome.zarr")
    source, model = read_image(str(image)), make_model(diameter=8.0)
    plain = fingerprint_parts(source, model, ResultConfig(), "float32")
    mixed = fingerprint_parts(source, model, ResultConfig(scales=(1, 2)), "float32")
    assert mixed == plain | {"scales": [1, 2]}


@pytest.mark.parametrize("step", [2, 3, 4])
@pytest.mark.parametrize("zoom", [0.7, 1.0, 1.9])
def test_a_coarse_voxel_lies_at_a_working_voxel(step, zoom):
    level = 90
    ramp = np.arange(level, dtype=np.float32)
    image = np.broadcast_to(ramp[:, None, None], (level, 3, 3))
    length = int(np.ceil(level / zoom - 0.01))
    count = -(-length // step)
    window = Box((0, 0, 0), (count, 1, 1))
    axes = tile_taps(window, (length, 1, 1), image.shape, (zoom, 1.0, 1.0), step)
    values = resample(image, (0, 0, 0), axes)[:, 0, 0]
    expected = (np.arange(count) * step + 0.5) * zoom - 0.5
    inside = (expected > 2 * step * zoom + 1) & (expected < level - 2 * step * zoom - 2)
    assert inside.sum() >= 4
    np.testing.assert_allclose(values[inside], expected[inside], atol=1e-3)


def test_a_coarse_window_is_mirrored_where_the_fine_one_is():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(40, 1, 1)).astype(np.float32)
    axes = tile_taps(Box((-6, 0, 0), (26, 1, 1)), (40, 1, 1), (40, 1, 1), (1.0, 1.0, 1.0), 2)
    seen = resample(image[source_box(axes).slices], source_box(axes).start, axes)[:, 0, 0]
    # Coarse voxel -3 lies at working voxel -6, which shows voxel 5: no voxel of its own.
    own = tile_taps(Box((5, 0, 0), (6, 1, 1)), (40, 1, 1), (40, 1, 1), (1.0, 1.0, 1.0), 1)
    assert own[0].first.tolist() == [5]
    even = tile_taps(Box((0, 0, 0), (1, 1, 1)), (40, 1, 1), (40, 1, 1), (1.0, 1.0, 1.0), 2)
    assert seen[6] == resample(image, (0, 0, 0), even)[0, 0, 0]
    weights = np.array([0.0, 0.5, 1.0, 0.5, 0.0]) / 2.0
    expected = (image[3:8, 0, 0] * weights).sum()
    assert seen[3] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("step", [2, 3, 4])
@pytest.mark.parametrize("shape", [(20, 400, 301), (97, 96, 500)])
def test_coarse_tiles_are_the_same_tiles(shape, step):
    tiles = plan_tiles(shape, 96, 32, (16, 16, 16), (1, step))
    view = coarse_view(tiles, step, 32, (16, 16, 16))
    assert view.tiles.counts == tiles.counts
    seen = np.zeros(shape, np.int32)
    for index in np.ndindex(*tiles.counts):
        core, coarse = tiles.core_box(index), view.tiles.core_box(index)
        points = np.stack(
            np.meshgrid(*map(np.arange, coarse.start, coarse.stop), indexing="ij"), -1
        )
        points = points.reshape(-1, 3) * step
        assert (points >= core.start).all()
        assert (points < core.stop).all()
        np.add.at(seen, tuple(points.T), 1)
        assert all(n % 16 == 0 for n in view.tiles.window_box(index).shape)
    expected = np.zeros(shape, np.int32)
    expected[::step, ::step, ::step] = 1
    np.testing.assert_array_equal(seen, expected)


def test_a_tile_that_the_scale_does_not_divide_is_refused():
    tiles = plan_tiles((400, 400, 400), 32, 16, (16, 16, 16), (1, 3))
    with pytest.raises(ConfigError, match=r"--scales: got 3; expected a divisor of the tile's 32"):
        coarse_view(tiles, 3, 16, (16, 16, 16))


def test_of_two_finds_at_one_point_the_surer_stays_and_the_finer_of_equals():
    points = np.array([[2, 2, 2], [4, 4, 4], [8, 8, 8], [4, 4, 4], [2, 2, 2]], np.int32)
    prob = np.array([0.6, 0.7, 0.5, 0.7, 0.8], np.float32)
    candidates = Candidates(points, prob, np.ones((5, 96), np.float32))
    assert _one_a_point(candidates).tolist() == [1, 2, 4]


@pytest.mark.parametrize("scales", [(2,), (1, 1), (2, 1), (1, 5), (0, 1)])
def test_scales_that_cannot_be_are_refused(scales):
    with pytest.raises(ConfigError, match=r"--scales: got .*; expected 1 and multiples"):
        ResultConfig(scales=scales)


def test_scales_are_read():
    assert parse_scales("1, 2") == (1, 2)
    with pytest.raises(ConfigError, match=r"--scales: got '1;2'; expected whole numbers"):
        parse_scales("1;2")
