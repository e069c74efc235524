"""Random pyramids with faults, and an oracle that knows what is wrong with each level.

`python -m tests.support.pyramids COUNT [FIRST]` judges so many and lists what went wrong.
"""

from __future__ import annotations

import collections
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import zarr
from scipy import ndimage

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.errors import AnyStarBatchError
from anystar_batch.stages.levels import check_levels

WAYS = ("mean", "stride", "gaussian", "nearest", "median")


@dataclass
class Pyramid:
    """What was written, and the truth about it.

    `bad` are paths of levels that must not be read; `gone` those that must be named as left out.
    """

    path: str
    centres: np.ndarray
    radius: float
    fault: str
    bad: set
    gone: set


def coarser(data, factors, way):
    """One level from the one before it, as writers make it; floor shapes, but `nearest` ceil."""
    shape = [n // f for n, f in zip(data.shape, factors, strict=True)]
    cut = data[tuple(slice(0, n * f) for n, f in zip(shape, factors, strict=True))]
    if way == "stride":
        return cut[tuple(slice(None, None, f) for f in factors)]
    if way == "nearest":
        shape = [-(-n // f) for n, f in zip(data.shape, factors, strict=True)]
        at = [
            np.clip(np.floor((np.arange(m) + 0.5) * n / m).astype(int), 0, n - 1)
            for m, n in zip(shape, data.shape, strict=True)
        ]
        return data[np.ix_(*at)]
    values = cut.astype(np.float64)
    if way == "gaussian":
        values = ndimage.gaussian_filter(values, [f / 3 if f > 1 else 0 for f in factors])
    z, y, x = shape
    blocks = values.reshape(z, factors[0], y, factors[1], x, factors[2])
    if way == "median":
        values = np.median(blocks.transpose(0, 2, 4, 1, 3, 5).reshape(z, y, x, -1), axis=-1)
    else:
        values = blocks.mean(axis=(1, 3, 5))
    return np.round(values).astype(data.dtype) if data.dtype.kind == "u" else values.astype("f4")


def scene(rng, shape):
    """Balls on a noisy ground: image, centres, radius."""
    radius = float(rng.uniform(3.0, 7.0))
    noise = float(rng.choice([1.0, 5.0, 25.0]))
    image = 100 + noise * rng.standard_normal(shape)
    centres = []
    for _ in range(int(np.prod(shape) / radius**3 / 40) + 1):
        centre = [rng.uniform(radius, max(radius + 1, n - radius)) for n in shape]
        if not centres or min(np.linalg.norm(np.subtract(c, centre)) for c in centres) > 3 * radius:
            # Beyond three radii a ball adds less than float64 shows.
            near = tuple(
                slice(max(0, int(c - 3 * radius)), min(n, int(c + 3 * radius) + 2))
                for c, n in zip(centre, shape, strict=True)
            )
            axes = np.ogrid[near]
            square = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) / radius**2
            image[near] += 120 * np.exp(-(square**2))
            centres.append(centre)
    return image, np.array(centres), radius


def write(folder, seed):
    """Write a pyramid that follows from the seed alone."""
    rng = np.random.default_rng(seed)
    shape = [int(rng.integers(24, 80)) for _ in range(3)]
    raw, centres, radius = scene(rng, shape)
    kind = str(rng.choice(["uint8", "uint16", "float32"]))
    base = np.clip(raw, 0, 255).round().astype(kind) if kind != "float32" else raw.astype(kind)
    way, version = str(rng.choice(WAYS)), str(rng.choice(["0.4", "0.5"]))
    levels, steps = _levels(rng, base, way)
    voxel = np.round(rng.uniform(0.1, 2.0, 3), 3)
    if way == "nearest" or rng.random() < 0.3:  # the ratio of the shapes
        steps = [np.divide(shape, level.shape) for level in levels]
    offsets = None
    if rng.random() < 0.5:
        offsets = [(step - 1) / 2 * voxel * (way != "stride") for step in steps]
    made = SimpleNamespace(
        rng=rng,
        seed=seed,
        levels=levels,
        steps=steps,
        scales=[voxel * step for step in steps],
        offsets=offsets,
        right_offsets=[(step - 1) / 2 * voxel * (way != "stride") for step in steps],
        paths=[f"s{k}" if seed % 2 else str(k) for k in range(len(levels))],
        order=list(range(len(levels))),
        kept=list(range(len(levels))),
        k=int(rng.integers(1, len(levels))),
        bad=set(),
        gone=set(),
    )
    fault = str(rng.choice(FAULTS))
    FAULT[fault](made)
    _store(folder, version, made)
    return Pyramid(str(folder), centres, radius, fault, made.bad, made.gone)


def _levels(rng, base, way):
    """2 to 6 levels, and their voxels in those of level 0."""
    levels, steps = [base], [np.ones(3)]
    for _ in range(int(rng.integers(1, 6))):
        factors = [int(f) for f in rng.choice([1, 2, 2, 2, 3, 4], 3)]
        factors = [f if n // f >= 5 else 1 for f, n in zip(factors, levels[-1].shape, strict=True)]
        if max(factors) > 1:
            levels.append(coarser(levels[-1], factors, way))
            steps.append(steps[-1] * factors)
    if len(levels) == 1:
        levels.append(coarser(base, (2, 2, 2), way))
        steps.append(steps[-1] * 2)
    return levels, steps


def _dropped(made):
    made.kept.remove(made.k)
    made.gone.add(made.paths[made.k])


def _swapped_entries(made):
    other = int(made.rng.integers(0, len(made.levels)))
    made.order[made.k], made.order[other] = made.order[other], made.order[made.k]
    before = np.full(3, np.inf)
    for n in made.order:
        if (np.array(made.levels[n].shape) > before).any():
            made.gone.add(made.paths[n])
        else:
            before = np.array(made.levels[n].shape)


def _swapped_arrays(made):
    others = [n for n in range(1, len(made.levels)) if n != made.k]
    if others:
        other, k = int(made.rng.choice(others)), made.k
        made.levels[k], made.levels[other] = made.levels[other], made.levels[k]
        # What lies between them is out of order, too.
        made.bad |= {made.paths[n] for n in range(min(k, other), max(k, other) + 1)}


def _half_filled(made):
    axis, level = int(made.rng.integers(3)), made.levels[made.k].copy()
    part = [slice(None)] * 3
    part[axis] = slice(int(made.rng.integers(1, max(2, int(0.8 * level.shape[axis])))), None)
    level[tuple(part)] = 0
    _is_now(made, level)


def _shifted(made):
    by = [int(made.rng.integers(-3, 4)) for _ in range(3)]
    by = by if any(abs(b) > 1 for b in by) else [2, 0, 0]
    level = made.levels[made.k]
    _is_now(made, ndimage.shift(level, by, order=0, cval=float(np.median(level))))


def _another_image(made):
    level = made.levels[made.k]
    other, *_ = scene(np.random.default_rng(made.seed + 10**6), level.shape)
    _is_now(made, np.clip(other, 0, 255).astype(level.dtype))


def _other_intensities(made):
    level = made.levels[made.k]
    gain = 0.1 if level.dtype == np.uint8 else 40.0
    _is_now(made, (level * gain).astype(level.dtype))


def _is_now(made, level):
    made.levels[made.k] = level
    made.bad.add(made.paths[made.k])


def _scaled(made, scale):
    if not np.allclose(scale, made.scales[made.k]):
        made.scales[made.k] = scale
        made.bad.add(made.paths[made.k])


def _offset_in_voxels(made):
    made.offsets = made.right_offsets
    wrong = made.scales[made.k] * float(made.rng.choice([-3.0, 1.5, 2.0, 5.0]))
    made.offsets[made.k] = made.offsets[made.k] + wrong
    made.bad.add(made.paths[made.k])


FAULT = {
    "none": lambda _: None,
    "dropped": _dropped,
    "swapped entries": _swapped_entries,
    "swapped arrays": _swapped_arrays,
    "half-filled": _half_filled,
    "empty": lambda made: _is_now(made, np.zeros_like(made.levels[made.k])),
    "shifted": _shifted,
    "mis-scaled": lambda made: _scaled(
        made, made.scales[made.k] * float(made.rng.choice([0.25, 0.5, 1.6, 2.0, 3.0]))
    ),
    "same scale": lambda made: _scaled(made, made.scales[0].copy()),
    "inverted scale": lambda made: _scaled(made, made.scales[0] / made.steps[made.k]),
    "offset in voxels": _offset_in_voxels,
    "another image": _another_image,
    "other intensities": _other_intensities,
}
"""What may be wrong with a pyramid; each function notes which levels that concerns."""

FAULTS = ("none", *FAULT)
"""Twice as often nothing is."""


def _store(folder, version, made):
    group = zarr.open_group(str(folder), mode="w", zarr_format=2 if version == "0.4" else 3)
    for n in made.kept:
        chunks = tuple(min(32, size) for size in made.levels[n].shape)
        group.create_array(made.paths[n], data=made.levels[n], chunks=chunks)
    datasets = []
    for n in made.order:
        transforms = [{"type": "scale", "scale": [float(s) for s in made.scales[n]]}]
        if made.offsets is not None:
            shift = [float(o) for o in made.offsets[n]]
            transforms.append({"type": "translation", "translation": shift})
        datasets.append({"path": made.paths[n], "coordinateTransformations": transforms})
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    entry = {"name": "random", "axes": axes, "datasets": datasets}
    if version == "0.4":
        group.attrs.update({"multiscales": [{"version": "0.4", **entry}]})
    else:
        group.attrs.update({"ome": {"version": version, "multiscales": [entry]}})


def judge(folder, seed):
    """Return the fault of a pyramid, what was silently believed, and what was falsely refused."""
    pyramid = write(folder, seed)
    try:
        source = read_image(pyramid.path)
        verdicts = check_levels(ImageReader(source), 0)
    except AnyStarBatchError as error:
        is_told = bool(pyramid.bad or pyramid.gone)
        return pyramid.fault, "", "" if is_told else f"refused: {error}"
    paths = [level.path for level in source.levels]
    refused = {paths[v.level]: v.why for v in verdicts if not v.agrees}
    left_out = dict(source.left_out)
    silent = (pyramid.bad - set(refused) - set(left_out)) | (pyramid.gone - set(left_out))
    false = {p: why for p, why in refused.items() if p not in pyramid.bad}
    false |= {p: why for p, why in left_out.items() if p not in pyramid.bad | pyramid.gone}
    return pyramid.fault, ", ".join(sorted(silent)), json.dumps(false) if false else ""


def main(count, first=0):
    """Judge many, and say what went wrong."""
    counts = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="pyramids-") as folder:
        for seed in range(first, first + count):
            fault, silent, false = judge(Path(folder, "a.zarr"), seed)
            shutil.rmtree(Path(folder, "a.zarr"))
            counts[fault] += 1
            if silent:
                counts[f"silent: {fault}"] += 1
                print(seed, fault, "SILENT", silent, flush=True)  # noqa: T201
            if false:
                counts[f"false alarm: {fault}"] += 1
                print(seed, fault, "FALSE", false[:300], flush=True)  # noqa: T201
    print(json.dumps(counts, indent=1))  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
