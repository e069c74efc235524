from __future__ import annotations

import numpy as np
import pytest

from anystar_batch.errors import ConfigError
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.rays import golden_spiral
from trainer import volumes
from trainer.baseline import DEFAULTS, GRIDS, BlobLog, Otsu
from trainer.export import phantom
from trainer.matches import IOUS, Tally, match
from trainer.score import Prediction, instances, rescale, tally, tune, tune_stretch
from trainer.synthesis.config import SampleConfig
from trainer.synthesis.targets import targets
from trainer.volumes import Truth, synthetic

IDENTITY = LatticeMap((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def perfect(truth, grid=(2, 2, 2)):
    prob, dist = targets(truth.labels, golden_spiral(96), grid)
    return Prediction(truth, prob, np.abs(dist), IDENTITY, grid)


def test_true_targets_score_nearly_all():
    truths = synthetic(5, 4, SampleConfig.preset("as-mix"))
    accuracy = tally([perfect(t) for t in truths], (0.3, 0.3)).accuracy()
    assert accuracy[0] > 0.85
    assert accuracy[2] > 0.8


def test_matching_is_that_of_stardist():
    from stardist.matching import matching

    rng = np.random.default_rng(0)
    truth = np.kron(np.arange(216).reshape(6, 6, 6), np.ones((3, 3, 3), int))
    lost = rng.uniform(0.0, 0.8, 216)
    labels = np.where(rng.random(truth.shape) < lost[truth], 0, np.roll(truth, 1, 2) // 2)
    ours = match(truth, labels)
    for k, iou in enumerate(IOUS):
        theirs = matching(truth, labels, thresh=iou)
        if iou >= 0.5:
            assert (ours.tp[k], ours.fp[k], ours.fn[k]) == (theirs.tp, theirs.fp, theirs.fn)
        else:
            assert abs(ours.tp[k] - theirs.tp) <= 1
    strict = [matching(truth, labels, thresh=0.5 + 0.05 * k).accuracy for k in range(10)]
    assert strict[0] > strict[4] > 0.0
    assert ours.mean_accuracy() == pytest.approx(np.mean(strict), abs=1e-12)
    assert ours.precision() == ours.tp[0] / (ours.tp[0] + ours.fp[0])
    assert ours.recall() == ours.tp[0] / (ours.tp[0] + ours.fn[0])


def test_matching_without_objects_or_without_background():
    empty, full = np.zeros((3, 3, 3), int), np.ones((3, 3, 3), int)
    assert match(empty, empty) == Tally()
    assert match(full, full).accuracy() == (1.0,) * 4
    assert match(full, empty).fn == (1,) * 4
    assert match(empty, full).fp == (1,) * 4


def test_an_object_is_matched_once():
    truth = np.zeros((4, 4, 8), int)
    truth[1:3, 1:3] = 1
    halves = truth.copy()
    halves[..., 4:] *= 2
    for a, b in ((truth, halves), (halves, truth)):
        assert match(a, b).tp == (1, 1, 1, 0)


def test_tallies_add_up():
    total = Tally((1, 1, 1, 0), (0, 0, 0, 1), (2, 2, 2, 3), (1.0,)) + Tally(
        (3, 2, 1, 0), (0, 1, 2, 3), (0, 1, 2, 3), (0.5,)
    )
    assert total.accuracy() == (4 / 6, 3 / 7, 2 / 8, 0.0)
    assert total.f1()[0] == 8 / 10
    assert total.ratio == (1.0, 0.5)


@pytest.mark.parametrize("step", [(1.0, 1.0, 1.0), (0.5, 1.5, 2.0), (2.0, 0.7, 1.0)])
def test_rescaling_keeps_places(step):
    image, _ = phantom(11.0)
    working, lattice = rescale(image, step)
    ramp = np.indices(image.shape)[0].astype(np.float32)
    moved, _ = rescale(ramp, step)
    inner = np.arange(4, moved.shape[0] - 4)
    expected = inner * lattice.scale[0] + lattice.offset[0]
    np.testing.assert_allclose(moved[inner, 5, 5], expected, atol=0.02)
    assert working.shape == tuple(round(n / s) for n, s in zip(image.shape, step, strict=True))


def test_objects_near_the_border_are_not_dropped():
    labels = np.zeros((24, 24, 24), np.int32)
    labels[:8, 8:16, 8:16] = 1
    p = perfect(Truth("cut", labels, labels))
    found = instances(p.prob, p.dist, p.grid, (0.3, 0.3), ((24, 24, 24), IDENTITY))
    assert match(labels, found).tp[2] == 1


def test_tuning_finds_the_threshold_that_drops_false_objects():
    image, labels = phantom(11.0)
    p = perfect(Truth("phantom", image, labels))
    lowered = np.where(labels[::2, ::2, ::2] > 9, p.prob, p.prob * 0.6)
    truth = Truth("half", image, np.where(labels > 9, labels, 0))
    prob_thresh, nms_thresh = tune([Prediction(truth, lowered, p.dist, IDENTITY, p.grid)])
    assert 0.6 <= prob_thresh <= 0.85
    assert 0.2 <= nms_thresh <= 0.4


def test_distances_that_are_too_short_are_stretched():
    image, labels = phantom(11.0)
    short = perfect(Truth("phantom", image, labels)).stretched(0.76)
    assert 1.2 <= tune_stretch([short], (0.5, 0.3)) <= 1.3


def test_the_baseline_segments_the_phantom():
    image, labels = phantom(11.0)
    truth = Truth("phantom", image, labels, (0.5, 0.5, 0.5))
    assert match(labels, Otsu().segment(truth, None)).tp[2] == 27
    assert match(labels, Otsu().segment(truth, 9.0)).tp[2] == 27
    assert truth.diameter() == pytest.approx(5.5, rel=0.03)


def test_blobs_are_balls_of_the_right_size():
    image, labels = phantom(11.0)
    truth = Truth("phantom", image, labels, (0.5, 0.5, 0.5))
    found = match(labels, BlobLog(sigma=(2.5, 4.0)).segment(truth, None))
    assert found.tp[2] == 27
    assert found.fp[2] == 0
    assert np.median(found.ratio) == pytest.approx(1.0, abs=0.35)


def test_the_defaults_are_among_the_settings_tried():
    for name, method in DEFAULTS.items():
        assert method in GRIDS[name]


def test_without_the_data_folder_real_scores_are_refused(monkeypatch):
    monkeypatch.delenv("ANYSTAR_BATCH_DATA", raising=False)
    with pytest.raises(ConfigError, match="ANYSTAR_BATCH_DATA is unset"):
        volumes.bbbc050([1])


@pytest.mark.data
def test_real_volumes_are_read():
    try:
        volumes.data_folder()
    except ConfigError as error:
        pytest.skip(str(error))
    embryo = volumes.bbbc050([1], [401])[0]
    assert embryo.image.shape == embryo.labels.shape
    assert 8.0 < embryo.diameter() < 20.0  # micrometres
    assert len(volumes.tgmm()) == 5
    assert volumes.gonuclear()[0].labels.max() >= 54
