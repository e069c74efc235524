from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import Filters, ResultConfig
from anystar_batch.engine.engines import InlineEngine
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.parsing import Quantity
from anystar_batch.stages import number, predict, workdir
from anystar_batch.stages import suppress as tasks
from anystar_batch.stages import task as stages_task
from anystar_batch.stages.blocks import plan_blocks
from anystar_batch.stages.image_identity import tile_content
from anystar_batch.stages.number import OwnTask
from anystar_batch.stages.predict import PredictTask
from anystar_batch.stages.suppress import SuppressTask
from anystar_batch.stages.task import Work, model_rays, near_box, piece_key, position_keys
from anystar_batch.stages.workdir import load_survivors
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.suppress import Status, suppress
from tests.stages.test_plan import plan_of
from tests.support.fakes import TruthPredictor, make_model, random_ellipsoids, write_image

SHAPE = (40, 70, 75)
MODEL = make_model(tile=32, context=8)


@dataclass(frozen=True, eq=False)
class Spy:
    """Answers for another predictor and keeps what it was asked."""

    inner: object
    asked: list = field(default_factory=list)

    def __call__(self, _model, _threads):
        return self

    def find(self, image, window, core, prob_thresh):
        self.asked.append((image, window, core))
        return self.inner.find(image, window, core, prob_thresh)


@pytest.fixture
def truth():
    return random_ellipsoids(SHAPE, 60, 4, radius=(3.5, 7.0))


def make_work(tmp_path, truth, data=None, model=MODEL, factory=None):
    data = truth.image() if data is None else data
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(16, 16, 16))
    plan = plan_of(path, diameter_um=12.0, model=model)
    for name in workdir.FOLDERS:
        (tmp_path / name).mkdir(exist_ok=True)
    factory = TruthPredictor(truth, wobble=0.5) if factory is None else factory
    return Work(plan, str(tmp_path), "", factory, 1)


def blocks_of(work, group=(1, 1, 1)):
    tiles = work.plan.tiles
    return plan_blocks(tiles.shape, tiles.core, group)


def predicted(work, group=(1, 1, 1)):
    """Ledger entries of every tile, predicted in blocks of `group` tiles."""
    entries = {}
    for block in blocks_of(work, group):
        entries |= predict.predict_block(PredictTask(work, 0, block, block.units)).entries
    return entries


def slices_of(entries):
    return [workdir.Slice(e["file"], e["start"], e["stop"]) for e in entries.values()]


def rows(candidates):
    order = candidates.order()
    return [
        (tuple(candidates.points[i]), candidates.prob[i], candidates.dist[i].tobytes())
        for i in order
    ]


# Small things


def test_keys_sort_like_positions_however_large_the_volume():
    shape = (40_000, 50_000, 60_000)
    rng = np.random.default_rng(0)
    points = rng.integers(0, shape, (1000, 3)).astype(np.int32)
    points = np.concatenate([points, [[39_999, 49_999, 59_999], [0, 0, 0]]]).astype(np.int32)
    keys = position_keys(points, shape)
    assert keys.dtype == np.int64
    assert keys.max() == np.prod(shape, dtype=np.int64) - 1
    np.testing.assert_array_equal(np.argsort(keys), np.lexsort(points.T[::-1]))


def test_a_tile_is_named_by_time_and_index():
    assert piece_key(3, (1, 0, 12)) == "3/1.0.12"


def test_a_margin_is_rounded_up():
    assert near_box(Box((5, 5, 5), (6, 6, 6)), 2.1) == Box((2, 2, 2), (9, 9, 9))


# Prediction


def test_candidates_do_not_depend_on_how_tiles_are_grouped(tmp_path, truth):
    found, dropped = [], []
    for k, group in enumerate([(1, 1, 1), (2, 3, 3), (1, 2, 1)]):
        (tmp_path / str(k)).mkdir()
        work = make_work(tmp_path / str(k), truth)
        entries = predicted(work, group)
        rays = model_rays(work.plan.model)
        folder = Path(work.folder) / workdir.CANDIDATES
        together, _ = workdir.load_candidates(folder, slices_of(entries), len(rays))
        kept = together.take(suppress(together, rays, work.plan.nms_thresh))
        found.append(rows(kept))
        dropped.append(len(together) - len(kept))
    assert found[0] == found[1] == found[2]
    # Losers are dropped as far as a block can tell; a survivor never is.
    assert dropped[0] > dropped[1] == 0


@dataclass(frozen=True, eq=False)
class Narrow:
    """A device with room for one, made once."""

    inner: object
    made: list = field(default_factory=list)
    inside: list = field(default_factory=list)

    def __call__(self, _model, _threads):
        self.made.append(1)
        return self

    def find(self, *arguments):
        self.inside.append(1)
        assert len(self.inside) == 1, "two at once on the device"
        time.sleep(0.005)
        found = self.inner.find(*arguments)
        self.inside.clear()
        return found


def test_blocks_at_once_share_the_network_one_after_the_other(tmp_path, truth):
    narrow = Narrow(TruthPredictor(truth, wobble=0.5))
    work = make_work(tmp_path, truth, factory=narrow)
    todo = [PredictTask(work, 0, block, block.units) for block in blocks_of(work)]
    done = [result for _, result in InlineEngine(4).run(predict.predict_block, todo)]
    assert all(isinstance(result, stages_task.Done) for result in done), done
    assert len(narrow.made) == 1
    entries = {key: entry for result in done for key, entry in result.entries.items()}
    assert entries == predicted(dataclasses.replace(work, factory=narrow.inner))


def test_a_tile_is_asked_for_once_and_only_if_it_is_not_done(tmp_path, truth):
    spy = Spy(TruthPredictor(truth))
    work = make_work(tmp_path, truth, factory=spy)
    (block,) = blocks_of(work, (9, 9, 9))
    some = block.units[1:3]
    done = predict.predict_block(PredictTask(work, 0, block, some))
    assert sorted(done.entries) == sorted(piece_key(0, t) for t in some)
    cores = [work.plan.tiles.core_box(t) for t in some]
    assert [core for _, _, core in spy.asked] == cores


def test_a_tile_of_one_value_has_no_candidates_and_is_not_asked_for(tmp_path, truth):
    data = truth.image()
    data[:, :, 32:] = 200
    spy = Spy(TruthPredictor(truth))
    work = make_work(tmp_path, truth, data, factory=spy)
    entries = predicted(work)
    constant = [t for t in iter_grid(work.plan.tiles.counts) if t[2] == 2]
    assert constant
    for tile in constant:
        entry = entries[piece_key(0, tile)]
        assert entry["start"] == entry["stop"]
        assert entry["content"]
    assert len(spy.asked) == len(entries) - len(constant)


def test_a_tile_of_which_nothing_is_stored_is_not_read(tmp_path, truth, monkeypatch):
    data = truth.image()
    data[:, :, 16:] = 0
    work = make_work(tmp_path, truth, data)
    tile = (0, 0, 2)
    assert tile_content(work.plan, ImageReader(work.plan.source), 0, tile) == ""
    monkeypatch.setattr(ImageReader, "read_box", None)
    block = next(b for b in blocks_of(work) if b.units == (tile,))
    entry = predict.predict_block(PredictTask(work, 0, block, block.units)).entries[
        piece_key(0, tile)
    ]
    assert (entry["start"], entry["stop"], entry["reach"]) == (0, 0, 0.0)


def test_a_time_without_limits_has_no_candidates(tmp_path, truth):
    work = make_work(tmp_path, truth)
    dark = dataclasses.replace(work, plan=dataclasses.replace(work.plan, limits=(None,)))
    entries = predicted(dark)
    assert all(e["start"] == e["stop"] for e in entries.values())


def test_candidates_that_are_too_large_are_dropped_and_counted(tmp_path, truth):
    work = make_work(tmp_path, truth, model=make_model(tile=32, context=8, max_radius=6.0))
    entries = predicted(work)
    whole = Box.of_shape(SHAPE)
    image = np.zeros(SHAPE, np.float32)
    _, _, dist = work.factory.find(image, whole, whole, work.plan.prob_thresh)
    large = int((dist.max(axis=1) > 6.0).sum())
    assert 0 < large < len(dist)
    assert sum(e["too_large"] for e in entries.values()) == large
    assert max(e["reach"] for e in entries.values()) <= 6.0


# Suppression and ownership


def test_survivors_of_blocks_are_those_of_the_whole_volume(tmp_path, truth):
    work = make_work(tmp_path, truth)
    plan, rays = work.plan, model_rays(work.plan.model)
    entries = predicted(work)
    reach = int(np.ceil(max(e["reach"] for e in entries.values())))
    whole, _ = workdir.load_candidates(tmp_path / workdir.CANDIDATES, slices_of(entries), len(rays))
    kept = whole.take(suppress(whole, rays, plan.nms_thresh))
    expected = set(position_keys(kept.points, SHAPE).tolist())
    survivors, undecided = set(), set()
    judged = {}
    for block in blocks_of(work):
        known = near_box(block.box, 2 * reach).intersect(Box.of_shape(SHAPE))
        near = tuple(slices_of({k: entries[piece_key(0, k)] for k in plan.tiles.tiles_near(known)}))
        task = SuppressTask(work, 0, block, near, known, reach)
        judged |= tasks.suppress_block(task).entries
    for entry in judged.values():
        found, status = workdir.load_candidates(
            tmp_path / workdir.SURVIVORS[0], slices_of({"": entry}), len(rays)
        )
        assert entry["undecided"] == np.sum(status == Status.UNDECIDED)
        survivors |= set(position_keys(found.points[status == Status.KEPT], SHAPE).tolist())
        undecided |= set(position_keys(found.points[status == Status.UNDECIDED], SHAPE).tolist())
    assert survivors <= expected <= survivors | undecided
    # What the global pass decides of the undecided is read back with the kept.
    np.save(workdir.resolved_path(work.folder, 0), np.sort(np.array(list(expected & undecided))))
    final = load_survivors(work, 0, slices_of(judged))
    assert set(position_keys(final.points, SHAPE).tolist()) == expected
    own = [
        number.own_block(OwnTask(work, 0, block, tuple(slices_of(judged)), Box.of_shape(SHAPE)))
        for block in blocks_of(work)
    ]
    owned = np.concatenate([o.keys for o in own])
    assert len(np.unique(owned)) == len(owned)
    assert len(owned) + sum(o.hidden for o in own) == len(expected)
    assert set(owned.tolist()) <= expected
    assert own[0].instances == len(own[0].keys)


def test_a_survivor_inside_a_better_one_owns_no_voxel(tmp_path, truth):
    work = make_work(tmp_path, truth)
    (tmp_path / workdir.SURVIVORS[0]).mkdir(exist_ok=True)
    points = np.array([[20, 30, 30], [22, 30, 30], [20, 60, 60]], np.int32)
    radius = np.array([9.0, 2.0, 4.0])
    dist = quantise(np.repeat(radius[:, None], 96, axis=1).astype(np.float32), 24.0)
    prob = np.array([0.9, 0.8, 0.7], np.float32)
    kept = np.full(3, Status.KEPT, np.int8)
    slices = workdir.save_candidates(
        tmp_path / workdir.SURVIVORS[0], "a.npy", [("k", Candidates(points, prob, dist), kept)]
    )
    np.save(workdir.resolved_path(work.folder, 0), np.empty(0, np.int64))
    (block,) = blocks_of(work, (9, 9, 9))
    owned = number.own_block(OwnTask(work, 0, block, tuple(slices.values()), Box.of_shape(SHAPE)))
    assert owned.hidden == 1
    assert owned.keys.tolist() == sorted(position_keys(points[[0, 2]], SHAPE).tolist())


def test_who_is_removed_hides_nobody(tmp_path, truth):
    work = make_work(tmp_path, truth)
    filters = Filters(max_volume=Quantity(1000.0, "px"))
    work = dataclasses.replace(work, plan=dataclasses.replace(work.plan, filters=filters))
    points = np.array([[20, 30, 30], [22, 30, 30]], np.int32)
    dist = quantise(np.repeat([[9.0], [2.0]], 96, axis=1).astype(np.float32), 24.0)
    stars = Candidates(points, np.array([0.9, 0.8], np.float32), dist)
    kept = np.full(2, Status.KEPT, np.int8)
    slices = workdir.save_candidates(tmp_path / workdir.SURVIVORS[0], "a.npy", [("k", stars, kept)])
    np.save(workdir.resolved_path(work.folder, 0), np.empty(0, np.int64))
    (block,) = blocks_of(work, (9, 9, 9))
    owned = number.own_block(OwnTask(work, 0, block, tuple(slices.values()), Box.of_shape(SHAPE)))
    assert owned.keys.tolist() == position_keys(points[1:], SHAPE).tolist()
    assert (owned.removed, owned.hidden) == ({"max_volume": 1}, 0)


def test_a_files_name_says_which_tiles_and_when():
    names = {
        workdir.file_name(0, [(0, 0, 0)], "npy"),
        workdir.file_name(1, [(0, 0, 0)], "npy"),
        workdir.file_name(0, [(0, 0, 0), (0, 0, 1)], "npy"),
        workdir.file_name(0, [(0, 0, 0), (0, 0, 2)], "npy"),
    }
    assert len(names) == 4
    assert workdir.file_name(0, [(0, 0, 0)], "npy") in names


def test_planning_reads_the_image_it_was_given(tmp_path, truth):
    work = make_work(tmp_path, truth)
    assert read_image(work.plan.source.path) == work.plan.source
    assert plan_of(work.plan.source.path, ResultConfig(), 12.0, MODEL) == work.plan
