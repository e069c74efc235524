"""`info`: what an image is, which labels it has, where they come from, whether they are current."""

import json
from pathlib import Path

import pytest

from anystar_batch import origin, plan
from anystar_batch.archive.labels import KEY
from anystar_batch.origin import Origin, label_origin
from tests import small

RUN = ["--diameter", "5um", "-q"]


def described(command, image):
    done = command("info", image, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_it_says_what_the_image_is(tmp_path, command):
    image = small.small_series(tmp_path / "a.zarr", times=2)
    found = described(command, image)
    assert found["axes"] == "tczyx"
    assert found["axes_described"][0] == {"name": "t", "type": "time", "unit": None}
    assert found["axes_described"][2] == {"name": "z", "type": "space", "unit": "micrometer"}
    (level,) = found["levels"]
    assert level["bytes"] == 2 * 2 * 20 * 40 * 44 * 2
    assert (level["shape"], level["chunks"], level["shards"]) == ([20, 40, 44], [16] * 3, None)
    assert level["voxel_um"] == [0.5] * 3
    text = command("info", image).stdout
    assert "axes t (time), c (channel), z (micrometer), y (micrometer), x (micrometer)" in text
    assert "chunks (16, 16, 16), 0.000282 GB" in text


def test_it_shows_shards(tmp_path, command):
    image = small.small_image(tmp_path / "a.zarr", levels=1, shards=(32, 48, 48))
    assert described(command, image)["levels"][0]["shards"] == [32, 48, 48]
    assert "chunks (16, 16, 16), shards (32, 48, 48)" in command("info", image).stdout


def test_it_says_where_a_label_comes_from(tmp_path, command):
    image = small.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    record = json.loads((tmp_path / "a.anystar.run.json").read_text())
    (label,) = described(command, image)["labels"]
    assert label == {
        "name": "anystar",
        "is_ours": True,
        "instances": 5,
        "model": "fake",
        "model_version": "1",
        "diameter_um": 5.0,
        "channel": 0,
        "fingerprint": record["summary"]["fingerprint"],
        "finished": record["finished"],
        "program": record["anystar_batch"],
        "is_current": True,
        "why": "",
    }
    line = command("info", image).stdout.splitlines()[-1]
    assert line.startswith(
        "  label anystar, 5 instances, fake 1, objects of 5 um, channel 0, made 20"
    )
    assert f"by version {record['anystar_batch']}, current, fingerprint " in line


def test_a_record_of_another_run_says_nothing(tmp_path, command):
    image = small.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    record = tmp_path / "a.anystar.run.json"
    small.edit_json(record, lambda d: d["summary"].update(fingerprint="0" * 64))
    assert described(command, image)["labels"][0]["finished"] is None
    record.write_text("{")
    assert described(command, image)["labels"][0]["finished"] is None
    record.unlink()
    assert described(command, image)["labels"][0]["finished"] is None
    assert ", current, " in command("info", image).stdout


def test_a_label_of_an_image_that_has_changed_is_not_current(tmp_path, command):
    image = small.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)

    def coarser(document):
        datasets = document["attributes"]["ome"]["multiscales"][0]["datasets"]
        for dataset in datasets:
            dataset["coordinateTransformations"][0]["scale"][0] *= 2

    small.edit_json(Path(image) / "zarr.json", coarser)
    (label,) = described(command, image)["labels"]
    assert (label["is_current"], label["why"]) == (False, "the image's metadata has changed since")
    assert "not current: the image's metadata has changed since" in command("info", image).stdout


def test_a_label_of_another_method_or_model_is_not_current(tmp_path, command, monkeypatch):
    image = small.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    monkeypatch.setattr(origin, "bundled_models", lambda: {"fake": tmp_path})
    monkeypatch.setattr(origin, "load_model", lambda _: small.model())
    assert described(command, image)["labels"][0]["is_current"] is True
    import dataclasses

    newer = dataclasses.replace(small.model(), sha256="1" * 64, version="2")
    monkeypatch.setattr(origin, "load_model", lambda _: newer)
    (label,) = described(command, image)["labels"]
    assert label["why"] == "another fake is installed: version 2"
    monkeypatch.setattr(origin, "ALGORITHM", plan.ALGORITHM + 1)
    (label,) = described(command, image)["labels"]
    assert label["why"] == f"made by method {plan.ALGORITHM}, now {plan.ALGORITHM + 1}"


def test_a_label_itself_says_what_it_is(tmp_path, command):
    image = small.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN, "--output", tmp_path / "out")
    command("segment", image, *RUN)
    for label in (f"{image}/labels/anystar", tmp_path / "out" / "a.anystar.ome.zarr"):
        found = described(command, label)
        assert found["made"]["instances"] == 5
        assert found["made"]["is_current"] is None
        assert "itself a label" in command("info", label).stdout
        assert "labels: none" not in command("info", label).stdout
    assert described(command, image)["made"] is None


def test_a_label_of_another_program(tmp_path, command):
    import zarr

    image = small.small_image(tmp_path / "a.zarr")
    group = zarr.open_group(f"{image}/labels/theirs", mode="w", zarr_format=3)
    group.attrs["by"] = "hand"
    assert "label theirs, not made by anystar-batch" in command("info", image).stdout
    assert described(command, image)["labels"][0]["is_ours"] is False


@pytest.mark.parametrize(
    "ours",
    [
        {},
        {"model": 3, "options": [], "decided": None, "fingerprint": 7, "instances": "many"},
        {"options": {"algorithm": [1]}, "instances": True, "model": {"name": [], "version": {}}},
    ],
)
def test_what_no_run_has_written_is_left_out(ours):
    found = label_origin("x", {KEY: ours}, None)
    assert found == Origin("x", is_ours=True)
    assert str(found) == "label x"
