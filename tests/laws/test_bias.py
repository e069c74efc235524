"""No bias: a perfect predictor through the real pipeline gives back the truth, by every path.

Two predictors. `Perfect` knows the truth and answers from coordinates: what it says goes wrong only
if working voxels are not where the pipeline says. `Blobs` knows nothing and measures what the tile
shows: it goes wrong if the image that the network sees lies elsewhere than its coordinates.

The map from working voxels to level 0 is written down here from first principles::

    area average by F     voxel v shows level-0 voxels v F .. v F + F - 1: centre v F + (F - 1) / 2
    stride by F           voxel v is level-0 voxel v F, or v F + F - 1
    working voxels        edges of the volumes coincide: v = (u + 1 / 2) zoom - 1 / 2
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import zarr
from scipy import ndimage

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.segment import segment
from anystar_batch.stars.polyhedra import volumes
from tests.support.blobs import RAYS, Blobs, soft_image
from tests.support.fakes import (
    Ellipsoids,
    TruthPredictor,
    make_model,
    mean_level,
    random_ellipsoids,
    write_image,
)

CENTROID_LAW = 0.1
"""Level-0 voxels."""

VOLUME_LAW = 0.03


@dataclass(frozen=True)
class Case:
    """One path through the pipeline.

    Parameters
    ----------
    shape : (z, y, x)
        Level 0, voxels.
    voxel : (z, y, x)
        Level-0 voxel, micrometres.
    radius : (least, most)
        Radii of the objects, micrometres.
    working : float
        Wanted working voxel, micrometres.
    factors : (z, y, x)
        From each level to the next.
    level : int
        Level that must be read.
    made : str
        `average`; `stride` takes the first voxel of each window, `last` the last, as old writers
        that resize to the nearest neighbour do.
    is_declared : bool
        Whether the levels declare their translation.
    grid : (z, y, x)
        Grid of the network.
    tile, context : int
        Working voxels.
    count : int
        Objects.
    """

    shape: tuple[int, int, int]
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)
    radius: tuple[float, float] = (4.5, 7.0)
    working: float = 1.0
    factors: tuple[int, int, int] = (2, 2, 2)
    level: int = 0
    made: str = "average"
    is_declared: bool = False
    grid: tuple[int, int, int] = (2, 2, 2)
    tile: int = 32
    context: int = 16
    count: int = 12
    levels: int = 1
    origin: str = field(default="level 0")

    @property
    def step(self):
        """Level-0 voxels per voxel of the level that is read."""
        return np.asarray(self.factors, float) ** self.level

    @property
    def zoom(self):
        """Level voxels per working voxel, 1 within 10 %."""
        ratio = self.working / (np.asarray(self.voxel) * self.step)
        return np.where((ratio <= 1.1) & (ratio >= 1 / 1.1), 1.0, ratio)

    @property
    def first_voxel(self):
        """Level-0 coordinate of the centre of the level's voxel 0."""
        return self.centre_of(self.level)

    def centre_of(self, level):
        """Level-0 coordinate of the centre of voxel 0 of a level."""
        if self.made == "stride":
            return np.zeros(3)
        if self.made == "last":
            return np.asarray(self.factors, float) ** level - 1
        return (np.asarray(self.factors, float) ** level - 1) / 2

    def to_level0(self):
        """Scale and offset of the map from working voxels to level 0."""
        scale = self.zoom * self.step
        offset = (0.5 * self.zoom - 0.5) * self.step + self.first_voxel
        return tuple(map(float, scale)), tuple(map(float, offset))

    def pyramid(self, image):
        """Every level, level 0 first."""
        levels = [image]
        for _ in range(1, self.levels):
            z, y, x = self.factors
            if self.made == "stride":
                levels.append(levels[-1][::z, ::y, ::x])
            elif self.made == "last":
                levels.append(levels[-1][z - 1 :: z, y - 1 :: y, x - 1 :: x])
            else:
                levels.append(mean_level(levels[-1], self.factors))
        return levels

    def truth(self, seed, gap, margin=(0, 0, 0)):
        """Ellipsoids with centres between voxels, apart from one another and from the border."""
        inner = tuple(n - 2 * m for n, m in zip(self.shape, margin, strict=True))
        found = random_ellipsoids(
            inner, self.count, seed, radius=self.radius, gap=gap, scale=self.voxel
        )
        centres = tuple(tuple(np.add(centre, margin).tolist()) for centre in found.centres)
        return Ellipsoids(self.shape, centres, found.radii)


@dataclass(frozen=True)
class Perfect:
    """The truth, as polyhedra of the ellipsoids' volume."""

    truth: TruthPredictor

    def __call__(self, _model, _threads):
        return self

    def find(self, image, window, core, prob_thresh):
        points, prob, dist = self.truth.find(image, window, core, prob_thresh)
        if len(points) == 0:
            return points, prob, dist
        at = points * np.asarray(self.truth.scale) + np.asarray(self.truth.offset)
        centres, radii = np.asarray(self.truth.truth.centres), np.asarray(self.truth.truth.radii)
        away = (((at[:, None] - centres) / radii) ** 2).sum(2)
        wanted = 4 / 3 * np.pi * radii.prod(1)[away.argmin(1)] / np.prod(self.truth.scale)
        gain = np.cbrt(wanted / volumes(dist, RAYS))
        return points, prob, (dist * gain[:, None]).astype(np.float32)


def run(tmp_path, case, truth, image, factory):
    """Segment, and compare with the truth: centroid errors [n, 3], volume errors [n]."""
    levels = case.pyramid(image)
    translations = None
    if case.is_declared:
        translations = [np.asarray(case.voxel) * case.centre_of(k) for k in range(case.levels)]
        translations = [tuple(map(float, t)) for t in translations]
    path = write_image(
        tmp_path / "phantom.ome.zarr",
        levels,
        chunks=(32, 32, 32),
        scale=case.voxel,
        translations=translations,
        # Sizes are odd: the ratio of the shapes is not the factor.
        ratio=2 if case.factors == (2, 2, 2) else None,
    )
    model = make_model(tile=case.tile, context=case.context, grid=case.grid, diameter=12.0)
    config = SegmentConfig(
        image=path,
        result=ResultConfig(diameter=Quantity(12.0 * case.working, "um")),
        run=RunConfig(block_shape=(64, 64, 64), memory=4 * 10**9),
    )
    segment(config, factory=factory, model=model)
    label = zarr.open_group(f"{path}/labels/anystar", mode="r")
    decided = label.attrs["anystar-batch"]["decided"]
    assert decided["level"] == case.level
    assert decided["zoom"] == pytest.approx(case.zoom)
    assert decided["level_origin"] == case.origin
    return compare(truth.labels(), label["0"][...])


def compare(truth, found):
    """Errors of every true object against the label that covers most of it."""
    shifts, ratios = [], []
    for n, where in enumerate(ndimage.find_objects(truth)):
        mine = truth[where] == n + 1
        label = np.bincount(found[where][mine]).argmax()
        assert label > 0, f"object {n + 1} was not found"
        shift = np.mean(np.argwhere(found == label), 0) - np.mean(np.argwhere(truth == n + 1), 0)
        shifts.append(shift)
        ratios.append((found == label).sum() / mine.sum())
    assert len(np.unique(found)) - 1 == len(shifts)
    return np.asarray(shifts), np.asarray(ratios)


def check(shifts, ratios):
    """The law, with the errors in the message."""
    centroid = float(np.median(np.linalg.norm(shifts, axis=1)))
    volume = float(np.median(np.abs(ratios - 1)))
    assert centroid < CENTROID_LAW, shifts
    assert volume < VOLUME_LAW, ratios


FAR = {"levels": 3, "radius": (9.0, 12.0), "working": 2.0, "level": 1, "shape": (65, 83, 97)}
FURTHER = {"levels": 3, "radius": (9.0, 12.0), "working": 4.0, "level": 2, "shape": (65, 83, 97)}
FLAT = {"voxel": (2.0, 0.5, 0.5), "levels": 3, "factors": (1, 2, 2), "shape": (31, 128, 160)}

TRUTH_CASES = {
    "native scale": Case((61, 83, 97)),
    "native scale, grid 1": Case((45, 61, 67), grid=(1, 1, 1), count=8),
    "native scale, grid 1 2 2": Case((45, 61, 67), grid=(1, 2, 2), count=8),
    "native scale, one tile an axis": Case((33, 41, 45), radius=(4.0, 5.5), tile=64, count=5),
    "native scale, thin": Case((13, 83, 97), radius=(3.2, 4.0)),
    "up-sampled 0.7": Case((37, 53, 61), working=0.7, count=8),
    "up-sampled 0.37": Case((23, 31, 35), working=0.37, radius=(3.0, 4.5), count=3, tile=64),
    "down-sampled 1.3": Case((61, 83, 97), working=1.3),
    "down-sampled 2.6": Case((61, 83, 97), working=2.6, radius=(7.0, 9.0)),
    "within 10 %": Case((45, 61, 67), working=1.08, count=8),
    "level 1, average": Case(**FAR, origin="area average"),
    "level 1, stride": Case(**FAR, made="stride", origin="stride"),
    "level 1, nearest": Case(**FAR, made="last", origin="stride"),
    "level 1, declared average": Case(**FAR, is_declared=True, origin="declared"),
    "level 1, declared stride": Case(**FAR, made="stride", is_declared=True, origin="declared"),
    "level 2, average": Case(**FURTHER, origin="area average"),
    "level 2, stride": Case(**FURTHER, made="stride", origin="stride"),
    "level 2, nearest": Case(**FURTHER, made="last", origin="stride"),
    "level 2, declared average": Case(**FURTHER, is_declared=True, origin="declared"),
    "level 2, declared stride": Case(**FURTHER, made="stride", is_declared=True, origin="declared"),
    "level 1, average, zoom 1.35": Case(**FAR | {"working": 2.7}, origin="area average"),
    "level 1, stride, zoom 1.35": Case(**FAR | {"working": 2.7}, made="stride", origin="stride"),
    "anisotropic, up-sampled z": Case(**FLAT, working=0.5, radius=(6.0, 8.0), count=8),
    "anisotropic, level 1": Case(
        **FLAT, working=1.0, radius=(6.0, 8.0), level=1, count=8, origin="area average"
    ),
    "anisotropic, level 2": Case(
        **FLAT, working=2.1, radius=(9.0, 11.0), level=2, count=6, origin="area average"
    ),
    "anisotropic, level 2, stride, zoom 1.45": Case(
        **FLAT | {"grid": (1, 1, 1), "made": "stride", "origin": "stride"},
        working=2.9,
        radius=(11.0, 13.0),
        level=2,
        count=5,
    ),
}


@pytest.mark.parametrize("name", TRUTH_CASES)
def test_the_truth_comes_back_through(name, tmp_path):
    case = TRUTH_CASES[name]
    truth = case.truth(11, 1.0)
    scale, offset = case.to_level0()
    factory = Perfect(TruthPredictor(truth, scale, offset, case.grid, core=0.6))
    shifts, ratios = run(tmp_path, case, truth, truth.image(), factory)
    check(shifts, ratios)


NEAR = {"radius": (7.0, 9.0), "context": 32, "count": 6}
FAR = {"levels": 3, "radius": (15.0, 17.0), "working": 2.0, "level": 1, "shape": (81, 115, 131)}
FAR |= {"context": 32, "count": 5}
FURTHER = {"levels": 3, "radius": (29.0, 32.0), "working": 4.0, "level": 2, "context": 32}
FURTHER |= {"shape": (97, 163, 195), "count": 3, "grid": (1, 1, 1)}
FLAT |= {"context": 32, "shape": (31, 224, 224), "count": 5, "grid": (1, 1, 1)}

IMAGE_CASES = {
    "native scale": Case((61, 75, 83), **NEAR),
    "native scale, grid 1": Case((61, 75, 83), **NEAR, grid=(1, 1, 1)),
    "native scale, grid 1 2 2": Case((61, 75, 83), **NEAR, grid=(1, 2, 2)),
    "native scale, one tile an axis": Case((41, 53, 61), **NEAR | {"count": 3}, tile=64),
    "up-sampled 0.7": Case((45, 61, 67), **NEAR | {"count": 4}, working=0.7),
    "down-sampled 1.3": Case((61, 75, 83), **NEAR | {"radius": (9.0, 11.0)}, working=1.3),
    "down-sampled 2.6": Case(
        (80, 95, 107), **NEAR | {"radius": (18.0, 20.0), "count": 3}, working=2.6
    ),
    "level 1, average": Case(**FAR, origin="area average"),
    "level 1, stride": Case(**FAR, made="stride", origin="stride"),
    "level 1, nearest": Case(**FAR, made="last", origin="stride"),
    "level 1, declared average": Case(**FAR, is_declared=True, origin="declared"),
    "level 1, declared stride": Case(**FAR, made="stride", is_declared=True, origin="declared"),
    "level 2, average": Case(**FURTHER, origin="area average"),
    "level 2, stride": Case(**FURTHER, made="stride", origin="stride"),
    "level 1, average, zoom 1.35": Case(
        **FAR | {"working": 2.7, "radius": (19.0, 21.0), "count": 3}, origin="area average"
    ),
    "anisotropic, up-sampled z": Case(
        **FLAT | {"shape": (27, 96, 112), "count": 4}, working=0.6, radius=(8.0, 9.0)
    ),
    "anisotropic, level 1": Case(
        **FLAT, working=1.0, radius=(8.0, 10.0), level=1, origin="area average"
    ),
    "anisotropic, level 2": Case(
        **FLAT, working=2.1, radius=(15.0, 16.0), level=2, origin="area average"
    ),
    "anisotropic, level 2, stride": Case(
        **FLAT, working=2.1, radius=(15.0, 16.0), level=2, made="stride", origin="stride"
    ),
}


@pytest.mark.parametrize("name", IMAGE_CASES)
def test_what_the_network_sees_lies_where_it_is_said_to_lie(name, tmp_path):
    case = IMAGE_CASES[name]
    # Beyond the border the image is mirrored: an object that touches it would meet itself.
    margin = tuple(2 * int(step) for step in case.step)
    truth = case.truth(5, 6.0 * case.working, margin)
    image = soft_image(truth, case.voxel, width=2.0 * case.working)
    shifts, ratios = run(tmp_path, case, truth, image, Blobs(case.grid, reach=24.0))
    check(shifts, ratios)
