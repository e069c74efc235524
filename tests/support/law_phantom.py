"""The phantom, the predictor and the comparison of the law tests: one place, many processes."""

import hashlib
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.parsing import Quantity
from tests.support.fakes import (
    TruthPredictor,
    make_model,
    mean_level,
    random_ellipsoids,
    write_image,
)

SHAPE = (61, 83, 97)
"""No block divides it, nor does a tile or a chunk."""


@lru_cache(maxsize=1)
def law_truth():
    """Crowded: objects overlap, so suppression decides and chains cross blocks."""
    return random_ellipsoids(SHAPE, 220, 7, radius=(3.5, 8.0))


def law_model():
    return make_model(tile=32, context=8, diameter=12.0, max_radius=24.0)


def law_factory():
    return TruthPredictor(law_truth(), core=0.7, wobble=0.5, ties=True)


def law_config(image, block_shape=None, **run):
    return SegmentConfig(
        image=str(image),
        result=ResultConfig(diameter=Quantity(6.0, "um")),
        run=RunConfig(block_shape=block_shape, memory=6 * 10**9, **run),
    )


def write_law_image(path, dtype=np.uint16, version="0.5", shards=None):
    """A pyramid of three levels; channel 1 is float-like noise for the intensity columns."""
    truth = law_truth()
    base = truth.image(dtype)
    if np.issubdtype(dtype, np.floating):
        base = base * np.asarray(1.37, dtype) + np.asarray(0.001, dtype)
    levels = [base]
    for _ in range(2):
        levels.append(mean_level(levels[-1], (1, 2, 2)))
    return write_image(
        path,
        levels,
        version=version,
        chunks=(32, 32, 32),
        shards=shards,
        scale=(0.5, 0.5, 0.5),
    )


def digests(image, label="anystar"):
    """SHA-256 of every file of the label, and of the table."""
    image = Path(image)
    root = image / "labels" / label
    found = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
    stem = image.name.removesuffix(".ome.zarr")
    table = image.parent / f"{stem}.{label}.csv"
    found["CSV"] = hashlib.sha256(table.read_bytes()).hexdigest()
    return found


def copy_of(image, folder):
    """Copy an image alone, without labels, into another folder; return where it is."""
    target = Path(folder) / Path(image).name
    shutil.copytree(image, target, ignore=shutil.ignore_patterns("labels"))
    return target
