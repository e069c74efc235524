"""The command `evaluate`: what a path may name, what is refused, the same score from any boxes."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from anystar_batch import cli
from anystar_batch.errors import ConfigError
from anystar_batch.events import BlockDone, Note, StageDone, StageStarted
from anystar_batch.measure.matching import IOUS, scores
from anystar_batch.measure.overlaps import match, pool
from anystar_batch.pipeline import evaluate
from anystar_batch.pipeline.evaluate import EvaluateConfig
from tests.support.dense_labels import cells
from tests.support.fakes import write_image

SHAPE = (20, 31, 37)
CHUNKS = (8, 16, 16)
UM = (2.0, 0.5, 0.5)


def volumes(seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    truth = cells(rng, shape, 60, 5.0)
    near, far = np.roll(truth, 1, 2), np.roll(truth, 4, 1)
    found = np.where(rng.random(shape) < 0.15, far, np.where(truth % 3 > 0, near, far))
    return found.astype(np.uint32), truth.astype(np.uint16)


def write_label(image, name, data, **more):
    """A label below an image, listed and marked as one."""
    version = more.setdefault("version", "0.5")
    mark = {"image-label": {"version": version, "source": {"image": "../../"}}}
    path = write_image(Path(image, "labels", name), [data], **{"chunks": CHUNKS} | more)
    group = zarr.open_group(path, mode="r+")
    ome = {"ome": {**group.attrs["ome"], **mark}} if version == "0.5" else mark
    group.attrs.update(ome)
    folder = zarr.open_group(
        str(Path(image, "labels")), mode="a", zarr_format=group.metadata.zarr_format
    )
    listed = {"labels": sorted(folder.group_keys())}
    folder.attrs.update({"ome": {"version": "0.5", **listed}} if version == "0.5" else listed)
    return path


def run(*arguments):
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])


def document(*arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def refused(done, *words):
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 2, (done.stderr, done.exception)
    assert len(errors) == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """LABELS (0.5, sharded) and TRUTH (0.4, other chunks) of one crowded volume."""
    folder = tmp_path_factory.mktemp("both")
    labels, truth = volumes()
    return (
        write_image(folder / "a.zarr", [labels], chunks=CHUNKS, shards=(16, 32, 32), scale=UM),
        write_image(folder / "b.zarr", [truth], chunks=(20, 7, 11), scale=UM, version="0.4"),
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 40, 17), (16, 16, 999), None])
def test_any_block_shape_gives_the_same_bytes(both, shape):
    options = [] if shape is None else ["--block-shape", *shape]
    whole = run(*both, "--json", "--block-shape", *SHAPE)
    blocks = run(*both, "--json", *options)
    assert blocks.stdout == whole.stdout
    assert json.loads(whole.stdout)["scores"][0]["tp"] > 20


def test_a_box_is_whole_chunks_of_labels_and_boxes_tile_the_volume(both):
    events = []
    evaluate.evaluate(EvaluateConfig(*both, block_shape=(1, 1, 1)), events.append)
    done = [e.block for e in events if isinstance(e, BlockDone)]
    assert len(set(done)) == len(done) == 3 * 2 * 3
    assert events[0] == StageStarted("compare", 18)
    assert isinstance(events[-1], StageDone)


def test_the_document_holds_what_the_arrays_say(both):
    labels, truth = volumes()
    expected = scores(match(truth, labels))
    found = document(*both)
    assert (found["labels"], found["truth"]) == both
    n_true, n_found = len(np.unique(truth)) - 1, len(np.unique(labels)) - 1
    assert (found["true"], found["found"]) == (n_true, n_found)
    assert found["count_error"] == n_found - n_true
    assert found["count_error_relative"] == (n_found - n_true) / n_true
    assert [s["iou"] for s in found["scores"]] == list(IOUS)
    assert found["scores"] == [s.to_json() for s in expected]
    assert found["level"] == 0
    assert found["shape"] == list(SHAPE)
    assert found["times"] == [0]
    assert found["voxel_um"] == list(UM)
    assert found["warnings"] == []
    sizes = np.bincount(truth.ravel())[1:]
    volume = np.median(sizes[sizes > 0])
    assert found["median_diameter_voxels"]["true"] == pytest.approx((6 * volume / np.pi) ** (1 / 3))
    in_um = (6 * volume * 0.5 / np.pi) ** (1 / 3)
    assert found["median_diameter_um"]["true"] == pytest.approx(in_um)
    for ratio, score in zip(found["volume_ratio"], (expected[0], expected[4]), strict=True):
        assert ratio["iou"] == score.iou
        assert ratio["pairs"] == score.tp > 0
        assert ratio["median"] == pytest.approx(np.median(score.volume_ratios))
        assert ratio["mean"] == pytest.approx(np.mean(score.volume_ratios))


def test_the_text_holds_the_same_numbers(both):
    found = document(*both)
    done = run(*both)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert f"{found['found']} objects" in lines[0]
    assert f"{found['true']} objects" in lines[1]
    assert f"{found['splits']} true objects split, {found['merges']} found" in lines[2]
    rows = [line.split() for line in lines[-9:]]
    for row, score in zip(rows, found["scores"], strict=True):
        assert row[:4] == [str(score[k]) for k in ("iou", "tp", "fp", "fn")]
        assert row[4:8] == [f"{score[k]:.3f}" for k in ("precision", "recall", "accuracy", "f1")]
        assert row[8] == f"{score['panoptic_quality']:.3f}"
    assert "comparing labels" in done.stderr
    assert run(*both, "-q").stderr == ""


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_every_path_that_names_the_labels_gives_the_same_scores(tmp_path, version):
    labels, truth = volumes()
    image = write_image(tmp_path / "i.zarr", [truth * 3.5], version=version, chunks=CHUNKS)
    label = write_label(image, "nuclei", labels, version=version)
    plain = write_image(tmp_path / "t.zarr", [truth], version=version, chunks=CHUNKS)
    bare = str(tmp_path / "bare")
    zarr.save_array(bare, truth, zarr_format=2 if version == "0.4" else 3)
    root = zarr.open_group(str(tmp_path / "series"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    write_image(tmp_path / "series" / "0", [truth], version="0.4")
    expected = [s.to_json() for s in scores(match(truth, labels))]
    found = document(label, plain)
    assert found["scores"] == expected
    assert found["labels"] == label
    for a, b, taken in (
        (image, plain, label),
        (f"file://{image}/", bare, label),
        (f"{label}/0", bare, f"{label}/0"),
        (label, tmp_path / "series", label),
    ):
        other = document(a, b)
        assert other["scores"] == expected
        assert other["labels"] == taken
    assert document(bare, bare)["voxel_um"] is None
    assert "voxels\n" in run(bare, bare).stdout
    assert document(image, bare)["voxel_um"] == [1.0, 1.0, 1.0]


def test_an_array_says_the_order_of_its_axes(tmp_path):
    labels, truth = volumes()
    zarr.create_array(str(tmp_path / "zyx"), data=labels)
    for names in ("xyz", "yzx"):
        turned = truth.transpose(["zyx".index(n) for n in names])
        zarr.create_array(str(tmp_path / names), data=turned, dimension_names=list(names))
        found = document(tmp_path / "zyx", tmp_path / names)
        assert found["scores"] == [s.to_json() for s in scores(match(truth, labels))]


def series(seed):
    frames = [volumes(seed + k) for k in range(3)]
    return [np.stack([f[side] for f in frames]) for side in (0, 1)]


def test_times_are_matched_one_by_one_and_pooled(tmp_path):
    labels, truth = series(0)
    a = write_image(tmp_path / "a.zarr", [labels], axes="tzyx", chunks=(1, *CHUNKS))
    b = write_image(tmp_path / "b.zarr", [truth], axes="tzyx", chunks=(2, *CHUNKS))
    tables = [match(truth[t], labels[t]) for t in range(3)]
    found = document(a, b)
    assert found["times"] == [0, 1, 2]
    assert found["scores"] == [s.to_json() for s in scores(pool(tables))]
    assert found["true"] == sum(len(t.true_objects().labels) for t in tables)
    assert "times   3, pooled" in run(a, b).stdout
    found = document(a, b, "--time", "0,2")
    assert found["scores"] == [s.to_json() for s in scores(pool(tables[::2]))]
    one = write_image(tmp_path / "one.zarr", [truth[2]], chunks=CHUNKS)
    for pair in ((a, one, "--time", 2), (a, b, "--time", 2)):
        assert document(*pair)["scores"] == [s.to_json() for s in scores(tables[2])]
    refused(run(a, one), "has 3 time point(s)", "a single --time of the other")
    refused(run(a, b, "--time", 3), "--time: got '3'; the image has times 0 to 2")


def test_channels(tmp_path):
    labels, truth = volumes()
    many = write_image(
        tmp_path / "m.zarr", [np.stack([truth, labels])], axes="czyx", chunks=(1, *CHUNKS)
    )
    b = write_image(tmp_path / "b.zarr", [truth[None]], axes="czyx", chunks=(1, *CHUNKS))
    expected = [s.to_json() for s in scores(match(truth, labels))]
    assert document(many, b, "--channel", 1)["scores"] == expected
    assert document(many, b, "--channel", 0)["scores"][8]["accuracy"] == 1.0
    refused(run(many, b), "--channel: ", "has channels 0 (0), 1 (1); give one of them")
    refused(run(many, b, "--channel", 2), "--channel: got '2'")
    refused(run(b, b, "--channel", "GFP"), "--channel: got 'GFP'")


def test_levels(tmp_path):
    labels, truth = volumes()
    small = [(v, v[:, ::2, ::2]) for v in (labels, truth)]
    a, b = (write_image(tmp_path / f"{k}.zarr", v) for k, v in enumerate(small))
    found = document(a, b, "--level", 1)
    expected = scores(match(truth[:, ::2, ::2], labels[:, ::2, ::2]))
    assert found["scores"] == [s.to_json() for s in expected]
    assert found["shape"] == [20, 16, 19]
    refused(run(a, b, "--level", 2), "--level: got 2", "has levels 0 to 1")
    refused(run(a, b, "--level", -1), "--level: got -1; expected 0")


def test_other_voxel_sizes_are_a_warning_in_words(both, tmp_path):
    _, truth = volumes()
    other = write_image(tmp_path / "o.zarr", [truth], chunks=CHUNKS, scale=(1.0, 0.5, 0.5))
    done = run(both[0], other, "--json", "-q")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert "2 x 0.5 x 0.5 um (z, y, x)" in found["warnings"][0]
    assert "1 x 0.5 x 0.5 um; voxels are compared one to one" in found["warnings"][0]
    assert done.stderr == f"warning: {found['warnings'][0]}\n"
    assert found["voxel_um"] == [1.0, 0.5, 0.5]
    rounded = write_image(tmp_path / "r.zarr", [truth], scale=(2.0001, 0.5, 0.5))
    assert document(both[0], rounded)["warnings"] == []
    events = []
    evaluate.evaluate(EvaluateConfig(both[0], other), events.append)
    assert [e.is_warning for e in events if isinstance(e, Note)] == [True]


def test_nothing_found_and_nothing_true(tmp_path):
    _, truth = volumes()
    a = write_image(tmp_path / "a.zarr", [truth])
    nothing = write_image(tmp_path / "n.zarr", [np.zeros_like(truth)])
    found = document(nothing, a)
    assert found["found"] == found["scores"][0]["tp"] == 0
    assert found["count_error_relative"] == -1.0
    assert found["volume_ratio"][0] == {"iou": 0.1, "pairs": 0, "median": None, "mean": None}
    assert found["median_diameter_um"]["found"] is None
    assert run(nothing, a).exit_code == 0
    found = document(nothing, nothing)
    assert found["count_error_relative"] is None
    assert "count   +0;" in run(nothing, nothing).stdout


def test_several_labels_are_named(tmp_path):
    labels, truth = volumes()
    image = write_image(tmp_path / "i.zarr", [truth * 2.5])
    for name in ("nuclei", "cells"):
        write_label(image, name, labels)
    refused(run(image, image), "has 2 labels: ", "nuclei", "cells", "give one, e.g.")


def test_what_is_no_label_volume(tmp_path, both):
    _, truth = volumes()
    floats = write_image(tmp_path / "f.zarr", [truth * 1.5])
    refused(run(floats, both[1]), "level 0 has the type float64; expected integer labels")
    mask = write_image(tmp_path / "m.zarr", [truth > 0])
    refused(run(both[0], mask), "level 0 has the type bool; expected integer labels")
    bare = str(tmp_path / "bare")
    zarr.save_array(bare, truth * 1.5)
    refused(run(bare, both[1]), "has the type float64")
    flat = str(tmp_path / "flat")
    zarr.save_array(flat, truth[0])
    refused(run(both[0], flat), "a Zarr array of shape (31, 37)", "expected axes z, y, x")
    named = str(tmp_path / "named")
    zarr.create_array(named, data=truth, dimension_names=["t", "y", "x"])
    refused(run(both[0], named), "(axes t, y, x)", "give the OME-Zarr group")
    empty = str(tmp_path / "empty")
    zarr.create_array(empty, shape=(0, 3, 3), dtype="u1")
    refused(run(both[0], empty), "the array is empty: its shape is (0, 3, 3)")
    negative = truth.astype(np.int32)
    negative[3, 20, 30] = -7
    bad = write_image(tmp_path / "n.zarr", [negative], chunks=CHUNKS)
    refused(run(both[0], bad), bad, "label -7 in Box(", "expected 0 (background) and above")
    refused(run(bad, both[1]), bad, "label -7")
    refused(run(both[0], tmp_path / "none"), "no such file or directory")
    root = zarr.open_group(str(tmp_path / "two"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for k in "01":
        write_image(tmp_path / "two" / k, [truth], version="0.4")
    refused(run(both[0], tmp_path / "two"), "a container of 2 images; give one")


def test_volumes_of_different_shapes(tmp_path, both):
    cut = write_image(tmp_path / "c.zarr", [volumes()[1][:-1]])
    refused(run(both[0], cut), "(20, 31, 37) voxels", "(19, 31, 37)", "resample or crop")


def test_a_block_shape_that_is_none(both):
    refused(run(*both, "--block-shape", 0, 1, 1), "--block-shape: got (0, 1, 1)")
    with pytest.raises(ConfigError, match="expected three positive numbers"):
        EvaluateConfig(*both, block_shape=(1, -1, 1))


def test_a_damaged_chunk_is_a_failure_that_names_it(tmp_path, both):
    labels, _ = volumes()
    path = write_image(tmp_path / "a.zarr", [labels], chunks=CHUNKS)
    chunk = Path(path, "0", "c", "1", "0", "0")
    chunk.write_bytes(chunk.read_bytes()[:20])
    done = run(path, both[1])
    assert done.exit_code == 1
    assert "the stored data cannot be read" in done.stderr
    assert done.stdout == ""
