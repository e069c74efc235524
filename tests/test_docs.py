"""The documentation: its commands are commands, its links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer

from anystar_batch import cli
from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.geometry import Box
from bench import manual
from bench.__main__ import PARTS
from bench.options import page
from tests.pipeline.test_plate_table import make_plate
from tests.support import tiny_volume
from tests.support.checkout import ROOT
from tests.support.fakes import write_image
from tests.support.tiny_volume import Spheres

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = (
    "--scheduler",
    "--workers",
    "demo",
    "selftest",
    "seamtest",
    "s3://",
    "https://",
    "gs://",
    "models",
    "view",
)
"""What is parsed and not run here: clusters, networks, what has its own tests."""


def shell_lines(page):
    """The lines of a page's shell blocks, continued lines joined, comments and pipes cut."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield re.split(r"\s#\s|\s[|>]\s|\s&&\s", line)[0].strip()


def commands(page):
    """What follows `anystar-batch` in every line that is no synopsis."""
    for line in shell_lines(page):
        words = line.split()
        if words[:1] == ["anystar-batch"] and "[" not in line:
            yield shlex.split(line)[1:]


EVERY = [(page, words) for page in PAGES for words in commands(page)]


def test_there_are_commands_in_the_documentation():
    assert len({page for page, _ in EVERY}) > 5
    assert {words[0] for _, words in EVERY} >= {"segment", "info", "sweep", "evaluate", "selftest"}


@pytest.mark.parametrize(
    ("page", "words"), EVERY, ids=[f"{page.stem}: {' '.join(words)}" for page, words in EVERY]
)
def test_every_command_is_one(page, words):
    group = typer.main.get_command(cli.app)
    name, *arguments = words
    if name.startswith("-"):
        return
    if "--config" in arguments:  # the file is not here
        at = arguments.index("--config")
        arguments = arguments[:at] + arguments[at + 2 :]
    context = group.commands[name].make_context(name, arguments)
    assert context.params


@pytest.mark.parametrize(
    "words",
    [
        words
        for page, words in EVERY
        if page.name in ("README.md", "index.md", "diameter.md", "tables.md")
        and not any(part in word for part in ELSEWHERE for word in words)
    ],
    ids=" ".join,
)
def test_what_the_first_pages_say_works_as_it_stands(words, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A suite in the background has no shell to be found out.
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    for name in ("embryo", "big", "archive/one", "archive/two", "microscope/three"):
        tiny_volume.small_image(tmp_path / f"{name}.ome.zarr", levels=1)
    if "--inside" in words:
        region = [np.full(tiny_volume.SHAPE, 3, np.uint16)]
        write_image(tmp_path / "embryo.ome.zarr/labels/organoids", region, scale=(0.5, 0.5, 0.5))
    tiny_volume.small_series(tmp_path / "movie.ome.zarr")
    if "plate.ome.zarr" in words:
        make_plate(tmp_path / "plate.ome.zarr", {"A/1": ["0"]})
    if words[0] in ("evaluate", "review", "tune", "export"):
        options = ["--diameter", "5um", "--label", "anystar", "--keep-candidates", "-q"]
        options += ["--stars"] if words[0] == "export" else []
        assert command("segment", "embryo.ome.zarr", *options, factory=Spheres()).exit_code == 0
        Path("truth.ome.zarr").symlink_to("embryo.ome.zarr/labels/anystar")
    expanded = []
    for word in (w.replace("/data/microscope", "microscope") for w in words):
        expanded += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    done = command(*expanded, factory=Spheres())
    assert done.exit_code == 0, done.stderr


def test_a_tiff_is_converted_as_the_quickstart_says(tmp_path, monkeypatch):
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    image = tiny_volume.truth().image(np.uint16)
    tifffile.imwrite("embryo.tif", image)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", block], check=False)
    assert done.returncode == 0
    source = read_image("embryo.ome.zarr")
    assert source.scale_um(0) == (2.0, 0.5, 0.5)
    assert not source.unit_assumed
    box = Box.of_shape(image.shape)
    assert np.array_equal(ImageReader(source).read_box(0, 0, 0, box), image)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_modules_that_are_run_are_there(page):
    for line in shell_lines(page):
        found = re.match(r"(?:[A-Z_]+=\S+ )*(?:\S*/)?python3? -m (\S+)(?: (\S+))?", line)
        if found and found[1] == "bench":
            assert found[2] in PARTS, line
        elif found and found[1].partition(".")[0] in ("bench", "trainer", "anystar_batch"):
            path = ROOT / found[1].replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), line


@pytest.mark.parametrize("page", [*PAGES, ROOT / "models/README.md"], ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_site_builds(tmp_path):
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "site").glob("*.html")} - {"404"}
    assert pages == {page.stem for page in (ROOT / "docs").glob("*.md")}
    nav = (ROOT / "mkdocs.yml").read_text()
    assert all(f" {page.name}" in nav for page in (ROOT / "docs").glob("*.md"))


def test_the_page_of_options_is_what_is_declared():
    written = (ROOT / "docs" / "options.md").read_text()
    assert written == page(), "python -m bench.options > docs/options.md"


def test_the_manual_page_is_that_of_the_commands():
    written = manual.PAGE.read_text()
    assert written == manual.page(), f"python -m bench.manual > {manual.PAGE.relative_to(ROOT)}"
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert f"\\fBanystar\\-batch {name}\\fR" in written
        for parameter in command.params:
            flags = (*parameter.opts, *parameter.secondary_opts)
            assert not [f for f in flags if f[0] == "-" and f.replace("-", "\\-") not in written]


@pytest.mark.parametrize(
    "check",
    [["mandoc", "-Tlint", "-Wstyle"], ["groff", "-man", "-ww", "-z"]],
    ids=lambda check: check[0],
)
def test_the_manual_page_is_right_roff(check):
    if shutil.which(check[0]) is None:
        pytest.skip(f"there is no {check[0]}")
    done = subprocess.run([*check, manual.PAGE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")
