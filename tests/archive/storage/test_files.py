from __future__ import annotations

import ctypes
import errno
import os
import time

import pytest

from anystar_batch.archive.storage import files


def refusing(number):
    def refuse(*_):
        ctypes.set_errno(number)
        return -1

    return lambda: refuse


def test_two_directories_change_places_or_stay(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / folder.name).touch()
    is_known = files.exchange(first, second)
    assert (first / ("second" if is_known else "first")).exists()
    assert (second / ("first" if is_known else "second")).exists()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(files, "_renameat2", lambda: None)
    assert not files.exchange(first, second)
    monkeypatch.setattr(files, "_renameat2", refusing(errno.EINVAL))
    assert not files.exchange(first, second)
    monkeypatch.setattr(files, "_renameat2", refusing(errno.EACCES))
    with pytest.raises(PermissionError, match="Permission denied"):
        files.exchange(first, second)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stamp_is_a_time_and_no_file(tmp_path, monkeypatch):
    seen = []

    def opened(path, flags, mode=0o777):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.ENOTSUP, "not supported")
        seen.append(path)
        return real(path, flags, mode)

    real = os.open
    assert abs(files.stamp(tmp_path) / 1e9 - time.time()) < 60
    monkeypatch.setattr(files.os, "open", opened)
    assert abs(files.stamp(tmp_path) / 1e9 - time.time()) < 60
    assert seen
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        files.stamp(tmp_path / "nowhere")
