from __future__ import annotations

import dataclasses
from collections import deque
from contextlib import contextmanager
from itertools import count, islice, repeat

import keras
import numpy as np
import pytest
from keras import ops

from anystar_batch.errors import ConfigError
from trainer import fit as fit_module
from trainer.device import appearance as on_device
from trainer.device import corruption as steps
from trainer.device import stream
from trainer.device.batch import GeometryBatch, GeometrySource
from trainer.device.draws import Draws
from trainer.device.matrices import smooth
from trainer.device.painter import intensities, painter, place
from trainer.feed import SyntheticSource
from trainer.fit import fit
from trainer.synthesis import appearance, corruption, noise, sample
from trainer.synthesis.config import AppearanceConfig, SampleConfig, Step
from trainer.synthesis.shapes import Geometry

pytestmark = [pytest.mark.network, pytest.mark.filterwarnings("ignore")]

EDGE = 12


def pattern(shape):
    """Noise that depends on the last three coordinates alone."""
    axes = np.indices(tuple(shape)[-3:])
    one = 1.5 * np.cos(1.3 * axes[0] + 2.1 * axes[1] + 0.7 * axes[2])
    return np.broadcast_to(one, shape).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Known:
    """A generator for both sides whose every answer is known: `at` of a range, class `k`."""

    at: float
    k: int

    # As numpy.random.Generator, for the workers' code.
    def random(self, size=None):
        return self.at if size is None else np.full(size, self.at)

    def uniform(self, low=0.0, high=1.0, size=None):
        value = low + (high - low) * self.at
        return value if size is None else np.full(size, value)

    def integers(self, low, high=None):
        return min(self.k, low - 1) if high is None else min(low + self.k, high - 1)

    def standard_normal(self, size, dtype=None):
        return pattern(size)

    def poisson(self, mean):
        return mean


@dataclasses.dataclass(frozen=True)
class KnownDraws:
    """The same answers as `Draws`."""

    known: Known
    count: int

    def uniform(self, low=0.0, high=1.0, shape=()):
        return low + (high - low) * np.full((self.count, *shape), self.known.at, np.float32)

    def between(self, limits, shape=()):
        return self.uniform(*limits, shape)

    def normal(self, shape):
        return pattern((self.count, *shape))

    def chance(self, probability):
        return np.full(self.count, self.known.at < probability)

    def integer(self, below, shape=()):
        return np.full((self.count, *shape), min(self.known.k, below - 1), np.int32)

    def counts(self, mean):
        return mean


def drawn(number, seed=3):
    return Draws(keras.random.SeedGenerator(seed), number)


def spheres(edge=EDGE):
    """Two samples of a few labelled balls."""
    labels, depth = np.zeros((2, edge, edge, edge), np.int32), np.ones((2, edge, edge, edge))
    for n, centre in enumerate(((3, 3, 3), (8, 8, 4), (4, 9, 9)), start=1):
        for s in range(2):
            away = np.linalg.norm(np.indices((edge,) * 3).T - centre, axis=-1).T / (2.5 + s / 2)
            labels[s][away <= 1], depth[s][away <= 1] = n, away[away <= 1]
    return labels, depth.astype(np.float32)


def images():
    labels, _ = spheres()
    grain = np.random.default_rng(0).uniform(0.0, 0.2, labels.shape)
    return (0.3 + 0.2 * labels + grain).astype(np.float32)


@pytest.mark.parametrize("name", sorted(set(corruption.STEPS) - {"cutout"}))
def test_a_step_on_the_device_is_the_workers_step(name):
    image = images()
    kind = corruption.STEPS[name]
    for at, k in ((0.2, 0), (0.55, 1), (0.9, 2)):
        known = Known(at, k)
        values = {
            key: np.array([low + 0.23 * (high - low), low + 0.91 * (high - low)], np.float32)
            for key, (low, high) in kind.ranges.items()
        }
        found = steps.STEPS[name](KnownDraws(known, 2), image, values, kind.ranges)
        for s in range(2):
            own = {key: float(value[s]) for key, value in values.items()}
            expected = kind.apply(known, image[s], own)
            np.testing.assert_allclose(np.asarray(found[s]), expected, atol=1e-4, err_msg=f"{k}")
        if at == 0.9 and name not in {"min_max", "blur"}:
            assert np.abs(np.asarray(found) - image).max() > 1e-3


@pytest.mark.parametrize("background", ["bright", "rand"])
@pytest.mark.parametrize(("at", "k"), [(0.2, 0), (0.2, 1), (0.2, 2), (0.4, 3), (0.7, 0)])
def test_a_painting_on_the_device_is_the_workers_painting(background, at, k):
    labels, depth = spheres()
    config = AppearanceConfig(backgrounds=(background,))
    radius = np.array([2.5, 3.0], np.float32)
    draws = KnownDraws(Known(at, k), 2)
    found = on_device.paint(draws, ops.convert_to_tensor(labels), depth, radius, config)
    nothing = np.zeros(labels.shape[1:], np.bool_)
    for s in range(2):
        geometry = Geometry(labels[s], depth[s], nothing, float(radius[s]))
        expected = appearance.paint(Known(at, k), geometry, config)
        np.testing.assert_allclose(np.asarray(found[s]), expected, rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("at", [0.2, 0.4, 0.8])
def test_the_network_sees_the_workers_intensities(at):
    image = images()
    image[1] = 0.25
    config = SampleConfig(shape=(EDGE,) * 3)
    found = np.asarray(intensities(KnownDraws(Known(at, 0), 2), image, config))
    for s in range(2):
        expected = sample._intensities(Known(at, 0), image[s], config)
        np.testing.assert_allclose(found[s], expected, atol=1e-4)


def test_draws_have_the_moments_of_their_distributions():
    draws = drawn(2)
    uniform = np.asarray(draws.uniform(2.0, 4.0, (30_000,)))
    assert uniform.mean(1) == pytest.approx([3.0, 3.0], abs=0.02)
    normal = np.asarray(draws.normal((30_000,)))
    assert normal.std(1) == pytest.approx([1.0, 1.0], abs=0.02)
    assert abs(np.corrcoef(normal)[0, 1]) < 0.03
    thirds = np.bincount(np.asarray(draws.integer(3, (30_000,)))[0])
    assert thirds == pytest.approx([1e4] * 3, rel=0.1)
    means = np.array([0.2, 3.0, 9.5, 11.0, 60.0], np.float32)
    counts = np.asarray(drawn(5).counts(np.repeat(means[:, None], 30_000, axis=1)))
    np.testing.assert_array_equal(counts, np.round(counts))
    assert counts.min() == 0
    assert counts.mean(1) == pytest.approx(means, rel=0.02)
    assert counts.var(1) == pytest.approx(means, rel=0.05)
    assert (counts[0] == 0).mean() == pytest.approx(np.exp(-0.2), abs=0.01)


def test_small_draws_never_repeat_each_other():
    draws = drawn(3)
    values = [np.asarray(draws.normal((700,))) for _ in range(9)]
    values += [np.asarray(draws.normal((5000,)))]
    every = np.concatenate(values, axis=1)
    assert len(np.unique(every)) > 0.999 * every.size


@pytest.mark.parametrize("scale", [3.0, 7.0])
def test_smooth_noise_has_the_workers_spread_and_length(scale):
    n = 24
    theirs = np.stack([noise.smooth(np.random.default_rng(s), (n, n, n), scale) for s in range(12)])
    ours = np.asarray(smooth(drawn(12), n, ops.full((12,), scale), 3.0))

    def figures(field):
        lag = int(scale)
        return field.std(), (field[:, lag:] * field[:, :-lag]).mean() / field.var()

    assert figures(ours) == pytest.approx(figures(theirs), abs=0.06)
    assert figures(ours)[0] == pytest.approx(0.33, abs=0.05)


def test_classes_of_the_background_are_as_many_and_as_large_as_the_workers():
    n = 24
    config = AppearanceConfig(classes=(7, 7), std=(0.0, 0.0), class_scales=(6.0, 12.0))
    ours = np.asarray(on_device._classes(drawn(8), n, config))
    rngs = [np.random.default_rng(s) for s in range(8)]
    theirs = np.stack([appearance._classes(rng, (n, n, n), config) for rng in rngs])

    def figures(field):
        return [float(np.mean(np.take(field, range(1, n), a) == np.take(field, range(n - 1), a)))
                for a in (1, 2, 3)]  # fmt: skip

    assert figures(ours) == pytest.approx(figures(theirs), abs=0.05)
    kinds = [len(np.unique(field)) for field in ours]
    assert max(kinds) == 7
    assert min(kinds) >= 5
    assert 25.0 <= ours.min() < ours.max() <= 225.0


def test_objects_have_their_means_and_keep_their_contrast():
    labels, depth = spheres()
    labels, depth = np.repeat(labels[:1], 16, axis=0), np.repeat(depth[:1], 16, axis=0)
    config = AppearanceConfig(
        backgrounds=("rand",), std=(0.0, 0.0), textured=0.0, profiled=0.0, clutter=0.0, alike=0.0
    )
    radius = np.full(16, 2.5, np.float32)
    found = np.asarray(
        on_device.paint(drawn(16), ops.convert_to_tensor(labels), depth, radius, config)
    )
    inside, sides = [], set()
    for s in range(16):
        background = found[s][labels[s] == 0]
        assert background.std() < 1e-3
        means = [found[s][labels[s] == n] for n in (1, 2, 3)]
        assert all(values.std() < 1e-3 for values in means)
        means = np.array([values.mean() for values in means])
        assert np.abs(means - background.mean()).min() >= config.contrast - 1e-3
        inside.append(means)
        sides |= set(np.sign(means - background.mean()))
    # Drawn one by one; only those that were pushed away from the background can agree.
    assert len(np.unique(np.round(inside, 2))) > 36
    assert sides == {-1.0, 1.0}


def test_domed_objects_fade_into_their_background():
    labels, depth = spheres()
    config = AppearanceConfig(
        backgrounds=("rand",), std=(0.0, 0.0), textured=0.0, profiled=0.0, clutter=0.0
    )
    domed = dataclasses.replace(config, domed=1.0, dome=(4.0, 4.0))
    radius = np.full(len(labels), 2.5, np.float32)
    flat, faded = (
        np.asarray(
            on_device.paint(drawn(len(labels)), ops.convert_to_tensor(labels), depth, radius, c)
        )
        for c in (config, domed)
    )
    inside = labels > 0
    for s in range(len(labels)):
        background = flat[s][~inside[s]][0]
        left = (faded[s] - background)[inside[s]] / (flat[s] - background)[inside[s]]
        np.testing.assert_allclose(left, 1.0 - depth[s][inside[s]].astype(float) ** 4, atol=1e-3)


SHORT = (
    Step("min_max"),
    Step("gaussian_noise", 0.3, (("std", (0.05, 0.05)),)),
    Step("cutout", 0.5, (("holes", (64.0, 64.0)), ("edge", (6.0, 6.0)))),
)


def test_a_step_is_on_as_often_as_its_probability_says():
    image = np.random.default_rng(1).uniform(0.0, 1.0, (600, 4, 4, 4)).astype(np.float32)
    holes = np.zeros(image.shape, np.uint8)
    found = np.asarray(steps.corrupt(drawn(600), image, holes, SHORT[1:]))
    changed = np.abs(found - image).max(axis=(1, 2, 3)) > 1e-6
    assert changed.mean() == pytest.approx(0.3, abs=0.08)
    never = np.asarray(steps.corrupt(drawn(600), image, holes, (Step("gamma", 0.0),)))
    np.testing.assert_array_equal(never, image)


def test_holes_are_in_the_targets_and_in_the_image(tiny):
    shapes = dataclasses.replace(tiny.sample.shapes, radius=(3.0, 5.0), sparse=0.0, dropped=0.0)
    config = dataclasses.replace(
        tiny, sample=dataclasses.replace(tiny.sample, steps=SHORT, shapes=shapes), batch=40
    )
    batch = GeometrySource(config).batch(0)
    assert (batch.labels.dtype, batch.depth.dtype, batch.dist.dtype) == (
        np.int16, np.float16, np.float16,
    )  # fmt: skip
    assert batch.dense().shape == (40, 8, 8, 8, 17)
    holed = batch.holes.any(axis=(1, 2, 3))
    assert holed.mean() == pytest.approx(0.5, abs=0.25)
    hole = batch.holes[:, ::2, ::2, ::2] > 0
    assert not batch.prob[..., 0][hole].any()
    # Painted whole, cut later: the objects are still there.
    assert (batch.labels[:, ::2, ::2, ::2][hole] > 0).any()
    image = np.ones(batch.labels.shape, np.float32)
    found = np.asarray(steps.corrupt(drawn(40), image, batch.holes, SHORT[2:]))
    np.testing.assert_array_equal(found == 0, batch.holes > 0)


def test_without_cutout_the_targets_are_the_workers(tiny):
    config = dataclasses.replace(
        tiny, sample=dataclasses.replace(tiny.sample, steps=(Step("blur"),))
    )
    ours, theirs = GeometrySource(config).batch(2), SyntheticSource(config).batch(2)
    np.testing.assert_array_equal(ours.prob, theirs.prob)
    np.testing.assert_array_equal(ours.dense(), theirs.dist)
    assert 0 < ours.dist.size < theirs.dist.size


@pytest.fixture
def eagerly():
    """Run the painting operation by operation: compiling all of it takes longer than the test."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_a_seed_and_a_number_name_a_painting(tiny, eagerly):
    config = dataclasses.replace(
        tiny,
        batch=4,
        sample=dataclasses.replace(
            tiny.sample,
            shapes=dataclasses.replace(tiny.sample.shapes, empty_border=1.0, sparse=0.0),
        ),
    )
    placed, paint = place(GeometrySource(config).batch(0)), painter(config.sample)
    first, again, other = (np.asarray(paint(placed, 7, n)) for n in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (4, 16, 16, 16, 1)
    assert np.isfinite(first).all()
    assert 0.0 <= first.min() < first.max() <= 1.0
    assert np.abs(first - other).mean() > 0.05
    assert np.abs(first[0] - first[1]).mean() > 0.01
    plain = dataclasses.replace(config.sample, steps=(), dimmed=0.0)
    void = np.asarray(placed.void)
    assert void.any()
    assert not np.asarray(painter(plain)(placed, 7, 5))[void].any()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("smear"), "step: got 'smear'"),
        (Step("blur", 1.0, (("alpha", (0.0, 1.0)),)), r"step blur: got parameters \['alpha'\]"),
        (Step("acquire", 1.0, (("plane", (0.5, 1.0)),)), "got plane from 0.5; expected 1 or more"),
    ],
)
def test_steps_that_the_device_cannot_do_are_named(step, message):
    with pytest.raises(ConfigError, match=message):
        painter(SampleConfig(shape=(8, 8, 8), steps=(step,)))


def test_a_step_without_an_implementation_is_named(monkeypatch):
    monkeypatch.delitem(steps.STEPS, "blur")
    with pytest.raises(ConfigError, match="step blur: not made on the device"):
        steps.check((Step("blur"),))


def empty(number):
    one = np.full((1, 1), number)
    return GeometryBatch(one, one, one, one, one, one, one, one)


def test_every_batch_is_painted_echo_times_each_time_anew(tiny, monkeypatch):
    monkeypatch.setattr(stream, "place", lambda batch: batch)
    monkeypatch.setattr(stream, "painter", lambda _c: lambda b, s, n: (int(b.prob[0, 0]), s, n))
    config = dataclasses.replace(tiny, echo=3)
    batches = stream.painted((empty(k) for k in range(5)), config, 40)
    made = [b.image for b in batches]
    assert [m[0] for m in made] == [0, 1, 0, 2, 1, 0, 3, 2, 1, 4, 3, 2]
    assert {m[1] for m in made} == {config.seed}
    assert [m[2] for m in made] == list(range(40, 52))


def test_images_are_no_geometry(tiny):
    batches = iter([SyntheticSource(tiny).batch(0)])
    with pytest.raises(ConfigError, match="the source sent images"):
        next(stream.painted(batches, tiny, 0))


def test_the_thread_runs_ahead_and_no_further_and_ends_with_its_reader():
    made = deque()
    endless = (made.append(n) or n for n in count())
    with stream.ahead(endless, 2) as items:
        assert list(islice(items, 3)) == [0, 1, 2]
    assert len(made) <= 3 + 2 + 2
    with stream.ahead(iter([1, 2])) as items:
        assert list(items) == [1, 2]


def test_what_the_thread_raises_reaches_the_loop():
    def broken():
        yield 1
        message = "broken on purpose"
        raise ConfigError(message)

    with stream.ahead(broken()) as items:
        assert next(items) == 1
        with pytest.raises(ConfigError, match="on purpose"):
            next(items)


@contextmanager
def shapes_for_ever(config, _start, _source):
    """Stand in for the workers: the same shapes for ever."""
    yield repeat(GeometrySource(config).batch(0))


def test_training_on_fresh_paintings_lowers_the_loss(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "REPORT", 20)
    monkeypatch.setattr(fit_module, "WARM_UP", 5)
    monkeypatch.setattr(fit_module, "feed", shapes_for_ever)
    shapes = dataclasses.replace(tiny.sample.shapes, radius=(3.0, 4.0), sparse=0.0)
    plain = AppearanceConfig(backgrounds=("bright",), textured=0.0, profiled=0.0, clutter=0.0)
    config = dataclasses.replace(
        tiny,
        sample=dataclasses.replace(tiny.sample, shapes=shapes, appearance=plain, steps=SHORT),
        appearance="device",
        echo=5,
        steps=120,
        learning_rate=5e-3,
    )
    rows = []
    fit(config, tmp_path, rows.append)
    assert rows[-1]["loss_dist"] < 0.9 * rows[0]["loss_dist"]
    assert rows[-1]["loss_prob"] < 0.95 * rows[0]["loss_prob"]
    assert rows[-1]["step"] == 120
