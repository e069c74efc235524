from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from anystar_batch.archive import lock
from anystar_batch.errors import LockedError, OutputError

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
        "import os, sys; from anystar_batch.archive.lock import hold\n"
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
    try_flock, calls = lock._try_flock, []

    def late(handle: int) -> bool:
        calls.append(handle)
        if len(calls) == 1:
            path.unlink()
        return try_flock(handle)

    monkeypatch.setattr(lock, "_try_flock", late)
    with lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_process_of_another_user_counts_as_living(monkeypatch):
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert lock._is_alive(1)


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
