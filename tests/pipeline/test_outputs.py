"""Where results go, and how they are kept apart."""

import json
import os
import socket
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import zarr

from anystar_batch.address import absolute
from anystar_batch.archive.nodes import Node
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.atomic_write import move_atomic
from anystar_batch.config import RunConfig, SegmentConfig
from anystar_batch.errors import ConfigError, OutputError
from anystar_batch.events import Note, StageStarted
from anystar_batch.pipeline import inputs
from anystar_batch.pipeline.inputs import name_images
from anystar_batch.pipeline.outputs import lock_outputs, output_paths
from anystar_batch.pipeline.publish import seen_by_workers
from tests.support import tiny_volume


def named(paths, *, with_output=False):
    found = name_images([str(p) for p in paths], with_output=with_output)
    return [(i.path, i.home, i.stem) for i in found]


def test_an_image_is_named_by_itself(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    assert named([image]) == [(image, str(tmp_path), "a")]
    assert named([f"{image}/"]) == [(image, str(tmp_path), "a")]
    assert named([f"file://{image}"]) == [(image, str(tmp_path), "a")]


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    monkeypatch.chdir(tmp_path)
    assert named(["a.zarr"]) == [(image, str(tmp_path), "a")]


def test_with_output_stems_begin_below_the_common_root(tmp_path):
    images = [
        tiny_volume.small_image(tmp_path / n) for n in ("x/1.ome.zarr", "y/z/1.zarr", "y/z/2.zarr")
    ]
    assert [n[2] for n in named(images, with_output=True)] == ["x.1", "y.z.1", "y.z.2"]
    assert [n[2] for n in named(images)] == ["1", "1", "2"]


def test_series_of_a_container_are_named_below_it(tmp_path):
    from tests.laws.test_times import container

    root = container(tmp_path / "scan.zarr", 2)
    expected = [(f"{root}/{n}", str(tmp_path), f"scan.{n}") for n in range(2)]
    assert named([root]) == expected
    assert named([f"{root}/1"]) == expected[1:], "a series alone has the name it has with others"
    assert [n[2] for n in named([root], with_output=True)] == ["scan.0", "scan.1"]


@pytest.mark.parametrize("with_output", [True, False])
def test_a_collision_is_an_error(tmp_path, with_output):
    images = [tiny_volume.small_image(tmp_path / n) for n in ("a.zarr", "a.ome.zarr")]
    with pytest.raises(ConfigError, match=r"would both write files named a\.\*"):
        named(images, with_output=with_output)


@pytest.mark.parametrize("output", [None, "/d/out"])
def test_a_config_writes_its_paths_one_way(output, monkeypatch):
    expected = output_paths(SegmentConfig("/d/a.zarr", output=output, run=RunConfig(work_dir="/w")))
    given = None if output is None else f"file://{output}/"
    run = RunConfig(work_dir="file:///w/")
    assert output_paths(SegmentConfig("file:///d/a.zarr/", output=given, run=run)) == expected
    monkeypatch.setattr("os.getcwd", lambda: "/d")
    given, run = None if output is None else "out/", RunConfig(work_dir="../w/")
    assert output_paths(SegmentConfig("a.zarr/", output=given, run=run)) == expected


def test_a_config_writes_an_address_one_way(monkeypatch):
    monkeypatch.setattr("os.getcwd", lambda: "/d")
    given = SegmentConfig("S3://b/a.zarr//", output="GS://c/out/")
    assert (given.image, given.home, given.output) == ("s3://b/a.zarr", "s3://b", "gs://c/out")
    with pytest.raises(ConfigError, match="the address holds credentials"):
        SegmentConfig("s3://me:secret@b/a.zarr")


def test_an_image_named_twice(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    with pytest.raises(ConfigError, match=r"a\.zarr is named twice; name every image once"):
        named([image, f"{image}/"])


def test_what_is_no_image_is_left_to_whoever_opens_it(tmp_path):
    assert named([tmp_path / "nothing.zarr"])[0][2] == "nothing"


def test_places_in_the_image():
    found = output_paths(SegmentConfig(image="/d/a.ome.zarr"))
    assert found.label.path == "/d/a.ome.zarr/labels/anystar"
    assert found.stats == "/d/a.anystar.csv"
    assert found.report == "/d/a.anystar.html"
    assert found.record == "/d/a.anystar.run.json"
    assert found.config == "/d/a.anystar.toml"
    assert found.work == "/d/a.anystar.work"
    assert found.locks == ("/d/a.anystar.lock", "/d/a.ome.zarr/labels/.anystar.lock")
    assert not any(f.startswith("/d/a.ome.zarr/") for f in (found.work, found.stats))


def test_places_in_an_output_directory():
    found = output_paths(SegmentConfig(image="/d/a.ome.zarr", label="n", output="/out"))
    assert found.label.path == "/out/a.n.ome.zarr"
    assert (found.stats, found.work, found.locks) == (
        "/out/a.n.csv",
        "/out/a.n.work",
        ("/out/a.n.lock",),
    )


@pytest.mark.parametrize(("zarr_format", "name"), [(2, ".zattrs"), (3, "zarr.json")])
def test_workers_must_see_an_object_of_an_image_in_a_store_that_need_not_list(zarr_format, name):
    run = RunConfig(work_dir="/scratch")
    work = "/scratch/a.anystar.work"
    for image, seen in (
        ("/d/a.zarr", ("/d/a.zarr", work)),
        ("s3://b/a.zarr", (f"s3://b/a.zarr/{name}", work, "s3://b/a.zarr/labels")),
    ):
        source = SimpleNamespace(path=image, zarr_format=zarr_format)
        assert seen_by_workers(source, output_paths(SegmentConfig(image=image, run=run))) == seen


def test_a_work_directory_elsewhere_has_a_lock_of_its_own():
    run = RunConfig(work_dir="/scratch")
    found = output_paths(SegmentConfig(image="/d/a.zarr", label="v1.2", run=run))
    assert found.work == "/scratch/a.v1.2.work"
    label = "/d/a.zarr/labels/.v1.2.lock"
    assert found.locks == ("/d/a.v1.2.lock", label, "/scratch/a.v1.2.lock")


def test_one_lock_under_two_names_is_taken_once(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    run = RunConfig(work_dir=str(tmp_path / "link"))
    found = output_paths(SegmentConfig(str(tmp_path / "d/a.zarr"), run=run))
    assert len(found.locks) == 2
    with lock_outputs(found):
        pass


def test_an_image_without_labels_has_no_folder_of_them_after_a_refused_run(tmp_path):
    found = output_paths(SegmentConfig(tiny_volume.small_image(tmp_path / "a.zarr")))
    with lock_outputs(found):
        assert (tmp_path / "a.zarr/labels/.anystar.lock").exists()
    assert not (tmp_path / "a.zarr/labels").exists()


def links(tmp_path):
    """An image, and every way to name it."""
    image = tiny_volume.small_image(tmp_path / "archive/embryo.ome.zarr")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/embryo.ome.zarr").symlink_to(image)
    (tmp_path / "project/other").symlink_to("embryo.ome.zarr")
    (tmp_path / "here").symlink_to("archive")
    names = ["project/embryo.ome.zarr", "project/other", "archive/../project/other/"]
    return image, [*(str(tmp_path / name) for name in names), Path(image).as_uri()]


def test_an_image_has_one_place_whatever_links_name_it(tmp_path):
    image, names = links(tmp_path)
    for name in names:
        assert named([name]) == [(image, str(tmp_path / "archive"), "embryo")]
        with pytest.raises(ConfigError, match="is named twice"):
            named([image, name])
    by_folder = str(tmp_path / "here/embryo.ome.zarr")
    assert named([by_folder]) == [(by_folder, str(tmp_path / "here"), "embryo")], "the same folder"
    assert named([names[1]], with_output=True) == [(names[1], str(tmp_path / "project"), "other")]


@pytest.mark.parametrize("has_rows", [True, False])
def test_a_field_has_one_place_named_directly_or_through_its_plate(tmp_path, has_rows):
    from tests.pipeline.test_plate_table import make_plate

    root = make_plate(tmp_path / "scan.ome.zarr")
    if not has_rows:
        for row in "AB":
            (root / row / "zarr.json").unlink()
    through = named([root])
    assert through[0] == (f"{root}/A/1/0", str(tmp_path), "scan.A.1.0")
    assert [named([one[0]]) for one in through] == [[one] for one in through]
    assert named([root / "B/03"]) == through[2:]
    (tmp_path / "far").mkdir()
    (tmp_path / "far/field.zarr").symlink_to(through[0][0])
    assert named([tmp_path / "far/field.zarr"]) == through[:1]
    (tmp_path / "far/plate.zarr").symlink_to(root)
    assert named([tmp_path / "far/plate.zarr/A/1/0"]) == through[:1]


def test_a_folder_below_a_stray_group_is_no_row_of_it(tmp_path):
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    image = tiny_volume.small_image(tmp_path / "images/a.zarr")
    assert named([image]) == [(image, str(tmp_path / "images"), "a")]


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        ("FILE:///d/a.zarr/", "/d/a.zarr"),
        ("file:/d/a.zarr", "/d/a.zarr"),
        ("file://localhost/d/a.zarr", "/d/a.zarr"),
        ("file:///d/my%20a.zarr", "/d/my a.zarr"),
        ("S3://b/a.zarr//", "s3://b/a.zarr"),
        ("HTTPS://Host.org:443/A.zarr/", "https://host.org/A.zarr"),
        ("http://host.org:8080/A.zarr", "http://host.org:8080/A.zarr"),
    ],
)
def test_an_address_has_one_spelling(spelling, path):
    assert absolute(spelling) == path


def test_a_name_with_a_percent_sign_is_not_decoded(tmp_path):
    (tmp_path / "100%20.zarr").mkdir()
    assert absolute(f"file://{tmp_path}/100%20.zarr") == f"{tmp_path}/100%20.zarr"


def test_a_file_is_moved_whole_or_not_at_all(tmp_path, monkeypatch):
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("new")
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        move_atomic(source, target)
    assert target.read_text() == "old"
    assert source.read_text() == "new"
    monkeypatch.undo()
    torn, other = tmp_path / ".t.123.partial", tmp_path / ".tt.123.partial"
    for left in (torn, other):
        left.write_text("ne")
    move_atomic(source, target)
    assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, "t"]
    assert target.read_text() == "new"


ODD = """a 'b' "c" <d> & #e %20 ?f *g :h |i [j] {k} \\l $m ~n ü,;!
end"""
"""What a file system takes, and somebody has used."""


def test_a_name_of_odd_characters_is_written_down_as_it_is(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / f"{ODD}.ome.zarr")
    done = command("segment", image, "--diameter", "5um", "-q")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / f"{ODD}.anystar.run.json").read_text())
    assert record["summary"]["image"] == image
    assert tomllib.loads((tmp_path / f"{ODD}.anystar.toml").read_text())
    assert len((tmp_path / f"{ODD}.anystar.csv").read_text().splitlines()) == 6
    again = command("segment", image, "--diameter", "5um", "-q")
    assert "nothing to do" in again.stdout
    info = command("info", image, "--json")
    assert json.loads(info.stdout)["labels"][0]["instances"] == 5


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_name_that_is_too_long_once_written_is_refused_before_work(tmp_path, command, options):
    image = tiny_volume.small_image(tmp_path / f"{'x' * 222}.ome.zarr")
    done = command("segment", image, "--diameter", "5um", *options)
    assert done.exit_code == 2
    assert "too long, with the letters that are added while it is written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [Path(image).name]
    assert not Path(image, "labels").exists()
    short = command("segment", image, "--diameter", "5um", "-q", "--label", "a")
    assert short.exit_code == 2, "one letter more than there is room for"
    out = command("segment", image, "--diameter", "5um", "-q", "--output", tmp_path / "out")
    assert out.exit_code == 2


def test_a_directory_in_the_place_of_a_file_is_refused_before_work(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    for name in ("a.anystar.run.json", "a.anystar.html", "a.anystar.courses.csv"):
        (tmp_path / name).mkdir()
        with pytest.raises(ConfigError, match=f"{name} is a directory; expected the name of"):
            tiny_volume.segment(image)
        (tmp_path / name).rmdir()
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("where", ["a.anystar.work", "a.zarr/labels/.anystar", "a.zarr",
                                   "a.zarr/labels/anystar", "a.zarr/tables"])  # fmt: skip
def test_what_others_keep_from_us_is_told_before_work(tmp_path, monkeypatch, where):
    """A place that would be written last of all is looked at first."""
    image = tiny_volume.small_image(tmp_path / "a.zarr", version="0.4")
    run = {"table": where == "a.zarr/tables", "overwrite": where.endswith("labels/anystar")}
    if where == "a.zarr":
        zarr.consolidate_metadata(image, zarr_format=2)
    elif run["overwrite"]:
        tiny_volume.segment(image)
    else:
        with pytest.raises(KeyboardInterrupt):
            tiny_volume.segment(image, interrupt, run=run)
        (tmp_path / "a.zarr/tables").mkdir(exist_ok=True)
    really, started = files.stamp, []

    def refuse(folder):
        found = str(Path(folder).relative_to(tmp_path))
        hidden = where.endswith(".anystar") and found.startswith(where)
        if found == where or hidden:
            raise PermissionError(13, "Permission denied", str(folder))
        return really(folder)

    monkeypatch.setattr(files, "stamp", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(OutputError, match=r"\(Permission denied; it belongs to \w+\)"):
        tiny_volume.segment(image, started.append, run=run)
    assert not [e for e in started if isinstance(e, StageStarted)]


def interrupt(event):
    if isinstance(event, StageStarted) and event.stage == "paint":
        raise KeyboardInterrupt


def test_a_field_in_a_store_has_one_place_although_rows_say_nothing(monkeypatch):
    def node(**attributes):
        return Node(2, "group", attributes, was_consolidated=False)

    plate, image = {"wells": [{"path": "A/1"}]}, {"multiscales": [{}]}
    root = "s3://b/p.zarr"
    there = {root: node(plate=plate), f"{root}/A/1": node(well={"images": [{"path": "0"}]}),
             f"{root}/A/1/0": node(**image), "s3://b/images/x.zarr": node(**image)}  # fmt: skip
    monkeypatch.setattr(inputs, "read_node", there.get)
    for module in ("archive.nodes", "archive.discovery"):
        monkeypatch.setattr(f"anystar_batch.{module}.read_node", there.get)
    field = (f"{root}/A/1/0", "s3://b", "p.A.1.0")
    assert named([root]) == named([f"{root}/A/1"]) == named([f"{root}/A/1/0/"]) == [field]
    assert named(["S3://b/images/x.zarr"]) == [("s3://b/images/x.zarr", "s3://b/images", "x")]


def test_who_takes_a_dead_lock_over_says_whose_it_was(tmp_path):
    image, events = tiny_volume.small_image(tmp_path / "a.zarr"), []
    holder = {"host": socket.gethostname(), "pid": 2**22 - 7, "user": "ada", "since": "then"}
    for lock in output_paths(SegmentConfig(image)).locks:
        Path(lock).parent.mkdir(exist_ok=True)
        Path(lock).write_text(json.dumps(holder))
    assert tiny_volume.segment(image, events.append).instances == 5
    said = [e.text for e in events if isinstance(e, Note) and "taken over" in e.text]
    assert said == [f"the lock of process {2**22 - 7} on {socket.gethostname()} (user ada) since "
                    "then is taken over: that run is gone"]  # fmt: skip
