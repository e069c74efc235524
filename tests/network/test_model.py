from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from anystar_batch.errors import ModelError
from anystar_batch.network import model as bundled
from anystar_batch.network.model import WEIGHTS, bundled_models, load_model
from anystar_batch.network.unet import UNetConfig

RAYS = {"name": "Rays_GoldenSpiral", "kwargs": {"n": 32, "anisotropy": [2.0, 1.0, 1.0]}}


def make_folder(root, name="mine", **provenance):
    """A folder as StarDist leaves it; with provenance, as ours."""
    folder = Path(root) / name
    folder.mkdir(parents=True)
    config = UNetConfig(n_rays=32, grid=(1, 2, 2), unet_n_depth=2).to_stardist()
    config |= {"rays_json": RAYS, "n_channel_in": 1, "backbone": "unet"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "thresholds.json").write_text('{"prob": 0.6, "nms": 0.4}')
    (folder / WEIGHTS).write_bytes(b"weights")
    if provenance:
        (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def edit(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_foreign_folder_says_what_it_says_and_nothing_more(tmp_path):
    model = load_model(str(make_folder(tmp_path)))
    assert (model.name, model.version, model.diameter) == ("mine", "", None)
    assert (model.prob_thresh, model.nms_thresh) == (0.6, 0.4)
    assert model.grid == (1, 2, 2)
    assert model.divisor == (4, 8, 8)
    assert json.loads(model.rays_json) == RAYS
    assert (model.low_percentile, model.high_percentile) == (1.0, 99.9)
    assert model.tile % 8 == 0
    assert model.context % 8 == 0


def test_a_folder_without_thresholds_has_stardists_own(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "thresholds.json").unlink()
    model = load_model(str(folder))
    assert (model.prob_thresh, model.nms_thresh) == (0.5, 0.3)


def test_provenance_tells_size_and_intensity(tmp_path):
    folder = make_folder(
        tmp_path,
        "star",
        version="3",
        diameter=14.5,
        max_radius=33,
        tile=64,
        context=24,
        intensity={"low_percentile": 2.0, "high_percentile": 99.0},
    )
    model = load_model(str(folder))
    assert (model.name, model.version) == ("star", "3")
    assert (model.diameter, model.max_radius) == (14.5, 33.0)
    assert (model.tile, model.context) == (64, 24)
    assert (model.low_percentile, model.high_percentile) == (2.0, 99.0)


def test_the_identity_is_that_of_configuration_and_weights(tmp_path):
    one, two = make_folder(tmp_path / "a"), make_folder(tmp_path / "b", version="2")
    assert load_model(str(one)).sha256 == load_model(str(two)).sha256
    (two / WEIGHTS).write_bytes(b"other")
    assert load_model(str(one)).sha256 != load_model(str(two)).sha256
    edit(one, "config.json", comment="x")
    assert load_model(str(one)).sha256 != load_model(str(make_folder(tmp_path / "c"))).sha256


def test_bundled_models_are_found_by_name_the_wheel_before_the_checkout(tmp_path, monkeypatch):
    make_folder(tmp_path / "wheel", "star", version="wheel")
    make_folder(tmp_path / "checkout", "star", version="checkout")
    make_folder(tmp_path / "checkout", "moon")
    (make_folder(tmp_path / "checkout", "empty") / WEIGHTS).unlink()
    monkeypatch.setattr(bundled, "_ROOTS", (tmp_path / "wheel", tmp_path / "checkout"))
    assert list(bundled_models()) == ["star", "moon"]
    assert load_model("star").version == "wheel"


def test_an_unknown_name_is_refused_with_those_that_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "_ROOTS", (tmp_path,))
    with pytest.raises(ModelError, match=r"no folder 'nothing'; bundled here: none"):
        load_model("nothing")
    make_folder(tmp_path, "star")
    with pytest.raises(ModelError, match=r"no folder 'nothing'; bundled here: star"):
        load_model("nothing")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(tmp_path, name):
    folder = make_folder(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing; a StarDist-3D folder holds"):
        load_model(str(folder))


def test_files_must_be_those_the_provenance_speaks_of(tmp_path):
    folder = make_folder(tmp_path)
    good = {name: digest_of(folder / name) for name in ("config.json", WEIGHTS)}
    (folder / "provenance.json").write_text(json.dumps({"sha256": good}))
    load_model(str(folder))
    (folder / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"weights_best.h5 has SHA-256 .*the model is damaged"):
        load_model(str(folder))


def test_a_file_that_provenance_speaks_of_and_is_missing_is_named(tmp_path):
    folder = make_folder(tmp_path, sha256={"thresholds.json": "0" * 64})
    (folder / "thresholds.json").unlink()
    with pytest.raises(ModelError, match=r"thresholds.json has SHA-256 missing, .* 000000000000"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["config.json", "thresholds.json", "provenance.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": ', "is no JSON"), (b"\xff\xfe", "is no JSON"), (b"[1]", "holds list; expected")],
)
def test_a_truncated_document_is_named(tmp_path, name, content, message):
    folder = make_folder(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} {message}"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"n_channel_in": 3}, r"n_channel_in"),
        ("config.json", {"grid": [3, 2, 2]}, r"grid 3"),
        ("config.json", {"grid": "abc"}, r"mine"),
        ("thresholds.json", {"prob": "high"}, r"cannot be understood \(ValueError"),
        ("thresholds.json", {"nms": None}, r"cannot be understood \(TypeError"),
        ("provenance.json", {"diameter": "large"}, r"cannot be understood \(ValueError"),
        ("provenance.json", {"intensity": [1, 2]}, r"cannot be understood \(AttributeError"),
        ("provenance.json", {"tile": "x"}, r"cannot be understood \(ValueError"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(tmp_path, name, changes, message):
    folder = make_folder(tmp_path, version="1")
    edit(folder, name, **changes)
    with pytest.raises(ModelError, match=message):
        load_model(str(folder))


def test_a_configuration_without_rays_is_refused(tmp_path):
    folder = make_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["rays_json"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"cannot be understood \(KeyError: 'rays_json'\)"):
        load_model(str(folder))


def test_a_folder_may_be_copied_elsewhere(tmp_path):
    folder = make_folder(tmp_path)
    moved = tmp_path / "elsewhere" / "mine"
    shutil.copytree(folder, moved)
    assert load_model(str(moved)).sha256 == load_model(str(folder)).sha256
    assert load_model(str(moved)).folder == str(moved.resolve())
