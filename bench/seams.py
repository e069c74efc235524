"""Does the seam check see a trace, and only a trace? `python -m bench.seams [--phantoms 20]`.

Crowded phantoms, whose true objects a predictor finds densely, are labelled in three ways::

    ours        the command itself, in blocks of 64 voxels: what its run record says
    unjoined    every block suppresses its own candidates and paints its own voxels
    doubled     every block suppresses its own candidates; all that survive are painted

The last two are what a program without stitching gives. Printed is the p of every phantom, the
smallest of its grids; a trace is reported below 0.001.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.geometry import Box, grid_box, grid_shape, iter_grid
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.segment import segment
from anystar_batch.report.seams import ALPHA, BorderGrid
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.polyhedra import IDENTITY
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral
from anystar_batch.stars.suppress import suppress
from tests.support.fakes import (
    Ellipsoids,
    TruthPredictor,
    make_model,
    random_ellipsoids,
    write_image,
)
from tests.support.seam_volumes import checked

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


def main() -> None:
    """Print one row a phantom and how many were reported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phantoms", type=int, default=20)
    count = parser.parse_args().phantoms
    print("| phantom | instances | p, ours | p, unjoined | p, doubled |\n|---|---|---|---|---|")
    rows = []
    for seed in range(count):
        finder = predictor(seed)
        with tempfile.TemporaryDirectory() as folder:
            record = ours(finder, Path(folder))
        mine = min(one["p"] for one in record["checks"]["seams"] if one["p"] is not None)
        rows.append((mine, *(least(labels, record["borders"]) for labels in per_block(finder))))
        shown = " | ".join(f"{p:.2g}" for p in rows[-1])
        print(f"| {seed} | {record['summary']['instances']} | {shown} |", flush=True)
    reported = (np.array(rows) < ALPHA).sum(axis=0)
    print("reported: " + ", ".join(f"{n} of {count}" for n in reported))


if __name__ == "__main__":
    main()
