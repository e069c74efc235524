from __future__ import annotations

import dataclasses
import time as clock

import numpy as np
import psutil
import pytest

from anystar_batch.engine.machine import MemoryMeter, available_memory
from anystar_batch.errors import ConfigError
from anystar_batch.network.tiles import TileLattice, View
from anystar_batch.stages import blocks
from anystar_batch.stages.blocks import (
    BLOCK_EDGES,
    PROCESS_BYTES,
    block_bytes,
    block_shape,
    network_bytes,
)
from tests.stages.test_plan import NOISE, plan_of
from tests.support.fakes import make_model, write_image

UNIT = (32, 32, 32)


@pytest.fixture
def plan(tmp_path):
    path = write_image(tmp_path / "a.ome.zarr", [NOISE], chunks=(8, 16, 16))
    return plan_of(path, diameter_um=12.0)


def enough_for(plan, shape, workers=1):
    """The least memory with which a block of `shape` fits."""
    return workers * (PROCESS_BYTES + network_bytes(plan) + block_bytes(plan, shape))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_largest_block_that_fits_is_taken(plan, workers):
    for larger, edge in zip((None, *BLOCK_EDGES), BLOCK_EDGES, strict=False):
        least = enough_for(plan, (edge,) * 3, workers)
        assert block_shape(plan, least, workers, UNIT) == (edge,) * 3
        if larger is not None:
            most = enough_for(plan, (larger,) * 3, workers) - workers
            assert block_shape(plan, most, workers, UNIT) == (edge,) * 3


def large_plan(tmp_path, edge, core):
    """A plan of edge^3 voxels in tiles of core^3."""
    path = write_image(tmp_path / "a.ome.zarr", [NOISE])
    small = plan_of(path, diameter_um=12.0)
    levels = (dataclasses.replace(small.source.levels[0], shape=(edge,) * 3),)
    tiles = dataclasses.replace(small.tiles, shape=(edge,) * 3, core=(core,) * 3)
    return dataclasses.replace(
        small,
        source=dataclasses.replace(small.source, levels=levels),
        working=dataclasses.replace(small.working, zoom=(1.0,) * 3, shape=(edge,) * 3),
        views=(View(1, tiles),),
    )


def test_there_are_blocks_for_everybody_if_they_are_worth_it(tmp_path):
    plan = large_plan(tmp_path, 400, 400)
    plenty = 10**12
    assert block_shape(plan, plenty, 1, UNIT) == (512, 512, 512)
    assert block_shape(plan, plenty, 1, UNIT, threads=2) == (384, 384, 384)
    assert block_shape(plan, plenty, 4, UNIT) == (384, 384, 384)
    assert block_shape(plan, plenty, 8, UNIT, threads=1) == (192, 192, 192)
    # Sixty-four blocks of 128 are too few for these, and smaller ones too many.
    assert block_shape(plan, plenty, 40, UNIT) == (512, 512, 512)
    needed = PROCESS_BYTES + network_bytes(plan) + 2 * block_bytes(plan, (192,) * 3)
    needed += 4 * int(np.prod(plan.tiles.window))
    assert block_shape(plan, needed, 1, UNIT, threads=2) == (192, 192, 192)
    assert block_shape(plan, needed - 2, 1, UNIT, threads=2) == (128, 128, 128)


@pytest.mark.parametrize(("core", "edge"), [(512, 384), (256, 256), (128, 384)])
def test_blocks_of_tiles_are_counted_too(tmp_path, core, edge):
    # Two tiles of 256 an axis are one block of 384: nothing would hide behind its network.
    plan = large_plan(tmp_path, 512, core)
    assert block_shape(plan, 10**12, 1, UNIT, threads=2) == (edge,) * 3


def test_where_no_cube_fits_a_write_unit_may(plan):
    least = enough_for(plan, (64, 64, 64)) - 1
    assert block_shape(plan, least, 1, UNIT) == UNIT
    assert block_shape(plan, enough_for(plan, UNIT), 1, UNIT) == UNIT


def test_too_little_memory_is_refused_with_what_is_needed(plan):
    least = enough_for(plan, UNIT)
    with pytest.raises(ConfigError, match=rf"need about {least / 1e9:.1f} GB.*fewer --workers"):
        block_shape(plan, least - 1, 1, UNIT)
    with pytest.raises(ConfigError, match=r"memory: 0.8 GB a worker \(4.0 GB for 5\); a tile of"):
        block_shape(plan, 4 * 10**9, 5, UNIT)


def test_a_block_takes_more_the_larger_it_is_and_the_more_channels(plan, tmp_path):
    assert block_bytes(plan, (64, 64, 64)) > block_bytes(plan, (32, 32, 32))
    ratio = block_bytes(plan, (640, 640, 640)) / block_bytes(plan, (320, 320, 320))
    assert ratio == pytest.approx(8, rel=0.1)
    stacked = np.stack([NOISE] * 40)
    path = write_image(tmp_path / "c.ome.zarr", [stacked], axes="czyx", chunks=(1, 8, 16, 16))
    many = plan_of(path, diameter_um=12.0)
    assert block_bytes(many, (64, 64, 64)) > block_bytes(plan, (64, 64, 64))
    # The image twice and the labels at least.
    assert block_bytes(plan, (64, 64, 64)) >= 64**3 * (2 * 2 + 4)


def test_candidates_of_finer_working_voxels_take_more(plan, tmp_path):
    fine = plan_of(tmp_path / "a.ome.zarr", diameter_um=6.0)
    ratio = block_bytes(fine, (512, 512, 512)) / block_bytes(plan, (512, 512, 512))
    assert 6 < ratio <= 8


def test_the_network_takes_more_for_larger_windows_and_finer_grids(plan):
    narrow = TileLattice((500,) * 3, (32,) * 3, (16,) * 3, (8,) * 3)
    wide = TileLattice((500,) * 3, (64,) * 3, (32,) * 3, (8,) * 3)
    assert [t.window for t in (narrow, wide)] == [(64, 64, 64), (128, 128, 128)]
    plan = dataclasses.replace(plan, views=(View(1, narrow),))
    assert network_bytes(dataclasses.replace(plan, views=(View(1, wide),))) == 8 * network_bytes(
        plan
    )
    # A second scale takes its turn: the larger window counts.
    both = dataclasses.replace(plan, views=(*plan.views, View(2, wide)))
    assert network_bytes(both) == 8 * network_bytes(plan)
    dense = dataclasses.replace(plan, model=make_model(grid=(1, 1, 1)))
    assert network_bytes(dense) > 4 * network_bytes(plan)


def test_a_run_takes_its_share_of_what_is_free(monkeypatch):
    free = type("Free", (), {"available": 10**10})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert available_memory() == 8 * 10**9


def test_the_meter_sees_the_peak_and_stops():
    with MemoryMeter(interval=0.01) as meter:
        before = meter.peak
        ballast = np.ones(60_000_000, np.uint8)
        deadline = clock.monotonic() + 300
        while meter.peak < 60_000_000 + before and clock.monotonic() < deadline:
            clock.sleep(0.01)
        del ballast
    assert meter.peak > 60_000_000
    assert not meter._thread.is_alive()


def test_a_process_that_ends_while_it_is_measured_is_left_out(monkeypatch):
    class Gone:
        def memory_info(self):
            raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: [Gone()])
    with MemoryMeter(interval=0.01) as meter:
        clock.sleep(0.05)
    assert meter.peak > 0
    assert blocks.PROCESS_BYTES > 0


def test_of_few_tiles_near_a_region_everybody_gets_some(tmp_path, monkeypatch):
    plan = large_plan(tmp_path, 1024, 128)
    assert block_shape(plan, 10**12, 4, UNIT) == (512,) * 3
    near = np.zeros(plan.tiles.counts, bool)
    near[:2, :2, :2] = True
    monkeypatch.setattr(blocks, "wanted_tiles", lambda *_: near)
    assert block_shape(plan, 10**12, 4, UNIT) == (128,) * 3
    near[:] = False
    assert block_shape(plan, 10**12, 4, UNIT) == (512,) * 3
