"""Finding images below a directory, and telling which are still being written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive import discovery
from anystar_batch.archive.images import read_image
from anystar_batch.errors import ForbiddenError, ImageError


def group(path, **ome):
    path.mkdir(parents=True, exist_ok=True)
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    (path / "zarr.json").write_text(json.dumps(document))
    return path


def found(root, pattern="*.ome.zarr"):
    """Matches below a root, and the reasons for what is left out by its place there."""
    below = discovery.find_zarrs(str(root), pattern)
    reasons = {os.path.relpath(path, root): reason for path, reason in below.left_out}
    assert all(reason.startswith(f"{root}/{path}: ") for path, reason in reasons.items())
    return [os.path.relpath(path, root) for path in below.matches], {
        path: reason.removeprefix(f"{root}/{path}: ") for path, reason in reasons.items()
    }


def test_names_decide_and_no_zarr_is_entered(tmp_path):
    for name in ("a.ome.zarr", "b/c.ome.zarr/d.ome.zarr", "b/e.zarr/f.ome.zarr", "b/G.OME.ZARR"):
        (tmp_path / name).mkdir(parents=True)
    group(tmp_path / "b/e.zarr")
    (tmp_path / "file.ome.zarr").write_text("")
    file = {"file.ome.zarr": "a file; expected a directory, as an OME-Zarr is"}
    assert found(tmp_path) == (["a.ome.zarr", "b/c.ome.zarr"], file)
    assert found(tmp_path, "*.zarr")[0] == ["a.ome.zarr", "b/c.ome.zarr", "b/e.zarr"]


def test_neither_links_nor_hidden_directories_are_followed_and_each_is_named(tmp_path):
    (tmp_path / "a.ome.zarr").mkdir()
    (tmp_path / ".snapshot/a.ome.zarr").mkdir(parents=True)
    (tmp_path / ".a.ome.zarr").mkdir()
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "link.ome.zarr").symlink_to(tmp_path / "a.ome.zarr")
    (tmp_path / "lost.ome.zarr").symlink_to("nowhere")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "latest.txt").symlink_to("notes.txt")
    end = "; links are not followed: name what it leads to"
    assert found(tmp_path) == (
        ["a.ome.zarr"],
        {
            ".a.ome.zarr": "hidden; not entered",
            ".snapshot": "hidden; not entered",
            "link.ome.zarr": f"a link to {tmp_path}/a.ome.zarr{end}",
            "lost.ome.zarr": f"a link to {tmp_path}/nowhere, which is no directory{end}",
            "up": f"a link to {tmp_path}{end}",
        },
    )


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "#recycle", "@Recycle", "#snapshot", "lost+found", "$RECYCLE.BIN", "~snapshot",
     "System Volume Information", "__MACOSX"],
)  # fmt: skip
def test_folders_of_a_file_server_are_named_once_and_not_entered(tmp_path, name):
    for folder in ("x", "y", "z"):
        (tmp_path / folder / name / "a.ome.zarr").mkdir(parents=True)
    (tmp_path / "z/a.ome.zarr").mkdir()
    matches, left_out = found(tmp_path)
    assert matches == ["z/a.ome.zarr"]
    assert left_out == {
        f"x/{name}": "thumbnails, snapshots or trash of a file server; not entered, like 2 more of "
        "this name"
    }
    assert found(tmp_path, "*")[0] == ["x", "y", "z"]


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
    shut = {"shut": "cannot be listed: Permission denied"}
    assert found(tmp_path) == (["a.ome.zarr"], shut)


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


def test_a_well_that_cannot_be_read_hides_no_other(tmp_path):
    plate = group(tmp_path / "p", plate={"wells": [{"path": "A/1"}, {"path": "A/2"}]})
    group(plate / "A/1", well={"images": [{"path": "0"}]})
    group(plate / "A/2", well={"images": [{"path": "0"}]})
    (plate / "A/1/zarr.json").write_text("{")
    fields = discovery.plate_fields(str(plate))
    assert [(f.well, f.name) for f in fields] == [("A/1", ""), ("A/2", "0")]
    with pytest.raises(ImageError, match=r"A/1/zarr\.json: truncated or invalid JSON"):
        read_image(fields[0].path)


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", None, 3])
def test_a_plate_that_leads_elsewhere_is_refused(tmp_path, path):
    plate = group(tmp_path / "p", plate={"wells": [{"path": path}]})
    with pytest.raises(ImageError, match=r"p: `wells` names .*; expected a path below it"):
        discovery.images_in(str(plate))


@pytest.mark.parametrize("call", ["stat", "read_bytes"])
def test_an_image_that_may_not_be_read_is_told_from_a_broken_one(make_image, monkeypatch, call):
    image = make_image(np.ones((16, 16, 16), "u2"))
    asked = getattr(Path, call)

    def refuse(path, *more, **options):
        if str(path) in {image, f"{image}/zarr.json"}:
            raise PermissionError(13, "Permission denied", str(path))
        return asked(path, *more, **options)

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(ForbiddenError, match="cannot be read: Permission denied"):
        discovery.images_in(image)


def test_a_series_that_is_listed_twice_is_one(tmp_path):
    root = group(tmp_path / "r", **{"bioformats2raw.layout": 3})
    group(root / "OME", series=["0", "1", "0"])
    assert discovery.find_images(str(root)) == [f"{root}/0", f"{root}/1"]
