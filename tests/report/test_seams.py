"""The seam check: it sees the grid in labels that were never joined, and nothing in others."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from anystar_batch.report.nearness import nearness
from anystar_batch.report.profiles import AxisProfile, Profiles, own_edges
from anystar_batch.report.seams import ALPHA, BorderGrid, seam_tests
from tests.support import seam_volumes

SHAPE = (80, 120, 120)
STEP = 40


def made(seed):
    return seam_volumes.balls(SHAPE, 420, seed, radius=(2.5, 4.5))


def test_labels_that_were_never_joined_are_seen_and_ours_are_not():
    """20 phantoms; `bench.seams` does the same with the command and with real suppression."""
    grids = [seam_volumes.grid(STEP)]
    found = []
    for seed in range(20):
        labels = made(seed)
        (ours,) = seam_volumes.checked(labels, grids)
        (theirs,) = seam_volumes.checked(seam_volumes.cut(labels, STEP), grids)
        assert theirs.is_trace
        assert theirs.p < ALPHA
        assert theirs.cuts_ratio > 1.5
        assert not ours.is_trace
        found.append(ours.p)
    # Without a trace every p is as likely as any other.
    assert 0.2 < np.mean(found) < 0.8


def test_tissue_that_is_densest_where_the_borders_are_shows_no_trace():
    grid = BorderGrid("blocks", (1000.0, 48.0, 48.0), (1000.0, 48.0, 48.0))
    found = []
    for seed in range(3):
        labels = seam_volumes.balls((40, 96, 144), 900, seed, radius=(1.5, 2.5))
        rows, rng = seam_volumes.rows(labels), np.random.default_rng(seed)
        named = np.unique(labels[labels > 0])
        waves = [np.cos(2 * np.pi * (rows[f"centroid_{a}"] - 48) / 48) for a in "yx"]
        gone = named[rng.random(len(named)) > (1 + waves[0]) * (1 + waves[1]) / 4]
        labels[np.isin(labels, gone)] = 0
        (one,) = seam_volumes.checked(labels, [grid], period=(1.0, 1.0, 1.0))
        assert one.planes == 3
        found.append(one.p)
    assert np.mean(found) > 0.3


def test_every_grid_costs_its_share_and_equal_ones_are_tested_once():
    labels = seam_volumes.cut(made(2), STEP)
    one = seam_volumes.checked(labels, [seam_volumes.grid(STEP)])
    grids = [
        seam_volumes.grid(STEP),
        seam_volumes.grid(STEP, "again"),
        seam_volumes.grid(30, "other"),
    ]
    two = seam_volumes.checked(labels, grids)
    assert [t.name for t in two] == ["blocks", "other"]
    assert two[0].p == pytest.approx(2 * one[0].p)
    assert not two[1].is_trace


def test_the_same_table_gets_the_same_answer():
    labels = made(3)
    assert seam_volumes.checked(labels, [seam_volumes.grid(STEP)]) == seam_volumes.checked(
        labels, [seam_volumes.grid(STEP)]
    )


@pytest.mark.parametrize(
    ("count", "step", "why"),
    [
        (30, STEP, r"only \d+ instances; 50 are needed"),
        (420, 4, "its planes lie too close to each other or to the border"),
    ],
)
def test_where_nothing_can_be_said_it_says_why(count, step, why):
    labels = seam_volumes.balls(SHAPE, count, 0)
    (found,) = seam_volumes.checked(labels, [seam_volumes.grid(step)], period=(4.0, 4.0, 4.0))
    assert found.p is None
    assert not found.is_trace
    assert re.fullmatch(why, found.why_not)
    assert None in found.to_json().values()


def test_a_volume_in_one_block_has_no_seams():
    assert seam_volumes.checked(made(4), [seam_volumes.grid(1000)]) == []
    profiles = Profiles.empty(SHAPE)
    assert nearness(profiles, seam_volumes.grid(1000), (8.0,) * 3, (1.0,) * 3) is None


def test_planes_lie_inside_the_volume_where_they_are_said_to():
    grid = BorderGrid("g", (10.0, 12.5, 100.0), (10.0, 6.25, 100.0))
    assert grid.planes(0, 30).tolist() == [10, 20]
    assert grid.planes(1, 45).tolist() == [6, 19, 31, 44]
    assert grid.planes(2, 100).tolist() == []


def test_density_and_size_near_borders_show_what_the_test_says():
    labels = made(5)
    shown = []
    for one in (labels, seam_volumes.cut(labels, STEP)):
        profiles = Profiles.empty(SHAPE)
        profiles.add(seam_volumes.rows(one))
        shown.append(nearness(profiles, seam_volumes.grid(STEP), (7.0,) * 3, (1.0,) * 3))
    whole, pieces = shown
    assert np.all(np.diff(whole.distance_um) > 0)
    # What is cut has its centroids beside the border, and half the volume.
    assert np.nanmax(pieces.density[:4]) > 1.3 > np.nanmax(whole.density[:4])
    assert np.nanmin(pieces.size[:4]) < 0.75 < np.nanmin(whole.size[:4])
    inside = (whole.density >= whole.density_band[0]) & (whole.density <= whole.density_band[1])
    assert inside.mean() > 0.6


def test_a_profile_counts_faces_inside_the_volume_only():
    profiles = Profiles.empty((4, 4, 6))
    box = SimpleNamespace(low=(0, 1, 2), high=(4, 3, 6))
    rows = {"num_voxels": np.array([8.0])}
    for name, low, high in zip("zyx", box.low, box.high, strict=True):
        rows |= {f"bbox_{name}_min": np.array([low]), f"bbox_{name}_max": np.array([high])}
        rows[f"centroid_{name}"] = np.array([(low + high - 1) / 2])
    profiles.add(rows)
    z, y, x = profiles.axes
    assert z.faces.tolist() == [0, 0, 0, 0, 0]
    assert y.faces.tolist() == [0, 1, 0, 1, 0]
    assert x.faces.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert x.log_volume.sum() == pytest.approx(np.log(8))
    assert seam_tests(profiles, [seam_volumes.grid(2)], (2.0,) * 3, (1.0,) * 3)[0].p is None


@pytest.mark.parametrize("factor", [1.3, 1.7, 2, 3])
def test_the_edges_that_enlarged_labels_had_before_are_found(factor):
    small = np.random.default_rng(1).integers(1, 90, 60)
    small[20:23] = 0  # nothing changes here
    pairs = np.zeros((int(60 * factor) + 1, 3), np.int64)
    borders = np.searchsorted(
        (np.arange(len(pairs) - 1) + 0.5) / factor, np.arange(1, 60), side="left"
    )
    pairs[borders, 1] = small[1:]
    axis = replace(AxisProfile.empty(len(pairs) - 1), pairs=pairs)
    edges = own_edges(axis)
    expected = np.array([0, *borders, len(pairs) - 1])
    assert len(edges) == len(expected)
    assert set(expected[[0, *(np.flatnonzero(small[1:]) + 1), -1]]) <= set(edges)
    assert abs(edges - expected).max() <= 1  # where nothing changes nobody knows
    assert np.array_equal(axis.on_edges(edges).pairs[1:-1, 1], small[1:])
    assert own_edges(replace(axis, pairs=None)) is None


def test_labels_that_change_at_most_edges_were_not_enlarged():
    pairs = np.ones((101, 3), np.int64)
    pairs[np.random.default_rng(0).choice(101, 14, replace=False)] = 0
    assert own_edges(replace(AxisProfile.empty(100), pairs=pairs)) is None
    assert own_edges(replace(AxisProfile.empty(100), pairs=np.zeros((101, 3), np.int64))) is None
