from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from anystar_batch.errors import ConfigError, ModelError
from anystar_batch.network import unet, weights
from anystar_batch.network.unet import UNetConfig
from tests.support.tiny_networks import ODD, SMALL


def perturbed(model):
    """Move every weight off its start, batch normalisation's too."""
    rng = np.random.default_rng(3)
    values = [
        w + (rng.uniform(-0.1, 0.1, w.shape) if w.ndim > 1 else rng.uniform(0.01, 0.1, w.shape))
        for w in model.get_weights()
    ]
    model.set_weights(values)
    return model


def image_of(shape):
    return np.random.default_rng(5).uniform(size=(1, *shape, 1)).astype(np.float32)


def stardist_model(config, folder):
    from stardist.models import Config3D, StarDist3D

    (folder / "model").mkdir()
    document = vars(Config3D(rays=config.n_rays, **without_rays(config.to_stardist())))
    (folder / "model" / "config.json").write_text(json.dumps(document))
    return StarDist3D(None, "model", str(folder)), document


def without_rays(keywords):
    return {k: v for k, v in keywords.items() if k != "n_rays"}


@pytest.mark.network
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [SMALL, ODD], ids=["small", "odd"])
def test_stardist_loads_our_weights_and_gives_the_same_output(config, tmp_path):
    ours = perturbed(unet.build(config))
    (tmp_path / "stardist").mkdir()
    theirs, document = stardist_model(config, tmp_path / "stardist")
    assert UNetConfig.from_stardist(document) == config
    weights.save_weights(ours, tmp_path / "weights_best.h5")
    theirs.load_weights(str(tmp_path / "weights_best.h5"))
    image = image_of([2 * d for d in config.divisor()])
    prob, dist = (np.asarray(v) for v in ours(image, training=False))
    their_prob, their_dist = theirs.keras_model.predict(image, verbose=0)
    assert prob.std() > 0
    np.testing.assert_allclose(prob, their_prob, atol=1e-5)
    np.testing.assert_allclose(dist, their_dist, atol=1e-5, rtol=1e-5)


@pytest.mark.network
@pytest.mark.filterwarnings("ignore")
def test_we_load_the_weights_that_stardist_writes(tmp_path):
    theirs, _ = stardist_model(SMALL, tmp_path)
    perturbed(theirs.keras_model).save_weights(str(tmp_path / "weights_best.h5"))
    ours = unet.build(SMALL)
    weights.load_weights(ours, tmp_path / "weights_best.h5")
    image = image_of((16, 8, 24))
    for mine, other in zip(
        ours(image, training=False), theirs.keras_model.predict(image, verbose=0), strict=True
    ):
        np.testing.assert_allclose(np.asarray(mine), other, atol=1e-5)


@pytest.mark.network
@pytest.mark.filterwarnings("ignore")
def test_output_covers_the_grid_and_bfloat16_keeps_float32_heads():
    model = unet.build(SMALL, "bfloat16")
    prob, dist = model(image_of((16, 8, 24)), training=False)
    assert prob.shape == (1, 8, 4, 12, 1)
    assert dist.shape == (1, 8, 4, 12, 12)
    assert {np.asarray(prob).dtype, np.asarray(dist).dtype} == {np.dtype(np.float32)}
    assert all(str(w.dtype) == "float32" for w in model.weights)
    assert model.get_layer("features").compute_dtype == "bfloat16"


@pytest.mark.network
@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_network_are_refused(tmp_path):
    weights.save_weights(unet.build(SMALL), tmp_path / "weights_best.h5")
    other = unet.build(UNetConfig(n_rays=10, grid=(2, 2, 2), unet_n_filter_base=4))
    with pytest.raises(ModelError, match="layers with weights"):
        weights.load_weights(other, tmp_path / "weights_best.h5")
    wider = UNetConfig(**{f: getattr(SMALL, f) for f in SMALL.__slots__} | {"n_rays": 13})
    with pytest.raises(ModelError, match=r"layer dist .* has shapes"):
        weights.load_weights(unet.build(wider), tmp_path / "weights_best.h5")


@pytest.mark.network
@pytest.mark.filterwarnings("ignore")
def test_files_that_hold_no_weights_are_refused(tmp_path):
    model = unet.build(SMALL)
    with pytest.raises(ModelError, match="no weights file"):
        weights.load_weights(model, tmp_path / "weights_best.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ModelError, match="legacy layout"):
        weights.load_weights(model, tmp_path / "text.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ModelError, match="layer_names is missing"):
        weights.load_weights(model, tmp_path / "empty.h5")


@pytest.mark.network
@pytest.mark.filterwarnings("ignore")
def test_names_that_keras_reads_differently_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected one such as weights_best\.h5"):
        weights.save_weights(unet.build(SMALL), tmp_path / "best.weights.h5")


def test_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="precision 'float16'"):
        unet.build(SMALL, "float16")


def test_divisor_is_grid_times_pooling():
    assert SMALL.divisor() == (8, 8, 8)
    assert ODD.divisor() == (1, 4, 8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"backbone": "resnet"}, ModelError, "backbone 'resnet'"),
        ({"n_classes": 2}, ModelError, "n_classes=2"),
        ({"n_channel_in": 3}, ModelError, "n_channel_in=3"),
        ({"n_dim": 2, "axes": "YXC"}, ModelError, "n_dim=2"),
        ({"n_rays": None}, ConfigError, "n_rays=None"),
        ({"grid": [2, 2]}, ConfigError, r"grid=\[2, 2\]"),
        ({"grid": [3, 1, 1]}, ConfigError, "grid 3 on axis z"),
        ({"unet_n_depth": "two"}, ConfigError, "unet_n_depth='two'"),
        ({"unet_n_depth": -1}, ConfigError, "unet_n_depth=-1"),
        ({"unet_dropout": "much"}, ConfigError, "unet_dropout='much'"),
        ({"unet_activation": 1}, ConfigError, "unet_activation=1"),
        ({"unet_n_filter_base": 0}, ConfigError, "unet_n_filter_base=0"),
    ],
)
def test_what_cannot_be_built_is_named(change, error, message):
    with pytest.raises(error, match=message):
        UNetConfig.from_stardist(SMALL.to_stardist() | change)
