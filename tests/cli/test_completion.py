"""Completion as bash asks for it: its own script, in a real bash."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support import tiny_volume
from tests.support.checkout import ROOT

SCRIPT = """
{script}
complete_words() {{
  COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
  _anystar_batch_completion {program}
  echo "${{COMPREPLY[*]}}"
}}
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Return what bash offers for lines: their last word is what TAB is pressed after."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    folder = tmp_path_factory.mktemp("program")
    program = folder / "anystar-batch"
    program.write_text(
        f"#!{sys.executable}\nfrom anystar_batch.cli import app\napp(prog_name='anystar-batch')\n"
    )
    program.chmod(0o755)
    root = str(ROOT)
    environment = {**os.environ, "PYTHONPATH": root}
    words = [program, "--show-completion", "bash"]
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"
    shown = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    del environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"]

    def run(*lines):
        asked = "\n".join(
            "complete_words " + " ".join(f"'{word}'" for word in line) for line in lines
        )
        script = SCRIPT.format(script=shown.stdout, program=program) + asked
        done = subprocess.run(
            [bash, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stderr == ""
        return [line.split() for line in done.stdout.split("\n")[:-1]]

    return run


def test_commands_options_and_values(tmp_path, complete, command):
    image = tiny_volume.small_series(tmp_path / "a.zarr", times=1)
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    tiny_volume.edit_json(
        tmp_path / "a.zarr/zarr.json", lambda d: d["attributes"]["ome"].update(omero=omero)
    )
    command("segment", image, "--diameter", "5um", "--label", "nuclei", "-q")
    program = "anystar-batch"
    found = complete(
        [program, "se"],
        [program, "segment", image, "--pre"],
        [program, "segment", "--precision", ""],
        [program, "segment", "--model", "any"],
        [program, "segment", "--measure", "solidity,s"],
        [program, "segment", image, "--channel", "D"],
        [program, "view", image, "--label", ""],
        [program, "view", f"{image}x", "--label", ""],
    )
    assert found == [
        ["segment", "seamtest", "selftest"],
        ["--precision"],
        ["auto", "float32", "bfloat16"],
        ["anystar-mix"],
        ["solidity,sphericity", "solidity,surface"],
        ["DAPI"],
        ["nuclei"],
        [],
    ]
