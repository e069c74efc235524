"""`--config`: what a file may say, what is typed instead, and the file that a run leaves."""

import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from anystar_batch import options
from anystar_batch.cli import segment, sweep
from anystar_batch.config import Filters, Inside, ResultConfig, RunConfig, SegmentConfig
from anystar_batch.errors import ConfigError
from anystar_batch.options import PANELS, SCREEN, SEGMENT, SWEEP, checked, typed_options
from anystar_batch.parsing import Quantity, parse_volume
from anystar_batch.pipeline.run_record import DECIDED, effective_toml
from tests.support import tiny_volume
from tests.support.checkout import ROOT

PARTS = {"prob_thresh": 0.5, "nms_thresh": 0.3, "tile": 64, "precision": "float32"}
ALL = segment.segment.options
NOT_KEPT = {"overwrite", "restart", "part"}


def write(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_option_may_stand_in_a_file():
    assert {*SEGMENT, *SCREEN} == set(ALL)
    kinds = {o.key: (o.kind, o.count) for o in ALL}
    assert kinds["block-shape"] == (int, 3)
    assert kinds["voxel-size"] == (float, 3)
    assert kinds["json"] == kinds["table"] == (bool, 1)
    assert kinds["diameter"] == (str, 1)
    assert {"config", "images"}.isdisjoint(kinds)
    assert {"pattern", "settle", "max-hours"} <= {o.key for o in sweep.sweep.options}
    assert set(SWEEP) | set(SCREEN) <= set(sweep.sweep.options)
    left_out = {o.name for o in set(SEGMENT) - set(sweep.sweep.options)}
    assert left_out == {"stats", "restart", "part"}


def test_a_file_gives_options_and_the_command_line_wins(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    text = 'label = "filed"\ndiameter = "5um"\nblock_shape = [12, 16, 16]\njson = true\nchannel = 0'
    file = write(tmp_path, f'{text}\nmin-volume = 1\nmeasure = ["feret", "surface"]\ntable = true')
    first = json.loads(command("segment", image, "--config", file).stdout)
    assert first["label"] == f"{image}/labels/filed"
    assert first["instances"] == 5
    assert Path(image, "tables").is_dir()
    record = json.loads((tmp_path / "a.filed.run.json").read_text())["config"]
    assert record["result"]["diameter"] == {"value": 5.0, "unit": "um"}
    assert record["result"]["measure"] == ["surface", "feret"]
    assert record["result"]["filters"]["min_volume"] == {"value": 1.0, "unit": "um3"}
    assert record["run"]["block_shape"] == [12, 16, 16]
    typed = ["--label", "typed", "--diameter", "6um", "--block-shape", 16, 16, 16, "--no-table"]
    second = json.loads(command("segment", image, *typed, "--config", file).stdout)
    assert second["label"] == f"{image}/labels/typed"
    record = json.loads((tmp_path / "a.typed.run.json").read_text())["config"]
    assert record["result"]["diameter"]["value"] == 6.0
    assert record["run"]["block_shape"] == [16, 16, 16]
    assert record["run"]["table"] is False


def test_a_sweep_takes_a_file(tmp_path, command):
    image = Path(tiny_volume.small_image(tmp_path / "in" / "a.tif.zarr"))
    file = write(tmp_path, 'pattern = "*.tif.zarr"\nsettle = "0"\ndiameter = "5um"\nmax-hours = 1')
    done = command("sweep", tmp_path / "in", "--config", file)
    assert done.exit_code == 0, done.stderr
    assert (image / "labels" / "anystar").is_dir()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('diametre = "5um"', "'diametre' is no option of this command; did you mean 'diameter'?"),
        ('pattern = "*.zarr"', "'pattern' is no option of this command"),
        ('[segment]\nlabel = "a"', "'segment' is no option of this command; options stand alone"),
        ('config = "other.toml"', "'config' is no option of this command"),
        ("min-volume = 1\nmin_volume = 2", "'min-volume' is given twice"),
        ('workers = "3"', "workers: got '3'; expected a whole number"),
        ("workers = true", "workers: got True; expected a whole number"),
        ("workers = 1.5", "workers: got 1.5; expected a whole number"),
        ('prob-thresh = "0.5"', "prob-thresh: got '0.5'; expected a number"),
        ("diameter = 12", "diameter: got 12; expected text"),
        ("overwrite = 1", "overwrite: got 1; expected true or false"),
        ("voxel-size = [1, 2]", "voxel-size: got [1, 2]; expected 3 numbers, as [1, 2, 3]"),
        ("block-shape = [1, 2, 3.5]", "block-shape: got [1, 2, 3.5]; expected 3 numbers"),
        ("scales = [1, [2]]", "scales: got [1, [2]]; expected text"),
        ('diameter = "5 parsec"', "--diameter: got '5 parsec'"),
        ("label", "is no TOML: "),
        ("label = '\x00'", "is no TOML: "),
    ],
)
def test_what_a_file_may_not_say_is_one_line_and_exit_2(tmp_path, command, text, said):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    before = tiny_volume.snapshot(image)
    done = command("segment", image, "--config", write(tmp_path, text))
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert tiny_volume.snapshot(image) == before


def test_a_file_that_is_not_there(tmp_path, command):
    done = command("segment", "a.zarr", "--config", tmp_path / "nothing.toml")
    assert done.exit_code == 2
    assert "nothing.toml cannot be read (No such file or directory)" in done.stderr
    assert "cannot be read (Is a directory)" in command("segment", "a", "--config", tmp_path).stderr
    (tmp_path / "latin.toml").write_bytes(b'label = "\xe9"')
    done = command("segment", "a.zarr", "--config", tmp_path / "latin.toml")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "latin.toml is no TOML" in done.stderr


def test_the_file_that_a_run_leaves_makes_the_same_bytes(tmp_path, command):
    images = [tiny_volume.small_image(tmp_path / name / "a.zarr") for name in ("x", "y")]
    asked = ["--min-volume", "0.3um3", "--measure", "surface", "--prob-thresh", 0.6, "--table"]
    first = command("segment", images[0], *asked, "--block-shape", 12, 16, 16)  # probed
    assert first.exit_code == 0, first.stderr
    left = tmp_path / "x" / "a.anystar.toml"
    second = command("segment", images[1], "--config", left, "--block-shape", 16, 32, 32)
    assert second.exit_code == 0, second.stderr
    mine, again = (tiny_volume.contents(tmp_path / name) for name in ("x", "y"))
    for found in (mine, again):
        del found["a.anystar.run.json"]
    texts = [found.pop("a.anystar.toml").decode() for found in (mine, again)]
    assert mine == again
    assert texts[0].replace("12,\n    16,\n    16", "16,\n    32,\n    32") == texts[1]
    assert "nothing to do" in command("segment", images[0], "--config", left).stdout


def test_the_file_takes_the_place_of_the_replaced_labels(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    for diameter in ("5um", "6um"):
        command("segment", image, "--diameter", diameter, "--overwrite")
        written = tomllib.loads((tmp_path / "a.anystar.toml").read_text())
        assert written["diameter"] == diameter.replace("um", ".0um")
        assert NOT_KEPT.isdisjoint(written)


EVERYTHING = SegmentConfig(
    image="/d/a.zarr",
    label="n",
    output="/out",
    stats="/t/a.csv",
    model="anystar-mix",
    result=ResultConfig(
        channel="DAPI",
        time="0,2-3",
        diameter=Quantity(0.1 + 0.2, "px"),
        elongation=1.4,
        voxel_size=(2.0, 0.1, 1e-5),
        prob_thresh=0.5,
        nms_thresh=0.3,
        tile=64,
        filters=Filters(
            parse_volume("", "0.1 mm^3"),
            parse_volume("", "123456789.123um3"),
            0.25,
            1.5,
            1 / 3,
            0.4,
        ),
        multiscale="second",
        level=1,
        inside=Inside("organoids", ((3, 3), (7, 9))),
        refine="on",
        outline=0.25,
        expand=Quantity(-1.5, "um"),
        scales=(1, 2),
        precision="float32",
        backend="jax",
        reference_time=2,
        measure=("solidity", "feret"),
    ),
    run=RunConfig(
        (1, 2, 3),
        4 * 10**9 + 1,
        3,
        work_dir="/w",
        table=True,
        report=False,
        keep_candidates=True,
        keep_above=0.25,
    ),
)


@pytest.mark.parametrize("config", [EVERYTHING, SegmentConfig(image="/d/a.zarr")])
def test_a_config_survives_its_file(config):
    text = effective_toml(config, PARTS)
    values = checked(tomllib.loads(text), ALL, "here")
    pinned = {k: v for k, v in PARTS.items() if config is not EVERYTHING}
    expected = dataclasses.replace(config, result=dataclasses.replace(config.result, **pinned))
    assert options.segment_config(values, "/d/a.zarr") == expected


def test_no_option_is_forgotten_in_the_file_that_a_run_leaves():
    run = dataclasses.replace(EVERYTHING.run, workers=None, scheduler="tcp://x")
    both = [EVERYTHING, dataclasses.replace(EVERYTHING, run=run)]
    written = {name for config in both for name in typed_options(config, PARTS)}
    assert written == {o.name for o in SEGMENT} - NOT_KEPT
    assert set(DECIDED) == set(PARTS)


def test_the_folder_of_a_model_is_written_as_everybody_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    found = typed_options(SegmentConfig(image="/d/a.zarr", model="mine"), PARTS)
    assert found["model"] == str(tmp_path / "mine")


def test_a_triple_and_text_are_what_they_are():
    with pytest.raises(ConfigError, match="expected text"):
        checked({"label": 3}, ALL, "here")
    assert checked({"time": [0, "2-3"]}, ALL, "here") == {"time": "0,2-3"}


MADE_UP = """
from anystar_batch import options
made_up = options.Option(
    "made_up", str, "anystar", options.KEEP, "An option of this test.", field="label"
)
options.SEGMENT = (*options.SEGMENT, made_up)
import importlib, inspect, json, sys
from anystar_batch import api
importlib.reload(api)
from typer.testing import CliRunner
from anystar_batch.cli import app
from anystar_batch.cli.config_file import read_document
from bench.options import page
from pathlib import Path

runner = CliRunner()
file = Path(sys.argv[1])
file.write_text("made-up = 3")
said = {
    "help": runner.invoke(app, ["segment", "--help"], env={"COLUMNS": "200"}).stdout,
    "sweep": runner.invoke(app, ["sweep", "--help"], env={"COLUMNS": "200"}).stdout,
    "file": runner.invoke(app, ["segment", "a", "--config", str(file)]).stderr,
    "python": str(inspect.signature(api.segment)),
    "documented": inspect.getdoc(api.segment),
    "page": page(),
    "config": options.segment_config({"made_up": "b"}, "/d/a.zarr").label,
}
print(json.dumps(said))
"""


def test_an_option_is_declared_in_one_place(tmp_path):
    words = [sys.executable, "-c", MADE_UP, str(tmp_path / "a.toml")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    said = json.loads(done.stdout)
    for where in ("help", "sweep"):
        assert re.search(r"--made-up .*An option of this test\.", said[where]), where
    assert "made-up: got 3; expected text" in said["file"]
    assert "made_up='anystar'" in said["python"]
    assert "An option of this test." in said["documented"]
    assert "`--made-up`" in said["page"]
    assert said["config"] == "b"


def test_the_help_has_panels_and_what_matters_most_comes_first(command):
    told = command("segment", "--help").stdout
    places = [told.index(panel) for panel in PANELS]
    assert places == sorted(places)
    first = told[places[0] : places[2]]
    assert all(f"--{key} " in first for key in ("channel", "time", "model", "diameter"))
