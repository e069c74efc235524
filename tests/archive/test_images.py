from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive import arrays, discovery, images, ngff, nodes
from anystar_batch.archive import images as reader_module
from anystar_batch.archive.ngff import ArrayInfo
from anystar_batch.archive.storage import atomic_write, files
from anystar_batch.errors import DataError, ImageError, OutputError
from anystar_batch.geometry import Box

RNG = np.random.default_rng(5)


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return (RNG.random(shape) * 200).astype(dtype)


# --- find_images ---------------------------------------------------------------------------------


def test_an_image_is_found_at_its_own_path(make_image):
    path = make_image(noise(9, 10, 11))
    assert discovery.find_images(path) == [path]
    assert discovery.find_images(f"file://{path}/") == [path]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("series", [None, ["1", "0"]])
def test_series_of_a_container_are_found_in_order(make_image, tmp_path, version, series):
    zarr_format = 2 if version == "0.4" else 3
    root = tmp_path / "container.zarr"
    layout = {"bioformats2raw.layout": 3}
    listed = {"series": series}
    if version == "0.5":
        layout, listed = {"ome": {"version": "0.5", **layout}}, {"ome": listed}
    nodes.write_attributes(str(root), zarr_format, layout)
    if series:
        nodes.write_attributes(str(root / "OME"), zarr_format, listed)
    for n in range(2):
        make_image(noise(4, 5, 6), version=version, name=f"container.zarr/{n}")
    found = discovery.find_images(str(root))
    assert found == [f"{root}/{n}" for n in (series or ["0", "1"])]
    assert all(images.read_image(p).version == version for p in found)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"plate": {}}, "a plate .HCS.; give its fields one by one"),
        ({"well": {}}, "a well of a plate"),
        ({"labels": ["nuclei"]}, "a list of labels, not an image.*labels.zarr/nuclei"),
        ({"bioformats2raw.layout": 2}, "bioformats2raw layout 2 is unknown"),
        ({"bioformats2raw.layout": 3}, "holds no series"),
        ({"other": 1}, "a Zarr group without OME-Zarr `multiscales`"),
    ],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_groups_that_are_no_images_are_named(tmp_path, attributes, message, zarr_format):
    path = str(tmp_path / "labels.zarr")
    keys = attributes if zarr_format == 2 else {"ome": attributes}
    nodes.write_attributes(path, zarr_format, keys)
    with pytest.raises(ImageError, match=message):
        discovery.find_images(path)


def test_container_that_names_images_outside_is_refused(tmp_path):
    nodes.write_attributes(str(tmp_path / "a"), 2, {"bioformats2raw.layout": 3})
    nodes.write_attributes(str(tmp_path / "a/OME"), 2, {"series": ["../b"]})
    with pytest.raises(ImageError, match="names an image outside the container"):
        discovery.find_images(str(tmp_path / "a"))


def test_places_that_are_no_zarr_are_named(tmp_path):
    (tmp_path / "dir").mkdir()
    for name in ("file.tif", "file.xyz", "file.h5"):
        (tmp_path / name).write_bytes(b"II*")
    for name in ("old.n5", "named.otherwise"):
        (tmp_path / name).mkdir()
    (tmp_path / "named.otherwise/attributes.json").write_text('{"n5": "4.0.0"}')
    with zipfile.ZipFile(tmp_path / "image.zip", "w") as archive:
        archive.writestr(".zattrs", "{}")
    shutil.copy(tmp_path / "image.zip", tmp_path / "hidden.zarr")
    (tmp_path / "image.ozx").write_bytes(b"")
    zarr.create_array(str(tmp_path / "array.zarr"), shape=(4, 4, 4), dtype="u1")
    for name, message in {
        "gone": "no such file or directory",
        "dir": "not a Zarr: no zarr.json",
        "file.tif": r"TIFF, not OME-Zarr; convert it: bioformats2raw file.tif file.ome.zarr",
        "file.xyz": "not a Zarr: expected a directory; convert it: bioformats2raw",
        "file.h5": r"HDF5, not OME-Zarr; write the array as OME-Zarr.*ome_zarr.writer.write_image",
        "old.n5": "N5, not OME-Zarr; write the array",
        "named.otherwise": "N5, not OME-Zarr; write the array",
        "image.zip": "a Zarr group without OME-Zarr `multiscales`",
        "image.ozx": "no zip file, or one that is not whole: .* 0 bytes",
        "hidden.zarr": "a zip file by another name; name a zipped OME-Zarr hidden.ozx",
        "array.zarr": "a bare Zarr array without OME metadata.*ome_zarr.writer.write_image",
    }.items():
        with pytest.raises(ImageError, match=message):
            discovery.find_images(str(tmp_path / name))


# --- read_image ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("file", ["root", "array"])
def test_truncated_metadata_is_named(make_image, version, file):
    path = make_image(noise(4, 5, 6), version=version)
    name = {"0.4": (".zattrs", "0/.zarray"), "0.5": ("zarr.json", "0/zarr.json")}[version]
    broken = Path(path, name[file == "array"])
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(ImageError, match=rf"{broken.name}: truncated or invalid JSON"):
        images.read_image(path)


def test_metadata_that_is_no_object_or_no_file_is_named(make_image):
    path = make_image(noise(4, 5, 6))
    Path(path, "zarr.json").write_text("[1, 2]")
    with pytest.raises(ImageError, match="expected a JSON object"):
        images.read_image(path)
    Path(path, "zarr.json").unlink()
    Path(path, "zarr.json").mkdir()
    with pytest.raises(ImageError, match="the metadata cannot be read"):
        images.read_image(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_missing_array_is_named(make_image, version):
    path = make_image(noise(4, 5, 6), version=version)
    shutil.rmtree(Path(path, "1"))
    source = images.read_image(path)
    assert source.left_out == (("1", "it is listed, but its array is missing"),)
    assert [level.path for level in source.levels] == ["0"]
    assert [d["path"] for d in source.multiscales["datasets"]] == ["0"]
    shutil.rmtree(Path(path, "0"))
    with pytest.raises(ImageError, match="dataset 0 is listed but its array is missing"):
        images.read_image(path)


def test_array_that_zarr_refuses_is_named(make_image):
    path = make_image(noise(4, 5, 6))
    file = Path(path, "0/zarr.json")
    document = json.loads(file.read_text())
    document["codecs"] = [{"name": "no-such-codec"}]
    file.write_text(json.dumps(document))
    with pytest.raises(ImageError, match="the array of dataset 0 cannot be opened"):
        images.read_image(path)


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(("number", "is_passing"), [(errno.EIO, True), (errno.EACCES, False)])
def test_a_weak_moment_of_the_store_is_no_wrong_image(make_image, monkeypatch, number, is_passing):
    path = make_image(noise(4, 5, 6))
    source = images.read_image(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing(number))
        with pytest.raises(ImageError, match="metadata cannot be read") as caught:
            images.read_image(path)
        assert isinstance(caught.value, DataError) == is_passing
    arrays._opened.cache_clear()  # what was opened before is not opened again
    monkeypatch.setattr(arrays.zarr, "open_array", failing(number))
    with pytest.raises(ImageError, match=r"of dataset 0 cannot be opened: \[Errno") as caught:
        images.read_image(path)
    assert isinstance(caught.value, DataError) == is_passing
    with pytest.raises(DataError, match=r"0: the array cannot be opened .*run again") as caught:
        images.ImageReader(source).chunk_exists(0, 0, 0, (0, 0, 0))
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]"])
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_unsupported_types_are_named(make_image, dtype):
    path = make_image(np.zeros((4, 5, 6), dtype), version="0.4")
    with pytest.raises(ImageError, match="unsupported type"):
        images.read_image(path)


def test_empty_image_is_named(make_image, edit_attributes):
    path = make_image(noise(4, 5, 6), version="0.4", steps=(1,))
    file = Path(path, "0/.zarray")
    document = json.loads(file.read_text())
    document["shape"][1] = 0
    file.write_text(json.dumps(document))
    with pytest.raises(ImageError, match="the image is empty"):
        images.read_image(path)


def test_a_claim_of_a_thousand_trillion_voxels_is_read_lazily(make_image):
    path = make_image(noise(8, 8, 8), version="0.4", steps=(1,))
    file = Path(path, "0/.zarray")
    document = json.loads(file.read_text())
    document["shape"] = [100_000, 100_000, 100_000]
    file.write_text(json.dumps(document))
    source = images.read_image(path)
    reader = images.ImageReader(source)
    assert source.shape_zyx() == (100_000,) * 3
    assert [i for i, _ in reader.existing_chunks(0, 0, 0)] == [(0, 0, 0)]
    assert not reader.read_box(0, 0, 0, Box((99_990,) * 3, (100_000,) * 3)).any()


def test_a_label_is_an_image_too(make_image):
    path = make_image(noise(4, 5, 6), change=lambda a: a["ome"].update({"image-label": {}}))
    assert discovery.find_images(path) == [path]
    assert images.read_image(path).shape_zyx() == (4, 5, 6)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidation_is_noticed_but_not_trusted(make_image, edit_attributes, version):
    path = make_image(noise(4, 5, 6), version=version, is_consolidated=True)
    before = ngff.metadata_fingerprint(images.read_image(path))
    assert images.read_image(path).was_consolidated
    plain = make_image(noise(4, 5, 6), version=version, name="plain.zarr")
    assert not images.read_image(plain).was_consolidated
    assert ngff.metadata_fingerprint(images.read_image(plain)) == before


# --- ImageReader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "xyz", "cyzx", "tczyx", "tyxz"])
def test_boxes_are_read_in_zyx_whatever_the_stored_order(make_image, version, axes):
    lengths = {"t": 2, "c": 3, "z": 9, "y": 10, "x": 11}
    data = noise(*(lengths[a] for a in axes))
    reader = images.ImageReader(images.read_image(make_image(data, axes, version)))
    for level, step in ((0, 1), (1, 2)):
        whole = data
        for a, i in (("c", 2), ("t", 1)):
            if a in axes:
                whole = whole.take(i, axis=axes.index(a))
        space = [a for a in axes if a in "zyx"]
        whole = whole.transpose([space.index(a) for a in "zyx"])[::step, ::step, ::step]
        box = Box((1, 2, 0), (4, 5, 6))
        read = reader.read_box(level, 1, 2, box)
        assert np.array_equal(read, whole[box.slices])
        assert read.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["bool", "int8", ">u2", ">f4", "float16", "uint64", "float64"])
def test_values_keep_their_type_in_native_order(make_image, dtype):
    data = noise(4, 5, 6, dtype=dtype)
    source = images.read_image(make_image(data, version="0.4"))
    read = images.ImageReader(source).read_box(0, 0, 0, Box.of_shape((4, 5, 6)))
    assert read.dtype == ("uint8" if dtype == "bool" else np.dtype(dtype).newbyteorder("="))
    assert read.dtype.isnative
    assert read.dtype == source.dtype
    assert np.array_equal(read, data.astype(read.dtype))


def test_nan_and_missing_chunks_are_read_as_they_are(make_image):
    data = noise(8, 8, 24, dtype="float32")
    data[0, 0, 0] = np.nan
    path = make_image(data)
    Path(path, "0/c/0/0/1").unlink()
    read = images.ImageReader(images.read_image(path)).read_box(0, 0, 0, Box.of_shape((8, 8, 24)))
    assert np.isnan(read[0, 0, 0])
    assert not read[..., 8:16].any()
    assert np.array_equal(read[..., 16:], data[..., 16:])


def test_reader_travels_without_its_open_arrays(make_image):
    data = noise(8, 8, 8)
    reader = images.ImageReader(images.read_image(make_image(data)))
    box = Box((0, 0, 0), (8, 8, 8))
    reader.read_box(0, 0, 0, box)
    assert len(pickle.dumps(reader)) < 4000
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read_box(0, 0, 0, box), data)


def test_boxes_outside_the_image_and_torn_chunks_are_errors(make_image):
    path = make_image(noise(8, 8, 8))
    reader = images.ImageReader(images.read_image(path))
    with pytest.raises(ValueError, match=r"is not inside level 0 of shape \(8, 8, 8\)"):
        reader.read_box(0, 0, 0, Box((-1, 0, 0), (8, 8, 8)))
    chunk = Path(path, "0/c/0/0/0")
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(DataError, match=r"the stored data cannot be read .*; restore it"):
        reader.read_box(0, 0, 0, Box((0, 0, 0), (8, 8, 8)))


@pytest.mark.parametrize(
    ("version", "separator", "shards"),
    [
        ("0.4", "/", None),
        ("0.4", ".", None),
        ("0.5", "/", None),
        ("0.5", ".", None),
        ("0.5", "/", (1, 1, 16, 16, 16)),
        ("0.5", ".", (2, 1, 16, 16, 16)),
    ],
)
def test_stored_chunks_and_their_identities(make_image, version, separator, shards):
    data = noise(2, 2, 20, 24, 9) + 1
    data[1, 1, :16, :16] = 0  # such a chunk or shard is not stored
    path = make_image(data, "tczyx", version, separator=separator, shards=shards)
    source = images.read_image(path)
    reader = images.ImageReader(source)
    step = source.storage_zyx()
    assert step == ((16, 16, 16) if shards else (8, 8, 8))
    is_joint = shards is not None and shards[0] == 2
    for t, c in ((0, 0), (1, 1)):
        found = dict(reader.existing_chunks(0, t, c))
        assert list(found) == sorted(found)
        for index in np.ndindex(*(-(-n // s) for n, s in zip((20, 24, 9), step, strict=True))):
            box = Box(
                tuple(i * s for i, s in zip(index, step, strict=True)),
                tuple(
                    min((i + 1) * s, n) for i, s, n in zip(index, step, (20, 24, 9), strict=True)
                ),
            )
            is_stored = bool(data[t, c][box.slices].any()) or is_joint
            assert (index in found) == is_stored
            assert reader.chunk_exists(0, t, c, index) == is_stored
            assert len(reader.identities(0, t, c, box)) == is_stored
            if is_stored:
                assert found[index] == box
    whole = reader.identities(0, 0, 0, Box.of_shape((20, 24, 9)))
    assert len({key for key, _, _ in whole}) == len(dict(reader.existing_chunks(0, 0, 0)))
    for key, size, time in whole:
        status = Path(path, key).stat()
        assert (status.st_size, status.st_mtime_ns) == (size, time)


def test_no_chunks_at_all_are_listed_as_none(make_image):
    path = make_image(np.zeros((8, 8, 8), "u1"))
    reader = images.ImageReader(images.read_image(path))
    assert list(reader.existing_chunks(0, 0, 0)) == []
    path = make_image(np.zeros((8, 8, 8), "u1"), version="0.4", separator=".", name="b.zarr")
    shutil.rmtree(Path(path, "0"))
    assert list(reader_module._stored_coordinates(Path(path, "0"), "", ".", 3, {})) == []


def test_an_edited_chunk_changes_its_identity(make_image):
    path = make_image(noise(8, 8, 16))
    reader = images.ImageReader(images.read_image(path))
    box = Box((0, 0, 0), (8, 8, 8))
    before = reader.identities(0, 0, 0, box)
    assert [key for key, _, _ in before] == ["0/c/0/0/0"]
    os.utime(Path(path, "0/c/0/0/0"), ns=(0, 1))
    assert reader.identities(0, 0, 0, box) != before


@pytest.mark.parametrize("most", [10**6, 3])
def test_one_look_asks_once_and_says_the_same(make_image, monkeypatch, most):
    path = make_image(noise(20, 24, 9))
    source = images.read_image(path)
    boxes = [Box((0, 0, 0), (9, 24, 9)), Box((7, 3, 0), (20, 12, 9)), Box((0, 0, 0), (20, 24, 9))]
    expected = [images.ImageReader(source).identities(0, 0, 0, box) for box in boxes]
    asked = []
    real = images.files.statuses
    monkeypatch.setattr(images.files, "statuses", lambda keys: asked.extend(keys) or real(keys))
    monkeypatch.setattr(images, "MOST_KNOWN", most)
    reader = images.OneLookReader(source)
    assert [reader.identities(0, 0, 0, box) for box in boxes] == expected
    assert (len(asked) == len(set(asked)) == len(expected[2])) == (most > 3)


# --- fingerprint ---------------------------------------------------------------------------------


def test_fingerprint_knows_content_not_place(make_image):
    data = noise(8, 9, 10)
    one = make_image(data, name="a.zarr")
    two = make_image(data, name="b.zarr")
    fingerprints = [ngff.metadata_fingerprint(images.read_image(p)) for p in (one, two)]
    assert fingerprints[0] == fingerprints[1]
    assert json.loads(json.dumps(fingerprints[0])) == fingerprints[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["coordinateTransformations"][0]["scale"].__setitem__(0, 3.0),
        lambda d: d["coordinateTransformations"][1]["translation"].__setitem__(0, 3.0),
        lambda d: d["coordinateTransformations"].pop(),
        lambda d: d.__setitem__("path", "0"),
    ],
)
def test_fingerprint_knows_every_transform(make_image, edit_attributes, change):
    def datasets(attributes):
        return attributes["ome"]["multiscales"][0]["datasets"]

    def move(attributes):
        shift = {"type": "translation", "translation": [0.0, 0.0, 0.0]}
        datasets(attributes)[1]["coordinateTransformations"].append(shift)
        datasets(attributes).pop(0)

    path = make_image(noise(8, 9, 10), change=move)
    before = ngff.metadata_fingerprint(images.read_image(path))
    edit_attributes(path, lambda attributes: change(datasets(attributes)[0]))
    assert ngff.metadata_fingerprint(images.read_image(path)) != before


@pytest.mark.parametrize("more", [{"chunks": (4, 4, 4)}, {"shards": (16, 16, 16)}, {"unit": None}])
def test_fingerprint_knows_storage_and_unit(make_image, more):
    data = noise(8, 9, 10)
    paths = make_image(data), make_image(data, name="b.zarr", **more)
    one, two = (ngff.metadata_fingerprint(images.read_image(p)) for p in paths)
    assert one != two


# --- writing -------------------------------------------------------------------------------------


def test_json_is_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    atomic_write.write_json_atomic(file, {"b": 1, "a": [1.5, "µ"]})
    assert json.loads(file.read_bytes()) == {"b": 1, "a": [1.5, "µ"]}
    before = file.read_bytes()

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match="no space left to write; free some") as caught:
        atomic_write.write_json_atomic(file, {})
    assert caught.value.errno == errno.ENOSPC
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]

    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write.write_bytes_atomic(file, b"")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_unwritable_places_name_the_way_out(tmp_path, make_image):
    files.check_writable(str(tmp_path / "not" / "there"))
    assert not list(tmp_path.iterdir())
    for check in (
        lambda: files.check_writable("/proc/self"),
        lambda: nodes.write_attributes("/proc/none", 2, {}),
        lambda: arrays.create_array(
            "/proc/none/0", 3, ArrayInfo((4, 4, 4), (4, 4, 4), None, "uint32"), ("z", "y", "x")
        ),
        lambda: atomic_write.write_bytes_atomic("/proc/none/a", b""),
    ):
        with pytest.raises(OutputError, match=r"cannot be written .*--output DIR"):
            check()


def test_directories_that_cannot_be_synced_are_no_error(tmp_path, monkeypatch):
    def fail(number: int):
        def fsync(handle: int) -> None:
            raise OSError(number, "x")

        return fsync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    atomic_write.sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="x"):
        atomic_write.sync_directory(tmp_path)


def test_attributes_of_a_group_are_replaced_and_nothing_else(make_image):
    path = make_image(noise(4, 5, 6), is_consolidated=True)
    before = json.loads(Path(path, "zarr.json").read_text())
    nodes.write_attributes(path, 3, {"a": 1})
    after = json.loads(Path(path, "zarr.json").read_text())
    assert after.pop("attributes") == {"a": 1}
    del before["attributes"]
    assert after == before
