from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import ndimage

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.errors import ConfigError
from anystar_batch.geometry import Box
from trainer.__main__ import main
from trainer.synthesis.phantom import Phantom
from trainer.synthesis.phantom_zarr import LABEL, levels, mean, write

SHAPE = (40, 70, 66)


@pytest.fixture(scope="module")
def whole():
    phantom = Phantom(SHAPE, 4.0, "dense", 3)
    return phantom, *phantom.both(Box.of_shape(SHAPE))


@pytest.mark.parametrize(
    "box",
    [
        Box((0, 0, 0), (7, 5, 3)),
        Box((13, 22, 31), (40, 41, 66)),
        Box((39, 69, 65), SHAPE),
        Box((3, 1, 2), (4, 70, 66)),
    ],
)
def test_a_box_alone_has_the_voxels_of_the_whole(whole, box):
    phantom, image, labels = whole
    np.testing.assert_array_equal(phantom.image(box), image[box.slices])
    np.testing.assert_array_equal(phantom.labels(box), labels[box.slices])


def test_a_larger_volume_of_the_same_cells_goes_on(whole):
    _, image, labels = whole
    larger = Phantom((40, 70, 70), 4.0, "dense", 3)
    assert larger.cells == Phantom(SHAPE, 4.0, "dense", 3).cells
    np.testing.assert_array_equal(larger.labels(Box.of_shape(SHAPE)), labels)
    # Light from beyond the old border comes in near it only.
    inner = Box((0, 0, 0), (40, 70, 40))
    np.testing.assert_array_equal(larger.image(inner), image[inner.slices])


def test_objects_are_star_shaped_pieces_and_touch(whole):
    _, _, labels = whole
    radii, touching = [], 0
    inner = labels[2:-2, 2:-2, 2:-2]
    touching = np.count_nonzero((inner[1:] != inner[:-1]) & (inner[1:] > 0) & (inner[:-1] > 0))
    for n, where in enumerate(ndimage.find_objects(labels), start=1):
        if where is None:
            continue
        mask = labels[where] == n
        cut = any(s.start == 0 or s.stop == e for s, e in zip(where, SHAPE, strict=True))
        if not cut:
            assert ndimage.label(mask)[1] == 1
            radii.append(np.cbrt(3 * mask.sum() / (4 * np.pi)))
    assert len(radii) > 50
    assert 2.8 < np.median(radii) < 4.6
    assert touching > 500


def test_objects_are_brighter_than_what_is_between_and_noise_is_everywhere(whole):
    _, image, labels = whole
    assert np.median(image[labels > 0]) > 2 * np.median(image[labels == 0])
    assert image.min() > 50
    flat = image[labels == 0].astype(float)
    assert flat.std() > 5


def test_the_seed_and_the_density_matter(whole):
    phantom, image, labels = whole
    box = Box.of_shape(SHAPE)
    other, names = Phantom(SHAPE, 4.0, "dense", 4).both(box)
    assert (other != image).mean() > 0.9
    # Neighbouring seeds share nothing, not even the streams that are a small number apart.
    assert abs(int(phantom._key) - int(dataclasses.replace(phantom, seed=4)._key)) > 1000
    assert (labels > 0)[names > 0].mean() < 0.75
    sparse = Phantom(SHAPE, 4.0, "sparse", 3).labels(box)
    assert 0 < (sparse > 0).mean() < 0.3 * (labels > 0).mean()


@pytest.mark.parametrize(("chunks", "workers"), [(16, 1), (64, 1)])
def test_every_chunking_writes_the_same_pyramids(whole, tmp_path, chunks, workers):
    phantom, image, labels = whole
    path = tmp_path / "p.ome.zarr"
    write(phantom, path, chunks, workers)
    for place, wanted in ((path, image), (path / "labels" / LABEL, labels)):
        source = read_image(str(place))
        assert [source.shape_zyx(k) for k in range(len(source.levels))] == [SHAPE, (20, 35, 33)]
        reader = ImageReader(source)
        np.testing.assert_array_equal(reader.read_box(0, 0, 0, Box.of_shape(SHAPE)), wanted)
        coarse = reader.read_box(1, 0, 0, Box.of_shape((20, 35, 33)))
        window = wanted[10:12, 20:22, 30:32]
        if place == path:
            assert coarse[5, 10, 15] == np.floor(window.mean() + 0.5)
        else:
            counts = np.bincount(window.ravel())
            assert counts[coarse[5, 10, 15]] == counts.max()
    assert read_image(str(path)).chunks_zyx(0) == (min(chunks, 40), chunks, chunks)


def test_means_round_half_up_and_keep_an_odd_last_voxel():
    values = np.arange(3 * 2 * 4, dtype=np.uint16).reshape(3, 2, 4)
    found = mean(values, Box((0, 0, 0), (2, 2, 2)), (3, 2, 4))
    # z: 0 and 1 together, 2 alone; y: an axis of two is not halved; x: in pairs.
    wanted = [[[5, 7], [9, 11]], [[17, 19], [21, 23]]]
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ValueError, match="expected its windows"):
        mean(values, Box((0, 0, 0), (3, 2, 2)), (3, 2, 4))


def test_a_large_image_is_sharded():
    (full, *_) = levels((4096, 4096, 4096), 64)
    assert full.shards == (256, 256, 256)
    assert levels((100, 2, 64), 64)[-1].shape == (50, 2, 32)


def test_the_command_writes_what_the_options_say(tmp_path, capsys):
    path = tmp_path / "p.ome.zarr"
    options = ["--shape", "20", "24", "28", "--density", "sparse", "--seed", "9"]
    assert main(["phantom", *options, "--radius", "3", str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    attributes = json.loads((path / "labels" / LABEL / "zarr.json").read_text())["attributes"]
    assert attributes["anystar-batch"]["phantom"] == {
        "shape": [20, 24, 28], "radius": 3.0, "density": "sparse", "seed": 9,
    }  # fmt: skip
    assert main(["phantom", *options, str(path)]) == 2
    assert "expected a new path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--radius", "1"], "expected 2 to 64 voxels"),
        (["--density", "thick"], "expected sparse or dense"),
        (["--chunks", "48"], "expected one of 16, 32"),
        (["--seed", "-1"], "expected 0 or more"),
        (["--workers", "0"], "expected 1 or more"),
        (["--shape", "1", "9", "9"], "expected 2 voxels or more"),
        (["--shape", "30000", "30000", "30000", "--radius", "2"], "fewer than 2\\^32"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, capsys, more, message):
    import re

    path = tmp_path / "p.ome.zarr"
    assert main(["phantom", "--shape", "20", "20", "20", *more, str(path)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not path.exists()


def test_a_density_of_another_name_is_refused_by_the_phantom_itself():
    with pytest.raises(ConfigError, match="density 'x'"):
        Phantom((9, 9, 9), density="x")
