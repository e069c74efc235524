from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from anystar_batch.archive.metadata import dataset_paths, image_source, multiscales_of
from anystar_batch.archive.ngff import ArrayInfo
from anystar_batch.archive.nodes import read_root
from anystar_batch.archive.units import MICROMETRES
from anystar_batch.errors import ImageError
from tests.support import tiny_volume

UDUNITS = {
    *("angstrom", "attometer", "centimeter", "decimeter", "exameter", "femtometer", "foot"),
    *("gigameter", "hectometer", "inch", "kilometer", "megameter", "meter", "micrometer", "mile"),
    *("millimeter", "nanometer", "parsec", "petameter", "picometer", "terameter", "yard"),
    *("yoctometer", "yottameter", "zeptometer", "zettameter"),
}


def entry(axes: str = "zyx", **more: Any) -> dict[str, Any]:
    types = {"t": "time", "c": "channel"}
    return {
        "version": "0.4",
        "axes": [{"name": a, "type": types.get(a, "space")} for a in axes],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [{"type": "scale", "scale": [2.0] * len(axes)}],
            }
        ],
        **more,
    }


def parse(e: dict[str, Any], shape: tuple[int, ...] = (4, 5, 6), dtype: str = "uint16", **more):
    infos = [ArrayInfo(shape, shape, None, dtype)] * len(e["datasets"])
    return image_source("p.zarr", {"multiscales": [e], **more}, 2, infos, was_consolidated=False)


def test_every_length_unit_of_the_specification_is_known():
    assert set(MICROMETRES) >= UDUNITS
    assert MICROMETRES["nanometer"] == pytest.approx(1e-3)
    assert MICROMETRES["angstrom"] == pytest.approx(1e-4)
    assert MICROMETRES["inch"] == pytest.approx(25400)
    assert MICROMETRES["mile"] == pytest.approx(1609.344e6)
    assert MICROMETRES["parsec"] == pytest.approx(3.0856776e22)
    assert MICROMETRES["yottameter"] / MICROMETRES["zettameter"] == pytest.approx(1e3)


def test_units_are_converted_per_axis_and_missing_ones_are_assumed():
    e = entry()
    for a, unit in zip(e["axes"], ("millimeter", "nanometer", "angstrom"), strict=True):
        a["unit"] = unit
    source = parse(e)
    assert source.scale_um() == pytest.approx((2000.0, 0.002, 0.0002))
    assert not source.unit_assumed
    del e["axes"][0]["unit"]
    assert parse(e).scale_um()[0] == 2.0
    assert parse(e).unit_assumed
    e["axes"][0]["unit"] = "pixel"
    assert parse(e).unit_assumed
    assert not parse(e).unknown_units


@pytest.mark.parametrize(
    ("unit", "micrometres"),
    [
        ("micrometer", 1.0), ("Micrometers", 1.0), ("micrometre", 1.0), (" um ", 1.0),
        ("\N{MICRO SIGN}m", 1.0), ("\N{GREEK SMALL LETTER MU}m", 1.0), ("uM", 1.0),
        ("microns", 1.0),
        ("nanometers", 1e-3), ("NANOMETRE", 1e-3), ("nm", 1e-3), ("NM", 1e-3),
        ("m", 1e6), ("meters", 1e6), ("mm", 1e3), ("cm", 1e4), ("inches", 25400.0),
        ("feet", 304800.0),
        ("\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", 1e-4), ("\N{ANGSTROM SIGN}", 1e-4),
        ("Angstroms", 1e-4), ("angstr\u00f6m", 1e-4), ("A\u030angstro\u0308m", 1e-4),
        ("A\u030a", 1e-4),
        ("\N{SQUARE MU M}", 1.0), ("\N{GREEK SMALL LETTER MU}", 1.0), ("\\u00B5m", 1.0),
        ("\N{MICRO SIGN}M", 1.0), ("micro\u00a0meter", 1.0), ("MICROMETER", 1.0),
        ("decametre", 1e7), ("parsecs", 3.0856775814913674e22),
        ("\N{LATIN CAPITAL LETTER A WITH RING ABOVE}ngstr\u00f6m", 1e-4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["unit", "units"])
def test_units_as_people_write_them(unit, micrometres, key):
    e = entry()
    for a in e["axes"]:
        a.pop("unit", None)
        a[key] = unit
    source = parse(e)
    assert source.scale_um() == pytest.approx(tuple(v * micrometres for v in (2.0, 2.0, 2.0)))
    assert not source.unit_assumed
    assert not source.unknown_units


def test_omero_may_stand_in_the_multiscale_and_others_are_named():
    inner = entry("czyx", omero={"channels": [{"label": "BF"}, {"label": "H2B"}]})
    source = parse(inner, (2, 4, 5, 6))
    assert source.channels == ("BF", "H2B")
    assert source.others == ()
    infos = [ArrayInfo((4, 5, 6), (4, 5, 6), None, "uint16")]
    attributes = {"multiscales": [entry(), entry(name="second"), entry()]}
    two = image_source("p.zarr", attributes, 2, infos, was_consolidated=False)
    assert two.others == ("second", "#2")


@pytest.mark.parametrize("key", ["unit", "units"])
@pytest.mark.parametrize("unit", [None, "", "  ", "Pixels", "px", "voxel", "Reference Frame", []])
def test_no_unit_is_told_apart_from_an_unknown_one(unit, key):
    e = entry()
    for a in e["axes"]:
        a[key] = unit
    source = parse(e)
    assert source.unit_assumed
    assert not source.unknown_units
    assert source.scale_um() == (2.0, 2.0, 2.0)


def test_a_blank_unit_does_not_hide_the_other_key():
    e = entry()
    for a in e["axes"]:
        a |= {"unit": " ", "units": "nanometer"}
    assert parse(e).scale_um() == pytest.approx((0.002,) * 3)


def test_a_unit_that_is_no_text_is_not_taken_for_none():
    e = entry()
    e["axes"][0]["unit"] = {"name": "nanometer"}
    assert parse(e).unknown_units == {"z": "{'name': 'nanometer'}"}


@pytest.mark.parametrize("unit", ["furlong", "second", "Mm", "MM", "1", "stage steps"])
def test_a_unit_that_is_no_known_length_is_named(unit):
    e = entry()
    e["axes"][1]["unit"] = unit
    source = parse(e)
    assert source.unknown_units == {e["axes"][1]["name"]: unit}
    assert source.unit_assumed


def test_dataset_transforms_come_before_those_of_the_multiscale():
    e = entry(
        coordinateTransformations=[
            {"type": "scale", "scale": [10.0, 1.0, 1.0]},
            {"type": "translation", "translation": [5.0, 0.0, 0.0]},
        ]
    )
    e["datasets"][0]["coordinateTransformations"].append(
        {"type": "translation", "translation": [3.0, 1.0, 0.0]}
    )
    level = parse(e).levels[0]
    assert level.scale == (20.0, 2.0, 2.0)
    assert level.translation == (35.0, 1.0, 0.0)
    assert level.has_translation


def test_transforms_apply_in_the_order_listed():
    e = entry()
    e["datasets"][0]["coordinateTransformations"].insert(
        0, {"type": "translation", "translation": [3.0, 0.0, 0.0]}
    )
    assert parse(e).levels[0].translation == (6.0, 0.0, 0.0)


def test_translation_of_the_multiscale_alone_is_not_the_datasets():
    moved = [{"type": "translation", "translation": [5.0, 0.0, 0.0]}, {"type": "identity"}]
    level = parse(entry(coordinateTransformations=moved)).levels[0]
    assert level.translation == (5.0, 0.0, 0.0)
    assert not level.has_translation


@pytest.mark.parametrize(
    ("axes", "shape", "zyx"),
    [
        ("tczyx", (2, 3, 4, 5, 6), (4, 5, 6)),
        ("xyz", (6, 5, 4), (4, 5, 6)),
        ("cyzx", (3, 5, 4, 6), (4, 5, 6)),
        ("tabd", (2, 4, 5, 6), (4, 5, 6)),
        ("zyxc", (4, 5, 6, 3), (4, 5, 6)),
    ],
)
def test_space_is_found_in_any_order(axes, shape, zyx):
    source = parse(entry(axes), shape)
    assert source.shape_zyx() == zyx
    assert source.num_times == (2 if "t" in axes else 1)
    assert source.num_channels == (3 if "c" in axes else 1)


def test_type_of_a_customary_name_is_known_and_a_custom_axis_counts_as_channel():
    e = entry("czyx")
    for a in e["axes"]:
        del a["type"]
    e["axes"][0]["name"] = "phase"
    source = parse(e, (3, 4, 5, 6))
    assert source.c_axis == 0
    assert source.num_channels == 3


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["DAPI", "GFP"], ("DAPI", "GFP")),
        (["DAPI", "DAPI"], ("DAPI_0", "DAPI_1")),
        (["DAPI", None], ("DAPI", "1")),
        (["1", ""], ("0", "1")),
        (["DAPI"], ("0", "1")),
    ],
)
def test_channel_names_are_unique(labels, names):
    omero = {"channels": [{"label": label} for label in labels]}
    assert parse(entry("czyx"), (2, 4, 5, 6), omero=omero).channels == names


def test_names_fall_back_to_indices_where_telling_apart_fails():
    omero = {"channels": [{"label": n} for n in ("a", "a", "a_1")]}
    source = parse(entry("czyx"), (3, 4, 5, 6), omero=omero)
    assert source.channels == ("0", "1", "2")


def test_a_claim_of_a_thousand_trillion_voxels_is_only_a_plan():
    source = parse(entry(), (100_000, 100_000, 100_000))
    assert source.shape_zyx() == (100_000,) * 3


def test_bool_is_read_as_uint8_and_the_name_of_the_path_is_the_fallback():
    source = parse(entry(), dtype="bool")
    assert source.dtype == "uint8"
    assert source.name == "p.zarr"
    assert parse(entry(name="n")).name == "n"


def test_source_survives_hashing_and_copying():
    source = parse(entry())
    assert hash(source) == hash(copy.deepcopy(source))
    json.dumps(source.multiscales)


def without_scale(e):
    e["datasets"][0]["coordinateTransformations"] = []


def with_zero_scale(e):
    e["datasets"][0]["coordinateTransformations"][0]["scale"][1] = 0.0


def with_nan_scale(e):
    e["datasets"][0]["coordinateTransformations"][0]["scale"][1] = float("nan")


def with_short_scale(e):
    e["datasets"][0]["coordinateTransformations"][0]["scale"] = [1.0, 1.0]


def with_path_transform(e):
    e["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "path": "scales/0"}]


def with_double_axis(e):
    e["axes"][0]["name"] = "y"


def with_string_axes(e):
    e["axes"] = ["z", "y", "x"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_scale, "dataset 0 declares no scale"),
        (with_zero_scale, "expected positive voxel sizes"),
        (with_nan_scale, "cannot be used"),
        (with_short_scale, "expected a scale or translation of 3 finite numbers"),
        (with_path_transform, "cannot be used"),
        (with_double_axis, "two axes have the same name: y, y, x"),
        (with_string_axes, "no usable axes"),
    ],
)
def test_unusable_metadata_is_refused(change, message):
    e = entry()
    change(e)
    with pytest.raises(ImageError, match=message):
        parse(e)


@pytest.mark.parametrize(
    ("axes", "shape", "dtype", "message"),
    [
        ("tc", (2, 3), "u1", "no spatial axes among t, c"),
        ("yx", (5, 6), "u1", "is 2D .axes y, x.*StarDist 2D"),
        ("zyx", (1, 5, 6), "u1", "is 2D .one plane"),
        ("zyx", (5, 6), "u1", "has 2 axes, the metadata 3"),
        ("zyx", (0, 5, 6), "u1", "the image is empty"),
        ("zyx", (4, 5, 6), "complex64", "unsupported type complex64"),
        ("zyx", (4, 5, 6), "<U4", "unsupported type <U4"),
        ("zyx", (4, 5, 6), "no such type", "unsupported type no such type"),
        ("wzyx", (4, 4, 5, 6), "u1", "are not an NGFF image's"),
    ],
)
def test_unusable_arrays_are_refused(axes, shape, dtype, message):
    with pytest.raises(ImageError, match=message):
        parse(entry(axes), shape, dtype)


def test_levels_that_differ_in_time_are_refused():
    e = entry("tzyx")
    e["datasets"].append({**e["datasets"][0], "path": "1"})
    infos = [ArrayInfo((n, 4, 5, 6), (1, 4, 5, 6), None, "u1") for n in (2, 1)]
    with pytest.raises(ImageError, match="levels 0, 1 differ in their number of times"):
        image_source("p", {"multiscales": [e]}, 2, infos, was_consolidated=False)


@pytest.mark.parametrize(
    "path", ["../0", "/", "", "/../0", "a/../../b", ".", "a\\b", "a//b", 3, None]
)
def test_dataset_paths_outside_the_image_are_refused(path):
    with pytest.raises(ImageError, match="does not name an array inside the image"):
        dataset_paths("p", {"datasets": [{"path": path}]})


def test_missing_or_double_datasets_are_refused():
    with pytest.raises(ImageError, match="lists no datasets"):
        dataset_paths("p", {"datasets": []})
    with pytest.raises(ImageError, match="two datasets have the same path: 0, 0"):
        dataset_paths("p", {"datasets": [{"path": "0"}, {"path": "0"}]})


@pytest.mark.parametrize(
    ("attributes", "zarr_format", "version"),
    [
        ({"multiscales": [{"version": "0.4"}]}, 2, "0.4"),
        ({"multiscales": [{"axes": [{"name": "z"}]}]}, 2, "0.4"),
        ({"ome": {"version": "0.5", "multiscales": [{}]}}, 3, "0.5"),
        ({"ome": {"version": "0.5.2", "multiscales": [{}]}}, 3, "0.5"),
    ],
)
def test_versions_are_told_apart(attributes, zarr_format, version):
    assert multiscales_of("p", attributes, zarr_format)[0] == version


@pytest.mark.parametrize(
    ("attributes", "zarr_format", "message"),
    [
        ({"multiscales": [{"version": "0.3"}]}, 2, r"OME-NGFF 0.3 .or older.*bioformats2raw"),
        ({"multiscales": [{"axes": ["z"]}]}, 2, "OME-NGFF 0.3"),
        ({"multiscales": [{"version": "0.1"}]}, 2, "OME-NGFF 0.1"),
        ({"multiscales": [{"version": "9"}]}, 2, "version 9 in Zarr v2 is unknown"),
        ({"ome": {"version": "0.7", "multiscales": [{}]}}, 3, "version 0.7 in Zarr v3 is unknown"),
        ({"multiscales": [{"version": "0.4"}]}, 3, r"OME-NGFF 0\.4 in Zarr v3"),
        ({"multiscales": []}, 2, "no OME-Zarr `multiscales`"),
        ({"ome": 3}, 3, "no OME-Zarr `multiscales`"),
    ],
)
def test_unknown_versions_are_refused(attributes, zarr_format, message):
    with pytest.raises(ImageError, match=message):
        multiscales_of("p", attributes, zarr_format)


@pytest.mark.parametrize("said", [{"version": "0.4"}, {}])
def test_keys_of_0_4_in_zarr_v3_are_told_from_a_version_of_the_future(said):
    old = {k: v for k, v in entry().items() if k != "version"} | said
    with pytest.raises(ImageError, match=r"in Zarr v3.* move the zarr\.json files away") as error:
        multiscales_of("p.zarr", {"multiscales": [old]}, 3)
    assert "None" not in str(error.value)
    with pytest.raises(ImageError, match=r"OME-NGFF version 0\.7 in Zarr v3 is unknown here"):
        multiscales_of("p.zarr", {"ome": {"version": "0.7", "multiscales": [entry()]}}, 3)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_half_a_character_in_a_name_is_refused_before_work(tmp_path, version):
    image = Path(tiny_volume.small_image(tmp_path / "a.zarr", levels=1, version=version))
    file = image / ("zarr.json" if version == "0.5" else ".zattrs")
    document = json.loads(file.read_text())
    holder = document["attributes"]["ome"] if version == "0.5" else document
    for name, fits in (("\U0001f52c", True), ("\udce4", False)):
        holder["omero"] = {"channels": [{"label": name}]}
        file.write_text(json.dumps(document))
        if fits:
            assert read_root(str(image))[1].attributes
        else:
            with pytest.raises(ImageError, match="surrogates not allowed"):
                read_root(str(image))
