"""Finding images below a directory, and telling which are still being written."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive import discovery
from anystar_batch.archive.discovery import Settling
from anystar_batch.archive.images import read_image
from anystar_batch.errors import ImageError


def group(path, **ome):
    path.mkdir(parents=True, exist_ok=True)
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    (path / "zarr.json").write_text(json.dumps(document))
    return path


def found(root, pattern="*.ome.zarr"):
    paths, unreadable = discovery.find_zarrs(str(root), pattern)
    return [os.path.relpath(p, root) for p in paths], [p for p, _ in unreadable]


def test_names_decide_and_no_zarr_is_entered(tmp_path):
    for name in ("a.ome.zarr", "b/c.ome.zarr/d.ome.zarr", "b/e.zarr/f.ome.zarr", "b/G.OME.ZARR"):
        (tmp_path / name).mkdir(parents=True)
    group(tmp_path / "b/e.zarr")
    (tmp_path / "file.ome.zarr").write_text("")
    assert found(tmp_path) == (["a.ome.zarr", "b/c.ome.zarr"], [])
    assert found(tmp_path, "*.zarr")[0] == ["a.ome.zarr", "b/c.ome.zarr", "b/e.zarr"]


def test_neither_links_nor_hidden_directories_are_followed(tmp_path):
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / ".snapshot/a.ome.zarr").mkdir(parents=True)
    (tmp_path / ".a.ome.zarr").mkdir()
    (tmp_path / "link.ome.zarr").symlink_to(tmp_path / "a.ome.zarr")
    (tmp_path / "up").symlink_to(tmp_path)
    assert found(tmp_path) == (["a.ome.zarr"], [])


def test_a_directory_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    for name in ("a.ome.zarr", "shut/b.ome.zarr", "gone/c.ome.zarr"):
        (tmp_path / name).mkdir(parents=True)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        if str(path).endswith("gone"):
            raise FileNotFoundError
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert found(tmp_path) == (["a.ome.zarr"], [str(tmp_path / "shut")])


def test_a_label_is_no_image(tmp_path):
    label = group(tmp_path / "a.ome.zarr", multiscales=[{}], **{"image-label": {}})
    assert discovery.images_in(str(label)) == []
    assert discovery.images_in(str(group(tmp_path / "b.ome.zarr", multiscales=[{}]))) == [
        str(tmp_path / "b.ome.zarr")
    ]


def test_a_plate_is_its_fields(tmp_path):
    plate = group(tmp_path / "p", plate={"wells": [{"path": "A/1"}, {"path": "A/2"}]})
    group(plate / "A/1", well={"images": [{"path": "0"}, {"path": "1"}]})
    names = [os.path.relpath(p, plate) for p in discovery.images_in(str(plate))]
    assert names == ["A/1/0", "A/1/1", "A/2"]


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", None, 3])
def test_a_plate_that_leads_elsewhere_is_refused(tmp_path, path):
    plate = group(tmp_path / "p", plate={"wells": [{"path": path}]})
    with pytest.raises(ImageError, match=r"p: `wells` names .*; expected a path below it"):
        discovery.images_in(str(plate))


@pytest.fixture
def image(make_image):
    path = make_image(np.ones((16, 16, 16), "u2"))
    for file in Path(path).rglob("*"):
        os.utime(file, (1e9, 1e9))
    return path


def test_the_newest_file_of_the_levels_counts_and_no_other(image):
    source, settling = read_image(image), Settling(900.0)
    os.utime(Path(image, "1/zarr.json"), (1.5e9, 1.5e9))
    Path(image, "labels/n/0").mkdir(parents=True)
    Path(image, "labels/n/0/zarr.json").write_text("")
    Path(image, "zarr.json").touch()
    assert discovery.newest_file(source, settling) == 1.5e9
    Path(image, "1/c/0/0/0").touch()
    assert discovery.newest_file(source, settling) is None
    assert discovery.newest_file(source, Settling(0.0)) > 1.6e9
    # The file server's clock is an hour behind ours.
    then = time.time() - 3600
    os.utime(Path(image, "1/c/0/0/0"), (then, then))
    assert discovery.newest_file(source, Settling(900.0, offset=-3600.0)) is None


def test_the_first_young_file_ends_the_search(image, monkeypatch):
    Path(image, "0/zarr.json").touch()
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda p: listed.append(str(p)) or scandir(p))
    assert discovery.newest_file(read_image(image), Settling(900.0)) is None
    assert listed == [f"{image}/0"]


def test_a_file_that_is_renamed_meanwhile_hides_no_other(image, monkeypatch):
    Path(image, "0/c/0/0/0").touch()
    for n in range(30):
        Path(image, f"0/c/0/0/{n}-gone").symlink_to("nowhere")
    assert discovery.newest_file(read_image(image), Settling(900.0)) is None


def test_what_cannot_be_read_is_named(image, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    source = read_image(image)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match="0: cannot be read: Permission denied"):
        discovery.newest_file(source, Settling(900.0))


def test_of_what_is_no_image_yet_any_file_counts_but_labels(tmp_path):
    root = tmp_path / "a.ome.zarr"
    settling = Settling(900.0)
    assert not discovery.is_any_young(root, settling)
    (root / "labels").mkdir(parents=True)
    (root / "labels" / "x").write_text("")
    (root / "0").mkdir()
    assert discovery.is_any_young(root, settling), "the directory itself is new"
    os.utime(root, (1e9, 1e9))
    assert not discovery.is_any_young(root, settling)
    (root / "0" / "x").write_text("")
    assert discovery.is_any_young(root, settling)
