"""`anystar_batch.segment`: the words of the command line, its errors, the page about it."""

import functools
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import anystar_batch
from anystar_batch.cli.segment import segment as command
from anystar_batch.engine import engines
from anystar_batch.errors import ConfigError, ImageError, OutputExistsError
from anystar_batch.events import BlockDone
from anystar_batch.options import SCREEN
from anystar_batch.pipeline import run_record, segment
from tests.support import tiny_volume
from tests.support.checkout import ROOT
from tests.support.fakes import TruthPredictor


@pytest.fixture
def fake(monkeypatch):
    """The network of the tests, and one worker unless told otherwise."""
    options = {"factory": TruthPredictor(tiny_volume.truth()), "model": tiny_volume.model()}
    monkeypatch.setattr(segment, "segment", functools.partial(segment.segment, **options))
    monkeypatch.setattr(engines, "natural_workers", lambda *_: 1)


def test_it_has_the_words_of_the_command_with_their_defaults():
    mine = inspect.signature(anystar_batch.segment).parameters
    theirs = inspect.signature(command).parameters
    names = {o.name for o in command.options} - {o.name for o in SCREEN}
    assert set(mine) - {"image", "on_event"} == names
    for name in set(mine) - {"image", "on_event"}:
        assert mine[name].default == theirs[name].default, name


def test_importing_it_loads_nothing_heavy():
    heavy = ["tensorflow", "keras", "dask", "zarr", "numpy", "numba", "stardist", "typer", "rich"]
    code = (
        "import sys, anystar_batch\nanystar_batch.segment\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_makes_what_the_command_makes(tmp_path, fake, command):
    images = [Path(tiny_volume.small_image(tmp_path / name / "a.zarr")) for name in ("x", "y")]
    events = []
    found = anystar_batch.segment(
        images[0],
        diameter="5um",
        time=0,
        channel=0,
        min_volume=1,
        measure=["surface"],
        block_shape=(12, 16, 16),
        memory="4GB",
        stats=tmp_path / "x" / "t.csv",
        on_event=events.append,
    )
    assert (found.instances, found.status, found.warnings) == (5, "done", ())
    assert found.label == f"{images[0]}/labels/anystar"
    assert found.stats == f"{tmp_path}/x/t.csv"
    assert sum(isinstance(e, BlockDone) and e.stage == "predict" for e in events) > 1
    words = "--diameter 5um --time 0 --min-volume 1 --measure surface --block-shape 12 16 16"
    words += " --memory 4GB"
    done = command("segment", images[1], *words.split(), "--stats", tmp_path / "y" / "t.csv")
    assert done.exit_code == 0, done.stderr
    mine, theirs = (tiny_volume.contents(tmp_path / name) for name in ("x", "y"))
    for contents in (mine, theirs):
        del contents["a.anystar.run.json"]
    assert {k: v.replace(b"/x/", b"/y/") for k, v in mine.items()} == theirs
    again = anystar_batch.segment(
        str(images[0]), diameter="5um", min_volume=1, measure="surface", stats=found.stats
    )
    assert (again.status, again.instances) == ("nothing to do", 5)
    with pytest.raises(OutputExistsError, match="exists already"):
        anystar_batch.segment(images[0], diameter="6um", stats=found.stats)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"diameter": 12}, r"segment: diameter: got 12; expected text"),
        ({"workers": "3"}, r"segment: workers: got '3'; expected a whole number"),
        ({"voxel_size": (1, 2)}, r"voxel_size: got \(1, 2\); expected 3 numbers"),
        ({"diameter": "12"}, "--diameter: got '12'; expected a positive number with a unit"),
        ({"precision": "float16"}, "--precision: got 'float16'"),
    ],
)
def test_a_wrong_option_is_raised(tmp_path, fake, options, said):
    with pytest.raises(ConfigError, match=said):
        anystar_batch.segment(tmp_path / "a.zarr", **options)


def test_what_is_no_image_is_raised(tmp_path, fake):
    with pytest.raises(anystar_batch.AnyStarBatchError, match="no such file or directory"):
        anystar_batch.segment(tmp_path / "a.zarr")


def test_of_a_container_one_series_is_to_be_given(tmp_path, fake):
    import zarr

    root = zarr.open_group(str(tmp_path / "scan.zarr"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for n in "01":
        tiny_volume.small_image(tmp_path / "scan.zarr" / n, version="0.4")
    with pytest.raises(ImageError, match=r"a container of 2 series; give one of them: .*/0"):
        anystar_batch.segment(tmp_path / "scan.zarr", diameter="5um")


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_the_page_run(tmp_path, fake, monkeypatch, capsys, number):
    page = ROOT / "docs" / "api.md"
    example = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)[number]
    monkeypatch.chdir(tmp_path)
    tiny_volume.small_image("embryo.ome.zarr")
    exec(compile(example, page.name, "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    if number == 0:
        assert "5 instances\n" in out
        assert f"label: {tmp_path}/embryo.ome.zarr/labels/anystar\n" in out
    else:
        assert re.search(r"^predict 0/\d.\d.\d \d+$", out, re.MULTILINE)
    record = json.loads(Path("embryo.anystar.run.json").read_text())
    assert record["summary"]["instances"] == 5


def test_the_fields_that_the_page_names_are_those_of_the_result():
    import dataclasses

    page = (ROOT / "docs" / "api.md").read_text()
    table = page.partition("## What comes back")[2].partition("## What is raised")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    fields = {f.name for f in dataclasses.fields(run_record.Summary)} - {"image"}
    assert named - {"to_json"} == fields
