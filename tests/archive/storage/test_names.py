"""Names are tried before work, as they will be while they are written."""

import errno
import os
from pathlib import Path

import pytest

from anystar_batch.archive.storage import files, names
from anystar_batch.errors import OutputError


def test_a_name_that_fits_leaves_nothing_behind(tmp_path):
    names.check_name(str(tmp_path / "embryo.anystar.csv"))
    names.check_name(str(tmp_path / "not/yet/there/embryo.anystar.csv"))
    names.check_length(str(tmp_path / "embryo.anystar.csv"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("check", [names.check_name, names.check_length])
def test_a_name_is_tried_with_what_is_added_while_it_is_written(tmp_path, check):
    made = files.partial_path(tmp_path / "x").name
    room = 255 - (len(made) - len("x")) - (7 - len(str(os.getpid())))
    check(str(tmp_path / ("x" * room)))
    for name in ("x" * (room + 1), "ä" * (room // 2 + 1)):
        with pytest.raises(OutputError, match=r"too long.*--label"):
            check(str(tmp_path / name))
    with pytest.raises(OutputError, match="at most 4095"):
        check(f"{tmp_path}/{'d/' * 2040}x")
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_file_system_does_not_take(tmp_path, monkeypatch):
    really = os.open

    def refuse(path, flags, *mode, **named):
        if ":" in str(path):
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        return really(path, flags, *mode, **named)

    monkeypatch.setattr(os, "open", refuse)
    names.check_name(str(tmp_path / "a.csv"))
    with pytest.raises(OutputError, match=r"12:30\.csv: the file system there takes no such name"):
        names.check_name(str(tmp_path / "12:30.csv"))


def test_bytes_that_are_no_text_are_shown():
    names.check_text("/data/Präparat.zarr")
    with pytest.raises(OutputError, match=r"/data/Pr\\xe4parat.zarr: the path holds bytes"):
        names.check_text(os.fsdecode(b"/data/Pr\xe4parat.zarr"))


def test_keys_of_objects_have_a_length(tmp_path):
    names.check_name("s3://b/" + "k" * 900)
    for check in (names.check_name, names.check_length):
        with pytest.raises(OutputError, match="1000 bytes of a key of at most 1024"):
            check("s3://b/" + "k" * 1000)


def test_what_others_keep_from_us_cannot_be_replaced(tmp_path, monkeypatch):
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    (sticky / "theirs").write_text("")
    names.check_replaceable(str(sticky / "theirs"))
    names.check_replaceable(str(sticky / "nothing"))
    sticky.chmod(0o1777)
    names.check_replaceable(str(sticky / "theirs"))
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(OutputError, match=r"theirs: cannot be replaced .*; it belongs to \w+\)"):
        names.check_replaceable(str(sticky / "theirs"))
    sticky.chmod(0o777)
    names.check_replaceable(str(sticky / "theirs"))


def test_a_directory_of_others_says_whose_it_is(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()

    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(files, "stamp", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(OutputError, match=r"Permission denied; it belongs to \w+\)"):
        names.check_replaceable(str(tmp_path / "work"))


def test_what_a_command_killed_while_it_tried_a_name_left_is_deleted_by_the_next(
    tmp_path, monkeypatch
):
    def die(*_, **__):
        raise KeyboardInterrupt

    for path in (tmp_path / "embryo.anystar.work", tmp_path / "not/yet/there/a.csv"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", die)
            with pytest.raises(KeyboardInterrupt):
                names.check_name(str(path))
        assert len(list(tmp_path.iterdir())) == 1
        names.check_name(str(path))
        assert not list(tmp_path.iterdir())


def test_a_name_that_another_command_tries_right_now_can_be_had(tmp_path, monkeypatch):
    really = os.close

    def meanwhile(handle):
        really(handle)
        for path in tmp_path.iterdir():
            path.unlink()

    monkeypatch.setattr(os, "close", meanwhile)
    names.check_name(str(tmp_path / "embryo.anystar.csv"))
    assert not list(tmp_path.iterdir())
