from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import ndimage

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig
from anystar_batch.errors import ConfigError, ImageError, ModelError, OutputExistsError
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.network.model import load_model
from anystar_batch.network.unet import build
from anystar_batch.network.weights import save_weights
from anystar_batch.stages.preprocess import tile_image
from anystar_batch.stars.polyhedra import IDENTITY
from tests.stages.test_plan import plan_of
from tests.support.fakes import make_model
from trainer.__main__ import main
from trainer.commands import add_commands
from trainer.export import stardist_config
from trainer.finetune import config as finetune_config
from trainer.finetune import finetune as trainer_finetune_finetune
from trainer.finetune import labelled as module
from trainer.finetune import labelled as opening
from trainer.finetune.config import FinetuneConfig, Labelled
from trainer.finetune.labelled import held_out_truths, measure, open_volumes, split
from trainer.finetune.patches import LabelledSource, _partial_targets
from trainer.score import Prediction, tally
from trainer.synthesis.phantom import Phantom
from trainer.synthesis.phantom_zarr import write
from trainer.volumes import Truth

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (36, 44, 80)
MODEL = make_model(diameter=8.0)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom") / "p.ome.zarr"
    made = Phantom(SHAPE, 5.0, "dense", 3)
    write(made, path, 32)
    return path, made


@pytest.fixture
def volume(phantom):
    path, _ = phantom
    config = FinetuneConfig((Labelled(str(path), None),), diameter=8.0)
    (found,) = open_volumes(config.images[0], config, MODEL)
    return found


def source(tiny, volume, synthetic=0.0):
    return LabelledSource(tiny, (volume,), synthetic)


def test_objects_are_measured_chunk_by_chunk(phantom):
    path, made = phantom
    labels = made.labels(Box.of_shape(SHAPE))
    found = measure(read_image(str(path / "labels" / "truth")), 0)
    names = np.unique(labels)[1:]
    assert found.voxels.tolist() == np.bincount(labels.ravel())[names].tolist()
    where = np.argwhere(labels == names[7])
    np.testing.assert_allclose(found.centroid[7], where.mean(axis=0))
    median = np.median(found.voxels)
    assert found.diameter((2.0, 1.0, 1.0)) == pytest.approx(np.cbrt(12 * median / np.pi))
    spread = np.sqrt(where.var(axis=0) + 1 / 12)
    np.testing.assert_allclose(found.spread[7], spread)
    assert found.elongation((1.0, 1.0, 1.0)) == 1.0
    assert found.elongation((1.5, 1.0, 1.0)) == pytest.approx(1.5, rel=0.05)
    assert found.elongation((3.0, 1.0, 1.0)) == 2.0, "no more"
    without = measure(read_image(str(path / "labels" / "truth")), 0, int(names[7]))
    assert len(without.voxels) == len(found.voxels) - 1


def test_at_the_images_own_size_windows_are_what_is_stored(phantom, volume):
    _, made = phantom
    image, labels = made.both(Box.of_shape(SHAPE))
    assert volume.working.zoom == (1.0, 1.0, 1.0)
    box = Box((3, 5, 7), (20, 22, 24))
    np.testing.assert_array_equal(volume.read_labels(box), labels[box.slices])
    low, high = volume.limits
    np.testing.assert_allclose(
        volume.read_image(box), np.clip((image[box.slices] - low) / (high - low), 0, 1), atol=1e-6
    )


def test_objects_longer_along_z_are_learnt_as_the_command_sees_them(phantom, tmp_path):
    path = shutil.copytree(phantom[0], tmp_path / "long.ome.zarr")
    for node in (path, path / "labels" / "truth"):
        document = json.loads((node / "zarr.json").read_text())
        (scaled, *_) = document["attributes"]["ome"]["multiscales"][0]["datasets"]
        scaled["coordinateTransformations"][0]["scale"][-3] *= 1.6
        (node / "zarr.json").write_text(json.dumps(document))
    config = FinetuneConfig((Labelled(str(path), None),), diameter=8.0)
    (volume,) = open_volumes(config.images[0], config, MODEL)
    z, y, x = volume.working.voxel_um
    assert z / y == pytest.approx(1.6, rel=0.1)
    assert x == y
    sized = ResultConfig(elongation=volume.objects.elongation(volume.image.scale_um(0)))
    assert volume.working == plan_of(path, diameter_um=8.0, model=MODEL, config=sized).working


@pytest.mark.parametrize("diameter", [8.0, 5.3, 17.0])
def test_the_trainer_sees_the_bits_that_the_command_sees(phantom, diameter):
    path, _ = phantom
    plan = plan_of(path, diameter_um=diameter, model=MODEL)
    config = FinetuneConfig((Labelled(str(path), None),), diameter=diameter)
    (volume,) = open_volumes(config.images[0], config, MODEL)
    assert volume.working == plan.working
    reader = ImageReader(plan.source)
    for tile in iter_grid(plan.tiles.counts):
        seen = volume.read_image(plan.tiles.window_box(tile))
        assert seen.tobytes() == tile_image(plan, reader, 0, tile).tobytes()


def test_image_and_labels_stay_together_when_resampled(phantom, volume, monkeypatch):
    thirds = volume.zoomed(3.0).read_labels(Box((0, 0, 0), (12, 14, 26)))
    labels = phantom[1].labels(Box.of_shape(SHAPE))
    np.testing.assert_array_equal(thirds, labels[1::3, 1::3, 1::3][:12, :14, :26])
    for factor in (0.7, 1.6):
        zoomed = volume.zoomed(factor)
        box = Box((2, 2, 2), tuple(int(n / factor) - 2 for n in (30, 40, 70)))
        image, labels = zoomed.read_image(box), zoomed.read_labels(box)
        aligned = np.corrcoef(image.ravel(), (labels > 0).ravel())[0, 1]
        for axis in range(3):
            for shift in (-2, 2):
                moved = np.roll(labels > 0, shift, axis)
                assert np.corrcoef(image.ravel(), moved.ravel())[0, 1] < aligned - 0.02
        # Planes read a few at a time are the same planes.
        monkeypatch.setattr("trainer.finetune.labelled.MOST_READ", 5000)
        np.testing.assert_array_equal(zoomed.read_labels(box), labels)
        monkeypatch.undo()


# The second part to learn from is thinner than a patch, which then shows what is held out.
@pytest.mark.parametrize("cut", [64, 12])
def test_what_is_held_out_is_never_learnt(tiny, volume, cut):
    volume = dataclasses.replace(volume, cut=(2, float(cut)))
    learnt, held = volume.parts()
    assert (learnt.stop[2], held.start[2], held.stop) == (cut, cut, SHAPE)
    # What the labels say beyond the cut changes no target.
    config = dataclasses.replace(tiny, batch=12)
    batches = source(config, volume)
    normal = batches.batch(0)

    class Other:
        def __init__(self, reader):
            self.reader = reader
            self.source = reader.source

        def read_box(self, level, t, c, box):
            values = self.reader.read_box(level, t, c, box).copy()
            beyond = np.arange(box.start[2], box.stop[2]) > cut + 0.5
            values[..., beyond] = 7 if values.dtype == np.uint32 else 0
            return values

    from trainer.finetune import labelled

    real = labelled._reader
    labelled._reader = lambda s: Other(real(s))
    try:
        blind = batches.batch(0)
    finally:
        labelled._reader = real
    np.testing.assert_array_equal(blind.prob, normal.prob)
    np.testing.assert_array_equal(blind.dist, normal.dist)


def test_a_batch_is_a_function_of_its_number_and_travels(tiny, volume):
    batches = source(tiny, volume, 0.5)
    again = pickle.loads(pickle.dumps(batches))
    for index in (0, 5):
        a, b = batches.batch(index), again.batch(index)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.prob, b.prob)
        np.testing.assert_array_equal(a.dist, b.dist)
    assert a.image.shape == (2, 16, 16, 16, 1)
    assert a.prob.shape == (2, 8, 8, 8, 1)
    assert a.dist.shape == (2, 8, 8, 8, 17)
    assert (a.dist.dtype, a.image.dtype) == (np.float16, np.float32)
    assert 0.0 <= a.image.min() <= a.image.max() <= 1.0


def test_the_share_of_synthetic_samples_is_kept(tiny, volume, monkeypatch):
    from trainer.finetune import patches
    from trainer.synthesis import sample

    made = []
    real = sample.make_sample
    monkeypatch.setattr(patches, "make_sample", lambda *a: made.append(a) or real(*a))
    for index in range(20):
        source(tiny, volume, 0.3).batch(index)
    assert 5 <= len(made) <= 19


def test_what_is_ignored_is_unknown(tiny, volume):
    batches = source(tiny, volume)
    image, labels, learnt = batches.patch(3)
    assert learnt.any()
    assert image.shape == labels.shape == (16, 16, 16)
    # The object with the most voxels in the middle of the patch.
    names = [np.bincount(labels[4:12, 4:12, 4:12][learnt[4:12, 4:12, 4:12]])[1:].argmax() + 1]
    prob, _ = module_targets(labels, learnt)
    assert (prob[learnt[::2, ::2, ::2]] >= 0).all()
    hidden = np.where(labels == names[0], -1, labels)
    prob, _ = module_targets(hidden, learnt)
    at = learnt[::2, ::2, ::2] & (labels == names[0])[::2, ::2, ::2]
    assert at.any()
    assert (prob[at] == -1).all()
    ignoring = dataclasses.replace(volume, ignore=int(names[0]))
    assert not (source(tiny, ignoring).patch(3)[1] == names[0]).any()


@pytest.fixture(scope="module")
def partial(phantom, tmp_path_factory):
    """The phantom with some objects known and their surroundings, as a review leaves it."""
    path = tmp_path_factory.mktemp("partial") / "p.ome.zarr"
    shutil.copytree(phantom[0], path)
    array = zarr.open_array(f"{path}/labels/truth/0", mode="r+")
    labels = array[...]
    names = np.unique(labels)[1:]
    known = np.zeros_like(labels)
    for name in names[::5]:
        grown = ndimage.binary_dilation(labels == name, iterations=2)
        known[grown & (labels == 0)] = 4_000_000_000
    kept = np.isin(labels, names[::5])
    known[kept] = labels[kept]
    array[...] = known
    return path, labels, known


@pytest.mark.parametrize("says", ["the labels", "an option"])
def test_with_a_label_for_background_nothing_is_known_of_the_rest(partial, tiny, says):
    path, labels, known = partial
    own = {"anystar-batch": {"background": 4_000_000_000}} if says == "the labels" else {}
    zarr.open_group(f"{path}/labels/truth", mode="r+").attrs.update({"anystar-batch": {}, **own})
    option = None if says == "the labels" else 4_000_000_000
    config = FinetuneConfig((Labelled(str(path), None),), diameter=8.0, background=option)
    (volume,) = open_volumes(config.images[0], config, MODEL)
    names = np.unique(labels[known == labels])[1:]
    assert volume.objects.voxels.tolist() == np.bincount(labels.ravel())[names].tolist()
    seen = volume.read_labels(Box.of_shape(SHAPE))
    assert (seen[known == 0] == -1).all()
    assert (seen[known == 4_000_000_000] == 0).all()
    is_object = np.isin(known, names)
    np.testing.assert_array_equal(seen[is_object], labels[is_object])
    # Every patch: what is not known has no target, objects and background have theirs.
    for n in range(6):
        _, patch, learnt = source(tiny, volume).patch(n)
        prob, _ = module_targets(patch, learnt)
        at, inside = patch[::2, ::2, ::2], learnt[::2, ::2, ::2]
        assert (prob[inside & (at == -1)] == -1).all()
        assert (prob[inside & (at == 0)] == 0).all()
        assert (prob[inside & (at > 0)] > 0).all()


def test_of_labels_known_in_part_surroundings_of_objects_are_held_out(partial, monkeypatch):
    path, *_ = partial
    options = {"diameter": 8.0, "background": 4_000_000_000, "held_out": 0.5}
    config = FinetuneConfig((Labelled(str(path), None),), **options)
    (volume,) = open_volumes(config.images[0], config, MODEL)
    monkeypatch.setattr(opening, "HELD_OUT", 16)
    truths = held_out_truths(volume)
    assert len(truths) == len(volume.inside(volume.parts()[1])) > 2
    for truth in truths:
        assert truth.labels.any()
        assert truth.unknown.any()
        assert not truth.labels[truth.unknown].any()
    monkeypatch.setattr(opening, "MOST_BOXES", 2)
    assert len(held_out_truths(volume)) == 2


def test_what_is_found_where_nothing_is_known_is_neither_right_nor_wrong(volume):
    rng = np.random.default_rng(0)
    labels = np.zeros((24, 24, 24), np.int32)
    labels[4:12, 4:12, 4:12] = 1
    unknown = np.zeros(labels.shape, bool)
    unknown[:, :, 14:] = True
    # One object is found where it is, one in the middle of the unknown, one in known background.
    prob = np.full((12, 12, 12), 0.01, np.float32)
    dist = np.full((12, 12, 12, 96), 4.0, np.float32) + rng.random((12, 12, 12, 96)) * 0.01
    for point in ((4, 4, 4), (4, 4, 9), (9, 9, 4)):
        prob[point] = 0.9
    image = np.zeros(labels.shape, np.float32)

    def counted(unknown):
        truth = Truth("t", image, labels, unknown=unknown)
        one = Prediction(truth, prob, dist.astype(np.float32), IDENTITY, (2, 2, 2))
        found = tally([one], (0.5, 0.3))
        return found.tp[0], found.fp[0], found.fn[0]

    assert counted(None) == (1, 2, 0)
    assert counted(unknown) == (1, 1, 0)
    ignoring = dataclasses.replace(volume, ignore=int(np.unique(volume.read_labels(
        volume.parts()[1]))[-1]))  # fmt: skip
    (truth,) = held_out_truths(ignoring)
    assert truth.unknown.any()


@pytest.mark.network
def test_labels_known_in_part_leave_the_thresholds(partial, base, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_config, "PATCH", 16)
    path, new = partial[0], tmp_path / "mine"
    options = ["--from", str(base), "-o", str(new), "--steps", "2", "--minutes", "0"]
    options += ["--background", "4000000000"]
    assert main(["finetune", str(path), *options, "--rate", "1e-3"]) == 0
    found, before = load_model(str(new)), load_model(str(base))
    assert (found.prob_thresh, found.nms_thresh) == (before.prob_thresh, before.nms_thresh)
    document = json.loads((new / "provenance.json").read_text())["finetuning"]
    assert document["config"]["background"] == 4_000_000_000


def module_targets(labels, learnt):
    return _partial_targets(labels, learnt, (2, 2, 2), 16)


def test_beyond_the_learnt_box_nothing_is_known():
    labels = np.zeros((16, 16, 16), np.int64)
    labels[4:12, 4:12, 2:14] = 5
    learnt = np.zeros(labels.shape, bool)
    learnt[:, :, 3:9] = True
    prob, dist = module_targets(labels, learnt)
    assert (prob[:, :, :2] == -1).all()
    assert (prob[:, :, 5:] == -1).all()
    assert (prob[:, :, 2:4] >= 0).all()
    # The object goes on: rays across the cut are lower bounds, as at the border of a sample.
    assert (dist[3:5, 3:5, 2:4] < 0).any()


@pytest.fixture
def base(tiny, tmp_path):
    """A model folder of a network that knows nothing."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(stardist_config(tiny)))
    save_weights(build(tiny.network), folder / "weights_best.h5")
    (folder / "provenance.json").write_text(json.dumps({"diameter": 8.0, "tile": 16}))
    return folder


@pytest.mark.network
def test_a_finetuned_model_loads_and_says_where_it_comes_from(
    phantom, base, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(finetune_config, "PATCH", 16)
    image, new = str(phantom[0]), tmp_path / "mine"
    options = ["--from", str(base), "-o", str(new), "--steps", "2", "--minutes", "0"]
    assert main(["finetune", image, *options, "--rate", "1e-3"]) == 0
    assert capsys.readouterr().out.strip() == str(new)
    model = load_model(str(new))
    assert (model.name, model.diameter, model.tile) == ("mine", 8.0, 16)
    document = json.loads((new / "provenance.json").read_text())
    origin = document["finetuning"]
    assert origin["zero_shot"] is False
    assert origin["made_from"]["sha256"] == load_model(str(base)).sha256
    assert set(origin["held_out_scores"]) == {"before_own_thresholds", "before", "after"}
    assert image not in json.dumps(document)
    assert model.sha256 != load_model(str(base)).sha256
    assert main(["finetune", image, *options]) == 2
    assert "expected a new folder" in capsys.readouterr().err
    shutil.rmtree(new)
    assert main(["finetune", image, *options, "--synthetic", "0"]) == 2
    assert "holds a run on other images" in capsys.readouterr().err


@pytest.mark.network
def test_points_that_are_not_known_are_not_in_the_loss():
    from trainer.loss import prob_loss

    truth = np.array([0.0, 1.0, -1.0, 0.5], np.float32).reshape(1, 1, 1, 4, 1)
    answer = np.array([0.2, 0.7, 0.99, 0.4], np.float32).reshape(truth.shape)
    other = answer.copy()
    other[..., 2, :] = 0.01
    assert float(prob_loss(truth, answer)) == float(prob_loss(truth, other))
    each = [-np.log(0.8), -np.log(0.7), -0.5 * np.log(0.4) - 0.5 * np.log(0.6)]
    assert float(prob_loss(truth, answer)) == pytest.approx(sum(each) / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ()}, "got no image"),
        ({"synthetic": 1.0}, "below 1"),
        ({"held_out": 0.6}, "expected 0 to 0.5"),
        ({"diameter": 0.0}, "expected more than 0"),
        ({"ignore": 0}, "which is the background"),
        ({"background": 0}, "--background: got 0"),
        ({"background": 5, "ignore": 5}, "another label than --ignore"),
        ({"rate": 0.0}, "--rate"),
    ],
)
def test_options_that_cannot_be_used_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(**{"images": (Labelled("a", None),), **change})


def opened(phantom, **more):
    config = FinetuneConfig((Labelled(str(phantom), more.pop("labels", None)),), **more)
    return open_volumes(config.images[0], config, MODEL)


def test_images_and_labels_that_do_not_fit_are_named(phantom, tmp_path):
    path, _ = phantom
    with pytest.raises(ConfigError, match=r"--label: got 'mine'.*has the labels truth"):
        opened(path, label="mine")
    with pytest.raises(ConfigError, match="--time: got 4"):
        opened(path, times=(4,))
    with pytest.raises(ConfigError, match="--channel: got 'dapi'"):
        opened(path, channel="dapi")
    other = tmp_path / "other.ome.zarr"
    write(Phantom((20, 20, 20), 4.0), other, 32)
    with pytest.raises(ImageError, match="expected the same at level 0"):
        opened(path, labels=str(other / "labels" / "truth"))
    shutil.rmtree(other / "labels")
    with pytest.raises(ConfigError, match=r"0 labels \(none\); expected one"):
        opened(other)
    mask = tmp_path / "mask.ome.zarr"
    shutil.copytree(path, mask)
    shutil.rmtree(mask / "labels" / "truth" / "0" / "c")
    with pytest.raises(ImageError, match=r"0 labelled objects.*two or more"):
        opened(mask)
    # A pair takes the labels from elsewhere.
    (volume,) = opened(mask, labels=str(path / "labels" / "truth"))
    assert len(volume.objects.voxels) > 50


def test_labels_that_are_no_whole_numbers_are_refused(phantom):
    labels = read_image(str(phantom[0]))
    level = dataclasses.replace(labels.levels[0], dtype="float32")
    with pytest.raises(ImageError, match="expected whole numbers"):
        measure(dataclasses.replace(labels, levels=(level,)), 0)


def test_a_large_held_out_part_is_cut_and_an_empty_one_is_none(volume, monkeypatch):
    (truth,) = held_out_truths(volume)
    at = 80 - truth.image.shape[2]
    assert truth.image.shape == truth.labels.shape == (36, 44, 80 - at)
    assert at == pytest.approx(np.quantile(volume.objects.centroid[:, 2], 0.8), abs=0.6)
    assert truth.labels.max() > 5
    monkeypatch.setattr(opening, "MOST_HELD_OUT", 12)
    assert held_out_truths(volume)[0].image.shape == (12, 12, 12)
    assert held_out_truths(dataclasses.replace(volume, cut=(2, 80.0))) == []


def test_a_share_of_the_objects_is_held_out_wherever_they_are(volume):
    objects = volume.objects
    corner = dataclasses.replace(objects, centroid=objects.centroid * (0.2, 0.3, 0.1))
    axis, at = split(corner, volume.image, 0.25)
    assert axis == 1
    assert np.mean(corner.centroid[:, 1] >= at) == pytest.approx(0.25, abs=0.02)
    assert split(corner, volume.image, 0.0) == (1, float(SHAPE[1]))


def test_rays_that_targets_are_not_made_for_are_refused():
    trainer_finetune_finetune.check_rays(MODEL)
    rays = '{"name": "Rays_Octo", "kwargs": {}}'
    with pytest.raises(ModelError, match="expected Rays_GoldenSpiral"):
        trainer_finetune_finetune.check_rays(dataclasses.replace(MODEL, rays_json=rays))


def test_an_image_without_objects_to_learn_from_is_refused(phantom, base, tmp_path, monkeypatch):
    monkeypatch.setattr(module.LabelledVolume, "inside", lambda *_: np.array([], int))
    config = FinetuneConfig((Labelled(str(phantom[0]), None),), str(base))
    with pytest.raises(ImageError, match="no labelled object in the part to learn from"):
        trainer_finetune_finetune.finetune(config, tmp_path / "new")
    (tmp_path / "new").mkdir()
    with pytest.raises(OutputExistsError):
        trainer_finetune_finetune.finetune(config, tmp_path / "new")


def test_every_command_is_listed():
    import argparse

    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    add_commands(commands)
    assert set(commands.choices) == {"test", "finetune", "phantom", "refine", "resize"}
    assert Path("x") == parser.parse_args(["finetune", "a", "-o", "x"]).output
