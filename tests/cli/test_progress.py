"""What is shown of a run: on a terminal, in a pipe, with -q."""

import io

import pytest
from rich.console import Console

from anystar_batch.cli import progress
from anystar_batch.cli.pace import SAMPLING, Pace, duration
from anystar_batch.cli.progress import LogProgress, QuietProgress, RichProgress
from anystar_batch.events import BlockDone, BlockFailed, Note, StageDone, StageStarted

EVENTS = [
    Note("a note with [brackets]"),
    Note("careful: [/x] is no markup", is_warning=True),
    StageStarted("predict", 3, done=2, voxels=9_000_000, instances=500),
    BlockDone("predict", "0/0.0.0", 1.0, 40, 4_000_000),
    BlockFailed("predict", "0/0.0.1", "[Errno 5] no"),
    BlockDone("predict", "0/0.0.2", 1.0, 1_000, 2_000_000),
    StageDone("predict", 75.0),
    StageStarted("table", 1),
    StageDone("table", 0.2),
]


@pytest.fixture
def now(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return clock


def play(listener, now=None):
    for event in EVENTS:
        if now is not None:
            now[0] += 6.0
        listener(event)
    listener.close()


def test_lines_with_all_that_is_known(now):
    """The later of two blocks took 12 s for 2 million voxels: 3 million are left."""
    lines = []
    play(LogProgress(lines.append, lambda: 2_340_000_000), now)
    assert lines == [
        "a note with [brackets]",
        "warning: careful: [/x] is no markup",
        "network: 2 of 5 blocks were done before, 500 candidates",
        "failed: network 0/0.0.1: [Errno 5] no",
        "network: 4 of 5 blocks, 1,540 candidates, about 18.0 s left, 0.17 Mvoxel/s, 2.3 GB",
        "network: took 1 min 15 s, 1,540 candidates",
        "statistics",
        "statistics: took 0.2 s",
    ]


def test_the_time_left_goes_by_voxels_else_by_blocks_of_this_run_and_waits_for_one(now):
    pace = Pace(StageStarted("predict", 4, done=100, voxels=10_000))
    now[0] += 50.0
    assert pace.left is None, "blocks of an earlier run say nothing of this one"
    assert pace.facts() == []
    pace.note(BlockDone("predict", "a", 1.0, voxels=1_000))
    assert pace.left == pytest.approx(450.0), "one block of four, but a tenth of the voxels"
    assert pace.voxels_per_second == pytest.approx(20.0)
    now[0] += 7.0
    assert pace.left == pytest.approx(443.0), "time goes by"
    assert pace.voxels_per_second == pytest.approx(20.0), "a block at work is not measured yet"
    now[0] += 1e6
    assert pace.left == 0.0
    pace = Pace(StageStarted("compare", 4))
    now[0] += 5.0
    pace.note(BlockDone("compare", "a", 1.0))
    assert pace.facts() == ["about 15.0 s left"]
    for name in "bcd":
        pace.note(BlockDone("compare", name, 1.0))
    assert pace.left is None


@pytest.mark.parametrize("workers", [1, 4])
def test_what_loading_took_is_forgotten_and_bursts_are_not_taken_for_speed(now, workers):
    """Blocks of 10 s and 1,000 voxels on some workers, which first load for 60 s."""
    total = 64
    pace = Pace(StageStarted("predict", total, voxels=1_000 * total))
    errors = []
    for n in range(total):
        ends = 60.0 + 10.0 * (n // workers + 1)
        seconds = 10.0 if n >= workers else 70.0
        now[0] = ends + 0.01 * (n % workers)
        pace.note(BlockDone("predict", str(n), seconds, voxels=1_000))
        truth = 60.0 + 10.0 * (total // workers) - ends
        if truth > 0 and n % workers == workers - 1:
            errors.append(pace.left / truth)
        assert truth == 0 or pace.left > 0.75 * truth, "never much less than it takes"
    assert errors[0] > 3, "a first block that has loaded the network is slow"
    assert errors[2:] == pytest.approx([1.0] * len(errors[2:]), rel=0.01), "it is forgotten soon"
    assert pace.voxels_per_second == pytest.approx(100.0 * workers, rel=0.2)


def test_memory_is_looked_at_now_and_then(now):
    held = iter([1e9, 3e9])
    pace = Pace(StageStarted("table", 1), lambda: next(held))
    assert [pace.facts() for _ in range(50)] == [["1.0 GB"]] * 50
    now[0] += SAMPLING
    assert pace.facts() == ["3.0 GB"]


def test_ever_fewer_lines(now):
    lines = []
    listener = LogProgress(lines.append)
    listener(StageStarted("paint", 36_000))
    written = []
    for _ in range(36_000):
        now[0] += 0.1
        listener(BlockDone("paint", "0/0.0.0", 0.1))
        if len(lines) > 1 + len(written):
            written.append(now[0])
    assert written[:5] == pytest.approx([10, 30, 70, 150, 270], abs=0.6)
    assert len(lines) == 1 + 4 + (3600 - 150) // 120


def test_quiet_shows_what_must_not_be_missed():
    lines = []
    play(QuietProgress(lines.append))
    assert lines == [
        "warning: careful: [/x] is no markup",
        "failed: network 0/0.0.1: [Errno 5] no",
    ]


def terminal():
    stream = io.StringIO()
    return stream, Console(file=stream, force_terminal=True, width=100, color_system=None)


def test_a_terminal_keeps_notes_failures_and_long_stages():
    stream, console = terminal()
    play(RichProgress(console))
    text = stream.getvalue()
    for kept in (
        "a note with [brackets]",
        "warning: careful: [/x] is no markup",
        "failed: network 0/0.0.1: [Errno 5] no",
        "network: 2 of 5 blocks were done before, 500 candidates",
        "1,540 candidates",
        "1 min 15 s",
    ):
        assert kept in text
    assert text.endswith("\x1b[?25h\r"), "the bar is gone and the cursor is back"


@pytest.mark.parametrize("width", [100, 80])
def test_the_bar_says_what_is_known(now, width):
    """Drawn once more by hand, as its thread would."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    listener = RichProgress(console, lambda: 2_340_000_000)
    for event in EVENTS[2:4]:
        listener(event)
        now[0] += 6.0
    stream.truncate(0)
    listener._progress.refresh()
    listener.close()
    line = next(line for line in stream.getvalue().splitlines() if "network" in line)
    assert "3/5" in line
    assert "540 candidates  about 1.5 s left  0.67 Mvoxel/s  2.3 GB  12.0 s" in line


def test_a_terminal_that_is_left_in_the_middle_gets_its_cursor_back():
    stream, console = terminal()
    listener = RichProgress(console)
    listener(StageStarted("predict", 3))
    listener.close()
    listener.close()
    assert "\x1b[?25h" in stream.getvalue()
    listener(StageStarted("predict", 3))
    listener(StageDone("predict", 0.1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.94, "59.9 s"), (60, "1 min 00 s"), (3599.9, "1 h 00 min"), (86_400, "1 d 00 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
