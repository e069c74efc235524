"""Which levels agree with level 0: random pyramids, volumes too large to be read, series."""

import math

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.geometry import Box
from anystar_batch.stages import levels
from anystar_batch.stages.levels import Verdict, check_levels
from tests.support import pyramids
from tests.support.fakes import mean_level, write_image


@pytest.mark.parametrize("seed", range(24))
def test_no_faulty_level_is_believed_and_no_sound_one_refused(tmp_path, seed):
    """`python -m tests.support.pyramids 2000` is the same with 2,000 pyramids."""
    fault, silent, false = pyramids.judge(tmp_path / "a.zarr", seed)
    assert not silent, fault
    assert not false, fault


@pytest.mark.parametrize("seed", [5439, 6775])
def test_no_level_is_believed_by_chance(tmp_path, seed):
    """Another image with a few blobs in the same places; zeros where level 0 has faint noise."""
    fault, silent, _ = pyramids.judge(tmp_path / "a.zarr", seed)
    assert not silent, fault


def volume(shape=(64, 96, 128), seed=0):
    image, _, _ = pyramids.scene(np.random.default_rng(seed), shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def written(path, *pyramid, chunks=(16, 16, 16), **more):
    return write_image(path, pyramid, chunks=chunks, **more)


def verdicts(path):
    return check_levels(ImageReader(read_image(str(path))), 0)


@pytest.fixture
def large(monkeypatch):
    """Every volume counts as one that is too large to be looked at whole."""
    monkeypatch.setattr(levels, "WHOLE", 0)


@pytest.fixture
def tally(monkeypatch):
    """Count the voxels that are read, by level."""
    read = {}
    real = ImageReader.read_box

    def counted(self, level, t, c, box):
        read[level] = read.get(level, 0) + box.size
        return real(self, level, t, c, box)

    monkeypatch.setattr(ImageReader, "read_box", counted)
    return read


@pytest.mark.usefixtures("large")
def test_a_large_sound_pyramid_agrees_from_a_sample(tmp_path, tally, monkeypatch):
    monkeypatch.setattr(levels, "DECODED", 1)  # not one place more than is needed
    fine = volume((96, 200, 200))
    one = mean_level(fine, (2, 2, 2))
    path = written(tmp_path / "a.zarr", fine, one, mean_level(one, (2, 2, 2)))
    found = verdicts(path)
    assert [v.agrees for v in found] == [True, True, True]
    assert "against level 0 (correlation 1.00, mean)" in found[1].how
    assert "against level 1 (correlation 1.00, mean)" in found[2].how
    assert tally[0] < 0.7 * fine.size
    assert verdicts(path) == found, "the same every time"


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_large_half_filled_level_is_seen(tmp_path, share, axis):
    fine = volume()
    level = mean_level(fine, (2, 2, 2))
    part = [slice(None)] * 3
    part[axis] = slice(math.ceil(level.shape[axis] * share), None)
    level[tuple(part)] = 0
    found = verdicts(written(tmp_path / "a.zarr", fine, level))[1]
    assert not found.agrees
    assert "where level 0 shows something" in found.why or "something else" in found.why


@pytest.mark.usefixtures("large")
def test_a_hole_between_the_places_of_the_lattice_is_seen_by_its_missing_chunk(tmp_path):
    fine = volume((64, 160, 160))
    level = mean_level(fine, (1, 1, 1))[:, :, :]
    level = mean_level(level, (2, 2, 2))
    level[16:32, 64:80, 64:80] = 0
    path = written(tmp_path / "a.zarr", fine, level)
    assert not (tmp_path / "a.zarr/1/c/1/4/4").exists()
    assert not verdicts(path)[1].agrees


@pytest.mark.usefixtures("large")
def test_a_sparse_volume_is_looked_at_where_something_is_stored(tmp_path):
    fine = np.zeros((64, 512, 512), np.uint8)
    fine[2:14, 130:142, 130:142] = volume((12, 12, 12))
    level = mean_level(fine, (2, 2, 2))
    good = verdicts(written(tmp_path / "a.zarr", fine, level))[1]
    assert good.agrees
    assert "correlation 1.00" in good.how
    empty = verdicts(written(tmp_path / "b.zarr", fine, np.zeros_like(level)))[1]
    assert not empty.agrees


def test_where_nothing_shows_nothing_is_refused(tmp_path):
    fine = np.full((16, 32, 32), 7, np.uint8)
    found = verdicts(written(tmp_path / "a.zarr", fine, mean_level(fine, (2, 2, 2))))[1]
    assert found.agrees
    assert "show nothing that could be compared" in found.how


def test_a_bad_level_is_no_reference_for_the_next(tmp_path):
    fine = volume()
    one = mean_level(fine, (2, 2, 2))
    two = mean_level(one, (2, 2, 2))
    found = verdicts(written(tmp_path / "a.zarr", fine, np.zeros_like(one), two))
    assert [v.agrees for v in found] == [True, False, True]
    assert "against level 0" in found[2].how


def test_what_level_0_has_lost_is_told_and_the_level_stays(tmp_path):
    fine = volume()
    level = mean_level(fine, (2, 2, 2))
    fine[:, :48] = 0
    found = verdicts(written(tmp_path / "a.zarr", fine, level))[1]
    assert found.agrees
    assert "places, first its voxels" in found.lost


@pytest.mark.parametrize("filled", [1, 2, 5])
def test_a_level_of_which_later_times_were_never_filled_is_refused(tmp_path, filled):
    frames = np.stack([volume((24, 40, 48), seed) for seed in range(6)])
    coarse = np.stack([mean_level(frame, (2, 2, 2)) for frame in frames])
    path = written(tmp_path / "a.zarr", frames, coarse, axes="tzyx", chunks=(1, 16, 16, 16))
    assert verdicts(path)[1].agrees
    coarse[filled:] = 0
    path = written(tmp_path / "a.zarr", frames, coarse, axes="tzyx", chunks=(1, 16, 16, 16))
    found = verdicts(path)[1]
    assert not found.agrees
    assert "time " in found.why


def test_a_declared_translation_that_the_voxels_contradict_is_seen(tmp_path):
    """Less than a voxel of the level, so the metadata alone are plausible."""
    fine = volume()
    level = mean_level(fine, (2, 2, 2))
    for shift, agrees in ((0.0, True), (0.5, True), (1.0, True), (-1.9, False)):
        path = written(
            tmp_path / "a.zarr", fine, level, translations=[(0, 0, 0), (shift, shift, shift)]
        )
        source = read_image(path)
        assert not source.levels[1].fault
        found = verdicts(path)[1]
        assert found.agrees is agrees, shift
    assert "it lies elsewhere: moved by (+1, +1, +1)" in found.why


def test_a_verdict_goes_through_json():
    one = Verdict(1, agrees=False, how="so", why="because", lost="there")
    assert Verdict.from_json(one.to_json()) == one


def test_places_cover_a_small_level_and_the_borders_of_a_large_one():
    boxes = list(levels._lattice((30, 7, 24), (24, 7, 24), (2, 1, 1)))
    assert boxes == [Box((0, 0, 0), (24, 7, 24)), Box((6, 0, 0), (30, 7, 24))]
