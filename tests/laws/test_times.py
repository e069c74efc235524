"""Times, channels, unusual axes, containers: what the label and the table make of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.errors import ConfigError, ImageError
from tests.support import tiny_volume
from tests.support.tiny_volume import Spheres

WHOLE = {"block_shape": (64, 64, 64)}


def container(path, count):
    """A bioformats2raw container of so many series."""
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    names = [str(n) for n in range(count)]
    root.create_group("OME").attrs["ome"] = {"version": "0.5", "series": names}
    for name in names:
        tiny_volume.small_image(Path(path) / name, levels=1)
    return str(path)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    image = tiny_volume.small_series(folder / "a.zarr")
    summary = tiny_volume.segment(image, factory=Spheres(), run=WHOLE)
    return image, summary


def label_of(summary):
    return zarr.open_array(f"{summary.label}/0", mode="r")


def test_labels_are_unique_over_the_series_and_each_time_has_its_own_objects(series):
    _, summary = series
    labels = label_of(summary)
    assert labels.shape == (3, *tiny_volume.SHAPE)
    numbers = [np.unique(labels[t])[1:] for t in range(3)]
    assert np.concatenate(numbers).tolist() == list(range(1, summary.instances + 1))
    for time in range(3):
        expected = tiny_volume.truth(1 + time).labels() > 0
        found = labels[time] > 0
        assert (found & expected).sum() > 0.6 * (found | expected).sum()


def test_the_table_has_times_and_every_channel(series):
    _, summary = series
    rows = tiny_volume.rows(summary.stats)
    labels = label_of(summary)
    assert [int(r["label"]) for r in rows] == list(range(1, summary.instances + 1))
    assert list(rows[0])[:3] == ["label", "t", "prob"]
    for row in rows:
        assert int(row["label"]) in labels[int(row["t"])]
        difference = float(row["intensity_mean_1"]) - float(row["intensity_mean_0"])
        assert difference == pytest.approx(100)


def test_one_time_alone_gives_the_instances_it_has_among_all(series, tmp_path):
    image, summary = series
    alone = tiny_volume.segment(image, factory=Spheres(), time="1", label="one", run=WHOLE)
    every, one = label_of(summary), label_of(alone)
    offset = int(every[1][every[1] > 0].min()) - 1
    assert np.array_equal(np.where(one[1] > 0, one[1] + offset, 0), every[1])
    assert not one[0].any()
    assert not one[2].any()
    columns = [c for c in tiny_volume.rows(alone.stats)[0] if c != "label"]
    those = [r for r in tiny_volume.rows(summary.stats) if r["t"] == "1"]
    for mine, other in zip(tiny_volume.rows(alone.stats), those, strict=True):
        assert [mine[c] for c in columns] == [other[c] for c in columns]
    attributes = zarr.open_group(alone.label, mode="r").attrs["anystar-batch"]
    assert attributes["times_segmented"] == [1]
    assert attributes["times_left_empty"] == [0, 2]


def test_the_scale_is_probed_at_the_same_time_whichever_is_selected(series, tmp_path):
    image, _ = series
    found = []
    for time in ("all", "2"):
        options = {"factory": Spheres(), "diameter": None, "time": time, "run": WHOLE}
        summary = tiny_volume.segment(image, output=tmp_path / time, **options)
        attributes = zarr.open_group(summary.label, mode="r").attrs["anystar-batch"]
        found.append((attributes["probe"], attributes["decided"]["diameter_um"]))
    assert found[0] == found[1]
    assert found[0][1] > 0


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["tzyx", "czyx", "tcxyz", "zyxc", "xyz"])
def test_any_order_of_axes(tmp_path, axes, version):
    image = tiny_volume.small_series(tmp_path / "a.zarr", axes, times=2, version=version)
    kept = axes.replace("c", "")
    summary = tiny_volume.segment(image, run=WHOLE)
    labels = label_of(summary)
    lengths = dict(zip("tzyx", (2, *tiny_volume.SHAPE), strict=True))
    assert labels.shape == tuple(lengths[a] for a in kept)
    stored = labels[...]
    first = stored.transpose([kept.index(a) for a in "tzyx" if a in kept])
    first = first[0] if "t" in axes else first
    expected = tiny_volume.truth().labels() > 0
    assert ((first > 0) & expected).sum() > 0.9 * ((first > 0) | expected).sum()
    assert ("t" in tiny_volume.rows(summary.stats)[0]) == ("t" in axes)
    assert ("intensity_mean_1" in tiny_volume.rows(summary.stats)[0]) == ("c" in axes)


def test_axes_with_names_of_their_own(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.zarr", levels=1)

    def rename(document):
        axes = document["attributes"]["ome"]["multiscales"][0]["axes"]
        for axis, name in zip(axes, ("depth", "row", "column"), strict=True):
            axis["name"] = name

    tiny_volume.edit_json(tmp_path / "a.zarr" / "zarr.json", rename)
    summary = tiny_volume.segment(image)
    assert summary.instances == 5
    metadata = json.loads(Path(summary.label, "zarr.json").read_text())["attributes"]["ome"]
    names = [a["name"] for a in metadata["multiscales"][0]["axes"]]
    assert names == ["depth", "row", "column"]


def test_channel_by_name_and_by_index_are_one(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.zarr", "czyx")

    def name(document):
        channels = [{"label": "DAPI"}, {"label": "GFP"}]
        document["attributes"]["ome"]["omero"] = {"channels": channels}

    tiny_volume.edit_json(tmp_path / "a.zarr" / "zarr.json", name)
    by_name = tiny_volume.segment(image, channel="GFP")
    by_index = tiny_volume.segment(image, channel="1")
    assert by_index.status == "nothing to do"
    assert by_index.fingerprint == by_name.fingerprint
    assert "intensity_mean_DAPI" in tiny_volume.rows(by_name.stats)[0]
    with pytest.raises(ConfigError, match=r"--channel: got '2'; the image has 0 \(DAPI\), 1 "):
        tiny_volume.segment(image, channel="2")
    with pytest.raises(ConfigError, match="--channel: got '²'"):
        tiny_volume.segment(image, channel="²")


def test_a_container_is_segmented_series_by_series(tmp_path, command):
    root = container(tmp_path / "scan.zarr", 2)
    done = command("segment", root, "--diameter", "5um", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0, done.stderr
    assert [line["label"] for line in lines] == [f"{root}/{n}/labels/anystar" for n in "01"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "scan.0.anystar.csv",
        "scan.0.anystar.html",
        "scan.0.anystar.run.json",
        "scan.0.anystar.toml",
        "scan.1.anystar.csv",
        "scan.1.anystar.html",
        "scan.1.anystar.run.json",
        "scan.1.anystar.toml",
        "scan.zarr",
    ]
    info = command("info", root, "--json")
    assert [len(json.loads(line)["labels"]) for line in info.stdout.splitlines()] == [1, 1]


def test_the_pipeline_itself_takes_one_series(tmp_path):
    root = container(tmp_path / "scan.zarr", 2)
    with pytest.raises(ImageError, match=r"a container of 2 series; give one of them: .*/0"):
        tiny_volume.segment(root)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_metadata_stays_true(tmp_path, version):
    import warnings

    image = tiny_volume.small_image(tmp_path / "a.zarr", version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(image, zarr_format=2 if version == "0.4" else 3)
    before = tiny_volume.segment(image)
    root = zarr.open_group(image, mode="r", use_consolidated=True)
    listed = root["labels"].attrs
    assert (listed["labels"] if version == "0.4" else listed["ome"]["labels"]) == ["anystar"]
    assert root["labels/anystar/0"].shape == tiny_volume.SHAPE
    assert "anystar-batch" in root["labels/anystar"].attrs
    other = tiny_volume.segment(tiny_volume.small_image(tmp_path / "b.zarr", version=version))
    assert other.fingerprint == before.fingerprint


def test_consolidated_metadata_above_an_image_named_from_within_stays_true(tmp_path, monkeypatch):
    import warnings

    root = container(tmp_path / "scan.zarr", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(root)
    monkeypatch.chdir(f"{root}/0")
    tiny_volume.segment(".")
    above = zarr.open_group(root, mode="r", use_consolidated=True)
    assert "anystar-batch" in above["0/labels/anystar"].attrs


def test_a_time_without_contrast_has_no_instances(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.zarr", "tzyx", times=3)
    zarr.open_array(f"{image}/0", mode="r+")[0] = 7
    summary = tiny_volume.segment(image, run=WHOLE)
    labels = label_of(summary)
    assert not labels[0].any()
    assert labels[1].any()
