from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from anystar_batch.errors import ConfigError
from anystar_batch.network.profiles import neighbours
from anystar_batch.network.refiner_kernel import ray_voxels
from anystar_batch.stars.polyhedra import spreads, volumes
from anystar_batch.stars.rays import golden_spiral
from tests.trainer.refine.conftest import Oracle, balls, shown
from trainer.refine import data
from trainer.refine.config import RefineConfig, SceneConfig, SmallScenes
from trainer.refine.finds import UNKNOWN, distances, finds
from trainer.refine.negatives import KINDS, field, mixed
from trainer.refine.scene import Scene, make_scene, planes, seen, unequal

DIRECTIONS = golden_spiral(96).vertices


def test_a_config_comes_back_from_its_json():
    config = RefineConfig(scene=SceneConfig(edge=48), steps=7)
    assert RefineConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SceneConfig(edge=8), "edge of 8"),
        (lambda: SceneConfig(radius=(9.0, 5.0)), r"radius \(9.0, 5.0\)"),
        (lambda: RefineConfig(held_out_seed=17), "got seed 17"),
        (lambda: RefineConfig(batch=0), "got batch 0"),
        (lambda: RefineConfig(fed_back=1.0), "got fed_back 1.0"),
        (lambda: RefineConfig.from_json("{"), "is no JSON:"),
        (lambda: RefineConfig.from_json("[]"), "no JSON object"),
        (lambda: RefineConfig.from_json('{"width": 3}'), r"unknown keys \['width'\]"),
        (lambda: RefineConfig.from_json('{"scene": {"x": 3}}'), r"unknown keys \['x'\]"),
        (lambda: RefineConfig.from_json('{"scene": 3}'), "scene 3; expected a JSON object"),
    ],
)
def test_what_is_no_config_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_scene_is_a_function_of_seed_and_index():
    config = SceneConfig(edge=32)
    one, again, other = (make_scene(3, k, config) for k in (5, 5, 6))
    assert one.image.tobytes() == again.image.tobytes()
    assert one.labels.tobytes() == again.labels.tobytes()
    assert one.image.tobytes() != other.image.tobytes()
    assert np.isfinite(one.image).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_stack_keeps_planes_where_they_were(axis):
    ramp = np.moveaxis(np.broadcast_to(np.arange(40.0)[:, None, None], (40, 32, 32)), 0, axis)
    config = SceneConfig(planes=(3.0, 4.0))
    image, step, offset = planes(
        np.random.default_rng(0), ramp.astype(np.float32), 12.0, axis, config
    )
    assert 3.0 <= step[axis] <= 4.0
    where = offset[axis] + step[axis] * np.arange(image.shape[axis])
    assert np.allclose(np.moveaxis(image, axis, 0)[:, 0, 0], where, atol=1e-3)


def test_blurred_objects_end_where_their_light_does():
    labels, _ = balls(radius=8.0)
    sharp, wide = (np.array([0.1, 0.0, 0.0]), np.array([3.0, 0.0, 0.0]))
    assert seen(labels, sharp, 0.3) is labels
    moved = seen(labels, wide, 0.3)
    assert set(np.unique(moved)) == {0, 1, 2, 3}
    column = moved[:, 14, 30] == 2
    assert column.sum() > (labels[:, 14, 30] == 2).sum() + 1
    smaller = seen(labels, wide, 0.7)
    assert (smaller > 0).sum() < (labels > 0).sum()


def test_objects_get_contrasts_of_their_own():
    labels, _ = balls()
    image = np.where(labels > 0, 110.0, 10.0).astype(np.float32)
    dim = unequal(np.random.default_rng(0), image, labels, 10.0)
    levels = [float(dim[labels == k].mean()) for k in (1, 2, 3)]
    assert np.all(dim[labels == 0] == 10.0)
    assert len({round(v, 3) for v in levels}) == 3
    assert all(20.0 - 1e-3 <= v <= 110.0 for v in levels)


@pytest.mark.parametrize("kind", KINDS)
def test_every_background_has_structure(kind):
    made = field(np.random.default_rng(1), (32, 32, 32), kind, 6.0)
    assert made.std() > 0.05
    assert np.abs(made).max() < 4.0


def test_most_structures_leave_the_objects_alone():
    labels, _ = balls()
    image = np.where(labels > 0, 110.0, 10.0).astype(np.float32)
    same = 0
    for seed in range(10):
        made = mixed(np.random.default_rng(seed), image, labels, 7.0)
        assert not np.array_equal(made[labels == 0], image[labels == 0])
        same += np.array_equal(made[labels > 0], image[labels > 0])
    assert same >= 5


def test_distances_end_where_the_label_ends():
    labels = np.zeros((20, 20, 20), np.int32)
    labels[4:12, 5:15, 6:18] = 3
    axes = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    found = distances(labels, np.array([[8.25, 9.0, 10.0]]), axes)
    assert np.allclose(found[0], [3.25, 4.75, 5.5, 4.5, 7.5, 4.5])


def test_distances_of_a_ball_are_its_radius():
    labels, centres = balls(radius=9.0)
    found = distances(labels, centres[:1] + 0.0, DIRECTIONS)
    assert np.abs(found - 9.0).max() < 0.9


def test_a_ray_that_leaves_says_nothing_and_background_has_no_distances():
    labels = np.zeros((10, 10, 10), np.int32)
    labels[:, 2:8, 2:8] = 1
    points = np.array([[5.0, 5.0, 5.0], [5.0, 0.0, 0.0], [-3.0, 5.0, 5.0]])
    found = distances(labels, points, np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    assert found[0, 0] == UNKNOWN
    assert found[0, 1] == 2.5
    assert not found[1:].any()


def test_finds_know_their_objects(scene, config):
    found = finds(scene, Oracle(scene.labels), config, np.random.default_rng(0))
    assert len(found) == 3
    ratio = found.dist / found.truth
    assert abs(np.median(ratio) - 1.2 / 1.02) < 0.05


def test_a_find_in_the_background_is_a_false_one(scene, config):
    moved = np.roll(scene.labels, 20, 0)
    found = finds(scene, Oracle(moved), config, np.random.default_rng(0))
    false = ~(found.truth > 0).any(axis=1)
    assert false.any()
    assert not found.truth[false].any()


def test_an_image_without_contrast_has_no_finds(scene, config):
    flat = Scene(np.ones_like(scene.image), scene.labels, scene.step, scene.offset, 7.0)
    assert finds(flat, Oracle(scene.labels), config, np.random.default_rng(0)) is None


@pytest.fixture
def written(scene, config, tmp_path):
    found = finds(scene, Oracle(scene.labels), config, np.random.default_rng(0))
    for number in range(2):
        data.write([found, found], tmp_path / f"train_{number:03d}.npz")
    return found, tmp_path


def test_shards_of_small_scenes_come_after_the_others(tmp_path):
    config = RefineConfig(
        scenes=50, held_out=20, small=SmallScenes(seed=7, held_out_seed=8, scenes=30, held_out=5)
    )
    listed = data.shards(config, tmp_path)
    assert [(s.path.name, s.seed, s.scenes, s.scene.edge) for s in listed] == [
        ("train_000.npz", 17, range(20), 64),
        ("train_001.npz", 17, range(20, 40), 64),
        ("train_002.npz", 17, range(40, 50), 64),
        ("train_003.npz", 7, range(20), 48),
        ("train_004.npz", 7, range(20, 30), 48),
        ("held_out_000.npz", 1_000_017, range(20), 64),
        ("held_out_001.npz", 8, range(5), 48),
    ]


def test_rays_are_as_long_as_the_image_shows_them(scene, config, tmp_path):
    dist = np.full((2, 96), 4.0, np.float32)
    sizes = ray_voxels(dist, np.array([(1.0, 2.0, 2.0), (3.0, 3.0, 3.0)]), DIRECTIONS)
    # Over the sphere the mean of sqrt(z^2 + 4 y^2 + 4 x^2) is 1.716...
    assert 4 * 1.70 < sizes[0] < 4 * 1.73
    assert np.isclose(sizes[1], 12.0)
    found = finds(scene, Oracle(scene.labels), config, np.random.default_rng(0))
    found.dist[1] *= 2.0
    data.write([found, found], tmp_path / "train_000.npz")
    mine = ray_voxels(found.dist, np.array([found.step] * 3), DIRECTIONS)
    read = data.load(tmp_path, "train", (0.0, 0.8 * float(mine[1])))
    assert len(read) == 4, "two of three, in two scenes"
    assert np.array_equal(read.dist, found.dist[[0, 2, 0, 2]])


def test_shards_come_back(written):
    found, folder = written
    read = data.load(folder, "train")
    assert len(read) == 12
    assert len(read.images) == 4
    assert read.scene.tolist() == [k for k in range(4) for _ in range(3)]
    assert np.allclose(read.images[3], found.image, rtol=1e-3)
    assert np.array_equal(read.dist[9:], found.dist)
    assert read.is_true.all()


def test_without_shards_the_message_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match="run `refine data` first"):
        data.load(tmp_path, "train")


def test_profiles_of_a_find_do_not_depend_on_the_batch(written):
    read = data.load(written[1], "train")
    sampler = data.Sampler(read, DIRECTIONS, neighbours(DIRECTIONS))
    values, scalars = sampler.inputs(range(12), read.dist)
    one, its = sampler.inputs([7], read.dist[7:8])
    assert np.array_equal(one[0], values[7])
    assert np.array_equal(its[0], scalars[7])
    # A bright ball: its core above, its surroundings below.
    assert values[:, :8, 0].mean() > 0.3 > -0.3 > values[:, 20:, 0].mean()


def long_balls(longer=1.5):
    """Labels of nine ellipsoids, longer along axis 0."""
    labels = np.zeros((60, 60, 60), np.int32)
    grid = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing="ij"), axis=-1)
    centres = [(30.0, y, x) for y in (10.0, 30.0, 50.0) for x in (10.0, 30.0, 50.0)]
    for number, centre in enumerate(centres, 1):
        away = (grid - centre) / np.array([longer, 1.0, 1.0])
        labels[np.linalg.norm(away, axis=-1) < 7.0] = number
    return labels


def test_the_elongation_of_a_scene_is_that_of_its_objects():
    labels = long_balls()
    scene = Scene(shown(labels), labels, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), 7.0)
    assert scene.elongation() == pytest.approx(1.5, rel=0.02)
    few = np.where(labels < 8, labels, 0)
    assert Scene(scene.image, few, scene.step, scene.offset, 7.0).elongation() == 1.0


@pytest.mark.parametrize("step", [1.0, 2.0])
def test_squeezed_objects_are_round_in_working_voxels(config, step):
    labels = long_balls()
    image = shown(labels)[:: int(step)]
    scene = Scene(image, labels, (step, 1.0, 1.0), (0.0, 0.0, 0.0), 7.0)
    size = scene.diameter()
    config = dataclasses.replace(config, working=(size / 2.0, size / 2.0), squeezed=1.0)
    longer = scene.elongation()
    across = 2.0 * longer ** (-1.0 / 3.0)
    at = [np.arange(round(60 / s)) * s + (s - 1.0) / 2.0 for s in (across * longer, across, across)]
    seen_as = labels[np.ix_(*(np.minimum(np.rint(a).astype(int), 59) for a in at))]
    found = finds(scene, Oracle(seen_as), config, np.random.default_rng(0))
    found = found.take((found.truth > 0).all(axis=1))
    assert len(found) == 9
    assert found.step[0] * step / found.step[1] == pytest.approx(longer)
    assert np.prod(found.step) * step == pytest.approx(8.0)
    spread = spreads(found.truth, golden_spiral(96))
    lengths = spread[:, 0] / np.sqrt(spread[:, 1] * spread[:, 2])
    assert np.median(lengths) == pytest.approx(1.0, abs=0.04)
    volume = volumes(found.truth, golden_spiral(96)) * 8.0
    assert np.median(volume) == pytest.approx(np.bincount(labels.ravel())[1], rel=0.03)
