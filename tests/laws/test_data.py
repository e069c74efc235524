"""Real volumes through the real command, where ANYSTAR_BATCH_DATA names their folder."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from stardist.matching import matching
from typer.testing import CliRunner

from anystar_batch.cli import app
from tests.support.fakes import mean_level, write_image

pytestmark = [pytest.mark.data, pytest.mark.network]

RUNNER = CliRunner()


def folder(name):
    return Path(os.environ["ANYSTAR_BATCH_DATA"]) / name


def command(*arguments):
    done = RUNNER.invoke(app, ["segment", *map(str, arguments), "--quiet"])
    assert done.exit_code == 0, done.output
    return done


def test_an_embryo_of_bbbc050_with_defaults(tmp_path):
    """A floor well below the model card: it fails when weights, probe or scale break."""
    image = tifffile.imread(folder("bbbc050_train") / "Emb02_t451_image.tif")
    truth = tifffile.imread(folder("bbbc050_train") / "Emb02_t451_labels.tif")
    levels = [image, mean_level(image, (1, 2, 2))]
    path = write_image(tmp_path / "embryo.ome.zarr", levels, scale=(1.75, 0.8, 0.8), version="0.4")
    command(path)
    labels = zarr.open_array(f"{path}/labels/anystar/0", mode="r")[...]
    assert labels.shape == truth.shape
    assert matching(truth, labels.astype(np.int32), thresh=0.3).f1 > 0.5


def test_a_time_series_of_a_fly_embryo_with_diameter(tmp_path):
    frames = [tifffile.imread(folder("tgmm_mini_drosophila") / f"t{t}_image.tif") for t in range(5)]
    path = write_image(
        tmp_path / "fly.ome.zarr", [np.stack(frames)], axes="tzyx", scale=(2.0, 1.0, 1.0)
    )
    command(path, "--diameter", "11um", "--time", "0,2-3")
    with (tmp_path / "fly.anystar.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["t"] for r in rows} <= {"0", "2", "3"}
    assert [int(r["label"]) for r in rows] == list(range(1, len(rows) + 1))
    labels = zarr.open_array(f"{path}/labels/anystar/0", mode="r")
    assert labels.shape == (5, *frames[0].shape)
    assert not labels[1].any()
    assert not labels[4].any()
    assert len(np.unique(labels[0])) > 5


@pytest.mark.parametrize(
    "name", ["nogt_xbrain_microct_mouse", "nogt_neubias_nuclei", "nogt_cellseg3d_c5"]
)
def test_volumes_of_other_modalities_go_through(tmp_path, name):
    (file,) = folder(name).glob("*image.tif")
    image = tifffile.imread(file)[:, :96, :96]
    path = write_image(tmp_path / "image.ome.zarr", [image], unit=None)
    done = command(path, "--diameter", "9px")
    assert "no unit" in done.stderr
    assert (tmp_path / "image.anystar.csv").exists()
