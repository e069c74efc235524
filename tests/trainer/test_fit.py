from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from anystar_batch.errors import ConfigError
from anystar_batch.network import unet, weights
from anystar_batch.stars.rays import golden_spiral
from tests.support.checkout import ROOT
from trainer import fit as module
from trainer.config import TrainConfig
from trainer.feed import SyntheticSource
from trainer.figures import learning_curve
from trainer.fit import COLUMNS, Progress, _average, _claim, fit, learning_rate, step_precision
from trainer.loss import dist_target, minus_log_iou
from trainer.synthesis.config import AppearanceConfig, Step

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_learning_rate_falls_linearly_to_0_whichever_budget_ends_first():
    config = TrainConfig(minutes=10.0, steps=1000, learning_rate=1e-3)
    assert learning_rate(config, Progress(step=500, minutes=2.0)) == pytest.approx(5e-4)
    assert learning_rate(config, Progress(step=500, minutes=7.5)) == pytest.approx(2.5e-4)
    assert learning_rate(config, Progress(step=999, minutes=10.0)) == 0.0
    assert learning_rate(config, Progress(step=0)) < 5e-5


def test_the_learning_rate_stays_flat_until_it_falls():
    config = TrainConfig(minutes=10.0, learning_rate=1e-3, fall_from=0.8)
    assert learning_rate(config, Progress(step=500, minutes=0.5)) == pytest.approx(1e-3)
    assert learning_rate(config, Progress(step=500, minutes=8.0)) == pytest.approx(1e-3)
    assert learning_rate(config, Progress(step=500, minutes=9.0)) == pytest.approx(5e-4)
    assert learning_rate(config, Progress(step=500, minutes=10.0)) == 0.0


def test_the_average_forgets_what_lies_before_its_window():
    progress = Progress()
    for value in (100.0, 0.0, 3.0, 3.0):
        _average(progress, [np.full(2, value, np.float32)], 2)
    np.testing.assert_allclose(progress.average[0], 14.75)
    progress = Progress()
    for value in (100.0, 0.0, 3.0, 3.0):
        _average(progress, [np.full(2, value, np.float32)], 0)
    np.testing.assert_allclose(progress.average[0], 26.5)


class FakeModel:
    def train_on_batch(self, *_):
        pass


@pytest.mark.network
def test_the_precision_is_the_one_whose_steps_are_faster(tiny, monkeypatch):
    ticks = iter((0.0, 3.0, 10.0, 11.0))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    config = dataclasses.replace(tiny, precision="auto")
    assert step_precision(config) == "bfloat16"
    monkeypatch.setattr(module, "build", lambda *_: FakeModel())
    monkeypatch.setattr(module, "compile_model", lambda *_: None)
    ticks = iter((0.0, 1.0, 10.0, 13.0))
    assert step_precision(config) == "float32"


@pytest.mark.network
def test_a_run_keeps_the_average_so_far(tiny, tmp_path):
    config = dataclasses.replace(
        tiny, steps=21, average_from=0.0, average_window=1, checkpoint_minutes=0.0
    )
    fit(config, tmp_path)
    last = unet.build(config.network)
    weights.load_weights(last, tmp_path / "weights_average.h5")
    best = unet.build(config.network)
    weights.load_weights(best, tmp_path / "weights_best.h5")
    for a, b in zip(last.get_weights(), best.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.network
def test_a_lower_bound_asks_for_no_less_and_no_more():
    target = np.array([[5.0, -5.0, -5.0, 0.0]], np.float32)
    answer = np.array([[3.0, 3.0, 9.0, 2.0]], np.float32)
    np.testing.assert_array_equal(np.asarray(dist_target(target, answer)), [[5.0, 5.0, 9.0, 0.0]])


@pytest.mark.network
def test_the_loss_is_the_iou_of_two_bodies_about_one_point():
    rng = np.random.default_rng(3)
    rays = golden_spiral(256)
    # Two ellipsoids about the origin, by rays and by voxels.
    halves = rng.uniform(6.0, 14.0, (2, 3))
    dist = 1.0 / np.linalg.norm(rays.vertices[None] / halves[:, None], axis=-1)
    voxels = np.stack(np.indices((31, 31, 31)), -1) - 15.0
    inside = [np.linalg.norm(voxels / h, axis=-1) <= 1.0 for h in halves]
    iou = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
    for a, b in ((0, 1), (1, 0)):
        loss = float(minus_log_iou(dist[a].astype(np.float32), dist[b].astype(np.float32)))
        assert np.exp(-loss) == pytest.approx(iou, abs=0.02)
    assert float(minus_log_iou(dist[0], dist[0])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.network
def test_a_run_begins_with_the_weights_it_is_given(tiny, tmp_path):
    first = fit(dataclasses.replace(tiny, steps=2), tmp_path / "first")
    config = dataclasses.replace(tiny, steps=1, learning_rate=0.0, freeze_norm_from=0.0)
    second = fit(config, tmp_path / "second", start=tmp_path / "first" / "weights_best.h5")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.network
def test_a_run_leaves_curve_checkpoint_and_weights(tiny, tmp_path):
    rows = []
    model = fit(tiny, tmp_path, rows.append)
    with (tmp_path / "curve.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert list(curve[0]) == list(COLUMNS)
    assert len(curve) == len(rows) == 1
    assert rows[0]["step"] == 6
    assert rows[0]["learning_rate"] == 0
    assert 0.0 <= rows[0]["waiting_share"] <= 1.0
    assert {p.name for p in tmp_path.iterdir()} == {
        "train.json", "curve.csv", "checkpoint.npz", "weights_last.h5", "weights_best.h5"
    }  # fmt: skip
    again = unet.build(tiny.network)
    weights.load_weights(again, tmp_path / "weights_best.h5")
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    learning_curve(tmp_path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


@pytest.mark.network
def test_a_run_cut_in_two_ends_where_a_whole_one_does(tiny, tmp_path, monkeypatch):
    # A budget of time in the background keeps the learning rate the same in both.
    config = dataclasses.replace(tiny, average_from=0.0)
    monkeypatch.setattr(module, "AVERAGE", 1)
    monkeypatch.setattr(module, "learning_rate", lambda _config, _progress: 1e-3)
    whole = fit(config, tmp_path / "whole")
    fit(dataclasses.replace(config, steps=3), tmp_path / "cut")
    cut = fit(config, tmp_path / "cut")
    for a, b in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class Again:
    """The same two batches for ever: what any network can learn."""

    config: TrainConfig

    def batch(self, index):
        return SyntheticSource(self.config).batch(index % 2)


@pytest.mark.network
def test_training_lowers_the_loss(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REPORT", 20)
    monkeypatch.setattr(module, "WARM_UP", 5)
    rows = []
    shapes = dataclasses.replace(tiny.sample.shapes, radius=(3.0, 4.0), sparse=0.0)
    sample = dataclasses.replace(tiny.sample, shapes=shapes)
    config = dataclasses.replace(tiny, sample=sample, steps=120, learning_rate=5e-3)
    fit(config, tmp_path, rows.append, batches=Again(config))
    assert rows[-1]["loss_dist"] < 0.9 * rows[0]["loss_dist"]
    assert rows[-1]["loss_prob"] < 0.95 * rows[0]["loss_prob"]
    assert rows[-1]["samples"] == 240


@pytest.mark.network
def test_frozen_normalisation_keeps_its_statistics_and_trains_the_rest(tiny, tmp_path):
    config = dataclasses.replace(tiny, steps=8, average_from=1.0)
    fit(dataclasses.replace(config, steps=4, freeze_norm_from=1.0), tmp_path / "run")
    before = unet.build(config.network)
    weights.load_weights(before, tmp_path / "run" / "weights_last.h5")
    document = (tmp_path / "run" / "train.json").read_text()
    frozen = document.replace('"freeze_norm_from": 1.0', '"freeze_norm_from": 0.4')
    (tmp_path / "run" / "train.json").write_text(frozen)
    after = fit(dataclasses.replace(config, freeze_norm_from=0.4), tmp_path / "run")
    for old, new in zip(before.weights, after.weights, strict=True):
        assert np.array_equal(old.numpy(), new.numpy()) == ("moving" in new.path)


@pytest.mark.network
def test_a_folder_of_another_run_is_refused(tiny, tmp_path):
    fit(dataclasses.replace(tiny, steps=1), tmp_path)
    with pytest.raises(ConfigError, match="differs in batch, seed"):
        fit(dataclasses.replace(tiny, batch=1, seed=8), tmp_path)


def test_a_run_of_an_older_version_goes_on_and_may_move_to_the_device(tiny, tmp_path):
    document = json.loads(tiny.to_json())
    del document["appearance"]
    (tmp_path / "train.json").write_text(json.dumps(document))
    _claim(tmp_path, dataclasses.replace(tiny, appearance="device"))
    assert json.loads((tmp_path / "train.json").read_text())["appearance"] == "device"
    with pytest.raises(ConfigError, match="differs in batch;"):
        _claim(tmp_path, dataclasses.replace(tiny, batch=1))


JAX_RUN = """
import sys
from pathlib import Path
sys.modules["tensorflow"] = None  # a machine that trains under JAX need not have it
import numpy as np
from trainer.config import TrainConfig
from trainer.fit import fit

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    config = TrainConfig.from_json((folder / "config.json").read_text())
    model = fit(config, folder / "run")
    import keras
    assert keras.backend.backend() == "jax"
    image = np.load(folder / "image.npy")
    prob, dist = model(image, training=False)
    from trainer.device.batch import GeometrySource
    from trainer.device.painter import painter, place
    placed, paint = place(GeometrySource(config).batch(0)), painter(config.sample)
    first, again, other = (np.asarray(paint(placed, 7, n)) for n in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert 0.0 <= first.min() < first.max() <= 1.0
    assert np.abs(first - other).mean() > 0.01
    np.savez(folder / "jax.npz", prob=np.asarray(prob), dist=np.asarray(dist))
"""


@pytest.mark.network
def test_jax_paints_and_trains_and_tensorflow_computes_the_same(tiny, tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip('jax is not installed (pip install "jax[cpu]")')
    # Few steps of the degradation: compiling them all takes 20 s.
    looks = AppearanceConfig(backgrounds=("rand",), textured=0.0, clutter=0.0)
    steps = (Step("min_max"), Step("blur"), Step("acquire", 0.5), Step("gibbs", 0.5))
    sample = dataclasses.replace(tiny.sample, appearance=looks, steps=steps)
    config = dataclasses.replace(tiny, sample=sample, appearance="device", echo=2)
    (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "run_jax.py").write_text(JAX_RUN)
    image = np.random.default_rng(0).uniform(size=(1, 16, 16, 16, 1)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    root = ROOT
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run_jax.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    model = unet.build(tiny.network)
    weights.load_weights(model, tmp_path / "run" / "weights_best.h5")
    prob, dist = model(image, training=False)
    with np.load(tmp_path / "jax.npz") as expected:
        np.testing.assert_allclose(np.asarray(prob), expected["prob"], atol=1e-5)
        np.testing.assert_allclose(np.asarray(dist), expected["dist"], atol=1e-5)
