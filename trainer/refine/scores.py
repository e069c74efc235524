"""Scores of the second look: outlines and quality on held-out scenes, and on real volumes.

A volume is seen by the first look once; everything after it (refining, the cut by quality,
suppressing again, painting at the volume's own voxels, matching) is done as often as it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box, as_zyx
from anystar_batch.network.refiner import SMALL_VOXELS, Refiner
from anystar_batch.stars.candidates import MAX_RADIUS, Candidates, quantise
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.raster import paint
from anystar_batch.stars.rays import golden_spiral
from anystar_batch.stars.suppress import suppress
from trainer.matches import IOUS, Tally, match
from trainer.refine.data import Data
from trainer.refine.fit import star_iou
from trainer.score import STRETCHES, Prediction, survivors
from trainer.volumes import Truth

ORDERS = ("prob", "quality", "product")
"""By what refined duplicates are suppressed."""

GOOD = 0.5
"""IoU of an outline that a cut by quality should not lose."""

DETECTED = 0.1
"""IoU from which a find is a true one."""


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """A volume's survivors, before and after the second look.

    Parameters
    ----------
    truth : Truth
    lattice : LatticeMap
        From working voxels to the volume's.
    first, second : Candidates
        The same points and probabilities; distances of the first and of the second look.
    quality : float32 [n]
    nms_thresh : float
    """

    truth: Truth
    lattice: LatticeMap
    first: Candidates
    second: Candidates
    quality: NDArray[np.float32]
    nms_thresh: float


def look(
    refiner: Refiner, prediction: Prediction, thresholds: tuple[float, float], times: int = 1
) -> Looked:
    """Refine the survivors of a prediction at the volume's own voxels.

    Parameters
    ----------
    refiner : Refiner
    prediction : Prediction
    thresholds : (prob_thresh, nms_thresh)
    times : int
        How often the answer is refined again.
    """
    truth, lattice = prediction.truth, prediction.lattice
    found = survivors(prediction.prob, prediction.dist, prediction.grid, thresholds)
    dist, quality = found.dist, np.ones(len(found), np.float32)
    for _ in range(times):
        dist, quality = refined(refiner, truth.image, found.points, dist, lattice)
    second = Candidates(found.points, found.prob, quantise(dist, MAX_RADIUS))
    return Looked(truth, lattice, found, second, quality, thresholds[1])


def refined(
    refiner: Refiner,
    image: NDArray[np.number],
    points: NDArray[np.int32],
    dist: NDArray[np.float32],
    lattice: LatticeMap,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return refined distances, working voxels, and the quality.

    Parameters
    ----------
    refiner : Refiner
    image : (z, y, x)
        The whole volume.
    points : int32 [n, 3]
        Working voxels.
    dist : float32 [n, n_rays]
        Working voxels.
    lattice : LatticeMap
    """
    shape = as_zyx(image.shape)
    at = points * np.asarray(lattice.scale) + np.asarray(lattice.offset)
    directions = golden_spiral(dist.shape[1]).vertices
    pixels = np.asarray(image, np.float32)
    found, quality = refiner.refine(
        pixels, Box.of_shape(shape), shape, at, dist, lattice.scale, directions
    )
    return np.minimum(found, np.float32(MAX_RADIUS)), quality


def labels(
    looked: Looked, second: bool = True, cut: float = 0.0, order: str = "prob"
) -> NDArray[np.uint32]:
    """Paint a volume's survivors at its own voxels.

    Parameters
    ----------
    looked : Looked
    second : bool
        Whether with the distances of the second look; else those of the first.
    cut : float
        Quality below which a find is left out.
    order : str
        One of `ORDERS`: who suppresses whom after refining, and whose voxels win.
    """
    kept = looked.quality >= cut
    chosen = (looked.second if second else looked.first).take(kept)
    quality = looked.quality[kept]
    keys = {"prob": chosen.prob, "quality": quality, "product": chosen.prob * quality}
    ranked = Candidates(chosen.points, keys[order].astype(np.float32), chosen.dist)
    rays = golden_spiral(looked.first.dist.shape[1])
    if second:
        ranked = ranked.take(suppress(ranked, rays, looked.nms_thresh))
    ranked = ranked.take(ranked.order())
    shape = as_zyx(looked.truth.labels.shape)
    out = np.zeros(shape, np.uint32)
    numbers = np.arange(1, len(ranked) + 1, dtype=np.uint32)
    paint(out, Box.of_shape(shape), ranked, numbers, rays, looked.lattice)
    return out


def tally(
    volumes: Sequence[Looked], second: bool = True, cut: float = 0.0, order: str = "prob"
) -> Tally:
    """Match all volumes; arguments as of `labels`."""
    total = Tally()
    for looked in volumes:
        total = total + match(looked.truth.labels, labels(looked, second, cut, order))
    return total


def row(found: Tally) -> dict[str, object]:
    """Return accuracies at the IoUs, median volume ratio, precision and recall of detection."""
    tp, fp, fn = found.tp[0], found.fp[0], found.fn[0]
    return {
        "accuracy": [round(a, 4) for a in found.accuracy()],
        "ratio": round(float(np.median(found.ratio)), 3) if found.ratio else None,
        "precision": round(tp / max(tp + fp, 1), 4),
        "recall": round(tp / max(tp + fn, 1), 4),
        "finds": tp + fp,
    }


def is_found(looked: Looked) -> NDArray[np.bool_]:
    """Return which survivors of the first look are true: IoU of `DETECTED` with an object.

    Every survivor is painted alone, so that who is hidden by a neighbour is judged by itself.
    """
    rays = golden_spiral(looked.first.dist.shape[1])
    truth = looked.truth.labels
    sizes = np.bincount(truth.ravel())
    found = np.zeros(len(looked.first), np.bool_)
    reach = looked.first.dist.max(axis=1)[:, None] * np.asarray(looked.lattice.scale)
    centre = looked.first.points * np.asarray(looked.lattice.scale) + looked.lattice.offset
    low = np.maximum(np.floor(centre - reach).astype(int), 0)
    high = np.minimum(np.ceil(centre + reach).astype(int) + 1, truth.shape)
    for i in range(len(found)):
        box = Box(as_zyx(low[i]), as_zyx(np.maximum(high[i], low[i])))
        if box.size == 0:
            continue
        out = np.zeros(box.shape, np.uint32)
        one = looked.first.take(np.array([i]))
        paint(out, box, one, np.ones(1, np.uint32), rays, looked.lattice)
        shared = np.bincount(truth[box.slices][out > 0], minlength=len(sizes))
        shared[0] = 0
        best = int(shared.argmax())
        union = int((out > 0).sum()) + int(sizes[best]) - int(shared[best])
        found[i] = shared[best] >= DETECTED * union
    return found


def separation(true: NDArray[np.bool_], score: NDArray[np.floating]) -> float | None:
    """Return the area under the curve of true against false finds; None without one of them.

    Parameters
    ----------
    true : bool [n]
    score : [n]
        Higher for the truer; ties count a half.
    """
    n_true, n_false = int(true.sum()), int((~true).sum())
    if not n_true or not n_false:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]
    area = (ranks[true].sum() - n_true * (n_true + 1) / 2.0) / (n_true * n_false)
    return round(float(area), 4)


def separations(
    true: NDArray[np.bool_], prob: NDArray[np.floating], quality: NDArray[np.floating]
) -> dict[str, float | None]:
    """Return `separation` by probability, quality and their product."""
    scores = {"prob": prob, "quality": quality, "product": prob * quality}
    return {name: separation(true, score) for name, score in scores.items()}


def real(
    refiner: Refiner, predictions: Sequence[Prediction], prob_thresh: float
) -> dict[str, object]:
    """Score one set with and without the second look.

    Parameters
    ----------
    refiner : Refiner
    predictions : sequence of Prediction
    prob_thresh : float
    """
    volumes = [look(refiner, p, (prob_thresh, 0.3)) for p in predictions]
    true = np.concatenate([is_found(v) for v in volumes])
    prob = np.concatenate([v.first.prob for v in volumes])
    quality = np.concatenate([v.quality for v in volumes])
    cut = refiner.quality_cut
    scores: dict[str, object] = {
        "iou": list(IOUS),
        "first": row(tally(volumes, second=False)),
        "second": row(tally(volumes)),
        "second, cut": row(tally(volumes, cut=cut)),
        "auc": separations(true, prob, quality),
        "quality": quantiles(quality),
    }
    return scores


def held_out(refiner: Refiner, data: Data) -> dict[str, object]:
    """Score finds of held-out scenes by the IoU of stars around the same points.

    Parameters
    ----------
    refiner : Refiner
    data : Data
    """
    dist, quality = data_refined(refiner, data, data.dist)
    again, _ = data_refined(refiner, data, dist)
    true = data.is_true
    scores: dict[str, object] = {"finds": len(data), "true": int(true.sum())}
    for name, found in (("first", data.dist), ("second", dist), ("twice", again)):
        iou = star_iou(data.truth[true], found[true])
        scores[name] = {
            "mean_iou": round(float(iou.mean()), 4),
            "above_0.7": round(float((iou > 0.7).mean()), 4),
            "volume_ratio": _ratio(data.truth[true], found[true]),
        }
    iou = star_iou(data.truth, dist)
    scores["auc"] = separations(true, data.prob, quality)
    scores["quality_error"] = round(float(np.abs(iou - quality).mean()), 4)
    scores["quality_true"] = quantiles(quality[true])
    scores["quality_false"] = quantiles(quality[~true])
    return scores


def data_refined(
    refiner: Refiner, data: Data, dist: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return refined distances and quality of all finds of a data set."""
    found, quality = np.empty_like(dist), np.empty(len(dist), np.float32)
    directions = golden_spiral(dist.shape[1]).vertices
    for k, image in enumerate(data.images):
        here = np.flatnonzero(data.scene == k)
        if len(here) == 0:
            continue
        shape, step = as_zyx(image.shape), data.steps[k]
        found[here], quality[here] = refiner.refine(
            image, Box.of_shape(shape), shape, data.points[here], dist[here], step, directions
        )
    return found, quality


def tuned_stretch(refiner: Refiner, data: Data) -> float:
    """Return the factor on refined distances with the most good outlines on held-out scenes.

    A network that minimises an error of logarithms answers the median of what it thinks possible,
    and bodies grow with the cube; one factor, folded into the last bias, takes out the mean of
    that (`score.tune_stretch` does the same for the first look).

    Parameters
    ----------
    refiner : Refiner
    data : Data
    """
    dist, _ = data_refined(refiner, data, data.dist)
    truth, found = data.truth[data.is_true], dist[data.is_true]

    def good(factor: float) -> float:
        iou = star_iou(truth, found * np.float32(factor))
        return float(np.mean([(iou >= limit).mean() for limit in IOUS[1:]]))

    return max(sorted(STRETCHES, key=lambda factor: abs(factor - 1.0)), key=good)


def stretched(refiner: Refiner, factor: float) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a refiner whose distances are `factor` times as long."""
    arrays = refiner.named()
    arrays["factor_bias"] = arrays["factor_bias"] + np.float32(np.log(factor))
    return arrays


def chosen_cut(refiner: Refiner, data: Data, kept: float = 0.98) -> float:
    """Return the largest quality, in hundredths, at which a share of the good finds stays.

    Where small objects have a network of their own, the share stays of either's finds.

    Parameters
    ----------
    refiner : Refiner
    data : Data
        Of held-out scenes: a cut chosen on real volumes would be no result there.
    kept : float
        Of the finds whose refined outline reaches `GOOD`.
    """
    dist, quality = data_refined(refiner, data, data.dist)
    good = star_iou(data.truth, dist) >= GOOD
    is_small = (data.ray_voxels(slice(None), data.dist) < SMALL_VOXELS) & (
        refiner.small is not None
    )
    parts = [quality[good & mine] for mine in (is_small, ~is_small)]
    cuts = [float(np.quantile(part, 1.0 - kept)) for part in parts if len(part)]
    return round(float(np.floor(100.0 * min(cuts))) / 100.0, 2)


def quantiles(values: NDArray[np.float32]) -> list[float]:
    """Return the 5, 50 and 95 % quantiles."""
    return (
        [round(float(v), 3) for v in np.quantile(values, (0.05, 0.5, 0.95))] if len(values) else []
    )


def _ratio(truth: NDArray[np.float32], dist: NDArray[np.float32]) -> float:
    """Median of the volumes over the true ones, over rays whose truth is known."""
    known = truth > 0
    found = (np.where(known, dist, 0.0) ** 3).sum(axis=1)
    true = (np.where(known, truth, 0.0) ** 3).sum(axis=1)
    return round(float(np.median(found / true)), 3)
