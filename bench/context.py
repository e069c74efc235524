"""What context costs and buys: `python -m bench.context [--size 192]`.

A mosaic of StarDist's test volume is segmented tile by tile with growing context, and once in a
single piece. For each context: computed over useful voxels, and the share of the single piece's
instances that have no match at IoU 0.5 and 0.9, at the same thresholds. Candidates only, in
memory: the blocks of the pipeline add nothing to this, they are exact.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import stardist
import tifffile
from numpy.typing import NDArray

from anystar_batch.geometry import Box, as_zyx, iter_grid
from anystar_batch.network.intensity import limits, normalise
from anystar_batch.network.model import Model, load_model
from anystar_batch.network.predictor import KerasPredictor
from anystar_batch.network.resample import reflected
from anystar_batch.network.tiles import BORDER, TileLattice
from anystar_batch.stages.task import model_rays
from anystar_batch.stars.candidates import Candidates, is_storable, quantise
from anystar_batch.stars.polyhedra import IDENTITY
from anystar_batch.stars.raster import paint
from anystar_batch.stars.suppress import suppress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="anystar-mix")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--tiles", type=int, nargs="*", default=[64, 96, 192])
    parser.add_argument("--contexts", type=int, nargs="*", default=[0, 16, 32, 48])
    options = parser.parse_args()
    model = load_model(options.model)
    predictor = KerasPredictor(model, 2)
    image = mosaic(options.size)
    edge = options.size
    whole = TileLattice((edge,) * 3, (edge,) * 3, (BORDER,) * 3, model.divisor)
    truth = run(model, predictor, image, whole)
    print(f"one piece: {truth.max()} instances")
    print("| tile | context | computed / useful | instances | unmatched at IoU 0.5 | at 0.9 |")
    print("|---|---|---|---|---|---|")
    for tile in options.tiles:
        for context in options.contexts:
            lattice = TileLattice((edge,) * 3, (tile,) * 3, (context,) * 3, model.divisor)
            if lattice.counts == (1, 1, 1):
                continue
            found = run(model, predictor, image, lattice)
            windows = [lattice.window_box(index).size for index in iter_grid(lattice.counts)]
            computed = sum(windows) / edge**3
            missing = " | ".join(f"{unmatched(truth, found, iou):.2%}" for iou in (0.5, 0.9))
            print(
                f"| {tile} | {context} | {computed:.2f} | {found.max()} | {missing} |",
                flush=True,
            )


def mosaic(size: int) -> NDArray[np.float32]:
    """StarDist's test volume, mirrored until it fills a cube."""
    path = Path(stardist.__file__).parent / "data" / "images" / "img3d.tif"
    volume = tifffile.imread(path)
    for axis in range(3):
        index = reflected(np.arange(size), volume.shape[axis])
        volume = np.take(volume, index, axis)
    return normalise(volume, *limits(volume))


def run(
    model: Model, predictor: KerasPredictor, image: NDArray[np.float32], lattice: TileLattice
) -> NDArray[np.uint32]:
    """Labels of the volume, tiles as given, suppression over all."""
    parts = []
    for index in iter_grid(lattice.counts):
        window, core = lattice.window_box(index), lattice.core_box(index)
        tile = image
        for axis in range(3):
            at = np.arange(window.start[axis], window.stop[axis])
            tile = np.take(tile, reflected(at, image.shape[axis]), axis)
        points, prob, dist = predictor.find(tile, window, core, model.prob_thresh)
        fits = is_storable(dist, model.max_radius)
        parts.append(Candidates(points[fits], prob[fits], quantise(dist[fits], model.max_radius)))
    rays = model_rays(model)
    candidates = Candidates.concatenate(parts, len(rays))
    kept = candidates.take(suppress(candidates, rays, model.nms_thresh))
    labels = np.zeros(image.shape, np.uint32)
    numbers = np.arange(1, len(kept) + 1, dtype=np.uint32)
    paint(labels, Box.of_shape(as_zyx(image.shape)), kept, numbers, rays, IDENTITY)
    return labels


def unmatched(truth: NDArray[np.uint32], found: NDArray[np.uint32], least: float) -> float:
    """Share of the instances of `truth` without a partner of at least this IoU."""
    pairs = truth.astype(np.int64) * (int(found.max()) + 1) + found
    values, counts = np.unique(pairs, return_counts=True)
    a, b = values // (int(found.max()) + 1), values % (int(found.max()) + 1)
    size_a, size_b = np.bincount(truth.ravel()), np.bincount(found.ravel())
    both = (a > 0) & (b > 0)
    iou = counts[both] / (size_a[a[both]] + size_b[b[both]] - counts[both])
    present = np.unique(truth[truth > 0])
    matched = np.unique(a[both][iou >= least])
    return 1.0 - len(matched) / max(1, len(present))


if __name__ == "__main__":
    main()
