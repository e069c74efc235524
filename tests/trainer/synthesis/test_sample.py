from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from anystar_batch.errors import ConfigError
from tests.support.checkout import ROOT
from trainer.synthesis import sample as module
from trainer.synthesis.appearance import _clutter, paint
from trainer.synthesis.config import (
    PRESETS,
    PUBLISHED_STEPS,
    AppearanceConfig,
    SampleConfig,
    ShapesConfig,
    Step,
)
from trainer.synthesis.corruption import STEPS, _coarser, corrupt
from trainer.synthesis.sample import geometry_index, make_sample
from trainer.synthesis.shapes import Geometry, connected_pieces, sample_geometry

SMALL = SampleConfig.preset("as-mix", edge=32)


def digest(sample):
    return hashlib.sha256(sample.image.tobytes() + sample.labels.tobytes()).hexdigest()


def test_sample_n_alone_is_the_nth_of_a_run():
    run = [digest(make_sample(7, n, SMALL)) for n in range(12)]
    for n in (11, 3, 0):
        module._geometry.cache_clear()
        assert digest(make_sample(7, n, SMALL)) == run[n]
    assert len(set(run)) == len(run)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_makes_the_same_sample_on_any_number_of_threads(threads):
    code = (
        "import hashlib\n"
        "from trainer.synthesis.config import SampleConfig\n"
        "from trainer.synthesis.sample import make_sample\n"
        "for n in range(5, 9):\n"
        "    s = make_sample(7, n, SampleConfig.preset('as-mix', edge=32))\n"
        "    print(hashlib.sha256(s.image.tobytes() + s.labels.tobytes()).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    assert done.stdout.split() == [digest(make_sample(7, n, SMALL)) for n in range(5, 9)]


def test_seed_and_index_both_matter():
    assert digest(make_sample(1, 2, SMALL)) != digest(make_sample(2, 1, SMALL))


@pytest.mark.parametrize("degradation", ["ours", "published"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_makes_normalised_images_with_whole_labels(preset, degradation):
    config = SampleConfig.preset(preset, degradation, edge=32)
    for n in range(8):
        sample = make_sample(3, n, config)
        assert sample.image.dtype == np.float32
        assert sample.labels.dtype == np.int32
        assert sample.image.shape == sample.labels.shape == (32, 32, 32)
        assert np.isfinite(sample.image).all()
        assert 0.0 <= sample.image.min() <= sample.image.max() <= 1.0
        assert_pieces_are_whole(sample.labels)


def assert_pieces_are_whole(labels):
    found = np.unique(labels)
    np.testing.assert_array_equal(found[found > 0], np.arange(1, labels.max() + 1))
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        assert ndimage.label(labels[box] == label)[1] == 1


def test_samples_that_share_shapes_differ_in_looks():
    config = dataclasses.replace(SMALL, reuse=2)
    first, second = 0, module.SPREAD
    assert geometry_index(first, 2) == geometry_index(second, 2)
    a, b = make_sample(9, first, config), make_sample(9, second, config)
    assert a.radius == b.radius
    assert np.sort(np.bincount(a.labels.ravel())).tolist() != []
    assert not np.array_equal(a.image, b.image)


def test_every_shape_is_shown_exactly_reuse_times():
    for reuse in (1, 2, 3):
        shown = [geometry_index(n, reuse) for n in range(module.SPREAD * reuse * 4)]
        values, counts = np.unique(shown, return_counts=True)
        assert set(counts) == {reuse}
        np.testing.assert_array_equal(values, np.arange(len(values)))


def test_radii_are_log_uniform_over_the_range():
    config = ShapesConfig(radius=(3.0, 12.0))
    radii = [
        sample_geometry(np.random.default_rng(n), (16, 16, 16), config).radius for n in range(200)
    ]
    assert 3.0 <= min(radii) < 3.3
    assert 10.8 < max(radii) <= 12.0
    assert 5.4 < np.median(radii) < 6.7


def test_objects_have_the_size_that_was_drawn():
    config = ShapesConfig(
        radius=(8.0, 8.0), noise=(0.0, 0.0), spacing=(2.4, 2.4), jitter=0.0, dropped=0.0,
        sparse=0.0, empty_border=0.0, radius_spread=(1.0, 1.0),
        elastic_magnitude=(0.0, 0.0),
    )  # fmt: skip
    labels = sample_geometry(np.random.default_rng(0), (96, 96, 96), config).labels
    inside = [
        labels[box] == n
        for n, box in enumerate(ndimage.find_objects(labels), start=1)
        if all(s.start > 0 and s.stop < 96 for s in box)
    ]
    volumes = [m.sum() for m in inside]
    assert len(volumes) > 10
    assert np.median(volumes) == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.05)


def test_bright_objects_are_brighter_than_their_background():
    config = dataclasses.replace(
        SampleConfig.preset("bright-plain", edge=32),
        steps=(),
        appearance=AppearanceConfig(backgrounds=("bright",), textured=0.0, profiled=0.0),
        shapes=ShapesConfig(sparse=0.0, empty_border=0.0),
        dimmed=0.0,
        clipped=0.0,
    )
    for n in range(6):
        sample = make_sample(1, n, config)
        outside = sample.image[sample.labels == 0].mean()
        for label in range(1, sample.labels.max() + 1):
            assert sample.image[sample.labels == label].mean() > outside


def test_random_objects_are_found_on_both_sides_of_their_background():
    config = dataclasses.replace(
        SampleConfig.preset("rand-plain", edge=32),
        steps=(),
        appearance=AppearanceConfig(backgrounds=("rand",), textured=0.0, profiled=0.0, alike=0.0),
    )
    sides = set()
    for n in range(6):
        sample = make_sample(1, n, config)
        if sample.labels.any():
            outside = sample.image[sample.labels == 0].mean()
            means = ndimage.mean(sample.image, sample.labels, np.arange(1, sample.labels.max() + 1))
            sides |= set(np.sign(means - outside))
    assert sides == {-1.0, 1.0}


def test_domed_objects_fade_into_their_background():
    depth = np.linspace(0.0, 1.0, 33, dtype=np.float32)[None, None]
    labels = np.ones((1, 1, 33), np.int32)
    labels[..., -1] = 0
    geometry = Geometry(labels, depth, np.zeros(labels.shape, np.bool_), 8.0)
    plain = AppearanceConfig(
        backgrounds=("rand",), std=(0.0, 0.0), textured=0.0, profiled=0.0, clutter=0.0
    )
    domed = dataclasses.replace(plain, domed=1.0, dome=(4.0, 4.0))
    flat, faded = (paint(np.random.default_rng(3), geometry, c)[0, 0] for c in (plain, domed))
    background, level = flat[-1], flat[0]
    assert np.all(flat[:-1] == level)
    half = np.interp(
        0.5, (faded / background - 1)[::-1] / (level / background - 1), depth[0, 0, ::-1]
    )
    assert half == pytest.approx(0.5**0.25, abs=0.01)


def test_training_sees_what_inference_computes(monkeypatch):
    calls = []
    original = module.normalise
    monkeypatch.setattr(module, "normalise", lambda *a: calls.append(a) or original(*a))
    from anystar_batch.network import intensity

    assert original is intensity.normalise
    assert module.limits is intensity.limits
    make_sample(7, 3, SMALL)
    assert len(calls) == 1


@pytest.mark.parametrize("name", STEPS)
def test_every_step_keeps_shape_and_type_and_is_repeatable(name):
    image = make_sample(7, 1, SMALL).image
    labels = make_sample(7, 1, SMALL).labels
    a, b = (corrupt(np.random.default_rng(5), image, labels, (Step(name),)) for _ in range(2))
    assert a[0].dtype == np.float32
    assert a[0].shape == image.shape
    assert np.isfinite(a[0]).all()
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])
    if name not in {"min_max", "cutout"}:
        # A published blur is mostly too narrow to be seen: one of many draws is not.
        draws = (corrupt(np.random.default_rng(k), image, labels, (Step(name),)) for k in range(20))
        assert any(not np.array_equal(d[0], image) for d in draws)


def test_a_step_of_probability_0_does_nothing_and_moves_no_other():
    image = make_sample(7, 1, SMALL).image
    labels = np.zeros(image.shape, np.int32)
    never = (Step("blur", 0.0),)
    np.testing.assert_array_equal(corrupt(np.random.default_rng(0), image, labels, never)[0], image)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bias_field", {"coefficient": (0.0, 0.1)}),
        ("gamma", {"gamma": (0.5, 4.5)}),
        ("blur", {"sigma": (0.0, 0.333)}),
        ("rician_noise", {"std": (0.05, 0.05)}),
        ("gibbs", {"alpha": (0.0, 0.5)}),
        ("cutout", {"holes": (20.0, 20.0), "edge": (12.0, 12.0)}),
    ],
)
def test_published_ranges(name, expected):
    assert STEPS[name].ranges == expected
    assert name in {s.name for s in PUBLISHED_STEPS}


def test_cutout_empties_image_and_labels_together():
    image = np.ones((64, 64, 64), np.float32)
    labels = np.ones(image.shape, np.int32)
    image, labels = corrupt(np.random.default_rng(0), image, labels, (Step("cutout"),))
    assert 0 < (labels == 0).sum() <= 20 * 12**3
    np.testing.assert_array_equal(image == 0, labels == 0)


def test_final_noise_leaves_zeros_alone():
    image = np.random.default_rng(0).uniform(0.2, 1.0, (16, 16, 16)).astype(np.float32)
    image[:8] = 0
    for seed in range(6):
        noisy, _ = corrupt(
            np.random.default_rng(seed), image, np.zeros(image.shape, np.int32),
            (Step("final_noise"),),
        )  # fmt: skip
        assert not noisy[:8].any()


def test_a_coarser_microscope_keeps_the_mean_and_coarsens_the_grain():
    image = np.full((48, 48, 48), 0.5, np.float32)
    image[:, :, :4] = 1.0
    image[:, :, 4:8] = 0.0
    fixed = (("plane", (1.5, 1.5)), ("axial", (2.0, 2.0)), ("log_photons", (2.0, 2.0)))
    step = Step("acquire", 1.0, (*fixed, ("std", (0.05, 0.05))))
    labels = np.zeros(image.shape, np.int32)
    out, _ = corrupt(np.random.default_rng(5), image, labels, (step,))
    flat = out[:, :, 14:]
    # Poisson noise has a floor of 2 % of the photons, which lifts the image by as much.
    assert flat.mean() == pytest.approx(0.5 + 0.02, abs=0.01)
    noise = flat - flat.mean()
    correlation = [
        float((np.take(noise, range(1, n), k) * np.take(noise, range(n - 1), k)).mean())
        / float((noise**2).mean())
        for k, n in enumerate(noise.shape)
    ]
    # White noise has none; two axes are 1.5 voxels coarse, one is 3.
    assert min(correlation) > 0.25
    assert max(correlation) > 0.7
    assert sorted(correlation)[1] < 0.6


def test_averaging_and_interpolating_keep_a_ramp():
    for factor in (1.0, 1.3, 2.0, 3.7):
        down, up = _coarser(40, factor)
        ramp = np.arange(40.0)
        np.testing.assert_allclose((up @ (down @ ramp))[6:-6], ramp[6:-6], atol=0.1)


def test_clutter_covers_a_little_of_the_background():
    config = SampleConfig()
    differing = []
    for seed in range(12):
        geometry = sample_geometry(np.random.default_rng(seed), config.shape, config.shapes)
        behind = np.zeros(config.shape, np.float32)
        rng = np.random.default_rng(seed)
        cluttered = _clutter(rng, behind, geometry.radius, config.appearance)
        assert cluttered.shape == behind.shape
        assert cluttered.dtype == np.float32
        differing.append(float((cluttered > 1.0).mean()))
    # Fibres and specks are few, sheets more; never most of the volume.
    assert max(differing) < 0.6
    assert sum(share > 0.002 for share in differing) >= 8


def test_unknown_steps_and_parameters_are_named():
    image, labels = np.zeros((4, 4, 4), np.float32), np.zeros((4, 4, 4), np.int32)
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="step: got 'smear'"):
        corrupt(rng, image, labels, (Step("smear"),))
    with pytest.raises(ConfigError, match=r"step blur: got parameters \['alpha'\]"):
        corrupt(rng, image, labels, (Step("blur", 1.0, (("alpha", (0.0, 1.0)),)),))


def test_pieces_match_scipy_and_small_ones_vanish():
    owner = np.random.default_rng(2).integers(0, 3, (12, 13, 14))
    labels = connected_pieces(owner)
    count = sum(ndimage.label(owner == v)[1] for v in (1, 2))
    assert labels.max() == count
    assert_pieces_are_whole(labels)
    large = connected_pieces(owner, 6.0, 6.0)
    assert np.bincount(large.ravel())[1:].min() >= 6
    assert large.max() < count
