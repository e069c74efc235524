"""One directory of results, two images of one name: neither gets the other's label."""

import pathlib
import shutil

import pytest

from anystar_batch.errors import LockedError, OutputExistsError
from anystar_batch.events import StageStarted
from anystar_batch.pipeline.dry_run import Standing, standing
from anystar_batch.pipeline.run_record import NOTHING_TO_DO
from tests.support import tiny_volume


@pytest.fixture
def images(tmp_path):
    """Two images of equal metadata, in two directories."""
    tiny_volume.small_image(tmp_path / "a/x.ome.zarr")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    return tmp_path / "a/x.ome.zarr", tmp_path / "b/x.ome.zarr"


def test_the_label_of_another_image_is_not_taken_for_ours(images, tmp_path):
    first, second = images
    out = tmp_path / "out"
    tiny_volume.segment(first, output=out)
    with pytest.raises(OutputExistsError, match=f"made of another image of this name: {first};"):
        tiny_volume.segment(second, output=out)
    config = tiny_volume.config(second, output=out)
    assert standing(config, tiny_volume.model())[0] is Standing.OTHER
    assert tiny_volume.segment(first, output=out).status == NOTHING_TO_DO
    pathlib.Path(tmp_path / "link").symlink_to(tmp_path / "a")
    assert tiny_volume.segment(tmp_path / "link/x.ome.zarr", output=out).status == NOTHING_TO_DO
    tiny_volume.segment(second, output=out, run={"overwrite": True})
    with pytest.raises(OutputExistsError, match=f"{second};"):
        tiny_volume.segment(first, output=out)


def test_image_and_results_may_move_together(images, tmp_path):
    tiny_volume.segment(images[0], output=tmp_path / "a/out")
    (tmp_path / "a").rename(tmp_path / "c")
    moved = tiny_volume.segment(tmp_path / "c/x.ome.zarr", output=tmp_path / "c/out")
    assert moved.status == NOTHING_TO_DO


def linked(tmp_path):
    """An image in an archive, and a link to it in a project."""
    image = tiny_volume.small_image(tmp_path / "archive/x.ome.zarr")
    (tmp_path / "project").mkdir()
    link = tmp_path / "project/x.ome.zarr"
    link.symlink_to(image)
    return image, link


def at_stage(stage, act):
    """A listener that does something once, as soon as a stage has begun."""
    left = [act]

    def listen(event):
        if isinstance(event, StageStarted) and event.stage == stage and left:
            left.pop()()

    return listen


@pytest.mark.parametrize("stage", ["predict", "table"])
def test_two_runs_on_one_image_under_two_names_are_one_too_many(tmp_path, stage):
    image, link = linked(tmp_path)
    other = []

    def run_the_other():
        with pytest.raises(LockedError, match=r"\.anystar\.lock: locked by process") as error:
            tiny_volume.segment(link, run={"overwrite": True})
        other.append(error)

    tiny_volume.segment(image, at_stage(stage, run_the_other))
    assert other
    assert sorted(p.name for p in (tmp_path / "project").iterdir()) == ["x.ome.zarr"]
    assert not list((tmp_path / "archive/x.ome.zarr/labels").glob(".*.lock"))


def test_results_of_an_image_lie_beside_it_and_never_beside_a_link(tmp_path, command):
    image, link = linked(tmp_path)
    size = ["--diameter", "5um", "--no-report", "-q"]
    assert command("segment", link, *size).exit_code == 0
    table = tmp_path / "archive/x.anystar.csv"
    before = table.read_text()
    again = command("segment", image, *size)
    assert (again.exit_code, "nothing to do" in again.stdout) == (0, True)
    assert command("segment", link, *size, "--min-volume", "1e9um3").exit_code == 2
    assert command("segment", link, *size, "--min-volume", "1e9um3", "--overwrite").exit_code == 0
    assert table.read_text() != before, "no table of a label that is gone"
    assert [p.name for p in (tmp_path / "project").iterdir()] == ["x.ome.zarr"]
    assert command("segment", image, link, *size).exit_code == 2


def test_a_label_that_appears_during_the_run_is_not_replaced(tmp_path):
    image = tiny_volume.small_image(tmp_path / "x.ome.zarr")
    label = pathlib.Path(image, "labels/anystar")

    def another_program():
        label.mkdir()
        (label / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')

    with pytest.raises(OutputExistsError, match="exists already, made by another program"):
        tiny_volume.segment(image, at_stage("table", another_program))
    assert [p.name for p in label.iterdir()] == ["zarr.json"]
    done = tiny_volume.segment(image, run={"overwrite": True})
    assert done.instances == 5


def test_a_table_that_appears_during_the_run_is_not_replaced(tmp_path):
    image = tiny_volume.small_image(tmp_path / "x.ome.zarr")
    table = tmp_path / "x.anystar.csv"
    with pytest.raises(OutputExistsError, match="belongs to no label here"):
        tiny_volume.segment(image, at_stage("table", lambda: table.write_text("mine")))
    assert table.read_text() == "mine"
    assert not pathlib.Path(image, "labels/anystar").exists()
