from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from anystar_batch.archive.storage import fence as fence_module
from anystar_batch.archive.storage import file_lock, lock
from anystar_batch.archive.storage.fence import new_signature
from anystar_batch.errors import LockedError, LostLockError, OutputError

DEAD = 2**22 - 7


def sign(path, **holder) -> None:
    path.write_text(json.dumps({"host": socket.gethostname(), "since": "then", **holder}))


def test_lock_says_who_holds_it_and_goes_with_the_block(tmp_path):
    path = tmp_path / "run.lock"
    with lock.hold(path):
        holder = json.loads(path.read_text())
        assert holder["pid"] == os.getpid()
        assert holder["host"] == socket.gethostname()
        with (
            pytest.raises(LockedError, match=rf"process {os.getpid()} on .* since 2.*delete"),
            lock.hold(path),
        ):
            pass
        assert path.exists()
    assert not path.exists()
    with lock.hold(path):
        pass


def test_lock_is_released_when_the_block_fails(tmp_path):
    path = tmp_path / "run.lock"
    with pytest.raises(RuntimeError, match="inside"), lock.hold(path):
        raise RuntimeError("inside")
    assert not path.exists()


def test_lock_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / "run.lock"
    code = (
        "import os, sys; from anystar_batch.archive.storage.lock import hold\n"
        "with hold(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert json.loads(path.read_text())["pid"] != os.getpid()
    with lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lock_of_another_host_is_respected(tmp_path):
    path = tmp_path / "run.lock"
    sign(path, host="elsewhere", pid=DEAD)
    with (
        pytest.raises(LockedError, match=f"process {DEAD} on elsewhere since then"),
        lock.hold(path),
    ):
        pass
    assert path.exists()


@pytest.mark.parametrize("content", ["", "{", "3"])
def test_unsigned_lock_is_taken_over(tmp_path, content):
    path = tmp_path / "run.lock"
    path.write_text(content)
    with lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_lock_that_is_just_being_signed_is_respected(tmp_path):
    path = tmp_path / "run.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="a run that is just starting"), lock.hold(path):
            pass


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EBADF])
def test_without_flock_a_living_process_keeps_its_lock(tmp_path, monkeypatch, number):
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "run.lock"
    sign(path, pid=os.getppid())
    with pytest.raises(LockedError, match=str(os.getppid())), lock.hold(path):
        pass
    sign(path, pid=DEAD)
    with lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    with lock.hold_directory(tmp_path):
        pass


def test_with_flock_a_reused_process_number_does_not_matter(tmp_path):
    path = tmp_path / "run.lock"
    sign(path, pid=os.getppid())
    with lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_file_is_removed_before_it_is_unlocked(tmp_path, monkeypatch):
    path = tmp_path / "run.lock"
    close, seen = os.close, []

    def look(handle: int) -> None:
        seen.append(path.exists())
        close(handle)

    with lock.hold(path):
        monkeypatch.setattr(os, "close", look)
    assert seen == [False]


def test_file_that_its_holder_removes_meanwhile_is_made_anew(tmp_path, monkeypatch):
    path = tmp_path / "run.lock"
    path.write_text("")
    try_flock, calls = file_lock.try_flock, []

    def late(handle: int) -> bool:
        calls.append(handle)
        if len(calls) == 1:
            path.unlink()
        return try_flock(handle)

    monkeypatch.setattr(file_lock, "try_flock", late)
    with lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_only_the_file_that_was_opened_is_judged(tmp_path, monkeypatch):
    """Another one that has taken its place by then is not even set aside for a moment."""
    path, other = tmp_path / "run.lock", tmp_path / "other"
    path.write_text("")
    sign(other, pid=os.getppid())
    try_flock, calls, moved = file_lock.try_flock, [], []

    def late(handle: int) -> bool:
        calls.append(handle)
        is_free = try_flock(handle)
        if len(calls) == 1:
            other.rename(path)
        return is_free

    with other.open() as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        monkeypatch.setattr(file_lock, "try_flock", late)
        monkeypatch.setattr(file_lock, "_set_aside", lambda *_: moved.append(1))
        with pytest.raises(LockedError, match=str(os.getppid())), lock.hold(path):
            pass
    assert not moved


def test_a_process_of_another_user_counts_as_living(monkeypatch):
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert fence_module.is_alive(1)


def test_other_errors_of_flock_are_not_hidden(tmp_path, monkeypatch):
    def fail(handle: int, operation: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="broken disk"), lock.hold(tmp_path / "run.lock"):
        pass
    with pytest.raises(OSError, match="broken disk"), lock.hold_directory(tmp_path):
        pass


def test_unwritable_place_is_named():
    with (
        pytest.raises(OutputError, match=r"the lock cannot be made .*--output DIR"),
        lock.hold("/proc/none/run.lock"),
    ):
        pass


def test_only_one_of_many_takes_over_a_dead_lock(tmp_path):
    path = tmp_path / "run.lock"
    inside, most, refused = 0, 0, 0
    guard = threading.Lock()

    def contend() -> None:
        nonlocal inside, most, refused
        for _ in range(50):
            try:
                with lock.hold(path):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except LockedError:
                with guard:
                    refused += 1

    sign(path, pid=DEAD)
    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused > 0
    assert not path.exists()


def test_directory_lock_excludes_and_leaves_nothing(tmp_path):
    order = []

    def second() -> None:
        with lock.hold_directory(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    with lock.hold_directory(tmp_path):
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert not list(tmp_path.iterdir())


def silent(path, seconds, **holder) -> None:
    """Sign for a holder elsewhere whose last sign of life is so old; beats every 20 ms."""
    sign(path, **{"host": "elsewhere", "pid": 7, "interval": 0.02, "limit": 600.0} | holder)
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_lock_of_a_silent_holder_elsewhere_is_taken_over(tmp_path, seconds):
    """Also of one whose last sign lies ahead: the clock was set back, and it would be for ever."""
    path = tmp_path / "run.lock"
    silent(path, seconds)
    with lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        assert [p.name for p in tmp_path.iterdir()] == ["run.lock"]
    assert not path.exists()


@pytest.mark.parametrize("seconds", [60.0, -60.0])
def test_lock_of_a_holder_elsewhere_that_gave_a_sign_of_life_is_respected(tmp_path, seconds):
    path = tmp_path / "run.lock"
    silent(path, seconds)
    with pytest.raises(LockedError, match="process 7 on elsewhere"), lock.hold(path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["run.lock"]


def test_lock_whose_holder_is_heard_while_it_is_watched_is_respected(tmp_path, monkeypatch):
    """Its clock may have jumped, or the machine slept: one beat is enough."""
    path = tmp_path / "run.lock"
    silent(path, 3600.0)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(path))
    with pytest.raises(LockedError, match="process 7 on elsewhere"), lock.hold(path):
        pass


def test_lock_of_this_machine_before_it_was_started_anew_may_be_anothers(tmp_path):
    """Two machines of one name differ in when they were started."""
    path = tmp_path / "run.lock"
    silent(path, 0.0, host=socket.gethostname(), pid=DEAD, boot="another")
    with pytest.raises(LockedError, match=f"process {DEAD} on"), lock.hold(path):
        pass
    silent(path, 0.0, host=socket.gethostname(), pid=DEAD, boot=fence_module.boot())
    with lock.hold(path):
        pass


def test_a_held_lock_gives_signs_of_life_and_stops_when_released(tmp_path):
    path = tmp_path / "run.lock"
    before = threading.active_count()
    with lock.hold(path, 0.01):
        os.utime(path, (0, 0))
        until = time.monotonic() + 300
        while path.stat().st_mtime < 1e9 and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1e9
        signed = json.loads(path.read_text())
        assert (signed["interval"], signed["limit"]) == (0.01, 0.01 * lock.MISSED)
    assert threading.active_count() == before


def test_no_sign_of_life_comes_after_the_release(tmp_path, monkeypatch):
    """The number of the closed file may by then be another file's."""
    begun, seen = threading.Event(), []

    def slow(handle: int) -> None:
        begun.set()
        time.sleep(0.1)
        seen.append(os.fstat(handle).st_ino)

    with lock.hold(tmp_path / "run.lock", 0.01):
        ours = (tmp_path / "run.lock").stat().st_ino
        monkeypatch.setattr(os, "utime", slow)
        assert begun.wait(300)
    assert set(seen) == {ours}


def test_who_lost_the_lock_is_told_and_leaves_the_new_one_alone(tmp_path):
    path = tmp_path / "run.lock"
    with lock.hold(path, 0.01) as fence:
        fence.check()
        pickle.loads(pickle.dumps(fence)).check()
        path.unlink()
        with pytest.raises(LostLockError, match="lost the lock to nobody: the file was removed"):
            fence.check()
        sign(path, host="elsewhere", pid=7)
        os.utime(path, (0, 0))
        time.sleep(0.05)
        assert path.stat().st_mtime == 0, "a sign of life is for one's own file"
        with pytest.raises(LostLockError, match=r"lost the lock to process 7 on elsewhere since"):
            fence.check()
    assert path.exists()


def test_a_lock_that_cannot_be_read_counts_as_lost(tmp_path, monkeypatch):
    path = tmp_path / "run.lock"
    with lock.hold(path) as fence:
        with monkeypatch.context() as patch:
            patch.setattr(fence_module, "read_signature", broken)
            with pytest.raises(LostLockError, match=r"it cannot be read: broken disk"):
                fence.check()
        fence.check()


def broken(path):
    raise OSError(errno.EIO, "broken disk")


def test_two_that_take_over_at_once_do_not_both_hold_it(tmp_path):
    """The slower one sets aside what the faster one has made, and gives it back."""
    path = tmp_path / "run.lock"
    sign(path, pid=DEAD)
    judged = os.open(path, os.O_RDWR)
    try:
        with lock.hold(path) as fence:
            file_lock._set_aside(path, judged)
            fence.check()
            assert [p.name for p in tmp_path.iterdir()] == ["run.lock"]
    finally:
        os.close(judged)


def test_a_lock_that_cannot_be_signed_leaves_no_file(tmp_path, monkeypatch):
    def full(handle: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"), lock.hold(tmp_path / "run.lock"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_may_not_be_opened_is_named(tmp_path):
    (tmp_path / "run.lock").mkdir()
    with (
        pytest.raises(OutputError, match=r"run.lock: the lock cannot be opened .*--output DIR"),
        lock.hold(tmp_path / "run.lock"),
    ):
        pass


def test_a_directory_that_is_kept_for_too_long_is_named(tmp_path):
    with (
        lock.hold_directory(tmp_path),
        pytest.raises(LockedError, match=r"another process has been changing it for 0.05 s"),
        lock.hold_directory(tmp_path, 0.05),
    ):
        pass


@pytest.fixture
def colleagues(monkeypatch):
    """Whatever is opened for writing without being made belongs to a colleague."""
    really = os.open

    def refuse(path, flags, *mode, **named):
        if flags & os.O_RDWR and not flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, flags, *mode, **named)

    monkeypatch.setattr(os, "open", refuse)


def test_a_lock_follows_the_umask(tmp_path):
    path = tmp_path / "run.lock"
    before = os.umask(0o002)
    try:
        with lock.hold(path):
            assert path.stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


def test_the_lock_of_a_dead_colleague_is_taken_over_and_its_holder_named(tmp_path, colleagues):
    path, told = tmp_path / "run.lock", []
    sign(path, pid=DEAD, user="ada")
    path.chmod(0o444)
    with lock.hold(path, tell=told.append):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    (who,) = told
    assert re.fullmatch(rf"process {DEAD} on \S+ \(user ada\) since then", who)


def test_the_lock_of_a_living_colleague_is_respected(tmp_path, colleagues):
    path = tmp_path / "run.lock"
    with (
        lock.hold(path),
        pytest.raises(LockedError, match=rf"process {os.getpid()} on .* \(user \w+\) since 20"),
        lock.hold(path),
    ):
        pass


def test_a_holder_without_a_name_is_told_by_number(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 1234567)  # as OpenShift gives them
    assert new_signature(1.0, 2.0)["user"] == "1234567"


def test_a_dead_lock_that_may_not_be_removed_says_whose_it_is(tmp_path, monkeypatch):
    path = tmp_path / "run.lock"
    sign(path, pid=DEAD)

    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(OutputError, match=rf"lock of process {DEAD} on .* since then, whose run is "
                      r"gone, cannot be removed \(Operation not permitted"),
        lock.hold(path),
    ):  # fmt: skip
        pass


def test_what_a_process_killed_over_a_dead_lock_left_is_deleted_by_the_next(tmp_path, monkeypatch):
    path = tmp_path / "run.lock"
    sign(path, pid=DEAD)

    def die(handle, aside):
        if aside == path:
            return really(handle, aside)
        raise KeyboardInterrupt

    really = file_lock._is_same_file
    with monkeypatch.context() as patch:
        patch.setattr(file_lock, "_is_same_file", die)
        with pytest.raises(KeyboardInterrupt), lock.hold(path):
            pass
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    with lock.hold(path):
        assert [p.name for p in tmp_path.iterdir()] == ["run.lock"]


def test_ones_own_lock_that_another_has_set_aside_is_left_to_be_given_back(tmp_path):
    path = tmp_path / "run.lock"
    with lock.hold(path) as fence:
        aside = tmp_path / ".run.lock.7-0a.partial"
        os.link(path, aside)
        handle = os.open(path, os.O_RDWR)
        file_lock._sweep_asides(path, handle)
        os.close(handle)
        assert aside.exists()
        fence.check()
