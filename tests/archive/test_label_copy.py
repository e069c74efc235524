"""Labels and locks in an object store: killed anywhere, taken over, contended for."""

import errno
import json
import os
import socket
import threading
import time
import warnings

import numpy as np
import pytest

from anystar_batch.archive import (
    images,
    label_copy,
    label_image,
    label_list,
    label_place,
    labels,
    nodes,
)
from anystar_batch.archive.storage import files, lock, object_lock, remote
from anystar_batch.archive.storage.fence import Fence, boot
from anystar_batch.archive.tables import has_table, write_table
from anystar_batch.errors import LockedError, LostLockError, OutputError
from anystar_batch.geometry import Box
from tests.support.fakes import write_image
from tests.support.servers import memory_store

IMAGE = "s3://b/a.zarr"
LOCK = "s3://b/a.lock"
GONE = 2**22 + 1
"""A number that no process of Linux has."""


@pytest.fixture
def memory():
    with memory_store() as found:
        yield found


class Killed(BaseException):
    """Stands for kill -9: no handler of `Exception` runs."""


def put_image(memory, folder, version):
    """An image of one chunk with consolidated metadata, below an address."""
    import zarr

    path = write_image(folder / "a.zarr", [np.zeros((2, 2, 2), np.uint8)], version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # outside the specification of Zarr 3
        zarr.consolidate_metadata(path)
    for file in sorted((folder / "a.zarr").rglob("*")):
        if file.is_file():
            remote.put(f"{IMAGE}/{file.relative_to(folder / 'a.zarr')}", file.read_bytes())
    return images.read_image(IMAGE)


def make(place, spec, token, value):
    path = labels.create_label(place, spec, token)
    box = Box((0, 0, 0), (2, 2, 2))
    label_image.LabelWriter(path, spec).write_box(0, 0, box, np.full((2, 2, 2), value, np.uint32))


def whole(path, spec, value):
    """Whether a complete label of one value, described by its metadata, is at an address."""
    node = nodes.read_node(path)
    if node is None or node.attributes.get("anystar-batch") != {"value": value}:
        return False
    box = Box((0, 0, 0), (2, 2, 2))
    return bool((label_image.LabelWriter(path, spec).read_box(0, 0, box) == value).all())


def shown_consolidated(memory, version):
    """Names of labels in the consolidated metadata of the image."""
    if version == "0.4":
        known = json.loads(remote.read(f"{IMAGE}/.zmetadata"))["metadata"]
        found = {key.removesuffix("/.zattrs") for key in known if key.endswith("/.zattrs")}
    else:
        known = json.loads(remote.read(f"{IMAGE}/zarr.json"))["consolidated_metadata"]["metadata"]
        found = set(known)
    return {k.removeprefix("labels/") for k in found if k.count("/") == 1 and "labels/" in k}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_overwriting_killed_anywhere_keeps_a_whole_label_and_is_finished(memory, tmp_path, version):
    source = put_image(memory, tmp_path, version)
    spec, place = label_image.label_spec(source), label_place.in_image(IMAGE, "n")
    make(place, spec, "old1", 1)
    labels.publish(place, spec, "old1", {"value": 1})
    make(place, spec, "new1", 2)
    start = dict(memory.store)
    for step in range(100):
        memory.store.clear()
        memory.store.update({k: type(v)(memory, k, v.getvalue()) for k, v in start.items()})
        finished = killed(step, place, lambda: labels.publish(place, spec, "new1", {"value": 2}))
        hidden = place.hidden_path("new1")
        assert whole(place.path, spec, 1) or whole(hidden, spec, 2) or whole(place.path, spec, 2), (
            step
        )
        node = nodes.read_node(place.path)
        if "n" in label_list.listed(IMAGE) or (node is not None and node.attributes):
            assert whole(place.path, spec, 1) or whole(place.path, spec, 2)
        begun = remote.exists(f"{IMAGE}/labels/.n.publish") or finished
        expected = 2 if begun or whole(place.path, spec, 2) else 1
        assert labels.published_attributes(place)["anystar-batch"] == {"value": expected}
        if begun:  # a recovery that is killed too
            killed(step % 7, place, lambda: labels.recover(place))
        labels.recover(place)
        assert whole(place.path, spec, expected), step
        assert label_list.listed(IMAGE) == ["n"]
        assert shown_consolidated(memory, version) == {"n"}
        left = set(remote.names(f"{IMAGE}/labels"))
        assert not {name for name in left if name.startswith(".n.") and expected == 2}
        assert lock.LIST_LOCK not in left
        if finished:
            assert step > 8
            return
    pytest.fail("publishing never came to its end")


def killed(step, place, act):
    """Act, killed before the n-th change of the store; return whether it came to its end."""
    done = []

    def guard(name):
        original = getattr(remote, name)

        def wrapped(*arguments, **more):
            if len(done) == step:
                raise Killed
            done.append(name)
            return original(*arguments, **more)

        patch.setattr(remote, name, wrapped)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("put", "copy", "remove", "remove_tree"):
            guard(name)
        patch.setattr(remote, "at_once", lambda function, paths: [function(p) for p in paths])
        try:
            act()
        except Killed:
            pass
        else:
            return True
    bury(f"{place.parent}/{lock.LIST_LOCK}")
    return False


def bury(path):
    """Let the holder of a lock be a process that is gone."""
    found = remote.read(path)
    if found is not None:
        remote.put(path, json.dumps(json.loads(found) | {"pid": GONE}).encode())


def test_a_hidden_label_that_is_gone_is_told_of(memory, tmp_path):
    source = put_image(memory, tmp_path, "0.5")
    place = label_place.in_image(IMAGE, "n")
    label_copy.begin(place, label_image.label_spec(source).zarr_format, "t1")
    with pytest.raises(OutputError, match=r"\.n\.t1 is gone, of which .* was being made"):
        labels.recover(place)


def test_who_may_not_publish_copies_nothing(memory, tmp_path):
    source = put_image(memory, tmp_path, "0.5")
    spec, place = label_image.label_spec(source), label_place.in_image(IMAGE, "n")
    make(place, spec, "t1", 1)
    labels.publish(place, spec, "t1", {"value": 1})
    make(place, spec, "t2", 2)
    for allowed in range(4):
        calls = []

        def check(calls=calls, allowed=allowed):
            calls.append(0)
            if len(calls) > allowed:
                raise LostLockError("lost")

        with pytest.raises(LostLockError):
            labels.publish(place, spec, "t2", {"value": 2}, check)
        assert whole(place.path, spec, 1) or allowed == 3
    assert whole(place.hidden_path("t2"), spec, 2)


def test_a_long_copy_asks_before_every_part(memory, tmp_path, monkeypatch):
    source = put_image(memory, tmp_path, "0.5")
    spec, place = label_image.label_spec(source), label_place.in_image(IMAGE, "n")
    asked = []
    for at_once in (1, 1000):
        monkeypatch.setattr(label_copy, "AT_ONCE", at_once)
        make(place, spec, "t1", 1)
        calls = []
        labels.publish(place, spec, "t1", {"value": 1}, lambda calls=calls: calls.append(1))
        asked.append(len(calls))
        remote.remove_tree(f"{IMAGE}/labels")
    chunk_and_array = 2
    assert asked[0] - asked[1] == chunk_and_array - 1


def test_the_lock_is_looked_at_right_before_anything_is_deleted(memory, tmp_path, monkeypatch):
    source = put_image(memory, tmp_path, "0.5")
    spec, place = label_image.label_spec(source), label_place.in_image(IMAGE, "n")
    done = []
    for token in ("t1", "t2"):
        make(place, spec, token, 1)
        done.clear()
        with monkeypatch.context() as patch:
            for name in ("copy", "put", "remove", "remove_tree"):
                real = getattr(remote, name)
                patch.setattr(
                    remote,
                    name,
                    lambda *a, r=real, n=name, **k: (done.append((n, a[0])), r(*a, **k)),
                )
            labels.publish(place, spec, token, {"value": 1}, lambda: done.append(("check", "")))
        trees = [n for n, (name, _) in enumerate(done) if name == "remove_tree"]
        assert {done[n][1] for n in trees} >= {place.hidden_path(token)}
        assert all(done[n - 1][0] == "check" for n in trees)
    assert any(done[n][1] == place.path for n in trees)


# --- locks ------------------------------------------------------------------------------------


def put_lock(**more):
    holder = {
        "host": "elsewhere",
        "boot": "b",
        "space": "s",
        "pid": 1,
        "since": "then",
        "nonce": "other",
        "interval": 0.02,
        "limit": 0.1,
        "beat": 3,
    }
    remote.put(LOCK, json.dumps(holder | more).encode())


def here(pid):
    names = {"host": socket.gethostname(), "boot": boot(), "space": object_lock._process_space()}
    return names | {"pid": pid}


def test_one_holds_a_lock_and_gives_it_back(memory):
    with lock.hold(LOCK, 5.0) as fence:
        fence.check()
        with pytest.raises(LockedError, match=rf"a.lock: locked by process {os.getpid()} on"):
            lock.hold(LOCK, 5.0).__enter__()
        fence.check()
    assert not remote.exists(LOCK)
    with pytest.raises(LostLockError, match="nobody: the file was removed"):
        fence.check()


def test_a_holder_gives_signs_of_life(memory):
    with lock.hold(LOCK, 0.01) as fence:
        until = time.monotonic() + 300
        while json.loads(remote.read(LOCK))["beat"] < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert json.loads(remote.read(LOCK))["beat"] >= 2
        fence.check()


def test_a_holder_that_lost_its_lock_gives_no_more_signs_of_life(memory):
    """Nor does it ask the store again and again."""
    with lock.hold(LOCK, 0.01):
        remote.remove(LOCK)
        until = time.monotonic() + 300
        while is_beating() and time.monotonic() < until:
            time.sleep(0.01)
        assert not is_beating()


def is_beating():
    return any(thread.name == "heartbeat" for thread in threading.enumerate())


def test_a_dead_process_of_this_machine_is_followed_at_once(memory):
    put_lock(**here(GONE), interval=100.0, limit=1000.0)
    with lock.hold(LOCK, 5.0) as fence:
        fence.check()


@pytest.mark.parametrize("other", [{"host": "x"}, {"boot": "x"}, {"space": "x"}, {"pid": 1}])
def test_a_process_that_may_live_is_not_followed(memory, other):
    put_lock(**(here(GONE) | other), interval=100.0, limit=1000.0)
    with pytest.raises(LockedError, match="delete the object"):
        lock.hold(LOCK, 5.0).__enter__()


def test_of_two_who_follow_a_dead_one_the_first_wins(memory, monkeypatch):
    put_lock(**here(GONE), interval=100.0, limit=1000.0)
    real = object_lock._is_surely_dead

    def another_is_faster(found):
        dead = real(found)
        if dead:
            put_lock(**here(os.getpid()), nonce="faster", interval=100.0, limit=1000.0)
        return dead

    monkeypatch.setattr(object_lock, "_is_surely_dead", another_is_faster)
    with pytest.raises(LockedError):
        lock.hold(LOCK, 5.0).__enter__()
    assert json.loads(remote.read(LOCK))["nonce"] == "faster"


@pytest.mark.parametrize("is_dead_there", [False, True])
def test_a_request_that_is_repeated_has_been_heard_the_first_time(
    memory, monkeypatch, is_dead_there
):
    """A library repeats a write whose answer was lost, and is refused: the lock is ours."""
    if is_dead_there:
        put_lock(**here(GONE), interval=100.0, limit=1000.0)
    real, repeated = remote.put, []

    def put(path, data, **more):
        real(path, data, **more)
        repeated.append(more)
        raise FileExistsError

    monkeypatch.setattr(remote, "put", put)
    with lock.hold(LOCK, 5.0) as fence:
        fence.check()
        assert len(repeated) == 1
    assert not remote.exists(LOCK)


def test_a_lock_that_the_store_does_not_take_is_named(memory, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "quota")

    monkeypatch.setattr(remote, "put", full)
    with pytest.raises(OutputError, match=r"a\.lock: no space left to write.*--output DIR"):
        lock.hold(LOCK, 5.0).__enter__()


def test_a_sign_of_life_never_takes_the_place_of_anothers(memory, monkeypatch):
    real, taken = remote.put, []

    def put(path, data, **more):
        if path == LOCK and more.get("replaces") and not taken:  # another, just before the beat
            taken.append(1)
            put_lock(**here(os.getpid()), nonce="other")
        real(path, data, **more)

    with lock.hold(LOCK, 0.01) as fence:
        monkeypatch.setattr(remote, "put", put)
        until = time.monotonic() + 300
        while json.loads(remote.read(LOCK))["nonce"] != "other" and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)
        found = json.loads(remote.read(LOCK))
        assert (found["nonce"], found["beat"]) == ("other", 3)
        with pytest.raises(LostLockError):
            fence.check()
    assert remote.exists(LOCK), "what is another's stays"


def test_a_silent_holder_is_followed_and_told(memory, monkeypatch):
    put_lock()
    lost = Fence(((LOCK, "other"),))
    lost.check()
    old = memory.modified("/b/a.lock").timestamp() - 60
    real = remote.modified
    monkeypatch.setattr(remote, "modified", lambda p: old if p == LOCK else real(p))
    with lock.hold(LOCK, 5.0), pytest.raises(LostLockError, match="lost the lock to process"):
        lost.check()


def test_a_holder_that_beats_while_it_is_watched_lives(memory, monkeypatch):
    put_lock()
    real = remote.modified
    monkeypatch.setattr(remote, "modified", lambda p: 0.0 if p == LOCK else real(p))
    monkeypatch.setattr(time, "sleep", lambda _: put_lock(beat=4))
    with pytest.raises(LockedError):
        lock.hold(LOCK, 5.0).__enter__()


def test_what_a_process_killed_over_the_stores_time_left_is_deleted_by_the_next(
    memory, monkeypatch
):
    left = "s3://b/.anystar-batch.partial"
    for look in (object_lock._store_now, files.check_writable):
        remote.put(left, b"")
        look("s3://b")
        assert not remote.exists(left)
    # Another process that looks at the same moment may delete what this one has just written.
    real = remote.modified
    monkeypatch.setattr(remote, "modified", lambda p: None if p == left else real(p))
    assert abs(object_lock._store_now("s3://b") - time.time()) < 3600
    assert not remote.exists(left)


def test_who_changes_a_list_waits_for_the_other(memory, monkeypatch):
    waited = []

    def sleep(_):
        waited.append(1)
        remote.remove(f"s3://b/labels/{lock.LIST_LOCK}")

    with lock.hold_list("s3://b/labels"):
        monkeypatch.setattr(time, "sleep", sleep)
        with lock.hold_list("s3://b/labels"):
            assert waited == [1]
    with lock.hold_list("s3://b/labels"):
        monkeypatch.setattr(lock, "MISSED", 0)
        with pytest.raises(LockedError, match="locked by process"):
            lock.hold_list("s3://b/labels").__enter__()


# --- tables -----------------------------------------------------------------------------------


def test_a_table_is_put_into_an_image_and_replaced(memory, tmp_path):
    put_image(memory, tmp_path, "0.5")
    for text in ("label\n1\n", "label\n2\n"):
        (tmp_path / "t.csv").write_text(text)
        write_table(IMAGE, "n", tmp_path / "t.csv", "n")
        assert has_table(IMAGE, "n")
        assert remote.read(f"{IMAGE}/tables/n/table.csv") == text.encode()
    known = json.loads(remote.read(f"{IMAGE}/zarr.json"))["consolidated_metadata"]["metadata"]
    assert known["tables/n"]["attributes"]["backend"] == "csv"
