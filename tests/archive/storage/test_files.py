from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from anystar_batch.archive.storage import files, remote
from anystar_batch.errors import ConfigError
from tests.support.servers import memory_store, web_server


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


def test_a_directory_is_visible_where_it_is(tmp_path):
    (tmp_path / "file").touch()
    assert files.is_visible(str(tmp_path))
    assert not files.is_visible(str(tmp_path / "gone"))
    assert not files.is_visible(str(tmp_path / "file"))


def test_a_store_is_visible_if_it_gives_an_object_or_a_list(monkeypatch):
    with memory_store():
        remote.put("s3://b/a.zarr/zarr.json", b"{}")
        monkeypatch.setattr(remote, "hides_missing", lambda _: True)
        assert files.is_visible("s3://b/a.zarr/zarr.json")
        assert files.is_visible("s3://b/a.zarr")
        assert files.is_visible("s3://b/out")

        def deny(_):
            raise PermissionError(errno.EACCES, "access denied")

        monkeypatch.setattr(remote, "names", deny)
        assert files.is_visible("s3://b/a.zarr/zarr.json")
        assert not files.is_visible("s3://b/out")


def test_a_web_server_is_visible_if_it_gives_the_object(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", ())
    (tmp_path / "zarr.json").touch()
    with web_server(tmp_path) as server:
        assert files.is_visible(f"{server.url}/zarr.json")
        assert not files.is_visible(f"{server.url}/gone.json")
        server.fails = 9
        assert not files.is_visible(f"{server.url}/zarr.json")


def test_a_store_whose_library_is_missing_is_not_visible(monkeypatch):
    def missing(_):
        raise ConfigError("s3:// needs s3fs, which is not installed")

    monkeypatch.setattr(remote, "exists", missing)
    assert not files.is_visible("s3://b/a.zarr")


def test_what_a_process_killed_over_its_stamp_left_is_deleted_by_the_next(tmp_path, monkeypatch):
    def opened(path, flags, mode=0o777):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.ENOTSUP, "not supported")
        return real(path, flags, mode)

    def die(*_, **__):
        raise KeyboardInterrupt

    real = os.open
    monkeypatch.setattr(files.os, "open", opened)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            files.stamp(tmp_path)
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    assert abs(files.stamp(tmp_path) / 1e9 - time.time()) < 3600, "the time of a new file"
    assert not list(tmp_path.iterdir())
    # A colleague's, in a directory where owners alone delete: it stays, and does no harm.
    left.touch()
    with monkeypatch.context() as patch:
        unlink = Path.unlink

        def kept(path, **more):
            if path == left:
                raise PermissionError(errno.EPERM, "not yours", str(path))
            unlink(path, **more)

        patch.setattr(Path, "unlink", kept)
        assert abs(files.stamp(tmp_path) / 1e9 - time.time()) < 3600
    assert list(tmp_path.iterdir()) == [left]
