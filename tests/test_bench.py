"""The benches are commands: they must at least start."""

import importlib
import json

import numpy as np
import pytest

from bench import check, peers, quality
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


def run_document(**factors):
    """A run of two repeats whose parts take so many times their usual CPU seconds."""
    parts = {"read": 0.2, "suppress": 1.0, "paint": 0.004}

    def run(bare):
        spent = {name: {"cpu": bare * cpu * factors.get(name, 1)} for name, cpu in parts.items()}
        return {"bare_cpu": bare, "cpu_single": 1.5 * bare, "parts": spent}

    image = {"density": "dense", "size": 64, "radius": 3.5, "runs": [run(2.0), run(3.0)]}
    small = {"name": "one image of 64^3", "cpu": [5.0 * factors.get("small", 1)], "wall": [3.0]}
    return {
        "machine": "a",
        "model": {"name": "m", "version": "5"},
        "precision": "float32",
        "threads": 2,
        "images": [image],
        "processes": [small],
    }


def written(folder, document):
    (folder / "run.json").write_text(json.dumps(document))
    return str(folder)


def checked(folder, document, *more):
    baseline = str(folder / "baseline.json")
    check.main([written(folder, document), "--baseline", baseline, *more])


def test_ratios_are_over_the_bare_network_on_the_first_image_of_the_run():
    found = check.ratios(run_document())
    assert found["dense 64^3 r3.5: suppress"] == pytest.approx(1.0)
    assert found["dense 64^3 r3.5: all"] == pytest.approx(1.5)
    assert found["process: one image of 64^3"] == pytest.approx(2.0)
    two = run_document()
    again = [{**run, "bare_cpu": 0.01} for run in two["images"][0]["runs"]]
    two["images"].append({**two["images"][0], "radius": 7.0, "runs": again})
    assert check.ratios(two)["dense 64^3 r7: suppress"] == pytest.approx(1.0)


def test_what_became_slower_is_told_and_fails(tmp_path, capsys):
    checked(tmp_path, run_document(), "--accept")
    checked(tmp_path, run_document())
    # A machine, or a run, that is slower as a whole is not a regression; nor is noise.
    checked(tmp_path, run_document(suppress=1.14, read=0.9, paint=2.0))
    assert "0 slower" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        checked(tmp_path, run_document(suppress=1.16, read=0.5))
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "| dense 64^3 r3.5: suppress | 1.000 | 1.160 | slower +16% |" in out
    assert "| dense 64^3 r3.5: read | 0.200 | 0.100 | faster -50% |" in out
    assert "1 slower, 1 faster, 0 new, 0 missing" in out
    with pytest.raises(SystemExit):
        checked(tmp_path, run_document(small=1.2))
    checked(tmp_path, run_document(small=1.2), "--tolerance", "0.25")


def test_parts_that_came_and_went_are_named(tmp_path, capsys):
    checked(tmp_path, run_document(), "--accept")
    other = run_document()
    for run in other["images"][0]["runs"]:
        run["parts"]["look"] = run["parts"].pop("read")
    with pytest.raises(SystemExit) as ended:
        checked(tmp_path, other)
    assert ended.value.code == 2
    out = capsys.readouterr().out
    assert "| dense 64^3 r3.5: read | 0.200 | - | missing |" in out
    assert "| dense 64^3 r3.5: look | - | 0.200 | new |" in out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"precision": "bfloat16"}, "precision float32 then, bfloat16 now"),
        ({"threads": 8}, "threads 2 then, 8 now"),
        ({"images": []}, "unit dense 64^3 r3.5 then, None now"),
        ({"processes": []}, "not every part of the baseline was measured"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(change, why, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        checked(tmp_path, run_document())
    assert ended.value.code == 2
    assert "there is no baseline" in capsys.readouterr().err
    checked(tmp_path, run_document(), "--accept")
    with pytest.raises(SystemExit) as ended:
        checked(tmp_path, run_document() | change)
    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_without_a_run_it_says_what_to_do(tmp_path, capsys):
    with pytest.raises(SystemExit):
        check.main([str(tmp_path)])
    assert "first: python -m bench run" in capsys.readouterr().err


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
