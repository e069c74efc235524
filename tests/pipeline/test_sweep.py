"""The sweep: which images, in which order, what is left alone, how it stops, who may write."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive import labels
from anystar_batch.archive.storage import lock
from anystar_batch.archive.storage.lock import hold
from anystar_batch.config import SegmentConfig
from anystar_batch.engine import stop
from anystar_batch.errors import ConfigError, LostLockError
from anystar_batch.events import BlockFailed, StageStarted
from anystar_batch.network.model import load_model
from anystar_batch.pipeline import prepare, segment
from anystar_batch.pipeline import publish as publication
from anystar_batch.pipeline.outputs import output_paths
from anystar_batch.pipeline.sweep import SweepConfig
from tests.laws.test_times import container
from tests.pipeline.test_plate_table import make_plate
from tests.support import tiny_volume
from tests.support.checkout import ROOT
from tests.support.fakes import TruthPredictor, write_image
from tests.support.stopped_run import INTERVAL

SIZE = ["--diameter", "5um"]
BLOCKS = ["--block-shape", 12, 16, 16]
HOUR = 3600


def age(path, hours=2.0):
    """Make every file as old as that; negative: from the future."""
    then = time.time() - hours * HOUR
    for file in [path, *Path(path).rglob("*")]:
        os.utime(file, (then, then))


def old_image(path, hours=2.0, **more):
    image = tiny_volume.small_image(path, **{"levels": 1} | more)
    age(image, hours)
    return image


def outcomes(done):
    """Status and text of every image by its name, and the sweep's own line."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(one["image"]).name: (one["status"], one["text"]) for one in lines[:-1]}, lines[-1]


def statuses(done):
    return {name: status for name, (status, _) in outcomes(done)[0].items()}


class Counting:
    """Counts networks and tiles, and does something when the n-th tile comes."""

    def __init__(self, at=None, act=lambda: None):
        self.made = self.tiles = 0
        self.at, self.act = at, act

    def __call__(self, *_):
        self.made += 1
        return self

    def find(self, *arguments):
        self.tiles += 1
        if self.tiles == self.at:
            self.act()
        return TruthPredictor(tiny_volume.truth()).find(*arguments)


def test_images_are_segmented_oldest_first_with_one_network(tmp_path, command):
    names = {"new.ome.zarr": 1, "sub/old.ome.zarr": 9, "sub/er/mid.ome.zarr": 5}
    images = {name: old_image(tmp_path / name, hours) for name, hours in names.items()}
    old_image(tmp_path / "not.zarr")
    network = Counting()
    done = command("sweep", tmp_path, *SIZE, factory=network)
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    order = ["sub/old.ome.zarr", "sub/er/mid.ome.zarr", "new.ome.zarr"]
    assert [line.split(": ")[0].split() for line in lines[:3]] == [
        ["done", images[name]] for name in order
    ]
    assert all("5 instances" in line for line in lines[:3])
    assert lines[3].startswith(f"sweep of {tmp_path}: 3 done; ")
    assert len(lines) == 4
    assert network.made == 1
    assert all(Path(image, "labels/anystar").is_dir() for image in images.values())
    assert not list(tmp_path.glob("*.lock"))


def consolidated(path, version):
    image = tiny_volume.small_image(path, levels=1, version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(image, zarr_format=2 if version == "0.4" else 3)
    age(image)
    return Path(image)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_second_sweep_does_nothing_and_what_we_wrote_is_not_young(tmp_path, command, version):
    image = consolidated(tmp_path / "a.ome.zarr", version)
    listing = image / (".zmetadata" if version == "0.4" else "zarr.json")
    assert statuses(command("sweep", tmp_path, *SIZE, "--json")) == {"a.ome.zarr": "done"}
    assert "labels/anystar" in listing.read_text(), "the consolidated metadata was written anew"
    before = tiny_volume.snapshot(tmp_path)
    again = command("sweep", tmp_path, *SIZE, "--json")
    assert (again.exit_code, statuses(again)) == (0, {"a.ome.zarr": "current"})
    # The lock of the root comes and goes; that is all.
    assert tiny_volume.snapshot(tmp_path).items() - before.items() <= {
        (str(tmp_path), tiny_volume.snapshot(tmp_path)[str(tmp_path)])
    }
    other = command("sweep", tmp_path, *SIZE, "--json", "--label", "other")
    assert statuses(other) == {"a.ome.zarr": "done"}


@pytest.mark.parametrize(
    ("what", "hours", "expected"),
    [
        ("0/c/0/1/1", 0.0, "being written"),
        ("0/zarr.json", 0.0, "being written"),
        ("0/c/0/1/1", -0.1, "being written"),
        ("0/c/0/1/1", -48.0, "done"),
        ("0/c/0/1/1", 0.3, "done"),
        ("zarr.json", 0.0, "done"),
    ],
)
def test_only_the_files_of_the_arrays_make_an_image_young(tmp_path, command, what, hours, expected):
    image = old_image(tmp_path / "a.ome.zarr")
    then = time.time() - hours * HOUR
    os.utime(Path(image, what), (then, then))
    done = command("sweep", tmp_path, *SIZE, "--json")
    assert (done.exit_code, statuses(done)) == (0, {"a.ome.zarr": expected})
    assert Path(image, "labels").exists() == (expected == "done")
    if expected == "being written":
        zero = command("sweep", tmp_path, *SIZE, "--json", "--settle", "0")
        assert statuses(zero) == {"a.ome.zarr": "done"}


def test_an_image_that_is_written_to_while_it_waits_for_its_turn_is_left(tmp_path, command):
    old_image(tmp_path / "a.ome.zarr", 5)
    second = old_image(tmp_path / "b.ome.zarr", 2)
    network = Counting(1, lambda: os.utime(Path(second, "0/c/0/0/0")))
    done = command("sweep", tmp_path, *SIZE, "--json", factory=network)
    assert statuses(done) == {"a.ome.zarr": "done", "b.ome.zarr": "being written"}


def test_another_label_is_left_unless_it_may_be_overwritten(tmp_path, command):
    image = old_image(tmp_path / "a.ome.zarr")
    command("segment", image, "--diameter", "5.5um")
    before = tiny_volume.contents(image)
    done = command("sweep", tmp_path, *SIZE, "--json")
    status, text = outcomes(done)[0]["a.ome.zarr"]
    assert (done.exit_code, status) == (0, "other label")
    assert "made by another model, image or options" in text
    assert tiny_volume.contents(image) == before
    again = [command("sweep", tmp_path, *SIZE, "--json", "--overwrite") for _ in range(2)]
    assert [statuses(one)["a.ome.zarr"] for one in again] == ["done", "current"]


def test_a_broken_image_never_stops_the_others(tmp_path, command, monkeypatch):
    for name in ("1", "2", "3"):
        old_image(tmp_path / f"{name}.ome.zarr")
    truncated = Path(old_image(tmp_path / "cut.ome.zarr"))
    (truncated / "zarr.json").write_text("{")
    age(truncated)
    (tmp_path / "empty.ome.zarr").mkdir()
    (tmp_path / "young.ome.zarr").mkdir()
    age(tmp_path / "empty.ome.zarr")
    look = prepare._look

    def fall(reader, *rest):
        return 1 / 0 if "2.ome" in reader.source.path else look(reader, *rest)

    monkeypatch.setattr(prepare, "_look", fall)
    done = command("sweep", tmp_path, *SIZE, "--json")
    found, whole = outcomes(done)
    assert done.exit_code == whole["exit"] == 1
    assert {name.split(".")[0]: status for name, (status, _) in found.items()} == {
        "1": "done",
        "2": "failed",
        "3": "done",
        "cut": "failed",
        "empty": "not for this tool",
        "young": "being written",
    }
    assert found["2.ome.zarr"][1] == "unexpected ZeroDivisionError: division by zero"
    assert "truncated or invalid JSON" in found["cut.ome.zarr"][1]
    assert "not a Zarr" in found["empty.ome.zarr"][1]
    assert whole["counts"] == {
        "done": 2,
        "being written": 1,
        "failed": 2,
        "not for this tool": 1,
    }
    assert whole["images"] == 5
    assert "Traceback" not in done.stdout + done.stderr


def test_what_is_not_for_this_tool_is_told_with_a_reason_and_never_fails_the_night(
    tmp_path, command, monkeypatch
):
    old_image(tmp_path / "good.ome.zarr")
    write_image(tmp_path / "flat.ome.zarr", [np.ones((40, 44), "u2")], axes="yx")
    write_image(tmp_path / "plane.ome.zarr", [np.ones((1, 40, 44), "u2")])
    write_image(tmp_path / "complex.ome.zarr", [np.ones((20, 40, 44), "c8")])
    zarr.open_group(str(tmp_path / "other.ome.zarr"), mode="w", zarr_format=3)
    zarr.create_array(str(tmp_path / "array.ome.zarr"), shape=(9, 9, 9), dtype="u1")
    (tmp_path / "alike.ome.zarr/thumbnails").mkdir(parents=True)
    (tmp_path / "file.ome.zarr").write_text("PK")
    (tmp_path / "@eaDir/good.ome.zarr").mkdir(parents=True)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".zfs/snapshot/good.ome.zarr").mkdir(parents=True)
    old_image(tmp_path / "../elsewhere.ome.zarr")
    (tmp_path / "linked.ome.zarr").symlink_to(tmp_path / "../elsewhere.ome.zarr")
    old = old_image(tmp_path / "old.ome.zarr")
    tiny_volume.edit_json(
        Path(old, "zarr.json"), lambda d: d["attributes"]["ome"].update(version="0.7")
    )
    shut = old_image(tmp_path / "shut.ome.zarr")
    age(tmp_path)
    read_bytes = Path.read_bytes

    def refuse(path):
        if str(path).startswith(shut):
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    done = command("sweep", tmp_path, *SIZE, "--json")
    found, whole = outcomes(done)
    assert (done.exit_code, whole["exit"], whole["images"]) == (0, 0, 1)
    assert found.pop("good.ome.zarr")[0] == "done"
    assert {status for status, _ in found.values()} == {"not for this tool"}
    for name, reason in {
        "flat.ome.zarr": "the image is 2D (axes y, x)",
        "plane.ome.zarr": "the image is 2D (one plane",
        "complex.ome.zarr": "unsupported type complex64",
        "other.ome.zarr": "a Zarr group without OME-Zarr `multiscales`",
        "array.ome.zarr": "a bare Zarr array",
        "alike.ome.zarr": "not a Zarr",
        "file.ome.zarr": "a file; expected a directory",
        "@eaDir": "thumbnails, snapshots or trash",
        "lost+found": "thumbnails, snapshots or trash",
        ".zfs": "hidden; not entered",
        "linked.ome.zarr": "a link to ",
        "old.ome.zarr": "OME-NGFF version 0.7",
        "shut.ome.zarr": "Permission denied",
    }.items():
        assert reason in found.pop(name)[1]
    assert not found
    again = command("sweep", tmp_path, *SIZE)
    assert again.exit_code == 0
    assert f"not for this tool  {tmp_path}/flat.ome.zarr: the image is 2D" in again.stdout
    assert "1 current, 13 not for this tool" in again.stdout


def test_a_series_or_a_field_that_is_not_for_this_tool_is_told_and_a_broken_one_fails(
    tmp_path, command
):
    root = Path(container(tmp_path / "scan.ome.zarr", 4))
    write_image(root / "1", [np.ones((1, 40, 44), "u2")])
    age(root)
    options = ["sweep", tmp_path, *SIZE, "--json"]
    done = command(*options)
    names = {"0": "done", "1": "not for this tool", "2": "done", "3": "done"}
    assert (done.exit_code, statuses(done)) == (0, names)
    (root / "2/zarr.json").write_text("{")
    (root / "3/zarr.json").unlink()
    age(root)
    done = command(*options)
    assert done.exit_code == 1
    assert statuses(done) == {
        "0": "current", "1": "not for this tool", "2": "failed", "3": "failed"
    }  # fmt: skip
    assert "not a Zarr" in outcomes(done)[0]["3"][1], "the container lists it"


def test_the_many_planes_of_a_plate_are_one_line(tmp_path, command):
    path = make_plate(tmp_path / "plate.ome.zarr", {"A/1": list("01234")})
    for field in "1234":
        write_image(path / "A/1" / field, [np.ones((1, 40, 44), "u2")])
    age(path)
    done = command("sweep", tmp_path, *SIZE, "--json")
    assert done.exit_code == 0
    assert statuses(done) == {"plate.ome.zarr": "not for this tool", "0": "done"}
    text = outcomes(done)[0]["plate.ome.zarr"][1]
    assert text.startswith(f"{path}: 4 of its images; the first: {path}/A/1/1: the image is 2D")


def test_a_second_sweep_of_a_root_exits_75_and_says_who_holds_it(tmp_path, command):
    image = old_image(tmp_path / "a.ome.zarr")
    with hold(tmp_path / "anystar-batch-sweep.lock"):
        done = command("sweep", tmp_path, *SIZE)
        as_json = command("sweep", tmp_path, *SIZE, "--json")
    assert done.exit_code == as_json.exit_code == 75
    assert f"locked by process {os.getpid()} on " in done.stderr
    assert " since 20" in done.stderr
    assert "locked by process" in json.loads(as_json.stdout)["error"]
    assert not Path(image, "labels").exists()


def test_an_image_that_another_run_holds_is_no_failure(tmp_path, command):
    old_image(tmp_path / "a.ome.zarr", 5)
    old_image(tmp_path / "b.ome.zarr", 2)
    with hold(tmp_path / "a.anystar.lock"):
        done = command("sweep", tmp_path, *SIZE, "--json")
    assert done.exit_code == 0
    assert statuses(done) == {"a.ome.zarr": "locked", "b.ome.zarr": "done"}


class Clock:
    """Stands in for `time` in `stop`."""

    now = 0.0

    def monotonic(self):
        return self.now


def test_at_its_time_limit_it_stops_between_blocks_and_the_next_continues(
    tmp_path, command, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr(stop, "time", clock)
    for folder in ("r", "x"):
        for name, hours in (("a", 5), ("b", 2)):
            old_image(tmp_path / folder / f"{name}.ome.zarr", hours)
    command("sweep", tmp_path / "r", *SIZE)
    late = Counting(3, lambda: setattr(clock, "now", 2.0 * HOUR))
    options = [tmp_path / "x", *SIZE, *BLOCKS, "--json", "--max-hours", 1]
    done = command("sweep", *options, factory=late)
    found, whole = outcomes(done)
    assert done.exit_code == whole["exit"] == 75
    assert {name: status for name, (status, _) in found.items()} == {
        "a.ome.zarr": "stopped",
        "b.ome.zarr": "left",
    }
    assert "stopped at its time limit: stage predict has " in found["a.ome.zarr"][1]
    assert whole["stopped"] == "stopped at its time limit"
    # Blocks at work were finished and noted; no other was begun.
    assert 3 <= late.tiles < 18
    rest = Counting()
    again = command("sweep", *options, factory=rest)
    assert (again.exit_code, statuses(again)) == (0, {"a.ome.zarr": "done", "b.ome.zarr": "done"})
    assert late.tiles + rest.tiles == 36
    mine, reference = (tiny_volume.contents(tmp_path / folder) for folder in ("x", "r"))
    # The record says when, the options say with which blocks.
    own = (".run.json", ".toml")
    assert {k: v for k, v in mine.items() if not k.endswith(own)} == {
        k: v for k, v in reference.items() if not k.endswith(own)
    }


def test_sigterm_stops_it_between_blocks(tmp_path, command):
    image = old_image(tmp_path / "a.ome.zarr")
    before = signal.getsignal(signal.SIGTERM)
    asked = Counting(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    done = command("sweep", tmp_path, *SIZE, *BLOCKS, factory=asked)
    assert done.exit_code == 75, done.stderr
    assert "; stopped by SIGTERM" in done.stdout.splitlines()[-1]
    assert signal.getsignal(signal.SIGTERM) == before
    assert not Path(image, "labels/anystar").exists()
    assert not list(tmp_path.glob("*.lock"))


def test_what_was_begun_of_an_image_that_grew_since_is_begun_again(tmp_path, command):
    image = old_image(tmp_path / "a.ome.zarr")
    asked = Counting(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert command("sweep", tmp_path, *SIZE, *BLOCKS, factory=asked).exit_code == 75
    then = time.time() - HOUR
    os.utime(Path(image, "0/c/0/0/0"), (then, then))
    network = Counting()
    done = command("sweep", tmp_path, *SIZE, *BLOCKS, "--json", factory=network)
    assert (done.exit_code, statuses(done)) == (0, {"a.ome.zarr": "done"})
    assert network.tiles == 18


def test_an_image_that_changes_while_it_is_segmented_is_being_written(tmp_path, command):
    image = old_image(tmp_path / "a.ome.zarr")
    network = Counting(12, lambda: os.utime(Path(image, "0/c/0/0/0")))
    done = command("sweep", tmp_path, *SIZE, "--json", factory=network)
    assert (done.exit_code, statuses(done)) == (0, {"a.ome.zarr": "being written"})
    assert not Path(image, "labels/anystar").exists()


def test_an_image_that_changes_again_when_it_is_begun_again_is_being_written(tmp_path, command):
    image = old_image(tmp_path / "a.ome.zarr")
    network = Counting(12, lambda: (os.utime(Path(image, "0/c/0/0/0")), again()))

    def again():
        network.at += 18

    done = command("sweep", tmp_path, *SIZE, "--json", "--settle", "0", factory=network)
    assert (done.exit_code, statuses(done)) == (0, {"a.ome.zarr": "being written"})
    assert "has changed since" in outcomes(done)[0]["a.ome.zarr"][1]
    assert network.tiles == 36


def test_what_a_finished_run_left_is_tidied_up_and_not_made_again(tmp_path, command):
    image = old_image(tmp_path / "a.ome.zarr")
    tiny_volume.segment(image, run={"keep_work": True})
    network = Counting()
    done = command("sweep", tmp_path, *SIZE, "--json", "--overwrite", factory=network)
    assert (statuses(done), network.tiles) == ({"a.ome.zarr": "current"}, 0)
    assert not (tmp_path / "a.anystar.work").exists()


def test_a_sweep_that_lost_its_root_goes_no_further(tmp_path, command):
    for name, hours in (("a", 5), ("b", 2)):
        old_image(tmp_path / f"{name}.ome.zarr", hours)
    root = tmp_path / "anystar-batch-sweep.lock"
    network = Counting(2, lambda: (root.unlink(), root.write_text('{"pid": 7, "host": "h"}')))
    done = command("sweep", tmp_path, *SIZE, "--json", factory=network)
    assert done.exit_code == 75
    assert statuses(done) == {"a.ome.zarr": "done", "b.ome.zarr": "left"}
    assert "lost the lock to process 7 on h" in outcomes(done)[1]["stopped"]
    assert root.exists(), "it is another's"


def plate(path):
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    wells = [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}, {"path": "B/2"}]
    root.attrs["ome"] = {"version": "0.5", "plate": {"wells": wells}}
    well = zarr.open_group(f"{path}/A/1", mode="w", zarr_format=3)
    well.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}, {"path": "1"}]}}
    for field in "01":
        tiny_volume.small_image(Path(path, "A/1", field), levels=1)
    return path


def test_every_series_and_every_field_is_an_image_and_a_label_is_none(tmp_path, command):
    container(tmp_path / "in/scan.ome.zarr", 2)
    plate(tmp_path / "in/plate.ome.zarr")
    age(tmp_path / "in")
    out = tmp_path / "in" / "out"
    options = ["sweep", tmp_path / "in", *SIZE, "--json", "--output", out]
    done = command(*options)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    seen = {os.path.relpath(one["image"], tmp_path / "in"): one["status"] for one in found[:-1]}
    assert seen == {
        "scan.ome.zarr/0": "done",
        "scan.ome.zarr/1": "done",
        "plate.ome.zarr/A/1/0": "done",
        "plate.ome.zarr/A/1/1": "done",
        "plate.ome.zarr/B/2": "failed",
    }
    assert "no such file or directory" in next(
        o["text"] for o in found if "B/2" in o.get("image", "")
    )
    assert {p.name for p in out.glob("*.ome.zarr")} == {
        f"{stem}.anystar.ome.zarr" for stem in ("scan.0", "scan.1", "plate.A.1.0", "plate.A.1.1")
    }
    again = [json.loads(line) for line in command(*options).stdout.splitlines()]
    assert again[-1]["counts"] == {"current": 4, "failed": 1}


def test_names_of_results_do_not_depend_on_what_else_is_there(tmp_path, command):
    old_image(tmp_path / "in/x/a.ome.zarr")
    options = ["sweep", tmp_path / "in", *SIZE, "--json", "--output", tmp_path / "out"]
    assert statuses(command(*options)) == {"a.ome.zarr": "done"}
    old_image(tmp_path / "in/y/a.ome.zarr")
    found = [json.loads(line) for line in command(*options).stdout.splitlines()[:-1]]
    assert [one["status"] for one in found] == ["current", "done"]


def test_images_of_one_name_do_not_meet_in_one_work_directory(tmp_path, command):
    for folder, hours in (("x", 5), ("y", 2)):
        old_image(tmp_path / "in" / folder / "a.ome.zarr", hours)
    options = [tmp_path / "in", *SIZE, *BLOCKS, "--work-dir", tmp_path / "work", "--json"]
    asked = Counting(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert command("sweep", *options, factory=asked).exit_code == 75
    assert (tmp_path / "work/x/a.anystar.work/ledger.jsonl").is_file()
    done = command("sweep", *options)
    assert outcomes(done)[1]["counts"] == {"done": 2}, done.stdout


def test_a_collision_of_names_is_a_failure_of_the_second(tmp_path, command):
    for name in ("a.ome.zarr", "a.zarr"):
        old_image(tmp_path / name)
    done = command("sweep", tmp_path, *SIZE, "--json", "--pattern", "*.zarr")
    assert statuses(done) == {"a.ome.zarr": "done", "a.zarr": "failed"}
    assert "would write files named a.*" in outcomes(done)[0]["a.zarr"][1]


def test_a_dry_run_writes_nothing(tmp_path, command):
    for name, hours in (("a", 2), ("b", 5)):
        old_image(tmp_path / f"{name}.ome.zarr", hours)
    before = tiny_volume.snapshot(tmp_path)
    done = command("sweep", tmp_path, *SIZE, "--json", "--dry-run")
    assert list(statuses(done).items()) == [("b.ome.zarr", "wanted"), ("a.ome.zarr", "wanted")]
    assert tiny_volume.snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--settle", "soon"], "--settle: got 'soon'; expected a duration such as 90s"),
        (["--settle", "15"], "--settle: got '15'; expected a duration"),
        (["--settle", "9" * 400 + "s"], "--settle: got inf s; expected none or some"),
        (["--pattern", "a/*.zarr"], "--pattern: got 'a/*.zarr'; expected one of names"),
        (["--max-hours", "0"], "--max-hours: got 0; expected more than 0"),
        (["--max-hours", "nan"], "--max-hours: got nan; expected more than 0"),
        (["--label", "a/b"], "--label: got 'a/b'"),
        (["-q", "-v"], "-q and -v contradict each other"),
    ],
)
def test_wrong_usage_is_exit_2(tmp_path, command, options, said):
    done = command("sweep", tmp_path, *options)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_root_must_be_a_directory_of_images(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr", levels=1)
    with pytest.raises(ConfigError, match=r"a\.ome\.zarr: a Zarr itself"):
        SweepConfig(image, SegmentConfig(image))
    with pytest.raises(ConfigError, match="none: no directory; give the one below which"):
        SweepConfig(str(tmp_path / "none"), SegmentConfig(image))
    with pytest.raises(ConfigError, match="a sweep names its tables itself"):
        SweepConfig(str(tmp_path), SegmentConfig(image, stats="t.csv"))


def test_a_model_that_is_missing_ends_the_sweep(tmp_path, command, monkeypatch):
    old_image(tmp_path / "a.ome.zarr")
    monkeypatch.setattr(segment, "check_network", load_model)
    done = command("sweep", tmp_path, *SIZE, "--json", factory=tmp_path)
    assert done.exit_code == 2
    assert "error" in json.loads(done.stdout)


STAGES = ["probe", "predict", "suppress", "own", "paint", "pyramid 1", "table", "publish"]


@pytest.mark.parametrize("stage", STAGES)
def test_from_the_moment_on_at_which_it_lost_the_lock_a_run_writes_nothing(
    tmp_path, monkeypatch, stage
):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    there, events = {}, []

    def lose(*_):
        for held in (tmp_path / "a.anystar.lock", tmp_path / "a.zarr/labels/.anystar.lock"):
            held.unlink()
            held.write_text('{"pid": 7, "host": "elsewhere", "since": "then"}')
        there.update(tiny_volume.contents(tmp_path))

    def listen(event):
        events.append(event)
        if isinstance(event, StageStarted) and event.stage == stage:
            lose()

    publish = labels.publish
    if stage == "publish":
        monkeypatch.setattr(segment, "publish", lambda *a: (lose(), publish(*a)))
    options = {"diameter": None} if stage == "probe" else {}
    options["run"] = {"block_shape": (64, 64, 64)}
    with pytest.raises(LostLockError, match="lost the lock to process 7 on elsewhere since then"):
        tiny_volume.segment(image, listen, **options)
    assert there
    assert tiny_volume.contents(tmp_path) == there
    assert not any(isinstance(event, BlockFailed) for event in events), "no block is to blame"


class Losing:
    """A fence whose lock is lost when it is asked for the n-th time."""

    def __init__(self, n):
        self.left = n

    def check(self):
        self.left -= 1
        if self.left == 0:
            raise LostLockError("lost")


@pytest.mark.parametrize("asked", [1, 2])
def test_who_lost_the_lock_tidies_nothing_up(tmp_path, asked):
    places = output_paths(SegmentConfig(str(tmp_path / "a.zarr")))
    work = Path(places.work)
    work.mkdir()
    table = publication.pending_table(places).name
    for name in (table, "more"):
        (work / name).write_text("")
    with pytest.raises(LostLockError):
        publication.finish(tiny_volume.config(tmp_path / "a.zarr"), places, Losing(asked))
    assert (work / "more").exists()
    assert (work / table).exists() == (asked == 1)


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_holder_that_was_stopped_past_its_heartbeat_writes_and_publishes_nothing(
    tmp_path, monkeypatch
):
    """Another run takes over and finishes; the first, continued, says so and touches nothing."""
    monkeypatch.setattr(lock, "INTERVAL", INTERVAL)
    reference = tiny_volume.small_image(tmp_path / "r" / "a.zarr")
    tiny_volume.segment(reference)
    places = ["find", "paint", "publish", "finish"]
    images = {w: tiny_volume.small_image(tmp_path / w / "a.zarr") for w in places}
    script = str(ROOT / "tests" / "support" / "stopped_run.py")
    arguments = [sys.executable, script, *(f"{w}={image}" for w, image in images.items())]
    holder = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        for where, image in images.items():
            folder = Path(image).parent
            until = time.monotonic() + 300
            while state(holder.pid) != "T" and time.monotonic() < until:
                time.sleep(0.01)
            assert state(holder.pid) == "T"
            assert json.loads((folder / "a.anystar.lock").read_text())["pid"] == holder.pid
            time.sleep(1.2 * lock.MISSED * INTERVAL)
            assert tiny_volume.segment(image).instances == 5
            assert tiny_volume.contents(f"{image}/labels") == tiny_volume.contents(
                f"{reference}/labels"
            )
            before = tiny_volume.snapshot(folder)
            assert not (folder / "a.anystar.lock").exists()
            with hold(folder / "a.anystar.lock"):
                held = tiny_volume.contents(folder)
                os.kill(holder.pid, signal.SIGCONT)
                said = holder.stdout.readline()
                assert tiny_volume.contents(folder) == held, where
            assert said.startswith("LostLockError: "), (where, said)
            assert f"lost the lock to process {os.getpid()} on " in said
            after = tiny_volume.snapshot(folder)
            assert {k for k in after if after[k] != before.get(k)} <= {str(folder)}
            assert after.keys() == before.keys()
        assert holder.wait(300) == 0
    finally:
        holder.kill()
        holder.stdout.close()
        holder.wait()
