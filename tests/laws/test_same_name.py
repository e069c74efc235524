"""One directory of results, two images of one name: neither gets the other's label."""

import pathlib
import shutil

import pytest

from anystar_batch.errors import OutputExistsError
from anystar_batch.pipeline.dry_run import Standing, standing
from anystar_batch.pipeline.run_record import NOTHING_TO_DO
from tests.support import tiny_volume


@pytest.fixture
def images(tmp_path):
    """Two images of equal metadata, in two directories."""
    tiny_volume.small_image(tmp_path / "a/x.ome.zarr")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    return tmp_path / "a/x.ome.zarr", tmp_path / "b/x.ome.zarr"


def test_the_label_of_another_image_is_not_taken_for_ours(images, tmp_path):
    first, second = images
    out = tmp_path / "out"
    tiny_volume.segment(first, output=out)
    with pytest.raises(OutputExistsError, match=f"made of another image of this name: {first};"):
        tiny_volume.segment(second, output=out)
    config = tiny_volume.config(second, output=out)
    assert standing(config, tiny_volume.model())[0] is Standing.OTHER
    assert tiny_volume.segment(first, output=out).status == NOTHING_TO_DO
    pathlib.Path(tmp_path / "link").symlink_to(tmp_path / "a")
    assert tiny_volume.segment(tmp_path / "link/x.ome.zarr", output=out).status == NOTHING_TO_DO
    tiny_volume.segment(second, output=out, run={"overwrite": True})
    with pytest.raises(OutputExistsError, match=f"{second};"):
        tiny_volume.segment(first, output=out)


def test_image_and_results_may_move_together(images, tmp_path):
    tiny_volume.segment(images[0], output=tmp_path / "a/out")
    (tmp_path / "a").rename(tmp_path / "c")
    moved = tiny_volume.segment(tmp_path / "c/x.ome.zarr", output=tmp_path / "c/out")
    assert moved.status == NOTHING_TO_DO
