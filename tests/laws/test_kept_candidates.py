"""The law of kept candidates: the bytes of a run from nothing, without the network."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive.images import read_image
from anystar_batch.archive.storage.lock import hold
from anystar_batch.config import Filters
from anystar_batch.engine.engines import open_engine
from anystar_batch.errors import BlockError, ConfigError
from anystar_batch.events import Note
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline import candidate_sets
from anystar_batch.pipeline import segment as pipeline
from anystar_batch.pipeline.outputs import output_paths
from anystar_batch.pipeline.part import segment_part
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.candidate_store import Store
from anystar_batch.stages.plan import PROBE, fingerprint_parts
from tests.support import tiny_volume
from tests.support.checkout import ROOT
from tests.support.fakes import NoNetwork, TruthPredictor
from tests.support.law_phantom import (
    MOVED,
    SHAPE,
    copy_of,
    digests,
    law_factory,
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
class Counted:
    """The tiny volume's network; says how often it was asked."""

    def __call__(self, *_):
        return self

    def find(self, *arguments):
        ASKED.append(arguments[2])
        return TruthPredictor(tiny_volume.truth()).find(*arguments)


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


def test_other_thresholds_outlines_and_filters_need_no_network(kept, model, reference, tmp_path):
    mine = with_kept(kept, tmp_path)
    run(mine, model, factory=NoNetwork(), **OTHER)
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


def test_a_kill_while_they_are_made_leaves_them_whole_or_absent(image, tmp_path):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), "predict", "3", "kept"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert not Store.open(mine.with_name("phantom.candidates")).sets
    refiner = refined_model(mine.parent / "refiner")
    first = refined_config(mine, (32, 96, 64), keep_candidates=True)
    segment(first, factory=law_factory(), model=refiner)
    (one,) = Store.open(mine.with_name("phantom.candidates")).sets
    assert one.header["tiles"] == len(list(one.tiles())) == 24
    notes = []
    again = replace(first, label="again", run=replace(first.run, keep_candidates=False))
    segment(again, notes.append, factory=NoNetwork(), model=refiner)
    assert "24 of 24 tiles; the network was not needed" in said(notes)


def said(events):
    return "\n".join(event.text for event in events if isinstance(event, Note))


@pytest.fixture
def small(tmp_path):
    return tiny_volume.small_image(tmp_path / "a" / "tiny.ome.zarr")


def kept_of(image):
    """The only set of an image, and what it holds."""
    (one,) = Store.open(Path(image).with_name("tiny.candidates")).sets
    return one


def tiles_of(one):
    return len(list(one.tiles()))


def same(image, other):
    """Whether two images have the same label and table."""
    return digests(image) == digests(other)


KEEP = {"keep_candidates": True}
AGAIN = {"overwrite": True}
ALL = 18
"""Tiles of the tiny volume."""


def test_what_was_begun_without_is_kept_when_it_goes_on_with(small):
    def stop(event):
        if getattr(event, "stage", "") == "own":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_volume.segment(small, stop)
    tiny_volume.segment(small, run=KEEP)
    assert tiles_of(kept_of(small)) == ALL


def test_a_run_that_ends_between_candidates_and_label_has_kept_them(small, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tiny_volume.segment(small, run=KEEP)
    assert tiles_of(kept_of(small)) == ALL
    tiny_volume.segment(small, run=KEEP, factory=NoNetwork())
    assert tiles_of(kept_of(small)) == ALL
    record = json.loads(Path(small).with_name("tiny.anystar.run.json").read_text())
    assert record["candidates"]["path"] == str(kept_of(small).folder)
    assert record["candidates"]["bytes"] == kept_of(small).size
    beside = Path(small).with_name("tiny.candidates").iterdir()
    assert [path.name for path in beside] == [kept_of(small).folder.name]


def test_a_lower_threshold_asks_the_network_unless_they_were_kept_from_there(small, tmp_path):
    nothing = tiny_volume.small_image(tmp_path / "b" / "tiny.ome.zarr")
    tiny_volume.segment(small, run={"keep_above": 0.6}, prob_thresh=0.75)
    tiny_volume.segment(nothing, prob_thresh=0.75)
    assert same(small, nothing)
    tiny_volume.segment(nothing, run=AGAIN, prob_thresh=0.6)
    tiny_volume.segment(small, run=AGAIN, factory=NoNetwork(), prob_thresh=0.6)
    assert same(small, nothing)
    notes = []
    tiny_volume.segment(small, notes.append, run=AGAIN, prob_thresh=0.5)
    assert f"kept above 0.6, wanted above 0.5: {ALL}" in said(notes)
    with pytest.raises(BlockError, match="the network was asked"):
        tiny_volume.segment(small, run=AGAIN, factory=NoNetwork(), prob_thresh=0.59)


def test_what_is_damaged_missing_or_of_another_image_is_left_to_the_network(small, tmp_path):
    nothing = tiny_volume.small_image(tmp_path / "b" / "tiny.ome.zarr")
    tiny_volume.segment(small, run=KEEP | {"block_shape": (8, 8, 8)})
    tiny_volume.segment(nothing, prob_thresh=0.7)
    first, second, third = sorted(kept_of(small).folder.glob("*.npy"))[:3]
    first.unlink()
    records = np.load(second)
    records["dist"] ^= 64
    second.unlink()
    np.save(second, records)
    third.write_bytes(third.read_bytes()[:-40])
    (Path(small) / "0" / "c" / "1" / "2" / "2").touch()  # written to, for all we know
    notes, ASKED[:] = [], []
    tiny_volume.segment(small, notes.append, factory=Counted(), run=AGAIN | KEEP, prob_thresh=0.7)
    assert same(small, nothing)
    assert 3 <= len(ASKED) < ALL
    assert f"of {ALL} tiles, the others were left to the network" in said(notes)
    assert "damaged" in said(notes)
    assert "are others there" in said(notes)
    notes.clear()
    tiny_volume.segment(small, notes.append, run=AGAIN, factory=NoNetwork())
    assert f"{ALL} of {ALL} tiles; the network was not needed" in said(notes), "whole again"


def test_a_list_that_is_damaged_is_told_and_not_used(small):
    tiny_volume.segment(small, run=KEEP)
    index = kept_of(small).folder / "index.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[20:])
    notes, ASKED[:] = [], []
    tiny_volume.segment(small, notes.append, factory=Counted(), run=AGAIN)
    assert len(ASKED) == ALL
    assert "list of kept candidates is damaged" in said(n for n in notes if is_warning(n))
    index.write_bytes(whole.replace(b'"start": 0', b'"start": 1'))
    ASKED[:] = []
    tiny_volume.segment(small, factory=Counted(), run=AGAIN)
    assert ASKED, "records are not those that were kept"


def is_warning(event):
    return isinstance(event, Note) and event.is_warning


@pytest.mark.parametrize(
    "options",
    [{"diameter": Quantity(6.0, "um")}, {"precision": "bfloat16"}],
    ids=lambda options: next(iter(options)),
)
def test_candidates_of_other_options_are_not_taken(tmp_path, options):
    image = tiny_volume.small_series(tmp_path / "tiny.ome.zarr", axes="czyx", times=1)
    tiny_volume.segment(image, run=KEEP, precision="float32")
    options = {"precision": "float32"} | options
    notes, ASKED[:] = [], []
    tiny_volume.segment(image, notes.append, factory=Counted(), run=AGAIN, **options)
    assert ASKED
    assert "kept candidates: none for these options" in said(notes)


def test_candidates_of_another_model_or_image_are_not_taken(small):
    tiny_volume.segment(small, run=KEEP)
    config = tiny_volume.config(small, run=AGAIN)
    ASKED[:] = []
    other = replace(tiny_volume.model(), sha256="1" * 64)
    segment(config, factory=Counted(), model=other)
    assert len(ASKED) == ALL


def test_times_are_kept_one_by_one(tmp_path):
    image = tiny_volume.small_series(tmp_path / "tiny.ome.zarr", axes="tzyx", times=2)
    tiny_volume.segment(image, run=KEEP, time="0")
    notes = []
    tiny_volume.segment(image, notes.append, run=AGAIN | KEEP, time="1", prob_thresh=0.7)
    assert f"0 of {ALL} tiles, the others were left to the network" in said(notes)
    assert tiles_of(kept_of(image)) == 2 * ALL
    assert kept_of(image).header["above"] == 0.5, "the lower one holds for all"
    tiny_volume.segment(image, run=AGAIN, factory=NoNetwork())


def test_tiles_that_are_kept_anew_take_nothing_from_their_neighbours(small):
    whole = {"block_shape": tiny_volume.SHAPE}
    tiny_volume.segment(small, run=KEEP | whole)
    (Path(small) / "0" / "c" / "1" / "2" / "2").touch()
    ASKED[:] = []
    tiny_volume.segment(small, factory=Counted(), run=AGAIN | KEEP | whole)
    assert 0 < len(ASKED) < ALL
    assert len({one.file for _, one in kept_of(small).tiles() if one.file}) == 2
    tiny_volume.segment(small, factory=NoNetwork(), run=AGAIN)


def test_parts_of_a_run_keep_theirs_and_take_what_is_kept(small, tmp_path):
    nothing = tiny_volume.small_image(tmp_path / "b" / "tiny.ome.zarr")
    for index in (1, 2):
        config = tiny_volume.config(small, run=KEEP | {"part": (index, 2)}, diameter=None)
        segment_part(config, factory=TruthPredictor(tiny_volume.truth()), model=tiny_volume.model())
    tiny_volume.segment(small, factory=NoNetwork(), run=KEEP, diameter=None)
    assert tiles_of(kept_of(small)) == kept_of(small).header["tiles"] > 4
    other = {"diameter": None, "prob_thresh": 0.7, "label": "other"}
    config = tiny_volume.config(small, run={"part": (1, 1)}, **other)
    segment_part(config, factory=NoNetwork(), model=tiny_volume.model())
    expected = tiny_volume.segment(nothing, **other).instances
    assert tiny_volume.segment(small, factory=NoNetwork(), **other).instances == expected > 0


def test_the_probe_takes_its_tiles_too(small, tmp_path):
    nothing = tiny_volume.small_image(tmp_path / "b" / "tiny.ome.zarr")
    tiny_volume.segment(small, run=KEEP, diameter=None)
    tiny_volume.segment(small, factory=NoNetwork(), run=AGAIN, diameter=None, prob_thresh=0.8)
    tiny_volume.segment(nothing, diameter=None, prob_thresh=0.8)
    assert same(small, nothing)
    attributes = json.loads((Path(small) / "labels" / "anystar" / "zarr.json").read_text())
    assert attributes["attributes"]["anystar-batch"]["options"]["probe"] == PROBE


def test_the_way_of_the_probe_is_in_the_fingerprint_where_it_runs(small):
    source, model = read_image(small), tiny_volume.model()
    for options, is_there in (
        ({"diameter": None}, True),
        ({"diameter": None, "prob_thresh": 0.7}, True),
        ({"prob_thresh": 0.7, "nms_thresh": 0.7}, False),
    ):
        result = tiny_volume.config(small, **options).result
        assert ("probe" in fingerprint_parts(source, model, result, "float32")) == is_there


def test_two_scales(small, tmp_path):
    nothing = tiny_volume.small_image(tmp_path / "b" / "tiny.ome.zarr")
    tiny_volume.segment(small, run=KEEP, scales=(1, 2))
    other = {"prob_thresh": 0.75, "nms_thresh": 0.5, "scales": (1, 2)}
    tiny_volume.segment(small, factory=NoNetwork(), run=AGAIN, **other)
    assert tiny_volume.segment(nothing, **other).instances >= 5
    assert same(small, nothing)


def test_where_results_go_to_a_store_it_is_said_before_work(small):
    config = tiny_volume.config(small, run=KEEP)
    outputs = output_paths(config)
    remote = replace(outputs, folder="s3://bucket/results")
    with pytest.raises(ConfigError, match="--keep-candidates: results go to s3://bucket"):
        candidate_sets.check_place(config, remote)


def test_a_disk_that_is_full_costs_the_candidates_and_not_the_label(small, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "tiny.candidates")

    monkeypatch.setattr(candidate_sets, "_write_set", full)
    notes = []
    assert tiny_volume.segment(small, notes.append, run=KEEP).instances == 5
    assert "candidates are not kept" in said(n for n in notes if is_warning(n))
    assert not Path(small).with_name("tiny.candidates").exists()


def test_who_writes_there_meanwhile_is_named_and_the_label_made(small):
    folder = Path(small).with_name("tiny.candidates")
    folder.mkdir()
    notes = []
    with hold(folder / candidate_sets.LOCK):
        assert tiny_volume.segment(small, notes.append, run=KEEP).instances == 5
    assert "candidates are not kept" in said(n for n in notes if is_warning(n))
    assert not list(folder.iterdir())


def test_a_published_label_says_how_to_keep_its_candidates(small):
    tiny_volume.segment(small)
    notes = []
    assert tiny_volume.segment(small, notes.append, run=KEEP).status == "nothing to do"
    assert "give --overwrite with --keep-candidates" in said(notes)
