"""What is shown of a run: on a terminal, in a pipe, with -q."""

import io

import pytest
from rich.console import Console

from anystar_batch import progress
from anystar_batch.events import BlockDone, BlockFailed, Note, StageDone, StageStarted
from anystar_batch.progress import LogProgress, QuietProgress, RichProgress, duration

EVENTS = [
    Note("a note with [brackets]"),
    Note("careful: [/x] is no markup", is_warning=True),
    StageStarted("predict", 3, done=2),
    BlockDone("predict", "0/0.0.0", 1.0, 40),
    BlockFailed("predict", "0/0.0.1", "[Errno 5] no"),
    BlockDone("predict", "0/0.0.2", 1.0, 1_000),
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


def test_lines_with_the_time_left(now):
    lines = []
    play(LogProgress(lines.append), now)
    assert lines == [
        "a note with [brackets]",
        "warning: careful: [/x] is no markup",
        "network: 5 blocks, 2 done before",
        "failed: network 0/0.0.1: [Errno 5] no",
        "network: 4 of 5 blocks, 1,040 candidates, about 9.0 s left",
        "network: took 1 min 15 s, 1,040 candidates",
        "statistics",
        "statistics: took 0.2 s",
    ]


def test_no_line_for_every_block(now):
    lines = []
    listener = LogProgress(lines.append)
    listener(StageStarted("paint", 1000))
    for _ in range(1000):
        now[0] += 0.1
        listener(BlockDone("paint", "0/0.0.0", 0.1))
    assert len(lines) == 1 + 9


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
        "1,040 candidates",
        "1 min 15 s",
    ):
        assert kept in text
    assert text.endswith("\x1b[?25h\r"), "the bar is gone and the cursor is back"


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
