"""`info`: what an image is, which labels it has, where they come from, whether they are current."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.label_place import KEY
from anystar_batch.pipeline import info
from anystar_batch.pipeline.info import Origin, label_origin
from anystar_batch.stages import plan
from tests.laws.test_times import container
from tests.pipeline.test_plate_table import make_plate
from tests.support import tiny_volume
from tests.support.fakes import write_image

RUN = ["--diameter", "5um", "-q"]


def described(command, image):
    done = command("info", image, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_it_says_what_the_image_is(tmp_path, command):
    image = tiny_volume.small_series(tmp_path / "a.zarr", times=2)
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
    image = tiny_volume.small_image(tmp_path / "a.zarr", levels=1, shards=(32, 48, 48))
    assert described(command, image)["levels"][0]["shards"] == [32, 48, 48]
    assert "chunks (16, 16, 16), shards (32, 48, 48)" in command("info", image).stdout


def test_it_says_where_a_label_comes_from(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
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
        "elongation": 1.0,
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
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    record = tmp_path / "a.anystar.run.json"
    tiny_volume.edit_json(record, lambda d: d["summary"].update(fingerprint="0" * 64))
    assert described(command, image)["labels"][0]["finished"] is None
    record.write_text("{")
    assert described(command, image)["labels"][0]["finished"] is None
    record.unlink()
    assert described(command, image)["labels"][0]["finished"] is None
    assert ", current, " in command("info", image).stdout


def test_a_label_of_an_image_that_has_changed_is_not_current(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)

    def coarser(document):
        datasets = document["attributes"]["ome"]["multiscales"][0]["datasets"]
        for dataset in datasets:
            dataset["coordinateTransformations"][0]["scale"][0] *= 2

    tiny_volume.edit_json(Path(image) / "zarr.json", coarser)
    (label,) = described(command, image)["labels"]
    assert (label["is_current"], label["why"]) == (False, "the image's metadata has changed since")
    assert "not current: the image's metadata has changed since" in command("info", image).stdout


def test_a_label_of_another_method_or_model_is_not_current(tmp_path, command, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *RUN)
    monkeypatch.setattr(info, "bundled_models", lambda: {"fake": tmp_path})
    monkeypatch.setattr(info, "load_model", lambda _: tiny_volume.model())
    assert described(command, image)["labels"][0]["is_current"] is True
    import dataclasses

    newer = dataclasses.replace(tiny_volume.model(), sha256="1" * 64, version="2")
    monkeypatch.setattr(info, "load_model", lambda _: newer)
    (label,) = described(command, image)["labels"]
    assert label["why"] == "another fake is installed: version 2"
    monkeypatch.setattr(info, "ALGORITHM", plan.ALGORITHM + 1)
    (label,) = described(command, image)["labels"]
    assert label["why"] == f"made by method {plan.ALGORITHM}, now {plan.ALGORITHM + 1}"


def test_a_label_itself_says_what_it_is(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
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
    image = tiny_volume.small_image(tmp_path / "a.zarr")
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


@pytest.mark.parametrize("axes", ["tczyx", "xyzct"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_every_level_is_told_along_z_y_x_in_micrometres(tmp_path, command, axes, version):
    """Against what was written: sizes in nanometres, axes in any order, other chunks on each."""
    kinds = {"t": "time", "c": "channel"}
    shapes = {"t": 2, "c": 3, "z": 8, "y": 12, "x": 20}
    nanometres = {"z": 2000.0, "y": 300.0, "x": 400.0}
    chunks = {"t": 1, "c": 1, "z": 4, "y": 6, "x": 5}
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for level, factor in enumerate((1, 2)):
        reduced = {a: shapes[a] // (factor if a in "yx" else 1) for a in axes}
        more = {"shards": tuple(2 * chunks[a] for a in axes)} if version == "0.5" else {}
        group.create_array(
            f"level{level}",
            shape=tuple(reduced[a] for a in axes),
            chunks=tuple(chunks[a] for a in axes),
            dtype="uint8",
            **more,
        )
        scale = [nanometres.get(a, 1.0) * (factor if a in "yx" else 1) for a in axes]
        transforms = [{"type": "scale", "scale": scale}]
        datasets.append({"path": f"level{level}", "coordinateTransformations": transforms})
    units = {a: {"unit": "nanometer"} if a in "zyx" else {} for a in axes}
    written = [{"name": a, "type": kinds.get(a, "space")} | units[a] for a in axes]
    entry = {"axes": written, "datasets": datasets}
    omero = {"channels": [{"label": name} for name in ("DAPI", "GFP", "RFP")]}
    attributes = {"version": version, "multiscales": [entry], "omero": omero}
    group.attrs.update(
        {"ome": attributes}
        if version == "0.5"
        else {"multiscales": [entry | {"version": version}], "omero": omero}
    )
    found = described(command, tmp_path / "a.zarr")
    assert (found["version"], found["axes"], found["dtype"]) == (version, axes, "uint8")
    assert (found["times"], found["channels"]) == (2, ["DAPI", "GFP", "RFP"])
    assert found["unit"] == "micrometre"
    shards = [8, 12, 10] if version == "0.5" else None
    assert found["levels"] == [
        {
            "path": "level0",
            "shape": [8, 12, 20],
            "voxel_um": pytest.approx([2.0, 0.3, 0.4]),
            "chunks": [4, 6, 5],
            "shards": shards,
            "bytes": 2 * 3 * 8 * 12 * 20,
            "agrees": True,
            "check": "it is what the others are compared with",
            "why": "",
        },
        {
            "path": "level1",
            "shape": [8, 6, 10],
            "voxel_um": pytest.approx([2.0, 0.6, 0.8]),
            "chunks": [4, 6, 5],
            "shards": shards,
            "bytes": 2 * 3 * 8 * 6 * 10,
            "agrees": True,
            "check": "by its metadata; its voxels at 2 places, against level 0, show nothing that "
            "could be compared",
            "why": "",
        },
    ]
    text = command("info", tmp_path / "a.zarr").stdout
    assert "level level1: (8, 6, 10) voxels of 2 x 0.6 x 0.8 um, chunks (4, 6, 5)" in text
    assert "channels 0 (DAPI), 1 (GFP), 2 (RFP); 2 time(s)" in text


def test_an_image_without_a_unit_or_with_bad_metadata(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr", unit=None)
    assert described(command, image)["unit"] == "none (micrometres assumed)"
    assert "unit none (micrometres assumed)" in command("info", image).stdout
    assert "labels: none" in command("info", image).stdout
    (tmp_path / "a.zarr/zarr.json").write_text("{")
    done = command("info", image)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "truncated or invalid JSON" in done.stderr


def test_one_bad_series_hides_no_other_and_flat_ones_are_no_failure(tmp_path, command):
    root = Path(container(tmp_path / "scan.zarr", 4))
    write_image(root / "0", [np.ones((1, 40, 44), "u2")])
    done = command("info", root)
    assert done.exit_code == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == f"{root}/0"
    assert lines[1].startswith(f"  not for this tool: {root}/0: the image is 2D")
    assert lines[2] == f"{root}/1"
    (root / "1/zarr.json").write_text("{")
    (root / "2/0/zarr.json").unlink()
    done = command("info", root, "--json")
    assert done.exit_code == 2
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["path"] for one in found] == [f"{root}/{n}" for n in range(4)]
    assert [next((k for k in ("unsuited", "error") if k in one), "") for one in found] == [
        "unsuited", "error", "error", ""
    ]  # fmt: skip
    assert "its array is missing" in found[2]["error"]
    for n in range(1, 4):
        write_image(root / str(n), [np.ones((1, 40, 44), "u2")])
    assert command("info", root).exit_code == 2, "there is nothing else"


def test_every_series_of_a_container(tmp_path, command):
    root = container(tmp_path / "scan.zarr", 2)
    found = [json.loads(line) for line in command("info", root, "--json").stdout.splitlines()]
    assert [one["path"] for one in found] == [f"{root}/0", f"{root}/1"]
    assert "well" not in found[0]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_is_a_line_and_a_line_for_every_field(tmp_path, command, version):
    plate = make_plate(tmp_path / "scan.zarr", version=version)
    command("segment", plate / "A/1/1", *RUN)
    command("segment", plate / "B/03/0", *RUN, "--label", "late")
    late = plate / "B/03/0/labels/late" / ("zarr.json" if version == "0.5" else ".zattrs")
    tiny_volume.edit_json(
        late, lambda d: d.get("attributes", d)[KEY]["options"].update(algorithm=0)
    )
    Path(plate, "B/03/0/labels/theirs").mkdir()
    zarr.open_group(plate / "B/03/0/labels/theirs", mode="w", zarr_format=2)
    voxels = "(20, 40, 44) voxels of 0.5 x 0.5 x 0.5 um, axes zyx, uint16"
    done = command("info", plate)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{plate}: a plate (HCS), 2 wells, 3 fields",
        f"  A/1/0: {voxels}; no labels",
        f"  A/1/1: {voxels}; label anystar, 5 instances",
        f"  B/03/0: {voxels}; label late, 5 instances (not current), label theirs",
    ]
    found = [json.loads(line) for line in command("info", plate, "--json").stdout.splitlines()]
    assert [(one["plate"], one["well"], one["field"], one["path"]) for one in found] == [
        (str(plate), well, name, f"{plate}/{well}/{name}")
        for well, name in (("A/1", "0"), ("A/1", "1"), ("B/03", "0"))
    ]
    (label,) = found[1]["labels"]
    assert label["finished"] is not None, "its run record lies beside the plate"
    one = described(command, plate / "A/1/1")
    for level in one["levels"]:
        # A plate of thousands is described without a look at voxels.
        level["check"] = "by its metadata alone"
    assert (
        found[1]
        == {
            "plate": str(plate),
            "well": "A/1",
            "field": "1",
        }
        | one
    )


def test_a_well_is_told_alike_and_a_field_that_is_not_there_is_named(tmp_path, command):
    plate = make_plate(tmp_path / "scan.zarr")
    alone = make_plate(tmp_path / "one.zarr", {"A/1": ["0"]})
    assert command("info", alone).stdout.startswith(f"{alone}: a plate (HCS), 1 well, 1 field\n")
    lines = command("info", f"{plate}/A/1/").stdout.splitlines()
    assert lines[0] == f"{plate}/A/1: well A/1 of a plate (HCS), 2 fields"
    assert [line.partition(":")[0] for line in lines[1:]] == ["  A/1/0", "  A/1/1"]
    (plate / "A/1/0/zarr.json").write_text("{")
    (plate / "B/03/zarr.json").unlink()
    done = command("info", plate)
    assert done.exit_code == 2
    first, second, third = done.stdout.splitlines()[1:]
    assert first.startswith("  A/1/0: error: ")
    assert "truncated or invalid JSON" in first
    assert second.endswith("; no labels")
    assert third.startswith("  B/03: error: ")
    found = [json.loads(line) for line in command("info", plate, "--json").stdout.splitlines()]
    assert ["error" in one for one in found] == [True, False, True]
    assert found[2]["path"] == f"{plate}/B/03"
