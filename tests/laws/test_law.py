"""The law: bytes do not depend on blocks, workers, memory, or on being killed and rerun."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.config import Filters, RunConfig
from anystar_batch.engine.engines import InlineEngine, open_engine
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.task import model_rays
from anystar_batch.stars.suppress import suppress
from tests.support.checkout import ROOT
from tests.support.fakes import make_model, random_ellipsoids
from tests.support.law_phantom import (
    SHAPE,
    copy_of,
    digests,
    law_config,
    law_factory,
    law_model,
    law_truth,
    write_law_image,
)

BLOCKS = [(64, 128, 128), (32, 32, 32), (61, 40, 97), (96, 64, 33)]
STAGES = [
    ("predict", 3),
    ("suppress", 2),
    ("own", 2),
    ("paint", 1),
    ("pyramid 2", 1),
    ("table", 0),
    ("publish", 0),
    ("finish", 0),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_law_image(tmp_path_factory.mktemp("law") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def reference(image):
    """One block, one worker."""
    run(image, SHAPE)
    return digests(image)


@pytest.fixture(scope="module")
def three_workers():
    with open_engine(3, 9 * 10**9) as engine:
        yield engine


def run(image, block_shape, engine=None, **options):
    workers = 1 if engine is None else engine.workers
    config = law_config(image, block_shape, workers=workers, **options)
    return segment(config, engine=engine, factory=law_factory(), model=law_model())


@pytest.mark.parametrize("block_shape", BLOCKS)
def test_block_shape_changes_no_byte(image, reference, tmp_path, block_shape):
    mine = copy_of(image, tmp_path)
    run(mine, block_shape)
    assert digests(mine) == reference


@pytest.mark.parametrize("block_shape", BLOCKS[1:2])
def test_three_workers_change_no_byte(image, reference, tmp_path, block_shape, three_workers):
    mine = copy_of(image, tmp_path)
    run(mine, block_shape, three_workers)
    assert digests(mine) == reference


def test_blocks_at_once_change_no_byte(image, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    run(mine, (32, 32, 32), InlineEngine(4))
    assert digests(mine) == reference


def test_filters_change_no_byte_with_blocks_and_workers(image, tmp_path, three_workers):
    filters = Filters(
        min_volume=Quantity(30.0, "um3"),
        max_volume=Quantity(1200.0, "px"),
        min_prob=0.85,
        min_contrast=1.2,
        min_regularity=0.995,
    )
    found = []
    for k, (block_shape, engine) in enumerate([(SHAPE, None), ((32, 32, 32), three_workers)]):
        mine = copy_of(image, tmp_path / str(k))
        base = law_config(mine, block_shape, workers=1 if engine is None else engine.workers)
        config = replace(base, result=replace(base.result, filters=filters))
        summary = segment(config, engine=engine, factory=law_factory(), model=law_model())
        assert all(summary.removed.values())
        assert summary.instances > 20
        found.append(digests(mine))
    assert found[0] == found[1]


def test_two_scales_change_no_byte_with_blocks_and_workers(image, tmp_path, three_workers):
    found = []
    for k, (block_shape, engine) in enumerate([(SHAPE, None), ((32, 64, 32), three_workers)]):
        mine = copy_of(image, tmp_path / str(k))
        base = law_config(mine, block_shape, workers=1 if engine is None else engine.workers)
        config = replace(base, result=replace(base.result, scales=(1, 2)))
        summary = segment(config, engine=engine, factory=law_factory(), model=law_model())
        assert summary.instances > 100
        found.append(digests(mine))
    assert found[0] == found[1]


@pytest.mark.parametrize(("stage", "after"), STAGES)
def test_kill_and_rerun_with_other_blocks_changes_no_byte(image, reference, tmp_path, stage, after):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), stage, str(after), "truth"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    listed = (mine / "labels" / "anystar").exists()
    assert listed == (stage == "finish")
    run(mine, (32, 96, 64))
    assert digests(mine) == reference
    assert not (mine.parent / "phantom.anystar.work").exists()


def test_survivors_are_those_of_one_greedy_pass_over_the_whole_volume(image, reference):
    truth, model = law_truth(), law_model()
    from anystar_batch.geometry import Box
    from anystar_batch.stars.candidates import Candidates, quantise

    box = Box.of_shape(truth.shape)
    points, prob, dist = law_factory().find(np.zeros(truth.shape), box, box, model.prob_thresh)
    fits = dist.max(axis=1) <= model.max_radius
    whole = Candidates(points[fits], prob[fits], quantise(dist[fits], model.max_radius))
    kept = whole.take(suppress(whole, model_rays(model), model.nms_thresh))
    rows = read_table(image)
    assert len(kept) - len(rows) in range(5)  # survivors without a voxel have no label
    assert {round(float(r["prob"]), 4) for r in rows} <= {round(float(p), 4) for p in kept.prob}
    assert len(rows) > 100


def test_labels_in_level_0_are_those_of_the_table_are_1_to_n(image, reference):
    labels = zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...]
    rows = read_table(image)
    numbers = np.unique(labels)
    assert numbers.tolist() == list(range(len(rows) + 1))
    assert [int(r["label"]) for r in rows] == list(range(1, len(rows) + 1))
    counts = np.bincount(labels.ravel())
    assert [int(r["num_voxels"]) for r in rows] == counts[1:].tolist()


def test_nothing_to_do_the_second_time(image, reference):
    again = run(image, (32, 32, 32))
    assert again.status == "nothing to do"
    assert digests(image) == reference


def read_table(image):
    path = Path(image).parent / "phantom.anystar.csv"
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("dtype", "version", "shards"),
    [(np.float32, "0.5", (64, 64, 64)), (np.int32, "0.4", None)],
)
def test_float_statistics_and_shards_do_not_depend_on_blocks(tmp_path, dtype, version, shards):
    found = []
    for k, block_shape in enumerate([SHAPE, (32, 32, 32)]):
        image = write_law_image(tmp_path / str(k) / "phantom.ome.zarr", dtype, version, shards)
        run(image, block_shape)
        found.append(digests(image))
    assert found[0] == found[1]


def test_a_thin_stack_smaller_than_a_tile(tmp_path):
    from tests.support.fakes import TruthPredictor, write_image

    truth = random_ellipsoids((9, 70, 75), 25, 3, radius=(2.5, 4.0))
    found = []
    for k, block_shape in enumerate([(9, 70, 75), (64, 32, 32)]):
        path = write_image(
            tmp_path / str(k) / "phantom.ome.zarr", [truth.image()], chunks=(1, 70, 75)
        )
        config = law_config(path, block_shape)
        config = type(config)(
            image=path, result=type(config.result)(), run=RunConfig(block_shape=block_shape)
        )
        model = make_model(diameter=None, max_radius=12.0)
        summary = segment(config, factory=TruthPredictor(truth), model=model)
        assert summary.instances >= 15
        found.append(digests(path))
    assert found[0] == found[1]
