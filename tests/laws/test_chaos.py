"""Runs that are disturbed at random, with fixed seeds; the long form is `python -m bench chaos`."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

from bench.aftermath import State, judge
from bench.chaos import spread
from tests.support import faults
from tests.support.checkout import ROOT

KINDS = [
    "kill -9 client",
    "kill -9 all",
    "SIGTERM",
    "SIGINT",
    "writes fail, disk full",
    "store fails",
    "store stalls",
    "store reads short",
    "chunk damaged before",
    "chunk damaged during",
    "clock jumps",
    "two runs",
    "label deleted",
    "image replaced",
]
"""Killed workers need a cluster (`test_engine`), and a small disk needs root: the long form's."""


def test_disturbed_runs_lose_nothing(tmp_path):
    words = ["chaos", str(tmp_path), "--small", "--runs", "14", "--seed", "4", "--kinds", *KINDS]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "chaos.json").read_bytes())["runs"]
    assert [run["kind"] for run in runs] == KINDS
    assert all(all(run["checks"].values()) for run in runs)
    assert sum(run["came"] for run in runs) > 9, "most disturbances met their run"


def test_moments_lie_evenly_over_the_whole_run():
    known = SimpleNamespace(
        operations={(name, n): 1000 for name in ("none", "other", "same") for n in (1, 2)},
        seconds={1: 10.0, 2: 10.0},
    )
    bench = SimpleNamespace(
        forms={"0.4": known, "0.5": known},
        kinds=("kill -9 client", "kill -9 all"),
        workers=(1, 2),
        seed=1,
    )
    runs = list(spread(bench, 200))
    parts = [run.at / 1000 if run.after is None else run.after / 10 for run in runs]
    assert parts == sorted(parts)
    assert max(b - a for a, b in zip([0, *parts], [*parts, 1], strict=True)) < 0.01
    assert sum(run.after is None for run in runs) == 100
    assert len({(run.form, run.earlier, run.kind, run.workers) for run in runs}) == 24


def test_every_file_of_a_directory_that_is_deleted_is_a_moment(tmp_path):
    folder, counter = tmp_path / "work", faults.Counter()
    (folder / "candidates").mkdir(parents=True)
    for name in ("ledger.jsonl", "candidates/0.npy"):
        (folder / name).touch()

    def delete():
        faults.watch(faults.Fault(folder=str(folder)), counter)
        shutil.rmtree(folder)
        return 0

    child = faults.fork(delete, tmp_path / "log")
    assert os.waitpid(child, 0)[1] == 0
    assert not folder.exists()
    files_and_folders, opened = 4, 1  # the inner one is opened by a name below the outer one
    assert counter[0] == files_and_folders + opened


GOOD = State("i", {"before": "b", "anystar": "a"}, ("before", "anystar"), {"anystar": "t"})
START = State("i", {"before": "b"}, ("before",), {})


def test_what_is_lost_half_written_or_only_listed_is_seen():
    def wrong(labels, listed=("before",), tables=None):
        state = State("i", labels, listed, tables or {})
        return [name for name, holds in judge(state, START, (GOOD,), ()).items() if not holds]

    assert wrong({"before": "b"}) == []
    assert wrong(GOOD.labels, GOOD.listed, GOOD.tables) == []
    assert wrong({}) == ["earlier label reads identically", "listed labels are there"]
    assert wrong({"before": "x"})[0] == "earlier label reads identically"
    assert wrong({"before": "b", "anystar": "half"}) == ["nothing half-written is shown"]
    assert wrong({"before": "b"}, ("before", "anystar")) == ["listed labels are there"]
    assert wrong({"before": "b"}, tables={"anystar": "half"}) == ["table is whole"]
