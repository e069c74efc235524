"""The law with limits that follow the image: the same bytes for any blocks, workers and kills."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stardist
import tifffile
import zarr
from scipy import ndimage

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import Inside, ResultConfig
from anystar_batch.engine.engines import InlineEngine
from anystar_batch.errors import BlockError, ConfigError, ImageChangedError
from anystar_batch.geometry import as_zyx, iter_grid
from anystar_batch.network.limits_grid import LimitsGrid
from anystar_batch.pipeline.local_limits import check_local, grids_text
from anystar_batch.pipeline.part import segment_part
from anystar_batch.pipeline.prepare import decide, request
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.plan import fingerprint_parts, make_plan
from anystar_batch.stages.preprocess import tile_image
from anystar_batch.stages.refine import refine_survivors
from anystar_batch.stars.candidates import Candidates
from tests.support.checkout import ROOT
from tests.support.dim_phantom import Peaks, dim_config, write_dim_image
from tests.support.fakes import NoNetwork, make_model, write_image
from tests.support.law_phantom import (
    SHAPE,
    copy_of,
    digests,
    law_truth,
    refined_model,
    write_law_image,
)
from tests.support.real_model import real_config


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_dim_image(tmp_path_factory.mktemp("dim") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def model(image):
    return refined_model(Path(image).parent / "refiner")


@pytest.fixture(scope="module")
def reference(image, model):
    """One block, one worker."""
    run(image, model, SHAPE)
    return digests(image)


def run(image, model, block_shape, engine=None, limits="local"):
    workers = 1 if engine is None else engine.workers
    config = dim_config(image, block_shape, limits, workers=workers)
    return segment(config, engine=engine, factory=Peaks(), model=model)


def positions(image):
    rows = (Path(image).parent / "phantom.anystar.csv").read_text().splitlines()
    at = rows[0].split(",").index("centroid_x")
    return np.array([float(row.split(",")[at]) for row in rows[1:]])


def test_what_is_dim_is_found_with_local_limits_alone(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    run(mine, model, SHAPE, limits="global")
    far = SHAPE[2] * 2 // 3
    bright = [(positions(path) < SHAPE[2] // 3).sum() for path in (mine, image)]
    dim = [(positions(path) >= far).sum() for path in (mine, image)]
    assert dim[0] < dim[1] / 4
    assert dim[1] > 20
    assert bright[0] == pytest.approx(bright[1], rel=0.3)


@pytest.mark.parametrize("block_shape", [(32, 32, 32), (61, 40, 97)])
def test_block_shape_and_blocks_at_once_change_no_byte(
    image, model, reference, tmp_path, block_shape
):
    mine = copy_of(image, tmp_path)
    run(mine, model, block_shape, InlineEngine(3))
    assert digests(mine) == reference


def test_kill_and_rerun_in_other_blocks_change_no_byte(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), "refine", "2", "local"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    run(mine, model, (32, 96, 64), InlineEngine(3))
    assert digests(mine) == reference


def test_two_parts_and_a_finish_change_no_byte(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    for index in (2, 1):
        config = dim_config(mine, (32, 32, 32), part=(index, 2))
        segment_part(config, factory=Peaks(), model=model)
    run(mine, model, (40, 48, 56))
    assert digests(mine) == reference


def test_a_voxel_is_seen_alike_in_every_tile_and_at_every_scale(image, model):
    plan = decide(request(dim_config(image, scales=(1, 2)), model, Peaks()), None, lambda _: None)
    assert plan.grids[0] is not None
    reader = ImageReader(plan.source)
    for view in plan.views:
        seen: dict[tuple[int, ...], np.float32] = {}
        overlaps = 0
        for tile in iter_grid(view.tiles.counts):
            window = view.tiles.window_box(tile)
            pixels = tile_image(plan, reader, 0, tile, view)
            # Every fifth voxel says enough, as windows begin anywhere.
            for index in iter_grid(as_zyx(n // 5 for n in window.shape)):
                at = tuple(5 * -(-a // 5) + 5 * i for a, i in zip(window.start, index, strict=True))
                if not window.contains(at):
                    continue
                value = pixels[tuple(a - b for a, b in zip(at, window.start, strict=True))]
                overlaps += at in seen
                assert seen.setdefault(at, value) == value
        assert overlaps > 100


def scaled_by(grid, shape):
    """Low limit and width at every voxel of level 0."""
    axes = [
        np.clip((np.arange(n) + 0.5) * c / n - 0.5, 0, c - 1)
        for n, c in zip(shape, grid.cells, strict=True)
    ]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    low = np.reshape(grid.low, grid.cells)
    root = np.reshape(grid.width, grid.cells) ** 0.125
    return (ndimage.map_coordinates(v, at, order=1) ** k for v, k in ((low, 1), (root, 8)))


def test_both_looks_see_an_image_as_if_it_had_the_same_light_everywhere(tmp_path):
    even = (law_truth().image(np.float64) - 100.0) / 1400.0
    rng = np.random.default_rng(3)
    low, width = rng.uniform(20, 60, 12), 10.0 ** rng.uniform(1.0, 3.0, 12)
    grid = LimitsGrid(SHAPE, (2, 2, 3), tuple(low), tuple(width))
    lows, widths = scaled_by(grid, SHAPE)
    images = (even, lows + widths * even)
    model = refined_model(tmp_path / "refiner")
    seen, refined = [], []
    for name, image, grids in zip("ab", images, ((), (grid,)), strict=True):
        path = write_image(
            tmp_path / f"{name}.zarr",
            [image.astype(np.float32)],
            chunks=(32,) * 3,
            scale=(0.5,) * 3,
        )
        reader = ImageReader(read_image(str(path)))
        config = dim_config(path).result
        plan = replace(make_plan(reader, model, config, 6.0, ((0.0, 1.0),)), grids=grids)
        seen.append(tile_image(plan, reader, 0, (0, 1, 1)))
        points = np.argwhere(law_truth().labels()[::4, ::4, ::4] > 0)[::9] * 4
        stars = Candidates(
            points.astype(np.int32),
            np.full(len(points), 0.9, np.float32),
            np.full((len(points), 96), 5.0, np.float32),
        )
        refined.append(refine_survivors(plan, reader, 0, stars))
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-4)
    assert len(refined[0]) > 50
    np.testing.assert_array_equal(refined[1].dist, refined[0].dist)  # rounded to 0.1 voxels
    np.testing.assert_allclose(refined[1].quality, refined[0].quality, atol=1e-5)


@pytest.mark.parametrize("diameter", [3.0, 6.0, 14.0, 30.0])
def test_a_place_has_the_same_limits_in_either_look(image, model, diameter):
    reader = ImageReader(read_image(str(image)))
    grid = LimitsGrid(SHAPE, (1, 1, 2), (0.0, 1.0), (1.0, 2.0))
    plan = make_plan(reader, model, dim_config(image).result, diameter, ((0.0, 1.0),))
    plan = replace(plan, grids=(grid,))
    first, second, look = plan.field_of(0), plan.look_field_of(0), plan.second_look
    for working in ((0.0, 0.0, 0.0), (3.0, 11.0, 7.0)):
        level = (np.array(working) + 0.5) * plan.working.zoom - 0.5
        looked = np.array(working) * look.scale + look.offset
        np.testing.assert_allclose(
            looked * second.step + second.offset, level * first.step + first.offset, atol=1e-9
        )


def test_without_dim_parts_the_result_is_that_of_global_limits(model, tmp_path):
    tables = []
    for limits in ("global", "local"):
        image = write_law_image(tmp_path / limits / "phantom.ome.zarr")
        run(image, model, SHAPE, limits=limits)
        tables.append((Path(image).parent / "phantom.anystar.csv").read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") > 50
    record = json.loads((tmp_path / "local" / "phantom.anystar.run.json").read_text())
    assert record["limits_grids"] == [None]


def test_what_limits_follow_is_said(image, model):
    notes = []
    plan = decide(request(dim_config(image), model, Peaks()), None, notes.append)
    said = next(text for text in map(str, notes) if "local limits: 2 x 2 x 3 cells" in text)
    assert "times brighter than with the limits of the whole" in said
    assert "cells" in grids_text(plan)
    assert grids_text(replace(plan, grids=())) == ""


def test_without_any_size_of_objects_local_limits_are_refused(image):
    config = dim_config(image).result
    native = replace(make_model(), diameter=None)
    with pytest.raises(ConfigError, match=r"--limits.*--diameter"):
        check_local(replace(config, diameter=None), native)
    check_local(config, native)
    with pytest.raises(ConfigError, match=r"--limits: got local beside --inside"):
        check_local(replace(config, inside=Inside("organoids", ())), native)
    with pytest.raises(ConfigError, match="global or local"):
        replace(config, limits="lokal")


def test_the_grid_stands_in_record_and_label_and_the_fingerprint_only_when_local(
    image, model, reference
):
    record = json.loads((Path(image).parent / "phantom.anystar.run.json").read_text())
    grid = record["limits_grids"][0]
    assert len(grid["low"]) == len(grid["width"]) == np.prod(grid["cells"])
    assert record["plan"]["local_limits"]["cells"] == grid["cells"]
    label = zarr.open_group(str(image), mode="r")["labels/anystar"]
    assert "local_limits" in json.dumps(dict(label.attrs))
    assert "limits_grids" not in json.dumps(dict(label.attrs))
    assert 'limits = "local"' in (Path(image).parent / "phantom.anystar.toml").read_text()
    source = read_image(str(image))
    plain = fingerprint_parts(source, model, ResultConfig(), "float32")
    local = fingerprint_parts(source, model, ResultConfig(limits="local"), "float32")
    assert local == plain | {"limits": "local"}
    assert "limits" not in plain


def test_an_image_that_changes_where_its_limits_were_read_is_noticed(image, model, tmp_path):
    mine = copy_of(image, tmp_path)

    def change(event):
        if getattr(event, "stage", "") == "paint" and hasattr(event, "seconds"):
            array = zarr.open_group(str(mine), mode="r+")["1"]
            array[0, 0, 0] += 1

    config = dim_config(mine, SHAPE)
    with pytest.raises(ImageChangedError, match="local intensity limits"):
        segment(config, change, factory=Peaks(), model=model)


@pytest.mark.network
def test_the_real_network_sees_the_same_in_any_blocks(tmp_path):
    first, second = (write_dim_real(tmp_path / name / "p.ome.zarr") for name in "ab")
    results = []
    for path, block_shape in ((first, (31, 61, 57)), (second, (32, 32, 32))):
        assert segment(real_local(path, block_shape)).instances > 20
        results.append(digests(path))
    assert results[0] == results[1]
    record = json.loads(Path(second).with_name("p.anystar.run.json").read_text())
    assert record["limits_grids"] != [None]


def real_local(image, block_shape):
    config = real_config(image, block_shape)
    return replace(config, result=replace(config.result, limits="local"))


def write_dim_real(path):
    """StarDist's own test volume, fading along x."""
    volume = tifffile.imread(Path(stardist.__file__).parent / "data" / "images" / "img3d.tif")
    length = volume.shape[2]
    fading = volume * np.float32(20.0) ** -(np.arange(length, dtype=np.float32) / length)
    return write_image(path, [fading], chunks=(16, 64, 64), scale=(0.5, 0.5, 0.5))


def test_kept_candidates_belong_to_the_limits_they_were_found_with(image, model, tmp_path):
    mine = copy_of(image, tmp_path)
    base = dim_config(mine, SHAPE)
    keeping = replace(base, label="a", run=replace(base.run, keep_candidates=True))
    segment(keeping, factory=Peaks(), model=model)
    stricter = replace(base, label="b", result=replace(base.result, prob_thresh=0.8))
    segment(stricter, factory=NoNetwork(), model=model)
    nothing = copy_of(image, tmp_path / "nothing")
    again = replace(stricter, image=str(nothing), home="", stem="")
    segment(again, factory=Peaks(), model=model)
    assert digests(mine, "b") == digests(nothing, "b")
    other = replace(base, label="c", result=replace(base.result, limits="global"))
    with pytest.raises(BlockError):  # none of these are kept: the network is asked
        segment(other, factory=NoNetwork(), model=model)
