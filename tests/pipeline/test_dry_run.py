"""What a dry run says of time and disk: one tile is timed, by a clock that the predictor winds."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.config import SegmentConfig
from anystar_batch.pipeline import dry_run
from anystar_batch.stars.rays import golden_spiral
from tests.pipeline.test_segment import cut
from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor

RECORD = 12 + 4 + 96 + 2
"""Bytes of a stored candidate of 96 rays: point, probability, distances, step and status."""


class Winding:
    """Takes 5 s to load, 1.5 s to compile, and `seconds` for a tile, of a clock of its own."""

    def __init__(self, seconds=0.4):
        self.time, self.seconds, self.windows = 100.0, seconds, []
        self.inner = TruthPredictor(tiny_volume.truth())

    def __call__(self, *_):
        self.time += 5.0
        return self

    def find(self, image, window, core, prob_thresh):
        self.time += self.seconds + (0.0 if self.windows else 1.5)
        self.windows.append(window)
        return self.inner.find(image, window, core, prob_thresh)

    def perf_counter(self):
        return self.time


@pytest.fixture
def winding(monkeypatch):
    def make(**options):
        predictor = Winding(**options)
        monkeypatch.setattr(dry_run, "clock", predictor)
        return predictor

    return make


def preview(image, factory, *, workers=1, **options):
    run = {"workers": workers} | options.pop("run", {})
    wanted = tiny_volume.config(image, run=run, **options)
    assert isinstance(wanted, SegmentConfig)
    return dry_run.preview(wanted, factory=factory, model=tiny_volume.model())


@pytest.mark.parametrize("workers", [1, 3])
def test_tiles_times_the_time_of_one_shared_by_the_workers_after_loading(
    tmp_path, winding, workers
):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    predictor = winding()
    found = preview(image, predictor, workers=workers, time="0")
    assert found.tiles == 2 * 3 * 3
    known = found.estimate
    assert (known.tiles, known.workers) == (18, workers)
    assert known.tile_seconds == pytest.approx(0.4)
    assert known.seconds == pytest.approx(5.0 + 1.5 + 18 * 0.4 / workers)
    assert len(predictor.windows) == 2, "once to compile it, once to time it"


def test_a_slow_tile_is_timed_once(tmp_path, winding):
    predictor = winding(seconds=30.0)
    known = preview(tiny_volume.small_image(tmp_path / "a.zarr"), predictor).estimate
    assert len(predictor.windows) == 1
    assert known.seconds == pytest.approx(5.0 + 18 * 31.5)


def test_tiles_without_voxels_do_not_count_and_are_not_timed(tmp_path, winding):
    """Chunks are tiles here; all but those of the first z, y and x are taken away."""
    image = tiny_volume.small_image(tmp_path / "a.zarr", levels=1, chunks=(10, 14, 15))
    for chunk in (tmp_path / "a.zarr/0/c").rglob("*"):
        if chunk.is_file() and chunk.relative_to(tmp_path / "a.zarr/0/c").as_posix() != "0/0/0":
            chunk.unlink()
    predictor = winding()
    model = tiny_volume.model(tile=16, context=0)
    wanted = tiny_volume.config(image, run={"workers": 1})
    found = dry_run.preview(wanted, factory=predictor, model=model)
    whole = Path(image, "0/c")
    assert [p.as_posix() for p in whole.rglob("*") if p.is_file()] == [f"{whole}/0/0/0"]
    assert 0 < found.estimate.tiles < found.tiles
    assert all(max(window.start) < 14 for window in predictor.windows)


def test_without_a_stored_tile_nobody_knows(tmp_path, winding, command, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    monkeypatch.setattr(dry_run, "tile_content", lambda *_: "")
    predictor = winding()
    assert preview(image, predictor).estimate is None
    assert predictor.windows == []
    done = command("segment", image, "--diameter", "5um", "--dry-run")
    assert "time        unknown: nothing is stored in the tiles that were looked at" in done.stdout


def test_the_scale_that_is_chosen_first_counts_too(tmp_path, winding, monkeypatch):
    from anystar_batch.pipeline import probe

    image = tiny_volume.small_image(tmp_path / "a.zarr")
    given = preview(image, winding()).estimate.seconds
    ticks = iter(range(0, 10**6, 10))
    monkeypatch.setattr(probe.clock, "perf_counter", lambda: float(next(ticks)))
    predictor = winding()
    probed = preview(image, predictor, diameter=None)
    assert probed.estimate.seconds > given
    assert probed.estimate.seconds - given >= 10


def test_the_work_files_are_those_of_a_run(tmp_path, winding):
    """Of a volume in one tile nothing is estimated: every candidate is in it."""
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    options = {"tile": 64, "run": {"block_shape": (64, 64, 64)}}
    known = preview(image, winding(), **options).estimate
    assert known.tiles == 1
    options["run"] |= {"keep_work": True}
    tiny_volume.segment(image, **options)
    stored = [
        len(np.load(path))
        for name in ("candidates", "survivors")
        for path in (tmp_path / "a.anystar.work" / name).glob("*.npy")
    ]
    assert len(golden_spiral(96).vertices) == 96
    assert known.work_bytes == RECORD * sum(stored) > 0


def test_a_dry_run_says_all_of_it_and_writes_nothing(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    before = tiny_volume.snapshot(tmp_path)
    run = ["segment", image, "--diameter", "5um", "--dry-run"]
    text = command(*run, "--workers", "1").stdout
    size = 4 * (math.prod(tiny_volume.SHAPE) + 20 * 20 * 22) / 1e6
    assert f"disk        {size:.3g} MB of labels before compression, about 0.0" in text
    assert "GB free" in text
    assert "for the network, an estimate: 18 tiles of " in text
    assert "on 1 worker; other stages come on top" in text
    far = command(*run, "--scheduler", "tcp://127.0.0.1:1").stdout
    assert re.search(r"on \d+ workers? of this machine; the cluster was not asked; other", far)
    found = json.loads(command(*run, "--json", "--workers", "1").stdout)
    assert found["seconds"] > found["tile_seconds"] > 0
    assert found["work_bytes"] > RECORD
    assert (found["tiles"], found["tiles_done"], found["workers"]) == (18, 0, 1)
    assert found["free_bytes"] > 10**6
    assert tiny_volume.snapshot(tmp_path) == before


def test_an_unfinished_run_leaves_less_and_a_finished_one_nothing(tmp_path, command, winding):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    cut(image, "suppress")
    before = tiny_volume.snapshot(tmp_path)
    found = preview(image, winding())
    assert (found.tiles, found.tiles_done, found.estimate.tiles) == (18, 18, 0)
    assert found.estimate.seconds == pytest.approx(6.5)
    assert preview(image, winding(), run={"restart": True}).tiles_done == 0
    other = preview(image, winding(), prob_thresh=0.7)
    assert other.tiles_done == 0, "the work is that of another result"
    assert tiny_volume.snapshot(tmp_path) == before
    run = ["segment", image, "--diameter", "5um", "--dry-run"]
    assert re.search(r"tiles +18 of .*, 18 done by an unfinished run\n", command(*run).stdout)
    command(*run[:-1])
    predictor = Winding()
    done = command(*run, factory=predictor)
    assert "time        none: the very result is there" in done.stdout
    assert predictor.windows == []
    assert json.loads(command(*run, "--json").stdout)["seconds"] is None


def test_what_a_run_would_warn_of_is_told_before(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    coarse = zarr.open_group(image, mode="r+")["1"]
    coarse[:] = 0  # listed, never filled
    run = ["segment", image, "--diameter", "5um", "--dry-run", "--workers", "1"]
    done = command(*run)
    assert done.exit_code == 0
    assert "warning: " in done.stderr
    assert "holds nothing" in done.stderr
    (text, *_) = json.loads(command(*run, "--json").stdout)["warnings"]
    assert text in done.stderr
