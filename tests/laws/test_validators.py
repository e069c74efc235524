"""What the whole pipeline publishes, judged by validators and readers that are not ours."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support import tiny_volume
from tests.support.foreign_readers import (
    bioio_image,
    napari_layers,
    ngio_label,
    ome_zarr_nodes,
    tensorstore_voxels,
    validate,
    voxels,
    zarrita_sums,
)

pytestmark = pytest.mark.filterwarnings(
    # napari 0.9 defines its models in the way of pydantic 1 (2026-11-22).
    "ignore:`json_encoders` is deprecated",
)

CASES = [(v, a, s) for v in ("0.4", "0.5") for a in ("zyx", "tczyx") for s in (False, True)]


@pytest.fixture(
    scope="module",
    params=CASES,
    ids=lambda c: f"{c[0]}-{c[1]}-{'standalone' if c[2] else 'in-image'}",
)
def made(request, tmp_path_factory):
    version, axes, is_standalone = request.param
    folder = tmp_path_factory.mktemp("made")
    if axes == "zyx":
        image = tiny_volume.small_image(folder / "a.ome.zarr", version=version, levels=3)
    else:
        image = tiny_volume.small_series(folder / "a.ome.zarr", axes, times=2, version=version)
    output = folder / "out" if is_standalone else None
    summary = tiny_volume.segment(image, output=output, run={"block_shape": (64, 64, 64)})
    return image, version, axes, is_standalone, summary


def test_validators_accept_image_and_label(made):
    image, _, _, _, summary = made
    validate(image)
    validate(summary.label)


def test_shape_type_and_separator(made):
    image, version, axes, _, summary = made
    root, label = zarr.open_group(image, mode="r"), zarr.open_group(summary.label, mode="r")
    kept = [i for i, a in enumerate(axes) if a != "c"]
    levels = [name for name in sorted(root.array_keys()) if name.isdigit()]
    assert sorted(label.array_keys()) == levels
    for level in levels:
        assert label[level].shape == tuple(root[level].shape[i] for i in kept)
        assert label[level].dtype == "uint32"
        if version == "0.4":
            assert label[level].metadata.dimension_separator == "/"
            assert Path(summary.label, level, *["0"] * len(kept)).is_file()
        else:
            assert label[level].metadata.dimension_names == tuple(a for a in axes if a != "c")


def test_every_instance_is_seen_by_other_readers(made):
    summary = made[-1]
    ours = zarr.open_array(f"{summary.label}/0", mode="r")[...]
    assert np.unique(ours).tolist() == list(range(summary.instances + 1))
    assert np.array_equal(voxels(f"{summary.label}/0"), ours)


def test_ome_zarr_and_napari_show_the_label(made):
    image, _, _, is_standalone, summary = made
    ours = zarr.open_array(f"{summary.label}/0", mode="r")[...]
    if is_standalone:
        layer = napari_layers(summary.label)[0]
        assert np.array_equal(np.asarray(layer[0][0]).squeeze(), ours.squeeze())
        return
    (node,) = ome_zarr_nodes(image)
    assert np.array_equal(np.asarray(node.data[0]), ours)
    layers = napari_layers(image)
    labels = [layer for layer in layers if layer[2] == "labels"]
    assert len(labels) == 1
    assert np.array_equal(np.asarray(labels[0][0][0]).squeeze(), ours.squeeze())
    assert tuple(labels[0][1]["scale"][-3:]) == (0.5, 0.5, 0.5)


def test_tensorstore_reads_every_level(made):
    pytest.importorskip("tensorstore")
    label = zarr.open_group(made[-1].label, mode="r")
    for level in (name for name in label.array_keys() if name.isdigit()):
        assert np.array_equal(tensorstore_voxels(f"{made[-1].label}/{level}"), label[level][...])


def test_bioio_reads_voxels_and_their_size(made):
    pytest.importorskip("bioio_ome_zarr")
    ours = zarr.open_array(f"{made[-1].label}/0", mode="r")[...]
    found, size = bioio_image(made[-1].label)
    assert np.array_equal(found.squeeze(), ours.squeeze())
    assert size == (0.5, 0.5, 0.5)


def test_ngio_finds_the_label_in_its_image(made):
    pytest.importorskip("ngio")
    image, _, _, is_standalone, summary = made
    if is_standalone:
        pytest.skip("ngio looks for labels in their image")
    ours = zarr.open_array(f"{summary.label}/0", mode="r")[...]
    names, found, size = ngio_label(image, "anystar")
    assert names == ["anystar"]
    assert np.array_equal(found.squeeze(), ours.squeeze())
    assert size == (0.5, 0.5, 0.5)


def test_zarrita_reads_every_level(made):
    modules = os.environ.get("ANYSTAR_BATCH_NODE_MODULES")
    if not modules:
        pytest.skip("needs Node: set ANYSTAR_BATCH_NODE_MODULES to a folder with zarrita")
    label = zarr.open_group(made[-1].label, mode="r")
    for level in (name for name in label.array_keys() if name.isdigit()):
        ours = label[level][...]
        expected = [list(ours.shape), int(ours.sum()), int(ours.max())]
        assert zarrita_sums(f"{made[-1].label}/{level}", modules) == expected


def test_few_labels_have_a_colour_each(made):
    attributes = zarr.open_group(made[-1].label, mode="r").attrs.asdict()
    colours = attributes.get("ome", attributes)["image-label"]["colors"]
    assert [c["label-value"] for c in colours] == list(range(1, made[-1].instances + 1))
    assert len({tuple(c["rgba"]) for c in colours}) == len(colours)
