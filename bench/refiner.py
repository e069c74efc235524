"""Microseconds an object of the second look: `python -m bench.refiner [--model FOLDER]`.

CPU time of one thread, objects of about 20 voxels across in a volume of 128^3; the best of some
rounds, profiles and network apart, and the network for small objects. Without a refiner in the
folder its arrays are random: the time does not depend on what they hold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anystar_batch.geometry import Box
from anystar_batch.network import profiles as sampled
from anystar_batch.network.refiner import from_arrays, load_refiner, shapes_of
from anystar_batch.network.refiner_kernel import WIDTHS, answer
from anystar_batch.stars.rays import golden_spiral

SHAPE = (128, 128, 128)
STEP = (1.0, 1.0, 1.0)


def best(call: Callable[[], object], objects: int, rounds: int) -> float:
    """Return the least CPU time of a round, microseconds an object."""
    call()
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return 1e6 * min(taken) / objects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/anystar-mix"))
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    refiner = load_refiner(options.model)
    if refiner is None:
        shapes = shapes_of(WIDTHS)
        refiner = from_arrays({k: rng.normal(0, 0.1, s) for k, s in shapes.items()})
    directions = golden_spiral(96).vertices
    image = rng.normal(100, 20, SHAPE).astype(np.float32)
    n = options.objects
    points = rng.uniform(0, 127, (n, 3))
    dist = rng.uniform(8, 12, (n, 96)).astype(np.float32)
    box = Box.of_shape(SHAPE)
    values = np.empty((n, sampled.SAMPLES, sampled.CHANNELS, 96), np.float32)
    scalars = np.empty((n, sampled.SCALARS, 96), np.float32)
    near, (whole, fraction) = sampled.neighbours(directions), sampled.centres(points)
    origin, shape = np.zeros(3, np.int64), np.array(SHAPE)
    found, quality = np.empty_like(dist), np.empty(n, np.float32)
    calls: dict[str, Callable[[], object]] = {
        "all": lambda: refiner.refine(image, box, SHAPE, points, dist, STEP, directions),
        "profiles": lambda: sampled.profiles(
            image, origin, shape, whole, fraction, dist, directions, near, values, scalars
        ),
        "network": lambda: answer(values, scalars, near, refiner.arrays, dist, found, quality),
    }
    if refiner.small is not None:
        small = refiner.small
        calls["small"] = lambda: answer(values, scalars, near, small, dist, found, quality)
    for name, call in calls.items():
        print(f"{name:9s} {best(call, n, options.rounds):7.1f} us an object")


if __name__ == "__main__":
    main()
