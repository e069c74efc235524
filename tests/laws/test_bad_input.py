"""What cannot be segmented gets one clear message and the right exit code, and nothing is lost."""

import json
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.errors import ConfigError, OutputError
from anystar_batch.network.predictor import KerasFactory
from anystar_batch.pipeline import dry_run, output_checks, prepare
from tests.support import tiny_volume
from tests.support.checkout import ROOT
from tests.support.fakes import TruthPredictor, write_image

SIZE = ["--diameter", "5um"]


def refused(done, code, *words):
    """One line on stderr that starts with `error:` and says all the words; no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == code, (done.stderr, done.exception)
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def no_zarr(folder):
    (folder / "a.zarr").mkdir()
    return "not a Zarr", "give the path of an OME-Zarr image"


def a_file(folder):
    (folder / "a.zarr").write_text("TIFF")
    return "expected a directory", "bioformats2raw"


def nothing(_):
    return ("no such file or directory",)


def truncated(folder):
    tiny_volume.small_image(folder / "a.zarr")
    file = folder / "a.zarr" / "zarr.json"
    file.write_text(file.read_text()[:200])
    return "truncated or invalid JSON", "restore the file"


def truncated_level(folder):
    tiny_volume.small_image(folder / "a.zarr")
    (folder / "a.zarr" / "1" / "zarr.json").write_text('{"zarr_format": 3')
    return "1/zarr.json", "truncated or invalid JSON"


def too_deep(folder):
    tiny_volume.small_image(folder / "a.zarr")
    (folder / "a.zarr" / "zarr.json").write_text('{"a":' + "[" * 200_000)
    return "truncated or invalid JSON", "restore the file"


def too_large(folder):
    tiny_volume.small_image(folder / "a.zarr")
    with (folder / "a.zarr" / "zarr.json").open("ab") as file:
        # A hole: no bytes on disk.
        file.truncate(10**9)
    return "1000000000 bytes of metadata", "expected at most 268435456"


def endless_axis(folder):
    tiny_volume.small_image(folder / "a.zarr")
    file = folder / "a.zarr" / "0" / "zarr.json"
    tiny_volume.edit_json(file, lambda document: document.update(shape=[10**15, 40, 44]))
    return "dataset 0 claims (1000000000000000, 40, 44) voxels", "is its metadata damaged?"


def missing_level(folder):
    tiny_volume.small_image(folder / "a.zarr")
    (folder / "a.zarr" / "0" / "zarr.json").unlink()
    return "dataset 0 is listed but its array is missing"


def no_space_axes(folder):
    tiny_volume.small_image(folder / "a.zarr")

    def change(document):
        for axis in document["attributes"]["ome"]["multiscales"][0]["axes"]:
            axis["type"] = "wavelength"

    tiny_volume.edit_json(folder / "a.zarr" / "zarr.json", change)
    return "no spatial axes among z, y, x", "expected z, y and x of type space"


def flat(folder):
    write_image(folder / "a.zarr", [np.zeros((40, 40), "u2")], axes="yx")
    return "the image is 2D", "use StarDist 2D"


def one_plane(folder):
    write_image(folder / "a.zarr", [np.zeros((1, 40, 40), "u2")])
    return "the image is 2D (one plane"


def a_plate(folder):
    root = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "plate": {"wells": []}}
    return "a plate (HCS)", "give its fields one by one"


def too_old(folder):
    tiny_volume.small_image(folder / "a.zarr", version="0.4")

    def change(document):
        document["multiscales"][0]["version"] = "0.3"

    tiny_volume.edit_json(folder / "a.zarr" / ".zattrs", change)
    return "OME-NGFF 0.3", "rewrite the image as 0.4 or 0.5"


def zipped(folder):
    with zipfile.ZipFile(folder / "a.zarr", "w") as file:
        file.writestr("zarr.json", "{}")
    return "a zip file by another name", "name a zipped OME-Zarr a.ozx"


def bare_array(folder):
    zarr.create_array(str(folder / "a.zarr"), shape=(4, 4, 4), dtype="u1")
    return "a bare Zarr array", "give the group that holds it"


def no_voxels(folder):
    tiny_volume.small_image(folder / "a.zarr")
    file = folder / "a.zarr" / "0" / "zarr.json"
    tiny_volume.edit_json(file, lambda document: document.update(shape=[0, 40, 44]))
    return "the image is empty"


def nothing_stored(folder):
    write_image(folder / "a.zarr", [np.zeros((20, 40, 40), "u2")], chunks=(16, 16, 16))
    return "channel 0 is constant or empty", "check --channel and --time"


def constant(folder):
    write_image(folder / "a.zarr", [np.full((20, 40, 40), 7, "u2")], chunks=(16, 16, 16))
    return "channel 0 is constant or empty", "check --channel and --time"


def not_a_number(folder):
    write_image(folder / "a.zarr", [np.full((20, 40, 40), np.nan, "f4")], chunks=(16, 16, 16))
    return "channel 0 is constant or empty", "check --channel and --time"


def complex_numbers(folder):
    write_image(folder / "a.zarr", [np.zeros((20, 40, 40), "c8")])
    return "unsupported type complex64", "expected integers, floats"


MAKERS = [
    no_zarr,
    a_file,
    nothing,
    truncated,
    truncated_level,
    missing_level,
    too_deep,
    too_large,
    endless_axis,
    no_space_axes,
    flat,
    one_plane,
    a_plate,
    too_old,
    zipped,
    bare_array,
    no_voxels,
    nothing_stored,
    constant,
    not_a_number,
    complex_numbers,
]


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.parametrize("make", MAKERS, ids=lambda m: m.__name__)
def test_an_image_that_is_none(tmp_path, command, make):
    words = make(tmp_path)
    before = tiny_volume.contents(tmp_path)
    done = command("segment", tmp_path / "a.zarr", *SIZE)
    refused(done, 2, *([words] if isinstance(words, str) else words), str(tmp_path / "a.zarr"))
    assert tiny_volume.contents(tmp_path) == before
    assert not (tmp_path / "a.zarr" / "labels").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--diameter", "big"], ["--diameter: got 'big'", "12um"]),
        (["--diameter", "5000um"], ["only", "give a smaller --diameter"]),
        (["--diameter", "0.01um"], ["give a larger --diameter"]),
        ([*SIZE, "--time", "1"], ["--time: got '1'; the image has times 0 to 0"]),
        ([*SIZE, "--time", "x"], ["--time: got 'x'"]),
        ([*SIZE, "--channel", "GFP"], ["--channel: got 'GFP'; the image has 0 (0)"]),
        ([*SIZE, "--tile", "18"], ["tile: got 18 voxels; expected a multiple of 4"]),
        ([*SIZE, "--tile", "-4"], ["--tile: got -4; expected a positive number"]),
        ([*SIZE, "--memory", "4"], ["--memory: got '4'", "expected a number with a unit"]),
        ([*SIZE, "--memory", "1MB"], ["--memory: got '1MB'; expected at least 1000 MB"]),
        ([*SIZE, "--block-shape", "0", "1", "1"], ["--block-shape: got (0, 1, 1)"]),
        ([*SIZE, "--voxel-size", "0", "1", "1"], ["--voxel-size: got (0.0, 1.0, 1.0)"]),
        ([*SIZE, "--prob-thresh", "1"], ["--prob-thresh: got 1; expected more than 0"]),
        ([*SIZE, "--workers", "0"], ["--workers: got 0; expected at least 1"]),
        ([*SIZE, "--workers", "9", "--memory", "2GB"], ["--workers: 9 share 2.0 GB"]),
        ([*SIZE, "--label", "a/b"], ["--label: got 'a/b'; expected letters"]),
        ([*SIZE, "--stats", "."], ["--stats: ", "is a directory"]),
    ],
    ids=lambda v: " ".join(v[-2:]) if isinstance(v, list) else None,
)
def test_an_option_that_cannot_be_used(tmp_path, command, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    refused(command("segment", image, *options), 2, *words)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".work") == ["a.zarr"]
    assert not Path(image, "labels", "anystar").exists()


def test_too_little_memory_for_a_tile_says_what_is_needed(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    config = tiny_volume.config(image, run={"memory": 10**9, "workers": 2})
    with pytest.raises(ConfigError, match="give a smaller --tile, fewer --workers or more --mem"):
        dry_run.preview(config, TruthPredictor(tiny_volume.truth()), tiny_volume.model())
    with pytest.raises(ConfigError, match="give a smaller --tile, fewer --workers or more --mem"):
        tiny_volume.segment(image, run={"memory": 5 * 10**8})
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_options_put_right_are_not_refused_for_what_wrong_ones_left(tmp_path, command):
    image = tiny_volume.small_series(tmp_path / "a.zarr", "czyx")
    zarr.open_array(f"{image}/0", mode="r+")[0] = 7
    refused(command("segment", image, *SIZE), 2, "constant or empty")
    refused(command("segment", image, *SIZE, "--channel", 1, "--tile", 18), 2, "multiple of 4")
    assert command("segment", image, *SIZE, "--channel", 1).exit_code == 0


def test_a_label_name_that_is_taken(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *SIZE)
    before = tiny_volume.contents(tmp_path)
    other = command("segment", image, "--diameter", "6um")
    said = ("exists already", "by another model, image or options (diameter: ", '-> [6.0, "um"])')
    refused(other, 2, *said, "--overwrite")
    zarr.open_group(f"{image}/labels", mode="a").create_group("theirs")
    theirs = command("segment", image, *SIZE, "--label", "theirs")
    refused(theirs, 2, "exists already", "by another program", "--overwrite")
    after = tiny_volume.contents(tmp_path)
    assert {k: after[k] for k in before} == before


def test_a_table_that_is_there_without_its_label_is_kept(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    (tmp_path / "a.anystar.csv").write_text("precious")
    refused(command("segment", image, *SIZE), 2, "belongs to no label here", "--overwrite")
    assert (tmp_path / "a.anystar.csv").read_text() == "precious"
    assert command("segment", image, *SIZE, "--overwrite").exit_code == 0
    assert len(tiny_volume.rows(tmp_path / "a.anystar.csv")) == 5


def test_a_place_that_cannot_be_written(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    Path(image, "labels").write_text("a file where a directory should be")
    refused(command("segment", image, *SIZE), 2, "labels: cannot be written", "--output DIR")
    refused(command("segment", image, *SIZE, "--dry-run"), 2, "cannot be written", "--output DIR")
    assert command("segment", image, *SIZE, "--output", tmp_path / "out").exit_code == 0
    (tmp_path / "file").write_text("")
    nowhere = command("segment", image, *SIZE, "--output", tmp_path / "file" / "out")
    refused(nowhere, 2, "cannot be written")


def test_a_read_only_file_system(tmp_path, command, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")

    def read_only(path):
        raise OutputError(30, f"{path}: cannot be written (Read-only file system)")

    monkeypatch.setattr(output_checks, "check_writable", read_only)
    refused(command("segment", image, *SIZE), 2, "Read-only file system")
    monkeypatch.setattr(output_checks.os, "access", lambda *_: False)
    refused(command("segment", image, *SIZE, "--dry-run"), 2, "no permission")


SMALL_DISK = """
import resource, sys
from tests.support import tiny_volume as small
from tests.support.fakes import TruthPredictor
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
import functools
from anystar_batch import cli; from anystar_batch.pipeline import segment as pipeline
options = {"factory": TruthPredictor(small.truth()), "model": small.model()}
pipeline.segment = functools.partial(pipeline.segment, **options)
sys.argv = ["anystar-batch", "segment", sys.argv[1], "--diameter", "5um"]
cli.main()
"""


def test_a_disk_that_fills_up_loses_nothing(tmp_path, command):
    """A limit on the size of a file stands for the full disk."""
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, image, "1024"],
        capture_output=True,
        text=True,
        env=place,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be written (File too large)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(image, "labels", "anystar").exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    again = command("segment", image, *SIZE)
    assert again.exit_code == 0, again.stderr
    assert json.loads((tmp_path / "a.anystar.run.json").read_text())["summary"]["instances"] == 5


def test_a_disk_that_is_full_in_a_block(tmp_path, command, monkeypatch):
    from anystar_batch.archive.storage.files import output_error
    from anystar_batch.stages import workdir

    def full(path, _):
        raise output_error(path, OSError(28, "No space left on device"))

    image = tiny_volume.small_image(tmp_path / "a.zarr")
    monkeypatch.setattr(workdir, "write_bytes_atomic", full)
    refused(command("segment", image, *SIZE), 1, "stage predict", "no space left to write")
    monkeypatch.undo()
    assert command("segment", image, *SIZE).exit_code == 0


def test_a_ledger_that_cannot_be_written_is_no_bug(tmp_path, command, monkeypatch):
    from anystar_batch.stages.ledger import Ledger

    def full(*_):
        raise OSError(28, "No space left on device")

    image = tiny_volume.small_image(tmp_path / "a.zarr")
    monkeypatch.setattr(Ledger, "done", full)
    done = command("segment", image, *SIZE)
    refused(done, 1, "a.anystar.work: no space left to write")
    monkeypatch.undo()
    assert command("segment", image, *SIZE).exit_code == 0


def test_missing_weights_and_unknown_models(tmp_path):
    from typer.testing import CliRunner

    from anystar_batch import cli

    image = tiny_volume.small_image(tmp_path / "a.zarr")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    done = CliRunner().invoke(cli.app, ["segment", image, *SIZE, "--model", str(folder)])
    refused(done, 2, "weights_best.h5 is missing")
    done = CliRunner().invoke(cli.app, ["segment", image, *SIZE, "--model", "no-such-model"])
    refused(done, 2, "no bundled model and no folder 'no-such-model'")


def test_missing_tensorflow_is_told_before_work(tmp_path, command, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda _: None)
    done = command("segment", image, *SIZE, factory=KerasFactory())
    cures = [f"{how} 'anystar-batch[cpu]'" for how in ("pip install", "pipx inject anystar-batch")]
    refused(done, 2, "tensorflow is not installed", *cures)
    assert not (tmp_path / "a.anystar.work").exists()


def test_a_damaged_chunk_that_planning_reads(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    chunk = Path(image, "0", "c", "0", "0", "0")
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    done = command("segment", image, *SIZE)
    refused(done, 1, "level 0, t 0, channel 0", "cannot be read", "restore it from its source")
    chunk.write_bytes(whole)
    assert command("segment", image, *SIZE).exit_code == 0


def test_a_damaged_chunk_names_its_block_and_a_repaired_one_completes(tmp_path, command):
    """Channel 1 is only read to measure it."""
    image = tiny_volume.small_series(tmp_path / "a.zarr", "czyx")
    same = tiny_volume.small_series(tmp_path / "b" / "a.zarr", "czyx")
    chunk = Path(image, "0", "c", "1", "0", "1", "1")
    whole, status = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(whole[: len(whole) // 2])
    done = command("segment", image, *SIZE)
    refused(done, 1, "stage paint, block 0/0.0.0", "channel 1", "a rerun does what is left")
    assert "failed: painting labels 0/0.0.0" in done.stderr
    assert not Path(image, "labels", "anystar").exists()
    assert command("info", image).stdout.rstrip().endswith("labels: none")
    chunk.write_bytes(whole)
    os.utime(chunk, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = command("segment", image, *SIZE)
    assert again.exit_code == 0, again.stderr
    assert "network: 1 blocks" not in again.stderr
    assert command("segment", same, *SIZE).exit_code == 0
    assert tiny_volume.contents(f"{image}/labels") == tiny_volume.contents(f"{same}/labels")


def test_every_failed_block_is_named(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("segment", image, *SIZE, "--block-shape", 12, 16, 16, factory=Failing())
    tiles = 18
    assert done.exit_code == 1
    assert f"({tiles} blocks failed: 0/0.0.0, 0/0.0.1, 0/0.0.2" in done.stderr
    assert done.stderr.count("failed: network") == tiles
    assert "unexpected RuntimeError: no network today" in done.stderr


class Failing:
    """A network that does not work."""

    def __call__(self, *_):
        return self

    def find(self, *_):
        raise RuntimeError("no network today")


@pytest.mark.parametrize(
    ("unit", "first", "is_warned"), [("micrometer", 1000.0, False), ("furlong", 500.0, True)]
)
def test_a_stage_position_beside_another_voxel_size_is_kept_or_told(
    tmp_path, command, unit, first, is_warned
):
    """Twice the declared voxels: a known position stays, one in an unknown unit goes with them."""
    image = tiny_volume.small_image(tmp_path / "a.zarr", levels=1)
    moved = [
        {"type": "scale", "scale": [1, 1, 1]},
        {"type": "translation", "translation": [1e3] * 3},
    ]

    def change(document):
        (entry,) = document["attributes"]["ome"]["multiscales"]
        entry["coordinateTransformations"] = moved
        for axis in entry["axes"]:
            axis["unit"] = unit

    tiny_volume.edit_json(Path(image) / "zarr.json", change)
    size = ["--voxel-size", 0.25, 0.25, 0.25]
    done = command("segment", image, "--diameter", "2.5um", *size, "--fail-on-warning")
    assert done.exit_code == (3 if is_warned else 0), done.stderr
    assert ("goes with the voxel size and is 500 x 500 x 500 um" in done.stderr) == is_warned
    assert ("position 1000 x 1000 x 1000 um is kept" in done.stderr) != is_warned
    for row in tiny_volume.rows(tmp_path / "a.anystar.csv"):
        for axis in "zyx":
            inside = 0.25 * float(row[f"centroid_{axis}"])
            assert float(row[f"centroid_{axis}_um"]) == pytest.approx(first + inside, abs=1e-3)
    parts = json.loads((tmp_path / "a.anystar.run.json").read_text())["config"]["result"]
    assert parts["voxel_size"] == [0.25] * 3


def test_an_unknown_unit_is_refused_and_the_voxel_size_helps(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    path = Path(image) / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["ome"]["multiscales"][0]["axes"][0]["unit"] = "furlong"
    path.write_text(json.dumps(document))
    done = command("segment", image, "--diameter", "5px")
    assert done.exit_code == 2
    assert "states the unit 'furlong'; expected a length" in done.stderr
    assert "--voxel-size" in done.stderr
    assert "'furlong', no length that is known" in command("info", image).stdout
    assert (
        command("segment", image, "--diameter", "5um", "--voxel-size", 2, 0.5, 0.5).exit_code == 0
    )
