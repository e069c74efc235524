"""Images to segment, made on the spot: phantoms, and mosaics that fill a cube by mirroring.

Nothing is needed but what the package itself needs: a machine that is lent may have no more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive import arrays, nodes
from anystar_batch.archive.ngff import ArrayInfo
from anystar_batch.engine.machine import usable_cores
from anystar_batch.geometry import ZYXFloat
from anystar_batch.parsing import Quantity, parse_diameter
from bench.gpu.sizes import Scene, Sizes
from bench.mosaic import SETS, mirrored
from trainer.synthesis.config import SampleConfig
from trainer.synthesis.phantom import Phantom
from trainer.synthesis.phantom_zarr import document, write
from trainer.volumes import Truth, synthetic

REAL = "bbbc050"
"""The set of real images of which a mosaic is made."""


def real_scene(scene: Scene) -> Scene:
    """Return the scene with a mosaic's kind decided: real images where they are at hand."""
    if scene.kind != "mosaic":
        return scene
    return replace(scene, kind=REAL if os.environ.get("ANYSTAR_BATCH_DATA") else "synthetic")


def make(scene: Scene, folder: Path) -> tuple[Path, Quantity, float]:
    """Return an image, made if it is not there, its objects' diameter, and the seconds it took.

    An image that another process makes is waited for.

    Parameters
    ----------
    scene : Scene
    folder : Path
    """
    path, began = folder / f"{scene.kind}-{scene.size}-r{scene.radius:g}.ome.zarr", time.monotonic()
    with alone(path):
        diameter = _made(scene, path)
    return path, diameter, round(time.monotonic() - began, 2)


def make_all(sizes: Sizes, folder: Path) -> None:
    """Make every image, in the order in which they are wanted."""
    for scene in (Scene("dense", sizes.bytes_edge), *sizes.scenes, sizes.shell):
        make(real_scene(scene), folder)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes an image; a process that dies makes none."""
    with path.with_name(f".{path.name}.making").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(scene: Scene, path: Path) -> Quantity:
    """Make an image if it is not there; return its objects' diameter."""
    if scene.kind in ("dense", "sparse"):
        if not path.exists():
            phantom = Phantom((scene.size,) * 3, scene.radius, scene.kind)
            write(phantom, path, workers=max(1, min(usable_cores(), scene.size**3 // 128**3)))
        return parse_diameter(f"{2 * scene.radius:g}px")
    truth = samples() if scene.kind == "synthetic" else SETS[scene.kind]()[0]
    if not path.exists():
        write_image(path, mirrored(truth.image, scene.size), truth.voxel)
    return Quantity(truth.diameter(), "um")


def samples() -> Truth:
    """Return eight of the trainer's samples as one volume of 96^3 voxels."""
    made = synthetic(1_000_003, 8, SampleConfig.preset("as-mix"))
    labels = [t.labels.astype(np.int64) + 1000 * n * (t.labels > 0) for n, t in enumerate(made)]
    return Truth("synthetic", cube([t.image for t in made]), cube(labels))


def cube(eight: list[NDArray[Any]]) -> NDArray[Any]:
    """Return eight volumes as one, two along each axis."""
    return np.concatenate(
        [
            np.concatenate([np.concatenate(eight[n : n + 2], 2) for n in (k, k + 2)], 1)
            for k in (0, 4)
        ]
    )


def write_image(path: Path, volume: NDArray[Any], voxel: ZYXFloat) -> None:
    """Write a volume as OME-Zarr 0.5 of one level.

    Parameters
    ----------
    path : Path
        New.
    volume : (z, y, x)
    voxel : (z, y, x)
        Size of a voxel, micrometres.
    """
    draft = path.with_name(f".{path.name}.partial")
    edges = tuple(min(64, n) for n in volume.shape)
    info = ArrayInfo(volume.shape, edges, None, volume.dtype.name)
    told = document(path.name, (info,))
    (level,) = told["multiscales"][0]["datasets"]
    level["coordinateTransformations"] = [{"type": "scale", "scale": list(voxel)}]
    nodes.write_attributes(str(draft), 3, {"ome": told})
    arrays.create_array(f"{draft}/0", 3, info, ("z", "y", "x"))
    array: Any = arrays.open_array(f"{draft}/0", 3, "r+")
    array[...] = volume
    draft.rename(path)
