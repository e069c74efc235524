"""The law with limits that follow the image: the same bytes for any blocks, workers and kills."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig
from anystar_batch.engine.engines import InlineEngine, open_engine
from anystar_batch.errors import ImageChangedError
from anystar_batch.geometry import as_zyx, iter_grid
from anystar_batch.pipeline.prepare import decide, request
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.plan import fingerprint_parts
from anystar_batch.stages.preprocess import tile_image
from tests.support.checkout import ROOT
from tests.support.dim_phantom import Peaks, dim_config, write_dim_image
from tests.support.law_phantom import SHAPE, copy_of, digests, refined_model
from tests.support.real_model import real_config, write_real_image


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


def test_kill_and_rerun_with_workers_change_no_byte(image, model, reference, tmp_path):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), "refine", "2", "local"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    with open_engine(2, 6 * 10**9) as engine:
        run(mine, model, (32, 96, 64), engine)
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


def test_the_report_shows_the_limits(image, reference):
    page = (Path(image).parent / "phantom.anystar.html").read_text()
    assert "Intensity limits" in page
    assert "local" in page


def test_an_image_that_changes_where_its_limits_were_read_is_noticed(image, model, tmp_path):
    mine = copy_of(image, tmp_path)

    def change(event):
        if getattr(event, "stage", "") == "paint" and hasattr(event, "seconds"):
            array = zarr.open_group(str(mine), mode="r+")["1"]
            array[0, 0, 0] += 1

    config = dim_config(mine, SHAPE)
    with pytest.raises(ImageChangedError, match="limits"):
        segment(config, change, factory=Peaks(), model=model)


@pytest.mark.network
def test_the_real_network_sees_the_same_in_any_blocks(tmp_path):
    first, second = (write_dim_real(tmp_path / name / "p.ome.zarr") for name in "ab")
    results = []
    for path, block_shape in ((first, (31, 104, 101)), (second, (32, 48, 40))):
        assert segment(real_local(path, block_shape)).instances > 20
        results.append(digests(path))
    assert results[0] == results[1]


def real_local(image, block_shape):
    from dataclasses import replace

    config = real_config(image, block_shape)
    return replace(config, result=replace(config.result, limits="local"))


def write_dim_real(path):
    path.parent.mkdir()
    write_real_image(path)
    group = zarr.open_group(str(path), mode="r+")
    for level in "01":
        array = group[level]
        values = array[:].astype(np.float64)
        fade = 20.0 ** -(np.arange(values.shape[2]) / values.shape[2])
        array[:] = np.rint(values * fade).astype(array.dtype)
    return path
