"""Parts of a run, by processes that meet in the work directory alone: the bytes of a single run."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from anystar_batch.archive.storage.lock import hold
from anystar_batch.errors import ConfigError, LedgerMismatchError, LockedError
from anystar_batch.events import BlockDone, Note
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.part import segment_part
from anystar_batch.pipeline.segment import segment
from tests.support.checkout import ROOT
from tests.support.law_phantom import (
    SHAPE,
    copy_of,
    digests,
    law_config,
    law_factory,
    law_model,
    write_law_image,
)

SCRIPT = ROOT / "tests" / "support" / "killed_run.py"
BLOCKS = [(64, 128, 128), (32, 32, 32), (61, 40, 97)]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_law_image(tmp_path_factory.mktemp("parts") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def reference(image):
    """One run, one block."""
    segment(law_config(image, SHAPE), factory=law_factory(), model=law_model())
    return digests(image)


@pytest.fixture
def mine(image, reference, tmp_path):
    assert reference
    return copy_of(image, tmp_path)


def work_of(image):
    return image.parent / "phantom.anystar.work"


def part(image, index, count, block_shape=(32, 32, 32), on_event=lambda _: None, **result):
    config = law_config(image, block_shape, part=(index, count))
    config = replace(config, result=replace(config.result, **result))
    return segment_part(config, on_event, factory=law_factory(), model=law_model())


def finish(image, on_event=lambda _: None, block_shape=(40, 48, 56), **run):
    config = law_config(image, block_shape, **run)
    return segment(config, on_event, factory=law_factory(), model=law_model())


def texts(events):
    return [event.text for event in events if isinstance(event, Note)]


def predicted(events):
    return [event for event in events if isinstance(event, BlockDone) and event.stage == "predict"]


def test_three_parts_and_a_finish_are_one_run(mine, reference):
    for index, block_shape in zip((3, 1, 2), BLOCKS, strict=True):
        summary = part(mine, index, 3, block_shape)
        assert summary.status == f"part {index}/3"
        assert not (mine / "labels" / "anystar").exists()
    events = []
    finish(mine, events.append)
    assert not predicted(events)
    assert any(text.startswith("parts: 3 have left") for text in texts(events))
    assert digests(mine) == reference
    assert not work_of(mine).exists()


@pytest.mark.parametrize("seed", range(1))
def test_parts_killed_missing_or_run_twice_change_no_byte(mine, reference, seed):
    """Four parts at once, each killed after a random block or not; one of them never runs."""
    rng = random.Random(seed)
    missing = rng.randrange(4)
    left = [n for n in range(4) if n != missing]
    killed = [
        subprocess.Popen(
            [
                sys.executable,
                SCRIPT,
                mine,
                "predict",
                str(rng.choice([0, 1, 2, 99])),
                f"part:{n + 1}/4",
            ],
            stderr=subprocess.PIPE,
        )
        for n in left
    ]
    for process in killed:
        _, error = process.communicate(timeout=300)
        assert process.returncode in (0, -9), error.decode()
    again = rng.choice(left)
    part(mine, again + 1, 4, rng.choice(BLOCKS))
    part(mine, 1, 7, rng.choice(BLOCKS))  # another number of parts
    events = []
    finish(mine, events.append, rng.choice(BLOCKS))
    assert any("tiles are open and done now" in text for text in texts(events))
    assert digests(mine) == reference
    assert not work_of(mine).exists()


def test_every_tile_belongs_to_one_part(mine):
    for index in range(1, 6):
        part(mine, index, 5)
    ledgers = sorted((work_of(mine) / "parts").glob("*.jsonl"))
    keys = [
        line["key"]
        for file in ledgers
        for line in map(json.loads, file.read_text().splitlines()[1:])
        if line["stage"] == "predict"
    ]
    assert len(ledgers) == 5
    assert len(keys) == len(set(keys))
    events = []
    finish(mine, events.append)
    assert not predicted(events)


def test_a_part_goes_on_where_it_or_others_stopped(mine, reference):
    killed = subprocess.run(
        [sys.executable, SCRIPT, mine, "predict", "2", "part:1/2"], capture_output=True, check=False
    )
    assert killed.returncode == -9, killed.stderr.decode()
    ledger = work_of(mine) / "parts" / "1-of-2.jsonl"
    before = ledger.read_text().splitlines()
    part(mine, 1, 1)
    assert ledger.read_text().splitlines() == before
    others = (work_of(mine) / "parts" / "1-of-1.jsonl").read_text().splitlines()
    assert not set(before[2:]) & set(others)
    finish(mine)
    assert digests(mine) == reference


def test_the_run_that_finishes_waits_for_no_part_and_parts_not_for_it(mine):
    part(mine, 1, 2)
    lock = work_of(mine) / "parts" / "2-of-2.lock"
    with hold(lock), pytest.raises(LockedError, match="part 2/2 is at work"):
        finish(mine)
    (mine / "labels").mkdir(exist_ok=True)
    with hold(mine / "labels" / ".anystar.lock"), pytest.raises(LockedError, match="finishes"):
        part(mine, 2, 2)
    with hold(lock), pytest.raises(LockedError):
        part(mine, 2, 2)
    assert part(mine, 2, 2).status == "part 2/2"


def test_parts_of_another_run_are_named_and_kept(mine):
    part(mine, 1, 2)
    with pytest.raises(LedgerMismatchError, match="nms_thresh"):
        part(mine, 2, 2, nms_thresh=0.2)
    config = law_config(mine)
    other = replace(config, result=replace(config.result, diameter=Quantity(7.0, "um")))
    with pytest.raises(LedgerMismatchError, match="diameter"):
        segment(other, factory=law_factory(), model=law_model())
    assert (work_of(mine) / "parts" / "1-of-2.jsonl").exists()
    restarted = replace(other, run=replace(other.run, restart=True))
    segment(restarted, factory=law_factory(), model=law_model())
    assert not work_of(mine).exists()


def test_a_part_after_the_finish_does_nothing_and_leaves_nothing(mine):
    instances = finish(mine).instances
    summary = part(mine, 1, 2)
    assert (summary.status, summary.instances) == ("nothing to do", instances)
    assert not work_of(mine).exists()


def test_a_part_throws_nothing_away(mine):
    config = law_config(mine, part=(1, 2), restart=True)
    with pytest.raises(ConfigError, match=r"delete .*work before"):
        segment_part(config, factory=law_factory(), model=law_model())


@pytest.mark.parametrize("text", [(0, 4), (5, 4)])
def test_parts_count_from_one(text):
    with pytest.raises(ConfigError, match="add 1"):
        law_config(Path("a.ome.zarr"), part=text)
