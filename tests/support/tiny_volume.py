"""A tiny volume with known objects, and the command over it with a predictor that knows them."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.events import ignore
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline import segment as pipeline
from tests.support.fakes import (
    TruthPredictor,
    make_model,
    mean_level,
    random_ellipsoids,
    write_image,
)

SHAPE = (20, 40, 44)
"""Six tiles and, in the label, one chunk."""


@functools.lru_cache(maxsize=4)
def truth(seed=1):
    return random_ellipsoids(SHAPE, 5, seed, radius=(3.5, 5.5), gap=0.5)


def model(**more):
    return make_model(**{"tile": 16, "context": 8, "diameter": 10.0, "max_radius": 16.0} | more)


def small_image(path, *, levels=2, dtype=np.uint16, **more):
    """Write the volume at half a micrometre a voxel."""
    pyramid = [truth().image(dtype)]
    for _ in range(levels - 1):
        pyramid.append(mean_level(pyramid[-1], (1, 2, 2)))
    options = {"chunks": (16, 16, 16), "scale": (0.5, 0.5, 0.5)} | more
    return write_image(path, pyramid, **options)


def small_series(path, axes="tczyx", times=3, channels=2, **more):
    """Write a series: other objects at every time, other values in every channel."""
    frames = [truth(1 + t).image(np.uint16) for t in range(times)]
    data = np.stack([np.stack([f + 100 * c for c in range(channels)]) for f in frames])
    if "t" not in axes:
        data = data[0]
    if "c" not in axes:
        data = data.take(0, axis=data.ndim - 4)
    stored = [a for a in "tczyx" if a in axes]
    data = data.transpose([stored.index(a) for a in axes])
    chunks = tuple(16 if a in "zyx" else 1 for a in axes)
    return write_image(path, [data], axes=axes, chunks=chunks, scale=(0.5, 0.5, 0.5), **more)


def config(image, *, label="anystar", output=None, stats=None, run=None, **result):
    return SegmentConfig(
        image=str(image),
        label=label,
        output=None if output is None else str(output),
        stats=None if stats is None else str(stats),
        result=ResultConfig(**{"diameter": Quantity(5.0, "um")} | result),
        run=RunConfig(**{"memory": 6 * 10**9, "block_shape": (12, 16, 16)} | (run or {})),
    )


def segment(image, listen=ignore, *, factory=None, engine=None, **options):
    factory = TruthPredictor(truth()) if factory is None else factory
    return pipeline.segment(
        config(image, **options), listen, engine=engine, factory=factory, model=model()
    )


class Spheres:
    """Finds what the image shows: a sphere of the same volume for every bright piece."""

    def __call__(self, *_):
        return self

    def find(self, image, window, core, _prob_thresh):
        pieces, count = ndimage.label(image > 0.5)
        points, dists = [], []
        for n in range(1, count + 1):
            inside = np.argwhere(pieces == n)
            point = np.rint((inside.mean(axis=0) + window.start) / 2).astype(int) * 2
            if len(inside) > 30 and core.contains(tuple(point)):
                points.append(point)
                dists.append(np.full(96, (3 * len(inside) / (4 * np.pi)) ** (1 / 3)))
        return (
            np.asarray(points, np.int32).reshape(-1, 3),
            np.full(len(points), 0.9, np.float32),
            np.asarray(dists, np.float32).reshape(-1, 96),
        )


def rows(table):
    with Path(table).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def snapshot(folder):
    """Every path below a folder with kind, size and time: what any write would change."""
    found = {}
    for path in [Path(folder), *sorted(Path(folder).rglob("*"))]:
        status = path.stat()
        found[str(path)] = (path.is_dir(), status.st_size, status.st_mtime_ns)
    return found


def contents(folder):
    """Every file below a folder with its bytes."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


def edit_json(path, change):
    document = json.loads(Path(path).read_text())
    change(document)
    Path(path).write_text(json.dumps(document))
