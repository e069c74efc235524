from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from anystar_batch.errors import LedgerMismatchError, LostLockError
from anystar_batch.stages.ledger import FORMAT, NAME, Ledger
from tests.support.checkout import ROOT

PARTS = {"algorithm": 1, "prob_thresh": 0.5, "times": [0, 1], "image": {"shape": [4, 5, 6]}}


def test_what_is_done_survives_reopening(tmp_path):
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        assert ledger.entry("predict", "0/0.0.1") is None
        ledger.done("predict", {"0/0.0.1": {"file": "a.npy", "start": 0}, "0/0.0.2": {}})
        ledger.done("plan", {"": {"limits": [[1.0, 2.5], None]}})
    with Ledger(tmp_path, "abc", PARTS) as again:
        assert again.fingerprint == "abc"
        assert again.entry("predict", "0/0.0.1") == {"file": "a.npy", "start": 0}
        assert again.entries("predict") == {
            "0/0.0.1": {"file": "a.npy", "start": 0},
            "0/0.0.2": {},
        }
        assert again.entry("plan", "") == {"limits": [[1.0, 2.5], None]}
        assert again.entries("paint") == {}


def test_the_last_note_of_a_piece_counts(tmp_path):
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        ledger.done("predict", {"k": {"start": 0}})
        ledger.done("predict", {"k": {"start": 7}})
    with Ledger(tmp_path, "abc", PARTS) as again:
        assert again.entries("predict") == {"k": {"start": 7}}


def test_whoever_changes_an_entry_changes_a_copy(tmp_path):
    noted = {"n": 1}
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        ledger.done("predict", {"k": noted})
        noted["n"] = 2
        ledger.entries("predict")["k"].clear()
        ledger.entry("predict", "k").clear()
        assert ledger.entry("predict", "k") == {"n": 1}


def test_entries_show_what_is_noted_later(tmp_path):
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        entries = ledger.entries("predict")
        assert "k" not in entries
        ledger.done("predict", {"k": {}})
        assert list(entries) == ["k"]


def test_a_key_of_any_letters_is_found_again(tmp_path):
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        ledger.done("plan", {'a "b" \\ ü': {"text": 'x "y"}\\'}, "plain": {"of": "}, {"}})
    with Ledger(tmp_path, "abc", PARTS) as again:
        assert again.entry("plan", 'a "b" \\ ü') == {"text": 'x "y"}\\'}
        assert again.entry("plan", "plain") == {"of": "}, {"}


def test_damage_inside_an_entry_is_refused_when_it_is_asked_for(tmp_path):
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        ledger.done("predict", {"first": {"start": 7}, "second": {}})
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes().replace(b": 7", b":\x007"))
    with Ledger(tmp_path, "abc", PARTS) as again:
        assert again.entry("predict", "second") == {}
        with pytest.raises(LedgerMismatchError, match="first: damaged"):
            again.entry("predict", "first")


@pytest.mark.parametrize("lost", [1, 5, 20])
def test_a_torn_last_line_is_cut_off_and_its_piece_done_again(tmp_path, lost):
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        ledger.done("predict", {"first": {"n": 1}})
        ledger.done("predict", {"second": {"n": 2}})
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-lost])
    with Ledger(tmp_path, "abc", PARTS) as again:
        assert again.entries("predict") == {"first": {"n": 1}}
        again.done("predict", {"third": {"n": 3}})
    with Ledger(tmp_path, "abc", PARTS) as last:
        assert last.entries("predict") == {"first": {"n": 1}, "third": {"n": 3}}


def test_a_ledger_torn_in_its_first_line_begins_again(tmp_path):
    Ledger(tmp_path, "abc", PARTS).close()
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:10])
    with Ledger(tmp_path, "def", PARTS) as again:
        again.done("predict", {"k": {}})
    with Ledger(tmp_path, "def", PARTS) as last:
        assert last.entries("predict") == {"k": {}}


def test_who_opened_it_before_another_cannot_write_into_it_any_more(tmp_path):
    with Ledger(tmp_path, "abc", PARTS) as stale:
        stale.done("predict", {"first": {}})
        with Ledger(tmp_path, "abc", PARTS) as ledger:
            stale.done("predict", {"late": {}})
            ledger.done("predict", {"second": {}})
    with Ledger(tmp_path, "abc", PARTS) as again:
        assert set(again.entries("predict")) == {"first", "second"}


def test_what_may_not_be_written_is_not(tmp_path):
    def refuse():
        raise LostLockError("lost")

    with Ledger(tmp_path, "abc", PARTS, refuse) as ledger, pytest.raises(LostLockError):
        ledger.done("predict", {"k": {}})
    with Ledger(tmp_path, "abc", PARTS) as again:
        assert again.entries("predict") == {}


@pytest.mark.parametrize("line", ["\0\0\0\0", '{"stage": "predict"}', "[1, 2]", '{"stage": "pre'])
def test_damage_that_no_crash_leaves_is_refused(tmp_path, line):
    with Ledger(tmp_path, "abc", PARTS) as ledger:
        ledger.done("predict", {"k": {}})
    with (tmp_path / NAME).open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(LedgerMismatchError, match=r"ledger.jsonl, line 3: damaged.*--restart"):
        Ledger(tmp_path, "abc", PARTS)


def test_another_run_is_refused_and_what_differs_is_named(tmp_path):
    Ledger(tmp_path, "abc", PARTS).close()
    other = PARTS | {"prob_thresh": 0.6, "tile": 96}
    with pytest.raises(LedgerMismatchError) as caught:
        Ledger(tmp_path, "def", other)
    text = str(caught.value)
    assert "prob_thresh: 0.5 -> 0.6; tile: null -> 96" in text
    assert "algorithm" not in text
    assert "times" not in text
    assert "--restart" in text
    # Refusing leaves the work as it was.
    Ledger(tmp_path, "abc", PARTS).close()


def test_long_values_are_cut_short_in_the_message(tmp_path):
    Ledger(tmp_path, "abc", PARTS).close()
    other = PARTS | {"image": {"shape": list(range(100))}}
    with pytest.raises(LedgerMismatchError, match=r"image: .* -> \{\"shape\": \[0, 1.*\.\.\.\)"):
        Ledger(tmp_path, "def", other)


def test_tuples_and_lists_are_the_same_parts(tmp_path):
    Ledger(tmp_path, "abc", PARTS).close()
    other = PARTS | {"times": (0, 1), "nms_thresh": 0.3}
    with pytest.raises(LedgerMismatchError, match=r"differ: nms_thresh: null -> 0.3\)"):
        Ledger(tmp_path, "def", other)


def test_another_format_is_refused(tmp_path):
    header = {"format": FORMAT + 1, "fingerprint": "abc", "parts": PARTS}
    (tmp_path / NAME).write_text(json.dumps(header) + "\n")
    with pytest.raises(LedgerMismatchError, match=rf"format {FORMAT + 1}, expected {FORMAT}"):
        Ledger(tmp_path, "abc", PARTS)


KILLED = """
import os, signal, sys
from pathlib import Path
from anystar_batch.stages.ledger import Ledger
from anystar_batch.archive.storage.atomic_write import write_bytes_atomic

folder = Path(sys.argv[1])
ledger = Ledger(folder, "abc", {})
for n in range(3):
    write_bytes_atomic(folder / f"{n}.npy", bytes([n]))
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    ledger.done("predict", {str(n): {"file": f"{n}.npy"}})
"""


def test_killed_between_data_and_note_only_the_note_is_missing(tmp_path):
    root = str(ROOT)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        check=False,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with Ledger(tmp_path, "abc", {}) as again:
        assert sorted(again.entries("predict")) == ["0", "1"]
        for entry in again.entries("predict").values():
            assert (tmp_path / entry["file"]).exists()
        again.done("predict", {"2": {"file": "2.npy"}})
        assert sorted(again.entries("predict")) == ["0", "1", "2"]
