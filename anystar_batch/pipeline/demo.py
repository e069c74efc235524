"""A first look without data of one's own: segment a small volume that ships with a dependency."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from anystar_batch.config import RunConfig, SegmentConfig
from anystar_batch.errors import OutputError
from anystar_batch.events import Listener
from anystar_batch.geometry import ZYX, ZYXFloat, iter_grid
from anystar_batch.pipeline.run_record import Summary
from anystar_batch.pipeline.segment import segment
from anystar_batch.report.pictures import draw_overlay

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


def write_example(path: Path, volume: NDArray[Any], voxel_um: ZYXFloat) -> None:
    """Write a volume as OME-Zarr 0.5 of two levels.

    Parameters
    ----------
    path : Path
        The image to make.
    volume : (z, y, x)
    voxel_um : (z, y, x)
        Size of a voxel, micrometres.
    """
    from ome_zarr.writer import write_image  # noqa: PLC0415  (3 s)

    write_image(
        volume,
        zarr.open_group(str(path), mode="w", zarr_format=3),
        axes="zyx",
        scale=dict(zip("zyx", voxel_um, strict=True)),
        axes_units=dict.fromkeys("zyx", "micrometer"),
        scale_factors=[{"z": 1, "y": 2, "x": 2}],
        scaler=None,
    )


def nuclei() -> NDArray[np.uint16]:
    """Return StarDist's 3D test volume of nuclei, uint16 (31, 61, 57), no voxel size stated.

    Raises
    ------
    OutputError
        If StarDist is not installed: its package holds the volume.
    """
    spec = find_spec("stardist")
    if spec is None or spec.origin is None:  # a dependency: pip would have to be overruled
        message = "stardist is not installed; the demo's volume comes with it"
        raise OutputError(message)
    with Image.open(Path(spec.origin).parent / "data" / "images" / "img3d.tif") as stack:
        planes = []
        for k in range(getattr(stack, "n_frames", 1)):
            stack.seek(k)
            planes.append(np.asarray(stack))
    return np.stack(planes)


class Phantom(NamedTuple):
    """A made-up volume and its truth.

    Parameters
    ----------
    image : uint16 (z, y, x)
        Bright ellipsoids, blurred, with noise.
    labels : uint32 (z, y, x)
        1..n; 0 is background.
    voxel_um : (z, y, x)
        Size of a voxel, micrometres: planes are twice as far apart.
    diameter_um : float
        Diameter of a typical object, micrometres.
    """

    image: NDArray[np.uint16]
    labels: NDArray[np.uint32]
    voxel_um: ZYXFloat
    diameter_um: float


def phantom(shape: ZYX = (64, 256, 256), seed: int = 0) -> Phantom:
    """Make ellipsoids of 7 micrometres that do not touch.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels.
    seed : int
        Same seed, same volume.

    Returns
    -------
    Phantom
    """
    rng = np.random.default_rng(seed)
    voxel_um, diameter_um, spacing = (1.0, 0.5, 0.5), 7.0, 11.0
    extent = np.array(shape) * voxel_um
    sites = np.maximum(1, extent // spacing).astype(int)
    labels, brightness = np.zeros(shape, np.uint32), [0.0]
    for site in iter_grid((int(sites[0]), int(sites[1]), int(sites[2]))):
        jitter, axes, level = rng.uniform(-1.0, 1.0, 3), rng.uniform(0.85, 1.15, 3), rng.random()
        if rng.random() < 0.3:
            continue
        centre = (np.array(site) + 0.5) * extent / sites + jitter
        half = diameter_um / 2 * axes
        start = np.maximum(np.floor((centre - half) / voxel_um).astype(int), 0)
        stop = np.minimum(np.ceil((centre + half) / voxel_um).astype(int) + 1, shape)
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        grid = np.moveaxis(np.indices(stop - start), 0, -1) + start
        inside = ((((grid + 0.5) * voxel_um - centre) / half) ** 2).sum(-1) <= 1.0
        brightness.append(300.0 + 200.0 * level)
        labels[box][inside] = len(brightness) - 1
    sharp = np.array(brightness)[labels] + 100.0
    image = ndimage.gaussian_filter(sharp, (0.6, 1.2, 1.2)) + rng.normal(0.0, 20.0, shape)
    return Phantom(np.clip(image, 0, None).astype(np.uint16), labels, voxel_um, diameter_um)
