"""Cells around nuclei: against a loop over voxels in float64, and scikit-image's expansion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import expand_labels

from anystar_batch.geometry import Box, as_zyx
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.expand import paint_around
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral
from tests.support.star_scenes import SAME, blobs

RAYS = golden_spiral(96)
STRETCHED = LatticeMap((0.8, 1.7, 1.7), (0.3, 0.1, -0.4))


def grown(stars, shift, voxel_um=(1.0, 1.0, 1.0)):
    lengths = np.linalg.norm(RAYS.vertices * np.asarray(voxel_um), axis=1)
    return replace(stars, dist=(stars.dist + shift / lengths).astype(np.float32))


def both(stars, expanded, box, lattice=SAME, voxel_um=(1.0, 1.0, 1.0)):
    """Nuclei, and the cells around them."""
    labels = np.arange(1, len(stars) + 1, dtype=np.uint32)
    nuclei = np.zeros(box.shape, np.uint32)
    paint(nuclei, box, stars, labels, RAYS, lattice)
    cells = nuclei.copy()
    paint_around(cells, box, stars, expanded, labels, RAYS, lattice, voxel_um)
    return nuclei, cells


def balls(points, radii):
    dist = np.repeat(np.asarray(radii, np.float32)[:, None], len(RAYS), axis=1)
    prob = np.linspace(0.9, 0.6, len(points)).astype(np.float32)
    return Candidates(np.asarray(points, np.int32), prob, quantise(dist, 60.0))


def test_cells_of_balls_are_those_of_scikit_image():
    stars = balls([(20, 20, 16), (20, 22, 31), (34, 30, 24)], [6.0, 4.0, 7.5])
    nuclei, cells = both(stars, grown(stars, 5.0), Box.of_shape((48, 48, 48)))
    expected = expand_labels(nuclei, 5.0)
    gained, theirs = cells[nuclei == 0], expected[nuclei == 0]
    assert (gained > 0).sum() > 4000
    assert (gained == theirs).mean() > 0.98  # corners of 96 rays lie on the ball, faces inside
    both_have = (gained > 0) & (theirs > 0)
    assert (gained == theirs)[both_have].mean() > 0.995


def by_hand(nuclei, stars, expanded, lattice, voxel_um):
    """Every voxel asked of every star, in float64."""
    inverse = np.linalg.inv(np.swapaxes(RAYS.vertices[RAYS.faces], 1, 2))
    voxels = np.argwhere(nuclei == 0)
    least, owner = np.full(len(voxels), 1e9), np.zeros(len(voxels), int)
    unsure = np.zeros(len(voxels), bool)
    for i in range(len(stars)):
        offset = (voxels - np.asarray(lattice.offset)) / np.asarray(lattice.scale) - stars.points[i]
        weights = np.einsum("fkj,nj->nfk", inverse, offset)
        face = weights.min(2).argmax(1)
        chosen = np.take_along_axis(weights, face[:, None, None], 1)[:, 0]
        before = (chosen / stars.dist[i][RAYS.faces[face]]).sum(1)
        after = (chosen / expanded.dist[i][RAYS.faces[face]]).sum(1)
        length = np.linalg.norm(offset * np.asarray(voxel_um), axis=1)
        excess = np.where(after <= 1.0, length * (1.0 - 1.0 / before), 2e9)
        unsure |= (np.abs(after - 1.0) < 1e-5) | (np.abs(excess - least) < 1e-5)
        owner = np.where(excess < least, i + 1, owner)
        least = np.minimum(excess, least)
    cells = nuclei.copy()
    cells[tuple(voxels.T)] = owner
    return cells, voxels[unsure]


@pytest.mark.parametrize(
    ("lattice", "voxel_um"), [(SAME, (1.0, 1.0, 1.0)), (STRETCHED, (2.0, 0.5, 0.5))]
)
def test_every_voxel_goes_to_the_nearest_surface(lattice, voxel_um):
    stars = blobs(RAYS, 14, 1, 20, (3.0, 5.0), seed=4)
    stars = stars.take(stars.order())
    expanded = grown(stars, 1.5, voxel_um)
    nuclei, cells = both(stars, expanded, Box.of_shape((20, 34, 34)), lattice, voxel_um)
    expected, unsure = by_hand(nuclei, stars, expanded, lattice, voxel_um)
    assert (cells > 0).sum() > (nuclei > 0).sum() + 500
    differs = cells != expected
    differs[tuple(unsure.T)] = False
    assert not differs.any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.tuples(st.integers(0, 27), st.integers(1, 20))] * 3))
def test_a_block_shows_what_the_whole_shows(seed, spans):
    stars = blobs(RAYS, 20, 1, 28, (2.0, 6.0), seed=seed)
    expanded = grown(stars, 3.0)
    _, whole = both(stars, expanded, Box.of_shape((28, 28, 28)))
    start = as_zyx(a for a, _ in spans)
    stop = as_zyx(min(28, a + n) for a, n in spans)
    part = Box(start, stop)
    order = np.random.default_rng(seed).permutation(len(stars))
    labels = np.arange(1, len(stars) + 1, dtype=np.uint32)[order]
    cut = np.zeros(part.shape, np.uint32)
    paint(cut, part, stars.take(order), labels, RAYS, SAME)
    paint_around(cut, part, stars.take(order), expanded.take(order), labels, RAYS, SAME, (1.0,) * 3)
    np.testing.assert_array_equal(cut, whole[part.slices])


def test_nuclei_keep_their_voxels_whoever_is_likelier():
    stars = balls([(16, 16, 12), (16, 16, 22)], [6.0, 3.0])  # the large one is the likelier
    nuclei, cells = both(stars, grown(stars, 6.0), Box.of_shape((32, 32, 36)))
    np.testing.assert_array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
    assert (cells == 2).sum() > 4 * (nuclei == 2).sum()


def test_nobody_and_nowhere_change_nothing():
    stars = balls([(16, 16, 12)], [6.0])
    out = np.zeros((4, 4, 4), np.uint32)
    far = Box((90, 90, 90), (94, 94, 94))
    labels = np.ones(1, np.uint32)
    paint_around(out, far, stars, grown(stars, 3.0), labels, RAYS, SAME, (1.0, 1.0, 1.0))
    none = Candidates.empty(len(RAYS))
    paint_around(out, far, none, none, labels[:0], RAYS, SAME, (1.0, 1.0, 1.0))
    assert not out.any()


def test_it_works_on_a_view():
    stars = balls([(8, 8, 8)], [3.0])
    box = Box.of_shape((16, 16, 16))
    _, expected = both(stars, grown(stars, 2.0), box)
    labels = np.ones(1, np.uint32)
    room = np.zeros((16, 16, 32), np.uint32)
    view = room[:, :, ::2]
    paint(view, box, stars, labels, RAYS, SAME)
    paint_around(view, box, stars, grown(stars, 2.0), labels, RAYS, SAME, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(view, expected)
