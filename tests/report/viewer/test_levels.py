"""Levels that a viewer reads: what is looked at, in the order t, z, y, x, and nothing besides."""

import numpy as np
import pytest

from anystar_batch.archive.images import read_image
from anystar_batch.errors import DataError, ImageError
from anystar_batch.report.viewer import levels as lazy
from tests.support.fakes import write_image

SHAPE = {"t": 3, "c": 2, "z": 6, "y": 10, "x": 8}
VALUES = np.arange(3 * 2 * 6 * 10 * 8, dtype=np.uint16).reshape(3, 2, 6, 10, 8)


def stored(path, axes, **more):
    order = ["tczyx".index(a) for a in axes]
    values = VALUES[tuple(slice(None) if a in axes else 1 for a in "tczyx")]
    kept = [a for a in "tczyx" if a in axes]
    values = values.transpose([kept.index(a) for a in axes])
    chunks = tuple(4 if a in "zyx" else 1 for a in axes)
    assert len(order) == values.ndim
    return read_image(write_image(path, [values], axes=axes, chunks=chunks, **more))


@pytest.mark.parametrize("axes", ["tczyx", "czyx", "zyx", "xyzct", "zcytx"])
@pytest.mark.parametrize(
    "key",
    [
        ...,
        2,
        (..., 3),
        (..., slice(1, 5), slice(2, 9, 3), 0),
        (slice(None), slice(1, None)),
        (slice(0, 1), ..., np.int64(2), slice(-3, None)),
    ],
    ids=str,
)
def test_an_index_gives_what_numpy_gives_whatever_the_order_on_disk(tmp_path, axes, key):
    source = stored(tmp_path / "a.zarr", axes)
    channel = 1 if "c" in axes else 0
    whole = VALUES[:, 1] if "t" in axes else VALUES[1, 1]
    level = lazy.LazyLevel(source, 0, channel)
    assert (level.shape, level.dtype, len(level)) == (whole.shape, whole.dtype, len(whole))
    found, expected = level[key], whole[key]
    assert (found.shape, found.ndim, found.size) == (expected.shape, expected.ndim, expected.size)
    assert np.array_equal(np.asarray(found), expected)


def test_indices_of_indices(tmp_path):
    level = lazy.LazyLevel(stored(tmp_path / "a.zarr", "ctzyx"), 0, 1)
    found = level[:, :, 2:9, 1:7][1][4, 1::2][..., 3]
    assert np.array_equal(np.asarray(found), VALUES[1, 1, 4, 2:9, 1:7][1::2][..., 3])
    assert np.asarray(level[1, 2, 3, 4]) == VALUES[1, 1, 2, 3, 4]
    assert np.asarray(level[:, 2:2]).shape == (3, 0, 10, 8)
    assert np.asarray(level[0], np.float32).dtype == np.float32


def test_nothing_is_read_but_the_chunks_of_what_is_looked_at(tmp_path):
    source = stored(tmp_path / "a.zarr", "zyx")
    chunks = sorted(p for p in (tmp_path / "a.zarr/0").rglob("*") if p.is_file())
    (kept,) = [p for p in chunks if p.parts[-3:] == ("0", "1", "1")]
    for path in chunks:
        if path not in (kept, tmp_path / "a.zarr/0/zarr.json"):
            path.write_bytes(b"broken")
    level = lazy.LazyLevel(source, 0, 0)
    # As napari does it: the tile of all planes first, then one of the planes.
    found = np.asarray(level[:, 4:8, 4:8][2])
    assert np.array_equal(found, VALUES[1, 1, 2, 4:8, 4:8])
    with pytest.raises(DataError, match=r"level 0, .*: the stored data cannot be read"):
        np.asarray(level[:, 4:8, 4:8])


def test_other_types_are_read_as_the_image_says(tmp_path):
    cube = VALUES[0, 0]
    source = read_image(write_image(tmp_path / "b.zarr", [cube > 50]))
    level = lazy.LazyLevel(source, 0, 0)
    assert np.asarray(level).dtype == level.dtype == np.uint8
    source = read_image(write_image(tmp_path / "c.zarr", [cube.astype(">u2")], version="0.4"))
    assert np.asarray(lazy.LazyLevel(source, 0, 0)).dtype == np.dtype("=u2")


def test_a_level_too_large_to_be_seen_whole_gets_coarser_ones(tmp_path, monkeypatch):
    cube = np.arange(5 * 40 * 64, dtype=np.uint16).reshape(5, 40, 64)
    source = read_image(write_image(tmp_path / "a.zarr", [cube]))
    assert len(lazy.lazy_levels(source, 0)) == 1
    monkeypatch.setattr(lazy, "COARSE_VOXELS", 1000)
    levels = lazy.lazy_levels(source, 0)
    assert [level.shape for level in levels] == [(5, 40, 64), (5, 20, 32), (5, 10, 16)]
    assert np.array_equal(np.asarray(levels[2]), cube[:, ::4, ::4])


def test_what_cannot_be_indexed_and_what_is_too_much(tmp_path, monkeypatch):
    level = lazy.LazyLevel(stored(tmp_path / "a.zarr", "zyx"), 0, 0)
    with pytest.raises(IndexError, match="4 indices for 3 axes"):
        level[0, 0, 0, 0]
    with pytest.raises(IndexError):
        level[6]
    with pytest.raises(IndexError, match="goes backwards; expected a step above 0"):
        level[::-1]
    monkeypatch.setattr(lazy, "MOST_BYTES", 100)
    with pytest.raises(ImageError, match=r"take 0.0 GB; at most .* are read at once"):
        np.asarray(level)
