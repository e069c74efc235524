"""Real volumes, mirrored until they fill a cube: images of any size with real density and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from anystar_batch.network.resample import reflected
from bench.quality import write_truth
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
        volume = truth.image
        for axis in range(3):
            index = reflected(np.arange(size), volume.shape[axis])
            volume = np.take(volume, index, axis)
        write_truth(path, replace(truth, image=volume))
    return truth.diameter()
