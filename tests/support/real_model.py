"""A small image and the real bundled model: one place, many processes."""

from pathlib import Path

import numpy as np
import stardist
import tifffile

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.parsing import Quantity
from tests.support.fakes import mean_level, write_image

PROB_THRESH = 0.3
"""Low, so that there is something to suppress whatever the released threshold."""


def write_real_image(path):
    """StarDist's own test volume, mirrored once so that several tiles are needed."""
    data = Path(stardist.__file__).parent / "data" / "images" / "img3d.tif"
    volume = tifffile.imread(data)
    wide = np.concatenate([volume, volume[:, ::-1]], axis=1)[:, :104]
    wide = np.concatenate([wide, wide[:, :, ::-1]], axis=2)[:, :, :101]
    levels = [wide, mean_level(wide, (1, 2, 2))]
    return write_image(path, levels, chunks=(16, 64, 64), scale=(0.5, 0.5, 0.5))


def real_config(image, block_shape=None, **run):
    """Tiles of 32, the smallest that leaves several, at the network's own scale."""
    return SegmentConfig(
        image=str(image),
        result=ResultConfig(diameter=Quantity(7.0, "px"), tile=32, prob_thresh=PROB_THRESH),
        run=RunConfig(block_shape=block_shape, memory=8 * 10**9, **run),
    )
