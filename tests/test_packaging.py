"""Recipe and wrapper of docs/packaging: what they name is what the package has and needs."""

import itertools
import re
import tomllib
from importlib.metadata import distributions
from xml.etree import ElementTree

import pytest
import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

import anystar_batch
from anystar_batch import cli
from anystar_batch.config import LIMITS, REFINE
from anystar_batch.errors import AnyStarBatchError
from anystar_batch.options import SEGMENT, segment_config
from anystar_batch.parsing import MEASURES
from tests.support.checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECIPE = ROOT / "docs/packaging/conda/recipe.yaml"
WRAPPER = ROOT / "docs/packaging/galaxy/anystar_batch_segment.xml"

OPTIONAL = ("jax", "parquet", "cloud", "view")
"""Extras that conda has no word for: their packages are constrained, not installed."""


def ranges(requirements):
    """Names, without what a package brings besides, and the versions that they may have."""
    return {(one := Requirement(text)).name: one.specifier for text in requirements}


def recipe():
    """The recipe, with the values of its context filled in."""
    text = RECIPE.read_text()
    for name, value in YAML(typ="safe").load(text)["context"].items():
        text = text.replace(f"${{{{ {name} }}}}", value)
    return YAML(typ="safe").load(text)


def test_the_recipe_asks_for_what_the_package_needs():
    asked = ranges(recipe()["requirements"]["run"])
    python = asked.pop("python")
    network = ranges(PROJECT["optional-dependencies"]["cpu"])
    assert asked == ranges(PROJECT["dependencies"]) | {"tensorflow": network["tensorflow"]}
    assert network["tensorflow"] == network["tensorflow-cpu"]
    allowed = SpecifierSet(PROJECT["requires-python"])
    # The least patch release of a minor version is not conda's to say.
    for version in (f"3.{minor}.9" for minor in range(8, 20)):
        assert (version in python) == (version in allowed), version


def test_the_recipe_constrains_the_extras_as_the_package_does():
    extras = PROJECT["optional-dependencies"]
    wanted = ranges(itertools.chain.from_iterable(extras[name] for name in OPTIONAL))
    assert ranges(recipe()["requirements"]["run_constraints"]) == wanted
    assert set(extras) == {*OPTIONAL, "cpu", "gpu", "jax-gpu", "dev"}


def test_the_recipe_builds_this_package_and_looks_for_what_it_has():
    document = recipe()
    package = {"name": PROJECT["name"], "version": anystar_batch.__version__}
    assert document["package"] == package
    (script,) = PROJECT["scripts"].items()
    assert document["build"]["python"]["entry_points"] == [" = ".join(script)]
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert set(backend) <= {text.replace(" ", "") for text in document["requirements"]["host"]}
    assert (RECIPE.parent / document["source"]["path"]).resolve() == ROOT
    assert (ROOT / document["about"]["license_file"]).exists()
    assert document["about"]["license"] == PROJECT["license"]
    assert document["about"]["summary"] == PROJECT["description"]
    contents = next(t["package_contents"] for t in document["tests"] if "package_contents" in t)
    assert contents["site_packages"] == [
        "anystar_batch/__init__.py",
        "anystar_batch/_models/anystar-mix/weights_best.h5",
    ]
    assert contents["files"] == ["share/man/man1/anystar-batch.1"]  # tests/test_wheel.py


def expanded():
    """The wrapper, its macros expanded; of macros it uses tokens, and `expand` with attributes."""
    root = ElementTree.parse(WRAPPER).getroot()
    macros = {one.get("name"): one for one in root.iterfind("macros/xml")}
    for parent in list(root.iter()):
        for at, child in enumerate(list(parent)):
            if child.tag == "expand":
                text = ElementTree.tostring(macros[child.get("macro")][0], encoding="unicode")
                for name, value in child.attrib.items():
                    text = text.replace(f"@{name.upper()}@", value)
                parent[at] = ElementTree.fromstring(text)
    return root


def parameters():
    return {
        (one.get("name") or one.get("argument").strip("-").replace("-", "_")): one
        for one in expanded().iterfind("inputs//param")
    }


def test_the_wrapper_calls_options_that_there_are():
    """Every option and every input: each has its line, and the command takes what it says."""
    text = expanded().findtext("command")
    call = text[text.index("anystar-batch segment") : text.index("&&\nmkdir -p")]
    flags = set(re.findall(r"--[a-z-]+", call))
    command = typer.main.get_command(cli.app).commands["segment"]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert flags <= known
    inputs = parameters()
    assert {p.get("argument") for p in inputs.values()} - {None} <= flags
    used = set(re.findall(r"\$(?:filters\.)?(\w+)", text)) - {"filters", "labels"}
    assert used == set(inputs)
    (section,) = expanded().iterfind("inputs/section")
    inside = {one.get("argument").strip("-").replace("-", "_") for one in section.iterfind("param")}
    assert set(re.findall(r"\$filters\.(\w+)", text)) == inside
    assert not inside & set(re.findall(r"\$(\w+)", text))


@pytest.mark.parametrize(
    ("name", "values"), [("limits", LIMITS), ("refine", REFINE), ("measure", MEASURES)]
)
def test_the_wrapper_offers_the_values_that_there_are(name, values):
    parameter = parameters()[name]
    assert {one.get("value") for one in parameter.iterfind("option")} == set(values)
    chosen = [one.get("value") for one in parameter.iterfind("option[@selected='true']")]
    default = next(option.default for option in SEGMENT if option.name == name)
    assert chosen == ([default] if default else [])


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("diameter", ("12um", "9.5px"), ("12", "um", "12um; rm", "")),
        ("expand", ("2um", "-0.5um", "1px"), ("2", "--1um")),
        ("min_volume", ("500", "120px", "0.5"), ("-5", "120vox")),
        ("max_volume", ("500", "120px"), ("many",)),
        ("voxel_size", ("2 0.5 0.5",), ("2 0.5", "2,0.5,0.5", "2 0.5 0.5 --overwrite")),
    ],
)
def test_what_the_wrapper_lets_through_the_command_takes(name, right, wrong):
    (validator,) = parameters()[name].iterfind("validator[@type='regex']")
    defaults = {option.name: option.default for option in SEGMENT}
    for value in right:
        assert re.match(validator.text, value), value
        typed = tuple(map(float, value.split())) if name == "voxel_size" else value
        segment_config(defaults | {name: typed}, "a.zarr")
    for value in wrong:
        assert not re.match(validator.text, value), value
    if name != "voxel_size":
        with pytest.raises(AnyStarBatchError):
            segment_config(defaults | {name: "many"}, "a.zarr")


def test_the_wrapper_is_of_this_version():
    tokens = {one.get("name"): one.text for one in expanded().iterfind("macros/token")}
    assert tokens["@TOOL_VERSION@"] == anystar_batch.__version__


def test_what_is_pinned_can_be_installed_on_the_oldest_python_that_is_promised():
    """Debian 12 has 3.11.2, and a pin that wants more fails there as a riddle of dependencies."""
    oldest = next(s.version for s in SpecifierSet(PROJECT["requires-python"]) if s.operator == ">=")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if "==" in line and not line.startswith("#")]
    installed = {d.name.lower().replace("_", "-"): d for d in distributions()}
    known = [installed[one.name.lower()] for one in pinned if one.name.lower() in installed]
    assert len(known) > 100
    wanted = {d.name: d.metadata.get("Requires-Python") or "" for d in known}
    refused = {name: asked for name, asked in wanted.items() if oldest not in SpecifierSet(asked)}
    assert not refused
