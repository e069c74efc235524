"""The command: options, exit codes, what goes to stdout and what to stderr."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anystar_batch import __version__, cli
from anystar_batch.archive.storage.lock import hold
from anystar_batch.errors import (
    BlockError,
    ConfigError,
    DataError,
    ImageError,
    LockedError,
    OutOfTimeError,
    OutputError,
)
from anystar_batch.pipeline import run_record
from anystar_batch.pipeline import segment as pipeline
from tests.laws.test_times import container
from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor, write_image
from tests.support.tiny_volume import Spheres

SIZE = ["--diameter", "5um"]
HEAVY = ["tensorflow", "keras", "dask", "distributed", "zarr", "numpy", "numba", "stardist"]


@pytest.mark.parametrize("words", [["--help"], ["segment", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys\n"
        "from anystar_batch.cli import main\n"
        f"sys.argv = ['anystar-batch', *{words!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout


def test_an_error_is_said_once(tmp_path):
    """In a process of its own: nobody else listens to the log there."""
    done = subprocess.run(
        [sys.executable, "-m", "anystar_batch", "info", str(tmp_path / "none.zarr")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/none.zarr: no such file or directory\n"


def test_version(command):
    assert command("--version").stdout == f"anystar-batch {__version__}\n"


def test_every_option_of_the_contract_is_there(command):
    parameters = {option for p in cli.app.registered_commands for option in _options(p.callback)}
    wanted = (
        "--label --output --channel --time --diameter --voxel-size --prob-thresh --nms-thresh "
        "--min-volume --max-volume --min-prob --min-contrast --min-regularity "
        "--model --tile --block-shape --memory --workers --work-dir --stats --overwrite --restart "
        "--dry-run --json --log-file -q -v"
    )
    assert set(wanted.split()) <= parameters
    assert {c.callback.__name__ for c in cli.app.registered_commands} >= {
        "segment",
        "info",
        "models",
    }


def _options(callback):
    import typer

    group = typer.main.get_command(cli.app)
    command = group.commands[callback.__name__]
    return [o for p in command.params for o in p.opts]


def test_label_goes_into_the_image_and_the_table_beside_it(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "embryo.ome.zarr")
    done = command("segment", image, *SIZE, "--memory", "4GB")
    assert done.exit_code == 0, done.stderr
    assert Path(image, "labels", "anystar").is_dir()
    assert done.stdout.splitlines() == [
        f"labels {image}/labels/anystar: 5 instances",
        "channel 0 (0)",
        f"table  {tmp_path}/embryo.anystar.csv",
        f"report {tmp_path}/embryo.anystar.html",
    ]
    assert {p.name for p in tmp_path.iterdir()} == {
        "embryo.ome.zarr",
        "embryo.anystar.csv",
        "embryo.anystar.html",
        "embryo.anystar.run.json",
        "embryo.anystar.toml",
    }
    assert "network" in done.stderr


NAMED = [
    (["BF", "H2B"], "H2B", "1 (H2B)", False),
    (["405", "488"], "488", "1 (488)", False),
    (["405", "488"], "1", "1 (488)", False),
    (["1", "0"], "1", "0 (1)", True),
    (["2", "1"], "1", "1 (1)", False),
    (["1", "x"], "1", "0 (1)", True),
]


@pytest.mark.parametrize(("labels", "asked", "used", "is_doubtful"), NAMED)
def test_the_channel_that_is_used_is_always_told_by_index_and_name(
    tmp_path, command, labels, asked, used, is_doubtful
):
    image = tiny_volume.small_series(tmp_path / "a.zarr", "czyx")
    omero = {"channels": [{"label": label} for label in labels]}
    tiny_volume.edit_json(
        tmp_path / "a.zarr/zarr.json", lambda d: d["attributes"]["ome"].update(omero=omero)
    )
    words = ["segment", image, *SIZE, "--channel", asked, "-q"]
    assert f"channel     {used}\n" in command(*words, "--dry-run").stdout
    assert json.loads(command(*words, "--dry-run", "--json").stdout)["channel"] == used
    done = command(*words, factory=Spheres())
    assert done.exit_code == 0, done.stderr
    assert f"channel {used}\n" in done.stdout
    assert ("is the name of channel" in done.stderr) == is_doubtful
    found = json.loads((tmp_path / "a.anystar.run.json").read_text())
    assert found["plan"]["channel"] == int(used[0])
    assert found["summary"]["channel"] == used
    again = command(*words, "--json", factory=Spheres())
    assert json.loads(again.stdout)["channel"] == used, "nothing to do, and told all the same"


def test_json_is_one_object_an_image(tmp_path, command):
    images = [tiny_volume.small_image(tmp_path / f"{n}.zarr") for n in "ab"]
    done = command("segment", *images, *SIZE, "--json", "--label", "nuclei")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == images
    for line in lines:
        assert line["label"] == f"{line['image']}/labels/nuclei"
        assert Path(line["stats"]).is_file()
        assert line["instances"] == 5
        assert line["voxels"] == 20 * 40 * 44
        assert {"predict", "suppress", "own", "paint", "pyramid 1", "table"} == set(line["seconds"])
        assert line["peak_memory"] > 10**6
        assert len(line["fingerprint"]) == 64
        assert line["status"] == "done"
    assert lines[0]["fingerprint"] == lines[1]["fingerprint"]


def test_the_run_record_says_what_the_label_does_not(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *SIZE, "--block-shape", 16, 16, 16)
    record = json.loads((tmp_path / "a.anystar.run.json").read_text())
    assert record["workers"] == 1
    assert record["block_shape"] == [16, 16, 16]
    assert record["config"]["result"]["diameter"] == {"value": 5.0, "unit": "um"}
    assert record["host"]
    assert record["finished"].startswith("20")
    attributes = (Path(image) / "labels/anystar/zarr.json").read_text()
    assert record["host"] not in attributes.replace("anystar", "")
    assert "block_shape" not in attributes
    assert record["summary"]["fingerprint"] in attributes


def test_output_holds_everything_and_the_image_nothing(tmp_path, command):
    images = [
        tiny_volume.small_image(tmp_path / "in" / name)
        for name in ("one.ome.zarr", "deep/er/two.zarr", "three")
    ]
    before = tiny_volume.snapshot(tmp_path / "in")
    out = tmp_path / "new" / "out"
    done = command("segment", *images, *SIZE, "--output", out, "--label", "n", "--json")
    assert done.exit_code == 0, done.stderr
    assert tiny_volume.snapshot(tmp_path / "in") == before
    stems = ["one", "deep.er.two", "three"]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        f"{stem}.n.{end}"
        for stem in stems
        for end in ("ome.zarr", "csv", "html", "run.json", "toml")
    )
    attributes = json.loads((out / "deep.er.two.n.ome.zarr/zarr.json").read_text())["attributes"]
    source = attributes["ome"]["image-label"]["source"]["image"]
    there = os.path.normpath(out / "deep.er.two.n.ome.zarr" / source)
    assert there == images[1]


def test_nothing_to_do_is_exit_0_and_changes_nothing(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *SIZE)
    before = tiny_volume.contents(tmp_path)
    again = command("segment", image, *SIZE, "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["status"] == "nothing to do"
    assert json.loads(again.stdout)["instances"] == 5
    assert tiny_volume.contents(tmp_path) == before
    assert "(nothing to do)" in command("segment", image, *SIZE).stdout


def test_a_missing_table_is_a_warning(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *SIZE)
    (tmp_path / "a.anystar.csv").unlink()
    again = command("segment", image, *SIZE, "--fail-on-warning")
    assert again.exit_code == 3
    assert "its table" in again.stderr
    assert "--overwrite" in again.stderr


def test_dry_run_writes_nothing_at_all(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    before = tiny_volume.snapshot(tmp_path)
    done = command("segment", image, *SIZE, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "blocks" in done.stdout
    assert f"{image}/labels/anystar (new)" in done.stdout
    probed = command("segment", image, "--dry-run", "--json", "--output", tmp_path / "out")
    plan = json.loads(probed.stdout)
    assert plan["status"] == "new"
    assert plan["tiles"] >= 1
    assert tiny_volume.snapshot(tmp_path) == before


def test_dry_run_says_what_is_there_already(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *SIZE)
    assert "(nothing to do)" in command("segment", image, *SIZE, "--dry-run").stdout
    other = ["segment", image, "--diameter", "6um", "--dry-run"]
    assert "(replace)" in command(*other, "--overwrite").stdout
    refused = command(*other)
    assert refused.exit_code == 2
    assert "exists already" in refused.stderr


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_broken_image_does_not_stop_the_others(tmp_path, command, json_too):
    good = [tiny_volume.small_image(tmp_path / f"{n}.zarr") for n in "ac"]
    (tmp_path / "b.zarr").mkdir()
    done = command("segment", good[0], tmp_path / "b.zarr", good[1], *SIZE, *json_too)
    assert done.exit_code == 2
    assert done.stderr.count("error:") == 1
    assert "b.zarr: not a Zarr" in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("image ")]
    assert (len(said), said[2]) == (3, f"image 3 of 3: {good[1]}")
    assert all(Path(g, "labels/anystar").is_dir() for g in good)
    if json_too:
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line.get("exit") for line in lines] == [None, 2, None]
        assert "not a Zarr" in lines[1]["error"]


@pytest.mark.parametrize("more", [[], ["--json"], ["--dry-run"], ["-q"]])
def test_series_that_are_not_for_this_tool_are_told_and_count_only_alone(tmp_path, command, more):
    root = Path(container(tmp_path / "scan.zarr", 3))
    for n in "01":
        write_image(root / n, [np.ones((1, 40, 44), "u2")])
    done = command("segment", root, *SIZE, *more)
    assert done.exit_code == 0, done.stderr
    flat = [line for line in done.stderr.splitlines() if line.startswith("not for this tool: ")]
    assert [line.split(": ")[1] for line in flat] == [f"{root}/0", f"{root}/1"]
    assert "the image is 2D (one plane" in flat[0]
    assert "error" not in done.stderr
    assert (root / "2/labels/anystar").exists() == (more != ["--dry-run"])
    if more == ["--json"]:
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["status"] for line in lines] == ["not for this tool"] * 2 + ["done"]
    named = command("segment", root / "0", root / "2", *SIZE, *more)
    assert named.exit_code == 2, "who names it wants it"
    (root / "1/zarr.json").write_text("{")
    assert command("segment", root, *SIZE, *more).exit_code == 2, "broken is not flat"
    for n in "12":
        write_image(root / n, [np.ones((1, 40, 44), "u2")])
    alone = command("segment", root, *SIZE, *more)
    assert alone.exit_code == 2
    assert f"error: {root}: none of its 3 images is for this tool" in alone.stderr


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([0, 3], 3),
        ([3, 75, 0], 75),
        ([75, 1, 3], 1),
        ([75, 2], 2),
        ([2, 1], 1),
    ],
)
def test_the_exit_code_that_counts_most_wins(monkeypatch, tmp_path, codes, expected):
    errors = {1: BlockError("predict", "0/0.0.0", "no"), 2: ImageError("no"), 75: LockedError("no")}
    answers = iter(codes)

    def segment(config, listen, *, engine):
        code = next(answers)
        if code in errors:
            raise errors[code]
        warnings = ("careful",) if code == 3 else ()
        return run_record.Summary("i", "l", "s", "done", 1, 1, {}, 1, "f", warnings)

    monkeypatch.setattr(pipeline, "segment", segment)
    names = [str(tmp_path / str(n)) for n in range(len(codes))]
    done = CliRunner().invoke(cli.app, ["segment", *names, "--fail-on-warning"])
    assert done.exit_code == expected


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LockedError("x"), 75),
        (OutOfTimeError("x"), 75),
        (BlockError("paint", "0/1.2.3", "x"), 1),
        (DataError("x"), 1),
        (ImageError("x"), 2),
        (ConfigError("x"), 2),
        (OutputError(28, "full"), 1),
        (OutputError(30, "read-only"), 2),
        (OutputError("a name"), 2),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_exit_code_of_an_error(error, code):
    assert cli.exit_code(error) == code


def test_a_bug_is_one_line_and_the_log_has_the_rest(tmp_path, monkeypatch, command):
    monkeypatch.setattr(pipeline, "decide", lambda *_: 1 / 0)
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    log = tmp_path / "log" / "run.log"
    done = command("segment", image, *SIZE, "--log-file", log)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: unexpected ZeroDivisionError")
    assert "this is a bug" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in log.read_text()


def test_log_file_holds_every_block(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    log = tmp_path / "run.log"
    done = command("segment", image, *SIZE, "-q", "--log-file", log)
    assert done.exit_code == 0
    assert "BlockDone(stage='predict'" in log.read_text()
    assert done.stderr == ""


def test_log_file_that_cannot_be_written(tmp_path, command):
    (tmp_path / "file").write_text("")
    done = command("segment", tmp_path, "--log-file", tmp_path / "file" / "run.log")
    assert done.exit_code == 2
    assert "--log-file:" in done.stderr


def test_quiet_and_verbose_contradict(tmp_path, command):
    done = command("segment", tmp_path, "-q", "-v")
    assert done.exit_code == 2
    assert "-q and -v contradict each other" in done.stderr


def test_quiet_prints_warnings_only(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr", unit=None)
    done = command("segment", image, *SIZE, "-q")
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: ")
    assert "micrometres are assumed" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert command("segment", image, *SIZE, "--overwrite", "--fail-on-warning").exit_code == 3


def test_voxel_size_takes_the_place_of_the_images(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr", unit=None)
    done = command("segment", image, *SIZE, "--voxel-size", 0.5, 0.5, 0.5, "-q")
    assert done.exit_code == 0
    assert done.stderr == ""
    found = tiny_volume.rows(tmp_path / "a.anystar.csv")[0]
    assert float(found["volume_um3"]) == int(found["num_voxels"]) * 0.125


def test_stats_with_several_images_is_an_error_before_work(tmp_path, command):
    images = [tiny_volume.small_image(tmp_path / f"{n}.zarr") for n in "ab"]
    before = tiny_volume.snapshot(tmp_path)
    done = command("segment", *images, *SIZE, "--stats", tmp_path / "t.csv")
    assert done.exit_code == 2
    assert "--stats names one table, but there are 2 images" in done.stderr
    assert tiny_volume.snapshot(tmp_path) == before


def test_stats_names_the_table(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("segment", image, *SIZE, "--stats", tmp_path / "tables" / "t.csv")
    assert done.exit_code == 0, done.stderr
    assert len(tiny_volume.rows(tmp_path / "tables" / "t.csv")) == 5


def test_a_collision_of_names_is_an_error_before_work(tmp_path, command):
    images = [tiny_volume.small_image(tmp_path / name) for name in ("a.zarr", "a.ome.zarr")]
    before = tiny_volume.snapshot(tmp_path)
    done = command("segment", *images, *SIZE)
    assert done.exit_code == 2
    assert "would both write files named a.*" in done.stderr
    assert tiny_volume.snapshot(tmp_path) == before


def test_a_lock_held_by_another_run_is_exit_75(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    with hold(tmp_path / "a.anystar.lock"):
        done = command("segment", image, *SIZE)
        other = command("segment", image, *SIZE, "--work-dir", tmp_path / "scratch")
        free = command("segment", image, *SIZE, "--label", "other")
    assert done.exit_code == other.exit_code == 75
    assert "locked by" in done.stderr
    assert free.exit_code == 0
    assert command("segment", image, *SIZE).exit_code == 0


def test_interrupted_is_exit_130_and_the_same_command_goes_on(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    reference = tiny_volume.small_image(tmp_path / "r" / "a.zarr")
    command("segment", reference, *SIZE)
    cut = Interrupting(TruthPredictor(tiny_volume.truth()), after=3)
    done = command("segment", image, *SIZE, "--block-shape", 12, 16, 16, factory=cut)
    assert done.exit_code == 130
    assert "continued by the same command" in done.stderr
    assert not Path(image, "labels/anystar").exists()
    assert not (tmp_path / "a.anystar.lock").exists()
    again = command("segment", image, *SIZE, "--block-shape", 12, 16, 16)
    assert again.exit_code == 0
    # Two blocks are at work at once: the one that is cut may be the third or the fourth.
    assert re.search(r"\b[23] of \d+ blocks were done before", again.stderr)
    assert tiny_volume.contents(image) == tiny_volume.contents(reference)


def test_interrupted_before_the_command_has_begun_is_exit_130(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


class Interrupting:
    """Presses Ctrl-C after so many tiles."""

    def __init__(self, inner, after):
        self.inner, self.left = inner, after

    def __call__(self, *_):
        return self

    def find(self, *arguments):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.inner.find(*arguments)


def test_several_images_share_one_loaded_network_and_one_engine(tmp_path, command, monkeypatch):
    from anystar_batch.pipeline import prepare

    opened = []
    original = prepare.open_engine
    monkeypatch.setattr(
        prepare, "open_engine", lambda *a, **k: opened.append(a) or original(*a, **k)
    )
    images = [tiny_volume.small_image(tmp_path / f"{n}.zarr") for n in "ab"]
    counting = Counting()
    assert command("segment", *images, *SIZE, factory=counting).exit_code == 0
    assert counting.made == 1
    assert len(opened) == 1


class Counting:
    """Counts how often the network is loaded."""

    def __init__(self):
        self.made = 0

    def __call__(self, *_):
        self.made += 1
        return TruthPredictor(tiny_volume.truth())


def test_info_shows_axes_levels_and_labels(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *SIZE)
    done = command("info", image)
    assert done.exit_code == 0
    assert "OME-NGFF 0.5, axes zyx, uint16" in done.stdout
    assert "level 0: (20, 40, 44) voxels of 0.5 x 0.5 x 0.5 um" in done.stdout
    assert "label anystar, 5 instances" in done.stdout
    document = json.loads(command("info", image, "--json").stdout)
    assert document["labels"][0]["instances"] == 5
    assert "labels: none" in command("info", tiny_volume.small_image(tmp_path / "b.zarr")).stdout


def test_info_on_what_is_no_image(tmp_path, command):
    done = command("info", tmp_path)
    assert done.exit_code == 2
    assert "not a Zarr" in done.stderr


def test_models_of_an_installation_without_any(monkeypatch, command):
    from anystar_batch.network import model

    monkeypatch.setattr(model, "bundled_models", dict)
    done = command("models")
    assert done.exit_code == 0
    assert done.stdout == ""


def test_a_damaged_bundled_model_is_reported(monkeypatch, tmp_path, command):
    from anystar_batch.network import model

    (tmp_path / "broken").mkdir()
    monkeypatch.setattr(model, "bundled_models", lambda: {"broken": tmp_path / "broken"})
    done = command("models")
    assert done.exit_code == 2
    assert "is missing" in done.stderr
