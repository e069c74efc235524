"""The frozen synthetic test set: 64 volumes of the published recipe that never change.

The generator is `trainer.frozen`, apart from the trainer's own; `testset.json` names what it made:
SHA-256 of every array, and small checksums for machines on which the last grey level differs::

    python -m trainer.testset OUT.json      how the manifest was written; never needed again

No threshold, size or weight may be chosen on these volumes: they are for scores alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import AnyStarBatchError, ConfigError
from anystar_batch.network.intensity import limits, normalise
from anystar_batch.network.refiner import load_refiner
from trainer.frozen.geometry import Recipe
from trainer.frozen.intensities import BACKGROUNDS, GREY, Volume, volume
from trainer.matches import IOUS, Tally, match
from trainer.refine.scores import labels as refined_labels
from trainer.refine.scores import look
from trainer.score import Scorer, scorer_of
from trainer.volumes import Truth

if TYPE_CHECKING:
    from anystar_batch.network.model import Model
    from anystar_batch.network.refiner import Refiner

MANIFEST = Path(__file__).with_name("testset.json")
"""What is frozen."""

BINS = (3.0, 4.0, 6.0, 9.0, 14.0)
"""Edges of the bins of the mean radius, voxels."""

SEED = 20_261_122
COUNT = 64
RADIUS = (3.0, 14.0)

LARGE = 9.0
"""Mean radius from which a volume has 96 voxels an axis: 64 would cut nearly every object."""


class FrozenError(AnyStarBatchError):
    """A frozen volume is not what was frozen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One volume of the manifest.

    Parameters
    ----------
    index, seed, edge : int
        Number, seed, and voxels per axis.
    radius : float
        Mean radius of the recipe, voxels.
    background : str
    objects, voxels : int
        Objects, and voxels in them.
    octants : tuple of float
        Mean grey level (0 to 65535) of the eight octants, z slowest.
    image_sha256, labels_sha256 : str
        Of the little-endian uint16 and int32 arrays.
    """

    index: int
    seed: int
    edge: int
    radius: float
    background: str
    objects: int
    voxels: int
    octants: tuple[float, ...]
    image_sha256: str
    labels_sha256: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracies at the IoUs of `IOUS`, of one way to show the volumes to the network.

    Parameters
    ----------
    overall, mean : list of float
        Over all objects together, which small objects decide; the mean of the volumes' accuracies.
    by_radius, by_background : dict
        Over the objects of a part.
    """

    overall: list[float]
    mean: list[float]
    by_radius: dict[str, list[float]]
    by_background: dict[str, list[float]]


def drawn(index: int) -> tuple[int, int, float, str]:
    """Return seed, edge, mean radius and background of a volume: radii evenly in the logarithm."""
    ratio = RADIUS[1] / RADIUS[0]
    radius = round(RADIUS[0] * ratio ** ((index + 0.5) / COUNT), 6)
    return SEED * COUNT + index, (96 if radius >= LARGE else 64), radius, BACKGROUNDS[index % 3]


def entry(index: int, made: Volume) -> Entry:
    """Describe a volume."""
    seed, edge, radius, background = drawn(index)
    half = edge // 2
    parts = made.image.reshape(2, half, 2, half, 2, half).mean(axis=(1, 3, 5))
    return Entry(
        index=index,
        seed=seed,
        edge=edge,
        radius=radius,
        background=background,
        objects=int(made.labels.max()),
        voxels=int(np.count_nonzero(made.labels)),
        octants=tuple(round(float(m), 3) for m in parts.ravel()),
        image_sha256=_digest(made.image.astype("<u2")),
        labels_sha256=_digest(made.labels.astype("<i4")),
    )


def frozen(path: Path = MANIFEST) -> list[Entry]:
    """Read the manifest.

    Raises
    ------
    ConfigError
        If the generator's recipe is not the one that was frozen.
    """
    document = json.loads(path.read_text())
    recipe = json.loads(json.dumps(dataclasses.asdict(Recipe())))
    if document["recipe"] != recipe:
        message = (
            f"test set: the recipe of trainer/frozen differs from that of {path.name}; "
            "expected the frozen one: undo the change, a new test set is a new package"
        )
        raise ConfigError(message)
    listed = [Entry(**{**e, "octants": tuple(e["octants"])}) for e in document["volumes"]]
    total = _total(listed)
    if document["sha256"] != total:
        message = (
            f"test set: the volumes of {path.name} have SHA-256 {total[:12]}, its own entry says "
            f"{document['sha256'][:12]}; the file was changed: restore it"
        )
        raise ConfigError(message)
    return listed


def make(expected: Entry) -> tuple[Volume, bool]:
    """Make a frozen volume and compare it with the manifest.

    Parameters
    ----------
    expected : Entry

    Returns
    -------
    Volume
    bool
        Whether the image has the frozen hash too. Where a processor rounds otherwise it may not,
        and the octants then agree within one grey level.

    Raises
    ------
    FrozenError
        If labels differ, or intensities by more than that.
    """
    made = volume(expected.seed, expected.edge, expected.radius, expected.background)
    actual = entry(expected.index, made)
    if actual.labels_sha256 != expected.labels_sha256:
        message = (
            f"test set: volume {expected.index} has {actual.objects} objects of {actual.voxels} "
            f"voxels, frozen were {expected.objects} of {expected.voxels}; expected equal labels "
            "on every machine: scores here cannot be compared; report the processor and the "
            "versions of NumPy and Numba"
        )
        raise FrozenError(message)
    difference = np.abs(np.subtract(actual.octants, expected.octants)).max()
    if difference > 1.0:
        message = (
            f"test set: the octants of volume {expected.index} differ by {difference:.3g} grey "
            f"levels of {GREY} from the frozen ones; expected at most 1: scores here cannot be "
            "compared; report the processor and the versions of NumPy and SciPy"
        )
        raise FrozenError(message)
    return made, actual.image_sha256 == expected.image_sha256


def volumes(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Truth, bool]]:
    """Yield frozen volumes as truths, and whether each is frozen to the bit."""
    for expected in entries:
        made, same = make(expected)
        yield expected, Truth(f"frozen {expected.index}", made.image, made.labels), same


def score_model(name: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """Score a released model with its own thresholds.

    Parameters
    ----------
    name : str
        Name of a bundled model, or path of a model folder.
    entries : sequence of Entry

    Returns
    -------
    dict
        JSON-able. `native`: radii as they are. `working`: every volume rescaled so that its median
        object has the model's diameter, as the command does it; left out for a model without one.
        `second`: the same after the model's second look and its cut, as `segment --diameter` has
        it; left out for a model without a refiner.
    """
    from anystar_batch.network.model import load_model  # noqa: PLC0415  (with the network)

    model = load_model(name)
    return score(model, scorer_of(model), entries, load_refiner(Path(model.folder)))


def score(
    model: Model, scorer: Scorer, entries: Sequence[Entry], refiner: Refiner | None = None
) -> dict[str, Any]:
    """Score a model that is loaded; see `score_model`."""
    thresholds = (model.prob_thresh, model.nms_thresh)
    native: list[Tally] = []
    working: list[Tally] = []
    second: list[Tally] = []
    identical = 0
    for _, truth, same in volumes(entries):
        identical += same
        shown = Truth(truth.name, normalised(truth.image, model), truth.labels)
        (prediction,) = scorer.predictions([shown], None)
        native.append(match(truth.labels, prediction.labels(thresholds)))
        if model.diameter is None or not truth.labels.any():
            continue
        (prediction,) = scorer.predictions([truth], model.diameter)
        working.append(match(truth.labels, prediction.labels(thresholds)))
        if refiner is not None:
            looked = look(refiner, prediction, thresholds)
            labels = refined_labels(looked, cut=refiner.quality_cut, order="product")
            second.append(match(truth.labels, labels))
    document: dict[str, Any] = {
        "model": model.name,
        "version": model.version,
        "sha256": model.sha256,
        "thresholds": list(thresholds),
        "testset": json.loads(MANIFEST.read_text())["sha256"],
        "volumes": len(entries),
        "identical": identical,
        "iou": list(IOUS),
        "native": dataclasses.asdict(summary(entries, native)),
    }
    if len(working) == len(entries):
        document["diameter"] = model.diameter
        document["working"] = dataclasses.asdict(summary(entries, working))
    if refiner is not None and len(second) == len(entries):
        document["refiner_sha256"] = refiner.sha256
        document["second"] = dataclasses.asdict(summary(entries, second))
    return document


def normalised(image: NDArray[np.number], model: Model) -> NDArray[np.float32]:
    """Return an image as the network sees it at its own voxel size."""
    low, high = limits(image, model.low_percentile, model.high_percentile)
    return normalise(image, low, high)


def summary(entries: Sequence[Entry], tallies: Sequence[Tally]) -> Scores:
    """Sum up the tallies of the entries' volumes."""
    pairs = list(zip(entries, tallies, strict=True))
    bins = list(pairwise(BINS))
    return Scores(
        overall=_accuracy(tallies),
        mean=[round(float(m), 4) for m in np.mean([t.accuracy() for t in tallies], axis=0)],
        by_radius={
            f"{low:g}-{high:g}": _accuracy([t for e, t in pairs if low <= e.radius < high])
            for low, high in bins
        },
        by_background={
            b: _accuracy([t for e, t in pairs if e.background == b]) for b in BACKGROUNDS
        },
    )


def table(document: dict[str, Any]) -> str:
    """Return scores as text: a row per part, a column per IoU."""
    lines = [
        f"{document['model']} {document['version']}, thresholds {document['thresholds']}, "
        f"{document['volumes']} volumes ({document['identical']} frozen to the bit)"
    ]
    for way in ("native", "working", "second"):
        if way not in document:
            continue
        title = {
            "native": "native",
            "working": f"working (median diameter to {document.get('diameter') or 0:g} voxels)",
            "second": "working, after the second look",
        }[way]
        lines.append(title.ljust(48) + "".join(f"{t:>8g}" for t in document["iou"]))
        scores = document[way]
        rows = [("all objects", scores["overall"]), ("mean of volumes", scores["mean"])]
        rows += [(f"radius {k}", v) for k, v in scores["by_radius"].items()]
        rows += [(f"background {k}", v) for k, v in scores["by_background"].items()]
        lines += [f"  {name}".ljust(48) + "".join(f"{a:8.3f}" for a in row) for name, row in rows]
    return "\n".join(lines)


def freeze(path: Path) -> None:
    """Write the manifest of the generator as it is.

    Raises
    ------
    ConfigError
        If the file exists: what is frozen stays.
    """
    if path.exists():
        message = f"test set: {path} exists; expected a new file: what is frozen stays"
        raise ConfigError(message)
    listed = [entry(k, volume(*drawn(k))) for k in range(COUNT)]
    document = {
        "version": 1,
        "seed": SEED,
        "recipe": dataclasses.asdict(Recipe()),
        "sha256": _total(listed),
        "volumes": [dataclasses.asdict(e) for e in listed],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _accuracy(tallies: Sequence[Tally]) -> list[float]:
    total = sum(tallies, Tally())
    return [round(a, 4) for a in total.accuracy()]


def _total(listed: Sequence[Entry]) -> str:
    """SHA-256 of all the volumes' hashes, in order."""
    digest = hashlib.sha256()
    for one in listed:
        digest.update(f"{one.index} {one.image_sha256} {one.labels_sha256}\n".encode())
    return digest.hexdigest()


def _digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


if __name__ == "__main__":
    freeze(Path(sys.argv[1]))
