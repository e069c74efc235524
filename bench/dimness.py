"""Intensity limits where a part is dim: `python -m bench.dimness OUT [SET ...]`.

Every volume is scored alone, and as the dim half of one twice as wide; the other half is what
differs::

    beside 1     the same volume once more: what the cut through the objects at the border costs
    beside 10    ten times brighter, with a step at the border
    beside 30    thirty times brighter, likewise
    fading 100   mirrored, and brighter and brighter, to a hundred times: no step

Diameter given. Each is scored twice: all objects of the half, and those whose centre lies a
diameter or more from the border, which the cut does not touch. OUT receives `dimness.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bench.quality import Bench
from trainer.matches import Tally, match
from trainer.volumes import Truth, bbbc050, gonuclear, tgmm

SETS: dict[str, Callable[[], list[Truth]]] = {
    "embryos": lambda: bbbc050([1, 2, 3, 4], [451]),
    "gonuclear": gonuclear,
    "tgmm": tgmm,
}
"""Volumes by the name of their set."""

HEAD = (
    "| set | dim half | limits | all objects, IoU .1 / .3 / .5 | found | away from the border "
    "| found |"
)
"""Of the table."""


def main() -> None:
    """Score every set under every condition, with limits of either kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET")
    options = parser.parse_args()
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    lines = [HEAD, "|---|---|---|---|---|---|---|"]
    for name in options.sets:
        truths = SETS[name]()
        for condition, change in CONDITIONS.items():
            for limits in ("global", "local"):
                bench = Bench(options.out, "anystar-mix", limits=limits)
                line = score(bench, name, condition, truths, [change(t) for t in truths])
                print(line, flush=True)
                lines.append(line)
    (options.out / "dimness.md").write_text("\n".join(lines) + "\n")


def score(
    bench: Bench, name: str, condition: str, truths: Sequence[Truth], shown: Sequence[Truth]
) -> str:
    """Segment what is shown, score the part that is known, and return a line of the table."""
    diameter = float(np.median([t.diameter() for t in truths]))
    everything, inner = Tally(), Tally()
    for truth, image in zip(truths, shown, strict=True):
        tag = f"{condition}.{bench.limits}".replace(" ", "_")
        found, _ = bench.run(image, tag, diameter)
        width = truth.labels.shape[2]
        seen = found[:, :, :width]
        everything = everything + match(truth.labels, seen)
        last = width - diameter / truth.voxel[2]
        inner = inner + match(_before(truth.labels, last), _before(seen, last))
    cells = [name, condition, bench.limits, *_cells(everything), *_cells(inner)]
    return f"| {' | '.join(cells)} |"


def _cells(tally: Tally) -> tuple[str, str]:
    accuracy = " / ".join(f"{v:.3f}".removeprefix("0") for v in tally.accuracy()[:3])
    return accuracy, f"{tally.tp[0] + tally.fp[0]} of {tally.tp[0] + tally.fn[0]}"


def _before(labels: NDArray[np.integer], last: float) -> NDArray[np.integer]:
    """Labels without the objects whose centre lies beyond a plane along x."""
    numbers = np.unique(labels[labels > 0])
    centres = ndimage.center_of_mass(labels > 0, labels, numbers) if len(numbers) else []
    kept = [n for n, centre in zip(numbers, centres, strict=True) if centre[2] < last]
    return np.where(np.isin(labels, kept), labels, 0)


def _beside(factor: float) -> Callable[[Truth], Truth]:
    """A copy beside the volume, so many times brighter."""

    def change(truth: Truth) -> Truth:
        image = truth.image.astype(np.float32)
        return replace(truth, image=np.concatenate([image, np.float32(factor) * image], axis=2))

    return change


def _fading(truth: Truth) -> Truth:
    """A mirrored copy beside the volume, brighter and brighter."""
    image = truth.image.astype(np.float32)
    gain = 100.0 ** (np.arange(image.shape[2], dtype=np.float32) / image.shape[2])
    return replace(truth, image=np.concatenate([image, image[:, :, ::-1] * gain], axis=2))


CONDITIONS: dict[str, Callable[[Truth], Truth]] = {
    "alone": lambda truth: truth,
    "beside 1": _beside(1.0),
    "beside 10": _beside(10.0),
    "beside 30": _beside(30.0),
    "fading 100": _fading,
}
"""What lies beside the volume that is scored."""

if __name__ == "__main__":
    main()
