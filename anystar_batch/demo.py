"""A first look without data of one's own: segment a small volume that ships with a dependency."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.config import RunConfig, SegmentConfig
from anystar_batch.errors import OutputError
from anystar_batch.events import Listener
from anystar_batch.examples import nuclei, write_example
from anystar_batch.pipeline import segment
from anystar_batch.record import Summary
from anystar_batch.report.overlay import draw_overlay

VOXEL_UM = (1.0, 1.0, 1.0)
"""Voxel size written for the volume, (z, y, x); its makers state none, one micrometre stands in."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo left behind.

    Parameters
    ----------
    summary : Summary
        Of the run.
    overlay : Path
        Picture of the volume with the outlines of the instances.
    """

    summary: Summary
    overlay: Path


def run_demo(folder: Path, on_event: Listener) -> Demo:
    """Write a volume as OME-Zarr, segment it with the bundled model, draw what was found.

    Parameters
    ----------
    folder : Path
        Where to; an earlier demo there is replaced.
    on_event : callable
        Told of every stage.

    Returns
    -------
    Demo

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds something else.
    """
    image = folder / "nuclei.ome.zarr"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if image.exists():
            shutil.rmtree(image)
    except OSError as error:
        message = f"{folder}: cannot be written ({error.strerror}); give another folder"
        raise OutputError(error.errno, message) from error
    write_example(image, nuclei(), VOXEL_UM)
    config = SegmentConfig(
        image=os.path.abspath(image),  # noqa: PTH100  (keeps links)
        run=RunConfig(overwrite=True, restart=True),
    )
    summary = segment(config, on_event)
    overlay = folder / "overlay.png"
    draw_overlay(config.image, summary.label, overlay)
    return Demo(summary, overlay)
