"""Surveys, cells and wanted tiles, against the same by brute force."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig
from anystar_batch.errors import ImageError
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.parsing import Quantity
from anystar_batch.stages import region_survey
from anystar_batch.stages.plan import make_plan
from anystar_batch.stages.region import Region, placed, region_numbers
from anystar_batch.stages.region_survey import (
    are_near,
    block_cells,
    level0_axis,
    reach,
    region_at,
    share,
    some_numbers,
    survey_region,
    wanted_tiles,
)
from tests.support.fakes import make_model, write_image

SHAPE = (24, 60, 70)
RNG = np.random.default_rng(8)


def plan_of(folder, mask, scale=(1.0, 1.0, 1.0), translation=(0.0, 0.0, 0.0), ids=(), **more):
    image = RNG.integers(0, 900, SHAPE).astype(np.uint16)
    path = write_image(folder / "image.ome.zarr", [image])
    name = folder / "mask.ome.zarr"
    write_image(name, [mask], scale=scale, translations=[translation], **more)
    reader = ImageReader(read_image(path))
    region = Region(read_image(str(name)), "mask", ids, str(folder))
    region, _ = placed(region, reader, 0, 0)
    model = make_model(tile=16, context=8, diameter=6.0, max_radius=10.0)
    config = ResultConfig(diameter=Quantity(7.5, "um"))
    return make_plan(reader, model, config, 7.5, ((0.0, 900.0),), region=region)


def blob(shape, *points):
    mask = np.zeros(shape, np.uint16)
    for k, point in enumerate(points):
        mask[point] = k + 1
    return mask


def thick(shape, *points):
    return maximum_filter(blob(shape, *points), 3)


@pytest.mark.parametrize("most", [1 << 21, 500, 40])
@pytest.mark.parametrize(
    ("mask", "scale", "translation"),
    [
        (thick(SHAPE, (3, 10, 12), (20, 14, 8)), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        (thick((8, 20, 20), (1, 19, 2)), (3.0, 3.0, 3.5), (1.0, 1.0, 1.25)),
        (thick((30, 30, 30), (6, 1, 0)), (0.5, 0.7, 0.9), (-2.0, 30.3, 22.0)),
    ],
)
def test_who_may_be_a_rival_is_near_and_only_tiles_with_near_cells_are_wanted(
    tmp_path, monkeypatch, mask, scale, translation, most
):
    monkeypatch.setattr(region_survey, "MOST_CELLS", most)
    plan = plan_of(tmp_path, mask, scale, translation, chunks=(8, 8, 8))
    points = np.stack(np.meshgrid(*map(np.arange, plan.working.shape), indexing="ij"), -1)
    points = points.reshape(-1, 3).astype(np.int32)
    level0 = np.stack([level0_axis(plan, k, points[:, k]) for k in range(3)], axis=1)
    numbers = region_numbers(plan.region, 0, level0)
    assert np.array_equal(region_at(plan, 0, points), numbers)
    here = points[numbers > 0]
    assert len(here)
    away = np.full(len(points), 10**6)
    for point in here:
        away = np.minimum(away, np.abs(points - point).max(axis=1))
    whole = Box.of_shape(plan.working.shape)
    near = are_near(plan, block_cells(plan, 0, whole), points)
    assert near[away <= reach(plan)].all()
    if most > 10**6 and scale[0] >= 1.0:  # a cell is a voxel of the region
        steps = np.array(scale) / plan.working.voxel_um
        assert not near[away > reach(plan) + 2 * steps.max()].any()
    tiles = wanted_tiles(plan, 0)
    field = near.reshape(plan.working.shape)
    for index in iter_grid(plan.tiles.counts):
        core = plan.tiles.core_box(index)
        assert tiles[index] == field[core.slices].any()
        cells = block_cells(plan, 0, core)
        mine = points.reshape(*field.shape, 3)[core.slices].reshape(-1, 3)
        assert np.array_equal(are_near(plan, cells, mine), field[core.slices].reshape(-1))


def test_a_survey_counts_voxels_and_knows_which_numbers_are_there(tmp_path):
    mask = blob(SHAPE, (3, 10, 12), (20, 14, 8), (23, 59, 69))
    plan = plan_of(tmp_path, mask, ids=((2, 2), (5, 9), (3, 4)), chunks=(8, 8, 8))
    survey = survey_region(plan.region, plan.source, 0)
    assert survey.voxels == 2
    assert survey.present == (0, 2)
    assert survey.grid.sum() == 2
    assert share(plan.region, plan.source, (0,)) == pytest.approx(2 / mask.size)
    assert some_numbers(plan.region, plan.source, (0,), 9) == [1, 2, 3]
    assert some_numbers(plan.region, plan.source, (0,), 2) == [1, 2]


def test_what_is_not_stored_and_not_zero_counts(tmp_path):
    import zarr

    plan = plan_of(tmp_path, blob(SHAPE), chunks=(8, 8, 8))
    path = f"{plan.region.source.path}/0"
    array = zarr.create_array(
        path, shape=SHAPE, dtype="uint16", chunks=(8, 8, 8), fill_value=4, overwrite=True
    )
    array[:8] = 0
    region = replace(plan.region, content="filled", source=read_image(plan.region.source.path))
    survey = survey_region(region, plan.source, 0)
    assert survey.voxels == (SHAPE[0] - 8) * SHAPE[1] * SHAPE[2]


def test_numbers_below_zero_are_refused(tmp_path):
    mask = blob(SHAPE, (3, 10, 12)).astype(np.int16)
    mask[5, 5, 5] = -1
    plan = plan_of(tmp_path, mask)
    with pytest.raises(ImageError, match=r"found the number -1; expected 0 outside"):
        survey_region(plan.region, plan.source, 0)
