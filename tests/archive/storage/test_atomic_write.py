from __future__ import annotations

import ctypes
import errno

import pytest

from anystar_batch.archive.storage import atomic_write


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
    is_known = atomic_write.exchange(first, second)
    assert (first / ("second" if is_known else "first")).exists()
    assert (second / ("first" if is_known else "second")).exists()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(atomic_write, "_renameat2", lambda: None)
    assert not atomic_write.exchange(first, second)
    monkeypatch.setattr(atomic_write, "_renameat2", refusing(errno.EINVAL))
    assert not atomic_write.exchange(first, second)
    monkeypatch.setattr(atomic_write, "_renameat2", refusing(errno.EACCES))
    with pytest.raises(PermissionError, match="Permission denied"):
        atomic_write.exchange(first, second)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("knows_exchange", [True, False])
def test_a_directory_takes_the_place_of_another(tmp_path, monkeypatch, knows_exchange):
    if not knows_exchange:
        monkeypatch.setattr(atomic_write, "_renameat2", lambda: None)
    made, final, aside = (tmp_path / name for name in (".n.made", "n", ".n.old"))
    for content in ("first", "second"):
        made.mkdir()
        (made / content).touch()
        atomic_write.replace_directory(made, final, aside)
        assert [file.name for file in final.iterdir()] == [content]
    assert [file.name for file in aside.iterdir()] == ["first"]
    assert not made.exists()


def test_what_killed_writers_of_a_file_left_is_deleted(tmp_path):
    for name in ("a[1].csv", ".a[1].csv.7-0f.partial", ".a[1].csv.7.partial", ".b.7-0f.partial"):
        (tmp_path / name).touch()
    atomic_write.remove_partials(tmp_path / "a[1].csv")
    assert {file.name for file in tmp_path.iterdir()} == {"a[1].csv", ".b.7-0f.partial"}
