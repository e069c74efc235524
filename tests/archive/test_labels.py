from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive import images, label_image, label_list, label_place, labels, nodes
from anystar_batch.archive.label_image import LabelWriter
from anystar_batch.archive.ngff import ArrayInfo, ImageSource
from anystar_batch.archive.storage import atomic_write
from anystar_batch.errors import DataError, LostLockError, OutputError
from anystar_batch.geometry import Box, grid_box, grid_shape, iter_grid


def image(make_image, axes="zyx", version="0.5", **more) -> ImageSource:
    lengths = {"t": 2, "c": 3, "z": 20, "y": 24, "x": 9}
    data = np.ones([lengths[a] for a in axes], "uint8")
    return images.read_image(make_image(data, axes, version, **more))


def huge(source: ImageSource, shape, chunks, shards=None) -> ImageSource:
    level = replace(source.levels[0], shape=shape, chunks=chunks, shards=shards)
    return replace(source, levels=(level,))


def fill(writer: LabelWriter, seed: int = 3) -> None:
    """Write every level and time whole, one write unit at a time, with a hole of background."""
    spec = writer.spec
    rng = np.random.default_rng(seed)
    for level in range(spec.num_levels):
        shape, unit = spec.shape_zyx(level), spec.write_unit_zyx(level)
        for t in range(spec.num_times):
            for index in iter_grid(grid_shape(shape, unit)):
                box = grid_box(index, unit, shape)
                writer.write_box(level, t, box, rng.integers(0, 9, box.shape).astype(np.uint32))


def publish_one(source: ImageSource, place, token: str = "a1", seed: int = 3, **provenance) -> str:
    spec = label_image.label_spec(source)
    fill(LabelWriter(labels.create_label(place, spec, token), spec), seed)
    return labels.publish(place, spec, token, provenance)


def names(path: str | Path) -> list[str]:
    return [entry.name for entry in Path(path).iterdir()]


def tree(path: str | Path) -> dict[str, bytes]:
    root = Path(path)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# --- the specification of a label ----------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "tczyx", "cxyz", "tzyx"])
def test_label_mirrors_the_image_without_its_channels(make_image, axes, version):
    source = image(make_image, axes, version)
    spec = label_image.label_spec(source)
    kept = [i for i, a in enumerate(axes) if a != "c"]
    assert [a.name for a in spec.axes] == [axes[i] for i in kept]
    assert spec.paths == ("0", "1")
    assert spec.num_times == source.num_times
    for level, info in zip(source.levels, spec.arrays, strict=True):
        assert info.shape == tuple(level.shape[i] for i in kept)
        assert info.dtype == "uint32"
    assert spec.shape_zyx(1) == source.shape_zyx(1)
    entry = spec.multiscales
    raw = source.multiscales
    assert entry["axes"] == [raw["axes"][i] for i in kept]
    for mine, theirs in zip(entry["datasets"], raw["datasets"], strict=True):
        scale = theirs["coordinateTransformations"][0]["scale"]
        assert mine["coordinateTransformations"] == [
            {"type": "scale", "scale": [scale[i] for i in kept]}
        ]


def test_transforms_of_the_multiscale_lose_the_channel_too(make_image):
    def move(attributes):
        attributes["ome"]["multiscales"][0]["coordinateTransformations"] = [
            {"type": "scale", "scale": [1.0, 2.0, 3.0, 4.0]},
            {"type": "identity"},
            {"type": "translation", "translation": [0.0, 5.0, 6.0, 7.0]},
        ]

    spec = label_image.label_spec(image(make_image, "czyx", change=move))
    assert spec.multiscales["coordinateTransformations"] == [
        {"type": "scale", "scale": [2.0, 3.0, 4.0]},
        {"type": "identity"},
        {"type": "translation", "translation": [5.0, 6.0, 7.0]},
    ]


@pytest.mark.parametrize(
    ("shape", "chunks", "shards", "version", "expected_chunks", "expected_shards"),
    [
        # Clipped to 64..128 and to the level.
        ((300, 300, 300), (1, 512, 100), None, "0.5", (64, 128, 100), None),
        ((30, 300, 300), (1, 512, 512), None, "0.4", (30, 128, 128), None),
        # A sharded image: shards of whole chunks, not beyond the chunks that there are.
        ((300, 300, 90), (16, 64, 100), (64, 64, 100), "0.5", (64, 64, 90), (256, 256, 90)),
        ((30, 100, 70), (16, 16, 16), (32, 32, 32), "0.5", (30, 64, 64), (30, 128, 128)),
        # More than 50,000 chunks: shards where the format has them.
        ((2400, 2400, 2400), (64, 64, 64), None, "0.5", (64, 64, 64), (256, 256, 256)),
        ((2400, 2400, 2400), (100, 64, 64), None, "0.4", (100, 64, 64), None),
        ((2300, 2300, 2300), (64, 64, 64), None, "0.5", (64, 64, 64), None),
        ((9999, 9999, 9999), (100, 128, 64), None, "0.5", (100, 128, 64), (200, 256, 256)),
    ],
)
def test_chunks_and_shards_follow_from_the_image(
    make_image, shape, chunks, shards, version, expected_chunks, expected_shards
):
    source = huge(image(make_image, version=version), shape, chunks, shards)
    spec = label_image.label_spec(source)
    assert spec.arrays[0].chunks == expected_chunks
    assert spec.chunks_zyx() == expected_chunks
    assert spec.arrays[0].shards == expected_shards
    assert spec.write_unit_zyx() == (expected_shards or expected_chunks)


def test_write_unit_is_in_zyx_for_any_stored_order(make_image):
    source = huge(image(make_image, "xyz"), (300, 200, 100), (70, 80, 90))
    assert label_image.label_spec(source).write_unit_zyx() == (90, 80, 70)


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "tcxyz"])
def test_what_is_written_is_read_back(make_image, axes, version):
    source = image(make_image, axes, version)
    spec = label_image.label_spec(source)
    place = label_place.in_image(source.path, "anystar")
    writer = LabelWriter(labels.create_label(place, spec, "a1"), spec)
    box = Box.of_shape(source.shape_zyx())
    found = np.arange(box.size, dtype=np.uint32).reshape(box.shape)
    t = source.num_times - 1
    writer.write_box(0, t, box, found)
    inner = Box((3, 4, 5), (7, 20, 8))
    read = pickle.loads(pickle.dumps(writer)).read_box(0, t, inner)
    assert np.array_equal(read, found[inner.slices])
    stored = zarr.open_array(f"{writer.path}/0", mode="r")[...]
    assert np.array_equal(stored[-1].T if "t" in axes else stored, found)


@pytest.mark.parametrize("shards", [None, (100, 100, 100)])
def test_bytes_depend_on_the_labels_alone(make_image, shards):
    source = images.read_image(
        make_image(np.ones((150, 70, 130), "u1"), chunks=(50,) * 3, shards=shards, steps=(1,))
    )
    spec = label_image.label_spec(source)
    assert (spec.arrays[0].shards is None) == (shards is None)
    rng = np.random.default_rng(8)
    first = np.kron(rng.integers(0, 5, (15, 7, 13)), np.ones((10, 10, 10))).astype(np.uint32)
    first[:64, :64, :64] = 0
    whole = Box.of_shape((150, 70, 130))
    found = []
    for token, earlier in (("a", None), ("b", rng.integers(0, 9, whole.shape).astype(np.uint32))):
        writer = LabelWriter(
            labels.create_label(label_place.in_image(source.path, "n"), spec, token), spec
        )
        if earlier is not None:
            writer.write_box(0, 0, whole, earlier)
        unit = spec.write_unit_zyx()
        boxes = [grid_box(i, unit, whole.stop) for i in iter_grid(grid_shape(whole.stop, unit))]
        for box in [whole] if earlier is None else boxes[::-1]:
            writer.write_box(0, 0, box, first[box.slices])
        assert np.array_equal(writer.read_box(0, 0, whole), first)
        found.append(tree(writer.path))
    assert found[0] == found[1]
    if shards is None:
        assert "0/c/0/0/0" not in found[0]


def test_boxes_that_cut_write_units_are_refused(make_image):
    source = images.read_image(
        make_image(np.ones((150, 70, 130), "u1"), chunks=(50,) * 3, steps=(1,))
    )
    spec = label_image.label_spec(source)
    writer = LabelWriter(
        labels.create_label(label_place.in_image(source.path, "n"), spec, "a"), spec
    )
    for start, stop in (
        ((0, 0, 0), (150, 70, 100)),
        ((1, 0, 0), (150, 70, 130)),
        ((0, 0, 0), (192, 70, 130)),
        ((64, 0, 0), (64, 70, 130)),
    ):
        box = Box(start, stop)
        with pytest.raises(ValueError, match="not made of whole write units"):
            writer.write_box(0, 0, box, np.zeros(box.shape, np.uint32))
    box = Box((64, 0, 0), (128, 64, 64))
    for wrong in (np.zeros(box.shape, np.uint16), np.zeros((64, 64, 2), np.uint32)):
        with pytest.raises(ValueError, match=r"expected uint32 of \(64, 64, 64\)"):
            writer.write_box(0, 0, box, wrong)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_who_was_overtaken_neither_paints_nor_publishes(make_image, version):
    """Another run has published the very label: its hidden directory does not come back."""
    source = image(make_image, version=version)
    place = label_place.in_image(source.path, "n")
    spec = label_image.label_spec(source)
    stale = LabelWriter(labels.create_label(place, spec, "a"), spec)
    fill(stale)
    labels.publish(place, spec, "a", {})
    before = tree(source.path)
    box = Box.of_shape(source.shape_zyx())
    with pytest.raises(LostLockError, match=r"\.n\.a: gone; another run has published or deleted"):
        stale.write_box(0, 0, box, np.ones(box.shape, np.uint32))
    with pytest.raises(OutputError, match=r"\.n\.a is gone; nothing is published"):
        labels._exchange(place, place.hidden_path("a"))
    assert tree(source.path) == before


@pytest.mark.parametrize("calls", [1, 2])
def test_who_may_not_publish_leaves_the_old_label(make_image, calls):
    """Asked at first, and again once it has the directory to itself."""
    source = image(make_image)
    place = label_place.in_image(source.path, "n")
    publish_one(source, place, "a")
    before = tree(place.path)
    spec = label_image.label_spec(source)
    fill(LabelWriter(labels.create_label(place, spec, "b"), spec), 9)
    asked = []

    def check():
        asked.append(1)
        if len(asked) == calls:
            raise LostLockError("lost the lock")

    with pytest.raises(LostLockError, match="lost the lock"):
        labels.publish(place, spec, "b", {}, check)
    assert tree(place.path) == before
    assert Path(place.hidden_path("b")).is_dir()


def test_full_disk_is_one_clear_message(make_image, monkeypatch):
    source = image(make_image)
    spec = label_image.label_spec(source)
    writer = LabelWriter(
        labels.create_label(label_place.in_image(source.path, "n"), spec, "a"), spec
    )

    class Full:
        def __setitem__(self, index, values):
            raise OSError(errno.ENOSPC, "No space left on device")

    writer._arrays[0] = Full()
    with pytest.raises(OutputError, match="no space left to write"):
        writer.write_box(0, 0, Box.of_shape((20, 24, 9)), np.ones((20, 24, 9), np.uint32))


@pytest.mark.parametrize("lost", [".zarray", ".zattrs"])
def test_an_array_of_which_a_kill_left_one_file_is_made(make_image, lost):
    source = image(make_image, version="0.4")
    spec, place = label_image.label_spec(source), label_place.in_image(source.path, "n")
    before = tree(path := labels.create_label(place, spec, "a"))
    Path(path, "1", lost).unlink()
    assert labels.create_label(place, spec, "a") == path
    assert tree(path) == before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_making_a_label_again_keeps_what_is_there(make_image, version):
    source = image(make_image, version=version)
    spec = label_image.label_spec(source)
    place = label_place.in_image(source.path, "n")
    path = labels.create_label(place, spec, "a")
    fill(LabelWriter(path, spec))
    before = tree(path)
    shutil.rmtree(Path(path, "1"))
    Path(path, "0", ".zattrs").unlink(missing_ok=True)
    assert labels.create_label(place, spec, "a") == path
    kept = {"1/.zarray", "1/.zattrs", "1/zarr.json"}
    assert {k: v for k, v in before.items() if k[0] != "1" or k in kept} == tree(path)
    other = replace(spec, arrays=(ArrayInfo((20, 24, 9), (20, 24, 4), None, "uint32"),) * 2)
    with pytest.raises(OutputError, match=r"expected .*\(20, 24, 4\).*delete the hidden label"):
        labels.create_label(place, other, "a")


def test_nested_dataset_paths_get_their_groups(make_image):
    source = image(make_image)
    levels = tuple(replace(level, path=f"a/b/{level.path}") for level in source.levels)
    spec = label_image.label_spec(replace(source, levels=levels))
    path = labels.create_label(label_place.in_image(source.path, "n"), spec, "a")
    group = zarr.open_group(path, mode="r")
    assert list(group.group_keys()) == ["a"]
    assert group["a/b/1"].shape == spec.arrays[1].shape


@pytest.mark.parametrize("token", ["old", "trash", "", "a.b", "a/b"])
def test_tokens_that_would_clash_are_refused(make_image, token):
    place = label_place.in_image("x", "n")
    with pytest.raises(OutputError, match="cannot name a hidden label"):
        place.hidden_path(token)


def test_twelve_digits_of_a_fingerprint_name_the_hidden_label():
    place = label_place.in_image("x", "n")
    assert place.hidden_path("0123456789abcdef") == "x/labels/.n.0123456789ab"
    assert place.hidden_path("0123456789ab") == place.hidden_path("0123456789abcdef")


@pytest.mark.parametrize("name", ["", ".a", "__a", "a/b", "a\\b", "a\n"])
def test_names_that_are_no_group_are_refused(name):
    with pytest.raises(OutputError, match="cannot name a label"):
        label_place.in_image("x", name)
    with pytest.raises(OutputError, match="cannot name a label"):
        label_place.standalone("x", "stem", name, "image")


# --- publishing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_label_is_listed_last_and_described(make_image, version):
    source = image(make_image, "tczyx", version)
    place = label_place.in_image(source.path, "anystar")
    spec = label_image.label_spec(source)
    hidden = labels.create_label(place, spec, "a1")
    fill(LabelWriter(hidden, spec))
    (Path(hidden, "0") / ".torn.partial").write_bytes(b"")
    assert label_list.existing_labels(source.path) == {}
    assert labels.published_attributes(place) is None
    path = labels.publish(place, spec, "a1", {"model": "m"})
    assert path == f"{source.path}/labels/anystar"
    assert sorted(names(f"{source.path}/labels")) == sorted(
        [".zattrs", ".zgroup", "anystar"] if version == "0.4" else ["anystar", "zarr.json"]
    )
    assert not list(Path(path).rglob("*.partial"))
    group = zarr.open_group(source.path, mode="r")
    listed = group["labels"].attrs.asdict()
    attributes = group["labels/anystar"].attrs.asdict()
    assert attributes["anystar-batch"] == {"model": "m"}
    if version == "0.4":
        assert listed == {"labels": ["anystar"]}
        assert attributes["image-label"] == {"version": "0.4", "source": {"image": "../../"}}
        entry = attributes["multiscales"][0]
        assert entry["version"] == "0.4"
        assert group["labels/anystar/0"].metadata.dimension_separator == "/"
    else:
        assert listed == {"ome": {"version": "0.5", "labels": ["anystar"]}}
        assert attributes["ome"]["version"] == "0.5"
        assert attributes["ome"]["image-label"] == {"source": {"image": "../../"}}
        entry = attributes["ome"]["multiscales"][0]
        assert group["labels/anystar/0"].metadata.dimension_names == ("t", "z", "y", "x")
    assert (entry["name"], entry["type"]) == ("anystar", "mode")
    assert "ties" in entry["metadata"]["description"]
    assert labels.published_attributes(place) == attributes
    assert label_list.existing_labels(source.path) == {"anystar": attributes}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_other_labels_keep_their_place_in_the_list(make_image, version):
    source = image(make_image, version=version)
    for name in ("b", "a", "c"):
        publish_one(source, label_place.in_image(source.path, name))
    publish_one(source, label_place.in_image(source.path, "a"), seed=4)
    assert label_list.listed(source.path) == ["b", "a", "c"]
    node = nodes.read_node(f"{source.path}/labels")
    nodes.write_attributes(f"{source.path}/labels", node.zarr_format, {"other": 1})
    assert list(label_list.existing_labels(source.path)) == ["a", "b", "c"]


def test_version_is_added_to_lists_that_lack_it(make_image):
    source = image(make_image)
    nodes.write_attributes(f"{source.path}/labels", 3, {"ome": {"labels": ["x"]}, "k": 1})
    publish_one(source, label_place.in_image(source.path, "a"))
    node = nodes.read_node(f"{source.path}/labels")
    assert node.attributes == {"ome": {"version": "0.5", "labels": ["x", "a"]}, "k": 1}
    assert label_list.existing_labels(source.path)["x"] == {}


def test_equal_labels_have_equal_bytes(make_image):
    source = image(make_image, "tzyx")
    one = tree(publish_one(source, label_place.in_image(source.path, "a"), "a1", model="m"))
    two = tree(publish_one(source, label_place.in_image(source.path, "a"), "b2", model="m"))
    assert one == two


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_images_show_the_new_label(make_image, version):
    make_image(np.ones((4, 5, 6), "u1"), version=version, name="c.zarr", steps=(1,))
    path = make_image(np.ones((8, 8, 8), "u1"), version=version, name="c.zarr/0")
    parent = str(Path(path).parent)
    for p in (path, parent):
        label_list.consolidate(p, 2 if version == "0.4" else 3)
    source = images.read_image(path)
    assert source.was_consolidated
    place = label_place.in_image(path, "anystar")
    for model in ("one", "two"):
        publish_one(source, place, model=model)
        for p, name in ((path, "labels/anystar"), (parent, "0/labels/anystar")):
            group = zarr.open_group(p, mode="r", use_consolidated=True)
            assert group[name].attrs["anystar-batch"] == {"model": model}
            assert group[f"{name}/1"].shape == (4, 4, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_list, "consolidate", lambda *_: pytest.fail("nothing has changed"))
        labels.recover(place)
    # A run killed before this last step: the next command does it.
    nodes.write_attributes(place.path, source.zarr_format, {"anystar-batch": {"model": "three"}})
    labels.recover(place)
    group = zarr.open_group(path, mode="r", use_consolidated=True)
    assert group["labels/anystar"].attrs["anystar-batch"] == {"model": "three"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_consolidated_images_do_not_show_unfinished_labels(make_image, version):
    source = image(make_image, version=version, is_consolidated=True)
    labels.create_label(
        label_place.in_image(source.path, "b"), label_image.label_spec(source), "b2"
    )
    publish_one(source, label_place.in_image(source.path, "a"))
    group = zarr.open_group(source.path, mode="r", use_consolidated=True)
    assert list(group["labels"].group_keys()) == ["a"]
    assert sorted(group.array_keys()) == ["0", "1"]
    group = zarr.open_group(source.path, mode="r", use_consolidated=False)
    assert list(group["labels/.b.b2"].array_keys()) != []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_torn_lists_of_labels_are_swept(make_image, version, monkeypatch):
    source = image(make_image, version=version)
    place = label_place.in_image(source.path, "a")
    publish_one(source, place)
    before = tree(source.path)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    monkeypatch.setattr(Path, "replace", lambda *_: None)
    nodes.write_attributes(place.parent, source.zarr_format, {})
    monkeypatch.undo()
    theirs = Path(place.parent, ".other.12-34.partial")
    theirs.write_bytes(b"")
    assert len(tree(source.path)) == len(before) + 2
    labels.recover(place)
    theirs.unlink()
    assert tree(source.path) == before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_standalone_label_is_a_root_that_points_to_its_image(make_image, tmp_path, version):
    source = image(make_image, "czyx", version)
    place = label_place.standalone(str(tmp_path / "out"), "a.b", "anystar", source.path)
    (tmp_path / "out").mkdir()
    before = tree(source.path)
    path = publish_one(source, place, model="m")
    assert path == f"{tmp_path}/out/a.b.anystar.ome.zarr"
    assert names(tmp_path / "out") == ["a.b.anystar.ome.zarr"]
    assert tree(source.path) == before
    node = nodes.read_node(path)
    ome = node.attributes if version == "0.4" else node.attributes["ome"]
    pointer = ome["image-label"]["source"]["image"]
    assert (Path(path) / pointer).resolve() == Path(source.path).resolve()
    assert not Path(pointer).is_absolute()
    assert images.read_image(path).shape_zyx() == source.shape_zyx()
    assert ome["multiscales"][0]["name"] == "anystar"
    publish_one(source, place, model="two")
    labels.recover(place)
    assert names(tmp_path / "out") == ["a.b.anystar.ome.zarr"]
    assert labels.published_attributes(place)["anystar-batch"] == {"model": "two"}


def test_pointer_is_absolute_where_no_relative_path_leads(make_image, tmp_path, monkeypatch):
    source = image(make_image)
    (tmp_path / "out").mkdir()
    place = label_place.standalone(str(tmp_path / "out"), "a", "n", source.path)

    def refuse(path, start):
        raise ValueError("another drive")

    monkeypatch.setattr(os.path, "relpath", refuse)
    path = publish_one(source, place)
    ome = nodes.read_node(path).attributes["ome"]
    assert ome["image-label"]["source"]["image"] == str(Path(source.path).resolve())


def test_discard_removes_the_hidden_label_only(make_image):
    source = image(make_image)
    place = label_place.in_image(source.path, "n")
    publish_one(source, place)
    labels.create_label(place, label_image.label_spec(source), "b2")
    labels.discard(place, "b2")
    labels.discard(place, "b2")
    assert sorted(names(f"{source.path}/labels")) == ["n", "zarr.json"]


def test_discard_leaves_an_image_as_it_was(make_image, tmp_path):
    source = image(make_image)
    before = tree(source.path)
    place = label_place.in_image(source.path, "n")
    labels.create_label(place, label_image.label_spec(source), "b2")
    labels.discard(place, "b2")
    assert tree(source.path) == before
    assert not Path(place.parent).exists()
    (tmp_path / "out").mkdir()
    labels.discard(label_place.standalone(str(tmp_path / "out"), "a", "n", source.path), "b2")
    assert (tmp_path / "out").exists()


# --- killed at any point -------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for kill -9: no handler of `Exception` runs."""


def kill_at(monkeypatch, step: int) -> list[str]:
    """Raise before the n-th change of the file system; return the changes done before."""
    done: list[str] = []

    def guard(owner, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments, **more):
            if len(done) == step:
                raise Killed
            done.append(name)
            return original(*arguments, **more)

        monkeypatch.setattr(owner, name, wrapped)

    guard(os, "rename")
    guard(os, "replace")
    guard(os, "unlink")
    guard(os, "rmdir")
    guard(Path, "rename")
    guard(Path, "replace")
    guard(label_list, "consolidate")
    guard(atomic_write, "exchange")
    return done


def state(source: ImageSource, place) -> tuple[str, dict[str, bytes]]:
    """Return the model of the published label and its bytes, checking that all of it is there."""
    attributes = labels.published_attributes(place)
    assert attributes is not None
    model = attributes["anystar-batch"]["model"]
    if not place.is_standalone:
        assert label_list.listed(source.path).count(place.name) == 1
        if source.was_consolidated:
            group = zarr.open_group(source.path, mode="r", use_consolidated=True)
            assert group[f"labels/{place.name}"].attrs["anystar-batch"]["model"] == model
    leftovers = [n for n in names(place.parent) if n.startswith(f".{place.name}.")]
    assert not [n for n in leftovers if n.endswith((".old", ".trash"))]
    return model, tree(place.path)


def exchanges(folder: Path) -> bool:
    """Return whether this file system knows the exchange in one step."""
    (folder / "first").mkdir()
    (folder / "second").mkdir()
    return atomic_write.exchange(folder / "first", folder / "second")


def cannot_exchange(monkeypatch) -> None:
    """Be a file system that does not know the exchange in one step."""
    monkeypatch.setattr(atomic_write, "exchange", lambda *_: False)


def kill_everywhere(place, spec, scene: Path, template: Path, killed=lambda: None):
    """Publish again and again from the same start, killed one change later each time; recover."""
    for step in range(200):
        shutil.rmtree(scene)
        shutil.copytree(template, scene)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: None)  # slow, and no killed process needs it
            kill_at(patch, step)
            try:
                labels.publish(place, spec, "n1", {"model": "new"})
                finished = True
            except Killed:
                finished = False
        killed()
        labels.recover(place)
        yield step
        if finished:
            return
    pytest.fail("publishing never came to its end")


@pytest.mark.parametrize("kind", ["0.4", "0.5", "consolidated", "standalone", "two steps"])
def test_overwriting_killed_anywhere_leaves_the_old_or_the_new_label(
    make_image, tmp_path, monkeypatch, kind
):
    version = "0.4" if kind == "0.4" else "0.5"
    source = image(make_image, version=version, is_consolidated=kind == "consolidated")
    place = label_place.in_image(source.path, "anystar")
    if kind == "standalone":
        (tmp_path / "out").mkdir()
        place = label_place.standalone(str(tmp_path / "out"), "a", "anystar", source.path)
    whole = {
        model: tree(publish_one(source, place, seed=seed, model=model))
        for model, seed in (("new", 7), ("old", 3))
    }
    spec = label_image.label_spec(source)
    fill(LabelWriter(labels.create_label(place, spec, "n1"), spec), 7)
    scene = Path(place.parent if kind == "standalone" else source.path)
    shutil.copytree(scene, template := tmp_path / "template")
    if kind == "two steps":
        cannot_exchange(monkeypatch)
    seen, gaps = [], []

    def look() -> None:
        """Without any recovery, whoever reads finds the old label or the new one."""
        is_there = Path(place.path).exists()
        gaps.extend([] if is_there else [len(seen)])
        assert not is_there or tree(place.path) in whole.values()

    for step in kill_everywhere(place, spec, scene, template, look):
        model, found = state(source, place)
        assert found == whole[model], step
        seen.append(model)
    assert seen[0] == "old"
    assert seen[-1] == "new"
    assert seen == sorted(seen, reverse=True)
    assert len(seen) > 8
    assert bool(gaps) == (kind == "two steps" or not exchanges(tmp_path))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_first_publishing_killed_anywhere_leaves_nothing_or_all(make_image, tmp_path, version):
    source = image(make_image, version=version)
    place = label_place.in_image(source.path, "anystar")
    spec = label_image.label_spec(source)
    fill(LabelWriter(labels.create_label(place, spec, "n1"), spec))
    shutil.copytree(source.path, template := tmp_path / "template")
    seen = []
    for _ in kill_everywhere(place, spec, Path(source.path), template):
        if labels.published_attributes(place) is None:
            seen.append("none")
            assert "anystar" not in label_list.listed(source.path)
        else:
            seen.append(state(source, place)[0])
    assert seen[-1] == "new"
    assert set(seen) == {"none", "new"}


@pytest.mark.parametrize("step", range(1, 12))
def test_recovery_killed_anywhere_is_recovered_by_the_next(make_image, monkeypatch, step):
    cannot_exchange(monkeypatch)
    source = image(make_image)
    place = label_place.in_image(source.path, "anystar")
    old = tree(publish_one(source, place, model="old"))
    spec = label_image.label_spec(source)
    fill(LabelWriter(labels.create_label(place, spec, "n1"), spec), 7)
    with pytest.MonkeyPatch.context() as patch:
        done = kill_at(patch, step)
        with pytest.raises(Killed):
            labels.publish(place, spec, "n1", {"model": "new"})
    for again in range(20):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, again)
            try:
                labels.recover(place)
                break
            except Killed:
                pass
    model, found = state(source, place)
    assert model == "new" or found == old, done


def test_recovery_leaves_alone_what_is_not_ours(make_image):
    source = image(make_image)
    place = label_place.in_image(source.path, "theirs")
    labels.recover(place)
    assert not Path(place.parent).exists()
    nodes.write_attributes(place.path, 3, {"ome": {"version": "0.5"}})
    Path(place.path, "x.partial").write_bytes(b"")
    before = tree(place.parent)
    labels.recover(place)
    assert tree(place.parent) == before
    # Unlisted, but taken: nothing is published over it unasked.
    assert labels.published_attributes(place) == {"ome": {"version": "0.5"}}
    assert "theirs" in label_list.existing_labels(source.path)


def test_failing_exchange_names_the_place(make_image, monkeypatch):
    source = image(make_image)
    place = label_place.in_image(source.path, "n")

    def refuse(self, target):
        raise OSError(errno.EACCES, "Permission denied")

    spec = label_image.label_spec(source)
    labels.create_label(place, spec, "a")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(Permission denied"):
        labels.publish(place, spec, "a", {})
    Path(place.parent, ".n.old").mkdir()
    with pytest.raises(OutputError, match=r"cannot be written \(Permission denied"):
        labels.recover(place)
    nowhere = label_place.standalone("/proc/none", "a", "n", source.path)
    with pytest.raises(OutputError, match="--output DIR"):
        labels.create_label(nowhere, spec, "a")


def test_labels_that_cannot_be_read_back_are_named(make_image):
    source = image(make_image)
    place = label_place.in_image(source.path, "n")
    spec = label_image.label_spec(source)
    writer = LabelWriter(labels.create_label(place, spec, "a"), spec)
    fill(writer)
    chunk = next(p for p in sorted(Path(writer.path, "0", "c").rglob("*")) if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:9])
    with pytest.raises(DataError, match=r"level 0, t 0, .* cannot be read back .*--restart"):
        LabelWriter(writer.path, spec).read_box(0, 0, Box.of_shape(spec.shape_zyx(0)))


def test_label_without_all_its_levels_replaces_nothing(make_image):
    source = image(make_image)
    place = label_place.in_image(source.path, "n")
    before = tree(publish_one(source, place))
    spec = label_image.label_spec(source)
    with pytest.raises(OutputError, match="level 0 is missing; nothing is published"):
        labels.publish(place, spec, "gone", {})
    shutil.rmtree(Path(labels.create_label(place, spec, "torn"), "1"))
    with pytest.raises(OutputError, match="level 1 is missing"):
        labels.publish(place, spec, "torn", {})
    assert tree(place.path) == before


def test_listed_but_missing_label_takes_the_name(make_image):
    source = image(make_image)
    nodes.write_attributes(
        f"{source.path}/labels", 3, {"ome": {"version": "0.5", "labels": ["gone"]}}
    )
    place = label_place.in_image(source.path, "gone")
    assert labels.published_attributes(place) == {}
    assert label_list.existing_labels(source.path) == {"gone": {}}
    assert json.dumps(label_list.existing_labels(source.path))
