"""Label volumes that know nothing of a grid of blocks, and the same with the grid's trace."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from anystar_batch.report.profiles import Profiles
from anystar_batch.report.seams import BorderGrid, seam_tests


def balls(shape, count, seed, radius=(3.0, 5.0)):
    """Balls anywhere, where there is room; drawn in their boxes only: fast."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for number in range(1, count + 1):
        r = rng.uniform(*radius)
        centre = rng.uniform(0, shape)
        start = np.maximum(np.ceil(centre - r), 0).astype(int)
        stop = np.minimum(np.floor(centre + r) + 1, shape).astype(int)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        at = np.ogrid[box]
        inside = sum((a - c) ** 2 for a, c in zip(at, centre, strict=True)) <= r**2
        if inside.any() and not labels[box].any():
            labels[box][inside] = number
    return labels


def cut(labels, step):
    """The same labels, cut at every border of blocks: labelled block by block, never joined."""
    blocks = [np.arange(n) // step for n in labels.shape]
    counts = [int(b[-1]) + 1 for b in blocks]
    block = (blocks[0][:, None, None] * counts[1] + blocks[1][:, None]) * counts[2] + blocks[2]
    named = labels.astype(np.int64) * int(np.prod(counts)) + block
    found = labels > 0
    out = np.zeros(labels.shape, np.uint32)
    out[found] = np.unique(named[found], return_inverse=True)[1] + 1
    return out


def glued(labels, step):
    """The same labels, all that touch across a border of blocks made one: the usual repair."""
    pairs = []
    for axis, n in enumerate(labels.shape):
        moved = np.moveaxis(labels, axis, 0)
        for edge in range(step, n, step):
            one, two = moved[edge - 1].ravel(), moved[edge].ravel()
            both = (one > 0) & (two > 0)
            pairs.append(np.stack([one[both], two[both]], axis=1))
    return united(labels, np.concatenate(pairs))


def united(labels, pairs):
    """The same labels, one number for all that pairs [n, 2] connect."""
    n = int(max(labels.max(), pairs.max(initial=0))) + 1
    graph = sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    names = (csgraph.connected_components(graph, directed=False)[1] + 1).astype(np.uint32)
    names[0] = 0
    return names[labels]


def rows(labels):
    """The columns of the table that a seam check needs, by code that shares nothing with ours."""
    at = np.nonzero(labels)
    named, count = np.unique(labels[at], return_counts=True)
    boxes = ndimage.find_objects(labels.astype(np.int32))
    found = {"num_voxels": count.astype(np.float64)}
    for a, name in enumerate("zyx"):
        found[f"centroid_{name}"] = np.bincount(labels[at], weights=at[a])[named] / count
        for side in ("start", "stop"):
            key = f"bbox_{name}_{'min' if side == 'start' else 'max'}"
            found[key] = np.array([float(getattr(boxes[n - 1][a], side)) for n in named])
    return found


def grid(step, name="blocks"):
    """Planes at every multiple of a step."""
    return BorderGrid(name, (float(step),) * 3, (float(step),) * 3)


def checked(labels, grids, period=(2.0, 2.0, 2.0)):
    """What the seam check says of a label volume."""
    found = rows(labels)
    profiles = Profiles.empty(labels.shape)
    profiles.add(found)
    extent = [float((found[f"bbox_{a}_max"] - found[f"bbox_{a}_min"]).mean()) for a in "zyx"]
    return seam_tests(profiles, grids, tuple(extent), period)
