"""The metadata of other writers: axes, voxel sizes, levels and channels as they mean them."""

import json
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive.discovery import images_in
from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_image import label_spec
from anystar_batch.archive.label_list import existing_labels
from anystar_batch.archive.label_place import in_image
from anystar_batch.archive.labels import create_label, publish
from anystar_batch.errors import ImageError
from anystar_batch.geometry import Box
from tests.support.writers import WRITERS, write


def test_there_are_enough():
    assert len({writer.name for writer in WRITERS}) >= 12


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_an_image_is_read_as_its_writer_means_it(tmp_path, writer):
    root = write(writer, tmp_path / "image.ome.zarr")
    found = images_in(root)
    assert [path[len(root) :].lstrip("/") for path in found] == list(writer.images)
    for path, expected in zip(found, writer.images.values(), strict=True):
        source = read_image(path)
        assert source.version == expected.version
        assert "".join(axis.name for axis in source.axes) == expected.axes
        assert [source.shape_zyx(k) for k in range(len(source.levels))] == expected.shapes
        voxels = [source.scale_um(k) for k in range(len(source.levels))]
        assert np.allclose(voxels, expected.voxels)
        assert np.allclose(source.translation_um(0), expected.position)
        assert source.channels == expected.channels
        assert source.num_times == expected.times
        assert source.others == expected.others
        assert source.unit_assumed == expected.is_unit_assumed
        assert not source.unknown_units
        paths = expected.paths or tuple(map(str, range(len(expected.shapes))))
        assert tuple(level.path for level in source.levels) == paths
        coarsest = len(source.levels) - 1
        box = Box.of_shape(source.shape_zyx(coarsest))
        assert not ImageReader(source).read_box(coarsest, 0, 0, box).any()


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_a_label_among_its_images_is_read_back_in_the_same_places(tmp_path, writer):
    root = write(writer, tmp_path / "image.ome.zarr")
    for path in images_in(root):
        source = read_image(path)
        spec, label = label_spec(source), in_image(path, "anystar")
        create_label(label, spec, "0" * 64)
        made = read_image(publish(label, spec, "0" * 64, {"instances": 0}))
        assert list(existing_labels(path)) == ["anystar"]
        assert [level.path for level in made.levels] == [level.path for level in source.levels]
        for k in range(len(source.levels)):
            assert made.shape_zyx(k) == source.shape_zyx(k)
            assert made.scale_um(k) == source.scale_um(k)
            assert made.translation_um(k) == source.translation_um(k)


def test_both_formats_side_by_side_are_read_by_the_one_that_is_whole(tmp_path):
    """Zarr v3 metadata count where they have OME keys of their own, whatever lies beside."""
    old, new = WRITERS[:2]
    root = Path(write(old, tmp_path / "image.ome.zarr"))
    write(new, root)
    assert [read_image(path).version for path in images_in(str(root))] == ["0.5", "0.5"]
    path = f"{root}/0"
    source = read_image(path)
    (root / "0/labels").mkdir()
    (root / "0/labels/.zgroup").write_text('{"zarr_format": 2}')
    (root / "0/labels/.zattrs").write_text('{"labels": []}')
    spec, label = label_spec(source), in_image(path, "anystar")
    create_label(label, spec, "0" * 64)
    assert read_image(publish(label, spec, "0" * 64, {"instances": 0})).version == "0.5"
    assert list(existing_labels(path)) == ["anystar"]


@pytest.mark.parametrize("attributes", [{}, {"multiscales": [{"version": "0.4"}]}])
def test_formats_of_which_the_newer_lacks_its_keys_are_named(tmp_path, attributes):
    writer = next(w for w in WRITERS if w.name == "ngff-zarr")
    root = Path(write(writer, tmp_path / "image.ome.zarr"))
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (root / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(ImageError, match=r"Zarr v3.*move the zarr\.json files away"):
        read_image(images_in(str(root))[0])
    (root / "zarr.json").unlink()
    assert read_image(str(root)).version == "0.4"


def test_an_array_of_the_other_format_is_named(tmp_path):
    old, new = WRITERS[:2]
    root = Path(write(old, tmp_path / "image.ome.zarr"))
    write(new, root)
    (root / "0/1/zarr.json").unlink()
    with pytest.raises(ImageError, match=r"is Zarr v3, and \.zarray there is of the other"):
        read_image(f"{root}/0")


def test_keys_of_0_5_in_zarr_v2_are_told(tmp_path):
    writer = next(w for w in WRITERS if w.name == "ome-zarr-py")
    root = Path(write(writer, tmp_path / "image.ome.zarr"))
    attributes = json.loads((root / "zarr.json").read_text())["attributes"]
    (root / "zarr.json").unlink()
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    (root / ".zattrs").write_text(json.dumps(attributes))
    with pytest.raises(ImageError, match=r"version 0\.5 in Zarr v2 is unknown here; expected 0\.4"):
        read_image(images_in(str(root))[0])
