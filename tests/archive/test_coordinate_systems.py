"""OME-NGFF 0.6 (RFC-5) and SpatialData: voxel sizes, positions, refusals, and what labels carry."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_image import label_spec
from anystar_batch.errors import AnyStarBatchError, ImageError, UnsuitedError
from anystar_batch.geometry import Box
from anystar_batch.pipeline.segment import segment
from tests.support.law_phantom import law_config, law_factory, law_model, law_truth, write_law_image

SPACE = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
AXES = [{"name": "c", "type": "channel"}, *SPACE]


def scale(*values):
    return {"type": "scale", "scale": list(values)}


def translation(*values):
    return {"type": "translation", "translation": list(values)}


def sequence(*inner):
    return {"type": "sequence", "transformations": list(inner)}


def entry(*placed, further=(), systems=(), as_text=False):
    """A multiscale of 0.6 whose level n is placed by the n-th transform."""
    datasets = []
    for n, one in enumerate(placed):
        ends = {"input": f"s{n}", "output": "physical"}
        if not as_text:
            ends = {"input": {"path": f"s{n}"}, "output": {"name": "physical"}}
        datasets.append({"path": f"s{n}", "coordinateTransformations": [{**ends, **one}]})
    listed = [*systems, {"name": "physical", "axes": AXES}]
    found = {"name": "a", "coordinateSystems": listed, "datasets": datasets}
    return found | ({"coordinateTransformations": list(further)} if further else {})


def write(path, multiscale, version="0.6", shapes=((2, 8, 16, 16), (2, 4, 8, 8)), **more):
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    group.attrs.update({"ome": {"version": version, "multiscales": [multiscale]}, **more})
    for dataset, shape in zip(multiscale["datasets"], shapes, strict=False):
        data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
        group.create_array(dataset["path"], data=data, chunks=(1, 4, 8, 8))
    return str(path)


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("version", ["0.6", "0.6.dev2", "0.6-dev3", "0.6.0"])
def test_levels_lie_where_their_transforms_put_them(tmp_path, as_text, version):
    placed = (
        sequence(scale(1, 2, 0.5, 0.5), translation(0, 10, 0, 3)),
        sequence(scale(1, 4, 1, 1), sequence(translation(0, 11, 0.25, 3.25), {"type": "identity"})),
    )
    source = read_image(write(tmp_path / "a.zarr", entry(*placed, as_text=as_text), version))
    assert source.version == "0.6"
    assert source.scale_um(0) == (2.0, 0.5, 0.5)
    assert source.translation_um(0) == (10.0, 0.0, 3.0)
    assert source.scale_um(1) == (4.0, 1.0, 1.0)
    assert source.translation_um(1) == (11.0, 0.25, 3.25)
    box = Box((0, 0, 0), (8, 16, 16))
    assert ImageReader(source).read_box(0, 0, 1, box)[0, 0, 0] == 8 * 16 * 16


def test_a_scale_alone_and_an_identity_do(tmp_path):
    source = read_image(write(tmp_path / "a.zarr", entry(scale(1, 3, 2, 2), scale(1, 6, 4, 4))))
    assert source.scale_um(0) == (3.0, 2.0, 2.0)
    shape = ((2, 8, 16, 16),)
    unsized = read_image(write(tmp_path / "b.zarr", entry({"type": "identity"}), shapes=shape))
    assert unsized.unit_assumed


def test_transforms_without_outputs_are_a_chain_as_in_05(tmp_path):
    multiscale = entry(scale(1, 2, 1, 1), scale(1, 4, 2, 2))
    chain = [scale(1, 2, 1, 1), translation(0, 7, 0, 0)]
    multiscale["datasets"][0]["coordinateTransformations"] = chain
    source = read_image(write(tmp_path / "a.zarr", multiscale))
    assert source.scale_um(0) == (2.0, 1.0, 1.0)
    assert source.translation_um(0) == (7.0, 0.0, 0.0)
    label = label_spec(source).multiscales
    assert label["coordinateSystems"] == [{"name": "physical", "axes": SPACE}]
    (placed,) = label["datasets"][0]["coordinateTransformations"]
    assert placed["output"] == {"name": "physical"}


@pytest.mark.parametrize("kind", ["rotation", "affine", "mapAxis", "displacements", "byDimension"])
def test_what_turns_or_bends_is_named(tmp_path, kind):
    turned = sequence(scale(1, 1, 1, 1), {"type": kind, kind: [[1.0]]})
    path = write(tmp_path / "a.zarr", entry(turned, scale(1, 2, 2, 2)))
    with pytest.raises(UnsuitedError, match=f"'{kind}'.*resample"):
        read_image(path)


@pytest.mark.parametrize("systems", [None, [], [{"name": "a"}], "physical"])
def test_without_coordinate_systems_it_says_so(tmp_path, systems):
    broken = entry(scale(1, 1, 1, 1), scale(1, 2, 2, 2)) | {"coordinateSystems": systems}
    with pytest.raises(ImageError, match="coordinateSystems"):
        read_image(write(tmp_path / "a.zarr", broken))


def test_labels_carry_the_coordinate_systems_without_the_channel(tmp_path):
    stage = {"name": "stage", "axes": AXES}
    atlas = {"name": "atlas", "axes": AXES}
    ends = {"input": {"name": "physical"}}
    to_stage = {**ends, "output": {"name": "stage"}, **translation(0, 100, 200, 300)}
    to_atlas = {**ends, "output": {"name": "atlas"}, "type": "affine", "affine": [[1.0] * 5] * 4}
    placed = (sequence(scale(1, 2, 1, 1), translation(0, 5, 0, 0)), scale(1, 4, 2, 2))
    multiscale = entry(*placed, further=(to_stage, to_atlas), systems=(stage, atlas))
    source = read_image(write(tmp_path / "a.zarr", multiscale))
    assert source.translation_um(0) == (5.0, 0.0, 0.0)  # the stage's is another system
    spec = label_spec(source)
    assert spec.version == "0.6"
    label = spec.multiscales
    assert "axes" not in label
    assert label["coordinateSystems"] == [
        {"name": "stage", "axes": SPACE},
        {"name": "physical", "axes": SPACE},
    ]
    (first,) = label["datasets"][0]["coordinateTransformations"]
    assert first["output"] == {"name": "physical"}
    assert first["transformations"] == [scale(2, 1, 1), translation(5, 0, 0)]
    (second,) = label["datasets"][1]["coordinateTransformations"]
    assert (second["type"], second["scale"]) == ("scale", [4, 2, 2])
    (further,) = label["coordinateTransformations"]
    assert further["translation"] == [100, 200, 300]


def as_06(path):
    """Rewrite an image of 0.5 as one of 0.6, in place."""
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    ome = document["attributes"]["ome"]
    ome["version"] = "0.6"
    (multiscale,) = ome["multiscales"]
    system = {"name": "physical", "axes": multiscale.pop("axes")}
    multiscale["coordinateSystems"] = [system]
    for dataset in multiscale["datasets"]:
        inner = dataset["coordinateTransformations"]
        ends = {"input": {"path": dataset["path"]}, "output": {"name": "physical"}}
        dataset["coordinateTransformations"] = [{**ends, **sequence(*inner)}]
    document.pop("consolidated_metadata", None)
    file.write_text(json.dumps(document))


def test_the_same_image_gets_the_same_objects_and_a_label_of_06(tmp_path):
    results = []
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        path = Path(write_law_image(tmp_path / name / "phantom.ome.zarr"))
        if name == "new":
            as_06(path)
        segment(law_config(path), factory=law_factory(), model=law_model())
        label = read_image(str(path / "labels" / "anystar"))
        voxels = ImageReader(label).read_box(0, 0, 0, Box.of_shape(law_truth().shape))
        table = (path.parent / "phantom.anystar.csv").read_bytes()
        results.append((voxels.tobytes(), table, label.scale_um(1), label.translation_um(1)))
    assert results[0] == results[1]
    attributes = json.loads((path / "labels" / "anystar" / "zarr.json").read_text())["attributes"]
    assert attributes["ome"]["version"] == "0.6"
    listed = json.loads((path / "labels" / "zarr.json").read_text())["attributes"]["ome"]
    assert (listed["version"], listed["labels"]) == ("0.6", ["anystar"])


def spatialdata_entry(*outer, unit="unit"):
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": unit} for n in "zyx"]
    system = {"name": "czyx", "axes": axes}
    ends = {"input": system, "output": {**system, "name": "global"}}
    datasets = [{"path": "s0", "coordinateTransformations": [scale(1, 1, 1, 1)]}]
    further = [{**ends, **one} for one in outer]
    return {"name": "a", "axes": axes, "datasets": datasets, "coordinateTransformations": further}


@pytest.mark.parametrize(
    ("outer", "expected"),
    [
        (({"type": "identity"},), (1.0, 1.0, 1.0)),
        ((scale(1, 3, 0.5, 0.5),), (3.0, 0.5, 0.5)),
        ((sequence(scale(1, 2, 2, 2), translation(0, 1, 0, 0)),), (2.0, 2.0, 2.0)),
        (({"type": "affine", "affine": [[2.0] * 5] * 5},), (1.0, 1.0, 1.0)),
        ((scale(1, 2, 2, 2), scale(1, 3, 3, 3)), (1.0, 1.0, 1.0)),
    ],
)
def test_spatialdata_images_are_images(tmp_path, outer, expected):
    multiscale = spatialdata_entry(*outer)
    path = write(tmp_path / "a", multiscale, "0.5-dev-spatialdata", ((2, 8, 16, 16),))
    source = read_image(path)
    assert source.version == "0.5"
    assert source.scale_um(0) == expected
    assert source.unit_assumed
    assert label_spec(source).multiscales["axes"][0]["name"] == "z"


@pytest.mark.parametrize("broken", ["datasets", "coordinateTransformations", "coordinateSystems"])
@pytest.mark.parametrize("value", [None, 3, "a", [3], [None], {"a": 1}, [{}], [[]]])
def test_broken_documents_are_refused_in_words(tmp_path, broken, value):
    multiscale = entry(scale(1, 1, 1, 1), scale(1, 2, 2, 2))
    path = write(tmp_path / "a.zarr", multiscale)
    if broken == "coordinateTransformations":
        multiscale["datasets"][0][broken] = value
    else:
        multiscale[broken] = value
    zarr.open_group(path).attrs["ome"] = {"version": "0.6", "multiscales": [multiscale]}
    with pytest.raises(AnyStarBatchError):
        label_spec(read_image(path))
