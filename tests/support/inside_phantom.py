"""A crowded volume with two organoids in it: one place, many processes."""

from functools import lru_cache

import numpy as np

from anystar_batch.config import Inside, ResultConfig, RunConfig, SegmentConfig
from anystar_batch.parsing import Quantity
from tests.support.fakes import (
    TruthPredictor,
    make_model,
    mean_level,
    random_ellipsoids,
    write_image,
)

SHAPE = (31, 50, 90)
"""No block divides it, nor does a tile or a chunk."""


@lru_cache(maxsize=1)
def inside_truth():
    """Crowded: objects overlap, also across the organoids' borders."""
    return random_ellipsoids(SHAPE, 200, 11, radius=(2.5, 4.5))


def inside_model():
    return make_model(tile=16, context=8, diameter=6.0, max_radius=10.0)


def inside_factory():
    return TruthPredictor(inside_truth(), core=0.7, wobble=0.5, ties=True)


def organoids():
    """Numbers 3 and 7, which touch; far from one end."""
    mask = np.zeros(SHAPE, np.uint16)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    mask[((z - 14) / 13) ** 2 + ((y - 24) / 19) ** 2 + ((x - 20) / 18) ** 2 <= 1] = 3
    mask[((z - 12) / 9) ** 2 + ((y - 30) / 12) ** 2 + ((x - 42) / 9) ** 2 <= 1] = 7
    return mask


def inside_config(image, block_shape=None):
    return SegmentConfig(
        image=str(image),
        result=ResultConfig(diameter=Quantity(3.0, "um"), inside=Inside("organoids")),
        run=RunConfig(block_shape=block_shape, memory=6 * 10**9),
    )


def write_inside_image(path):
    """A pyramid of two levels, with a label of level 0's size."""
    base = inside_truth().image()
    levels = [base, mean_level(base, (1, 2, 2))]
    chunks, scale = (16, 16, 16), (0.5, 0.5, 0.5)
    write_image(path, levels, chunks=chunks, scale=scale)
    write_image(f"{path}/labels/organoids", [organoids()], chunks=chunks, scale=scale)
    return str(path)
