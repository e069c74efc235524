"""Resume, overwrite, recovery: nothing is lost, nothing half-made is shown."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from anystar_batch.archive import labels
from anystar_batch.archive.storage import atomic_write
from anystar_batch.errors import BlockError, LedgerMismatchError, OutputExistsError
from anystar_batch.events import BlockDone, StageStarted
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline import outputs, prepare, segment
from anystar_batch.pipeline.outputs import output_paths
from anystar_batch.stages import table
from anystar_batch.stages.ledger import Ledger
from tests.support import tiny_volume
from tests.support.checkout import ROOT
from tests.support.fakes import TruthPredictor

OTHER = Quantity(5.5, "um")


class Stop(Exception):
    """What a listener raises where a test cuts the run short."""


def stop_at(stage):
    def listen(event):
        if isinstance(event, StageStarted) and event.stage == stage:
            raise Stop

    return listen


def cut(image, stage, **options):
    with pytest.raises(Stop):
        tiny_volume.segment(image, stop_at(stage), **options)


def edit_ledger(image, edit):
    """Write the ledger's lines anew, edited."""
    (ledger,) = Path(image).parent.glob("*.work/ledger.jsonl")
    ledger.write_text("".join(f"{line}\n" for line in edit(ledger.read_text().splitlines())))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    image = tiny_volume.small_image(tmp_path_factory.mktemp("reference") / "a.zarr")
    tiny_volume.segment(image)
    return image


@pytest.fixture
def image(tmp_path):
    return tiny_volume.small_image(tmp_path / "a.zarr")


def is_right(image, reference):
    """The label and the table are those of an undisturbed run, and nothing else is left."""
    same = tiny_volume.contents(f"{image}/labels") == tiny_volume.contents(f"{reference}/labels")
    tables = [Path(i).with_name("a.anystar.csv").read_bytes() for i in (image, reference)]
    left = {p.name for p in Path(image).parent.iterdir()}
    return (
        same
        and tables[0] == tables[1]
        and left
        == {
            "a.zarr",
            "a.anystar.csv",
            "a.anystar.html",
            "a.anystar.run.json",
            "a.anystar.toml",
        }
    )


def touch(path):
    """Write the same bytes again: a new time, as an editor leaves."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


@pytest.mark.parametrize("stage", ["predict", "suppress", "own", "paint", "pyramid 1", "table"])
def test_a_run_cut_short_shows_nothing_and_goes_on(image, reference, stage):
    cut(image, stage)
    assert not Path(image, "labels", "anystar").exists()
    assert "anystar" not in json.dumps(_lists(image))
    assert not Path(image).with_name("a.anystar.csv").exists()
    events = []
    tiny_volume.segment(image, events.append)
    again = [e.stage for e in events if isinstance(e, BlockDone)]
    assert "predict" not in again or stage == "predict"
    assert is_right(image, reference)


def _lists(image):
    file = Path(image, "labels", "zarr.json")
    return json.loads(file.read_text())["attributes"] if file.exists() else {}


def test_the_work_lies_outside_the_image(image, tmp_path):
    before = tiny_volume.contents(image)
    cut(image, "paint", run={"work_dir": str(tmp_path / "scratch")})
    added = set(tiny_volume.contents(image)) - set(before)
    assert all(name.startswith("labels/.anystar.") for name in added)
    assert (tmp_path / "scratch" / "a.anystar.work").is_dir()


@pytest.mark.parametrize("stage", ["predict", "paint", "table"])
def test_other_options_than_the_unfinished_runs_are_refused(image, reference, stage):
    cut(image, stage, diameter=OTHER)
    with pytest.raises(LedgerMismatchError, match=r"diameter: \[5.5, .* give --restart"):
        tiny_volume.segment(image)
    tiny_volume.segment(image, run={"restart": True})
    assert is_right(image, reference), "the other run's hidden label is gone too"


def test_other_options_than_the_unfinished_runs_are_refused_by_the_command(image, command):
    cut(image, "paint", diameter=OTHER)
    done = command("segment", image, "--diameter", "5um")
    assert done.exit_code == 2
    assert "unfinished run of another image, model or configuration" in done.stderr
    assert command("segment", image, "--diameter", "5um", "--restart").exit_code == 0


def natural(monkeypatch, precision):
    monkeypatch.setattr(prepare, "natural_precision", lambda _: precision)


def precision_of(image):
    attributes = zarr.open_group(f"{image}/labels/anystar", mode="r").attrs.asdict()
    return attributes["anystar-batch"]["options"]["precision"]


def test_a_run_goes_on_in_the_precision_in_which_it_began(image, monkeypatch):
    natural(monkeypatch, "bfloat16")
    cut(image, "paint")
    natural(monkeypatch, "float32")
    tiny_volume.segment(image)
    assert precision_of(image) == "bfloat16"
    # And on a machine that is fast in another, what is published is finished.
    assert tiny_volume.segment(image).status == "nothing to do"
    # Asked for by name, or made anew, it is another result.
    with pytest.raises(OutputExistsError):
        tiny_volume.segment(image, precision="float32")
    tiny_volume.segment(image, run={"overwrite": True})
    assert precision_of(image) == "float32"


def test_a_precision_that_was_asked_for_is_kept(image, monkeypatch):
    natural(monkeypatch, "bfloat16")
    tiny_volume.segment(image, precision="float32")
    assert precision_of(image) == "float32"
    assert tiny_volume.segment(image).status == "nothing to do"


@pytest.mark.parametrize("stage", ["predict", "paint", "table"])
def test_an_image_that_changed_since_is_refused(image, reference, stage):
    cut(image, stage)
    touch(Path(image, "0", "c", "1", "1", "1"))
    with pytest.raises(LedgerMismatchError, match=r"has changed since .* give --restart"):
        tiny_volume.segment(image)
    if stage != "predict":
        with pytest.raises(LedgerMismatchError, match="has changed since"):
            tiny_volume.segment(image)
    tiny_volume.segment(image, run={"restart": True})
    assert is_right(image, reference)


@pytest.mark.parametrize("stage", ["suppress", "paint", "table"])
def test_an_image_that_changes_during_the_run_is_not_published(image, stage):
    def listen(event):
        if isinstance(event, StageStarted) and event.stage == stage:
            touch(Path(image, "0", "c", "1", "1", "1"))

    with pytest.raises(LedgerMismatchError, match="has changed since it was read"):
        tiny_volume.segment(image, listen)
    assert not Path(image, "labels", "anystar").exists()
    assert tiny_volume.segment(image, run={"restart": True}).instances == 5


def test_a_chunk_that_appears_during_the_run_is_a_change(image):
    chunk = Path(image, "0", "c", "1", "2", "2")
    aside = chunk.with_suffix(".aside")
    chunk.rename(aside)

    def listen(event):
        if isinstance(event, StageStarted) and event.stage == "own":
            aside.rename(chunk)

    with pytest.raises(LedgerMismatchError, match="has changed since it was read"):
        tiny_volume.segment(image, listen)


def test_an_image_that_grows_during_the_run_is_not_published(image):
    def listen(event):
        if isinstance(event, StageStarted) and event.stage == "table":
            file = Path(image, "0", "zarr.json")
            tiny_volume.edit_json(file, lambda document: document.update(shape=[21, 40, 44]))

    with pytest.raises(LedgerMismatchError, match="metadata has changed during the run"):
        tiny_volume.segment(image, listen)
    assert not Path(image, "labels", "anystar").exists()


def test_a_published_label_is_never_overwritten_without_being_asked(image, reference):
    tiny_volume.segment(image)
    with pytest.raises(OutputExistsError, match="exists already, made by another model, image or"):
        tiny_volume.segment(image, diameter=OTHER)
    assert is_right(image, reference)


class Broken:
    """Fails at the second tile."""

    def __init__(self):
        self.calls = 0

    def __call__(self, *_):
        return self

    def find(self, *arguments):
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("out of order")
        return TruthPredictor(tiny_volume.truth()).find(*arguments)


def test_the_old_label_stays_whole_while_the_new_run_fails(image, reference):
    tiny_volume.segment(image)
    again = {"run": {"overwrite": True}, "diameter": OTHER}
    with pytest.raises(BlockError, match=r"stage predict, block 0/0.0.1: unexpected RuntimeError"):
        tiny_volume.segment(image, factory=Broken(), **again)
    cut(image, "table", **again)
    published = tiny_volume.contents(f"{image}/labels/anystar")
    assert published == tiny_volume.contents(f"{reference}/labels/anystar")
    replaced = tiny_volume.segment(image, **again)
    attributes = zarr.open_group(replaced.label, mode="r").attrs["anystar-batch"]
    assert attributes["decided"]["diameter_um"] == 5.5
    assert _lists(image)["ome"]["labels"] == ["anystar"]
    assert [p.name for p in Path(image, "labels").iterdir() if p.is_dir()] == ["anystar"]


def test_the_same_result_can_be_made_again(image, reference):
    tiny_volume.segment(image)
    summary = tiny_volume.segment(image, run={"overwrite": True})
    assert summary.status == "done"
    assert summary.seconds
    assert is_right(image, reference)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support import tiny_volume as small
from tests.pipeline.test_segment import cut_exchange
cut_exchange(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
small.segment(sys.argv[1], run={"overwrite": True})
"""


def cut_exchange(die, patch=setattr):
    """Die when the old label is aside and the new one is not yet in its place.

    That is where the file system knows no exchange in one step.
    """
    patch(atomic_write, "exchange", lambda *_: False)
    rename = Path.rename

    def cut_rename(self, to):
        is_new = self.name.startswith(".anystar.") and Path(to).name == "anystar"
        return die() if is_new else rename(self, to)

    patch(Path, "rename", cut_rename)


@pytest.mark.parametrize(
    ("where", "size"),
    [("exchange", 5.0), ("list_label", 5.0), ("_remove", 5.0), ("finish", 5.0), ("finish", 5.5)],
)
def test_cut_short_while_it_replaces_a_label(image, reference, monkeypatch, where, size):
    """The label is the old one or the new one, whole; the same command makes it the new one."""

    def stop(*_):
        raise Stop

    tiny_volume.segment(image, diameter=OTHER)
    old = tiny_volume.contents(f"{image}/labels/anystar")

    def at_the_table(event):
        if not isinstance(event, StageStarted) or event.stage != "table":
            return
        if where == "exchange":
            cut_exchange(stop, monkeypatch.setattr)
        else:
            monkeypatch.setattr(segment if where == "finish" else labels, where, stop)

    options = {"run": {"overwrite": True}, "diameter": Quantity(size, "um")}
    with pytest.raises(Stop):
        tiny_volume.segment(image, at_the_table, **options)
    monkeypatch.undo()
    assert Path(image, "labels", "anystar").exists() == (where != "exchange")
    summary = tiny_volume.segment(image, **options)
    assert summary.instances == 5
    assert bool(summary.seconds) == (where == "exchange"), "what is published is not made again"
    if size == 5.0:
        assert is_right(image, reference)
    else:
        assert tiny_volume.contents(f"{image}/labels/anystar") == old


def test_killed_while_it_replaces_a_label(image, reference):
    tiny_volume.segment(image, diameter=OTHER)
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = [sys.executable, "-c", KILLED, image]
    killed = subprocess.run(script, env=place, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not Path(image, "labels", "anystar").exists()
    with pytest.raises(LedgerMismatchError, match="unfinished run"):
        tiny_volume.segment(image, diameter=Quantity(6.0, "um"), run={"overwrite": True})
    attributes = zarr.open_group(f"{image}/labels/anystar", mode="r").attrs["anystar-batch"]
    assert attributes["decided"]["diameter_um"] == 5.5, "the old label is back"
    tiny_volume.segment(image, run={"overwrite": True})
    assert is_right(image, reference)


def test_killed_after_publishing_the_next_command_brings_the_table(image, reference, monkeypatch):
    def stop(*_):
        raise Stop

    monkeypatch.setattr(segment, "finish", stop)
    with pytest.raises(Stop):
        tiny_volume.segment(image)
    monkeypatch.undo()
    assert not Path(image).with_name("a.anystar.csv").exists()
    summary = tiny_volume.segment(image)
    assert (summary.status, summary.instances) == ("done", 5)
    assert is_right(image, reference)


def test_torn_files_beside_the_results_are_swept_by_the_next_command(image, reference):
    tiny_volume.segment(image)
    beside = Path(image).parent
    names = ("a.anystar.csv", "a.anystar.html", "a.anystar.run.json", "a.anystar.toml")
    torn = [beside / f".{name}.77-0a.partial" for name in names]
    others = [beside / name for name in (".a.other.csv.77-0a.partial", ".a.anystar.csv.swp")]
    for path in (*torn, *others):
        path.touch()
    assert tiny_volume.segment(image).status == "nothing to do"
    assert not any(path.exists() for path in torn)
    assert all(path.exists() for path in others)


def test_killed_while_tidying_up_leaves_no_trace_after_the_next_command(image, reference):
    tiny_volume.segment(image, run={"keep_work": True})
    assert Path(image).with_name("a.anystar.work").is_dir()
    assert tiny_volume.segment(image).status == "nothing to do"
    assert is_right(image, reference)


@pytest.mark.parametrize("first", ["ledger.jsonl", "candidates"])
def test_killed_while_the_work_directory_is_deleted(image, reference, first, monkeypatch):
    """The ledger may be what goes first: then nobody could tell whose the rest is."""
    really = shutil.rmtree

    def stop(path, *more, **named):
        if ".work" not in Path(path).name:
            return really(path, *more, **named)
        if first == "ledger.jsonl":
            Path(path, first).unlink()
        else:
            really(Path(path, first))
        raise Stop

    monkeypatch.setattr(shutil, "rmtree", stop)
    with pytest.raises(Stop):
        tiny_volume.segment(image)
    monkeypatch.undo()
    assert not is_right(image, reference)
    tiny_volume.segment(image)
    assert is_right(image, reference)


@pytest.mark.parametrize("place", ["hidden label", "work directory"])
def test_killed_while_an_unfinished_run_is_thrown_away(image, reference, place, monkeypatch):
    """What is left without `--restart` is no half of one that its ledger calls done."""
    cut(image, "table")
    really = shutil.rmtree

    def stop(path, *more, **named):
        if ("labels" in Path(path).parts) != (place == "hidden label"):
            return really(path, *more, **named)
        for file in sorted(Path(path).rglob("*"))[1:]:
            if file.is_file() and file.name not in {"zarr.json", "ledger.jsonl"}:
                file.unlink()
        raise Stop

    monkeypatch.setattr(shutil, "rmtree", stop)
    with pytest.raises(Stop):
        tiny_volume.segment(image, run={"restart": True})
    monkeypatch.undo()
    assert tiny_volume.segment(image).instances == 5
    assert is_right(image, reference)


def test_a_work_directory_whose_other_name_is_taken_is_deleted_in_place(image, monkeypatch):
    """NFS keeps what a process still maps; then the next one cannot be renamed to it."""
    cut(image, "table")
    trash = Path(image).with_name(".a.anystar.work.trash")
    trash.mkdir()
    really = shutil.rmtree

    def keep(path, *more, **named):
        if Path(path) != trash:
            really(path, *more, **named)

    monkeypatch.setattr(shutil, "rmtree", keep)
    assert tiny_volume.segment(image, run={"restart": True}).instances == 5
    assert not Path(image).with_name("a.anystar.work").exists()


def test_a_kept_work_directory_is_no_result(image, reference):
    """Its ledger says that all is painted, but what was painted is published and may be gone."""
    tiny_volume.segment(image, run={"keep_work": True})
    summary = tiny_volume.segment(image, run={"overwrite": True})
    assert summary.instances == 5
    assert is_right(image, reference)


def test_a_hidden_label_that_is_gone_is_not_published_empty(image):
    cut(image, "table")
    (hidden,) = Path(image, "labels").glob(".anystar.*")
    shutil.rmtree(hidden)
    with pytest.raises(LedgerMismatchError, match=r"half-painted label that is gone .* --restart"):
        tiny_volume.segment(image)
    assert tiny_volume.segment(image, run={"restart": True}).instances == 5


@pytest.mark.parametrize(
    ("stage", "lost"),
    [
        ("suppress", "candidates/*.npy"),
        ("own", "resolved-0.npy"),
        ("paint", "instances-0.npy"),
        ("table", "partials/*.npy"),
    ],
)
def test_a_missing_file_of_the_work_directory_is_named(image, stage, lost):
    cut(image, stage)
    work = Path(image).with_name("a.anystar.work")
    gone = next(work.glob(lost))
    gone.unlink()
    damaged = rf"{gone.name} is missing: .* damaged; give --restart( \(\d+ blocks failed.*\))?$"
    with pytest.raises(LedgerMismatchError, match=damaged):
        tiny_volume.segment(image)
    assert tiny_volume.segment(image, run={"restart": True}).instances == 5


@pytest.mark.parametrize(
    ("numbered", "said"),
    [
        (6, "5 labels from 1 to 6 were painted, 6 numbered"),
        (4, "label 5 was painted, 4 were numbered"),
    ],
)
def test_painted_labels_that_are_not_those_numbered(image, numbered, said):
    cut(image, "table")

    def other(line):
        return line.replace('"count": 5', f'"count": {numbered}') if '"number"' in line else line

    edit_ledger(image, lambda lines: map(other, lines))
    with pytest.raises(LedgerMismatchError, match=rf"{said}: .* --restart$"):
        tiny_volume.segment(image)


@pytest.mark.parametrize("at_a_time", [1, 2, 5])
def test_table_does_not_depend_on_how_many_labels_are_finished_at_a_time(
    image, reference, monkeypatch, at_a_time
):
    monkeypatch.setattr(table, "SUMS", 2 * at_a_time)
    tiny_volume.segment(image)
    assert is_right(image, reference)


def test_a_tile_that_the_ledger_lost(image):
    cut(image, "own")
    lost = '"predict", "key": "0/0.0.0"'
    edit_ledger(image, lambda lines: (line for line in lines if lost not in line))
    assert tiny_volume.segment(image).instances == 5, "it is made again"


def test_more_instances_than_a_label_holds(image, monkeypatch):
    from anystar_batch.errors import ImageError
    from anystar_batch.stages import number

    monkeypatch.setattr(number, "MAX_LABEL", 4)
    with pytest.raises(ImageError, match="5 instances; a uint32 label holds 4"):
        tiny_volume.segment(image)


def test_a_block_that_holds_the_volume_leaves_no_coarse_level_to_read_back(image, reference):
    left = {}

    def listen(event):
        if isinstance(event, StageStarted):
            left[event.stage] = event.blocks

    tiny_volume.segment(image, listen, run={"block_shape": tiny_volume.SHAPE})
    assert (left["paint"], left["pyramid 1"]) == (1, 0)
    assert is_right(image, reference)


def test_no_objects_is_a_published_warning(image):
    class Nothing:
        def __call__(self, *_):
            return self

        def find(self, *_):
            import numpy as np

            return np.zeros((0, 3), "i4"), np.zeros(0, "f4"), np.zeros((0, 96), "f4")

    summary = tiny_volume.segment(image, factory=Nothing())
    assert summary.instances == 0
    (warning,) = summary.warnings
    assert warning.startswith(
        "no objects were found. Looked at: level 0, working voxel 0.5 x 0.5 x 0.5 um, working "
        "shape (20, 40, 44); looked for: objects of 5 um; intensities from 100 (black) to 1174 "
        "(white); "
        "the 2 most textured tiles have 0 candidates between 0.25 and the threshold, 0.5"
    )
    assert tiny_volume.rows(summary.stats) == []
    assert not zarr.open_array(f"{summary.label}/0", mode="r")[...].any()


def test_candidates_too_large_are_counted_and_told(image):
    notes = []
    options = {
        "factory": TruthPredictor(tiny_volume.truth()),
        "model": tiny_volume.model(max_radius=4.6),
    }
    segment.segment(tiny_volume.config(image), notes.append, **options)
    told = [n.text for n in notes if hasattr(n, "text") and "were dropped" in n.text]
    assert len(told) == 1
    assert "give a larger --diameter" in told[0]
    record = json.loads(Path(image).with_name("a.anystar.run.json").read_text())
    assert record["candidates_too_large"] == int(told[0].split()[0])


def test_the_fingerprint_of_a_work_directory(tmp_path):
    assert Ledger.fingerprint_in(tmp_path) is None
    with Ledger(tmp_path, "abc", {}):
        pass
    assert Ledger.fingerprint_in(tmp_path) == "abc"
    (tmp_path / "ledger.jsonl").write_text("{")
    assert Ledger.fingerprint_in(tmp_path) is None


def test_errors_of_the_system_name_the_place(tmp_path):
    from anystar_batch.errors import OutputError

    places = output_paths(tiny_volume.config(tmp_path / "a.zarr"))
    message = r"/x: cannot be written \(Permission"
    with pytest.raises(OutputError, match=message), outputs.named_errors(places):
        raise PermissionError(13, "Permission denied", "/x")


def test_the_picture_of_the_probe_belongs_to_the_label_that_is_there(image):
    picture = Path(image).with_name("a.anystar.probe.svg")
    tiny_volume.segment(image, diameter=None)
    assert picture.read_text().startswith("<svg")
    record = json.loads(Path(image).with_name("a.anystar.run.json").read_text())
    assert f"Diameter {record['probe']['diameter_um']:.3g} um" in picture.read_text()
    tiny_volume.segment(image, diameter=OTHER, run={"overwrite": True})
    assert not picture.exists()


def test_what_listeners_are_told_adds_up_also_over_two_runs(image):
    """Voxels of the volume, each once; candidates of tiles that an earlier run has done."""
    told = []

    def listen(event, most=2):
        told.append(event)
        blocks = [e for e in told if isinstance(e, BlockDone) and e.stage == "predict"]
        if len(blocks) == most:
            raise Stop

    with pytest.raises(Stop):
        tiny_volume.segment(image, listen)
    first, told = told, []
    tiny_volume.segment(image, told.append)
    voxels = math.prod(tiny_volume.SHAPE)

    def of(events, kind, stage):
        return [e for e in events if isinstance(e, kind) and e.stage == stage]

    (begun,) = of(first, StageStarted, "predict")
    done = of(first, BlockDone, "predict")
    assert (begun.voxels, begun.done, begun.instances) == (voxels, 0, 0)
    (resumed,) = of(told, StageStarted, "predict")
    assert (resumed.done, resumed.blocks) == (2, begun.blocks - 2)
    assert resumed.voxels == voxels - sum(e.voxels for e in done) < voxels
    assert resumed.instances == sum(e.instances for e in done) > 0
    for stage, whole in (("suppress", voxels), ("paint", voxels), ("pyramid 1", 20 * 20 * 22)):
        (started,) = of(told, StageStarted, stage)
        assert started.voxels == sum(e.voxels for e in of(told, BlockDone, stage)), stage
        assert started.voxels in (whole, 0), stage
    assert sum(e.voxels for e in of(told, BlockDone, "paint")) == voxels


def test_voxels_are_told_of_level_0_whatever_the_working_scale(image):
    told = []
    tiny_volume.segment(image, told.append, diameter=Quantity(10.0, "um"), output=f"{image}.out")
    for stage in ("predict", "suppress"):
        (started,) = [e for e in told if isinstance(e, StageStarted) and e.stage == stage]
        assert started.voxels == pytest.approx(math.prod(tiny_volume.SHAPE), rel=0.05)
