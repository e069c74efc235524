from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest

from anystar_batch.errors import ConfigError
from anystar_batch.network.profiles import neighbours
from anystar_batch.network.refiner import from_arrays, load_refiner
from anystar_batch.network.refiner_kernel import NAMES
from anystar_batch.stars.rays import golden_spiral
from tests.trainer.refine.conftest import Oracle
from trainer.__main__ import main
from trainer.matches import Tally
from trainer.refine import data, scores, texture
from trainer.refine.export import export, npz_bytes, read_arrays
from trainer.refine.finds import finds
from trainer.refine.fit import Draw, compiled, fit, rate, star_iou
from trainer.refine.network import build
from trainer.score import Prediction
from trainer.volumes import Truth

pytestmark = pytest.mark.network


@pytest.fixture
def run(scene, config, tmp_path):
    """A folder with shards; the first look is 1.2 times too large."""
    folder = tmp_path / "run"
    found = finds(scene, Oracle(scene.labels), config, np.random.default_rng(0))
    false = dataclasses.replace(found, truth=np.zeros_like(found.truth))
    for part in data.PARTS:
        data.write([found, false], folder / f"{part}_000.npz")
    return folder


def test_a_run_writes_curve_weights_and_config(run, config):
    fit(config, run)
    assert set(read_arrays(run / "weights.npz")) == set(NAMES)
    with (run / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(float(r["step"])) for r in rows] == [4]
    assert json.loads((run / "refine.json").read_text())["steps"] == 4


def test_training_learns_that_the_first_look_is_too_large(run, config):
    longer = dataclasses.replace(config, steps=60, rate=3e-3, jitter=0.0)
    fit(longer, run)
    refiner = from_arrays(read_arrays(run / "weights.npz"))
    found = scores.held_out(refiner, data.load(run, "held_out"))
    assert found["second"]["mean_iou"] > found["first"]["mean_iou"] + 0.1
    assert found["auc"]["prob"] == 0.5


def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(run, config, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in run.glob("*_0*.npz"):
        (other / path.name).write_bytes(path.read_bytes())
    fit(config, other)
    whole = read_arrays(other / "weights.npz")

    class StopError(Exception):
        pass

    def stop(self, step, draw=Draw.batch):
        if step == 2:
            raise StopError
        return draw(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draw, "batch", stop)
        with pytest.raises(StopError):
            fit(config, run)
    fit(config, run)
    parts = read_arrays(run / "weights.npz")
    for name in NAMES:
        assert np.allclose(parts[name], whole[name], atol=1e-6), name


def test_a_folder_of_another_run_is_refused(run, config):
    fit(config, run)
    with pytest.raises(ConfigError, match="run with another config"):
        fit(dataclasses.replace(config, rate=1e-4), run)


def test_teachers_are_asked_about_large_objects_alone(run, config):
    read = data.load(run, "train")
    near = neighbours(golden_spiral(96).vertices)
    trained = compiled(build(near), dataclasses.replace(config, teachers=("a",)))
    sampler = data.Sampler(read, golden_spiral(96).vertices, near)
    index = np.arange(len(read))
    inputs = list(sampler.inputs(index, read.dist))
    factor, quality = np.full_like(read.dist, 0.3), np.full((len(read), 1), 0.9, np.float32)

    def loss(asked, truth=1.0, said=1.0):
        column = np.full((len(read), 1), asked, np.float32)
        parts = [truth * read.truth, read.dist, said * factor, said * quality, column]
        value = trained.test_on_batch(inputs, np.concatenate(parts, axis=1))
        trained.reset_metrics()
        return float(np.ravel(value)[0])

    assert loss(1.0) != loss(1.0, said=0.5)
    assert loss(1.0) == loss(1.0, truth=0.8)
    assert loss(0.0) != loss(0.0, truth=0.8)
    assert loss(0.0) == loss(0.0, said=0.5)


def test_what_several_say_is_learnt_from_the_first_one_on(run, config, tmp_path):
    teachers = []
    for seed in (3, 4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for path in run.glob("*_0*.npz"):
            (folder / path.name).write_bytes(path.read_bytes())
        fit(dataclasses.replace(config, seed=seed, steps=20, rate=5e-3), folder)
        teachers.append(read_arrays(folder / "weights.npz"))
    refiners = [from_arrays(arrays) for arrays in teachers]
    digests = tuple(refiner.sha256 for refiner in refiners)
    taught = dataclasses.replace(config, teachers=digests, steps=1, rate=0.0)
    with pytest.raises(ConfigError, match="the config names"):
        fit(taught, tmp_path / "none", teachers[:1])
    fit(taught, run, teachers)
    begun = read_arrays(run / "weights.npz")
    assert all(np.array_equal(begun[name], teachers[0][name]) for name in NAMES)
    (run / "checkpoint.npz").unlink()
    fit(dataclasses.replace(taught, steps=60, rate=3e-3, jitter=0.0), run, teachers)
    read = data.load(run, "held_out")
    answers = [scores.data_refined(refiner, read, read.dist) for refiner in refiners]
    mean = np.exp(np.mean([np.log(dist) for dist, _ in answers], axis=0))
    found, quality = scores.data_refined(
        from_arrays(read_arrays(run / "weights.npz")), read, read.dist
    )

    def apart(dist):
        return float(np.abs(np.log(dist / mean)).mean())

    assert apart(found) < 0.5 * min(apart(dist) for dist, _ in answers)
    wanted = np.mean([q for _, q in answers], axis=0)
    assert np.abs(quality - wanted).mean() < 0.5 * np.abs(answers[0][1] - answers[1][1]).mean()


def test_training_begins_with_the_refiner_it_is_given(run, config, tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    for path in run.glob("*_0*.npz"):
        (folder / path.name).write_bytes(path.read_bytes())
    fit(dataclasses.replace(config, seed=3, steps=2), folder)
    start = read_arrays(folder / "weights.npz")
    with pytest.raises(ConfigError, match="got the start"):
        fit(config, run, start=start)
    begun = dataclasses.replace(config, start=from_arrays(start).sha256, steps=1, rate=0.0)
    fit(begun, run, start=start)
    found = read_arrays(run / "weights.npz")
    assert all(np.array_equal(found[name], start[name]) for name in NAMES)


def test_a_batch_is_a_function_of_seed_and_step(run, config):
    read = data.load(run, "train")
    draw = Draw(read, dataclasses.replace(config, false_share=0.25))
    index, dist = draw.batch(9)
    again, same = Draw(read, dataclasses.replace(config, false_share=0.25)).batch(9)
    assert np.array_equal(index, again)
    assert np.array_equal(dist, same)
    assert (~read.is_true[index]).sum() == 2
    assert not np.array_equal(draw.batch(10)[1], dist)


def test_the_rate_rises_and_falls_to_nothing(config):
    long = dataclasses.replace(config, steps=1000)
    rates = [rate(long, k) for k in range(1001)]
    assert rates[0] < rates[99]
    assert max(rates) < long.rate
    assert rates[1000] == pytest.approx(0.0, abs=1e-9)


def test_the_iou_of_stars_leaves_unknown_rays_out():
    truth = np.array([[2.0, 2.0, -1.0], [0.0, 0.0, 0.0]], np.float32)
    dist = np.array([[1.0, 2.0, 9.0], [3.0, 3.0, 3.0]], np.float32)
    assert star_iou(truth, dist).tolist() == pytest.approx([9.0 / 16.0, 0.0])


def test_equal_arrays_are_equal_bytes(run, config, tmp_path):
    fit(config, run)
    arrays = read_arrays(run / "weights.npz")
    assert npz_bytes(arrays) == npz_bytes(dict(reversed(arrays.items())))
    written = export(arrays, config, 0.3, {"held_out": 1}, tmp_path / "model")
    read = load_refiner(tmp_path / "model")
    assert read.sha256 == written.sha256
    assert read.quality_cut == 0.3
    assert (tmp_path / "model/refiner.npz").stat().st_size < 200_000


def still():
    """A refiner that leaves distances as they are, and says 0.5 of all."""
    from anystar_batch.network.refiner import shapes_of

    shapes = shapes_of((12, 16, 16, 48, 32, 1))
    return from_arrays({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


@pytest.fixture
def looked(scene):
    oracle = Oracle(scene.labels, factor=1.0)
    prob, dist = oracle.model(None, training=False)
    truth = Truth("balls", scene.image, scene.labels)
    prediction = Prediction(
        truth, prob[0, ..., 0], dist[0], scores.LatticeMap((1.0,) * 3, (0.0,) * 3), (2, 2, 2)
    )
    return scores.look(still(), prediction, (0.5, 0.3))


def test_a_perfect_first_look_scores_alike_with_a_second_that_changes_nothing(looked):
    assert scores.is_found(looked).all()
    assert np.all(looked.quality == 0.5)
    for second in (False, True):
        row = scores.row(scores.tally([looked], second=second))
        assert row["accuracy"] == [1.0] * 4
        assert 0.95 < row["ratio"] < 1.05


def test_the_cut_takes_finds_out(looked):
    assert scores.labels(looked, cut=0.5).max() == 3
    assert scores.labels(looked, cut=0.51).max() == 0
    assert scores.tally([looked], cut=0.51) == Tally((0,) * 4, (0,) * 4, (3,) * 4)


def test_finds_beside_the_objects_are_not_true(looked):
    moved = dataclasses.replace(
        looked, truth=dataclasses.replace(looked.truth, labels=np.roll(looked.truth.labels, 24, 2))
    )
    assert not scores.is_found(moved).any()


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    true = np.array([1, 1, 0, 1, 0, 0], bool)
    assert scores.separation(true, np.array([3.0, 2.0, 2.0, 5.0, 1.0, 0.0])) == pytest.approx(
        (3 + 2.5 + 3) / 9, abs=1e-4
    )
    assert scores.separation(true, true.astype(float)) == 1.0
    assert scores.separation(np.ones(3, bool), np.arange(3.0)) is None


def test_texture_volumes_are_the_frozen_ones():
    made, same = next(texture.volumes())
    assert made.labels.max() == 6
    assert same
    assert made.image.shape == (96, 96, 96)


def test_another_texture_is_refused(tmp_path):
    path = tmp_path / "texture.json"
    document = json.loads(texture.MANIFEST.read_text())
    document["volumes"][0]["labels_sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="volume 0 is not the frozen one"):
        next(texture.volumes(path))


def test_what_is_frozen_stays():
    with pytest.raises(ConfigError, match="what is frozen stays"):
        texture.freeze(texture.MANIFEST)


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert main(["refine", "train", "--run", str(tmp_path)]) == 2
    assert "run `refine data` first" in capsys.readouterr().err


def test_the_cut_keeps_the_good_finds(run):
    read = data.load(run, "held_out")
    refiner = still()
    assert scores.chosen_cut(refiner, read) == 0.5
    dist, quality = scores.data_refined(refiner, read, read.dist)
    assert np.array_equal(dist, read.dist)
    assert np.all(quality == 0.5)


def test_a_stretch_is_found_and_folded_in(run):
    read = data.load(run, "held_out")
    refiner = still()
    # IoU .66, and this second look leaves it so; times .97 it is .72, and passes .7.
    large = dataclasses.replace(read, dist=np.abs(read.truth) * np.float32(1.15))
    assert scores.tuned_stretch(refiner, large) == 0.97
    longer = from_arrays(scores.stretched(refiner, 1.1))
    dist, _ = scores.data_refined(longer, read, read.dist)
    assert np.allclose(dist, 1.1 * read.dist, rtol=1e-5)


def test_a_budget_may_change(run, config):
    fit(config, run)
    longer = dataclasses.replace(config, steps=6)
    fit(longer, run)
    assert json.loads((run / "refine.json").read_text())["steps"] == 6


def test_the_real_sets_are_left_out_without_a_folder(monkeypatch):
    from trainer.refine.measure import real_sets

    monkeypatch.delenv("ANYSTAR_BATCH_DATA", raising=False)
    assert real_sets(None, still()) == {}


def test_a_folder_without_a_refiner_is_named(run, config, capsys):
    fit(config, run)
    arguments = ["refine", "score", "--run", str(run), "--refiner", str(run)]
    assert main(arguments) == 2
    assert "holds no refiner.npz" in capsys.readouterr().err
