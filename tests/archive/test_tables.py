"""The table inside the image, read by ngio, and what it must not disturb."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.labels import MOST, colours
from anystar_batch.archive.tables import has_table, write_table
from anystar_batch.errors import ConfigError
from tests.support import tiny_volume

RUN = {"block_shape": (64, 64, 64), "table": True}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ngio_reads_the_table_of_the_label(tmp_path, version, suffix):
    ngio = pytest.importorskip("ngio")
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr", version=version)
    made = tiny_volume.segment(image, run=RUN, stats=tmp_path / f"a.{suffix}")
    container = ngio.open_ome_zarr_container(image)
    assert container.list_tables() == ["anystar"]
    table = container.get_table("anystar")
    assert table.reference_label == "anystar"
    frame = table.dataframe
    assert frame.index.tolist() == list(range(1, made.instances + 1))
    labels = container.get_label("anystar").get_as_numpy()
    counts = np.bincount(labels.ravel())[1:]
    assert frame["num_voxels"].tolist() == counts.tolist()


def test_other_tables_stay_and_consolidated_metadata_is_true(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr", version="0.4")
    other = zarr.open_group(image).create_group("tables/other")
    other.attrs["type"] = "roi_table"
    zarr.open_group(f"{image}/tables").attrs["tables"] = ["other"]
    zarr.consolidate_metadata(image)
    tiny_volume.segment(image, run=RUN)
    found = zarr.open_consolidated(image)["tables"]
    assert found.attrs["tables"] == ["other", "anystar"]
    assert found["other"].attrs["type"] == "roi_table"
    assert found["anystar"].attrs["region"] == {"path": "../labels/anystar"}
    assert not list(Path(image, "tables").glob(".*.made"))


def test_a_table_is_replaced_with_its_label_and_comes_later_if_asked_later(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    first = tiny_volume.segment(image)
    assert not has_table(image, "anystar")
    assert tiny_volume.segment(image, run={"table": True}).status == "nothing to do"
    inside = Path(image, "tables", "anystar", "table.csv")
    assert inside.read_bytes() == Path(first.stats).read_bytes()
    tiny_volume.segment(image, run=RUN | {"overwrite": True}, measure=("feret",))
    assert inside.read_bytes() == Path(first.stats).read_bytes()
    assert b"feret" in inside.read_bytes()
    assert sorted(p.name for p in Path(image, "tables", "anystar").iterdir()) == [
        "table.csv",
        "zarr.json",
    ]


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    table = tmp_path / "t.csv"
    table.write_text("label\n1\n")
    for left in (".x.made", ".x.old"):
        Path(image, "tables", left).mkdir(parents=True)
    write_table(image, "x", table, "anystar")
    assert {p.name for p in Path(image, "tables").iterdir()} == {"x", "zarr.json"}
    assert json.loads(Path(image, "tables", "zarr.json").read_text())["attributes"] == {
        "tables": ["x"]
    }


def test_a_table_needs_an_image_that_may_be_written(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    with pytest.raises(ConfigError, match="--table puts the table into the image"):
        tiny_volume.segment(image, output=tmp_path / "out", run=RUN)


def test_many_labels_have_no_colours():
    assert len(colours(MOST)) == MOST
    assert colours(MOST + 1) == []
    assert colours(0) == []
    assert len({tuple(c["rgba"]) for c in colours(MOST)}) == MOST


def test_what_a_killed_writer_left_among_the_tables_is_deleted(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr", version="0.4")
    (tmp_path / "a.csv").write_text("label,volume\n1,8\n")
    zarr.consolidate_metadata(image)
    write_table(image, "anystar", tmp_path / "a.csv", "anystar")
    names = (".zmetadata.0a.partial", "..zmetadata.7-0a.partial", "tables/..zattrs.7-0a.partial")
    torn = [Path(image, name) for name in names]
    for path in torn:
        path.touch()
    write_table(image, "anystar", tmp_path / "a.csv", "anystar")
    assert not [path for path in torn if path.exists()]
