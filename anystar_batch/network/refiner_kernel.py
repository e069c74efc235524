"""The second look's network as loops, one object at a time, every sum in one fixed order.

The rays of an object lie side by side on the fast axis: what the processor does eight at a time
are eight rays, never eight terms of one sum. No `fastmath`, no fused multiply-adds.

::

    seen  [(33 + 4) x 4]  -conv1->  one [(17 + 2) x 12]  -conv2->  two [(9 + 2) x (16 + 16)]
          -conv3->  three [9 x 16 + scalars]  -own, whole->  first [48]  -second->  second [32]

Every row holds all rays. Places beyond a ray's ends hold 0, so a convolution is one matrix
on a run of rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.kernel_cache import compiled
from anystar_batch.network.profiles import CHANNELS, SAMPLES, SCALARS
from anystar_batch.network.row_products import (
    EIGHT,
    OUTPUTS,
    STRIP,
    layer_strip,
    mean_of_six,
    turn_rows,
)

MOST_LOG = 1.2
"""Largest logarithm of the factor on a distance: 0.3 to 3.3 times."""

WIDTHS = (12, 16, 16, 48, 32, 32)
"""Channels of the three convolutions, of the two layers of a ray, and of the quality's."""

NAMES = (
    "conv1_kernel", "conv1_bias", "conv2_kernel", "conv2_bias", "conv3_kernel", "conv3_bias",
    "own_kernel", "own_bias", "whole_kernel", "second_kernel", "second_bias",
    "factor_kernel", "factor_bias", "judged_kernel", "judged_bias",
    "quality_kernel", "quality_bias",
)  # fmt: skip
"""Arrays of a refiner, in the order in which the kernel takes them."""

FIRST, SECOND = (SAMPLES + 1) // 2, (SAMPLES + 3) // 4
"""Places along a ray after the first and the second convolution."""

TOGETHER_ROWS = OUTPUTS
"""Outputs, and terms of a mean, that loops take at a time: every layer has a multiple of them."""

Arrays = tuple[NDArray[np.float32], ...]


@compiled(error_model="numpy")
def ray_voxels(
    dist: NDArray[np.float32], steps: NDArray[np.float64], directions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean length of each object's rays, float64 [n], voxels of the image.

    Parameters
    ----------
    dist : float32 [n, n_rays]
        Working voxels.
    steps : float64 [n, 3]
        Voxels of the image per working voxel, of each object.
    directions : float64 [n_rays, 3]
        Unit vectors.
    """
    n_rays, means = dist.shape[1], np.empty(len(dist))
    for i in range(len(dist)):
        total = 0.0
        for ray in range(n_rays):  # one order on every processor: it decides which network looks
            z, y = directions[ray, 0] * steps[i, 0], directions[ray, 1] * steps[i, 1]
            x = directions[ray, 2] * steps[i, 2]
            total += np.float64(dist[i, ray]) * math.sqrt(z * z + y * y + x * x)
        means[i] = total / n_rays
    return means


@compiled(error_model="numpy", _nrt=False)
def _layer(
    rows: NDArray[np.float32],
    first: int,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
    begin: int,
) -> None:
    """out[begin + o] = bias[o] + sum of kernel[o, m] * rows[first + m], or 0; terms in order."""
    for column in range(0, rows.shape[1], STRIP):
        for o in range(0, len(kernel), OUTPUTS):
            layer_strip(rows, first, kernel, bias, o, out, begin + o, column)


@compiled(error_model="numpy")
def _means(rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Mean of every row over the rays, in order; four rows at a time, whose sums do not wait."""
    share = np.float32(1.0 / rows.shape[1])
    for m in range(0, rows.shape[0], 4):
        a, b, c, d = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for ray in range(rows.shape[1]):
            a += rows[m, ray]
            b += rows[m + 1, ray]
            c += rows[m + 2, ray]
            d += rows[m + 3, ray]
        out[m], out[m + 1], out[m + 2], out[m + 3] = a * share, b * share, c * share, d * share


@compiled(error_model="numpy")
def _vector(
    x: NDArray[np.float32], kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A layer of one vector; four sums at a time, which do not wait for each other."""
    out = bias.copy()
    n_out, n_in = kernel.shape
    for o in range(0, n_out - n_out % 4, 4):
        a, b, c, d = out[o], out[o + 1], out[o + 2], out[o + 3]
        for m in range(n_in):
            a += kernel[o, m] * x[m]
            b += kernel[o + 1, m] * x[m]
            c += kernel[o + 2, m] * x[m]
            d += kernel[o + 3, m] * x[m]
        out[o], out[o + 1], out[o + 2], out[o + 3] = a, b, c, d
    for o in range(n_out - n_out % 4, n_out):
        for m in range(n_in):
            out[o] += kernel[o, m] * x[m]
    return out


@compiled(error_model="numpy")
def _convolve(  # noqa: PLR0913
    near: NDArray[np.int64],
    arrays: Any,  # noqa: ANN401  (a tuple of arrays of one and of two axes)
    seen: NDArray[np.float32],
    one: NDArray[np.float32],
    two: NDArray[np.float32],
    by_ray: NDArray[np.float32],
    means: NDArray[np.float32],
    three: NDArray[np.float32],
) -> None:
    """Fill `three` from `seen`: along each ray, its neighbours asked after the second layer."""
    k1, c1, k2, c2, k3, c3 = arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], arrays[5]
    w1, w2, w3 = len(c1), len(c2), len(c3)
    for window in range(FIRST):
        _layer(seen, 2 * window * CHANNELS, k1, c1, one, (window + 1) * w1)
    for window in range(SECOND):
        _layer(one, 2 * window * w1, k2, c2, two, (window + 1) * 2 * w2)
    _ask_neighbours(near, w2, two, by_ray, means)
    for window in range(SECOND):
        _layer(two, window * 2 * w2, k3, c3, three, window * w3)


@compiled(error_model="numpy", _nrt=False)
def _ask_neighbours(
    near: NDArray[np.int64],
    width: int,
    two: NDArray[np.float32],
    by_ray: NDArray[np.float32],
    means: NDArray[np.float32],
) -> None:
    """Beside the second layer's answers put their means over each ray's neighbours.

    Ray by ray in `by_ray` first: there all answers of a neighbour lie side by side.
    """
    for window in range(SECOND):
        begin = (window + 1) * 2 * width
        turn_rows(two, begin, 1, width, by_ray, 0, 1, len(near))
        for ray in range(len(near)):
            for k in range(0, width, EIGHT):
                mean_of_six(by_ray, near, ray, k, means)
        turn_rows(means, 0, 1, len(near), two, begin + width, 1, width)


@compiled(error_model="numpy")
def _judge(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    arrays: Any,  # noqa: ANN401
) -> np.float32:
    """Return the quality from what all rays say together."""
    k_judged, c_judged, k_quality, c_quality = arrays[13], arrays[14], arrays[15], arrays[16]
    means = np.empty(len(first) + len(second), np.float32)
    _means(first, means[: len(first)])
    _means(second, means[len(first) :])
    judged = _vector(means, k_judged, c_judged)
    for m in range(len(judged)):
        judged[m] = max(judged[m], np.float32(0.0))
    logit = np.float64(_vector(judged, k_quality, c_quality)[0])
    return np.float32(1.0 / (1.0 + math.exp(-logit)))


@compiled(error_model="numpy", _nrt=False)
def _combine(
    rows: NDArray[np.float32],
    factors: NDArray[np.float32],
    bias: np.float32,
    out: NDArray[np.float32],
) -> None:
    """Out = bias + sum of factors[m] * rows[m], terms in order."""
    for column in range(len(out)):
        out[column] = bias
    for m in range(len(rows)):
        for column in range(len(out)):
            out[column] += factors[m] * rows[m, column]


@compiled(error_model="numpy")
def answer(  # noqa: PLR0913
    values: NDArray[np.float32],
    scalars: NDArray[np.float32],
    near: NDArray[np.int64],
    arrays: Any,  # noqa: ANN401
    dist: NDArray[np.float32],
    refined: NDArray[np.float32],
    quality: NDArray[np.float32],
) -> None:
    """Run the network, some objects after the others.

    Parameters
    ----------
    values, scalars
        From `profiles.profiles`.
    near : int64 [n_rays, 6]
    arrays : tuple of float32
        In the order of `NAMES`.
    dist : float32 [n, n_rays]
    refined : float32 [n, n_rays]
        Written: the distances times what the network answers.
    quality : float32 [n]
        Written. 0, and the distances as they were, where the image is constant.
    """
    w1, w2, w3 = len(arrays[1]), len(arrays[3]), len(arrays[5])
    k_own, c_own, k_whole = arrays[6], arrays[7], arrays[8]
    k_second, c_second, k_factor, c_factor = arrays[9], arrays[10], arrays[11], arrays[12]
    n_rays = dist.shape[1]
    n_columns = -(-n_rays // STRIP) * STRIP
    # Places beyond a ray's ends hold 0, and stay so.
    seen = np.zeros(((SAMPLES + 4) * CHANNELS, n_columns), np.float32)
    one = np.zeros(((FIRST + 2) * w1, n_columns), np.float32)
    two = np.zeros(((SECOND + 2) * 2 * w2, n_columns), np.float32)
    by_ray, means = np.zeros((n_rays, w2), np.float32), np.zeros((n_rays, w2), np.float32)
    three = np.zeros((SECOND * w3 + SCALARS, n_columns), np.float32)
    first = np.zeros((len(c_own), n_columns), np.float32)
    second = np.zeros((len(c_second), n_columns), np.float32)
    mean = np.zeros(SECOND * w3, np.float32)
    logs = np.zeros(n_columns, np.float32)
    for i in range(len(dist)):
        if not values[i, :, 0].any():
            refined[i], quality[i] = dist[i], np.float32(0.0)
            continue
        for k in range(SAMPLES):
            seen[(k + 2) * CHANNELS : (k + 3) * CHANNELS, :n_rays] = values[i, k]
        three[SECOND * w3 :, :n_rays] = scalars[i]
        _convolve(near, arrays, seen, one, two, by_ray, means, three)
        _means(three[: SECOND * w3, :n_rays], mean)
        _layer(three, 0, k_own, _vector(mean, k_whole, c_own), first, 0)
        _layer(first, 0, k_second, c_second, second, 0)
        _combine(second, k_factor[0], c_factor[0], logs)
        for ray in range(n_rays):
            log = min(max(logs[ray], np.float32(-MOST_LOG)), np.float32(MOST_LOG))
            # In float64 and then rounded: exponentials of float32 differ between machines.
            refined[i, ray] = dist[i, ray] * np.float32(math.exp(np.float64(log)))
        quality[i] = _judge(first[:, :n_rays], second[:, :n_rays], arrays)
