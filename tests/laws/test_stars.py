"""The law of published stars: the same bytes whatever the work, and the label painted again."""

import functools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.star_group import StarReader, has_stars
from anystar_batch.errors import ConfigError, OutputExistsError
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline import segment as pipeline
from anystar_batch.pipeline.dry_run import Standing, preview, standing
from anystar_batch.pipeline.export import ExportConfig, export
from anystar_batch.pipeline.segment import segment
from tests.support.fakes import TruthPredictor, mean_level, random_ellipsoids, write_image
from tests.support.law_phantom import (
    MOVED,
    copy_of,
    digests,
    law_config,
    law_model,
    refined_config,
    refined_model,
)

SHAPE = (31, 47, 53)


@functools.lru_cache(maxsize=1)
def crowd():
    """Objects that overlap, on a volume that nothing divides."""
    return random_ellipsoids(SHAPE, 45, 7, radius=(3.5, 8.0))


def network():
    return TruthPredictor(crowd(), core=0.7, wobble=0.5, ties=True)


def crowded_image(path):
    levels = [crowd().image()]
    levels.append(mean_level(levels[0], (1, 2, 2)))
    return write_image(path, levels, chunks=(16, 32, 32), scale=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Without stars."""
    path = crowded_image(tmp_path_factory.mktemp("stars") / "phantom.ome.zarr")
    run(path, SHAPE)
    return path


@pytest.fixture(scope="module")
def starred(image, tmp_path_factory):
    """With stars, of one block."""
    mine = copy_of(image, tmp_path_factory.mktemp("starred"))
    run(mine, SHAPE, stars=True)
    return mine


def run(image, block_shape, engine=None, **options):
    config = law_config(image, block_shape, report=False, **options)
    return segment(config, engine=engine, factory=network(), model=law_model())


def stop(*_):
    raise RuntimeError


def label_of(image):
    return f"{image}/labels/anystar"


def stars_of(found):
    return {name: digest for name, digest in found.items() if name.startswith("stars/")}


def test_stars_change_no_other_byte_of_the_label(image, starred):
    plain, with_stars = digests(image), digests(starred)
    assert stars_of(with_stars)
    assert with_stars == plain | stars_of(with_stars)


def test_blocks_batches_and_a_kill_change_no_byte(starred, tmp_path, monkeypatch):
    from anystar_batch.stages import star_rows

    monkeypatch.setattr(star_rows, "BATCH", 7)
    mine = copy_of(starred, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(star_rows.StarWriter, "close", stop)  # files are there, and not all
        with pytest.raises(RuntimeError):
            run(mine, (20, 24, 28), stars=True)
    run(mine, (16, 32, 20), stars=True)
    assert digests(mine) == digests(starred)
    assert [path.name for path in (mine / "labels").iterdir() if path.is_dir()] == ["anystar"]


def test_rows_are_those_of_the_table_in_the_order_of_labels(starred):
    stars = StarReader(label_of(starred))
    labels = stars.rows("label", 0, None)
    assert labels.tolist() == list(range(1, stars.frame.count + 1))
    points = stars.rows("points", 0, None)
    assert (np.lexsort(points.T[::-1]) == np.arange(len(points))).all()
    voxels = zarr.open_array(f"{label_of(starred)}/0", mode="r")[...]
    assert int(voxels.max()) == stars.frame.count


def test_a_label_without_stars_gets_them_and_keeps_its_own_files(image, starred, tmp_path):
    mine = with_label(image, tmp_path)
    assert (
        preview(law_config(mine, stars=True), factory=network(), model=law_model()).status
        == "add stars"
    )
    before = mine.joinpath("labels/anystar/0/zarr.json").stat().st_ino
    wanted = law_config(mine, stars=True)
    assert standing(wanted, law_model())[0] is Standing.WANTED
    assert run(mine, (16, 32, 20), stars=True).status == "done"
    assert standing(wanted, law_model())[0] is Standing.CURRENT
    assert digests(mine) == digests(starred)
    assert mine.joinpath("labels/anystar/0/zarr.json").stat().st_ino == before
    assert run(mine, SHAPE, stars=True).status == "nothing to do"
    assert run(mine, SHAPE).status == "nothing to do"
    assert has_stars(label_of(mine))
    assert not (tmp_path / "phantom.anystar.work").exists()


def with_label(image, folder):
    shutil.copy(Path(image).parent / "phantom.anystar.csv", folder)
    return Path(shutil.copytree(image, folder / "phantom.ome.zarr"))


def test_an_edited_label_gets_no_stars_and_stays_as_it_is(image, tmp_path):
    mine = with_label(image, tmp_path)
    voxels = zarr.open_array(f"{label_of(mine)}/0", mode="r+")
    voxels[15, 20, 20] = 9999
    edited = digests(mine)
    with pytest.raises(OutputExistsError, match=r"edited.*nothing is changed.*--overwrite"):
        run(mine, SHAPE, stars=True)
    assert digests(mine) == edited
    run(mine, SHAPE, stars=True, overwrite=True)
    assert has_stars(label_of(mine))


def test_a_run_begun_with_stars_and_ended_without_leaves_none(image, tmp_path):
    mine = copy_of(image, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "publish", stop)
        with pytest.raises(RuntimeError):
            run(mine, SHAPE, stars=True)
    run(mine, SHAPE)
    assert digests(mine) == digests(image)


def repainted(image, folder, **options):
    config = ExportConfig(str(image), str(folder / "again.zarr"), **options)
    return Path(export(config).path)


def level_0(group):
    return {path.relative_to(group / "0"): path.read_bytes()
            for path in (group / "0").rglob("*") if path.is_file()}  # fmt: skip


def test_the_label_is_painted_again_byte_by_byte(starred, tmp_path):
    again = repainted(starred, tmp_path)
    assert level_0(again) == level_0(Path(label_of(starred)))


def test_refined_moved_and_expanded_stars_paint_their_label(image, tmp_path):
    mine = copy_of(image, tmp_path)
    base = refined_config(mine, (20, 24, 28), stars=True, report=False)
    # Working voxels that are none of level 0, nor whole multiples of them.
    result = replace(base.result, **MOVED, diameter=Quantity(7.3, "um"))
    model = refined_model(tmp_path / "refiner")
    segment(replace(base, result=result), factory=network(), model=model)
    stars = StarReader(label_of(mine))
    assert stars.frame.is_expanded
    assert stars.frame.has_quality
    assert not stars.frame.lattice.is_integer
    assert level_0(repainted(mine, tmp_path)) == level_0(Path(label_of(mine)))


def test_smaller_voxels_whose_centres_are_those_of_the_label_have_its_labels(starred, tmp_path):
    fine = repainted(starred, tmp_path, voxel_size=(0.5 / 3, 0.5, 0.5 / 3))
    voxels = zarr.open_array(f"{label_of(starred)}/0", mode="r")[...]
    painted = zarr.open_array(str(fine / "0"), mode="r")[...]
    assert painted.shape == (SHAPE[0] * 3, SHAPE[1], SHAPE[2] * 3)
    np.testing.assert_array_equal(painted[1::3, :, 1::3], voxels)
    (entry,) = zarr.open_group(str(fine), mode="r").attrs["ome"]["multiscales"]
    scale, shift = entry["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([1 / 6, 0.5, 1 / 6])
    # The first voxel begins where the label does: half a voxel before the centre of its voxel 0.
    assert shift["translation"] == pytest.approx([-1 / 6, 0.0, -1 / 6])


def test_a_level_called_stars_is_refused(tmp_path):
    path = crowded_image(tmp_path / "phantom.ome.zarr")
    root = zarr.open_group(path, mode="r+")
    ome = root.attrs["ome"]
    ome["multiscales"][0]["datasets"][1]["path"] = "stars"
    root.attrs["ome"] = ome
    Path(path, "1").rename(Path(path, "stars"))
    with pytest.raises(ConfigError, match=r"--stars.*a level of the image"):
        run(path, SHAPE, stars=True)
