"""What is wrong with level 0 is told: lost chunks, planes without a number."""

from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.stages import level_zero
from anystar_batch.stages.level_zero import level_zero_faults
from tests.support.fakes import write_image


def faults(path, limits=(60.0, 900.0), times=(0,)):
    return level_zero_faults(ImageReader(read_image(str(path))), 0, dict.fromkeys(times, limits))


def noise(shape=(32, 48, 64), dtype=np.float32):
    return np.random.default_rng(1).normal(100, 10, shape).astype(dtype)


def test_a_sound_image_has_no_faults(tmp_path):
    for dtype in (np.float32, np.uint16):
        assert (
            faults(write_image(tmp_path / "a.zarr", [noise(dtype=dtype)], chunks=(16,) * 3)) == []
        )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_lost_chunks_are_told_beyond_a_share(tmp_path, version):
    path = write_image(tmp_path / "a.zarr", [noise(dtype=np.uint16)], chunks=(16,) * 3,
                       version=version)  # fmt: skip
    folder = Path(path, "0/c" if version == "0.5" else "0")
    (folder / "1/2/3").unlink()
    assert faults(path) == []
    (folder / "0/1/2").unlink()
    (text,) = faults(path)
    assert text.startswith("level 0: 2 of 24 chunks that were looked for are not stored and read")
    assert "as 0, although what is stored lies between 60 and 900 (first at voxel (0, 16, 32))" in (
        text
    )


def test_the_background_of_a_sparse_image_is_no_fault(tmp_path):
    image = np.zeros((32, 48, 64), np.uint16)
    image[:16, :16, :16] = noise((16, 16, 16), np.uint16)
    path = write_image(tmp_path / "a.zarr", [image], chunks=(16,) * 3)
    assert not (tmp_path / "a.zarr/0/c/1/2/3").exists()
    assert faults(path, limits=(0.0, 130.0)) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_without_a_number_are_told(tmp_path, axis):
    image = noise()
    planes = np.moveaxis(image, axis, 0)
    planes[5:8], planes[20] = np.nan, np.inf
    (text,) = faults(write_image(tmp_path / "a.zarr", [image], chunks=(16,) * 3))
    assert f"planes {'zyx'[axis]} = 5 to 7, 20 hold no number" in text


def test_a_single_voxel_without_a_number_is_no_plane(tmp_path):
    image = noise()
    image[5, 12, 16] = np.nan
    assert faults(write_image(tmp_path / "a.zarr", [image], chunks=(16,) * 3)) == []


def test_a_few_times_are_looked_at_and_those_without_contrast_are_not(tmp_path):
    frames = np.stack([noise() for _ in range(8)])
    frames[3, 9] = np.nan
    path = write_image(tmp_path / "a.zarr", [frames], axes="tzyx", chunks=(1, 16, 16, 16))
    assert len(faults(path, times=(3,))) == 1
    assert "level 0, time 3: planes z = 9" in faults(path, times=(3,))[0]
    assert level_zero_faults(ImageReader(read_image(path)), 0, {3: None}) == []


def test_large_chunks_are_not_all_decoded(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.zarr", [noise((64, 32, 32))], chunks=(4, 32, 32))
    monkeypatch.setattr(level_zero, "DECODED", 4 * 4 * 4096)
    read = []
    real = ImageReader.read_box
    monkeypatch.setattr(
        ImageReader, "read_box", lambda self, *a: (read.append(a[-1]), real(self, *a))[1]
    )
    assert faults(path) == []
    along_z = {box.start[0] for box in read if box.shape[0] == 4}
    assert along_z == {0, 16, 32, 48}
