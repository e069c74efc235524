"""Options are checked once, where they enter."""

import json

import pytest

from anystar_batch.address import image_stem
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.errors import ConfigError
from anystar_batch.parsing import (
    Quantity,
    parse_diameter,
    parse_memory,
    parse_outline,
    parse_shift,
    parse_times,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12um", Quantity(12.0, "um")),
        ("12 µm", Quantity(12.0, "um")),
        ("0.1mm", Quantity(100.0, "um")),
        ("9px", Quantity(9.0, "px")),
        (" 1e1um ", Quantity(10.0, "um")),
    ],
)
def test_diameter_is_read(text, expected):
    found = parse_diameter(text)
    assert found.unit == expected.unit
    assert found.value == pytest.approx(expected.value)


@pytest.mark.parametrize(
    "text", ["", "12", "um", "-3um", "0um", "nanum", "12 parsecs", "1e999um", "1e306mm"]
)
def test_a_diameter_that_cannot_be_read_names_the_forms_that_can(text):
    with pytest.raises(ConfigError, match=r"--diameter: got .*12um, 450nm, 0.1mm, or 9px"):
        parse_diameter(text)


def test_diameter_in_voxels_counts_those_of_the_plane():
    assert Quantity(9.0, "px").in_um((2.0, 0.5, 0.5)) == 4.5
    assert Quantity(9.0, "px").in_um((2.0, 0.4, 0.9)) == pytest.approx(5.4)
    assert Quantity(9.0, "um").in_um((2.0, 0.5, 0.5)) == 9.0


@pytest.mark.parametrize(
    ("text", "expected"), [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("2000mb", 2 * 10**9)]
)
def test_memory_is_read(text, expected):
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "4", "lots", "4XB", "-4GB", "1.2.3GB"])
def test_memory_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match=r"--memory: got .* expected a number with a unit"):
        parse_memory(text)


def test_memory_too_small_for_anything():
    with pytest.raises(ConfigError, match="--memory: got '10MB'; expected at least 1000 MB"):
        parse_memory("10MB")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", (0, 1, 2, 3, 4, 5)), ("3", (3,)), ("5,0-2, 2", (0, 1, 2, 5)), (" 1 - 1 ", (1,))],
)
def test_times_are_read(text, expected):
    assert parse_times(text, 6) == expected


@pytest.mark.parametrize("text", ["", "a", "1,", "1-", "-1", "1.5", "0..3"])
def test_times_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match=r"--time: got .* expected `all`, or indices"):
        parse_times(text, 6)


@pytest.mark.parametrize("text", ["6", "4-9", "3-1"])
def test_times_that_the_image_does_not_have(text):
    with pytest.raises(ConfigError, match=rf"--time: got '{text}'; the image has times 0 to 5"):
        parse_times(text, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prob_thresh": 0.0}, "--prob-thresh: got 0; expected more than 0 and less than 1"),
        ({"nms_thresh": 1.5}, "--nms-thresh: got 1.5; expected more than 0 and less than 1"),
        ({"voxel_size": (1.0, 0.0, 1.0)}, "--voxel-size: got .* expected three positive"),
        ({"voxel_size": (1.0, float("inf"), 1.0)}, "--voxel-size: got .* expected three positive"),
        ({"tile": 0}, "--tile: got 0; expected a positive number"),
        ({"level": -1}, r"--level: got -1; expected 0 \(full resolution\) or more"),
        ({"elongation": 0.2}, "--elongation: got 0.2; expected 0.25 to 4"),
        ({"elongation": 4.5}, "--elongation: got 4.5; expected 0.25 to 4"),
        ({"elongation": float("nan")}, "--elongation: got nan; expected 0.25 to 4"),
    ],
)
def test_options_of_the_result_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        ResultConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers: got 0; expected at least 1"),
        ({"block_shape": (64, 0, 64)}, "--block-shape: got .* expected three positive numbers"),
    ],
)
def test_options_of_the_work_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**options)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "ä", "x\n", "__x"])
def test_a_label_name_that_cannot_be_one(name):
    with pytest.raises(ConfigError, match=r"--label: got .* expected letters, digits"):
        SegmentConfig(image="a.zarr", label=name)


def test_home_and_stem_follow_from_the_image(tmp_path):
    config = SegmentConfig(image=f"{tmp_path}/embryo.ome.zarr/")
    assert (config.home, config.stem) == (str(tmp_path), "embryo")
    assert json.loads(json.dumps(config.to_json()))["result"]["time"] == "all"


@pytest.mark.parametrize(
    ("path", "stem"),
    [("a/b.zarr", "b"), ("b", "b"), ("x/.zarr", ".zarr"), ("b.ome.tiff", "b.ome.tiff")],
)
def test_stem_of_an_image(path, stem):
    assert image_stem(path) == stem


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [("2um", 2.0, "um"), ("-300nm", -0.3, "um"), ("1px", 1.0, "px"), (" -0.001 mm ", -1.0, "um")],
)
def test_a_shift_has_a_sign_and_a_unit(text, value, unit):
    shift = parse_shift("--expand", text)
    assert (shift.value, shift.unit) == (pytest.approx(value), unit)


@pytest.mark.parametrize("text", ["2", "um", "2 furlongs", "nanum", "infum", "1e400um", ""])
def test_what_is_no_length_is_refused(text):
    with pytest.raises(ConfigError, match=r"--expand: got .*; expected a length with a unit: 2um"):
        parse_shift("--expand", text)


@pytest.mark.parametrize(("text", "share"), [("visible", None), ("VISIBLE", None), ("0.2", 0.2)])
def test_an_outline_is_visible_or_a_share(text, share):
    assert parse_outline("--outline", text) == share


@pytest.mark.parametrize("text", ["0", "1", "-0.5", "nan", "half", "50%", ""])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ConfigError, match=r"--outline: got .*; expected visible, or a share"):
        parse_outline("--outline", text)
