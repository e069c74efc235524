"""The age of an image's files: which of them count, and whose clock."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive import age
from anystar_batch.archive.age import Settling
from anystar_batch.archive.images import read_image
from anystar_batch.errors import ForbiddenError


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
    assert age.newest_file(source, settling) == 1.5e9
    Path(image, "1/c/0/0/0").touch()
    assert age.newest_file(source, settling) is None
    assert age.newest_file(source, Settling(0.0)) > 1.6e9
    # The file server's clock is an hour behind ours.
    then = time.time() - 3600
    os.utime(Path(image, "1/c/0/0/0"), (then, then))
    assert age.newest_file(source, Settling(900.0, offset=-3600.0)) is None


def test_the_first_young_file_ends_the_search(image, monkeypatch):
    Path(image, "0/zarr.json").touch()
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda p: listed.append(str(p)) or scandir(p))
    assert age.newest_file(read_image(image), Settling(900.0)) is None
    assert listed == [f"{image}/0"]


def test_a_file_that_is_renamed_meanwhile_hides_no_other(image, monkeypatch):
    Path(image, "0/c/0/0/0").touch()
    for n in range(30):
        Path(image, f"0/c/0/0/{n}-gone").symlink_to("nowhere")
    assert age.newest_file(read_image(image), Settling(900.0)) is None


def test_what_cannot_be_read_is_named(image, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    source = read_image(image)
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ForbiddenError, match="0: cannot be read: Permission denied"):
        age.newest_file(source, Settling(900.0))


def test_of_what_is_no_image_yet_any_file_counts_but_labels(tmp_path):
    root = tmp_path / "a.ome.zarr"
    settling = Settling(900.0)
    assert not age.is_any_young(root, settling)
    (root / "labels").mkdir(parents=True)
    (root / "labels" / "x").write_text("")
    (root / "0").mkdir()
    assert age.is_any_young(root, settling), "the directory itself is new"
    os.utime(root, (1e9, 1e9))
    assert not age.is_any_young(root, settling)
    (root / "0" / "x").write_text("")
    assert age.is_any_young(root, settling)


def test_thumbnails_within_an_image_do_not_make_it_young(image):
    Path(image, "0/@eaDir").mkdir()
    Path(image, "0/@eaDir/thumb.jpg").write_text("")
    assert age.newest_file(read_image(image), Settling(900.0)) is not None
