"""Levels whose metadata contradict level 0: named, not read, and mended in the label."""

import json
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive import images
from anystar_batch.archive.label_image import label_spec
from anystar_batch.archive.ngff import metadata_fingerprint
from tests.support.fakes import write_image


def pyramid(folder, version="0.4", shapes=((16, 40, 40), (16, 20, 20), (16, 10, 10)), **more):
    levels = [np.zeros(shape, np.uint8) for shape in shapes]
    return write_image(folder / "a.zarr", levels, version=version, scale=(1.0, 0.5, 0.5), **more)


def transforms(path):
    """The datasets of a multiscale and a function that writes them back."""
    file = Path(path, "zarr.json" if Path(path, "zarr.json").exists() else ".zattrs")
    document = json.loads(file.read_text())
    attributes = document.get("attributes", document)
    entry = attributes.get("ome", attributes)["multiscales"][0]
    return entry, lambda: file.write_text(json.dumps(document))


def rescale(path, level, *steps):
    entry, save = transforms(path)
    for step in steps:
        kind = next(iter(step))
        dataset = entry["datasets"][level]["coordinateTransformations"]
        dataset[:] = [t for t in dataset if t["type"] != kind] + [{"type": kind, kind: step[kind]}]
    save()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_sound_pyramid_has_no_faults(tmp_path, version):
    source = images.read_image(pyramid(tmp_path, version))
    assert source.readable == (0, 1, 2)
    assert source.left_out == ()
    assert all("fault" not in level for level in metadata_fingerprint(source)["levels"])


@pytest.mark.parametrize("shapes", [
    ((21, 101, 99), (21, 50, 49), (10, 25, 24), (5, 12, 12), (2, 6, 6)),
    ((21, 101, 99), (21, 51, 50), (11, 26, 25), (6, 13, 13), (3, 7, 7)),
])  # fmt: skip
def test_floor_and_ceil_shapes_with_whole_factors_are_sound(tmp_path, shapes):
    path = pyramid(tmp_path, shapes=shapes)
    for k in range(1, len(shapes)):
        rescale(path, k, {"scale": [1.0 * 2 ** (k - 1), 0.5 * 2**k, 0.5 * 2**k]})
    assert images.read_image(path).readable == tuple(range(len(shapes)))


WRONG = {
    "every level declares level 0's": ({"scale": [1.0, 0.5, 0.5]}, "its scale contradicts"),
    "divided instead of multiplied": ({"scale": [1.0, 0.25, 0.25]}, "its scale contradicts"),
    "too large": ({"scale": [1.0, 2.0, 1.0]}, "along y it spans 20 voxels of 2, that is 40"),
    "one axis forgotten": ({"scale": [1.0, 0.5, 1.0]}, "along y it spans"),
    "translation in voxels": (
        {"translation": [0.0, 7.5, 7.5]},
        "along y its translation differs from that of level 0 by 7.5 of its voxels of 1",
    ),
    "translation elsewhere": ({"translation": [-1.5, 0.0, 0.0]}, "along z its translation"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_contradicts_level_0_is_a_fault_and_the_label_lies_by_shape(tmp_path, kind, version):
    wrong, said = WRONG[kind]
    path = pyramid(tmp_path, version)
    sound = metadata_fingerprint(images.read_image(path))
    rescale(path, 1, wrong)
    source = images.read_image(path)
    assert said in source.levels[1].fault
    assert source.readable == (0, 2)
    assert source.scale_um(1) == (1.0, 1.0, 1.0)
    assert metadata_fingerprint(source) != sound
    label = label_spec(source).multiscales["datasets"]
    assert label[1]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 1.0, 1.0]},
        {"type": "translation", "translation": [0.0, 0.25, 0.25]},
    ]
    untouched, _ = transforms(path)
    for k in (0, 2):
        expected = untouched["datasets"][k]["coordinateTransformations"]
        assert label[k]["coordinateTransformations"] == expected


def test_two_voxels_less_at_the_same_scale_are_a_fault_of_thin_levels_too(tmp_path):
    path = pyramid(tmp_path, shapes=((3, 40, 40), (2, 20, 20)))
    rescale(path, 1, {"scale": [1.0, 1.0, 1.0]})
    fault = images.read_image(path).levels[1].fault
    assert fault == "along z it has 2 voxels, level 0 3, but its scale is 1, no larger than 1"


def test_transforms_of_the_whole_multiscale_are_kept_out_of_the_label_s_levels(tmp_path):
    path = pyramid(tmp_path)
    rescale(path, 1, {"scale": [1.0, 0.5, 0.5]})
    entry, save = transforms(path)
    entry["coordinateTransformations"] = [
        {"type": "scale", "scale": [2.0, 2.0, 2.0]},
        {"type": "translation", "translation": [9.0, 8.0, 7.0]},
    ]
    save()
    source = images.read_image(path)
    assert source.levels[1].scale == (2.0, 2.0, 2.0)
    assert source.levels[1].translation == (9.0, 8.5, 7.5)
    label = label_spec(source).multiscales
    assert label["coordinateTransformations"] == entry["coordinateTransformations"]
    assert label["datasets"][1]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 1.0, 1.0]},
        {"type": "translation", "translation": [0.0, 0.25, 0.25]},
    ]


def test_an_undeclared_translation_beside_a_stage_position_is_no_fault(tmp_path):
    path = pyramid(tmp_path)
    rescale(path, 0, {"translation": [500.0, 1000.0, 2000.0]})
    assert images.read_image(path).readable == (0, 1, 2)


def test_levels_out_of_order_are_left_out_with_their_datasets(tmp_path):
    path = pyramid(tmp_path)
    entry, save = transforms(path)
    entry["datasets"] = [entry["datasets"][k] for k in (0, 2, 1)]
    save()
    source = images.read_image(path)
    assert [level.path for level in source.levels] == ["0", "2"]
    ((left_out, why),) = source.left_out
    assert left_out == "1"
    assert "its shape (16, 20, 20) is larger than that of 2, (16, 10, 10)" in why
    assert [d["path"] for d in label_spec(source).multiscales["datasets"]] == ["0", "2"]
