"""The law of kept candidates: the bytes of a run from nothing, without the network."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from anystar_batch.config import Filters
from anystar_batch.engine.engines import open_engine
from anystar_batch.errors import BlockError
from anystar_batch.events import Note
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.candidate_store import Store
from tests.support.checkout import ROOT
from tests.support.law_phantom import (
    MOVED,
    SHAPE,
    copy_of,
    digests,
    law_config,
    law_factory,
    law_model,
    refined_config,
    refined_model,
    write_law_image,
)

OTHER = {
    "prob_thresh": 0.72,
    "nms_thresh": 0.45,
    "filters": Filters(min_volume=Quantity(60.0, "um3"), min_contrast=0.5),
    **MOVED,
}
"""Everything after the network, changed at once."""


@dataclass(frozen=True)
class NoNetwork:
    """Stands where nobody may ask the network."""

    def __call__(self, *_):
        message = "the network was asked"
        raise AssertionError(message)


@dataclass(frozen=True)
class Counted:
    """The law's network; says how often it was asked."""

    def __call__(self, *_):
        return self

    def find(self, *arguments):
        ASKED.append(arguments[1:3])
        return law_factory().find(*arguments)


ASKED = []


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_law_image(tmp_path_factory.mktemp("kept") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def model(image):
    """Its largest believable object is smaller than some that the network finds."""
    return replace(refined_model(Path(image).parent / "refiner"), max_radius=11.0)


@pytest.fixture(scope="module")
def kept(image, model):
    """An image whose candidates are kept; what the network said is that of many small blocks."""
    assert run(image, model, block_shape=(32, 32, 48), keep_candidates=True).instances > 100
    return image


@pytest.fixture(scope="module")
def reference(image, model, tmp_path_factory):
    """Other options, from nothing, in one block: bytes, provenance, record."""
    mine = copy_of(image, tmp_path_factory.mktemp("nothing"))
    run(mine, model, **OTHER)
    return everything(mine)


def run(image, model, listen=lambda _: None, *, factory=None, engine=None, label="anystar", **more):
    of_run = {k: more.pop(k) for k in ("keep_candidates", "keep_above", "overwrite") if k in more}
    shape = more.pop("block_shape", SHAPE)
    config = refined_config(image, shape, workers=1 if engine is None else engine.workers, **of_run)
    config = replace(config, label=label, result=replace(config.result, **more))
    factory = factory or law_factory()
    return segment(config, listen, engine=engine, factory=factory, model=model)


def everything(image, label="anystar"):
    """Files of label and table, and what the record says of too large candidates."""
    record = json.loads(Path(image).with_name(f"phantom.{label}.run.json").read_text())
    return {
        **digests(image, label),
        "too large": record["candidates_too_large"],
        "fingerprint": record["summary"]["fingerprint"],
    }


def with_kept(image, folder):
    """A copy that has the candidates of an image, with the times of its chunks."""
    mine = copy_of(image, folder)
    store = Path(image).with_name("phantom.candidates")
    subprocess.run(["cp", "-r", str(store), str(mine.parent)], check=True)
    return mine


@pytest.mark.parametrize("block_shape", [SHAPE, (61, 40, 97)])
def test_other_thresholds_outlines_and_filters_need_no_network(
    kept, model, reference, tmp_path, block_shape
):
    mine = with_kept(kept, tmp_path)
    run(mine, model, factory=NoNetwork(), block_shape=block_shape, **OTHER)
    assert everything(mine) == reference
    assert reference["too large"] > 0
    record = json.loads(mine.with_name("phantom.anystar.run.json").read_text())
    assert (
        record["candidates_too_large"]
        < json.loads(Path(kept).with_name("phantom.anystar.run.json").read_text())[
            "candidates_too_large"
        ]
    ), "fewer are as sure"


def test_workers_take_them_too_and_another_label_of_the_image(kept, model, reference):
    with open_engine(2, 6 * 10**9) as engine:
        run(kept, model, engine=engine, factory=NoNetwork(), label="other",
            block_shape=(32, 64, 32), **OTHER)  # fmt: skip
    found = everything(kept, "other")
    assert found["CSV"] == reference["CSV"]
    assert {k: v for k, v in found.items() if k.startswith(("0/", "1/", "2/"))} == {
        k: v for k, v in reference.items() if k.startswith(("0/", "1/", "2/"))
    }


def test_two_scales(image, model, tmp_path):
    mine, nothing = copy_of(image, tmp_path / "a"), copy_of(image, tmp_path / "b")
    scales = {"scales": (1, 2), "refine": "off"}
    run(mine, model, keep_candidates=True, **scales)
    other = {"prob_thresh": 0.75, "nms_thresh": 0.5} | scales
    run(mine, model, factory=NoNetwork(), overwrite=True, block_shape=(32, 64, 32), **other)
    run(nothing, model, **other)
    assert everything(mine) == everything(nothing)


@pytest.mark.parametrize(("stage", "after"), [("predict", 3), ("paint", 1)])
def test_a_kill_while_they_are_made_leaves_them_whole_or_absent(
    image, reference, model, tmp_path, stage, after
):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), stage, str(after), "kept"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert not Store.open(mine.with_name("phantom.candidates")).sets
    first = refined_config(mine, (32, 96, 64), keep_candidates=True)
    segment(first, factory=law_factory(), model=refined_model(mine.parent / "refiner"))
    (one,) = Store.open(mine.with_name("phantom.candidates")).sets
    assert one.header["tiles"] == len(list(one.tiles())) == 2 * 3 * 4
    notes = []
    again = replace(first, label="again", run=replace(first.run, keep_candidates=False))
    segment(again, notes.append, factory=NoNetwork(), model=refined_model(mine.parent / "refiner"))
    assert any("24 of 24 tiles; the network was not needed" in n.text for n in texts(notes))


def texts(events):
    return [event for event in events if isinstance(event, Note)]


def test_what_was_begun_without_is_kept_when_it_goes_on_with(image, model, tmp_path):
    mine = copy_of(image, tmp_path)

    def stop(event):
        if getattr(event, "stage", "") == "own":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(mine, model, stop)
    run(mine, model, keep_candidates=True)
    (one,) = Store.open(mine.with_name("phantom.candidates")).sets
    assert len(list(one.tiles())) == 24


def test_a_lower_threshold_asks_the_network_unless_they_were_kept_from_there(
    image, model, tmp_path
):
    mine, nothing = copy_of(image, tmp_path / "a"), copy_of(image, tmp_path / "b")
    high, low = {"prob_thresh": 0.75}, {"prob_thresh": 0.6}
    run(mine, model, keep_above=0.6, **high)
    run(nothing, model, **high)
    assert everything(mine) == everything(nothing)
    run(nothing, model, overwrite=True, **low)
    run(mine, model, factory=NoNetwork(), overwrite=True, **low)
    assert everything(mine) == everything(nothing)
    notes = []
    run(mine, model, notes.append, overwrite=True, prob_thresh=0.5)
    assert any("kept above 0.6, wanted above 0.5: 24" in n.text for n in texts(notes))
    with pytest.raises(BlockError, match="the network was asked"):
        run(mine, model, factory=NoNetwork(), overwrite=True, prob_thresh=0.59)


def test_what_is_damaged_missing_or_of_another_image_is_left_to_the_network(
    kept, model, reference, tmp_path
):
    mine = with_kept(kept, tmp_path)
    (folder,) = mine.with_name("phantom.candidates").iterdir()
    first, second, third = sorted(folder.glob("*.npy"))[:3]
    first.unlink()
    damaged = bytearray(second.read_bytes())
    damaged[-7] ^= 4
    second.write_bytes(bytes(damaged))
    third.write_bytes(third.read_bytes()[:-40])
    chunk = mine / "0" / "c" / "1" / "2" / "3"
    chunk.touch()  # written to, for all we know
    notes, ASKED[:] = [], []
    run(mine, model, notes.append, factory=Counted(), keep_candidates=True, **OTHER)
    assert everything(mine) == reference
    assert 3 <= len(ASKED) < 24
    said = " ".join(n.text for n in texts(notes))
    assert "of 24 tiles, the others were left to the network" in said
    assert "damaged" in said
    assert "are others there" in said
    notes.clear()
    run(mine, model, notes.append, factory=NoNetwork(), overwrite=True)
    assert any("24 of 24 tiles" in n.text for n in texts(notes)), "made whole again"


def test_a_list_that_is_damaged_is_told_and_not_used(kept, model, tmp_path):
    mine = with_kept(kept, tmp_path)
    (folder,) = mine.with_name("phantom.candidates").iterdir()
    index = folder / "index.jsonl"
    index.write_bytes(index.read_bytes()[20:])
    notes, ASKED[:] = [], []
    run(mine, model, notes.append, factory=Counted())
    assert len(ASKED) == 24
    assert any("list of kept candidates is damaged" in n.text and n.is_warning for n in notes
               if isinstance(n, Note))  # fmt: skip


@pytest.mark.parametrize("other", ["model", "tile", "diameter", "precision"])
def test_candidates_of_other_options_are_not_taken(kept, model, tmp_path, other):
    mine = with_kept(kept, tmp_path)
    changed = {"tile": {"tile": 16}, "diameter": {"diameter": Quantity(7.0, "um")},
               "precision": {"precision": "bfloat16"}}.get(other, {})  # fmt: skip
    if other == "model":
        model = replace(model, sha256="1" * 64)
    notes, ASKED[:] = [], []
    run(mine, model, notes.append, factory=Counted(), **changed)
    assert ASKED
    assert any("kept candidates: none for these options" in n.text for n in texts(notes))


def test_the_probe_takes_its_tiles_too(tmp_path):
    mine = write_law_image(tmp_path / "a" / "phantom.ome.zarr")
    nothing = copy_of(mine, tmp_path / "b")
    options = {"diameter": None, "refine": "auto"}
    first = law_config(mine, SHAPE, keep_candidates=True)
    first = replace(first, result=replace(first.result, **options))
    segment(first, factory=law_factory(), model=law_model())
    other = replace(first, label="other", result=replace(first.result, prob_thresh=0.8))
    segment(other, factory=NoNetwork(), model=law_model())
    without = replace(law_config(nothing, SHAPE), label="other", result=other.result)
    segment(without, factory=law_factory(), model=law_model())
    assert everything(mine, "other") == everything(nothing, "other")
