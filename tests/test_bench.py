"""The benches are commands: they must at least start."""

import importlib

import numpy as np
import pytest

from bench import peers, quality
from bench.figures import curves, table
from trainer.matches import Tally


@pytest.mark.parametrize("name", ["stars", "quality", "context"])
def test_a_bench_can_be_imported_and_run(name):
    module = importlib.import_module(f"bench.{name}")
    assert callable(module.main)


def test_rows_become_a_table_and_curves(tmp_path):
    near = Tally((4, 4, 3, 1), (1, 1, 2, 4), (0, 0, 1, 3), (1.0, 1.1), (0.9, 0.7, 0.6, 0.4))
    rows = [
        quality.Row("a", "searched", near, factor, 12.0, 11.0).to_json() for factor in (0.5, 1.0)
    ]
    rows.append(quality.Row("b", "default", Tally(fp=(7, 7, 7, 7))).to_json())
    lines = table(rows).splitlines()
    assert lines[2] == (
        "| a | searched 0.5 | 4 | 5 | 0.800 / 0.800 / 0.500 / 0.125 | 0.257 | 0.800, 1.000 | 0.667 "
        "| 1.05 | 12 (11) |"
    )
    assert lines[4].startswith("| b | default | - | 7 |")
    curves(tmp_path / "a.png", rows, "factor")
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_an_unknown_part_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["quality", str(tmp_path), "colour"])
    with pytest.raises(SystemExit):
        quality.main()
    assert "unknown parts ['colour']" in capsys.readouterr().err


def test_objects_that_a_face_cuts_are_those_with_voxels_on_both_sides():
    labels = np.zeros((8, 8, 8), np.uint32)
    labels[3:5, 1, 1] = 1  # across z = 4
    labels[4:6, 3, 3] = 2  # begins there
    labels[1, 1, 3], labels[1, 1, 4] = 3, 4  # two that meet at x = 4
    labels[6, 3:6, 6] = 5
    assert peers.cut_by_faces(labels, 4).tolist() == [1, 5]
    found = peers.agreement(labels, np.where(labels == 1, 0, labels), 4)
    assert (found["cut"], found["cut_found_0.5"], found["instances"]) == (2, 0.5, 4)
