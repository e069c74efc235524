from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest

from anystar_batch.errors import ConfigError
from trainer import testset as module
from trainer.__main__ import main
from trainer.frozen.geometry import Recipe, Stream, mixed
from trainer.matches import Tally
from trainer.testset import (
    BINS,
    MANIFEST,
    FrozenError,
    entry,
    freeze,
    frozen,
    make,
    score_model,
    summary,
    table,
)

SMALL = (29, 30, 34)
"""One of each background, 64^3, medium radius."""


def test_the_set_is_64_volumes_of_all_sizes_and_backgrounds():
    entries = frozen()
    assert [e.index for e in entries] == list(range(64))
    assert sorted(sum(e.background == b for e in entries) for b in module.BACKGROUNDS) == [
        21, 21, 22,
    ]  # fmt: skip
    assert entries[0].radius == pytest.approx(3.0, rel=0.02)
    assert entries[-1].radius == pytest.approx(14.0, rel=0.02)
    assert all(sum(low <= e.radius < high for e in entries) >= 10 for low, high in pairwise(BINS))
    assert len({e.image_sha256 for e in entries} | {e.labels_sha256 for e in entries}) == 128
    assert sum(e.objects for e in entries) > 5000


@pytest.mark.parametrize("index", SMALL)
def test_a_volume_made_again_is_the_frozen_one(index):
    wanted = frozen()[index]
    made, _ = make(wanted)
    assert made.image.dtype == np.uint16
    assert made.labels.max() == wanted.objects
    assert (made.labels > 0).sum() == wanted.voxels


def test_other_labels_are_an_error_and_a_last_grey_level_is_not(monkeypatch):
    wanted = frozen()[SMALL[0]]
    made = module.volume(wanted.seed, wanted.edge, wanted.radius, wanted.background)

    def given(image, labels):
        monkeypatch.setattr(module, "volume", lambda *_: module.Volume(image, labels))
        return make(wanted)

    rounded = made.image.copy()
    rounded[rounded > 100] -= 1
    assert given(rounded, made.labels)[1] is False
    assert given(made.image, made.labels)[0].labels is made.labels
    with pytest.raises(FrozenError, match="octants of volume 29 differ by"):
        given(np.where(made.image > 100, made.image - 100, 0).astype(np.uint16), made.labels)
    labels = made.labels.copy()
    labels[labels == 1] = 0
    with pytest.raises(FrozenError, match="frozen were"):
        given(made.image, labels)


def test_a_changed_manifest_or_recipe_is_refused(tmp_path):
    document = json.loads(MANIFEST.read_text())
    document["volumes"][3]["labels_sha256"] = "0" * 64
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="the file was changed"):
        frozen(tmp_path / "a.json")
    document["recipe"]["noise"] = 0.5
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="undo the change"):
        frozen(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="what is frozen stays"):
        freeze(tmp_path / "a.json")
    assert json.loads(json.dumps(dataclasses.asdict(Recipe()))) != document["recipe"]


def test_hashed_numbers_are_spread_as_they_should_be():
    stream = Stream(5)
    unit, normal = stream.uniforms(2.0, 4.0, (20_000,)), stream.normals((20_000,))
    assert (unit.min() >= 2.0, unit.max() < 4.0, abs(unit.mean() - 3.0) < 0.02) == (True,) * 3
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1.0) < 0.02
    assert abs(np.corrcoef(unit[1:], unit[:-1])[0, 1]) < 0.03
    # The definition of splitmix64, by integers of Python.
    z = 0x0123456789ABCDEF
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    assert int(mixed(np.array([0x0123456789ABCDEF], np.uint64))[0]) == z ^ (z >> 31)


def test_scores_are_summed_by_radius_and_background():
    entries = frozen()
    one, none = Tally((1,) * 4, (0,) * 4, (0,) * 4), Tally((0,) * 4, (0,) * 4, (1,) * 4)
    tallies = [one if e.background == "rand" else none for e in entries]
    scores = summary(entries, tallies)
    assert scores.by_background == {
        "bright": [0.0] * 4, "rand": [1.0] * 4, "perlin": [0.0] * 4,
    }  # fmt: skip
    assert scores.overall == scores.mean == [round(21 / 64, 4)] * 4
    assert list(scores.by_radius) == ["3-4", "4-6", "6-9", "9-14"]
    assert all(0.2 < row[0] < 0.5 for row in scores.by_radius.values())


@pytest.mark.network
@pytest.mark.filterwarnings("ignore")
def test_a_released_model_is_scored_at_both_sizes(monkeypatch, tmp_path, capsys):
    few = [e for e in frozen() if e.index == SMALL[1]]
    found = score_model("anystar-mix", few)
    assert (found["volumes"], found["diameter"] > 0) == (1, True)
    # Bright objects on a plain background are found, whatever the version of the model.
    assert found["native"]["by_background"]["bright"][0] > 0.3
    assert found["working"]["overall"] != found["native"]["overall"]
    # Outlines gain by the second look, most of all strictly judged ones.
    assert found["second"]["overall"][3] > found["working"]["overall"][3]
    assert "after the second look" in table(found)
    assert "radius 6-9" in table(found)
    monkeypatch.setattr(module, "score_model", lambda *_: found)
    assert main(["test", "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["volumes"] == 1
    assert "mean of volumes" in capsys.readouterr().out


def test_an_entry_names_the_frozen_hashes():
    wanted = frozen()[SMALL[1]]
    made, same = make(wanted)
    if same:  # else another processor, which `make` has judged
        assert entry(wanted.index, made) == wanted
