"""The templates of docs/array-jobs: every part once, then one run without `--part`."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.checkout import ROOT

TEMPLATES = ROOT / "docs" / "array-jobs"

SBATCH = """#!/bin/bash
# Runs what is submitted at once, every task of an array.
script=$(cat)
echo "$@" >> "$LOG.sbatch"
for argument in "$@"; do
  case $argument in --array=*) last=${argument#*-*-}; last=${argument##*-};; esac
done
for ((n = 1; n <= ${last:-1}; n++)); do SLURM_ARRAY_TASK_ID=$n bash -c "$script"; done
echo 4711
"""

COMMAND = """#!/bin/bash
printf '%s|' "$@" >> "$LOG"
echo >> "$LOG"
case $* in *--part*) exit 0; esac
case $(grep -vc -e --part "$LOG") in 1) exit ${FIRST:-0};; 2) exit ${SECOND:-0}; esac
"""

SLEEP = """#!/bin/bash
echo "sleep $*" >> "$LOG.sleep"
"""


@pytest.fixture
def environment(tmp_path):
    """Stand-ins for `sbatch` and the command; what they were given is in the file LOG names."""
    for name, text in (("sbatch", SBATCH), ("anystar-batch", COMMAND), ("sleep", SLEEP)):
        file = tmp_path / name
        file.write_text(text)
        file.chmod(0o755)
    log = tmp_path / "log"
    return dict(os.environ, PATH=f"{tmp_path}:{os.environ['PATH']}", LOG=str(log)), log


def test_slurm_submits_every_part_and_then_the_finish(environment):
    env, log = environment
    image = "/shared/a day/big.ome.zarr"
    command = ["bash", TEMPLATES / "slurm.sh", image, "--diameter", "12um"]
    subprocess.run(command, env=env, check=True)
    calls = log.read_text().splitlines()
    head = f"segment|{image}|--diameter|12um|"
    assert calls == [*(f"{head}--part|{n}/16|" for n in range(1, 17))] * 2 + [head]
    submitted = Path(f"{log}.sbatch").read_text().splitlines()
    assert ["--dependency=afterany:4711" in line for line in submitted] == [False, True, True]


@pytest.mark.parametrize(("first", "second", "calls"), [(75, 0, 2), (75, 3, 2), (1, 0, 1)])
def test_slurm_finishes_when_the_lock_of_a_dead_part_is_free(environment, first, second, calls):
    env, log = environment
    env |= {"FIRST": str(first), "SECOND": str(second)}
    command = ["bash", TEMPLATES / "slurm.sh", "/shared/big.ome.zarr"]
    subprocess.run(command, env=env, check=True)
    assert log.read_text().splitlines()[32:] == ["segment|/shared/big.ome.zarr|"] * calls
    waited = Path(f"{log}.sleep")
    assert (waited.read_text().splitlines() if waited.exists() else []) == ["sleep 60"] * (
        calls - 1
    )


def test_kubernetes_counts_parts_from_one(environment):
    env, log = environment
    job = yaml.safe_load((TEMPLATES / "kubernetes.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    for index in range(job["completions"]):
        command = [*container["command"], *container["args"]]
        subprocess.run(command, env=env | {"JOB_COMPLETION_INDEX": str(index)}, check=True)
    parts = [line.split("|")[-2] for line in log.read_text().splitlines()]
    assert parts == [f"{n}/16" for n in range(1, job["completions"] + 1)]
