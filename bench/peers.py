"""Our joining against that of others, fed by our network: `python -m bench peers OUT`.

One volume in which nothing is rescaled. The reference is one piece: the network on the whole
volume, suppression over all of it. Then the same volume in blocks, by

    ours        the command, with tiles of the block's size (their context is the model's)
    patchworks  `tile_process`, which asks a function for the labels of a block and its overlap,
                trims the overlap and joins by touching, or by IoU
    cellpose    `process_block` and `determine_merge_relabeling` of `distributed_segmentation`, the
                block's labels ours instead of its network's

where a block's labels are what our network, suppression and painting say of the block and its
overlap alone. Both are installed by hand; who is missing is left out:

    pip install patchworks
    pip install torch==2.13.0 cellpose        # the network is not used, no weights are fetched

    OUT/peers.json   every number         OUT/peers.png   matched objects of each
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import zarr
from numpy.typing import NDArray

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.engine.engines import threads_per_worker
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.measure.matching import merges, scores, splits
from anystar_batch.measure.overlaps import match
from anystar_batch.network.devices import natural_precision
from anystar_batch.network.intensity import normalise
from anystar_batch.network.model import Model, load_model
from anystar_batch.network.predictor import KerasFactory, KerasPredictor
from anystar_batch.network.tiles import BORDER, TileLattice
from anystar_batch.parsing import parse_diameter
from anystar_batch.pipeline import segment as pipeline
from bench.context import run
from bench.run import Loaded, phantom, plan_of

IOUS = (0.5, 0.9)

Labels = NDArray[np.uint32]
Segment = Callable[[NDArray[np.float32]], Labels]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--radius", type=float, default=3.5, help="of the objects, voxels")
    parser.add_argument("--density", nargs="*", default=["dense", "sparse"])
    parser.add_argument("--blocks", type=int, nargs="*", default=[64, 96])
    parser.add_argument("--overlap", type=int, default=16, help="patchworks'; 16 is its default")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    model = load_model("anystar-mix")
    chosen = options.precision
    precision = natural_precision("tensorflow") if chosen == "auto" else chosen
    predictor = KerasFactory(precision)(model, threads_per_worker(1))
    document: dict[str, Any] = {}
    for density in options.density:
        image = phantom(options.out, options.size, options.radius, density)
        found = compare(image, model, predictor, options)
        document[density] = found
        for row in found["rows"]:
            print(density, json.dumps(row))
    (options.out / "peers.json").write_text(json.dumps(document, indent=1))
    draw(document, options.out / "peers.png")


def compare(
    image: Path, model: Model, predictor: KerasPredictor, options: argparse.Namespace
) -> dict[str, Any]:
    """Segment one volume in every way; score each against one piece."""
    plan, reader = plan_of(_config(image, model, None))
    assert plan.working.zoom == (1.0, 1.0, 1.0), plan.working.zoom  # noqa: S101
    raw = reader.read_box(0, 0, 0, Box.of_shape(plan.working.shape))
    volume = normalise(raw, *(plan.limits_of(0) or (0, 1)))
    segment = block_segmenter(model, predictor)
    reference = segment(volume)
    ways: dict[str, Callable[[int], tuple[Labels, float, float]]] = {
        "ours": lambda block: ours(image, model, predictor, block),
    }
    ways |= {
        f"patchworks, {stitch}": lambda block, stitch=stitch: timed(
            segment, lambda function: by_patchworks(volume, function, block, options, stitch)
        )
        for stitch in ("touch", "iou")
        if _installed("patchworks")
    }
    if _installed("cellpose"):
        overlap = 2 * round(model.diameter or 2 * options.radius)  # as `distributed_eval` has it
        ways["cellpose"] = lambda block: timed(
            segment, lambda function: by_cellpose(volume, function, block, overlap, options.out)
        )
    rows, labelled = [], {}
    for name, way in ways.items():
        for block in options.blocks:
            labels, seconds, outside = way(block)
            labelled.setdefault(name, []).append(labels)
            row = {"way": name, "block": block, "seconds": round(seconds, 2)}
            row["outside_s"] = round(outside, 2)
            rows.append(row | agreement(reference, labels, block))
    between = {
        name: round(scores(match(found[0], found[-1]), (0.9,))[0].f1, 4)
        for name, found in labelled.items()
    }
    return {"instances": int(reference.max()), "rows": rows, "f1_between_blocks": between}


def block_segmenter(model: Model, predictor: KerasPredictor) -> Segment:
    """Return a function from a normalised crop to labels: it knows nothing beyond the crop."""

    def segment(crop: NDArray[np.float32]) -> Labels:
        shape = as_zyx(crop.shape)
        # Mirrored at the borders, as the command's tiles are at the volume's.
        whole = TileLattice(shape, shape, (BORDER,) * 3, model.divisor)
        labels = run(model, predictor, crop, whole)
        seen, inverse = np.unique(labels, return_inverse=True)
        first = 0 if seen[0] == 0 else 1
        return (inverse + first).reshape(crop.shape).astype(np.uint32)

    return segment


def timed(segment: Segment, way: Callable[[Segment], Labels]) -> tuple[Labels, float, float]:
    """Return the labels, the wall seconds, and those of them outside the blocks' segmentation."""
    inside = 0.0

    def counted(crop: NDArray[Any]) -> Labels:
        nonlocal inside
        began = time.perf_counter()
        labels = segment(np.ascontiguousarray(crop, np.float32))
        inside += time.perf_counter() - began
        return labels

    began = time.perf_counter()
    labels = way(counted)
    seconds = time.perf_counter() - began
    return labels, seconds, seconds - inside


def ours(
    image: Path, model: Model, predictor: KerasPredictor, block: int
) -> tuple[Labels, float, float]:
    """The command in tiles of the block's size; blocks of one tile and of all give the same."""
    config = _config(image, model, block)
    digests, seconds, outside = [], 0.0, 0.0
    for shape in ((block,) * 3, (1024,) * 3):
        began = time.perf_counter()
        run = RunConfig(overwrite=True, report=False, block_shape=shape)
        summary = pipeline.segment(
            SegmentConfig(image=config.image, result=config.result, run=run),
            factory=Loaded(predictor),  # type: ignore[arg-type]
        )
        if not digests:
            seconds = time.perf_counter() - began
            outside = seconds - summary.seconds["predict"]
        labels = zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...]
        digests.append(hashlib.sha256(np.ascontiguousarray(labels)).hexdigest())
    assert digests[0] == digests[1], "blocks changed the result"  # noqa: S101
    return np.asarray(labels), seconds, outside


def by_patchworks(
    volume: NDArray[np.float32],
    segment: Segment,
    block: int,
    options: argparse.Namespace,
    stitch: str,
) -> Labels:
    """Join by patchworks."""
    import dask.array as da
    import patchworks

    chunks = da.from_array(volume, chunks=(block,) * 3)
    found = patchworks.tile_process(
        chunks,
        segment,
        tile_shape=(block,) * 3,
        overlap=options.overlap,
        max_workers=1,
        progress=False,
        stitch=stitch,
    )
    return np.asarray(found).astype(np.uint32)


def by_cellpose(
    volume: NDArray[np.float32], segment: Segment, block: int, overlap: int, out: Path
) -> Labels:
    """Join by cellpose's distributed segmentation, its steps in its order, in this process."""
    theirs = _cellpose()
    theirs.read_preprocess_and_segment = lambda array, crop, *_: segment(array[tuple(crop)])
    shape = (block,) * 3
    indices, crops = theirs.get_block_crops(volume.shape, shape, overlap, None)
    unjoined = zarr.open(
        str(out / "unjoined.zarr"), mode="w", shape=volume.shape, chunks=shape, dtype=np.uint32
    )
    with open("/dev/null", "w") as nowhere:  # noqa: PTH123  (a line a block)
        screen, sys.stdout = sys.stdout, nowhere
        try:
            results = [
                theirs.process_block(index, crop, volume, {}, {}, shape, overlap, unjoined)
                for index, crop in zip(indices, crops, strict=True)
            ]
        finally:
            sys.stdout = screen
    faces, _, numbers = zip(*results, strict=True)
    used = np.concatenate(numbers).astype(int)
    return np.asarray(theirs.determine_merge_relabeling(indices, faces, used)[unjoined[...]])


def agreement(reference: Labels, labels: Labels, block: int) -> dict[str, Any]:
    """Score labels against those of one piece; of objects that a block's face cuts, apart."""
    table = match(reference, labels)
    cut = cut_by_faces(reference, block)
    found: dict[str, Any] = {
        "instances": len(table.found_objects().labels),
        "splits": splits(table),
        "merges": merges(table),
        "cut": len(cut),
    }
    for score in scores(table, IOUS):
        found[f"f1_{score.iou:g}"] = round(score.f1, 4)
        found[f"cut_found_{score.iou:g}"] = round(float(np.isin(cut, score.true).mean()), 4)
    return found


def cut_by_faces(labels: Labels, block: int) -> NDArray[np.uint32]:
    """Labels that have voxels on both sides of a face between blocks."""
    seen = [np.empty(0, np.uint32)]
    for axis in range(3):
        for plane in range(block, labels.shape[axis], block):
            low, high = labels.take(plane - 1, axis), labels.take(plane, axis)
            seen.append(np.intersect1d(low, high))
    found = np.unique(np.concatenate(seen))
    return found[found != 0]


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw the share of cut objects that each way finds at IoU 0.9."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(document), figsize=(5 * len(document), 3), squeeze=False)
    for axis, (density, found) in zip(axes[0], document.items(), strict=True):
        names = [f"{row['way']}, {row['block']}" for row in found["rows"]]
        axis.barh(names, [row["cut_found_0.9"] for row in found["rows"]], color="#7fb9b6")
        axis.invert_yaxis()
        axis.set(xlim=(0, 1), title=density, xlabel="cut objects found at IoU 0.9")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _config(image: Path, model: Model, tile: int | None) -> SegmentConfig:
    diameter = parse_diameter(f"{model.diameter or 1:g}px")
    return SegmentConfig(image=str(image), result=ResultConfig(diameter=diameter, tile=tile))


def _installed(name: str) -> bool:
    """Whether a peer can be imported; says how to install it if not."""
    try:
        _cellpose() if name == "cellpose" else __import__(name)
    except ImportError as error:
        print(f"{name} is left out: {error}; see `python -m bench peers --help`", file=sys.stderr)
        return False
    return True


def _cellpose() -> ModuleType:
    """Cellpose's module; what only its networks need may be missing."""
    for name in ("torchvision", "torchvision.transforms", "segment_anything"):
        try:
            __import__(name)
        except (ImportError, RuntimeError):  # not there, or of another build than torch
            sys.modules[name] = MagicMock()
    from cellpose.contrib import distributed_segmentation

    return distributed_segmentation
