"""The law's phantom, fading along x, and a predictor that answers from what it is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.support.fakes import mean_level, write_image
from tests.support.law_phantom import SHAPE, law_truth, refined_config

FADING = 60.0
"""How many times dimmer the last plane along x is than the first."""


@dataclass(frozen=True)
class Peaks:
    """Finds the brightest points above 0.05; probability and size are what the image says there."""

    reach: int = 4

    def __call__(self, *_):
        return self

    def find(self, image, window, core, prob_thresh):
        axes = [np.arange(-(-a // 2) * 2, b, 2) for a, b in zip(core.start, core.stop, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        padded = np.pad(image, self.reach, mode="edge")
        width = 2 * self.reach + 1
        around = np.lib.stride_tricks.sliding_window_view(padded, (width,) * 3)
        at = points - np.asarray(window.start)
        values = image[tuple(at.T)]
        bright = values > 0.05
        points, at, values = points[bright], at[bright], values[bright]
        most = np.array([around[tuple(p)].max() for p in at], np.float32)
        top = (values >= 0.98 * most) & (0.5 + 0.49 * values > prob_thresh)
        dist = np.repeat(4.0 + 3.0 * values[top, None], 96, axis=1)
        return (
            points[top].astype(np.int32),
            (0.5 + 0.49 * values[top]).astype(np.float32),
            dist.astype(np.float32),
        )


def write_dim_image(path):
    """Two levels of float32; the last planes along x are all but black beside the first."""
    fade = FADING ** -(np.arange(SHAPE[2]) / SHAPE[2])
    base = (law_truth().image(np.float64) * fade).astype(np.float32)
    return write_image(
        path, [base, mean_level(base, (1, 2, 2))], chunks=(32, 32, 32), scale=(0.5, 0.5, 0.5)
    )


def dim_config(image, block_shape=None, limits="local", scales=(1,), **run):
    base = refined_config(image, block_shape, **run)
    return replace(base, result=replace(base.result, limits=limits, scales=scales))
