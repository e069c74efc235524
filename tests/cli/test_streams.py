"""Full and closed streams: one line, no traceback, and no run ends because nobody watches."""

import os
import subprocess
import sys

import pytest

from tests.support import tiny_volume
from tests.support.checkout import ROOT

COMMAND = f"{sys.executable} -m anystar_batch"
LOST = (
    "error: stdout cannot be written ({}), so the command ends; nothing that is published is lost"
)


def shell(line, **environment):
    """What a line of the shell says on stderr, and how it ends."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "AB": COMMAND, **environment}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=env, check=False,
                          capture_output=True, text=True, errors="backslashreplace")  # fmt: skip
    return done.returncode, done.stderr.splitlines(), done.stdout


@pytest.fixture
def image(tmp_path):
    return tiny_volume.small_image(tmp_path / "a.ome.zarr")


FULL, CLOSED = ("> /dev/full", "No space left on device"), ("| true", "Broken pipe")


@pytest.mark.parametrize(
    ("command", "end"),
    [
        ("--help", FULL),
        ("segment --help", CLOSED),
        ("info $IMAGE", CLOSED),
        ("models --json", FULL),
        ("evaluate $IMAGE $IMAGE -q", CLOSED),
    ],
)
def test_a_full_or_closed_stdout_is_one_line(image, command, end):
    code, said, _ = shell(f"$AB {command} {end[0]}", IMAGE=image)
    assert (code, said) == (1, [LOST.format(end[1])])


@pytest.mark.parametrize("where", ["2> /dev/full", "2>&-"])
def test_a_stderr_that_nobody_reads_ends_nothing(image, where):
    code, _, shown = shell(f"$AB info {image} {where}; $AB info {image}.none {where}")
    assert code == 2, "not that of a traceback"
    assert image in shown


def test_closed_streams_do_not_catch_what_is_written_into_files(image, tmp_path):
    line = f"$AB segment {image}.none --diameter 5um --log-file {tmp_path}/log"
    assert shell(f"{line} <&- >&- 2>&-")[0] == 2
    written = (tmp_path / "log").read_text()
    assert "no such file" in written
    assert "Traceback" not in written


def test_a_full_log_is_said_once(image):
    code, said, _ = shell(f"$AB segment {image}.none {image}.none2 --log-file /dev/full")
    assert code == 2
    lost = [line for line in said if "--log-file: cannot be written any more" in line]
    assert len(lost) == 1
    assert not any("Traceback" in line or "Logging error" in line for line in said)


def test_what_an_alphabet_has_not_got_is_shown_by_its_numbers(tmp_path):
    folder = tmp_path / os.fsdecode(b"Pr\xe4parat.ome.zarr")
    tiny_volume.small_image(folder)
    utf = {"PYTHONIOENCODING": "utf-8:strict"}
    code, _, shown = shell(f"$AB info {tmp_path}/Pr*", **utf)
    assert code == 0
    assert r"Pr\udce4parat.ome.zarr" in shown
    before = sorted(folder.iterdir())
    code, said, _ = shell(f"$AB segment {tmp_path}/Pr* --diameter 5um", **utf)
    assert code == 2
    assert r"Pr\xe4parat.ome.zarr: the path holds bytes that are no UTF-8" in said[0]
    assert sorted(folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == [folder]
