from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from anystar_batch.errors import ModelError
from anystar_batch.network import unet
from tests.support.checkout import ROOT
from trainer import export as module
from trainer.export import FILES, Card, effective_context, export, load, stretch

pytestmark = [pytest.mark.network, pytest.mark.filterwarnings("ignore")]

BUNDLED = ROOT / "models" / "anystar-mix"

CARD = Card(
    name="tiny",
    version="0",
    diameter=11.0,
    diameter_range=(6.0, 20.0),
    max_radius=32.0,
    tile=16,
    context=8,
    thresholds=(0.5, 0.3),
    scores={"synthetic": [0.5, 0.4, 0.3, 0.1]},
)


def test_the_bundled_model_is_complete_and_unchanged():
    assert {p.name for p in BUNDLED.iterdir()} == {*FILES, "refiner.json", "refiner.npz"}
    document = json.loads((BUNDLED / "provenance.json").read_text())
    for name, digest in document["sha256"].items():
        assert hashlib.sha256((BUNDLED / name).read_bytes()).hexdigest() == digest
    assert {"name", "version", "diameter", "diameter_range", "max_radius", "tile", "context",
            "intensity", "sha256", "training"} <= set(document)  # fmt: skip
    network = unet.UNetConfig.from_stardist(json.loads((BUNDLED / "config.json").read_text()))
    for edge in (document["tile"], document["context"]):
        assert all(edge % d == 0 for d in network.divisor())


def test_stardist_loads_the_bundled_model_and_gives_the_same_output():
    from stardist.models import StarDist3D

    theirs = StarDist3D(None, BUNDLED.name, str(BUNDLED.parent))
    thresholds = json.loads((BUNDLED / "thresholds.json").read_text())
    assert theirs.thresholds.prob == thresholds["prob"]
    assert theirs.thresholds.nms == thresholds["nms"]
    ours, network = load(BUNDLED)
    edge = [2 * d for d in network.divisor()]
    image = np.random.default_rng(0).uniform(size=edge).astype(np.float32)
    prob, dist = (np.asarray(v)[0] for v in ours(image[None, ..., None], training=False))
    their_prob, their_dist = theirs.predict(image)
    np.testing.assert_allclose(prob[..., 0], their_prob, atol=1e-5)
    np.testing.assert_allclose(np.maximum(dist, 1e-3), their_dist, atol=1e-5, rtol=1e-5)


def test_the_bundled_model_finds_the_phantom():
    assert module.phantom_count(BUNDLED) == module.PHANTOM_COUNT


def test_an_export_loads_back_and_says_what_it_is(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "phantom_count", lambda _folder: 27)
    model = unet.build(tiny.network)
    export(model, tiny, CARD, tmp_path / "tiny")
    assert {p.name for p in tmp_path.iterdir()} == {"tiny"}
    again, network = load(tmp_path / "tiny")
    assert network == tiny.network
    image = np.random.default_rng(0).uniform(size=(1, 16, 16, 16, 1)).astype(np.float32)
    for a, b in zip(again(image), model(image), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    document = json.loads((tmp_path / "tiny" / "provenance.json").read_text())
    assert document["training"]["scores"] == CARD.scores
    assert document["intensity"] == {"low_percentile": 1.0, "high_percentile": 99.9}


def test_a_model_that_fails_the_phantom_replaces_nothing(tiny, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text("old")
    with pytest.raises(ModelError, match="of 27 spheres"):
        export(unet.build(tiny.network), tiny, CARD, tmp_path / "tiny")
    assert (tmp_path / "tiny" / "config.json").read_text() == "old"


def test_a_tile_that_does_not_fit_the_network_is_refused(tiny, tmp_path):
    card = dataclasses.replace(CARD, context=6)
    with pytest.raises(ModelError, match="context 6; expected a multiple"):
        export(unet.build(tiny.network), tiny, card, tmp_path / "tiny")


def test_an_incomplete_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"lacks config\.json, thresholds\.json"):
        load(tmp_path)


def test_context_beyond_the_receptive_field_changes_nothing(tiny):
    model = unet.build(tiny.network)
    image = np.random.default_rng(0).uniform(size=(80, 80, 80)).astype(np.float32)
    cost = effective_context(model, tiny.network, image, 16)
    assert cost[0] > 1e-4
    assert cost[32] < 1e-6


def test_a_stretch_is_folded_into_the_last_layer(tiny):
    model = unet.build(tiny.network)
    image = np.random.default_rng(0).uniform(size=(1, 16, 16, 16, 1)).astype(np.float32)
    prob, dist = (np.asarray(v) for v in model(image))
    stretch(model, 1.2)
    new_prob, new_dist = (np.asarray(v) for v in model(image))
    np.testing.assert_array_equal(new_prob, prob)
    np.testing.assert_allclose(new_dist, 1.2 * dist, rtol=1e-5, atol=1e-6)
