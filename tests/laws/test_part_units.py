"""What comes after the network, shared by parts: the bytes of a single run."""

import shutil
import subprocess
import sys
from collections import Counter

import pytest

from anystar_batch.engine.engines import InlineEngine
from anystar_batch.engine.stop import Stop
from anystar_batch.errors import ConfigError, LedgerMismatchError, OutOfTimeError
from anystar_batch.events import BlockDone, Note
from anystar_batch.pipeline import part_units
from anystar_batch.pipeline.part import segment_part
from anystar_batch.pipeline.segment import segment
from tests.support.checkout import ROOT
from tests.support.law_phantom import (
    SHAPE,
    copy_of,
    digests,
    law_factory,
    refined_config,
    refined_model,
    write_law_image,
)

SCRIPT = ROOT / "tests" / "support" / "killed_run.py"

STAGES = {"predict", "suppress", "refine", "suppress 2", "paint"}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_law_image(tmp_path_factory.mktemp("units") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def reference(image, tmp_path_factory):
    """One run, one block."""
    model = refined_model(tmp_path_factory.mktemp("model"))
    segment(refined_config(image, SHAPE), factory=law_factory(), model=model)
    return digests(image)


@pytest.fixture
def mine(image, reference, tmp_path):
    assert reference
    return copy_of(image, tmp_path)


@pytest.fixture
def impatient(monkeypatch):
    """Nobody is waited for who is not at work now."""
    monkeypatch.setattr(part_units, "GRACE", -1.0)
    monkeypatch.setattr(part_units, "PAUSE", 0.0)


def part(image, index, count, block_shape=(32, 32, 32), on_event=lambda _: None):
    config = refined_config(image, block_shape, part=(index, count))
    model = refined_model(image.parent / "refiner")
    return segment_part(config, on_event, factory=law_factory(), model=model)


def finish(image, block_shape=(61, 40, 97)):
    """Finish it; return how many blocks of each stage that took."""
    events = []
    model = refined_model(image.parent / "refiner")
    config = refined_config(image, block_shape)
    segment(config, events.append, factory=law_factory(), model=model)
    return Counter(e.stage for e in events if isinstance(e, BlockDone) and e.stage in STAGES)


def tiles(image, count):
    for index in range(1, count + 1):
        part(image, index, count)


@pytest.mark.usefixtures("impatient")
def test_parts_in_turn_do_every_stage_and_the_finish_none(mine, reference):
    """Each does what it can, and stops where another's share is missing; again, until it is all."""
    tiles(mine, 3)
    done, said = Counter(), []
    for index in (2, 3, 1) * 6:

        def listen(event, index=index):
            if isinstance(event, BlockDone) and event.stage in STAGES:
                done[event.stage, event.block] += 1
            elif isinstance(event, Note):
                said.append(event.text)

        # The shape of the blocks is that of the first, whatever another one's memory would give.
        part(mine, index, 3, [(32, 32, 32), (61, 83, 97), (64, 64, 64)][index - 1], listen)
    assert set(done.values()) == {1}
    assert {stage for stage, _ in done} == STAGES - {"predict"}
    assert said[-1].startswith("part 1/3: all parts have painted")
    assert any("not at work have something left" in text for text in said)
    assert not (mine / "labels" / "anystar").exists()
    assert not finish(mine)
    assert digests(mine) == reference
    assert not (mine.parent / "phantom.anystar.work").exists()


@pytest.mark.parametrize("killed", [None, ("refine", 1), ("paint", 1)])
def test_parts_at_once_wait_for_each_other(mine, reference, killed):
    """Three processes at once, all of them whole, or one killed in the midst of a stage."""
    tiles(mine, 3)
    stages = [("never", "9"), ("never", "9"), killed or ("never", "9")]
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, mine, *map(str, stage), f"units:{n}/3@{3 if killed else 60}"],
            stderr=subprocess.PIPE,
        )
        for n, stage in enumerate(stages, 1)
    ]
    for process, stage in zip(running, stages, strict=True):
        _, error = process.communicate(timeout=300)
        assert process.returncode == (0 if stage[0] == "never" else -9), error.decode()
    left = finish(mine)
    assert digests(mine) == reference
    assert bool(left) == (killed is not None)
    assert not left["predict"]


@pytest.mark.usefixtures("impatient")
def test_parts_of_another_number_are_refused_and_lose_nothing(mine, reference):
    tiles(mine, 2)
    part(mine, 1, 2)
    with pytest.raises(ConfigError, match="shared by 2 parts; give I/2"):
        part(mine, 1, 3)
    part(mine, 2, 2)
    finish(mine)
    assert digests(mine) == reference


def test_a_half_painted_label_that_is_gone_is_not_begun_anew(mine):
    tiles(mine, 1)
    part(mine, 1, 1)
    (hidden,) = (mine / "labels").glob(".anystar*")
    shutil.rmtree(hidden)
    with pytest.raises(LedgerMismatchError, match="half-painted label that is gone"):
        part(mine, 1, 1)
    assert not hidden.exists()


@pytest.mark.parametrize(("count", "blocks"), [(1, 5), (3, 7), (8, 3), (5, 1000)])
def test_every_block_has_one_owner(count, blocks):
    owners = [part_units.Together(None, (n + 1, count), None, {}) for n in range(count)]
    for number in range(blocks):
        assert sum(owner.has(number, blocks) for owner in owners) == 1


def test_a_part_that_waits_ends_with_its_time(mine, monkeypatch):
    """Others are taken to be about to begin; `--max-time` ends the waiting."""
    monkeypatch.setattr(part_units, "PAUSE", 0.0)
    tiles(mine, 2)
    stop = Stop()
    config = refined_config(mine, (32, 32, 32), part=(1, 2))

    def listen(event):
        if isinstance(event, Note) and event.text.startswith("waiting for other parts: suppress"):
            stop.ask("by the test")

    model = refined_model(mine.parent / "refiner")
    engine = InlineEngine(stop=stop)
    with pytest.raises(OutOfTimeError, match="waiting for other parts"):
        segment_part(config, listen, engine=engine, factory=law_factory(), model=model)
