"""GEFF as its specification has it, read by zarr alone."""

import numpy as np
import pytest
import zarr

from anystar_batch.archive.star_group import StarReader
from anystar_batch.export.graph import Source, write_geff
from anystar_batch.export.selection import Selection
from tests.support.starred_label import INSCRIBED, RADII, write_starred_label


def test_nodes_have_time_place_and_radius(tmp_path):
    reader = StarReader(write_starred_label(tmp_path / "label.zarr", "0.4", num_times=2))
    write_geff(
        [Source(Selection(reader, times=[1]), 0.5, 0.3)], tmp_path / "a.geff", "../label.zarr"
    )
    root = zarr.open_group(str(tmp_path / "a.geff"), mode="r")
    assert root["nodes/ids"][...].tolist() == [3, 4, 5]
    assert root["edges/ids"].shape == (0, 2)
    values = {name: root[f"nodes/props/{name}/values"][...] for name in ("t", "z", "x", "radius")}
    assert values["t"].tolist() == [1, 1, 1]
    assert values["z"][0] == pytest.approx((46 * 0.8 + 0.25) * 1.0 + 5.0)
    assert values["x"][0] == pytest.approx((18 * 1.6 + 0.125) * 0.5 - 3.0)
    radii = 0.8 * np.cbrt(INSCRIBED * RADII[2:].prod(axis=1))
    np.testing.assert_allclose(values["radius"], radii, rtol=0.01)
    geff = root.attrs["geff"]
    assert geff["sphere"] == "radius"
    assert [axis["name"] for axis in geff["axes"]] == ["t", "z", "y", "x"]
    assert set(geff["node_props_metadata"]) == set(root["nodes/props"].group_keys())


def test_alternatives_are_further_nodes_and_nobody_is_two(tmp_path):
    reader = StarReader(write_starred_label(tmp_path / "label.zarr"))
    first = Source(Selection(reader, [(1, 2)]), 0.5, 0.3)
    more = Source(Selection(reader, [(2, 4)]), 0.5, 0.7)
    most = Source(Selection(reader), 0.4, 0.9)
    write_geff([first, more, most], tmp_path / "a.geff", "label.zarr")
    root = zarr.open_group(str(tmp_path / "a.geff"), mode="r")
    assert root["nodes/ids"][...].tolist() == [1, 2, 6, 7, 8]
    values = {name: root[f"nodes/props/{name}/values"][...].tolist()
              for name in ("label", "source", "nms_thresh")}  # fmt: skip
    assert values == {
        "label": [1, 2, 3, 4, 5],
        "source": [0, 0, 1, 1, 2],
        "nms_thresh": [0.3, 0.3, 0.7, 0.7, 0.9],
    }
