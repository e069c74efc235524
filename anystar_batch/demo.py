"""A first look without data of one's own: segment a small volume that ships with a dependency."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import zarr
from PIL import Image

from anystar_batch.config import RunConfig, SegmentConfig
from anystar_batch.errors import OutputError
from anystar_batch.events import Listener
from anystar_batch.pipeline import Summary, segment
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
    write_demo_image(image)
    config = SegmentConfig(
        image=os.path.abspath(image),  # noqa: PTH100  (keeps links)
        run=RunConfig(overwrite=True, restart=True),
    )
    summary = segment(config, on_event)
    overlay = folder / "overlay.png"
    draw_overlay(config.image, summary.label, overlay)
    return Demo(summary, overlay)


def write_demo_image(path: Path) -> None:
    """Write StarDist's 3D test volume of nuclei (31 x 61 x 57) as OME-Zarr 0.5 of two levels."""
    from ome_zarr.writer import write_image  # noqa: PLC0415  (3 s)

    spec = find_spec("stardist")
    if spec is None or spec.origin is None:  # a dependency: pip would have to be overruled
        message = "stardist is not installed; the demo's volume comes with it"
        raise OutputError(message)
    with Image.open(Path(spec.origin).parent / "data" / "images" / "img3d.tif") as stack:
        planes = []
        for k in range(getattr(stack, "n_frames", 1)):
            stack.seek(k)
            planes.append(np.asarray(stack))
    write_image(
        np.stack(planes),
        zarr.open_group(str(path), mode="w", zarr_format=3),
        axes="zyx",
        scale=dict(zip("zyx", VOXEL_UM, strict=True)),
        axes_units=dict.fromkeys("zyx", "micrometer"),
        scale_factors=[{"z": 1, "y": 2, "x": 2}],
        scaler=None,
    )
