from __future__ import annotations

import dataclasses
import json

import pytest

from anystar_batch.errors import ConfigError
from anystar_batch.network.unet import UNetConfig
from trainer.config import TrainConfig
from trainer.synthesis.config import (
    OUR_STEPS,
    PRESETS,
    PUBLISHED_STEPS,
    AppearanceConfig,
    SampleConfig,
    ShapesConfig,
    Step,
)


@pytest.mark.parametrize("degradation", ["ours", "published"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_survives_json(preset, degradation):
    config = TrainConfig(
        sample=SampleConfig.preset(preset, degradation),
        network=UNetConfig(grid=(1, 2, 2), unet_n_filter_base=8),
        minutes=3.5,
        appearance="device",
    )
    assert TrainConfig.from_json(config.to_json()) == config


def test_keys_left_out_take_their_defaults():
    text = json.dumps({"batch": 2, "sample": {"steps": [{"name": "blur"}]}})
    config = TrainConfig.from_json(text)
    assert config == TrainConfig(batch=2, sample=SampleConfig(steps=(Step("blur"),)))


def test_the_published_steps_come_with_their_probabilities_in_order():
    expected = {
        "bias_field": 1,
        "gaussian_noise": 0.25,
        "spikes": 0.2,
        "gamma": 0.8,
        "blur": 0.8,
        "rician_noise": 0.2,
        "gibbs": 0.5,
        "sharpen": 0.25,
        "histogram_shift": 0.1,
        "cutout": 0.2,
        "final_noise": 0.2,
    }
    steps = [s for s in PUBLISHED_STEPS if s.name != "min_max"]
    assert [s.name for s in steps] == list(expected)
    assert {s.name: s.probability for s in steps} == expected
    assert all(not s.ranges for s in PUBLISHED_STEPS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShapesConfig(radius=(1.0, 5.0)), r"radius \(1.0, 5.0\)"),
        (lambda: ShapesConfig(spacing=(0.5, 2.0)), r"spacing \(0.5, 2.0\)"),
        (lambda: ShapesConfig(elongation=(1.0, 9.0)), r"elongation \(1.0, 9.0\)"),
        (lambda: AppearanceConfig(backgrounds=("pink",)), "backgrounds .*pink"),
        (lambda: Step("blur", 1.5), "step blur: got probability 1.5"),
        (lambda: SampleConfig(shape=(48, 48, 32)), "expected a cube"),
        (lambda: SampleConfig(reuse=0), "reuse 0"),
        (lambda: SampleConfig.preset("as-max"), "preset: got 'as-max'"),
        (lambda: SampleConfig.preset("as-mix", "worse"), "degradation: got 'worse'"),
        (lambda: TrainConfig(seed=5, validation_seed=5), "seed 5 for training and validation"),
        (lambda: TrainConfig(batch=0), "batch 0"),
        (lambda: TrainConfig(workers=0), "workers 0"),
        (lambda: TrainConfig(echo=0), "echo 0"),
        (lambda: TrainConfig(minutes=0.0), "expected a budget"),
        (lambda: TrainConfig(appearance="gpu"), "appearance 'gpu'; expected workers or device"),
        (
            lambda: TrainConfig(sample=dataclasses.replace(SampleConfig(), shape=(44, 44, 44))),
            r"multiples of \(8, 8, 8\)",
        ),
        (lambda: TrainConfig.from_json("{"), "no JSON"),
        (lambda: TrainConfig.from_json("[]"), "no JSON object"),
        (lambda: TrainConfig.from_json('{"epochs": 3}'), r"unknown keys \['epochs'\]"),
        (lambda: TrainConfig.from_json('{"sample": 3}'), "sample 3; expected a JSON object"),
    ],
)
def test_what_cannot_be_used_is_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_our_steps_go_beyond_the_published_ones():
    assert {"haze", "stack", "shot_noise"} <= {s.name for s in OUR_STEPS}
