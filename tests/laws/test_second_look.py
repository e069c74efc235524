"""The law with a second look: the same bytes for any blocks, workers and kills, and one by one."""

import csv
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.engine.engines import InlineEngine, open_engine
from anystar_batch.errors import AnyStarBatchError, ConfigError, ModelError
from anystar_batch.geometry import Box
from anystar_batch.network.refiner import SMALL_VOXELS
from anystar_batch.network.refiner_kernel import ray_voxels
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages import look_cells
from anystar_batch.stages.plan import make_plan
from anystar_batch.stages.refine import refine_survivors
from anystar_batch.stages.sampling import all_limits
from anystar_batch.stages.task import model_rays
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.suppress import suppress
from tests.support.checkout import ROOT
from tests.support.fakes import TruthPredictor, random_ellipsoids
from tests.support.law_phantom import (
    MOVED,
    SHAPE,
    copy_of,
    digests,
    law_config,
    law_factory,
    law_model,
    law_truth,
    refined_config,
    refined_model,
    write_law_image,
)

BLOCKS = [(64, 128, 128), (32, 32, 32), (61, 40, 97)]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_law_image(tmp_path_factory.mktemp("look") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def model(image):
    return refined_model(Path(image).parent / "refiner")


@pytest.fixture(scope="module")
def reference(image, model):
    """One block, one worker."""
    summary = run(image, model, SHAPE)
    assert summary.instances > 100
    return digests(image)


def run(image, model, block_shape, engine=None, **result):
    workers = 1 if engine is None else engine.workers
    config = refined_config(image, block_shape, workers=workers)
    config = replace(config, result=replace(config.result, **result))
    return segment(config, engine=engine, factory=law_factory(), model=model)


def rows_of(image):
    with (Path(image).parent / "phantom.anystar.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("block_shape", BLOCKS)
def test_block_shape_changes_no_byte(image, model, reference, tmp_path, block_shape):
    mine = copy_of(image, tmp_path)
    run(mine, model, block_shape)
    assert digests(mine) == reference


def test_workers_and_blocks_at_once_change_no_byte(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path / "a")
    run(mine, model, (32, 32, 32), InlineEngine(4))
    assert digests(mine) == reference
    mine = copy_of(image, tmp_path / "b")
    with open_engine(2, 6 * 10**9) as engine:
        run(mine, model, (32, 64, 32), engine)
    assert digests(mine) == reference


@pytest.mark.parametrize(("stage", "after"), [("refine", 2), ("suppress 2", 2), ("own", 1)])
def test_kill_and_rerun_changes_no_byte(image, model, reference, tmp_path, stage, after):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), stage, str(after), "refined"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    run(mine, model, (32, 96, 64))
    assert digests(mine) == reference


def test_refined_survivors_are_those_of_the_whole_volume_at_once(image, model, reference):
    truth = law_truth()
    box = Box.of_shape(truth.shape)
    points, prob, dist = law_factory().find(np.zeros(truth.shape), box, box, model.prob_thresh)
    fits = dist.max(axis=1) <= model.max_radius
    whole = Candidates(points[fits], prob[fits], quantise(dist[fits], model.max_radius))
    rays = model_rays(model)
    kept = whole.take(suppress(whole, rays, model.nms_thresh))
    reader, config = ImageReader(read_image(image)), refined_config(image).result
    plan = make_plan(reader, model, config, 6.0, all_limits(reader, model, 0, (0,)))
    refined = refine_survivors(plan, reader, 0, kept)
    assert not np.array_equal(refined.dist, kept.dist)
    steps = np.tile(plan.second_look.scale, (len(kept), 1))
    directions = np.asarray(rays.vertices, np.float64)
    small = np.count_nonzero(ray_voxels(kept.dist, steps, directions) < SMALL_VOXELS)
    assert 20 < small < len(kept) - 20, "both networks look"
    last = refined.take(suppress(refined, rays, model.nms_thresh))
    assert len(last) < len(kept), "some became duplicates"
    pairs = {(f"{p:.7g}", f"{q:.7g}") for p, q in zip(last.prob, last.quality, strict=True)}
    found = {(r["prob"], r["quality"]) for r in rows_of(image)}
    assert found <= pairs
    assert len(pairs) - len(found) in range(8)  # survivors without a voxel have no label


def test_one_survivor_alone_is_refined_to_the_same_bits(image, model):
    reader, config = ImageReader(read_image(image)), refined_config(image).result
    plan = make_plan(reader, model, config, 6.0, all_limits(reader, model, 0, (0,)))
    rng = np.random.default_rng(2)
    points = rng.integers(0, SHAPE, (40, 3)).astype(np.int32)
    dist = quantise(rng.uniform(3, 9, (40, len(model_rays(model)))).astype(np.float32), 24.0)
    stars = Candidates(points, rng.random(40, np.float32), dist)
    together = refine_survivors(plan, reader, 0, stars)
    order = rng.permutation(40)
    shuffled = refine_survivors(plan, reader, 0, stars.take(order))
    np.testing.assert_array_equal(shuffled.dist, together.dist[order])
    for k in (0, 13, 39):
        alone = refine_survivors(plan, reader, 0, stars.take(np.array([k])))
        np.testing.assert_array_equal(alone.dist, together.dist[[k]])
        assert alone.quality[0] == together.quality[k]


def test_cells_read_together_give_the_same_bits_and_read_voxels_less_often(
    image, model, monkeypatch
):
    reader, config = ImageReader(read_image(image)), refined_config(image).result
    plan = make_plan(reader, model, config, 6.0, all_limits(reader, model, 0, (0,)))
    rng = np.random.default_rng(4)
    points = rng.integers(0, SHAPE, (300, 3)).astype(np.int32)
    dist = quantise(rng.uniform(3, 6, (300, len(model_rays(model)))).astype(np.float32), 24.0)
    stars = Candidates(points, rng.random(300, np.float32), dist)
    boxes = []
    honest = ImageReader.read_box
    monkeypatch.setattr(ImageReader, "read_box", lambda *a: boxes.append(a[-1]) or honest(*a))
    found, read = [], []
    for cell, most in (
        ((20, 20, 20), 2**28),
        ((5, 20, 20), 800_000),
        ((20, 20, 20), 2**19),
        ((20, 20, 20), 2**13),
        ((20, 20, 20), 1),
    ):
        monkeypatch.setattr(look_cells, "CELL", cell)
        monkeypatch.setattr(look_cells, "READ_BYTES", most)
        found.append(refine_survivors(plan, reader, 0, stars))
        read.append(sum(box.size for box in boxes))
        assert max(box.size for box in boxes) <= max(most, 60**3)
        boxes.clear()
    assert read == sorted(read)
    # In thin slabs that follow each other each voxel is read once, as in one piece.
    assert read[0] <= read[1] <= np.prod(SHAPE) < read[2]
    assert np.prod(SHAPE) < read[-1] / 4
    for other in found[1:]:
        np.testing.assert_array_equal(other.dist, found[0].dist)
        np.testing.assert_array_equal(other.quality, found[0].quality)


def test_off_and_a_model_without_a_refiner_give_the_bytes_of_one_look(
    image, model, reference, tmp_path
):
    found = []
    for name, one, asked in (("a", model, "off"), ("b", law_model(), "auto")):
        mine = copy_of(image, tmp_path / name)
        run(mine, one, SHAPE, refine=asked)
        assert "quality" not in rows_of(mine)[0]
        found.append(digests(mine))
    assert found[0] == found[1]
    assert found[0]["CSV"] != reference["CSV"]


def test_auto_looks_twice_at_the_image_s_own_resolution_too(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    run(mine, model, SHAPE, refine="auto")
    record = json.loads((mine.parent / "phantom.anystar.run.json").read_text())
    assert record["plan"]["zoom"] == [1.0, 1.0, 1.0]
    assert record["plan"]["second_look"] == {"level": 0}
    assert record["refined"]["outlines"] > 100
    assert digests(mine) == reference


def test_a_filter_by_quality_may_remove_everybody(image, model, tmp_path):
    mine = copy_of(image, tmp_path)
    filters = replace(refined_config(mine).result.filters, min_quality=0.999)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = run(mine, model, SHAPE, refine="auto", filters=filters)
    assert summary.instances == 0
    assert summary.removed["min_quality"] > 100


def test_the_quality_filters_and_its_default_is_the_model_s(image, model, reference, tmp_path):
    qualities = sorted(float(r["quality"]) for r in rows_of(image))
    cut = round(qualities[len(qualities) // 2], 3)
    mine = copy_of(image, tmp_path / "a")
    base = refined_config(mine)
    filters = replace(base.result.filters, min_quality=cut)
    summary = run(mine, model, (32, 64, 64), filters=filters)
    assert 0 < summary.removed["min_quality"] < len(qualities)
    assert all(float(r["quality"]) >= cut - 1e-4 for r in rows_of(mine))
    strict = refined_model(tmp_path / "strict", quality_cut=cut)
    other = copy_of(image, tmp_path / "b")
    assert run(other, strict, SHAPE).removed == summary.removed


def test_what_cannot_be_refined_is_refused(image, tmp_path):
    mine = copy_of(image, tmp_path)
    filters = replace(refined_config(mine).result.filters, min_quality=0.5)
    with pytest.raises(ConfigError, match=r"--min-quality: got 0\.5, but there is no second look"):
        run(mine, law_model(), SHAPE, filters=filters, refine="auto")
    broken = refined_model(tmp_path / "refiner")
    (tmp_path / "refiner" / "refiner.npz").write_bytes(b"PK")
    with pytest.raises(Exception, match="refiner") as error:
        run(mine, broken, SHAPE)
    assert isinstance(error.value, ModelError) or "refiner" in str(error.value)
    assert not (mine / "labels").exists() or not any((mine / "labels").glob("[a-z]*"))


def label_of(image):
    return ImageReader(read_image(f"{image}/labels/anystar")).read_box(0, 0, 0, Box.of_shape(SHAPE))


SURFACES = [
    {"outline": 0.3},
    {"expand": Quantity(2.0, "um")},
    {"outline": 0.6, "expand": Quantity(-0.8, "um"), "measure": ("surface",)},
]


@pytest.mark.parametrize("asked", SURFACES)
def test_surfaces_that_are_moved_are_the_same_for_any_blocks(
    image, model, reference, tmp_path, asked
):
    first = copy_of(image, tmp_path / "0")
    run(first, model, SHAPE, **asked)
    expected = digests(first)
    assert expected != reference
    mine = copy_of(image, tmp_path / "1")
    run(mine, model, (32, 40, 97), InlineEngine(2), **asked)
    assert digests(mine) == expected


def test_surfaces_survive_a_kill(image, model, tmp_path):
    whole, mine = copy_of(image, tmp_path / "a"), copy_of(image, tmp_path / "b")
    run(whole, model, SHAPE, **MOVED)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), "paint", "2", "moved"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    run(mine, model, (32, 96, 64), **MOVED)
    assert digests(mine) == digests(whole)


def test_cells_have_the_numbers_of_their_nuclei_and_no_overlap(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    summary = run(mine, model, (32, 64, 64), expand=Quantity(2.0, "um"))
    nuclei, cells = label_of(image), label_of(mine)
    assert summary.instances == nuclei.max()
    np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
    grown = np.bincount(cells.ravel()) / np.bincount(nuclei.ravel())
    assert np.median(grown[1:]) > 1.3


def test_a_lonely_cell_reaches_into_blocks_far_from_its_nucleus(tmp_path):
    lonely = TruthPredictor(random_ellipsoids(SHAPE, 2, 5, radius=(4.0, 5.0)), core=0.5)
    found = []
    for block_shape in (SHAPE, (32, 32, 32)):
        mine = write_law_image(tmp_path / f"{len(found)}" / "phantom.ome.zarr")
        config = law_config(mine, block_shape)
        config = replace(config, result=replace(config.result, expand=Quantity(9.0, "um")))
        assert segment(config, factory=lonely, model=law_model()).instances == 2
        found.append(digests(mine))
        assert (label_of(mine) > 0).sum() > 8000  # the nuclei have about 800 voxels
    assert found[0] == found[1]


def test_surfaces_moved_inward_stay_inside_and_the_thin_vanish(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path / "a")
    fewer = run(mine, model, SHAPE, expand=Quantity(-2.0, "um"))
    assert fewer.instances <= int(label_of(image).max())
    nuclei, shrunk = label_of(image) > 0, label_of(mine) > 0
    assert not (shrunk & ~nuclei).any()
    assert shrunk.sum() < 0.6 * nuclei.sum()
    gone = copy_of(image, tmp_path / "b")
    assert run(gone, model, SHAPE, expand=Quantity(-500.0, "um")).instances == 0


def test_moved_surfaces_are_another_result(image, model, tmp_path):
    mine = copy_of(image, tmp_path)
    run(mine, model, SHAPE, outline=0.3)
    with pytest.raises(AnyStarBatchError, match=r"options|outline"):
        run(mine, model, SHAPE, outline=0.4)
    with pytest.raises(ConfigError, match=r"--outline: got 0\.4, but there is no second look"):
        run(mine, law_model(), SHAPE, outline=0.4, refine="auto")
