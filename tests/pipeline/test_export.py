"""The command: which label, which stars, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from anystar_batch.cli import app
from anystar_batch.errors import ConfigError, ImageError, OutputExistsError
from anystar_batch.pipeline import export as module
from anystar_batch.pipeline.export import FORMATS, ExportConfig, export
from tests.support.fakes import write_image
from tests.support.starred_label import write_starred_label


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "a.ome.zarr"
    write_image(path, [np.zeros((50, 110, 120), np.uint8)], scale=(1.0, 0.5, 0.5))
    write_starred_label(path / "labels" / "anystar", num_times=None)
    write_image(path / "labels" / "plain", [np.zeros((50, 110, 120), np.uint32)])
    return str(path)


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_is_written_whole_by_image_or_label(image, tmp_path, to):
    out = str(tmp_path / f"deep/out{FORMATS[to]}")
    done = CliRunner().invoke(app, ["export", image, out, "--to", to, "--json", "-q"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["path"], document["stars"], document["format"]) == (out, 5, to)
    again = ExportConfig(f"{image}/labels/anystar", str(tmp_path / f"b{FORMATS[to]}"), to)
    export(again)
    first = {p.relative_to(out): p.read_bytes() for p in Path(out).rglob("*") if p.is_file()}
    second = {p.relative_to(again.out): p.read_bytes()
              for p in Path(again.out).rglob("*") if p.is_file()}  # fmt: skip
    if to != "geff":  # it names the label by the way there
        assert first == second
    assert [path.name for path in tmp_path.glob("deep/*")] == [Path(out).name]


def test_the_end_of_the_name_says_the_format(image, tmp_path):
    done = export(ExportConfig(image, str(tmp_path / "a.geff"), labels="2,4-5"))
    assert (done.format, done.stars) == ("geff", 3)
    assert zarr.open_array(f"{done.path}/nodes/ids", mode="r")[...].tolist() == [2, 4, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--to: the name says no format; expected ply"),
        ({"to": "geofparquet"}, "got 'geofparquet'.*did you mean .geoparquet"),
        ({"to": "ply", "labels": "0-3"}, "--labels: got '0-3'; expected numbers from 1 on"),
        ({"to": "ply", "labels": "4-7"}, "--labels: got 4-7; the label has 1 to 5"),
        ({"to": "ply", "time": "3"}, "3"),
        ({"to": "ply", "voxel_size": (1.0, 1.0, 1.0)}, "--voxel-size is for --to labels"),
        ({"to": "labels", "labels": "1"}, "--labels is for --to ply, obj"),
        ({"to": "labels", "voxel_size": (1.0, 0.0, 1.0)}, "expected three positive"),
        ({"to": "ply", "shape": "spheres"}, "--shape is for --to geoparquet"),
        ({"to": "geff", "alternatives": "anystar"}, "it is .* itself; expected other labels"),
        ({"to": "geff", "alternatives": "a", "labels": "1"}, "contradict each other"),
        ({"to": "geoparquet", "shape": "cubes"}, "--shape: got 'cubes'"),
        ({"to": "ply", "label": "anystr"}, "has no label anystr.*did you mean .anystar"),
    ],
)
def test_wrong_options_are_refused(image, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        export(ExportConfig(image, str(tmp_path / "out"), **options))
    assert not list(tmp_path.iterdir())


def test_a_remote_place_is_refused(image):
    with pytest.raises(ConfigError, match="expected a path of a file system"):
        ExportConfig(image, "s3://bucket/a.ply")


def test_a_label_without_stars_says_how_to_get_them(image, tmp_path):
    with pytest.raises(ImageError, match=r"has no stars.*segment --stars"):
        export(ExportConfig(image, str(tmp_path / "a.ply"), label="plain"))


def test_stars_of_another_version_are_refused(tmp_path):
    label = write_starred_label(tmp_path / "l.zarr")
    group = zarr.open_group(f"{label}/stars", mode="r+")
    group.attrs["anystar-batch-stars"] = group.attrs["anystar-batch-stars"] | {"version": "9"}
    with pytest.raises(ImageError, match="stars of version '9'; expected '1'"):
        export(ExportConfig(label, str(tmp_path / "a.ply")))


def test_what_is_there_stays_unless_it_may_be_replaced(image, tmp_path):
    out = tmp_path / "a.ply"
    out.write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already; give another name, or --over"):
        export(ExportConfig(image, str(out)))
    assert out.read_text() == "mine"
    export(ExportConfig(image, str(out), overwrite=True))
    assert out.read_bytes().startswith(b"ply\n")


@pytest.mark.parametrize("to", ["neuroglancer", "geff", "labels", "ply"])
def test_a_directory_of_others_is_never_replaced(image, tmp_path, to):
    with pytest.raises(OutputExistsError, match="it is not replaced, whatever --overwrite says"):
        export(ExportConfig(image, image, to, overwrite=True))
    out = str(tmp_path / "a")
    if to != "ply":
        export(ExportConfig(image, out, to))
        export(ExportConfig(image, out, to, overwrite=True))
    assert len(list(tmp_path.iterdir())) == (to != "ply")


def test_what_fails_leaves_nothing(image, tmp_path, monkeypatch):
    def torn(_chosen, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_ply", torn)
    with pytest.raises(OSError, match="no space left"):
        export(ExportConfig(image, str(tmp_path / "a.ply")))
    assert not list(tmp_path.iterdir())
