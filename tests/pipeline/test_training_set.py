"""What a review leaves to learn from, read by others and by the trainer."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import read_image
from anystar_batch.archive.label_image import label_spec
from anystar_batch.measure.partial_truth import BACKGROUND
from anystar_batch.pipeline.review import ReviewConfig, take_answers, write_page
from tests.pipeline.test_review import answer
from tests.support import tiny_volume
from tests.support.fakes import make_model
from trainer.finetune.config import FinetuneConfig, Labelled
from trainer.finetune.labelled import open_volumes

KINDS = ["right", "right", "outline", "right", "false"]


def reviewed(folder, *kinds, missed=(), **more):
    """An image, its label, and what a review of it leaves; answers by label."""
    image = tiny_volume.small_image(folder / "a.ome.zarr", **more)
    tiny_volume.segment(image, run={"report": False})
    said = answer(write_page(ReviewConfig(image)).page, folder / "said.json", *kinds, missed=missed)
    document = take_answers(ReviewConfig(image), str(said))
    answers = {one["label"]: one for one in json.loads(said.read_text())["answers"]}
    labels = zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...]
    return image, labels, document["training_set"], answers


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_right_ones_are_there_wrong_and_unseen_places_are_not_known(tmp_path, version):
    _, labels, made, answers = reviewed(tmp_path, *KINDS, version=version)
    known = zarr.open_array(f"{made['path']}/0", mode="r")[...]
    right = {label for label, one in answers.items() if one["answer"] == "right"}
    assert set(np.unique(known)) == {0, BACKGROUND, *right}
    for label in range(1, 6):
        inside = known[labels == label]
        assert (inside == (label if label in right else 0)).all()
    beside = known == BACKGROUND
    assert beside.any()
    assert not labels[beside].any()
    source = read_image(made["path"])
    assert source.shape_zyx(0) == labels.shape
    assert len(source.levels) == 1


def test_units_of_any_size_hold_the_same_voxels(tmp_path, monkeypatch):
    def known(folder, edge):
        monkeypatch.setattr("anystar_batch.archive.label_image.MIN_CHUNK", edge)
        folder.mkdir()
        image, _, made, _ = reviewed(folder, *KINDS, missed=[1], chunks=(8, 8, 8))
        spec = label_spec(read_image(image))
        assert spec.write_unit_zyx(0) == (min(edge, 20), min(edge, 40), min(edge, 44))
        return zarr.open_array(f"{made['path']}/0", mode="r")[...]

    small, large = known(tmp_path / "a", 8), known(tmp_path / "b", 64)
    assert np.array_equal(small, large)


def test_only_what_is_known_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr("anystar_batch.archive.label_image.MIN_CHUNK", 8)
    _, _, made, _ = reviewed(tmp_path, "right", chunks=(8, 8, 8))
    known = zarr.open_array(f"{made['path']}/0", mode="r")
    assert 0 < known.nchunks_initialized < known.nchunks / 2


def test_nothing_right_leaves_nothing_and_one_is_too_few(tmp_path, command):
    *_, made, _ = reviewed(tmp_path, "false", "split")
    assert made is None
    assert not list(tmp_path.glob("*reviewed*"))
    said = answer(tmp_path / "a.anystar.review.html", tmp_path / "one.json", "right", "split")
    done = command("review", tmp_path / "a.ome.zarr", "--answers", said, "-q")
    assert "1 right instances" in done.stdout
    assert "fewer than two at any one time" in done.stdout


def test_another_review_replaces_it_and_nothing_else_is_replaced(tmp_path, command):
    image, _, made, _ = reviewed(tmp_path, "right", "right")
    said = answer(tmp_path / "a.anystar.review.html", tmp_path / "b.json", *["right"] * 5)
    take_answers(ReviewConfig(image), str(said))
    assert len(np.unique(zarr.open_array(f"{made['path']}/0", mode="r")[...])) == 7
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    tiny_volume.edit_json(
        Path(made["path"], "zarr.json"), lambda d: d["attributes"].pop("anystar-batch")
    )
    done = command("review", image, "--answers", said, "-q")
    assert done.exit_code == 2
    assert "exists already and is no training set of a review; move it away" in done.stderr


def test_a_series_names_the_times_that_can_be_learnt_from(tmp_path):
    image = tiny_volume.small_series(tmp_path / "a.ome.zarr")
    tiny_volume.segment(image, channel="1", factory=tiny_volume.Spheres(), run={"report": False})
    page = write_page(ReviewConfig(image)).page
    items = json.loads(Path(page).read_text().split('id="data">')[1].split("</script>")[0])["items"]
    times = [int(item["said"].partition("time ")[2].partition(",")[0]) for item in items]
    kinds = ["right" if t != 1 else "merged" for t in times]
    said = answer(page, tmp_path / "said.json", *kinds)
    made = take_answers(ReviewConfig(image), str(said))["training_set"]
    assert made["times"] == (0, 2)
    assert "--channel 1 --time 0 2 -o" in made["command"]
    known = zarr.open_array(f"{made['path']}/0", mode="r")[...]
    assert known[0].any()
    assert not known[1].any()
    labels = zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...]
    is_object = (known != 0) & (known != BACKGROUND)
    assert np.array_equal(known[is_object], labels[is_object])
    right = {item["label"] for item, kind in zip(items, kinds, strict=True) if kind == "right"}
    assert set(np.unique(known[is_object])) == right


def test_the_trainer_sees_right_ones_background_and_what_is_not_known(tmp_path):
    image, labels, made, answers = reviewed(tmp_path, *KINDS)
    config = FinetuneConfig((Labelled(image, made["path"]),), diameter=6.0, held_out=0.0)
    (volume,) = open_volumes(config.images[0], config, make_model(diameter=12.0))
    assert volume.background == BACKGROUND
    right = sorted(label for label, one in answers.items() if one["answer"] == "right")
    sizes = np.bincount(labels.ravel())
    assert volume.objects.voxels.tolist() == [int(sizes[label]) for label in right]
    assert volume.working.zoom == (1.0, 1.0, 1.0)
    seen = volume.read_labels(volume.parts()[0])
    known = zarr.open_array(f"{made['path']}/0", mode="r")[...]
    expected = np.where(known == 0, -1, np.where(known == BACKGROUND, 0, known.astype(np.int64)))
    assert np.array_equal(seen, expected)
