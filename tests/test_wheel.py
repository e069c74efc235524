"""What users install: sdist, then wheel, then the command from an otherwise empty directory."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench import manual
from tests.support.checkout import ROOT

MODEL = (
    "config.json",
    "provenance.json",
    "refiner.json",
    "refiner.npz",
    "thresholds.json",
    "weights_best.h5",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_has_one_import_name_and_the_model(built):
    names = zipfile.ZipFile(built[0]).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith((".dist-info", ".data"))} == {"anystar_batch"}
    models = {n.removeprefix("anystar_batch/_models/") for n in names if "/_models/" in n}
    assert models == {f"anystar-mix/{file}" for file in MODEL}


def test_the_sdist_has_what_is_tracked_and_nothing_else(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    assert names >= {"trainer/__main__.py", "models/anystar-mix/weights_best.h5", "docs/index.md"}
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0:  # else this is an sdist itself
        assert names == {*listed.stdout.split("\0")} - {""}


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(built, tmp_path):
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path]
    subprocess.run([*command, ROOT], capture_output=True, check=True)
    (direct,) = tmp_path.glob("*.whl")
    assert direct.name == built[0].name
    assert direct.read_bytes() == built[0].read_bytes()


def test_the_wheel_brings_the_manual_page(built):
    with zipfile.ZipFile(built[0]) as wheel:
        (page,) = (name for name in wheel.namelist() if ".data/" in name)
        assert page.endswith(".data/data/share/man/man1/anystar-batch.1")
        assert wheel.read(page) == manual.PAGE.read_bytes()


def test_the_installed_wheel_runs_and_finds_its_model(built, tmp_path):
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(built[0])], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "anystar_batch", *arguments],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version").startswith("anystar-batch ")
    model = json.loads(run("models", "--json").splitlines()[0])
    assert model["name"] == "anystar-mix"
    assert Path(model["folder"]).is_relative_to(target)
