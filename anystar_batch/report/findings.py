"""Everything a page shows, gathered from what is published: label, table, run record, image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.archive.images import read_image
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.geometry import ZYXFloat, as_triple
from anystar_batch.report.digest import Digest, Frame, digest_table
from anystar_batch.report.seams import BorderGrid, SeamTest, seam_tests
from anystar_batch.report.views import Volume
from anystar_batch.report.warnings import threshold_of, warnings_of


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of a published result without looking at a voxel.

    Parameters
    ----------
    record : dict
        The run record.
    source : ImageSource
        The image.
    frame : Frame
        Where the instances lie.
    digest : Digest
        Of the table.
    grids : tuple of BorderGrid
        Where work was cut.
    seams : tuple of SeamTest
        What the grids have left.
    warnings : tuple of str
        What may be wrong, judged from all this.
    review : dict or None
        What a person said of a sample, as `measure.review.judge` gives it, with its `instances`.
    """

    record: Mapping[str, Any]
    source: ImageSource
    frame: Frame
    digest: Digest
    grids: tuple[BorderGrid, ...]
    seams: tuple[SeamTest, ...]
    warnings: tuple[str, ...]
    review: Mapping[str, Any] | None = None

    @property
    def volume(self) -> Volume:
        """Image and label, to be read."""
        plan = self.record["plan"]
        label = str(self.record["summary"]["label"])
        return Volume(self.source, label, int(plan["channel"]), self.frame.scale_um)

    @property
    def extent(self) -> ZYXFloat:
        """Extent of a typical instance, level-0 voxels."""
        z, y, x = (max(1.0, v) for v in self.digest.extent)
        return z, y, x

    @property
    def time(self) -> int:
        """The time point that is shown: of those with most instances the first."""
        return int(np.argmax(self.digest.per_time))

    def to_json(self) -> dict[str, Any]:
        """Return what was judged as plain JSON values, for the run record."""
        return {
            "warnings": list(self.warnings),
            "touching_border": self.digest.touching,
            "touching_border_expected": round(self.digest.touching_expected, 1),
            "near_threshold": self.digest.doubtful,
            "seams": [one.to_json() for one in self.seams],
        }


def gather(
    record: Mapping[str, Any], table: Path, review: Mapping[str, Any] | None = None
) -> Findings:
    """Read the table and judge the result.

    Parameters
    ----------
    record : mapping
        The run record.
    table : Path
        The CSV file.
    review : mapping, optional
        What a person said of this very label.

    Raises
    ------
    AnyStarBatchError
        If table or image cannot be read.
    KeyError
        If the record is of an older version.
    """
    plan = record["plan"]
    multiscale = plan.get("multiscale", {}).get("index", 0)
    unused = tuple(int(k) for k in plan.get("unused_levels") or ())
    source = replace(read_image(str(record["summary"]["image"]), multiscale), unused=unused)
    z, y, x = plan["voxel_size_um"]
    frame = Frame(
        shape=source.shape_zyx(0),
        scale_um=(z, y, x),
        channel=source.channels[plan["channel"]],
        threshold=threshold_of(record),
        times=source.num_times,
    )
    digest = digest_table(table, frame)
    borders = record["borders"]
    grids = tuple(
        BorderGrid(one["name"], as_triple(one["step"]), as_triple(one["first"]))
        for one in borders["grids"]
    )
    extent = as_triple([max(1.0, v) for v in digest.extent])
    seams = tuple(seam_tests(digest.profiles, grids, extent, as_triple(borders["period"])))
    warned = warnings_of(digest, record, seams, source.levels[0].dtype)
    return Findings(record, source, frame, digest, grids, seams, tuple(warned), review)
