"""The demo, with the real network: what a new user sees first."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystar_batch.archive.images import read_image
from anystar_batch.events import ignore
from anystar_batch.pipeline.demo import VOXEL_UM, nuclei, run_demo, write_example


def test_the_demo_image_is_a_volume_with_a_voxel_size(tmp_path):
    write_example(tmp_path / "nuclei.ome.zarr", nuclei(), VOXEL_UM)
    source = read_image(str(tmp_path / "nuclei.ome.zarr"))
    assert source.shape_zyx(0) == (31, 61, 57)
    assert not source.unit_assumed
    assert len(source.levels) == 2


@pytest.mark.network
def test_the_demo_leaves_labels_a_table_and_a_coloured_picture(tmp_path):
    made = run_demo(tmp_path / "demo", ignore)
    with Path(made.summary.stats).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == made.summary.instances > 20
    picture = np.asarray(Image.open(made.overlay)).astype(int)
    assert picture.ndim == 3
    assert (np.ptp(picture, axis=-1) > 60).mean() > 0.005  # outlines are coloured, voxels are grey


@pytest.mark.network
def test_the_demo_replaces_an_earlier_demo(tmp_path):
    first = run_demo(tmp_path, ignore).overlay.read_bytes()
    assert run_demo(tmp_path, ignore).overlay.read_bytes() == first
