"""`--inside`: what it names, what it refuses, and what a run, a dry run and a sweep make of it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor, write_image
from tests.support.tiny_volume import SHAPE

RUN = ["--diameter", "5um", "--no-report"]
SCALE = (0.5, 0.5, 0.5)


class Never:
    """A network that nobody may ask."""

    def __call__(self, *_):
        return self

    def find(self, *_):
        raise AssertionError


def mask(*spans, number=1, dtype=np.uint8, shape=SHAPE):
    values = np.zeros(shape, dtype)
    values[tuple(slice(a, b) for a, b in spans)] = number if spans else 0
    return values


def around(k, margin=3):
    """A box around the centre of an object."""
    return [(round(c) - margin, round(c) + margin) for c in tiny_volume.truth().centres[k]]


def put(image, name, values, **more):
    options = {"scale": SCALE, "chunks": tuple(min(16, n) for n in values.shape)} | more
    return write_image(f"{image}/labels/{name}", [values], **options)


def rows(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def image(tmp_path):
    path = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    both = mask(*around(0), number=4, dtype=np.uint16)
    both += mask(*around(2), number=9, dtype=np.uint16)
    put(path, "organoids", both)
    return path


def test_a_row_says_in_which_region_its_point_lies(image, tmp_path, command):
    done = command("segment", image, *RUN, "--inside", "organoids", "-v")
    assert done.exit_code == 0, done.stderr
    assert "inside organoids, 1.23 % of the image" in done.stderr
    table = rows(tmp_path / "a.anystar.csv")
    assert [list(row)[:3] for row in table] == [["label", "prob", "region"]] * 2
    assert sorted(row["region"] for row in table) == ["4", "9"]
    by_region = {row["region"]: row for row in table}
    for k, number in ((0, "4"), (2, "9")):
        found = [float(by_region[number][f"centroid_{a}"]) for a in "zyx"]
        assert found == pytest.approx(tiny_volume.truth().centres[k], abs=1.0)
    # Not clipped: an object is whole, whatever the region's border.
    assert int(by_region["4"]["num_voxels"]) > mask(*around(0)).sum()
    record = json.loads((tmp_path / "a.anystar.run.json").read_text())
    assert record["plan"]["inside"]["name"] == "organoids"
    assert record["inside"]["share"] == pytest.approx(2 * 6**3 / np.prod(SHAPE))
    assert 'inside = "organoids"\n' in (tmp_path / "a.anystar.toml").read_text()
    attributes = zarr.open_group(f"{image}/labels/anystar", mode="r").attrs["anystar-batch"]
    assert attributes["options"]["inside"]["ids"] == []
    assert attributes["decided"]["inside"]["name"] == "organoids"


def test_named_regions_alone(image, tmp_path, command):
    done = command(
        "segment", image, *RUN, "--inside", "organoids:1-5", "--stats", tmp_path / "a.pq"
    )
    assert done.exit_code == 0, done.stderr
    import pyarrow.parquet

    column = pyarrow.parquet.read_table(tmp_path / "a.pq")["region"]
    assert (column.to_pylist(), str(column.type)) == ([4], "int64")


def test_an_object_just_outside_is_not_found_by_a_lesser_point_inside(image, tmp_path, command):
    # The best point of an object has x = 22, the next ones x = 24.
    put(image, "beside", mask((4, 10), (24, 30), (24, 28)))
    asked = ["segment", image, *RUN, "-q", "--inside", "beside"]
    assert command(*asked).exit_code == 0
    assert rows(tmp_path / "a.anystar.csv") == []


def test_a_mask_elsewhere_and_of_other_voxels(image, tmp_path, command):
    half = mask(*around(0))[::2, ::2, ::2].astype(bool)
    path = write_image(tmp_path / "half.ome.zarr", [half], scale=(1.0, 1.0, 1.0))
    done = command("segment", image, *RUN, "-q", "--inside", path)
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    assert [row["region"] for row in rows(tmp_path / "a.anystar.csv")] == ["1"]


def test_a_label_that_a_run_with_output_has_made(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "in" / "a.ome.zarr")
    out = ["--output", tmp_path / "out", *RUN, "-q"]
    assert command("segment", image, *out, "--label", "first").exit_code == 0
    done = command("segment", image, *out, "--inside", "first:2-3")
    assert done.exit_code == 0, done.stderr
    assert [r["region"] for r in rows(tmp_path / "out" / "a.anystar.csv")] == ["2", "3"]
    assert not (Path(image) / "labels").exists()


def test_a_column_survives_the_image_s_table(image, tmp_path, command):
    done = command("segment", image, *RUN, "-q", "--inside", "organoids", "--table")
    assert done.exit_code == 0, done.stderr
    assert "region" in rows(f"{image}/tables/anystar/table.csv")[0]


def refused(command, image, inside, *more):
    before = tiny_volume.contents(Path(image).parent)
    done = command("segment", image, *RUN, "-q", "--inside", inside, *more, factory=Never())
    assert done.exit_code == 2, done.stderr
    assert tiny_volume.contents(Path(image).parent) == before
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_what_is_refused_and_what_is_said(image, tmp_path, command):
    said = refused(command, image, "organoid")
    assert "the image has no label organoid; its labels are organoids" in said
    assert "did you mean" in said
    assert "that is the label that this run writes" in refused(
        command, image, "organoids", "--label", "organoids"
    )
    own = f"{image}/labels/organoids"
    assert "the label that this run writes" in refused(command, image, own, "--label", "organoids")
    said = refused(command, image, "organoids:5,9,11-20")
    assert "no voxel of the image has the number 5,11-20; there are 4, 9" in said
    assert "expected a label of the image" in refused(command, image, "organoids:0")
    assert "no such" in refused(command, image, tmp_path / "nowhere.ome.zarr").lower()
    put(image, "probabilities", mask(*around(0)).astype(np.float32))
    said = refused(command, image, "probabilities")
    assert "--inside probabilities" in said
    assert "float32; expected integer labels" in said
    put(image, "signed", mask(*around(0), number=-1, dtype=np.int32))
    assert "found the number -1" in refused(command, image, "signed")
    put(image, "beside", mask(*around(0)), translations=[(0.0, 500.0, 0.0)])
    said = refused(command, image, "beside")
    assert "it lies beside the image: the image covers -0.25 to 9.75" in said
    two = np.stack([mask(*around(0))] * 2)
    put(image, "channels", two, axes="czyx", chunks=None)
    assert "has 2 channels" in refused(command, image, "channels")
    put(image, "times", two, axes="tzyx", chunks=None)
    assert "has 2 times, the image 1" in refused(command, image, "times")


def test_an_image_without_labels_says_so(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    assert "no label cells; it has no labels" in refused(command, image, "cells")


def test_a_region_of_another_size_is_told(image, tmp_path, command):
    put(image, "part", mask(*around(0))[:, :30])
    put(image, "wrong", mask(*around(0)), scale=(0.6, 0.5, 0.5))
    done = command("segment", image, *RUN, "-q", "--inside", "part")
    assert done.exit_code == 0, done.stderr
    assert "--inside part: it covers 75% of the image" in done.stderr
    done = command("segment", image, *RUN, "-q", "--inside", "wrong", "--label", "b")
    assert done.exit_code == 0, done.stderr
    assert "but another voxel size (0.6 x 0.5 x 0.5 um, the image 0.5" in done.stderr


def test_nothing_inside_asks_no_network_and_says_so(image, tmp_path, command):
    put(image, "none", mask())
    run = ["--no-report", "-q", "--inside", "none"]
    done = command("segment", image, *run, factory=Never())
    assert done.exit_code == 0, done.stderr
    assert "no objects were found: nothing of the image lies inside none" in done.stderr
    assert "probe" not in done.stderr
    assert rows(tmp_path / "a.anystar.csv") == []
    assert not zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...].any()
    done = command("segment", image, *run, "--label", "b", "--dry-run", factory=Never())
    assert "time        none: no tile lies inside" in done.stdout


def test_where_nothing_is_found_inside_the_region_is_named(image, tmp_path, command):
    put(image, "between", mask((0, 2), (0, 2), (0, 2)))
    done = command("segment", image, *RUN, "-q", "--inside", "between")
    assert "only inside between, 0.0227 % of the image" in done.stderr


def test_a_region_that_was_made_anew_makes_another_result(image, tmp_path, command):
    run = ["segment", image, *RUN, "-q", "--inside", "organoids"]
    assert command(*run).exit_code == 0
    assert "nothing to do" in command(*run).stdout
    shutil.rmtree(f"{image}/labels/organoids")
    put(image, "organoids", mask(*around(1), number=2, dtype=np.uint16))
    done = command(*run)
    assert done.exit_code == 2
    assert "exists already, made by another model, image or options" in done.stderr
    assert command(*run, "--overwrite").exit_code == 0
    assert [row["region"] for row in rows(tmp_path / "a.anystar.csv")] == ["2"]


class Editing(TruthPredictor):
    """Finds the truth, and changes the region the first time it is asked."""

    path = ""

    def find(self, *given):
        array = zarr.open_array(f"{self.path}/labels/organoids/0", mode="r+")
        array[0, 0, 0] = 5
        return super().find(*given)


def test_a_region_that_changes_under_way_is_never_mixed(image, tmp_path, command, monkeypatch):
    monkeypatch.setattr(Editing, "path", image)
    run = ["segment", image, *RUN, "-q", "--inside", "organoids"]
    done = command(*run, factory=Editing(tiny_volume.truth()))
    assert done.exit_code == 2
    assert "organoids has changed since the run began" in done.stderr
    assert not (Path(image) / "labels" / "anystar").exists()
    done = command(*run)
    assert done.exit_code == 2
    assert "these differ: inside: " in done.stderr
    assert command(*run, "--restart").exit_code == 0


def test_a_dry_run_counts_the_tiles_inside(image, tmp_path, command):
    corner = mask((0, 2), (0, 2), (0, 2))
    put(image, "corner", corner)
    done = command("segment", image, *RUN, "--tile", "16", "--inside", "corner", "--dry-run")
    assert done.exit_code == 0, done.stderr
    (line,) = (one for one in done.stdout.splitlines() if "  tiles " in one)
    whole = command("segment", image, *RUN, "--tile", "16", "--dry-run", "--json")
    tiles = json.loads(whole.stdout)["tiles"]
    part = command(
        "segment", image, *RUN, "--tile", "16", "--inside", "corner", "--dry-run", "--json"
    )
    found = json.loads(part.stdout)
    assert found["tiles"] + found["tiles_outside"] == tiles
    assert 0 < found["tiles"] < tiles
    assert f"{found['tiles']} of" in line
    assert f", {found['tiles_outside']} lie outside" in line
    assert json.loads(whole.stdout)["tiles_outside"] == 0


@pytest.mark.parametrize("has_times", [False, True])
def test_one_region_for_all_times_or_one_a_time(tmp_path, command, has_times):
    image = tiny_volume.small_series(tmp_path / "a.ome.zarr", axes="tzyx", times=2, channels=1)
    values, axes = mask(*around(0, 4), number=3), "zyx"
    if has_times:
        values, axes = np.stack([np.zeros_like(values), values]), "tzyx"
    put(image, "organoids", values, axes=axes, chunks=None)
    done = command("segment", image, *RUN, "-q", "--inside", "organoids")
    assert done.exit_code == 0, done.stderr
    found = {(row["t"], row["region"]) for row in rows(tmp_path / "a.anystar.csv")}
    assert found == ({("1", "3")} if has_times else {("0", "3"), ("1", "3")})


def test_the_scale_is_probed_at_a_time_that_has_the_region(tmp_path, command):
    image = tiny_volume.small_series(tmp_path / "a.ome.zarr", axes="tzyx", times=2, channels=1)
    values = mask(*around(0, 4))
    put(image, "organoids", np.stack([0 * values, values]), axes="tzyx", chunks=None)
    done = command("segment", image, "--no-report", "-q", "--inside", "organoids")
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "a.anystar.run.json").read_text())["probe"]["is_certain"]


def test_a_sweep_leaves_images_without_the_label_with_one_line(tmp_path, command):
    root = tmp_path / "archive"
    for name in ("a", "b", "c"):
        tiny_volume.small_image(root / f"{name}.ome.zarr")
    put(root / "b.ome.zarr", "organoids", mask(*around(0)))
    put(root / "c.ome.zarr", "organoids", mask(*around(0))[9], axes="yx", chunks=None)
    done = command("sweep", root, *RUN, "-q", "--settle", "0", "--inside", "organoids")
    assert done.exit_code == 1
    said = done.stdout + done.stderr
    assert said.count("has no label organoids") == 1
    assert said.count("--inside organoids: ") == 2
    assert "not for this tool" not in said
    assert [row["region"] for row in rows(root / "b.anystar.csv")] == ["1"]
    assert not (root / "a.anystar.csv").exists()
