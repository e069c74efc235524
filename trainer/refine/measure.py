"""Scores of a run, set by set: held-out scenes, the texture test, real volumes where they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from anystar_batch.network.refiner import Refiner
from trainer.refine.scores import Looked, is_found, look, quantiles, real, separations
from trainer.refine.texture import volumes as textures
from trainer.volumes import Truth, bbbc050, gonuclear, tgmm

if TYPE_CHECKING:
    from trainer.score import Scorer

SETTINGS = ((6.0, 0.6), (7.0, 0.5))
"""Working diameter and probability threshold of the first look."""

CHOICES: dict[str, Callable[[], list[Truth]]] = {"bbbc050_1_4": lambda: bbbc050([1, 2, 3, 4])}
"""The one real set that choices may be made on."""

FINAL: dict[str, Callable[[], list[Truth]]] = {
    "bbbc050_5_11": lambda: bbbc050(range(5, 12)),
    "gonuclear_1135": gonuclear,
    "tgmm": tgmm,
}
"""Sets for scores alone."""


def real_sets(
    scorer: Scorer,
    refiner: Refiner,
    final: bool = False,
    settings: Sequence[tuple[float, float]] = SETTINGS,
) -> dict[str, object]:
    """Score the real volumes that are at hand, with and without the second look.

    Parameters
    ----------
    scorer : Scorer
        The first look.
    refiner : Refiner
    final : bool
        Whether to score what no choice may see, too.
    settings : sequence of (diameter, prob_thresh)

    Returns
    -------
    dict
        Empty where ANYSTAR_BATCH_DATA is unset.
    """
    scores: dict[str, object] = {}
    if not os.environ.get("ANYSTAR_BATCH_DATA"):
        return scores
    for name, load in (CHOICES | FINAL if final else CHOICES).items():
        truths = load()
        for diameter, prob in settings:
            predictions = scorer.predictions(truths, diameter)
            scores[f"{name} at {diameter:g}, {prob:g}"] = real(refiner, predictions, prob)
    return scores


def texture_scores(
    scorer: Scorer, refiner: Refiner, setting: tuple[float, float] = SETTINGS[0]
) -> dict[str, object]:
    """Count false finds per million voxels on the texture test, before and after the cut.

    Parameters
    ----------
    scorer : Scorer
    refiner : Refiner
    setting : (diameter, prob_thresh)
        The objects' true diameter is given, as `--diameter` would.
    """
    parts: dict[str, list[tuple[Looked, int]]] = {}
    identical = 0
    for made, same in textures():
        identical += same
        truth = Truth(f"texture {made.index}", made.image, made.labels)
        (prediction,) = scorer.predictions([truth], setting[0])
        looked = look(refiner, prediction, (setting[1], 0.3))
        parts.setdefault(made.background, []).append((looked, int(made.labels.max())))
    rows = {name: _counts(part, refiner.quality_cut) for name, part in parts.items()}
    rows["all"] = _counts([one for part in parts.values() for one in part], refiner.quality_cut)
    return {"identical": identical, "setting": list(setting), "cut": refiner.quality_cut} | rows


def _counts(part: Sequence[tuple[Looked, int]], cut: float) -> dict[str, object]:
    """False finds per million voxels and recall, before and after; how well they are told apart."""
    true = np.concatenate([is_found(looked) for looked, _ in part])
    prob = np.concatenate([looked.first.prob for looked, _ in part])
    quality = np.concatenate([looked.quality for looked, _ in part])
    millions = sum(looked.truth.image.size for looked, _ in part) / 1e6
    objects = sum(count for _, count in part)
    return {
        "false_per_million": round(int((~true).sum()) / millions, 2),
        "false_per_million_after": round(int((~true & (quality >= cut)).sum()) / millions, 2),
        "objects": objects,
        "true_finds": int(true.sum()),
        "true_finds_after": int((true & (quality >= cut)).sum()),
        "auc": separations(true, prob, quality),
        "quality_false": quantiles(quality[~true]),
    }
