from __future__ import annotations

from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, SegmentConfig
from anystar_batch.errors import ConfigError
from anystar_batch.pipeline import prepare, texture
from anystar_batch.pipeline import probe as probing
from anystar_batch.pipeline.probe import (
    CONFIDENT,
    TRIALS,
    Population,
    Probe,
    probe_diameter,
)
from anystar_batch.report.probe_figure import HEIGHT, MARK, WIDTH, probe_svg
from anystar_batch.stages.sampling import all_limits
from tests.stages.test_plan import sparse_image
from tests.support.blobs import Blobs, soft_image
from tests.support.fakes import Ellipsoids, make_model, random_ellipsoids, write_image
from tests.support.law_phantom import law_refiner

MODEL = make_model(diameter=12.0, tile=32, context=16)


@dataclass(frozen=True)
class Blind:
    """Finds nothing."""

    def __call__(self, _model, _threads):
        return self

    def find(self, _image, _window, _core, _prob_thresh):
        return np.empty((0, 3), np.int32), np.empty(0, np.float32), np.empty((0, 96), np.float32)


def probe(path, factory=None, model=MODEL, config=None):
    config = ResultConfig() if config is None else config
    reader = ImageReader(read_image(str(path)))
    limits = all_limits(reader, model, 0, tuple(range(reader.source.num_times)))
    factory = Blobs((2, 2, 2), reach=24.0) if factory is None else factory
    return probe_diameter(reader, model, config, limits, factory, 1)


@dataclass(frozen=True)
class Listening:
    """Notes the thresholds that it is asked with."""

    heard: list = field(default_factory=list, compare=False)

    def __call__(self, _model, _threads):
        return self

    def find(self, _image, _window, _core, prob_thresh):
        self.heard.append(prob_thresh)
        return Blind().find(None, None, None, None)


def test_the_models_own_thresholds_count_whatever_the_run_asks_for(tmp_path):
    path = write_balls(tmp_path / "a.zarr", 8.0)
    network = Listening()
    probe(path, network, config=ResultConfig(prob_thresh=0.8, nms_thresh=0.6))
    assert set(network.heard) == {MODEL.prob_thresh}


@dataclass(frozen=True, eq=False)
class Places:
    """Notes where it is asked for points, and at which voxel: cores in voxels of level 0."""

    heard: list = field(default_factory=list, compare=False)

    def __call__(self, _model, _threads):
        return self

    def find(self, image, window, core, _prob_thresh):
        self.heard.append((core, image.shape))
        return Blind().find(None, None, None, None)


@pytest.mark.parametrize("tile", [None, 16])
def test_every_scale_looks_at_the_same_two_regions(tmp_path, monkeypatch, tile):
    monkeypatch.setattr(probing, "EDGE", 32)
    data = np.full((128, 128, 128), 10, np.uint16)
    rng = np.random.default_rng(0)
    starts = (64, 96, 0), (0, 32, 96)
    for start, spread in zip(starts, (90, 70), strict=True):
        at = tuple(slice(a + 4, a + 28) for a in start)
        data[at] += rng.integers(0, spread, (24, 24, 24)).astype(np.uint16)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(32, 32, 32))
    network = Places()
    found = probe(path, network, config=ResultConfig(tile=tile))
    assert len(network.heard) == 2 * len(found.trials)
    for k, trial in enumerate(found.trials):
        for (core, _), start in zip(network.heard[2 * k : 2 * k + 2], starts, strict=True):
            for a, b, want in zip(core.start, core.stop, start, strict=True):
                # The network's divisor is all by which they differ.
                assert a * trial.voxel_um == pytest.approx(want, abs=16)
                assert (b - a) * trial.voxel_um == pytest.approx(32, abs=16)
    # A large volume costs what its regions hold.
    most = max(np.prod(shape) for _, shape in network.heard)
    assert most <= (32 / TRIALS[0] + 2 * probing.CONTEXT + 16) ** 3


def write_balls(path, radius, voxel=(1.0, 1.0, 1.0), shape=(48, 96, 96), count=12):
    truth = random_ellipsoids(
        shape, count, 3, radius=(radius * 0.98, radius * 1.02), gap=3.0, scale=voxel
    )
    return write_image(path, [soft_image(truth, voxel)], chunks=(32, 32, 32), scale=voxel)


@pytest.mark.parametrize("radius", [4.0, 8.0, 15.0])
def test_the_diameter_is_measured_whatever_its_size(tmp_path, radius):
    path = write_balls(tmp_path / "a.ome.zarr", radius, shape=(64, 96, 96), count=8)
    found = probe(path)
    assert found.is_certain
    assert found.diameter_um == pytest.approx(2 * radius, rel=0.06)
    assert [t.voxel_um for t in found.trials] == pytest.approx(TRIALS)


def test_scales_vote_by_the_surface_of_what_they_find(tmp_path):
    path = write_balls(tmp_path / "a.ome.zarr", 6.0, shape=(32, 32, 32), count=3)
    model = make_model(diameter=12.0, tile=64, context=16)
    votes = {t.voxel_um: t.evidence for t in probe(path, Hesitant(0.9), model).trials if t.objects}
    surface = (4 / 3 * np.pi * 6.0**3) ** (2 / 3)
    # One tile shows the whole volume, in micrometres the same at every scale.
    assert list(votes) == [0.75, 1.06]
    for vote in votes.values():
        assert vote == pytest.approx(0.9 * 3 * surface / 32**3, rel=0.2)
    larger = write_balls(tmp_path / "b.ome.zarr", 12.0, (2.0, 2.0, 2.0), (32, 32, 32), 3)
    twice = {t.voxel_um: t.evidence for t in probe(larger, Hesitant(0.9), model).trials}
    for voxel, vote in votes.items():
        assert twice[2 * voxel] == pytest.approx(vote / 2, rel=0.01)


@dataclass(frozen=True)
class Hesitant:
    """Finds what `Blobs` finds, and is not sure of it."""

    prob: float

    def __call__(self, model, threads):
        return Unsure(Blobs((2, 2, 2), reach=24.0)(model, threads), self.prob)


@dataclass(frozen=True)
class Unsure:
    exact: object
    prob: float

    def find(self, image, window, core, prob_thresh):
        points, prob, dist = self.exact.find(image, window, core, prob_thresh)
        return points, prob * np.float32(self.prob / prob.max(initial=1e-6)), dist


def test_finds_that_are_not_certain_do_not_count(tmp_path):
    path = write_balls(tmp_path / "a.ome.zarr", 6.0)
    assert not probe(path, Hesitant(CONFIDENT - 0.01)).is_certain
    assert probe(path, Hesitant(CONFIDENT + 0.2)).is_certain


def test_the_picture_shows_every_scale_and_the_choice(tmp_path):
    found = probe(write_balls(tmp_path / "a.ome.zarr", 6.0))
    root = ElementTree.fromstring(probe_svg(found.to_json()))
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert f"Diameter {found.diameter_um:.3g} um" in texts
    marks = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(marks) == len(found.trials)
    chosen = [m for m in marks if m.get("fill") == MARK]
    assert len(chosen) == 1
    assert float(chosen[0].get("cy")) == min(float(m.get("cy")) for m in marks)
    for mark in marks:
        assert 0 < float(mark.get("cx")) < WIDTH
        assert 0 < float(mark.get("cy")) < HEIGHT


def test_a_probe_that_found_nothing_is_drawn_too(tmp_path):
    found = probe(write_balls(tmp_path / "a.ome.zarr", 6.0), Blind())
    root = ElementTree.fromstring(probe_svg(found.to_json()))
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum(text.endswith(": none") for text in texts) == len(TRIALS)


def test_the_diameter_is_in_micrometres_on_anisotropic_voxels_too(tmp_path):
    path = write_balls(tmp_path / "a.ome.zarr", 3.0, (1.0, 0.4, 0.4), (24, 96, 96))
    found = probe(path)
    assert found.diameter_um == pytest.approx(6.0, rel=0.1)
    halved = probe(path, config=ResultConfig(voxel_size=(0.5, 0.2, 0.2)))
    assert halved.diameter_um == pytest.approx(found.diameter_um / 2)


def write_long(path, longer, count=12):
    """Balls in voxels, which are so many times as long along z as across."""
    truth = random_ellipsoids((48, 96, 96), count, 3, radius=(5.9, 6.1), gap=3.0)
    image = soft_image(truth, (1.0, 1.0, 1.0))
    return write_image(path, [image], chunks=(32, 32, 32), scale=(longer, 1.0, 1.0))


@pytest.mark.parametrize(
    ("longer", "looked_at"), [(1.5, 1.5), (1.25, 1.25), (1.08, 1.0), (0.7, 1.0), (2.6, 2.0)]
)
def test_what_is_longer_along_z_is_measured(tmp_path, longer, looked_at):
    found = probe(write_long(tmp_path / "a.ome.zarr", longer))
    best = max(found.trials, key=lambda t: t.evidence)
    assert best.elongation == pytest.approx(longer, rel=0.08)
    is_exact = looked_at in {1.0, 2.0}
    assert found.elongation == (looked_at if is_exact else best.elongation)
    assert found.elongation == pytest.approx(looked_at, rel=0.08)
    assert found.diameter_um == pytest.approx(12.0 * np.cbrt(longer), rel=0.08), "of the volume"


def test_few_objects_are_looked_at_as_if_they_were_round(tmp_path):
    found = probe(write_long(tmp_path / "a.ome.zarr", 1.5, count=4))
    assert max(t.elongation for t in found.trials) == pytest.approx(1.5, rel=0.1)
    assert found.elongation == 1.0


def test_an_elongation_that_is_given_stays(tmp_path):
    path = write_long(tmp_path / "a.ome.zarr", 1.5)
    found = probe(path, config=ResultConfig(elongation=1.3))
    assert found.elongation == 1.3
    assert probe(path, Blind(), config=ResultConfig(elongation=1.3)).elongation == 1.3


def test_the_probe_says_the_same_every_time(tmp_path):
    path = write_balls(tmp_path / "a.ome.zarr", 6.0)
    assert probe(path) == probe(path)
    assert probe(path).to_json() == probe(path).to_json()


def test_trials_are_refined_by_one_network_whatever_their_size(tmp_path):
    path = write_balls(tmp_path / "a.ome.zarr", 4.0, shape=(64, 96, 96), count=8)
    one, two = (
        probe(path, model=replace(MODEL, refiner=law_refiner(tmp_path / name, has_small=has_small)))
        for name, has_small in (("one", False), ("two", True))
    )
    assert one == two != probe(path)


def test_texture_is_looked_for_once_for_all_scales(tmp_path, monkeypatch):
    times, honest = [], texture.texture
    monkeypatch.setattr(texture, "texture", lambda *a: times.append(a[1]) or honest(*a))
    assert len(probe(write_balls(tmp_path / "a.ome.zarr", 6.0)).trials) > 2
    assert times == [0]


def test_the_first_time_with_contrast_is_looked_at(tmp_path):
    truth = random_ellipsoids((48, 64, 64), 5, 3, radius=(5.9, 6.1), gap=3.0)
    image = soft_image(truth, (1.0, 1.0, 1.0))
    data = np.stack([np.full_like(image, 100), image])
    path = write_image(tmp_path / "a.ome.zarr", [data], axes="tzyx", chunks=(1, 32, 32, 32))
    assert probe(path).diameter_um == pytest.approx(12.0, rel=0.06)


def test_where_nothing_is_found_the_images_own_scale_is_proposed(tmp_path):
    path = write_balls(tmp_path / "a.ome.zarr", 6.0, (2.0, 0.5, 0.5), (24, 64, 64), count=4)
    found = probe(path, Blind())
    assert not found.is_certain
    assert found.diameter_um == 0.5 * MODEL.diameter
    assert len(found.trials) == len(TRIALS)
    assert {t.objects for t in found.trials} == {0}
    assert found.to_json()["is_certain"] is False


def test_scales_at_which_the_volume_is_too_small_are_left_out(tmp_path):
    data = np.random.default_rng(0).integers(0, 99, (6, 5, 5)).astype(np.uint8)
    path = write_image(tmp_path / "a.ome.zarr", [data], voxel=(1.0, 1.0, 1.0))
    trials = probe(path, Blind(), make_model(diameter=12.0)).trials
    assert [t.voxel_um for t in trials] == pytest.approx(TRIALS)
    data = data[:, :3, :3]
    path = write_image(tmp_path / "b.ome.zarr", [data])
    trials = probe(path, Blind()).trials
    assert [t.voxel_um for t in trials] == pytest.approx(TRIALS[:4])


def test_a_model_without_a_size_has_nothing_to_probe_for(tmp_path):
    path = write_balls(tmp_path / "a.ome.zarr", 6.0)
    with pytest.raises(ConfigError, match=r"model fake has no known diameter"):
        probe(path, model=make_model(diameter=None))


def test_a_petavoxel_claim_is_probed_in_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(texture, "COARSE_LIMIT", 64**3)
    path = sparse_image(tmp_path / "a.ome.zarr", (100_000,) * 3, (64, 64, 64), (781, 781, 781))
    found = probe(path, Blind())
    assert not found.is_certain
    assert len(found.trials) == len(TRIALS)


WIDE, WIDE_MODEL = Blobs((1, 1, 1), reach=48.0), make_model(diameter=12.0, tile=64, context=40)
"""Sees large objects whole at the finest trial."""


def write_two_sizes(path, small, large, shape=(80, 128, 128)):
    """Six large balls among seventy small ones."""
    rng, balls = np.random.default_rng(3), []
    for radius, count in ((large, 6), (small, 76)):
        while len(balls) < count:
            at = rng.uniform(radius + 1.5, np.asarray(shape) - radius - 2.5)
            if all(np.linalg.norm(at - c) > radius + r + 3.0 for c, r in balls):
                balls.append((at, radius))
    centres = tuple(tuple(map(float, c)) for c, _ in balls)
    truth = Ellipsoids(shape, centres, tuple((r, r, r) for _, r in balls))
    return write_image(path, [soft_image(truth, (1.0, 1.0, 1.0))], chunks=(64, 64, 64))


def test_a_second_population_of_quite_another_size_is_seen(tmp_path):
    path = write_two_sizes(tmp_path / "a.ome.zarr", 4.0, 14.0)
    found = probe(path, WIDE, WIDE_MODEL, ResultConfig(refine="on"))
    sizes = sorted([found.diameter_um, found.other.diameter_um])
    assert sizes == pytest.approx([8.0, 28.0], rel=0.25)
    assert found.other.objects >= 5
    assert found.to_json()["other_population"]["objects"] == found.other.objects


@pytest.mark.parametrize(("scales", "is_told"), [((1,), True), ((1, 2), False)])
def test_who_looks_at_one_scale_alone_is_told_of_the_other_size(
    tmp_path, monkeypatch, scales, is_told
):
    path = write_balls(tmp_path / "a.ome.zarr", 4.0)
    other = Population(7, 26.0, 0.1)
    proposed = Probe(8.0, (), is_certain=True, other=other)
    monkeypatch.setattr(prepare, "probe_diameter", lambda *_: proposed)
    config = SegmentConfig(image=str(path), result=ResultConfig(scales=scales))
    notes = []
    prepare.decide(prepare.request(config, MODEL, WIDE), None, notes.append)
    told = [n for n in notes if "objects of two sizes" in n.text]
    assert [n.is_warning for n in told] == ([True] if is_told else [])
    assert not told or "--diameter 8um --scales 1,2" in told[0].text


def test_sizes_that_one_scale_shows_are_no_second_population(tmp_path):
    path = write_two_sizes(tmp_path / "a.ome.zarr", 6.0, 12.0)
    found = probe(path, WIDE, WIDE_MODEL, ResultConfig(refine="on"))
    assert found.is_certain
    assert found.other is None
    assert "other_population" not in found.to_json()
