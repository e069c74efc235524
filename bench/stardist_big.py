"""The whole command against StarDist's own, same weights: `python -m bench stardist OUT`.

One dense phantom, working voxels equal to the image's, float32 on both sides, the same thresholds.
StarDist gets the volume normalised and mirrored at its borders as our tiles are, so that neither
side has a rule for borders, and its result is cropped again.

1. `predict_instances_big` against `anystar-batch segment`, wall and CPU seconds, networks loaded.
2. `predict_instances` on the whole volume: are our instances the same? F1 at IoU 0.5 and 0.9.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.engine.engines import threads_per_worker
from anystar_batch.geometry import Box
from anystar_batch.network.intensity import normalise
from anystar_batch.network.model import Model, load_model
from anystar_batch.network.predictor import KerasFactory
from anystar_batch.network.tiles import BORDER
from anystar_batch.parsing import parse_diameter
from anystar_batch.pipeline import segment
from bench.run import Loaded, phantom, plan_of

EDGE = 8
"""Objects nearer to the border, voxels, are scored apart: beyond it StarDist sees mirrored objects
as candidates, and we do not."""

CONTEXT = 24
"""Context of StarDist's blocks, voxels: at least what half of our tiles' overlap is."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench stardist", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--radius", type=float, default=3.5)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--model", default="anystar-mix")
    parser.add_argument("--no-big", action="store_true", help="leave predict_instances_big out")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    image = phantom(options.out, options.size, options.radius, "dense")
    model = load_model(options.model)
    config = SegmentConfig(
        image=str(image),
        result=ResultConfig(
            diameter=parse_diameter(f"{model.diameter or 1:g}px"), precision="float32"
        ),
        run=RunConfig(overwrite=True, report=False),
    )
    plan, reader = plan_of(config)
    assert plan.working.zoom == (1.0, 1.0, 1.0), plan.working.zoom  # noqa: S101
    raw = reader.read_box(0, 0, 0, Box.of_shape((options.size,) * 3))
    volume = normalise(raw, *(plan.limits_of(0) or (0, 1)))
    padded = np.pad(volume, BORDER, mode="symmetric")

    loaded: Any = Loaded(KerasFactory("float32")(model, threads_per_worker(1)))
    segment.segment(config, factory=loaded)  # compiles
    ours = timed(lambda: segment.segment(config, factory=loaded))
    labels = np.asarray(zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...])

    theirs = stardist_model(model)
    thresholds = {"prob_thresh": plan.prob_thresh, "nms_thresh": plan.nms_thresh}
    blocks = (options.block, options.overlap, CONTEXT)
    theirs.predict(padded[:64, :64, :64])  # compiles
    big = timed(
        lambda: (
            None
            if options.no_big
            else theirs.predict_instances_big(
                padded, "ZYX", *blocks, show_progress=False, **thresholds
            )
        )
    )
    once = timed(lambda: theirs.predict_instances(padded, **thresholds))
    inner = (slice(BORDER, -BORDER),) * 3
    document: dict[str, Any] = {
        "size": options.size,
        "radius": options.radius,
        "instances": int(len(np.unique(labels)) - 1),
        "ours": seconds(ours),
        "predict_instances": seconds(once),
        "f1_against_whole": agreement(once[2][0][inner], labels),
    }
    if big[2] is not None:
        document |= {
            "predict_instances_big": seconds(big),
            "ratio_wall": big[0] / ours[0],
            "ratio_cpu": big[1] / ours[1],
            "f1_big_against_whole": agreement(once[2][0][inner], big[2][0][inner]),
        }
    (options.out / "stardist.json").write_text(json.dumps(document, indent=1))
    print(json.dumps(document, indent=1))


def stardist_model(model: Model) -> Any:  # noqa: ANN401  (untyped neighbour)
    """Return the same weights as StarDist loads them."""
    from stardist.models import StarDist3D

    folder = Path(model.folder)
    return StarDist3D(None, name=folder.name, basedir=str(folder.parent))


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall seconds, CPU seconds and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def seconds(spent: tuple[float, float, Any]) -> dict[str, float]:
    """Return the two times by name."""
    return {"wall": round(spent[0], 2), "cpu": round(spent[1], 2)}


def agreement(truth: NDArray[Any], found: NDArray[Any]) -> dict[str, float]:
    """Return F1 at two IoUs: of all objects, and of those that keep `EDGE` voxels off the border.

    The share of either side's inner objects that have a partner among all of the other's, joined
    harmonically.
    """
    from stardist.matching import matching, relabel_sequential

    one, two = (relabel_sequential(np.asarray(x).astype(np.int32))[0] for x in (truth, found))
    scores = {}
    for iou in (0.5, 0.9):
        result = matching(one, two, iou, report_matches=True)
        pairs = np.asarray(result.matched_pairs).reshape(-1, 2)
        pairs = pairs[np.asarray(result.matched_scores).ravel() >= iou]
        recall, precision = (
            np.isin(inner_labels(labels), pairs[:, side]).mean()
            for side, labels in enumerate((one, two))
        )
        scores[f"{iou}"] = float(result.f1)
        scores[f"{iou} inner"] = float(2 * recall * precision / (recall + precision))
    return scores


def inner_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the labels of the objects that keep `EDGE` voxels off the border."""
    rim = labels.copy()
    rim[(slice(EDGE, -EDGE),) * labels.ndim] = 0
    return np.setdiff1d(np.unique(labels), np.append(np.unique(rim), 0))
