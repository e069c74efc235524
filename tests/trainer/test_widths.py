"""A network with more channels answers as the one it was made of."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.errors import ConfigError
from anystar_batch.network.model import load_model
from anystar_batch.network.unet import build
from anystar_batch.network.weights import load_weights
from tests.support.tiny_networks import EXPANDING
from trainer.__main__ import main
from trainer.export import load
from trainer.widths import resize

IMAGE = np.random.default_rng(3).random((1, 16, 16, 16, 1), np.float32)


@pytest.fixture(scope="module")
def trained():
    """Weights that are all at work: no bias and no moving mean is left at 0."""
    import keras

    keras.utils.set_random_seed(4)  # some fresh networks answer 0 everywhere
    model = build(EXPANDING)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        layer.set_weights([w + rng.uniform(0.01, 0.2, w.shape) for w in layer.get_weights()])
    return model


def answer(model):
    return [np.asarray(part) for part in model(IMAGE, training=False)]


@pytest.mark.parametrize("changes", [{"unet_n_filter_base": 6}, {"unet_n_filter_base": 9}])
def test_more_channels_the_same_answer(trained, changes):
    wide = build(dataclasses.replace(EXPANDING, **changes))
    before = answer(wide)
    resize(trained, wide)
    for got, expected, fresh in zip(answer(wide), answer(trained), before, strict=True):
        scale = np.abs(expected).max()
        assert scale > 0.0
        assert np.abs(got - expected).max() < 1e-5 * scale
        assert np.abs(fresh - expected).max() > 1e-2 * scale


def test_copies_of_a_channel_differ_in_what_reads_them(trained):
    wide = build(dataclasses.replace(EXPANDING, unet_n_filter_base=8))
    resize(trained, wide)
    second = [layer for layer in wide.layers if layer.weights][1].get_weights()[0]
    norms = np.linalg.norm(second.reshape(27, 8, -1), axis=(0, 2))
    assert len(np.unique(norms.round(6))) == 8


def test_fewer_channels_keep_the_loudest(trained):
    narrow = build(dataclasses.replace(EXPANDING, unet_n_filter_base=2))
    resize(trained, narrow)
    of_old, of_new = (
        [layer.get_weights()[0] for layer in model.layers if len(layer.weights) == 4]
        for model in (trained, narrow)
    )
    for old, new in zip(of_old, of_new, strict=True):
        assert sorted(np.abs(new)) == sorted(np.sort(np.abs(old))[-len(new) :])


def test_other_layers_are_refused(trained):
    deep = build(dataclasses.replace(EXPANDING, unet_n_depth=1))
    with pytest.raises(ConfigError, match="expected networks that differ in base, growth and feat"):
        resize(trained, deep)


@pytest.mark.network
def test_the_released_model_is_widened_by_a_command(tmp_path, capsys):
    out = tmp_path / "wide.h5"
    assert main(["resize", str(out), "--base", "24"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    released = load_model("anystar-mix")
    old, unet = load(Path(released.folder))
    wide = build(dataclasses.replace(unet, unet_n_filter_base=24))
    load_weights(wide, out)
    for got, expected in zip(answer(wide), answer(old), strict=True):
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
