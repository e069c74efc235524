"""Independent validators and readers on what `publish` writes: none of this code is ours."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive import images, label_image, label_place, labels
from anystar_batch.archive.label_image import LabelWriter
from anystar_batch.geometry import Box, grid_box, grid_shape, iter_grid

LENGTHS = {"t": 2, "c": 3, "z": 11, "y": 21, "x": 30}
CASES = [
    pytest.param(("0.4", "zyx", None, False), id="0.4"),
    pytest.param(("0.5", "zyx", None, False), id="0.5"),
    pytest.param(("0.4", "tczyx", None, False), id="0.4-tczyx"),
    pytest.param(("0.5", "tczyx", None, False), id="0.5-tczyx"),
    pytest.param(("0.5", "czyx", (1, 16, 16, 16), False), id="0.5-sharded"),
    pytest.param(("0.4", "tczyx", None, True), id="0.4-consolidated"),
    pytest.param(("0.5", "tczyx", None, True), id="0.5-consolidated"),
]


def publish(source, place) -> dict[int, np.ndarray]:
    """Publish a label with something in every level of the last time; return those arrays."""
    spec = label_image.label_spec(source)
    writer = LabelWriter(labels.create_label(place, spec, "a1"), spec)
    found = {}
    for level in range(spec.num_levels):
        shape, unit = spec.shape_zyx(level), spec.write_unit_zyx(level)
        array = np.zeros(shape, np.uint32)
        array[1:4, 2:9, 3:11] = 70_000
        array[2:5, 4:6] = 2
        for index in iter_grid(grid_shape(shape, unit)):
            box = grid_box(index, unit, shape)
            writer.write_box(level, spec.num_times - 1, box, array[box.slices])
        found[level] = array
    labels.publish(place, spec, "a1", {"model": {"name": "m", "sha256": "0"}, "options": [1, 2.5]})
    return found


@pytest.fixture(params=CASES)
def published(request, make_image):
    version, axes, shards, is_consolidated = request.param
    data = np.ones([LENGTHS[a] for a in axes], "uint8")
    source = images.read_image(
        make_image(data, axes, version, shards=shards, is_consolidated=is_consolidated)
    )
    place = label_place.in_image(source.path, "anystar")
    return source, place, publish(source, place)


def validate(path: str) -> None:
    """Run both validators; each raises on what it finds."""
    import ome_zarr_models
    import yaozarrs
    from ome_zarr_models.exceptions import ValidationWarning

    yaozarrs.validate_zarr_store(path)
    with warnings.catch_warnings(action="error", category=ValidationWarning):
        ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))


def test_validators_accept_image_and_label(published):
    source, place, _ = published
    validate(source.path)
    validate(place.path)


def test_validators_accept_the_image_while_a_label_is_being_made(make_image):
    for version in ("0.4", "0.5"):
        data = np.ones((11, 21, 30), "u1")
        source = images.read_image(make_image(data, version=version, name=f"{version}.zarr"))
        place = label_place.in_image(source.path, "anystar")
        labels.create_label(place, label_image.label_spec(source), "a1")
        validate(source.path)
        publish(source, label_place.in_image(source.path, "other"))
        labels.create_label(place, label_image.label_spec(source), "a1")
        validate(source.path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "tczyx"])
def test_validators_accept_standalone_labels(make_image, tmp_path, version, axes):
    source = images.read_image(make_image(np.ones([LENGTHS[a] for a in axes], "u1"), axes, version))
    (tmp_path / "out").mkdir()
    place = label_place.standalone(str(tmp_path / "out"), "tiny", "anystar", source.path)
    found = publish(source, place)
    validate(place.path)
    array = zarr.open_array(f"{place.path}/0", mode="r")
    assert np.array_equal(array[1] if "t" in axes else array[...], found[0])


def test_shapes_separator_and_voxels_are_right(published):
    """The two defects that no validator notices, and the voxels themselves."""
    source, place, found = published
    root = zarr.open_group(source.path, mode="r")
    kept = [i for i in range(len(source.axes)) if i != source.c_axis]
    for level, expected in found.items():
        image, label = root[str(level)], root[f"labels/anystar/{level}"]
        assert label.shape == tuple(image.shape[i] for i in kept)
        assert label.dtype == "uint32"
        assert np.array_equal(label[-1] if label.ndim == 4 else label[...], expected)
        if label.ndim == 4:
            assert not label[0].any()
        if source.version == "0.4":
            assert label.metadata.dimension_separator == "/"
            key = ["1", "0", "0", "0"] if label.ndim == 4 else ["0", "0", "0"]
            assert Path(place.path, str(level), *key).is_file()
        else:
            assert label.metadata.dimension_names == tuple(source.axes[i].name for i in kept)


def test_ome_zarr_reads_the_label_with_the_image(published):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Label, Reader

    source, _, found = published
    nodes = list(Reader(parse_url(source.path))())
    label_nodes = [n for n in nodes if Label.matches(n.zarr)]
    assert len(label_nodes) == 1
    assert [n.zarr.basename() for n in label_nodes] == ["anystar"]
    assert len(label_nodes[0].data) == len(found)
    for level, expected in found.items():
        data = np.asarray(label_nodes[0].data[level])
        assert np.array_equal(data[-1] if data.ndim == 4 else data, expected)


def test_napari_shows_the_label_over_the_image(published):
    from napari_ome_zarr import napari_get_reader

    source, _, found = published
    logging.disable(logging.WARNING)
    try:
        layers = napari_get_reader(source.path)(source.path)
    finally:
        logging.disable(logging.NOTSET)
    kinds = [layer[2] for layer in layers]
    assert kinds == ["image", "labels"]
    data, options = layers[1][:2]
    assert [tuple(d.shape[-3:]) for d in data] == [a.shape for a in found.values()]
    assert np.array_equal(np.asarray(data[0]).reshape(-1, *found[0].shape)[-1], found[0])
    assert tuple(options["scale"][-3:]) == (2.0, 0.5, 0.5)
    assert options["name"].endswith("anystar")


def test_box_of_everything_is_the_whole_label(published):
    source, place, found = published
    writer = LabelWriter(place.path, label_image.label_spec(source))
    for level, expected in found.items():
        box = Box.of_shape(source.shape_zyx(level))
        assert np.array_equal(writer.read_box(level, source.num_times - 1, box), expected)
