"""Parts of a run on machines that share an object store alone: the bytes of a single run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from anystar_batch.archive.storage.lock import hold
from anystar_batch.errors import LedgerMismatchError, LockedError
from anystar_batch.events import BlockDone, Note
from anystar_batch.pipeline import part_exchange
from anystar_batch.pipeline.part import segment_part
from anystar_batch.pipeline.segment import segment
from tests.support.checkout import ROOT
from tests.support.law_phantom import (
    SHAPE,
    digests,
    law_config,
    law_factory,
    law_model,
    write_law_image,
)
from tests.support.servers import download, filesystem, objects, upload

SCRIPT = ROOT / "tests" / "support" / "killed_run.py"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The image, and one run over it in one block, on disk."""
    folder = tmp_path_factory.mktemp("parts")
    image = write_law_image(folder / "phantom.ome.zarr")
    segment(law_config(image, SHAPE), factory=law_factory(), model=law_model())
    return Path(image)


@pytest.fixture
def mine(bucket, local, request, tmp_path, monkeypatch):
    """The image in the store, in a place of the test's own, and machines to work on."""
    address = f"{bucket}/{request.node.name}/phantom.ome.zarr"
    for name in ("0", "1", "2"):
        upload(local / name, f"{address}/{name}")
    filesystem().pipe_file(f"{address}/zarr.json", (local / "zarr.json").read_bytes())
    at_machine(monkeypatch, tmp_path, 0)
    return address


def at_machine(monkeypatch, tmp_path, number):
    """Go to a directory that no other part has: what a part works in lies there."""
    folder = tmp_path / f"machine-{number}"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


def configured(image, block_shape=(40, 48, 56), **run):
    config = law_config(image, block_shape, **run)
    home, _, name = image.rpartition("/")
    return replace(config, home=home, stem=name.removesuffix(".ome.zarr"))


def part(image, index, count, block_shape=(32, 32, 32), **result):
    config = configured(image, block_shape, part=(index, count))
    config = replace(config, result=replace(config.result, **result))
    return segment_part(config, factory=law_factory(), model=law_model())


def finish(image, on_event=lambda _: None, **run):
    return segment(configured(image, **run), on_event, factory=law_factory(), model=law_model())


def place(image):
    return f"{image.rpartition('/')[0]}/.phantom.anystar.parts"


def check_same(image, local, folder):
    download(image.rpartition("/")[0], folder)
    assert digests(folder / "phantom.ome.zarr") == digests(local)
    assert not objects(place(image))


def predicted(events):
    return [event for event in events if isinstance(event, BlockDone) and event.stage == "predict"]


def test_parts_on_three_machines_and_a_finish_on_a_fourth_are_one_run(
    mine, local, tmp_path, monkeypatch
):
    for index in (3, 1, 2):
        folder = at_machine(monkeypatch, tmp_path, index)
        assert part(mine, index, 3).status == f"part {index}/3"
        assert not list(folder.iterdir())
    assert len([name for name in objects(place(mine)) if name.endswith(".jsonl")]) == 3
    folder, events = at_machine(monkeypatch, tmp_path, 4), []
    finish(mine, events.append)
    assert not predicted(events)
    assert not list(folder.iterdir())
    check_same(mine, local, tmp_path / "got")


def test_parts_killed_missing_or_run_again_elsewhere_change_no_byte(
    mine, local, tmp_path, monkeypatch
):
    """One is killed after two blocks; one loses the store, one a file of it; one never runs."""
    killed = subprocess.run(
        [sys.executable, SCRIPT, mine, "predict", "2", "part:1/4"],
        capture_output=True,
        cwd=at_machine(monkeypatch, tmp_path, 1),
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    before = objects(place(mine))["1-of-4.jsonl"]
    assert b'"predict"' in before  # what it had done counts
    at_machine(monkeypatch, tmp_path, 5)
    part(mine, 1, 4)
    after = objects(place(mine))["1-of-4.jsonl"]
    assert after.startswith(before)
    keys = [line["key"] for line in map(json.loads, after.splitlines()[1:])]
    assert len(keys) == len(set(keys))
    at_machine(monkeypatch, tmp_path, 3)
    with monkeypatch.context() as patch:
        patch.setattr(part_exchange, "put", _refuse)
        with pytest.raises(OSError, match="gone"):
            part(mine, 3, 4)
    files = [name for name in objects(place(mine)) if name.endswith(".npy")]
    filesystem().rm_file(f"{place(mine)}/{files[0]}")
    events = []
    with monkeypatch.context() as patch:  # killed before it tidies up
        patch.setattr("anystar_batch.pipeline.publish._remove_work", lambda _: None)
        finish(mine, events.append)
    assert any("tiles are open and done now" in one.text for one in events if isinstance(one, Note))
    assert objects(place(mine))
    at_machine(monkeypatch, tmp_path, 7)
    assert finish(mine).status == "nothing to do"
    check_same(mine, local, tmp_path / "got")


def _refuse(*_):
    message = "the store is gone"
    raise OSError(message)


def test_who_is_at_work_is_seen_from_other_machines(mine):
    part(mine, 1, 2)
    lock = f"{place(mine)}/2-of-2.lock"
    with hold(lock), pytest.raises(LockedError, match="part 2/2 is at work"):
        finish(mine)
    with hold(lock), pytest.raises(LockedError):
        part(mine, 2, 2)
    with (
        hold(f"{mine}/labels/.anystar.lock"),
        pytest.raises(LockedError, match="finishes"),
    ):
        part(mine, 2, 2)
    with pytest.raises(LedgerMismatchError, match="nms_thresh"):
        part(mine, 2, 2, nms_thresh=0.2)
