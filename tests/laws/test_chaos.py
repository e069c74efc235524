"""Runs that are disturbed at random, with fixed seeds; the long form is `python -m bench chaos`."""

import json
import subprocess
import sys

from bench.aftermath import State, judge
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
