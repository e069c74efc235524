"""What the whole pipeline publishes, judged by validators and readers that are not ours."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from tests import small
from tests.readers import napari_layers, ome_zarr_nodes, validate, voxels

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
        image = small.small_image(folder / "a.ome.zarr", version=version, levels=3)
    else:
        image = small.small_series(folder / "a.ome.zarr", axes, times=2, version=version)
    output = folder / "out" if is_standalone else None
    summary = small.segment(image, output=output, run={"block_shape": (64, 64, 64)})
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
