"""Does the seam check see a trace, and only a trace? `python -m bench.seams [--phantoms 20]`.

Crowded phantoms, whose true objects a predictor finds densely, are labelled in six ways::

    ours        the command itself, in blocks of 64 voxels: what its run record says
    unjoined    every block suppresses its own candidates and paints its own voxels
    doubled     every block suppresses its own candidates; all that survive are painted
    touching    unjoined, then pieces that touch across a face of blocks become one
    overlap 6   blocks that share 6 voxels, joined where their objects agree in them
    overlap 16  the same with 16, more than an object

The second and third are what a program without stitching gives, the last three usual repairs.
Printed is the p of every phantom: by the report's check (the smallest of its grids) for the first
three, and by `anystar-batch seamtest --tile 64 64 64` for all. A trace is reported below 0.001.
`--calibrate 200` tells instead how often volumes that never knew tiles are reported.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.geometry import ZYX, Box, as_zyx, grid_box, grid_shape, iter_grid
from anystar_batch.measure.matching import match, scores
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.seamtest import SeamtestConfig, seamtest
from anystar_batch.pipeline.segment import segment
from anystar_batch.pipeline.tile_grid import TileGrid
from anystar_batch.report.seams import ALPHA, BorderGrid
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.polyhedra import IDENTITY
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral
from anystar_batch.stars.suppress import suppress
from tests.support.dense_labels import cells
from tests.support.fakes import (
    Ellipsoids,
    TruthPredictor,
    make_model,
    random_ellipsoids,
    write_image,
)
from tests.support.seam_volumes import balls, checked, cut, glued, united

SHAPE = (128, 192, 192)
STEP = (64, 64, 64)
COUNT = 1300
RADIUS = (3.5, 7.0)
RAYS = golden_spiral(96)


@dataclass(frozen=True)
class Near(TruthPredictor):
    """The same, but asks only about objects that may have a candidate in the box: fast."""

    def find(
        self, image: NDArray[np.float32], window: Box, core: Box, prob_thresh: float
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Return points, probabilities and distances."""
        centres = np.array(self.truth.centres)
        low, high = (np.array(v) for v in (core.start, core.stop))
        near = ((centres > low - RADIUS[1]) & (centres < high + RADIUS[1])).all(axis=1)
        few = Ellipsoids(
            self.truth.shape,
            tuple(c for c, n in zip(self.truth.centres, near, strict=True) if n),
            tuple(r for r, n in zip(self.truth.radii, near, strict=True) if n),
        )
        return TruthPredictor(few, core=self.core, wobble=self.wobble).find(
            image, window, core, prob_thresh
        )


def predictor(seed: int) -> Near:
    """Overlapping objects, found from many points each, with errors."""
    return Near(random_ellipsoids(SHAPE, COUNT, seed, radius=RADIUS), core=0.7, wobble=0.3)


def ours(finder: TruthPredictor, folder: Path) -> dict[str, Any]:
    """Run the command; return its run record."""
    image = write_image(folder / "a.zarr", [np.arange(SHAPE[2]) + np.zeros(SHAPE, np.uint16)],
                        chunks=STEP)  # fmt: skip
    config = SegmentConfig(
        image=str(image),
        result=ResultConfig(diameter=Quantity(12.0, "um")),
        run=RunConfig(block_shape=STEP, memory=6 * 10**9, report=False),
    )
    segment(config, factory=finder, model=make_model(tile=STEP[0]))
    record: dict[str, Any] = json.loads((folder / "a.anystar.run.json").read_text())
    return record


def per_block(finder: TruthPredictor) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Suppress block by block; return the labels unjoined and doubled."""
    whole, parts = Box.of_shape(SHAPE), []
    unjoined, doubled = np.zeros(SHAPE, np.uint32), np.zeros(SHAPE, np.uint32)
    used = 0
    for index in iter_grid(grid_shape(SHAPE, STEP)):
        box = grid_box(index, STEP, SHAPE)
        points, prob, dist = finder.find(np.zeros(STEP, np.float32), box, box, 0.5)
        own = Candidates(points, prob, quantise(dist, 24.0))
        parts.append(own.take(suppress(own, RAYS, 0.3)))
        names = np.arange(used + 1, used + 1 + len(parts[-1]), dtype=np.uint32)
        used += len(names)
        paint(unjoined[box.slices], box, parts[-1], names, RAYS, IDENTITY)
    survivors = Candidates.concatenate(parts, len(RAYS))
    names = np.arange(1, used + 1, dtype=np.uint32)
    paint(doubled, whole, survivors, names, RAYS, IDENTITY)
    return unjoined, doubled


def least(labels: NDArray[np.uint32], borders: dict[str, Any]) -> float:
    """Return the smallest p of the grids of a run record."""
    grids = [BorderGrid(g["name"], tuple(g["step"]), tuple(g["first"])) for g in borders["grids"]]
    found = checked(labels, grids, tuple(borders["period"]))
    return min(one.p for one in found if one.p is not None)


def overlapped(finder: TruthPredictor, margin: int) -> NDArray[np.uint32]:
    """Tiles that share two margins, joined where their objects agree there (IoU 0.5 or more)."""
    labels, used = np.zeros(SHAPE, np.uint32), 0
    tiles: dict[ZYX, tuple[Box, NDArray[np.uint32]]] = {}
    pairs = [np.zeros((0, 2), np.uint32)]
    for index in iter_grid(grid_shape(SHAPE, STEP)):
        core = grid_box(index, STEP, SHAPE)
        box = core.grow((margin,) * 3).intersect(Box.of_shape(SHAPE))
        points, prob, dist = finder.find(np.zeros(box.shape, np.float32), box, box, 0.5)
        own = Candidates(points, prob, quantise(dist, 24.0))
        own = own.take(suppress(own, RAYS, 0.3))
        names = np.arange(used + 1, used + 1 + len(own), dtype=np.uint32)
        used += len(names)
        tile = np.zeros(box.shape, np.uint32)
        paint(tile, box, own, names, RAYS, IDENTITY)
        labels[core.slices] = tile[core.relative_to(box.start).slices]
        for axis in range(3):
            before = tiles.get(as_zyx(i - (a == axis) for a, i in enumerate(index)))
            if before is not None:
                shared = box.intersect(before[0])
                pairs.append(
                    agreeing(
                        before[1][shared.relative_to(before[0].start).slices],
                        tile[shared.relative_to(box.start).slices],
                    )
                )
        tiles[index] = box, tile
    return united(labels, np.concatenate(pairs))


def agreeing(one: NDArray[np.uint32], two: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Pairs of objects of two tiles that agree in the voxels they share, [n, 2]."""
    (score,) = scores(match(one, two), (0.5,))
    return np.stack([score.true, score.found], axis=1).astype(np.uint32)


def by_command(labels: NDArray[np.uint32], folder: Path) -> float:
    """Return the p of `anystar-batch seamtest LABELS --tile 64 64 64`."""
    path = write_image(folder / "labels.zarr", [labels], chunks=(32, 64, 64))
    found = seamtest(SeamtestConfig(str(path), TileGrid((64.0, 64.0, 64.0))))
    shutil.rmtree(path)
    return math.nan if found.p is None else found.p


def calibration(count: int) -> None:
    """Print how often volumes are reported: that never knew tiles, and in which few were cut."""
    wide, grid = (96, 128, 128), 32
    made: dict[str, Callable[[int], NDArray[np.uint32]]] = {
        "balls apart": lambda seed: balls(wide, 900, seed, radius=(2.5, 4.5)),
        "70 balls": lambda seed: balls(wide, 70, seed, radius=(2.5, 4.5)),
        "cells that touch": lambda seed: crowd(wide, seed),
        "cells, enlarged twice": lambda seed: enlarged(crowd((48, 64, 64), seed), 2),
        "cells, enlarged 1.7 times": lambda seed: enlarged(crowd((56, 76, 76), seed), 1.7),
        "70 balls, all cut": lambda seed: cut(made["70 balls"](seed), grid),
        "balls apart, a tenth cut": lambda seed: partly_cut(made["balls apart"](seed), grid, 0.1),
        "cells, one in fifty cut": lambda seed: partly_cut(crowd(wide, seed), grid, 0.02),
        "cells, one in ten cut": lambda seed: partly_cut(crowd(wide, seed), grid, 0.1),
        "cells, a quarter cut": lambda seed: partly_cut(crowd(wide, seed), grid, 0.25),
    }
    print("| volumes | p < 0.05 | p < 0.01 | p < 0.001 | least p |\n|---|---|---|---|---|")
    for name, make in made.items():
        p = []
        for seed in range(count):
            with tempfile.TemporaryDirectory() as folder:
                path = write_image(Path(folder, "a.zarr"), [make(seed)], chunks=(64, 64, 64))
                config = SeamtestConfig(str(path), TileGrid((float(grid),) * 3))
                found = seamtest(config).p
                p.append(math.nan if found is None else found)
        below = " | ".join(f"{(np.array(p) < a).sum()} of {count}" for a in (0.05, 0.01, 0.001))
        print(f"| {name} | {below} | {np.nanmin(p):.2g} |", flush=True)


def partly_cut(labels: NDArray[np.uint32], step: int, share: float) -> NDArray[np.uint32]:
    """The same labels, some objects cut at all planes that they cross."""
    names = np.random.default_rng(int(labels.max())).random(int(labels.max()) + 1) < share
    pieces = cut(labels, step)
    return np.where(names[labels], pieces + labels.max(), labels).astype(np.uint32)


def crowd(shape: ZYX, seed: int) -> NDArray[np.uint32]:
    """Cells that touch, about 9 voxels wide."""
    count = int(np.prod(shape)) // 700
    return cells(np.random.default_rng(seed), shape, count, 6.0).astype(np.uint32)


def enlarged(labels: NDArray[np.uint32], factor: float) -> NDArray[np.uint32]:
    """The same labels on a finer grid, nearest voxel."""
    at = [np.floor((np.arange(int(n * factor)) + 0.5) / factor).astype(int) for n in labels.shape]
    return labels[np.ix_(*at)]


def main() -> None:
    """Print one row a phantom and how many were reported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=20)
    parser.add_argument("--calibrate", type=int, help="volumes without tiles, instead")
    options = parser.parse_args()
    if options.calibrate:
        calibration(options.calibrate)
        return
    count = options.phantoms
    heads = ("ours", "unjoined", "doubled", "ours", "unjoined", "doubled", "touching",
             "overlap 6", "overlap 16")  # fmt: skip
    print("p by the report's table (three), by the command (six)\n")
    print(f"| phantom | instances | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}")
    rows = []
    for seed in range(count):
        finder = predictor(seed)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            record = ours(finder, folder)
            source = ImageReader(read_image(f"{folder}/a.zarr/labels/anystar"))
            mine = source.read_box(0, 0, 0, Box.of_shape(SHAPE))
            unjoined, doubled = per_block(finder)
            ways = (mine, unjoined, doubled, glued(unjoined, STEP[0]), overlapped(finder, 3),
                    overlapped(finder, 8))  # fmt: skip
            rows.append(
                (
                    min(one["p"] for one in record["checks"]["seams"] if one["p"] is not None),
                    least(unjoined, record["borders"]),
                    least(doubled, record["borders"]),
                    *(by_command(labels, folder) for labels in ways),
                )
            )
        shown = " | ".join(f"{p:.2g}" for p in rows[-1])
        print(f"| {seed} | {record['summary']['instances']} | {shown} |", flush=True)
    for alpha in (ALPHA, 0.01):
        reported = (np.array(rows) < alpha).sum(axis=0)
        print(f"p < {alpha:g}: " + ", ".join(f"{n} of {count}" for n in reported))


if __name__ == "__main__":
    main()
