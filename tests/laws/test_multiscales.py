"""Several multiscales in one group: which is read, and where its label says that it is from."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import read_image
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.report.viewer.layers import scene
from tests.support import tiny_volume
from tests.support.fakes import write_image
from tests.support.foreign_readers import validate
from tests.support.tiny_volume import Spheres

RUN = ["--diameter", "5um", "-q"]
OTHER = [*RUN, "--multiscale", "deconvolved", "--label", "other"]


def attributes_of(document):
    return document["attributes"]["ome"] if "node_type" in document else document


def root_file(path, version):
    return Path(path, "zarr.json" if version == "0.5" else ".zattrs")


def double(path, version="0.5", names=("raw", "deconvolved")):
    """Two multiscales: the tiny volume, and others' objects, coarser along z, moved by a stage."""
    tiny_volume.small_image(path, version=version)
    alone = path.with_name("alone.zarr")
    data = tiny_volume.truth(2).image(np.uint16)
    moved = [(40.0, 50.0, 60.0), (40.0, 50.25, 60.25)]
    levels = [data, data[:, ::2, ::2]]
    write_image(
        alone, levels, version=version, scale=(1.0, 0.5, 0.5), chunks=(16, 16, 16),
        translations=moved,
    )  # fmt: skip
    for level in "01":
        source = zarr.open_array(f"{alone}/{level}", mode="r")
        target = zarr.create_array(
            f"{path}/b{level}", shape=source.shape, dtype=source.dtype, chunks=source.chunks,
            zarr_format=source.metadata.zarr_format,
            **({"dimension_names": list("zyx")} if version == "0.5"
               else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}),
        )  # fmt: skip
        target[...] = source[...]
    (entry,) = attributes_of(json.loads(root_file(alone, version).read_text()))["multiscales"]
    for dataset in entry["datasets"]:
        dataset["path"] = f"b{dataset['path']}"

    def change(document):
        entries = attributes_of(document)["multiscales"]
        entries.append(entry)
        for one, name in zip(entries, names, strict=True):
            one["name"] = name

    tiny_volume.edit_json(root_file(path, version), change)
    return str(path), str(alone)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_one_that_is_asked_for_gives_what_it_gives_alone(tmp_path, command, version):
    image, alone = double(tmp_path / "a.zarr", version)
    for options in ([*RUN], OTHER):
        done = command("segment", image, *options, factory=Spheres())
        assert done.exit_code == 0, done.stderr
    done = command("segment", alone, *RUN, "--label", "other", factory=Spheres())
    assert done.exit_code == 0, done.stderr
    for n in "01":
        ours = zarr.open_array(f"{image}/labels/other/b{n}", mode="r")[...]
        expected = zarr.open_array(f"{alone}/labels/other/{n}", mode="r")[...]
        assert ours.any()
        assert np.array_equal(ours, expected)
    assert tiny_volume.rows(tmp_path / "a.other.csv") == tiny_volume.rows(
        tmp_path / "alone.other.csv"
    )
    first = zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...]
    assert not np.array_equal(first, zarr.open_array(f"{image}/labels/other/b0", mode="r")[...])

    label = json.loads(root_file(f"{image}/labels/other", version).read_text())
    # Of the image one validator wants a multiscale in the label for each of its own.
    validate(f"{image}/labels/other")
    (entry,) = attributes_of(label)["multiscales"]
    assert [one["path"] for one in entry["datasets"]] == ["b0", "b1"]
    assert entry["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 0.5, 0.5]},
        {"type": "translation", "translation": [40.0, 50.0, 60.0]},
    ]
    assert attributes_of(label)["image-label"]["source"] == {"image": "../../"}
    chosen = {"index": 1, "name": "deconvolved"}
    made = (label.get("attributes") or label)["anystar-batch"]
    assert made["options"]["multiscale"] == made["decided"]["multiscale"] == chosen
    record = json.loads((tmp_path / "a.other.run.json").read_text())
    assert record["plan"]["multiscale"] == chosen
    assert tomllib.loads((tmp_path / "a.other.toml").read_text())["multiscale"] == "deconvolved"
    plain = json.loads((tmp_path / "a.anystar.run.json").read_text())
    assert "multiscale" not in plain["plan"], "the first one is what it always was"


def test_each_label_is_current_for_its_own_multiscale(tmp_path, command):
    image, _ = double(tmp_path / "a.zarr")
    for options in ([*RUN], OTHER):
        assert command("segment", image, *options, factory=Spheres()).exit_code == 0
    found = json.loads(command("info", image, "--json").stdout)
    assert (found["multiscale"], found["other_multiscales"]) == ("raw", ["deconvolved"])
    assert {one["name"]: one["is_current"] for one in found["labels"]} == {
        "anystar": True,
        "other": True,
    }
    text = command("info", image).stdout
    assert "multiscale 0 (raw), the first; further ones, for --multiscale: 1 (deconvolved)" in text
    again = command("segment", image, *OTHER, "--json", factory=Spheres())
    assert json.loads(again.stdout)["status"] == "nothing to do"

    def drop(document):
        del attributes_of(document)["multiscales"][1]

    tiny_volume.edit_json(Path(image, "zarr.json"), drop)
    labels = json.loads(command("info", image, "--json").stdout)["labels"]
    assert {one["name"]: one["is_current"] for one in labels} == {"anystar": True, "other": None}


def test_a_label_of_another_multiscale_is_not_replaced_unasked(tmp_path, command):
    image, _ = double(tmp_path / "a.zarr")
    assert command("segment", image, *RUN, factory=Spheres()).exit_code == 0
    before = tiny_volume.contents(f"{image}/labels")
    for name in ("deconvolved", "1"):
        done = command("segment", image, *RUN, "--multiscale", name, factory=Spheres())
        assert done.exit_code == 2
        assert "--overwrite" in done.stderr
    assert tiny_volume.contents(f"{image}/labels") == before
    for name in ("raw", "0"):
        done = command("segment", image, *RUN, "--multiscale", name, "--json", factory=Spheres())
        assert json.loads(done.stdout)["status"] == "nothing to do", "it is the first"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("decnvolved", "got 'decnvolved'; the image has 0 (raw), 1 (deconvolved); did you mean"),
        ("2", "got '2'; the image has 0 (raw), 1 (deconvolved)"),
        ("-1", "got '-1'; the image has"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(tmp_path, command, asked, said):
    image, _ = double(tmp_path / "a.zarr")
    done = command("segment", image, *RUN, f"--multiscale={asked}")
    assert done.exit_code == 2
    assert f"--multiscale: {said}" in done.stderr
    single = tiny_volume.small_image(tmp_path / "b.zarr")
    done = command("segment", single, *RUN, "--multiscale", "1")
    assert (done.exit_code, "--multiscale: got '1'; the image has 0 (" in done.stderr) == (2, True)


def test_a_name_wins_over_an_index_and_must_be_one(tmp_path):
    image, _ = double(tmp_path / "a.zarr", names=("1", "0"))
    assert [read_image(image, asked).multiscale for asked in ("1", "0", 1, 0, None)] == [
        0, 1, 1, 0, 0
    ]  # fmt: skip

    def same(document):
        for one in attributes_of(document)["multiscales"]:
            one["name"] = "x"

    tiny_volume.edit_json(Path(image, "zarr.json"), same)
    with pytest.raises(ConfigError, match=r"2 of that name: 0 \(x\), 1 \(x\); give an index"):
        read_image(image, "x")
    assert read_image(image, "1").multiscale == 1


def test_a_flat_first_one_names_the_others(tmp_path, command):
    image, _ = double(tmp_path / "a.zarr", "0.4")
    flat = np.ones((1, 40, 44), "u2")
    zarr.create_array(f"{image}/0", data=flat, chunks=(1, 16, 16), zarr_format=2, overwrite=True)
    zarr.create_array(f"{image}/1", data=flat, chunks=(1, 16, 16), zarr_format=2, overwrite=True)
    for words in (["info", image], ["segment", image, *RUN]):
        done = command(*words)
        assert done.exit_code == 2
        assert "the image is 2D" in done.stderr
        assert "further multiscales, for --multiscale: 1 (deconvolved)" in done.stderr
    with pytest.raises(ImageError, match="the image is 2D"):
        read_image(image)
    assert command("segment", image, *OTHER, factory=Spheres()).exit_code == 0


def test_a_sweep_takes_it_too(tmp_path, command):
    double(tmp_path / "a.ome.zarr")
    options = ["sweep", tmp_path, *OTHER, "--settle", "0", "--json"]
    for status in ("done", "current"):
        done = command(*options, factory=Spheres())
        assert json.loads(done.stdout.splitlines()[0])["status"] == status
    assert (tmp_path / "a.ome.zarr/labels/other/b0").is_dir()


def test_the_viewer_shows_a_label_over_its_own_multiscale(tmp_path, command):
    image, _ = double(tmp_path / "a.zarr")
    assert command("segment", image, *OTHER, factory=Spheres()).exit_code == 0
    shown = scene(f"{image}/labels/other")
    assert [layer.translate for layer in shown.layers] == [(40.0, 50.0, 60.0)] * 2
    assert any("raw" in note for note in shown.notes)
