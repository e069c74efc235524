"""Quality of the bundled model through the real command: `python -m bench.quality OUT [PART ...]`.

Every volume is written as OME-Zarr with its voxel size and segmented by the pipeline behind
`anystar-batch segment`. Scores are those of all objects of a set together. The parts, all of them
if none is named::

    sets      defaults, and the diameter given, against two classical methods (default and best)
    scales    accuracy over the working scale: what the probe chose, what a search would choose
    inverted  the same images, dark for bright
    blur      isotropic in micrometres, 0 to 4 voxels of the plane
    noise     Gaussian, as a share of the image's range
    pasted    beside a copy ten times brighter
    conventions  surfaces where the set's labels end, chosen on volumes that are not scored
    unlabelled  volumes without truth: counts, and overlays to look at

OUT receives `PART.json`, `PART.png`, `PART.md`, overlays and the images.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from ome_zarr.writer import write_image, write_labels
from scipy import ndimage

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.geometry import Box
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.segment import segment
from anystar_batch.report.pictures import draw_overlay
from bench.figures import curves, table
from trainer.baseline import DEFAULTS, DIAMETER, GRIDS, Method
from trainer.matches import Tally, match
from trainer.volumes import Truth, bbbc050, data_folder, gonuclear, tgmm

UNLABELLED = {
    "xbrain micro-CT": ("nogt_xbrain_microct_mouse", (1.0, 1.0, 1.0)),
    "neubias nuclei": ("nogt_neubias_nuclei", (4.0, 0.83, 0.83)),
    "cellseg3d c5": ("nogt_cellseg3d_c5", (1.0, 1.0, 1.0)),
}
"""Folder and voxel size of the sets to look at."""

FACTORS = (0.5, 0.63, 0.79, 1.0, 1.26, 1.59, 2.0)
"""Diameters searched, over the true median."""

BLURS = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Widths of the Gaussian, voxels of the plane."""

NOISES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations, over the range from percentile 1 to 99.9."""

Sets = dict[str, list[Truth]]

Surface = tuple[float | None, float]
"""Share of `--outline` (None: visible), and `--expand` in micrometres."""

SHARES = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Outlines among which a set's convention is looked for."""

SHIFTS = (-0.12, -0.08, -0.04, 0.025, 0.05, 0.075)
"""Expansions, over the diameter of the objects, likewise."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Parameters
    ----------
    set, how : str
        Which volumes, segmented how.
    at : float
        Position along a curve; 0 where there is none.
    tally : Tally
    diameter : float
        Median of the diameters the runs worked with, micrometres; 0 for other methods.
    true_diameter : float
        Median of the volumes' true median diameters, micrometres.
    """

    set: str
    how: str
    tally: Tally
    at: float = 0.0
    diameter: float = 0.0
    true_diameter: float = 0.0

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        tally = self.tally
        return {
            "set": self.set,
            "how": self.how,
            "at": self.at,
            "true": tally.tp[0] + tally.fn[0],
            "found": tally.tp[0] + tally.fp[0],
            "accuracy": [round(v, 4) for v in tally.accuracy()],
            "f1": [round(v, 4) for v in tally.f1()],
            "mean_accuracy": round(tally.mean_accuracy(), 4),
            "precision": round(tally.precision(), 4),
            "recall": round(tally.recall(), 4),
            "volume_ratio": round(float(np.median(tally.ratio)), 3) if tally.ratio else None,
            "diameter": round(self.diameter, 3),
            "true_diameter": round(self.true_diameter, 3),
        }


@dataclass(frozen=True, slots=True)
class Bench:
    """Where results go and which model is asked.

    Parameters
    ----------
    out : Path
    model : str
    refine : str
        Whether there is a second look: auto, on or off.
    limits : str
        Intensity limits: global or local.
    elongation : float or None
        Length of the objects along z over that across, where their diameter is given.
    rows : dict
        What was scored: several parts ask for the same.
    """

    out: Path
    model: str
    refine: str = "auto"
    limits: str = "global"
    elongation: float | None = None
    rows: dict[tuple[str, str, float], Row] = field(default_factory=dict)

    def run(
        self, truth: Truth, tag: str, diameter: float | None, surface: Surface = (None, 0.0)
    ) -> tuple[NDArray[np.uint32], float]:
        """Segment one volume as a user would.

        Parameters
        ----------
        truth : Truth
        tag : str
            Tells this run from others over the same volume.
        diameter : float or None
            Micrometres; None lets the probe choose.
        surface : (outline, expand)
            The share of `--outline`, and `--expand` in micrometres.

        Returns
        -------
        labels : (z, y, x)
        diameter : float
            Worked with, micrometres.
        """
        stem = f"{truth.name}.{tag}"
        path = self.out / "images" / f"{stem if tag not in PLAIN else truth.name}.ome.zarr"
        if not path.exists():
            write_truth(path, truth)
        config = SegmentConfig(
            image=str(path),
            output=str(self.out / "results"),
            stem=stem,
            model=self.model,
            result=ResultConfig(
                diameter=None if diameter is None else Quantity(diameter, "um"),
                refine=self.refine,
                limits=self.limits,
                elongation=None if diameter is None else self.elongation,
                outline=surface[0],
                expand=Quantity(surface[1], "um") if surface[1] else None,
            ),
            run=RunConfig(overwrite=True, restart=True),
        )
        summary = segment(config)
        results = self.out / "results"
        if tag == "default":
            draw_overlay(str(path), summary.label, results / f"{stem}.png")
        record = json.loads((results / f"{stem}.anystar.run.json").read_text())
        label = read_image(str(results / f"{stem}.anystar.ome.zarr"))
        found = ImageReader(label).read_box(0, 0, 0, Box.of_shape(label.shape_zyx(0)))
        return found, float(record["plan"]["diameter_um"])

    def row(
        self,
        name: str,
        how: str,
        truths: Sequence[Truth],
        diameter: float | None,
        at: float = 0.0,
        surface: Surface = (None, 0.0),
    ) -> Row:
        """Segment and score a set, once."""
        if (name, how, at) in self.rows:
            return self.rows[name, how, at]
        total, used = Tally(), []
        tag = how.replace(" ", "_") + (f"_{at:g}" if at else "")
        for truth in truths:
            found, size = self.run(truth, tag, diameter, surface)
            # A pasted volume shows its truth in a part of the image.
            seen = found[tuple(slice(n) for n in truth.labels.shape)]
            total = total + match(truth.labels, seen)
            used.append(size)
        row = Row(name, how, total, at, float(np.median(used)), _diameter(truths))
        self.rows[name, how, at] = row
        return _shown(row)


PLAIN = ("default", "given")
"""Runs over the image as it is."""


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART")
    parser.add_argument("--model", default="anystar-mix")
    parser.add_argument("--refine", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--limits", default="global", choices=["global", "local"])
    parser.add_argument("--elongation", type=float, help="where the diameter is given")
    parser.add_argument("--embryos", type=int, nargs="*", default=list(range(5, 12)))
    parser.add_argument("--times", type=int, nargs="*", default=[401, 451, 501])
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown parts {unknown}; expected some of {', '.join(PARTS)}")
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    span = f"{min(options.embryos)} to {max(options.embryos)}"
    sets: Sets = {
        f"BBBC050, embryos {span}": bbbc050(options.embryos, options.times),
        "GoNuclear 1135": gonuclear(),
        "tgmm drosophila": tgmm(),
    }
    bench = Bench(options.out, options.model, options.refine, options.limits, options.elongation)
    for part in options.parts:
        rows = [row.to_json() for row in PARTS[part](bench, sets)]
        (options.out / f"{part}.json").write_text(json.dumps(rows, indent=1))
        (options.out / f"{part}.md").write_text(table(rows))
        if part in AXES:
            curves(options.out / f"{part}.png", rows, AXES[part])


def score_sets(bench: Bench, sets: Sets) -> list[Row]:
    """Score defaults, the given diameter, and the classical methods."""
    rows = []
    for name, truths in sets.items():
        rows.append(bench.row(name, "default", truths, None))
        rows.append(bench.row(name, "given", truths, _diameter(truths)))
        for method, settings in GRIDS.items():
            plain = _classical(truths, DEFAULTS[method])
            every = [_classical(truths, setting) for setting in settings]
            best = max(every, key=lambda tally: tally.accuracy()[2])
            rows.append(_shown(Row(name, f"{method}, defaults", plain)))
            rows.append(_shown(Row(name, f"{method}, best of {len(every)}", best)))
    return rows


def score_scales(bench: Bench, sets: Sets) -> list[Row]:
    """Score every diameter of the search, and what the probe chose."""
    rows = []
    for name, truths in sets.items():
        true = _diameter(truths)
        rows += [bench.row(name, "searched", truths, f * true, f) for f in FACTORS]
        probed = bench.row(name, "default", truths, None)
        rows.append(replace(probed, how="probed", at=probed.diameter / true))
    return rows


def score_inverted(bench: Bench, sets: Sets) -> list[Row]:
    """Score images dark for bright."""
    rows = []
    for name, truths in sets.items():
        rows.append(bench.row(name, "default", truths, None))
        turned = [replace(t, image=t.image.max() - t.image) for t in truths]
        rows.append(bench.row(name, "inverted", turned, None))
    return rows


def score_blur(bench: Bench, sets: Sets) -> list[Row]:
    """Score images blurred more and more, at the given diameter."""

    def blurred(truth: Truth, sigma: float) -> Truth:
        widths = [sigma * truth.voxel[2] / v for v in truth.voxel]
        soft = ndimage.gaussian_filter(truth.image.astype(np.float32), widths)
        return replace(truth, image=soft)

    return _along(bench, sets, "blurred", BLURS, blurred)


def score_noise(bench: Bench, sets: Sets) -> list[Row]:
    """Score images with more and more noise, at the given diameter."""

    def noisy(truth: Truth, share: float) -> Truth:
        low, high = np.percentile(truth.image, (1.0, 99.9))
        rng = np.random.default_rng(7)
        grain = rng.standard_normal(truth.image.shape, np.float32) * np.float32(
            share * (high - low)
        )
        return replace(truth, image=truth.image.astype(np.float32) + grain)

    return _along(bench, sets, "noisy", NOISES, noisy)


def score_pasted(bench: Bench, sets: Sets) -> list[Row]:
    """Score images beside a copy of themselves that is ten times brighter."""
    rows = []
    for name, truths in sets.items():
        rows.append(bench.row(name, "given", truths, _diameter(truths)))
        wide = [
            replace(t, image=np.concatenate([t.image, 10.0 * t.image], axis=2).astype(np.float32))
            for t in truths
        ]
        rows.append(bench.row(name, "pasted", wide, _diameter(truths)))
    return rows


def score_conventions(bench: Bench, sets: Sets) -> list[Row]:
    """Score surfaces put where the set's labels end, the diameter given.

    Where labels end is chosen on volumes that are not scored: on embryos 1 to 4 at the same times
    for the other embryos, on one half of the other images for the other half, and the other way
    round.
    """
    rows = []
    for name, truths in sets.items():
        diameter = _diameter(truths)
        seen, matched = Tally(), Tally()
        for number, (choice, scored) in enumerate(_choices(name, truths)):
            surface = _convention(bench, f"{name} choice {number}", choice, diameter)
            part = f"{name} part {number}"
            seen = seen + bench.row(part, "given", scored, diameter).tally
            how = "convention" if surface != VISIBLE else "given"
            chosen = bench.row(part, how, scored, diameter, surface=surface)
            print(f"{part}: outline {surface[0] or 'visible'}, expand {surface[1]:+.3g} um")
            matched = matched + chosen.tally
        rows.append(_shown(Row(name, "visible surface", seen, diameter=diameter)))
        rows.append(_shown(Row(name, "the set's convention", matched, diameter=diameter)))
    return rows


VISIBLE: Surface = (None, 0.0)
"""The default."""


def _choices(name: str, truths: Sequence[Truth]) -> list[tuple[list[Truth], list[Truth]]]:
    """What to choose on, and what to score with that."""
    if name.startswith("BBBC050"):
        times = sorted({int(truth.name.rpartition("t")[2]) for truth in truths})
        return [(bbbc050([1, 2, 3, 4], times), list(truths))]
    halves = [[_half(truth, side) for truth in truths] for side in (0, 1)]
    return [(halves[0], halves[1]), (halves[1], halves[0])]


def _half(truth: Truth, side: int) -> Truth:
    """One half of a volume along its last axis."""
    middle = truth.image.shape[2] // 2
    part = slice(middle) if side == 0 else slice(middle, None)
    cut = replace(truth, image=truth.image[:, :, part], labels=truth.labels[:, :, part])
    return replace(cut, name=f"{truth.name}_half{side}")


def _convention(bench: Bench, name: str, truths: Sequence[Truth], diameter: float) -> Surface:
    """The surface with most objects right at IoU 0.5 and 0.7; of equal ones the visible."""
    surfaces: list[Surface] = [VISIBLE, *((share, 0.0) for share in SHARES)]
    surfaces += [(None, shift * diameter) for shift in SHIFTS]

    def worth(surface: Surface) -> float:
        how = "given" if surface == VISIBLE else f"outline {surface[0]} expand {surface[1]:.3g}"
        tally = bench.row(name, how, truths, diameter, surface=surface).tally
        return sum(tally.accuracy()[2:])

    return max(surfaces, key=worth)


def show_unlabelled(bench: Bench, _sets: Sets) -> list[Row]:
    """Count what is found where there is no truth; the overlays are to be looked at."""
    rows = []
    for name, (folder, voxel) in UNLABELLED.items():
        path = next((data_folder() / folder).glob("*image.tif"))
        image = tifffile.imread(path)
        truth = Truth(name.replace(" ", "_"), image, np.zeros(image.shape, np.int32), voxel)
        found, size = bench.run(truth, "default", None)
        tally = match(truth.labels, found)
        rows.append(_shown(Row(name, "default", tally, diameter=size)))
    return rows


PARTS: dict[str, Callable[[Bench, Sets], list[Row]]] = {
    "sets": score_sets,
    "scales": score_scales,
    "inverted": score_inverted,
    "blur": score_blur,
    "noise": score_noise,
    "pasted": score_pasted,
    "conventions": score_conventions,
    "unlabelled": show_unlabelled,
}
"""What can be asked for."""

AXES = {
    "scales": "diameter worked with, over the true one",
    "blur": "blur, voxels of the plane",
    "noise": "noise, share of the image's range",
}
"""Names of the axis of the parts that are curves."""


def _along(
    bench: Bench,
    sets: Sets,
    how: str,
    values: Sequence[float],
    change: Callable[[Truth, float], Truth],
) -> list[Row]:
    """Score a set at every value of a change, ours and Otsu's."""
    rows = []
    for name, truths in sets.items():
        true = _diameter(truths)
        for value in values:
            changed = [change(t, value) for t in truths]
            rows.append(bench.row(name, how, changed, true, value))
            tally = _classical(changed, DEFAULTS["Otsu + watershed"])
            rows.append(_shown(Row(name, "Otsu + watershed", tally, value)))
    return rows


def _classical(truths: Sequence[Truth], method: Method) -> Tally:
    """Tally of a classical method at its working size."""
    return sum((match(t.labels, method.segment(t, DIAMETER)) for t in truths), Tally())


def _diameter(truths: Sequence[Truth]) -> float:
    """Median over volumes of the true median diameter, micrometres."""
    return float(np.median([t.diameter() for t in truths]))


def write_truth(path: Path, truth: Truth, *, with_labels: bool = False) -> None:
    """Write a volume as OME-Zarr with its voxel size.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    truth : Truth
    with_labels : bool
        Whether its labels go with it, as the label `truth`.
    """
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    common: dict[str, Any] = {
        "axes": "zyx",
        "scale": dict(zip("zyx", truth.voxel, strict=True)),
        "axes_units": dict.fromkeys("zyx", "micrometer"),
        "scale_factors": [],
    }
    write_image(truth.image, group, scaler=None, **common)
    if with_labels:
        write_labels(truth.labels, group, "truth", scaler=None, **common)


def _shown(row: Row) -> Row:
    print(json.dumps(row.to_json()), flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
