import json

import numpy as np
import pytest

from anystar_batch.errors import ImageError, ModelError
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.network import profiles as sampled
from anystar_batch.network import refiner as second
from anystar_batch.network.refiner import from_arrays, level_to_read, load_refiner, window_of
from anystar_batch.stars.rays import golden_spiral
from trainer.refine.config import RefineConfig
from trainer.refine.export import export, joined

DIRECTIONS = golden_spiral(96).vertices
EVEN = (1.0, 1.0, 1.0)


def random_arrays(seed=0, size=0.2):
    rng = np.random.default_rng(seed)
    shapes = second.shapes_of((12, 16, 16, 48, 32, 1))
    return {name: rng.normal(0, size, shape).astype(np.float32) for name, shape in shapes.items()}


def random_objects(n=40, shape=(40, 48, 56), seed=1):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, np.array(shape) - 1, (n, 3))
    dist = rng.uniform(3, 8, (n, 96)).astype(np.float32)
    return rng.normal(100, 30, shape).astype(np.float32), points, dist


def look(refiner, image, points, dist, step=EVEN, directions=DIRECTIONS):
    shape = as_zyx(image.shape)
    return refiner.refine(image, Box.of_shape(shape), shape, points, dist, step, directions)


def blob(step, shape=(60, 60, 60), centre=(30.0, 31.0, 29.0), axes=(11.0, 9.0, 9.0)):
    """A soft ellipsoid in micrometres, sampled every `step`."""
    counts = [int(n / s) for n, s in zip(shape, step, strict=True)]
    grid = np.meshgrid(
        *[np.arange(n) * s for n, s in zip(counts, step, strict=True)], indexing="ij"
    )
    away = np.sqrt(sum(((g - c) / a) ** 2 for g, c, a in zip(grid, centre, axes, strict=True)))
    return (100.0 / (1.0 + np.exp((away - 1.0) * 6.0))).astype(np.float32)


@pytest.fixture(scope="module")
def refiner():
    return from_arrays(random_arrays())


def test_the_kernel_is_the_keras_network(refiner):
    from trainer.refine.network import build, weights

    near = sampled.neighbours(DIRECTIONS)
    model = build(near)
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.15, variable.shape))
    image, points, dist = random_objects()
    found, quality = look(from_arrays(weights(model)), image, points, dist)
    values = np.empty((len(dist), sampled.SAMPLES, sampled.CHANNELS, 96), np.float32)
    scalars = np.empty((len(dist), sampled.SCALARS, 96), np.float32)
    whole, fraction = sampled.centres(points)
    sampled.profiles(
        image, np.zeros(3, np.int64), np.array(image.shape), whole, fraction, dist, DIRECTIONS,
        near, values, scalars,
    )  # fmt: skip
    log, wanted = model.predict_on_batch([values, scalars])
    assert np.std(log) > 0.02
    assert np.abs(np.log(found / dist) - log).max() < 1e-5
    assert np.abs(quality - wanted).max() < 1e-5


def test_order_and_company_do_not_change_a_byte(refiner):
    image, points, dist = random_objects(70)
    found, quality = look(refiner, image, points, dist)
    order = np.random.default_rng(5).permutation(len(points))
    again, also = look(refiner, image, points[order], dist[order])
    assert np.array_equal(again, found[order])
    assert np.array_equal(also, quality[order])
    for i in (0, 33, 69):
        one = slice(i, i + 1)
        alone, its = look(refiner, image, points[one], dist[one])
        assert np.array_equal(alone[0], found[i])
        assert its[0] == quality[i]


def test_where_the_image_was_cut_does_not_change_a_byte(refiner):
    image, points, dist = random_objects(30)
    shape = as_zyx(image.shape)
    found, quality = look(refiner, image, points, dist)
    for i in range(len(points)):
        one = slice(i, i + 1)
        box = window_of(points[one], dist[one], EVEN, shape)
        cut = np.ascontiguousarray(image[box.slices])
        alone, its = refiner.refine(cut, box, shape, points[one], dist[one], EVEN, DIRECTIONS)
        assert np.array_equal(alone[0], found[i])
        assert its[0] == quality[i]


def test_a_box_that_lacks_voxels_is_refused(refiner):
    image, points, dist = random_objects(1)
    shape = as_zyx(image.shape)
    box = window_of(points, dist, EVEN, shape)
    smaller = Box(box.start, as_zyx((box.stop[0] - 1, box.stop[1], box.stop[2])))
    for cut in (box, smaller):
        with pytest.raises(ImageError, match=r"expected one that holds .* read window_of"):
            refiner.refine(image[smaller.slices], cut, shape, points, dist, EVEN, DIRECTIONS)


def test_contrast_offset_and_inversion_do_not_matter(refiner):
    image, points, dist = random_objects()
    found, quality = look(refiner, image, points, dist)
    inverted, its = look(refiner, -image, points, dist)
    assert np.array_equal(inverted, found)
    assert np.array_equal(its, quality)
    other, _ = look(refiner, np.float32(5000.0) - 7.0 * image, points, dist)
    assert np.abs(np.log(other / found)).max() < 1e-3


def test_a_constant_image_leaves_the_distances(refiner):
    _, points, dist = random_objects(3)
    found, quality = look(refiner, np.full((40, 48, 56), 7.0, np.float32), points, dist)
    assert np.array_equal(found, dist)
    assert not quality.any()


def test_beyond_the_border_the_last_voxel_is_seen_and_marked():
    image = np.zeros((20, 20, 20), np.float32)
    image[..., :10] = 1.0
    points, dist = np.array([[10.0, 10.0, 1.0]]), np.full((1, 96), 5.0, np.float32)
    whole, fraction = sampled.centres(points)
    values = np.empty((1, sampled.SAMPLES, sampled.CHANNELS, 96), np.float32)
    scalars = np.empty((1, sampled.SCALARS, 96), np.float32)
    near = sampled.neighbours(DIRECTIONS)
    sampled.profiles(
        image, np.zeros(3, np.int64), np.array(image.shape), whole, fraction, dist, DIRECTIONS,
        near, values, scalars,
    )  # fmt: skip
    reach = 5.0 / sampled.PER_DIST * np.arange(1, sampled.SAMPLES + 1)
    x = 1.0 + reach[:, None] * DIRECTIONS[:, 2]
    z, y = (10.0 + reach[:, None] * DIRECTIONS[:, a] for a in (0, 1))
    outside = (x < -0.5) | (np.maximum(z, y) > 19.5) | (np.minimum(z, y) < -0.5)
    assert np.array_equal(values[0, :, 3] == 1.0, outside)
    assert outside.any()
    left = x < 0
    assert np.ptp(values[0, :, 0][left]) < 1e-6


def test_objects_at_the_border_and_in_corners_are_refined(refiner):
    image, _, dist = random_objects(3)
    points = np.array([[0.0, 0.0, 0.0], [39.0, 47.0, 55.0], [0.25, 30.0, 55.4]])
    found, quality = look(refiner, image, points, dist)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert ((quality > 0) & (quality < 1)).all()


def test_an_anisotropic_volume_shows_the_object_in_its_true_shape(refiner):
    dist = np.full((1, 96), 9.0, np.float32)
    centre = np.array([[30.0, 31.0, 29.0]])
    answers = []
    for step in ((1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 0.5, 0.5)):
        voxels = as_zyx(blob(step).shape)
        per_working = tuple(1.0 / s for s in step)
        found, _ = refiner.refine(
            blob(step), Box.of_shape(voxels), voxels, centre / step, dist, per_working, DIRECTIONS
        )
        answers.append(np.log(found[0] / dist[0]))
    assert np.std(answers[0]) > 0.01
    # The length in voxels is one of the inputs, so the answers are near, not equal.
    for other in answers[1:]:
        assert np.corrcoef(other, answers[0])[0, 1] > 0.95


def test_foreign_rays_are_taken(refiner):
    directions = golden_spiral(64).vertices
    image, points, dist = random_objects(4)
    found, _ = look(refiner, image, points, np.ascontiguousarray(dist[:, :64]), EVEN, directions)
    assert found.shape == (4, 64)
    assert np.isfinite(found).all()


def test_neighbours_are_the_nearest_by_angle():
    near = sampled.neighbours(DIRECTIONS)
    assert near.shape == (96, 6)
    for ray in (0, 17, 95):
        angles = DIRECTIONS @ DIRECTIONS[ray]
        angles[ray] = -2
        assert set(near[ray]) == set(np.argsort(-angles)[:6])


def test_no_survivors_are_no_work(refiner):
    image, points, dist = random_objects(1)
    found, quality = look(refiner, image, points[:0], dist[:0])
    assert found.shape == (0, 96)
    assert quality.shape == (0,)


def test_levels_that_show_twenty_voxels_are_enough():
    scales = [(2.0, 0.25, 0.25), (2.0, 0.5, 0.5), (2.0, 1.0, 1.0), (4.0, 2.0, 2.0)]
    assert level_to_read(20.0, scales) == 2
    assert level_to_read(19.0, scales) == 1
    assert level_to_read(80.0, scales) == 3
    assert level_to_read(2.0, scales) == 0


def two_networks(large_seed=0, small_seed=5):
    shapes = second.shapes_of((8, 8, 8, 24, 16, 1))
    rng = np.random.default_rng(small_seed)
    small = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    large = from_arrays(random_arrays(large_seed))
    return large, from_arrays(small), joined(large, small)


def test_small_objects_are_looked_at_by_a_network_of_their_own():
    large, small, arrays = two_networks()
    both = from_arrays(arrays, 0.2)
    image, points, dist = random_objects(60)
    dist[::2] *= 0.6
    step = (0.5, 1.2, 1.2)
    lengths = np.linalg.norm(DIRECTIONS * step, axis=1)
    is_small = (dist * lengths).mean(axis=1) < second.SMALL_VOXELS
    assert 10 < is_small.sum() < 50
    found, quality = look(both, image, points, dist, step)
    for network, mine in ((small, is_small), (large, ~is_small)):
        expected, judged = look(network, image, points[mine], dist[mine], step)
        np.testing.assert_array_equal(found[mine], expected)
        np.testing.assert_array_equal(quality[mine], judged)
    assert not np.array_equal(found, look(large, image, points, dist, step)[0])


def test_both_networks_are_written_read_and_hashed(tmp_path):
    large, _, arrays = two_networks()
    written = export(arrays, RefineConfig(), 0.25, {}, tmp_path)
    read = load_refiner(tmp_path)
    assert read.sha256 == written.sha256 != large.sha256
    assert read.named().keys() == arrays.keys()
    assert all(np.array_equal(read.named()[name], arrays[name]) for name in arrays)
    assert two_networks(small_seed=6)[2].keys() == arrays.keys()
    assert from_arrays(two_networks(small_seed=6)[2]).sha256 != read.sha256
    with pytest.raises(ModelError, match="no array 'small_own_kernel'"):
        from_arrays({k: v for k, v in arrays.items() if k != "small_own_kernel"})
    with pytest.raises(ModelError, match=r"small_conv2_kernel has the shape \(8, 23\)"):
        from_arrays(arrays | {"small_conv2_kernel": arrays["small_conv2_kernel"][:, 1:]})


@pytest.fixture
def folder(tmp_path):
    export(random_arrays(), RefineConfig(), 0.25, {}, tmp_path)
    return tmp_path


def test_a_written_refiner_is_read(folder, refiner):
    read = load_refiner(folder)
    assert read.sha256 == refiner.sha256
    assert read.quality_cut == 0.25
    image, points, dist = random_objects(5)
    assert np.array_equal(look(read, image, points, dist)[0], look(refiner, image, points, dist)[0])


def test_a_folder_without_one_has_none(tmp_path):
    assert load_refiner(tmp_path) is None


def test_a_damaged_refiner_is_refused(folder):
    path = folder / "refiner.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cannot be read .* install the model again"):
        load_refiner(folder)


def test_a_refiner_of_another_description_is_refused(folder):
    path = folder / "refiner.json"
    document = json.loads(path.read_text())
    for change in ({"arrays_sha256": "0" * 64}, {"format": 99}):
        path.write_text(json.dumps(document | change))
        with pytest.raises(ModelError, match=r"as refiner\.json says"):
            load_refiner(folder)


def test_arrays_that_do_not_fit_are_refused():
    arrays = random_arrays()
    with pytest.raises(ModelError, match="no array 'conv3_bias'"):
        from_arrays({k: v for k, v in arrays.items() if k != "conv3_bias"})
    with pytest.raises(ModelError, match=r"conv2_kernel has the shape \(16, 35\)"):
        from_arrays(arrays | {"conv2_kernel": arrays["conv2_kernel"][:, 1:]})
    with pytest.raises(ModelError, match="20 channels of conv2; expected a multiple of 8"):
        from_arrays(arrays | {"conv2_bias": np.zeros(20, np.float32)})
    with pytest.raises(ModelError, match="multiples of 4"):
        from_arrays(arrays | {"conv1_bias": arrays["conv1_bias"][:-2]})
