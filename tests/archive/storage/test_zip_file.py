"""Members of zip files: against `zipfile`, in parts, from threads; and what is no zip file."""

import errno
import os
import pickle
import random
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from anystar_batch.archive.storage import files, zip_file, zip_index
from anystar_batch.archive.storage.zip_store import ZipStore
from tests.support.zips import change_byte, data_of

MEMBERS = {
    "zarr.json": b"{}",
    "0/zarr.json": b'{"a": 1}' * 9,
    "0/c/0/0": bytes(range(256)) * 30,
    "0/c/0/1": b"",
    "0/c.d": b"beside",
    "0-1": b"sorts before 0/",
}


def make(path, members=None, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as file:
        for name, data in (MEMBERS if members is None else members).items():
            file.writestr(name, data)
    return str(path)


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_like_files(tmp_path, how):
    path = make(tmp_path / "a.ozx", how=how)
    for name, data in MEMBERS.items():
        assert files.read_bytes(f"{path}/{name}") == data
        assert files.exists(f"{path}/{name}")
        chosen = random.Random(name)
        for _ in range(20):
            start, stop = chosen.randint(-9000, 9000), chosen.choice([None, *range(0, 9000, 777)])
            assert zip_file.read_part(path, name, start, stop) == data[start:stop]
    assert files.read_bytes(f"{path}/none") is None
    assert zip_file.read_part(path, "none", 0, None) is None
    assert files.names(path) == ["0", "0-1", "zarr.json"]
    assert files.names(f"{path}/0") == ["c", "c.d", "zarr.json"]
    assert files.names(f"{path}/0/c/0") == ["0", "1"]
    assert files.names(f"{path}/none") == []
    assert files.exists(path)
    assert files.exists(f"{path}/0/c")
    assert not files.exists(f"{path}/0/c/1")
    with pytest.raises(OSError, match="expected at most 5"):
        files.read_bytes(f"{path}/0/zarr.json", 5)


def test_names_below_a_folder_are_those_of_all_members(tmp_path):
    chosen = random.Random(3)
    members = {"zarr.json"}
    for _ in range(300):
        parts = (chosen.choice(["0", "1", "-", "0.", "c", "c0"]) for _ in range(4))
        members.add("/".join(list(parts)[: chosen.randint(1, 4)]) + chosen.choice(["x", "y"]))
    path = make(tmp_path / "a.zip", dict.fromkeys(members, b""))
    folders = {"", *(name.rpartition("/")[0] for name in members), "0", "c/0", "none"}
    for folder in folders:
        start = f"{folder}/" if folder else ""
        below = {m.removeprefix(start).split("/")[0] for m in members if m.startswith(start)}
        assert files.names(f"{path}/{folder}".rstrip("/")) == sorted(below)


def test_a_directory_of_such_a_name_is_a_directory(tmp_path):
    (tmp_path / "a.zip").mkdir()
    make(tmp_path / "a.zip/B.OZX")
    assert not files.is_zipped(str(tmp_path / "a.zip/x"))
    assert zip_index.split(str(tmp_path / "a.zip/B.OZX/0")) == (str(tmp_path / "a.zip/B.OZX"), "0")
    assert not files.is_zipped(str(tmp_path / "none.ozx"))


def test_folders_around_the_zarr_are_left_out(tmp_path):
    members = {f"data/e.ome.zarr/{name}": data for name, data in MEMBERS.items()}
    more = {"read me.txt": b"", "__MACOSX/data/._x": b""}
    path = make(tmp_path / "a.zip", members | more)
    assert files.read_bytes(f"{path}/0/c/0/0") == MEMBERS["0/c/0/0"]
    assert files.names(path) == ["0", "0-1", "zarr.json"]
    backwards = {name.replace("/", "\\"): data for name, data in members.items()}
    assert files.names(make(tmp_path / "b.zip", backwards)) == ["0", "0-1", "zarr.json"]


def test_of_members_of_one_name_the_last_counts(tmp_path):
    path = make(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("zarr.json", b"new")
    assert files.read_bytes(f"{path}/zarr.json") == b"new"


def test_many_members_and_far_ones(tmp_path):
    """More than 65,535 members, and one behind 4 GB: zip64."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo("hole")
        with file.open(info, "w", force_zip64=True):
            pass
        file.fp.seek(2**32 + 10)
        file.start_dir = file.fp.tell()
        for n in range(2**16 + 2):
            file.writestr(zipfile.ZipInfo(f"0/{n}"), b"%d" % n)
    assert path.stat().st_size > 2**32
    assert len(files.names(f"{path}/0")) == 2**16 + 2
    assert files.read_bytes(f"{path}/0/65537") == b"65537"
    assert zip_file.read_part(str(path), "0/65537", 3, 5) == b"37"


def test_threads_and_other_processes_read_by_path(tmp_path):
    path = make(tmp_path / "a.zip", {str(n): os.urandom(5000) for n in range(50)})
    store = pickle.loads(pickle.dumps(ZipStore(path, "")))
    with zipfile.ZipFile(path) as file, ThreadPoolExecutor(8) as pool:
        parts = pool.map(
            lambda n: zip_file.read_part(store.file, str(n % 50), n, -n or None), range(400)
        )
        for n, part in enumerate(parts):
            assert part == file.read(str(n % 50))[n : -n or None]


def test_what_was_rewritten_is_read_anew_and_told(tmp_path):
    path = make(tmp_path / "a.ozx")
    before = files.statuses([f"{path}/zarr.json", f"{path}/0/c/0/0", f"{path}/none"])
    make(tmp_path / "a.ozx", {"long": b"x" * 5000, **MEMBERS, "zarr.json": b"[]"})
    after = files.statuses([f"{path}/zarr.json", f"{path}/0/c/0/0", f"{path}/none"])
    assert files.read_bytes(f"{path}/zarr.json") == b"[]"
    assert before[0] != after[0]
    assert before[1:] == after[1:]  # the same bytes elsewhere in the file
    assert before[2] is None


def fails(path, name, number, *words):
    for ask in (zip_file.read, lambda *where: zip_file.read_part(*where, 1, 9)):
        with pytest.raises(OSError, match=re.escape(words[0])) as caught:
            ask(str(path), name)
        assert caught.value.errno == number
        for word in words:
            assert word in caught.value.strerror


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all" * 99])
def test_no_zip_file_is_told(tmp_path, data):
    (tmp_path / "a.ozx").write_bytes(data)
    fails(tmp_path / "a.ozx", "zarr.json", errno.EBADMSG, "no zip file", f"{len(data)} bytes")


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_truncated_zip_file_is_told(tmp_path, how):
    path = make(tmp_path / "a.ozx", how=how)
    whole = (tmp_path / "a.ozx").read_bytes()
    for share in (0.2, 0.6, 0.99):
        (tmp_path / "a.ozx").write_bytes(whole[: int(len(whole) * share)])
        fails(path, "0/c/0/0", errno.EBADMSG, "not whole", "copy it again")


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_told(tmp_path, how):
    path = make(tmp_path / "a.ozx", how=how)
    change_byte(path, data_of(path, "0/c/0/0") + 20)
    with pytest.raises(OSError, match=r"0/c/0/0: .*copy it again"):
        files.read_bytes(f"{path}/0/c/0/0")
    path = make(tmp_path / "b.ozx", how=how)
    change_byte(path, data_of(path, "0/c/0/0") - 30 - len("0/c/0/0"))
    fails(path, "0/c/0/0", errno.EBADMSG, "0/c/0/0: not where the central directory says")


def test_what_nobody_reads_here_is_told(tmp_path):
    path = make(tmp_path / "a.ozx", how=zipfile.ZIP_BZIP2)
    fails(path, "0/c/0/0", errno.ENOTSUP, "0/c/0/0: compressed by method 12", "zip -0")
    path = make(tmp_path / "b.ozx")
    with zipfile.ZipFile(path, "a") as file:
        for info in file.infolist():
            info.flag_bits |= 1
        file._didModify = True
    fails(path, "0/c/0/0", errno.ENOTSUP, "0/c/0/0: encrypted", "make the zip file anew")


def test_zarr_reads_shards_in_parts(tmp_path):
    import zarr

    values = np.arange(4096, dtype="u2").reshape(64, 64)
    kinds = {"chunks": (8, 8), "shards": (32, 32)}, {"chunks": (8, 8)}
    for number, kind in enumerate(kinds):
        for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            array = zarr.create_array(
                str(tmp_path / f"{number}"), shape=(64, 64), dtype="u2", overwrite=True, **kind
            )
            array[...] = values
            folder = tmp_path / f"{number}"
            members = {
                str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
            }
            path = make(tmp_path / f"{number}-{how}.zip", members, how)
            read = zarr.open_array(ZipStore(path, ""), mode="r")
            assert (read[...] == values).all()
            assert (read[5:20, 33:61] == values[5:20, 33:61]).all()
