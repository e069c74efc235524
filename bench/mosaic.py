"""Real volumes, mirrored until they fill a cube: images of any size with real density and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.network.resample import reflected
from trainer.volumes import Truth, bbbc050, gonuclear, tgmm

SETS: dict[str, Callable[[], list[Truth]]] = {
    "bbbc050": lambda: bbbc050([1], [451]),
    "gonuclear": gonuclear,
    "tgmm": tgmm,
}
"""One volume of every labelled set."""


def mosaic(name: str, size: int, path: Path) -> float:
    """Write the cube as OME-Zarr, if it is not there; return the median object's diameter.

    Parameters
    ----------
    name : str
        One of `SETS`.
    size : int
        Edge of the cube, voxels.
    path : Path

    Returns
    -------
    float
        Micrometres.
    """
    truth = SETS[name]()[0]
    if not path.exists():
        from bench.quality import write_truth  # loads ome-zarr

        write_truth(path, replace(truth, image=mirrored(truth.image, size)))
    return truth.diameter()


def mirrored(volume: NDArray[np.number], size: int) -> NDArray[np.number]:
    """Return a cube of so many voxels along each axis, filled by mirroring a volume."""
    for axis in range(3):
        volume = np.take(volume, reflected(np.arange(size), volume.shape[axis]), axis)
    return volume
