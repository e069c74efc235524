"""Only inside a region: what is kept, and that bytes depend on nothing else."""

import csv
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from anystar_batch.config import Inside
from anystar_batch.engine.engines import InlineEngine
from anystar_batch.events import BlockDone, StageStarted
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.network.tiles import plan_tiles
from anystar_batch.pipeline.part import segment_part
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.task import model_rays
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.suppress import suppress
from tests.support.checkout import ROOT
from tests.support.inside_phantom import (
    SHAPE,
    inside_config,
    inside_factory,
    inside_model,
    organoids,
    write_inside_image,
)
from tests.support.law_phantom import digests, law_refiner


class Stopped(Exception):
    pass


class Travelling(InlineEngine):
    """Tasks go through pickle, as they do on their way to another process; three at once."""

    def run(self, function, tasks, *, needs_network=False):
        packed = (pickle.loads(pickle.dumps(task)) for task in tasks)
        yield from super().run(function, packed, needs_network=needs_network)


@dataclass(frozen=True)
class Noting:
    """The predictor, noting for which tiles it is asked."""

    asked: list

    def __call__(self, model, threads):
        return self

    def __hash__(self):
        return id(self)

    def find(self, image, window, core, prob_thresh):
        self.asked.append(core)
        return inside_factory().find(image, window, core, prob_thresh)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_inside_image(tmp_path_factory.mktemp("inside") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def done(image, tmp_path_factory):
    """The image with its result: one block, one worker."""
    mine = copy_of(image, tmp_path_factory.mktemp("done"))
    run(mine, SHAPE)
    return mine


@pytest.fixture(scope="module")
def reference(done):
    return digests(done)


def run(image, block_shape=(16, 16, 16), engine=None, listen=lambda _: None, **result):
    model = result.pop("model", inside_model())
    base = inside_config(image, block_shape)
    config = replace(base, result=replace(base.result, **result))
    segment(config, listen, engine=engine, factory=inside_factory(), model=model)
    return digests(image)


def copy_of(image, folder):
    target = Path(folder) / Path(image).name
    shutil.copytree(image, target)
    return str(target)


def rows_of(image):
    with Path(image).with_name("phantom.anystar.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("block_shape", [(16, 16, 16), (31, 20, 33)])
def test_block_shape_changes_no_byte(image, reference, tmp_path, block_shape):
    assert run(copy_of(image, tmp_path), block_shape) == reference


def test_workers_change_no_byte(image, reference, tmp_path):
    assert run(copy_of(image, tmp_path), (16, 32, 16), Travelling(3)) == reference


def test_a_kill_and_a_rerun_change_no_byte(image, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), mine, "predict", "2", "inside"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    seen = []
    assert run(mine, (16, 48, 32), listen=seen.append) == reference
    (started,) = (e for e in seen if isinstance(e, StageStarted) and e.stage == "predict")
    assert started.blocks


def test_parts_share_the_tiles_inside_and_change_no_byte(image, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    base, started = inside_config(mine, (16, 16, 16)), []

    def listen(event):
        if isinstance(event, StageStarted) and event.stage == "predict":
            started.append(event.blocks)

    for k in (1, 2):
        config = replace(base, run=replace(base.run, part=(k, 2)))
        segment_part(config, listen, factory=inside_factory(), model=inside_model())
    assert abs(started[0] - started[1]) <= 1
    assert run(mine, (16, 16, 16), listen=listen) == reference
    assert started[2:] == [0]


@pytest.mark.parametrize("stage", ["suppress", "own", "paint"])
def test_a_stop_in_a_later_stage_changes_no_byte(image, reference, tmp_path, stage):
    mine = copy_of(image, tmp_path)

    def stop(event):
        if isinstance(event, BlockDone) and event.stage == stage:
            raise Stopped

    with pytest.raises(Stopped):
        run(mine, (16, 20, 20), listen=stop)
    assert run(mine, (30, 16, 40)) == reference


def test_a_second_look_changes_no_byte_with_blocks(image, tmp_path):
    found = []
    model = replace(inside_model(), refiner=law_refiner(tmp_path / "refiner"))
    for k, block_shape in enumerate([SHAPE, (16, 16, 16)]):
        mine = copy_of(image, tmp_path / str(k))
        found.append(run(mine, block_shape, refine="on", scales=(1, 2), model=model))
        assert {r["region"] for r in rows_of(mine)} == {"3", "7"}
    assert found[0] == found[1]


def survivors(near):
    """Survivors of one pass over the whole volume among the candidates that are near."""
    box, model = Box.of_shape(SHAPE), inside_model()
    find = inside_factory().find
    points, prob, dist = find(np.zeros(SHAPE), box, box, model.prob_thresh)
    fits = (dist.max(axis=1) <= model.max_radius) & near[tuple(points.T)]
    whole = Candidates(points[fits], prob[fits], quantise(dist[fits], model.max_radius))
    return whole.take(suppress(whole, model_rays(model), model.nms_thresh))


def test_instances_are_those_of_the_definition(done):
    mask = organoids()
    reach = int(inside_model().diameter)
    near = maximum_filter(mask > 0, 2 * reach + 1, mode="constant")
    kept = survivors(near)
    numbers = mask[tuple(kept.points.T)]
    expected = sorted(
        (int(n), round(float(p), 4)) for n, p in zip(numbers, kept.prob, strict=True) if n > 0
    )
    rows = sorted((int(r["region"]), round(float(r["prob"]), 4)) for r in rows_of(done))
    hidden = len(expected) - len(rows)
    assert len(rows) > 20
    assert hidden in range(3)
    assert not set(rows) - set(expected)
    # Far more candidates than instances: the border decides nothing but by their points.
    assert len(kept) > len(expected)


def test_instances_are_those_of_the_whole_image_whose_point_lies_inside(done):
    mask = organoids()
    kept = survivors(np.ones(SHAPE, bool))
    numbers = mask[tuple(kept.points.T)]
    expected = {
        (int(n), round(float(p), 4)) for n, p in zip(numbers, kept.prob, strict=True) if n > 0
    }
    rows = {(int(r["region"]), round(float(r["prob"]), 4)) for r in rows_of(done)}
    assert len(rows ^ expected) <= 3


def test_one_region_alone_gives_its_part_of_all(image, done, tmp_path):
    mine = copy_of(image, tmp_path)
    run(mine, inside=Inside("organoids", ((7, 7),)))
    alone = [r["prob"] for r in rows_of(mine)]
    assert {r["region"] for r in rows_of(mine)} == {"7"}
    assert alone == [r["prob"] for r in rows_of(done) if r["region"] == "7"]


def test_tiles_far_from_the_region_are_not_looked_at(image, tmp_path):
    mine = copy_of(image, tmp_path)
    asked, seen = [], []
    config = inside_config(mine, (16, 16, 16))
    config = replace(config, run=replace(config.run, keep_work=True))
    segment(config, seen.append, factory=Noting(asked), model=inside_model())
    reach = int(inside_model().diameter)
    near = maximum_filter(organoids() > 0, 2 * reach + 1, mode="constant")
    tiles = plan_tiles(SHAPE, 16, 8, inside_model().divisor)
    cores = [tiles.core_box(index) for index in iter_grid(tiles.counts)]
    assert sorted(asked) == [core for core in cores if near[core.slices].any()]
    assert len(asked) < len(cores)
    files = Path(mine).parent.glob("*.work/candidates/*.npy")
    points = np.concatenate([np.load(file)["points"] for file in files])
    assert near[tuple(points.T)].all()
    assert not (organoids()[tuple(points.T)] > 0).all()
    (started,) = (e for e in seen if isinstance(e, StageStarted) and e.stage == "predict")
    assert started.blocks == len(asked)
    done = [e for e in seen if isinstance(e, BlockDone) and e.stage == "predict"]
    assert len(done) == started.blocks
