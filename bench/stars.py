"""Ours against StarDist's C++, back to back, one thread each: `python -m bench.stars`.

Both get the same candidates in the same order (ranks as scores: StarDist's sort is unstable among
ties). CPU time; every repeat times StarDist and ours in turn, and the ratio is the median over
repeats. Real objects join if ANYSTAR_BATCH_DATA names the folder of the volumes.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when StarDist's library loads

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box, as_zyx
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral
from anystar_batch.stars.suppress import suppress
from tests.support.star_scenes import SAME, blobs, ranks, seen

RAYS = golden_spiral(96)

REAL = {
    "tgmm t0": ("tgmm_mini_drosophila/t0_labels.tif", 0.5),
    "bbbc050 Emb01 t401": ("bbbc050_train/Emb01_t401_labels.tif", 0.6),
    "gonuclear 1135": ("gonuclear_1135_mini/labels.tif", 0.8),
}
"""Label volume, and the probability from which voxels are candidates."""

LATTICES = {
    "same lattice": SAME,
    "z 0.5, xy 2": LatticeMap((0.5, 2.0, 2.0), (-0.25, 0.5, 0.5)),
    "all 1.3": LatticeMap((1.3, 1.3, 1.3), (0.15, 0.15, 0.15)),
}


def seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def paired(
    theirs: Callable[[], Any], ours: Callable[[], Any], repeats: int
) -> tuple[float, float, float]:
    """Median seconds of each, and the median ratio; ours runs often enough to be timed."""
    once = max(seconds(ours), 1e-6)
    rounds = max(1, round(0.1 / once))
    times = [
        (seconds(theirs), seconds(lambda: [ours() for _ in range(rounds)]) / rounds)
        for _ in range(repeats)
    ]
    a, b = np.array(times).T
    return float(np.median(a)), float(np.median(b)), float(np.median(a / b))


def candidate_sets(limit: int) -> dict[str, Candidates]:
    sets = {
        "blobs, r 8-12, 40 each": blobs(RAYS, 60, 40, 130),
        "blobs, r 8-12, 4 each": blobs(RAYS, 500, 4, 240),
        "blobs, r 3-5, 10 each": blobs(RAYS, 250, 10, 90, (3, 5)),
    }
    root = os.environ.get("ANYSTAR_BATCH_DATA")
    if root:
        import tifffile

        for name, (path, share) in REAL.items():
            every = seen(tifffile.imread(Path(root) / path), RAYS, share=share)
            # The nearest to the middle, so that they stay dense.
            apart = np.abs(every.points - np.median(every.points, axis=0)).max(axis=1)
            sets[name] = every.take(np.sort(np.argsort(apart, kind="stable")[:limit]))
    return {name: c.take(np.arange(len(c))[:limit]) for name, c in sets.items()}


def compare_suppression(candidates: Candidates, nms_thresh: float, repeats: int) -> str:
    from stardist.nms import non_maximum_suppression_3d_inds
    from stardist.rays3d import Rays_GoldenSpiral

    scores, n, theirs = ranks(candidates), len(candidates), Rays_GoldenSpiral(96)
    found: dict[str, NDArray[np.bool_]] = {}

    def run_theirs() -> None:
        found["theirs"] = non_maximum_suppression_3d_inds(
            candidates.dist, candidates.points, theirs, scores, thresh=nms_thresh, verbose=0
        )

    def run_ours() -> None:
        found["ours"] = suppress(candidates, RAYS, nms_thresh)

    a, b, ratio = paired(run_theirs, run_ours, repeats)
    differ, kept = np.sum(found["theirs"] != found["ours"]), found["ours"].sum()
    mean = candidates.dist.mean()
    rates = f"{n / a:.0f} | {n / b:.0f} | {ratio:.0f}"
    return f"{n} | {kept} | {mean:.1f} | {nms_thresh} | {rates} | {differ} |"


def compare_painting(stars: Candidates, lattice: LatticeMap, repeats: int) -> str:
    from stardist.geometry import polyhedron_to_label
    from stardist.rays3d import Rays_GoldenSpiral

    n, scores, labels = len(stars), ranks(stars), np.arange(1, len(stars) + 1, dtype=np.uint32)
    scale = np.array(lattice.scale)
    points = stars.points * scale + np.array(lattice.offset)
    box = Box.of_shape(as_zyx(np.ceil(points.max(axis=0) + 16 * scale)))
    stretched, ours = (
        Rays_GoldenSpiral(96).copy(scale=lattice.scale),
        np.zeros(box.shape, np.uint32),
    )
    found: dict[str, NDArray[np.uint16]] = {}

    def run_theirs() -> None:
        found["theirs"] = polyhedron_to_label(
            stars.dist, points, stretched, box.shape, scores, labels=labels, verbose=False
        )

    def run_ours() -> None:
        ours[...] = 0
        paint(ours, box, stars, labels, RAYS, lattice)

    a, b, ratio = paired(run_theirs, run_ours, repeats)
    differ = f"{np.sum(ours != found['theirs'])} / {np.sum(ours > 0)}"
    each = np.sum(ours > 0) / n
    return f"{n} | {each:.0f} | {n / a:.0f} | {n / b:.0f} | {ratio:.0f} | {differ} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1500, help="candidates a set")
    chosen = parser.parse_args()
    sets = candidate_sets(chosen.limit)
    print("| candidates | n | kept | radius | thresh | StarDist /s | ours /s | ratio | differ |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, candidates in sets.items():
        for nms_thresh in (0.3, 0.5):
            line = compare_suppression(candidates, nms_thresh, chosen.repeats)
            print(f"| {name} | {line}", flush=True)
    print("\n| survivors | lattice | n | voxels each | StarDist /s | ours /s | ratio | differ |")
    print("|---|---|---|---|---|---|---|---|")
    for name, candidates in sets.items():
        survivors = candidates.take(suppress(candidates, RAYS, 0.3))
        for lattice_name, lattice in LATTICES.items():
            line = compare_painting(survivors, lattice, chosen.repeats)
            print(f"| {name} | {lattice_name} | {line}", flush=True)


if __name__ == "__main__":
    main()
