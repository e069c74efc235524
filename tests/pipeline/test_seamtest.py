"""The command `seamtest`: tiles are seen in labels of any program, and only where there were."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from anystar_batch import cli
from anystar_batch.archive.label_source import read_label_source
from anystar_batch.measure.contacts import Contacts
from anystar_batch.pipeline import label_survey
from anystar_batch.pipeline.label_volumes import open_labels
from tests.support import seam_volumes
from tests.support.dense_labels import cells
from tests.support.fakes import write_image

SHAPE = (80, 120, 120)
STEP = (40, 40, 40)
CHUNKS = (24, 64, 50)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["seamtest", *map(str, arguments), "-q"])


def told(code, *arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    return json.loads(done.stdout)


def refused(*arguments):
    done = run(*arguments)
    assert done.exit_code == 2, (done.stdout, done.exception)
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def stored(folder, labels, name="a.zarr", **more):
    return write_image(folder / name, [labels], **{"chunks": CHUNKS} | more)


def touching(seed, shape=SHAPE):
    """Cells that touch each other."""
    count = int(np.prod(shape)) // 900
    return cells(np.random.default_rng(seed), shape, count, 6.0).astype(np.uint32)


@pytest.fixture(scope="module")
def crowd():
    return touching(1)


@pytest.fixture(scope="module")
def whole(crowd, tmp_path_factory):
    return stored(tmp_path_factory.mktemp("whole"), crowd)


@pytest.fixture(scope="module")
def cut(crowd, tmp_path_factory):
    return stored(tmp_path_factory.mktemp("cut"), seam_volumes.cut(crowd, STEP[0]))


def test_tiles_that_were_never_joined_are_seen_and_their_absence_too(whole, cut):
    found = told(0, whole, "--tile", *STEP)
    assert found["verdict"] == "no trace"
    assert found["p"] > 0.01
    assert found["tests"][0]["contacts"]["at_planes"]["share"] < 0.3
    found = told(3, cut, "--tile", *STEP)
    (one,) = found["tests"]
    assert (found["verdict"], one["strongest"]) == ("trace", "contacts")
    assert found["p"] == pytest.approx(one["floor"]) == pytest.approx(1e-4)
    contacts = one["contacts"]
    assert contacts["at_planes"]["share"] == 1
    assert contacts["elsewhere"]["share"] < 0.3
    places = {(p["axis"], p["edge"]) for p in contacts["planes"]}
    assert places == {("z", 40), ("y", 40), ("y", 80), ("x", 40), ("x", 80)}
    said = run(cut, "--tile", *STEP).stdout
    assert "trace, p 0.0001: objects meet in flat faces that lie in planes: split" in said


def test_pieces_joined_because_they_touch_are_seen_as_mergers(crowd, tmp_path):
    labels = seam_volumes.glued(seam_volumes.cut(crowd, STEP[0]), STEP[0])
    (one,) = told(3, stored(tmp_path, labels), "--tile", *STEP)["tests"]
    assert one["contacts"]["at_planes"]["change"] == 0
    assert one["scores"]["contacts"] < -3


def test_only_planes_that_are_where_they_are_said_to_be_are_seen(crowd, tmp_path):
    labels = seam_volumes.cut(crowd, STEP[0])[13:, 13:, 13:]
    path = stored(tmp_path, labels)
    assert told(3, path, "--tile", *STEP, "--first", 27, 27, 27)["verdict"] == "trace"
    assert told(0, path, "--tile", *STEP, "--first", 12, 12, 12)["p"] > 0.01
    # Along axes without planes nothing is looked for.
    found = told(3, path, "--tile", 0, 40, 1, "--first", 0, 27, 0)
    assert {p["axis"] for p in found["tests"][0]["contacts"]["planes"]} == {"y"}


def test_the_middle_of_an_overlap_is_found_without_being_named(cut):
    """Tiles of 40 that begin 6 voxels before each plane and end 6 behind it."""
    found = told(3, cut, "--tile", *STEP, "--first", 34, 34, 34, "--overlap", 12, 12, 12)
    least = min(found["tests"], key=lambda one: one["p"])
    assert least["name"] == "planes in the middle between"
    assert [one["name"] for one in found["tests"]] == [
        "planes where a tile begins",
        "planes where the one before ends",
        "planes in the middle between",
    ]


def enlarged(labels, factor):
    """The same labels on a finer grid, nearest voxel."""
    at = [np.floor((np.arange(int(n * factor)) + 0.5) / factor).astype(int) for n in labels.shape]
    return labels[np.ix_(*at)]


def test_labels_that_were_enlarged_get_the_answer_they_had_before(tmp_path):
    labels = touching(4, (40, 60, 60))
    before = told(0, stored(tmp_path, labels, "a.zarr"), "--tile", 20, 20, 20)["tests"][0]
    twice = stored(tmp_path, enlarged(labels, 2), "b.zarr")
    after = told(0, twice, "--tile", 40, 40, 40)["tests"][0]
    assert after["p"] == pytest.approx(before["p"], abs=0.01)
    assert after["scores"] == pytest.approx(before["scores"], abs=0.05)
    # A factor that is not whole: gaps of one and of two.
    odd = stored(tmp_path, enlarged(touching(5, (47, 70, 70)), 1.7), "c.zarr")
    assert told(0, odd, "--tile", 34, 34, 34)["p"] > 0.01
    cut = enlarged(seam_volumes.cut(touching(5, (47, 70, 70)), 20), 1.7)
    assert told(3, stored(tmp_path, cut, "d.zarr"), "--tile", 34, 34, 34)["p"] < 0.001


@pytest.mark.parametrize(
    "how",
    [
        {"chunks": (7, 120, 31)},
        {"chunks": (80, 16, 16), "version": "0.4"},
        {"chunks": (16, 16, 16), "shards": (48, 48, 48)},
        {"blocks": (1, 1, 1), "chunks": (40, 30, 30)},
        {"bare": True},
    ],
    ids=str,
)
def test_chunks_blocks_and_types_cannot_change_the_answer(how, cut, tmp_path):
    how = dict(how)
    labels = seam_volumes.cut(touching(1), STEP[0])
    expected = told(3, cut, "--tile", *STEP)
    more = ["--block-shape", *how.pop("blocks")] if "blocks" in how else []
    if how.pop("bare", False):
        path = str(tmp_path / "bare.zarr")
        array = zarr.create_array(path, shape=SHAPE, chunks=(33, 33, 33), dtype="u8")
        array[:] = labels.astype(np.uint64) * 2**33
    else:
        path = stored(tmp_path, labels, **how)
    found = told(3, path, "--tile", *STEP, *more)
    assert {**found, "labels": ""} == {**expected, "labels": ""}


def test_faces_that_wait_are_one_plane_across_the_shorter_axes(tmp_path, monkeypatch):
    shape, step = (24, 64, 40), 8
    path = stored(tmp_path, np.ones(shape, np.uint32), chunks=(step,) * 3)
    most, honest = [0], Contacts.add

    def watched(self, *arguments):
        honest(self, *arguments)
        held = sum(face.size for face in self._faces.values() if face is not None)
        most[0] = max(most[0], held)

    monkeypatch.setattr(Contacts, "add", watched)
    readers = open_labels([read_label_source(path)], 0, None)
    label_survey.survey(readers, (0,), shape, (step,) * 3)
    assert most[0] <= 24 * 40 + 24 * step + step**2


def test_times_are_read_one_by_one_and_tested_together(tmp_path):
    labels = [touching(seed, (40, 80, 80)) for seed in (1, 2)]
    series = np.stack([seam_volumes.cut(one, 40) for one in labels])
    path = stored(tmp_path, series, axes="tzyx", chunks=(1, 20, 40, 40))
    both = told(3, path, "--tile", 0, 40, 40)
    single = [told(3, path, "--tile", 0, 40, 40, "--time", t) for t in (0, 1)]
    assert both["times"] == [0, 1]
    assert both["objects"] == sum(one["objects"] for one in single)
    pairs = [one["tests"][0]["contacts"]["at_planes"]["pairs"] for one in (both, *single)]
    assert pairs[0] == pairs[1] + pairs[2]
    assert told(0, path, "--against", path)["against"]["identical"]


def test_where_nothing_can_be_told_it_says_so(crowd, tmp_path):
    few = stored(tmp_path, seam_volumes.balls(SHAPE, 30, 0), "few.zarr")
    done = run(few, "--tile", *STEP)
    assert done.exit_code == 4
    assert re.search(r"verdict +cannot tell: only \d+ instances; 50 are needed", done.stdout)
    empty = stored(tmp_path, np.zeros(SHAPE, np.uint8), "empty.zarr")
    assert told(4, empty, "--tile", *STEP)["objects"] == 0
    # A single plane can be in some 40 places: p is never below 1/40.
    path = stored(tmp_path, crowd)
    done = run(path, "--tile", 40, 0, 0)
    assert done.exit_code == 4
    assert "too few planes or objects for a p below 0.001" in done.stdout
    assert told(0, path, "--tile", 40, 0, 0, "--alpha", 0.05)["verdict"] == "no trace"


def test_the_same_partition_is_the_same_whatever_its_numbers(crowd, whole, tmp_path):
    assert told(0, whole, "--against", whole)["against"]["identical"]
    names = np.random.default_rng(0).permutation(np.arange(1, crowd.max() + 1))
    other = np.concatenate([[0], names])[crowd].astype(np.uint32)
    path = stored(tmp_path, other, chunks=(80, 33, 32))
    found = told(0, whole, "--against", path)["against"]
    assert (found["same"], found["identical"]) == (True, False)
    assert found["equal"] == len(np.unique(crowd)) - 1
    assert found["objects_that_differ"] == []
    assert "the same: " in run(whole, "--against", path).stdout


def test_objects_that_differ_are_named_and_found_near_the_planes(crowd, whole, cut):
    found = told(3, whole, "--against", cut, "--tile", *STEP)
    assert found["verdict"] == "no trace"  # of LABELS themselves
    against = found["against"]
    crosses = np.zeros(crowd.max() + 1, bool)
    for axis in range(3):
        moved = np.moveaxis(crowd, axis, 0)
        for edge in range(STEP[axis], SHAPE[axis], STEP[axis]):
            crosses[moved[edge][moved[edge] == moved[edge - 1]]] = True
    expected = set(np.flatnonzero(crosses[1:]) + 1)
    assert against["differing"]["labels"] == len(expected)
    named = against["objects_that_differ"]
    assert {one["label"] for one in named} == expected
    ious = [one["iou"] for one in named]
    assert ious == sorted(ious)
    worst = named[0]
    centre = [float(v.mean()) for v in np.nonzero(crowd == worst["label"])]
    assert worst["centroid"] == pytest.approx(centre, abs=0.01)
    assert against["near_planes_verdict"] == "trace"
    assert "differ" in run(whole, "--against", cut).stdout


def test_objects_that_differ_anywhere_do_not_lie_near_planes(crowd, whole, tmp_path):
    gone = np.random.default_rng(2).random(crowd.max() + 1) < 0.1
    other = np.where(gone[crowd], 0, crowd)
    found = told(3, whole, "--against", stored(tmp_path, other), "--tile", *STEP)
    assert found["against"]["near_planes_verdict"] == "no trace"
    one = told(3, whole, "--against", stored(tmp_path, np.where(crowd == crowd.max(), 0, crowd),
               "one.zarr"), "--tile", *STEP)  # fmt: skip
    assert "only 1 instances; 10 are needed" in one["against"]["near_planes"][0]["why_not"]


def test_the_picture_is_a_picture(cut, tmp_path):
    assert run(cut, "--tile", *STEP, "--figure", tmp_path / "a.svg").exit_code == 3
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    charts = root.findall("{http://www.w3.org/2000/svg}svg")
    assert len(charts) == 3
    assert "changes of label inside objects, over all" in charts[2].attrib["aria-label"]
    x = [float(chart.attrib["x"]) for chart in charts]
    assert x == sorted(set(x))


def test_what_cannot_be_tested_is_refused_in_one_line(whole, tmp_path):
    assert "--tile is missing" in refused(whole)
    assert "no plane of it lies inside" in refused(whole, "--tile", 200, 200, 200)
    assert "--tile: got -1 8 8" in refused(whole, "--tile", -1, 8, 8)
    assert "--tile: got nan" in refused(whole, "--tile", "nan", 8, 8)
    assert "--period: got 0 1 1" in refused(whole, "--tile", *STEP, "--period", 0, 1, 1)
    assert "--alpha: got 2" in refused(whole, "--tile", *STEP, "--alpha", 2)
    assert "--block-shape: got" in refused(whole, "--tile", *STEP, "--block-shape", 0, 1, 1)
    said = refused(whole, "--tile", *STEP, "--overlap", 0, 0, 40)
    assert "--overlap: got 40 of a --tile of 40" in said
    assert "no grid to draw" in refused(whole, "--against", whole, "--figure", tmp_path / "a.svg")
    said = refused(whole, "--tile", *STEP, "--figure", tmp_path / "no" / "a.svg")
    assert "--figure: " in said
    assert "cannot be written" in said
    floats = stored(tmp_path, np.zeros((8, 8, 8), np.float32), "f.zarr", chunks=(8, 8, 8))
    assert "expected integer labels" in refused(floats, "--tile", 4, 4, 4)
    below = stored(tmp_path, np.full((8, 8, 8), -3, np.int32), "n.zarr", chunks=(8, 8, 8))
    assert "label -3" in refused(below, "--tile", 4, 4, 4)
    assert "differ" in refused(whole, "--against", below) or "voxels" in refused(
        whole, "--against", below
    )
    assert not list(Path(tmp_path).glob("*.svg"))
