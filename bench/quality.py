"""Every real set through the real command, against Otsu: `python -m bench.quality OUT`.

The volumes are written as OME-Zarr with their voxel size and segmented by `anystar-batch segment`
as a user would: once with defaults (the probe chooses the scale) and once with the diameter given
(of the set's median object). Scores are those of all objects of a set together. OUT receives
overlays, tables, `quality.json` and a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
import zarr
from ome_zarr.writer import write_image

from anystar_batch.archive.store import ImageReader, read_image
from anystar_batch.config import Diameter, ResultConfig, RunConfig, SegmentConfig
from anystar_batch.geometry import Box
from anystar_batch.pipeline import segment
from anystar_batch.report.overlay import draw_overlay
from trainer.baseline import otsu_watershed
from trainer.score import Tally, Truth, bbbc050, data_folder, gonuclear, match, tgmm

UNLABELLED = {
    "xbrain micro-CT": ("nogt_xbrain_microct_mouse", (1.0, 1.0, 1.0)),
    "neubias nuclei": ("nogt_neubias_nuclei", (4.0, 0.83, 0.83)),
    "cellseg3d c5": ("nogt_cellseg3d_c5", (1.0, 1.0, 1.0)),
}
"""Folder and voxel size of the sets to look at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="anystar-mix")
    parser.add_argument("--embryos", type=int, nargs="*", default=list(range(5, 12)))
    parser.add_argument("--times", type=int, nargs="*", default=[401, 451, 501])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sets = {
        "BBBC050, embryos " + _span(options.embryos): bbbc050(options.embryos, options.times),
        "GoNuclear 1135": gonuclear(),
        "tgmm drosophila": tgmm(),
    }
    rows = []
    for name, truths in sets.items():
        diameter = float(np.median([t.diameter() for t in truths]))
        for how in ("default", "diameter given"):
            given = None if how == "default" else diameter
            rows.append(_row(name, how, truths, _ours(truths, given, options)))
            _show(rows[-1])
        base = sum((match(t.labels, otsu_watershed(t, 14.0)) for t in truths), Tally())
        rows.append(_row(name, "Otsu + watershed", truths, (base, 0.0)))
        _show(rows[-1])
    for name, (folder, voxel) in UNLABELLED.items():
        path = next((data_folder() / folder).glob("*image.tif"))
        image = tifffile.imread(path)
        truth = Truth(name.replace(" ", "_"), image, np.zeros(image.shape, np.int32), voxel)
        found, probed = _segment(truth, None, options)
        rows.append({"set": name, "how": "default", "found": found, "diameter": probed})
        _show(rows[-1])
    (options.out / "quality.json").write_text(json.dumps(rows, indent=1))
    (options.out / "quality.md").write_text(_markdown(rows))


def _ours(
    truths: Sequence[Truth], diameter: float | None, options: argparse.Namespace
) -> tuple[Tally, float]:
    """Tally of a set, and the median diameter the runs worked with."""
    tally, diameters = Tally(), []
    for truth in truths:
        _, probed = _segment(truth, diameter, options)
        diameters.append(probed)
        label = read_image(str(options.out / f"{_stem(truth, diameter)}.anystar.ome.zarr"))
        found = ImageReader(label).read_box(0, 0, 0, Box.of_shape(label.shape_zyx(0)))
        tally = tally + match(truth.labels, found)
    return tally, float(np.median(diameters))


def _segment(
    truth: Truth, diameter: float | None, options: argparse.Namespace
) -> tuple[int, float]:
    """Segment one volume, draw it; return instances and the diameter worked with."""
    path = options.out / "images" / f"{truth.name}.ome.zarr"
    if not path.exists():
        group = zarr.open_group(str(path), mode="w", zarr_format=3)
        scale = dict(zip("zyx", truth.voxel, strict=True))
        units = dict.fromkeys("zyx", "micrometer")
        write_image(
            truth.image,
            group,
            axes="zyx",
            scale=scale,
            axes_units=units,
            scale_factors=[],
            scaler=None,
        )
    stem = _stem(truth, diameter)
    config = SegmentConfig(
        image=str(path),
        output=str(options.out),
        stem=stem,
        model=options.model,
        result=ResultConfig(diameter=None if diameter is None else Diameter(diameter, "um")),
        run=RunConfig(overwrite=True, restart=True),
    )
    summary = segment(config)
    draw_overlay(str(path), summary.label, options.out / f"{stem}.png")
    record = json.loads((options.out / f"{stem}.anystar.run.json").read_text())
    return summary.instances, float(record["plan"]["diameter_um"])


def _stem(truth: Truth, diameter: float | None) -> str:
    return f"{truth.name}.{'default' if diameter is None else 'given'}"


def _row(
    name: str, how: str, truths: Sequence[Truth], scored: tuple[Tally, float]
) -> dict[str, object]:
    tally, diameter = scored
    return {
        "set": name,
        "how": how,
        "volumes": len(truths),
        "true": tally.tp[0] + tally.fn[0],
        "found": tally.tp[0] + tally.fp[0],
        "accuracy": [round(v, 3) for v in tally.accuracy()],
        "f1": [round(v, 3) for v in tally.f1()],
        "volume_ratio": round(float(np.median(tally.ratio)), 3) if tally.ratio else None,
        "diameter": round(diameter, 2),
        "true_diameter": round(float(np.median([t.diameter() for t in truths])), 2),
    }


def _markdown(rows: Sequence[dict[str, object]]) -> str:
    lines = [
        "| set | how | true | found | accuracy at IoU .1 / .3 / .5 / .7 | F1 at .5 | volume ratio "
        "| diameter used (true) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "accuracy" not in row:
            start = f"| {row['set']} | {row['how']} | - | {row['found']}"
            lines.append(f"{start} | | | | {row['diameter']:.3g} |")
            continue
        accuracy = " / ".join(f"{v:.3f}" for v in row["accuracy"])  # type: ignore[attr-defined]
        used = f"{row['diameter']} ({row['true_diameter']})" if row["diameter"] else "-"
        lines.append(
            f"| {row['set']} | {row['how']} | {row['true']} | {row['found']} | {accuracy} "
            f"| {row['f1'][2]:.3f} | {row['volume_ratio']} | {used} |"  # type: ignore[index]
        )
    return "\n".join(lines) + "\n"


def _show(row: dict[str, object]) -> None:
    print(json.dumps(row), flush=True)


def _span(numbers: Sequence[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}"


if __name__ == "__main__":
    sys.exit(main())
