"""Random crowded label volumes, and what the field's own program says of them."""

import numpy as np
from scipy.spatial import cKDTree


def cells(rng, shape, count, radius):
    """Cells around random points, cut off at a radius: they touch; their labels have gaps."""
    points = rng.uniform(0, shape, (count, 3))
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    distance, nearest = cKDTree(points).query(at)
    names = rng.permutation(5 * count)[:count] + 1
    return np.where(distance <= radius, names[nearest], 0).astype(np.int32)


def moved(rng, labels):
    """The same objects elsewhere, with holes, and with voxels of their neighbours."""
    found = np.roll(labels, rng.integers(-2, 3, 3), (0, 1, 2))
    found = np.where(rng.random(labels.shape) < 0.1, 0, found)
    return np.where(rng.random(labels.shape) < 0.05, np.roll(found, 3, 1), found)


def pair(seed):
    """A true and a found volume: unrelated, moved, or noise, by turns."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(5, 22, 3))
    if seed % 3 == 2:
        shape = (4, 5, 6)
        many = rng.integers(2, 30, 2)
        return tuple(rng.integers(0, n, shape).astype(np.int32) for n in many)
    truth = cells(rng, shape, int(rng.integers(1, 60)), rng.uniform(2, 9))
    if seed % 3 == 1:
        return truth, moved(rng, truth)
    return truth, cells(rng, shape, int(rng.integers(1, 60)), rng.uniform(2, 9))
