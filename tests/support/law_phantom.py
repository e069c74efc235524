"""The phantom, the predictor and the comparison of the law tests: one place, many processes."""

import hashlib
import json
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.network.model import refiner_info
from anystar_batch.network.refiner import FORMAT, SMALL, from_arrays, shapes_of
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


MOVED = {"outline": 0.3, "expand": Quantity(1.5, "um")}
"""Surfaces put elsewhere, and moved outward."""


@lru_cache(maxsize=1)
def law_truth():
    """Crowded: objects overlap, so suppression decides and chains cross blocks."""
    return random_ellipsoids(SHAPE, 220, 7, radius=(3.5, 8.0))


def law_model():
    return make_model(tile=32, context=8, diameter=12.0, max_radius=24.0)


def law_refiner(folder, seed=5, quality_cut=0.0, has_small=True):
    """Write a refiner of random weights into a folder, and return what a model says of it."""
    rng = np.random.default_rng(seed)
    shapes = shapes_of((12, 16, 16, 48, 32, 1))
    arrays = {n: rng.normal(0, 0.1, shape).astype(np.float32) for n, shape in shapes.items()}
    arrays["factor_bias"] += np.float32(0.4)  # larger stars: some become duplicates
    for name, shape in shapes_of((8, 8, 8, 24, 16, 1)).items() if has_small else ():
        arrays[SMALL + name] = rng.normal(0, 0.1, shape).astype(np.float32)
    refiner = from_arrays(arrays, quality_cut)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "refiner.npz", **arrays)
    described = {"format": FORMAT, "quality_cut": quality_cut, "arrays_sha256": refiner.sha256}
    (folder / "refiner.json").write_text(json.dumps(described))
    return refiner_info(folder)


def refined_model(folder, **options):
    """The law's model, with a second look."""
    return replace(law_model(), refiner=law_refiner(folder, **options))


def refined_config(image, block_shape=None, **run):
    base = law_config(image, block_shape, **run)
    return replace(base, result=replace(base.result, refine="on"))


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
