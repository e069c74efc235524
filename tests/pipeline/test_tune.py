"""`tune`: the table says what runs would find; what is refused; how candidates are removed."""

import functools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.parsing import Quantity
from anystar_batch.pipeline import threshold_table
from anystar_batch.pipeline.segment import segment
from anystar_batch.pipeline.tune import TuneConfig, tune, tuned_text
from tests.laws.test_times import container
from tests.support import tiny_volume
from tests.support.fakes import NoNetwork, TruthPredictor, random_ellipsoids, write_image
from tests.support.law_phantom import law_refiner

RUN = ["--diameter", "5um", "-q", "--no-report"]


@functools.lru_cache(maxsize=1)
def crowd():
    return random_ellipsoids(tiny_volume.SHAPE, 60, 3, radius=(2.5, 5.0))


def crowded(path):
    """An image so full that thresholds decide who survives."""
    return write_image(path, [crowd().image()], chunks=(16, 16, 16), scale=(0.5, 0.5, 0.5))


def network():
    return TruthPredictor(crowd(), core=0.6, wobble=0.5)


@pytest.mark.parametrize("refine", ["on", "off"])
def test_the_table_counts_what_runs_find(tmp_path, refine):
    image = crowded(tmp_path / "a.ome.zarr")
    model = replace(tiny_volume.model(), refiner=law_refiner(tmp_path / "refiner", seed=6))
    options = {"refine": refine, "nms_thresh": 0.2}
    options |= {"outline": 0.4} if refine == "on" else {"expand": Quantity(-2.0, "um")}
    config = tiny_volume.config(image, run={"keep_candidates": True, "report": False}, **options)
    segment(config, factory=network(), model=model)
    found = tune(TuneConfig(image), model=model)
    assert found["tiles"] == found["tiles_usable"] == found["tiles_seen"]
    rows = {row["prob_thresh"]: row for row in found["rows"]}
    assert list(rows)[:4] == [0.5, 0.55, 0.6, 0.65]
    assert [row["prob_thresh"] for row in found["rows"] if row["is_current"]] == [0.5]
    counts, hidden = set(), []
    again = replace(config, run=replace(config.run, overwrite=True, keep_candidates=False))
    for prob_thresh in (0.5, 0.85):
        result = replace(config.result, prob_thresh=prob_thresh)
        done = segment(replace(again, result=result), factory=NoNetwork(), model=model)
        assert rows[prob_thresh]["objects"] == done.instances
        counts.add(done.instances)
        record = json.loads((tmp_path / "a.anystar.run.json").read_text())
        hidden.append(record["survivors_hidden"])
        scores = [float(row["prob"]) for row in tiny_volume.rows(done.stats)]
        assert rows[prob_thresh]["median_prob"] == pytest.approx(np.median(scores), abs=1e-4)
        if refine == "on":
            assert 0 < rows[prob_thresh]["median_quality"] < 1
    assert len(counts) == 2
    assert refine == "on" or sum(hidden) > 0
    assert (found["rows"][0]["median_quality"] is None) == (refine == "off")
    assert tune(TuneConfig(image), model=model)["rows"][0]["is_current"] is False


def test_of_many_candidates_a_sample_of_tiles_is_counted(tmp_path, monkeypatch):
    image = crowded(tmp_path / "a.ome.zarr")
    config = tiny_volume.config(image, run={"keep_candidates": True, "report": False})
    segment(config, factory=network(), model=tiny_volume.model())
    whole = tune(TuneConfig(image), model=tiny_volume.model())
    every = sum(row["objects"] for row in whole["rows"])
    monkeypatch.setattr(threshold_table, "MOST", 300)
    some = tune(TuneConfig(image), model=tiny_volume.model())
    assert 0 < some["tiles_seen"] < some["tiles"]
    assert some == tune(TuneConfig(image), model=tiny_volume.model()), "always the same sample"
    assert f"a sample: {some['tiles_seen']} of 18 tiles" in tuned_text(some)
    assert 0.5 < sum(row["objects"] for row in some["rows"]) / every < 2
    # All tiles one by one find what they find together: each sees what is around it.
    monkeypatch.setattr(threshold_table, "MOST", 0)
    monkeypatch.setattr(
        threshold_table, "_groups", lambda tiles: [
            (0, [threshold_table.parse_key(key.partition("/")[2])[1]]) for key in tiles
        ],
    )  # fmt: skip
    one_by_one = tune(TuneConfig(image), model=tiny_volume.model())
    for a, b in zip(one_by_one["rows"], whole["rows"], strict=False):
        assert abs(a["objects"] - b["objects"]) <= 1 + 0.05 * b["objects"]


def test_from_the_shell(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    none = command("tune", image)
    assert none.exit_code == 2
    assert re.search(r"error: .*a\.candidates: no candidates to tune with \(none are kept\); keep "
                     r"them: anystar-batch segment \S+ --keep-candidates --overwrite\n",
                     none.stderr)  # fmt: skip
    assert command("segment", image, *RUN, "--keep-above", "0.4").exit_code == 0
    done = command("tune", image, "-q")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"\n +0\.5 +5 +- +[\d.]+ +0\.86   <- now\n", done.stdout)
    then = done.stdout.rpartition("then: anystar-batch ")[2].replace(" P ", " 0.85 ").split()
    assert "3 instances" in command(*then, "--no-report", factory=NoNetwork()).stdout
    assert "candidates above 0.4 are kept" in done.stdout
    found = json.loads(command("tune", image, "--json", "--nms-thresh", "0.4", "-q").stdout)
    assert (found["nms_thresh"], found["above"], found["model"]) == (0.4, 0.4, "anystar-mix")
    assert command("tune", image, "--nms-thresh", "4").exit_code == 2
    text = command("info", image).stdout
    (kept,) = json.loads(command("info", image, "--json").stdout)["candidates"]
    assert f"candidates kept above 0.4: {kept['bytes'] / 1e6:.3g} MB in {kept['path']}" in text
    assert kept["bytes"] == sum(p.stat().st_size for p in Path(kept["path"]).iterdir())
    dry = ["segment", image, "--diameter", "5um", "--label", "other", "--dry-run"]
    text = command(*dry, factory=NoNetwork()).stdout
    assert "18 from kept candidates" in text
    assert "time        seconds: the network has nothing left to do" in text
    low = [*RUN, "--label", "low", "--prob-thresh", "0.3"]
    assert command("segment", image, *low).exit_code == 0
    assert "  now: 0.3, below what is kept\n" in command("tune", image, "--label", "low").stdout
    gone = command("tune", image, "--remove")
    assert "MB of candidates removed" in gone.stdout
    assert not (tmp_path / "a.candidates").exists()
    assert json.loads(command("info", image, "--json").stdout)["candidates"] == []


def test_with_output_and_of_an_image_that_has_changed(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    out = ["--output", tmp_path / "out"]
    assert command("segment", image, *RUN, *out, "--keep-candidates").exit_code == 0
    assert not (tmp_path / "a.candidates").exists()
    assert command("tune", image, *out, "-q").exit_code == 0
    (tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "0" / "0").touch()
    done = command("tune", image, *out, "-q")
    assert re.search(r"\d+ tiles cannot be used \(damaged, or the image has changed there\)",
                     done.stdout)  # fmt: skip
    tiny_volume.edit_json(
        tmp_path / "a.ome.zarr" / "zarr.json",
        lambda d: d["attributes"]["ome"]["multiscales"][0]["datasets"][0][
            "coordinateTransformations"
        ][0].update(scale=[0.6, 0.5, 0.5]),
    )
    other = command("tune", image, *out, "-q")
    assert other.exit_code == 2
    assert "kept of another image or by another model" in other.stderr


def test_of_a_container_one_image_is_asked_for(tmp_path, command):
    container(tmp_path / "c.ome.zarr", 2)
    done = command("tune", tmp_path / "c.ome.zarr")
    assert done.exit_code == 2
    assert "expected one: give one, e.g. " in done.stderr


def test_a_sweep_keeps_and_takes_them_and_lists_no_folder_of_them(tmp_path, command):
    tiny_volume.small_image(tmp_path / "a.ome.zarr")
    options = [tmp_path, "--diameter", "5um", "--settle", "0s", "--no-report", "-q"]
    assert command("sweep", *options, "--keep-candidates").exit_code == 0
    again = command(
        "sweep", *options, "--label", "other", "--prob-thresh", "0.7", "--json", factory=NoNetwork()
    )
    assert again.exit_code == 0, again.stderr
    outcomes = [json.loads(line) for line in again.stdout.splitlines()]
    assert [one["image"] for one in outcomes if "image" in one] == [f"{tmp_path}/a.ome.zarr"]
