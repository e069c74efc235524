"""Volumes with known objects: synthetic ones never trained on, and real ones if they are at hand.

Real ones lie in the folder that ANYSTAR_BATCH_DATA names; they are for scores alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYXFloat
from trainer.synthesis.config import SampleConfig
from trainer.synthesis.sample import make_sample


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A volume with its truth.

    Parameters
    ----------
    name : str
    image : (z, y, x)
        Intensities, any unit.
    labels : integer (z, y, x)
        0 is background.
    voxel : (z, y, x)
        Size of a voxel, micrometres, or 1 where it is not known.
    unknown : bool (z, y, x) or None
        Where nothing is known: what is found there is neither right nor wrong.
    """

    name: str
    image: NDArray[np.number]
    labels: NDArray[np.integer]
    voxel: ZYXFloat = (1.0, 1.0, 1.0)
    unknown: NDArray[np.bool_] | None = None

    def diameter(self) -> float:
        """Return the diameter of the sphere with the median object's volume, unit of `voxel`."""
        sizes = np.bincount(self.labels.ravel())[1:]
        median = float(np.median(sizes[sizes > 0])) * float(np.prod(self.voxel))
        return float(np.cbrt(6.0 * median / np.pi))


def synthetic(seed: int, count: int, config: SampleConfig) -> list[Truth]:
    """Return held-out samples as volumes with truth.

    Parameters
    ----------
    seed : int
        Of validation, never of training.
    count : int
        Samples, each with shapes of its own.
    config : SampleConfig

    Returns
    -------
    list of Truth
        In the sample's own voxels; the image is already normalised.
    """
    made = [make_sample(seed, k * config.reuse, config) for k in range(count)]
    return [Truth(f"synthetic {k}", s.image, s.labels) for k, s in enumerate(made)]


def bbbc050(embryos: Sequence[int], times: Sequence[int] = (401, 451, 501)) -> list[Truth]:
    """Return mouse embryos of BBBC050; labels under 50 voxels are debris and dropped.

    Parameters
    ----------
    embryos : sequence of int
        1 to 4 are for choices, 5 to 11 for the final score only.
    times : sequence of int

    Returns
    -------
    list of Truth
    """
    folder = data_folder() / "bbbc050_train"
    truths = []
    for embryo in embryos:
        for time in times:
            stem = f"Emb{embryo:02d}_t{time}"
            if not (folder / f"{stem}_image.tif").exists():
                continue
            image, labels = (_read(folder / f"{stem}_{kind}.tif") for kind in ("image", "labels"))
            sizes = np.bincount(labels.ravel())
            labels = np.where(sizes[labels] < 50, 0, labels)
            truths.append(Truth(stem, image, labels, (1.75, 0.8, 0.8)))
    return truths


def gonuclear() -> list[Truth]:
    """Return the GoNuclear ovule: final score only."""
    folder = data_folder() / "gonuclear_1135_mini"
    image, labels = (_read(next(folder.glob(f"*{kind}.tif"))) for kind in ("image", "labels"))
    return [Truth("gonuclear_1135", image, labels, (0.284, 0.127, 0.127))]


def tgmm() -> list[Truth]:
    """Return the fly embryo's frames, voxel size unknown: detection (low IoU) only."""
    folder = data_folder() / "tgmm_mini_drosophila"
    # Extent 5 x 11 x 11 voxels: planes are taken as 2 apart.
    return [
        Truth(
            path.stem,
            _read(path),
            _read(path.with_name(path.name.replace("image", "labels"))),
            (2.0, 1.0, 1.0),
        )
        for path in sorted(folder.glob("*image.tif"))
    ]


def data_folder() -> Path:
    """Return the folder of the real volumes.

    Raises
    ------
    ConfigError
        If ANYSTAR_BATCH_DATA is unset.
    """
    name = os.environ.get("ANYSTAR_BATCH_DATA")
    if not name:
        message = "score: ANYSTAR_BATCH_DATA is unset; expected the folder of the real volumes"
        raise ConfigError(message)
    return Path(name)


def _read(path: Path) -> NDArray[np.integer]:
    """Read a TIFF (z, y, x)."""
    import tifffile  # noqa: PLC0415

    array: NDArray[np.integer] = tifffile.imread(path)
    return array
