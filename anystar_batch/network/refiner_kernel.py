"""The second look's network as loops: two objects at a time, every sum in one fixed order.

The rays of the objects lie side by side on the fast axis: what the compiler does eight at a time
are eight rays, never eight terms of one sum. No `fastmath`, no fused multiply-adds.

::

    seen  [(33 + 4) x 4]  -conv1->  one [(17 + 2) x 12]  -conv2->  two [(9 + 2) x (16 + 16)]
          -conv3->  three [9 x 16 + scalars]  -own, whole->  first [48]  -second->  second [32]

Every row holds all rays of both. Places beyond a ray's ends hold 0, so a convolution is one matrix
on a run of rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.kernel_cache import compiled
from anystar_batch.network.profiles import CHANNELS, NEAREST, SAMPLES, SCALARS

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

BESIDE = 2
"""Objects whose rays lie side by side: speed, never a sum, depends on it."""

TOGETHER_ROWS = 4
"""Outputs, and terms of a sum, that loops take at a time: every layer has a multiple of them."""

Arrays = tuple[NDArray[np.float32], ...]


@compiled(error_model="numpy", _nrt=False)
def _layer(
    rows: NDArray[np.float32],
    first: int,
    kernel: NDArray[np.float32],
    out: NDArray[np.float32],
    begin: int,
) -> None:
    """out[begin + o] += sum of kernel[o, m] * rows[first + m], for every ray; terms in order.

    Four outputs and four terms at a time: less traffic, and the same sums.
    """
    n_out, n_in = kernel.shape
    for o in range(0, n_out, 4):
        at = begin + o
        for m in range(0, n_in, 4):
            k = first + m
            a0, a1, a2, a3 = kernel[o, m], kernel[o, m + 1], kernel[o, m + 2], kernel[o, m + 3]
            b0, b1, b2, b3 = (
                kernel[o + 1, m], kernel[o + 1, m + 1], kernel[o + 1, m + 2], kernel[o + 1, m + 3]
            )  # fmt: skip
            c0, c1, c2, c3 = (
                kernel[o + 2, m], kernel[o + 2, m + 1], kernel[o + 2, m + 2], kernel[o + 2, m + 3]
            )  # fmt: skip
            d0, d1, d2, d3 = (
                kernel[o + 3, m], kernel[o + 3, m + 1], kernel[o + 3, m + 2], kernel[o + 3, m + 3]
            )  # fmt: skip
            for ray in range(rows.shape[1]):
                x0, x1, x2, x3 = rows[k, ray], rows[k + 1, ray], rows[k + 2, ray], rows[k + 3, ray]
                p, q, r, s = out[at, ray], out[at + 1, ray], out[at + 2, ray], out[at + 3, ray]
                out[at, ray] = (((p + a0 * x0) + a1 * x1) + a2 * x2) + a3 * x3
                out[at + 1, ray] = (((q + b0 * x0) + b1 * x1) + b2 * x2) + b3 * x3
                out[at + 2, ray] = (((r + c0 * x0) + c1 * x1) + c2 * x2) + c3 * x3
                out[at + 3, ray] = (((s + d0 * x0) + d1 * x1) + d2 * x2) + d3 * x3


@compiled(error_model="numpy", _nrt=False)
def _fill(out: NDArray[np.float32], begin: int, bias: NDArray[np.float32]) -> None:
    """Begin the sums of a layer with its bias."""
    for o in range(len(bias)):
        for ray in range(out.shape[1]):
            out[begin + o, ray] = bias[o]


@compiled(error_model="numpy")
def _rectify(out: NDArray[np.float32]) -> None:
    """Negative values become 0."""
    for o in range(out.shape[0]):
        for ray in range(out.shape[1]):
            out[o, ray] = max(out[o, ray], np.float32(0.0))


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
    """A layer of one vector."""
    out = bias.copy()
    for o in range(kernel.shape[0]):
        for m in range(kernel.shape[1]):
            out[o] += kernel[o, m] * x[m]
    return out


@compiled(error_model="numpy")
def _convolve(
    near: NDArray[np.int64],
    arrays: Any,  # noqa: ANN401  (a tuple of arrays of one and of two axes)
    seen: NDArray[np.float32],
    one: NDArray[np.float32],
    two: NDArray[np.float32],
    three: NDArray[np.float32],
) -> None:
    """Fill `three` from `seen`: along each ray, its neighbours asked after the second layer."""
    k1, c1, k2, c2, k3, c3 = arrays[0], arrays[1], arrays[2], arrays[3], arrays[4], arrays[5]
    w1, w2, w3 = len(c1), len(c2), len(c3)
    n_rays, n_columns = len(near), seen.shape[1]
    sixth = np.float32(1.0 / NEAREST)
    for window in range(FIRST):
        _fill(one, (window + 1) * w1, c1)
        _layer(seen, 2 * window * CHANNELS, k1, one, (window + 1) * w1)
    _rectify(one)
    for window in range(SECOND):
        begin = (window + 1) * 2 * w2
        own, around = two[begin : begin + w2], two[begin + w2 : begin + 2 * w2]
        _fill(own, 0, c2)
        _layer(one, 2 * window * w1, k2, own, 0)
        _rectify(own)
        for c in range(w2):
            for first in range(0, n_columns, n_rays):
                row, sums = own[c, first : first + n_rays], around[c, first : first + n_rays]
                for ray in range(n_rays):
                    total = row[near[ray, 0]] + row[near[ray, 1]] + row[near[ray, 2]]
                    total += row[near[ray, 3]] + row[near[ray, 4]] + row[near[ray, 5]]
                    sums[ray] = total * sixth
    for window in range(SECOND):
        _fill(three, window * w3, c3)
        _layer(two, window * 2 * w2, k3, three, window * w3)
    _rectify(three[: SECOND * w3])


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
    n_columns = BESIDE * n_rays
    # Places beyond a ray's ends hold 0, and stay so.
    seen = np.zeros(((SAMPLES + 4) * CHANNELS, n_columns), np.float32)
    one = np.zeros(((FIRST + 2) * w1, n_columns), np.float32)
    two = np.zeros(((SECOND + 2) * 2 * w2, n_columns), np.float32)
    three = np.zeros((SECOND * w3 + SCALARS, n_columns), np.float32)
    first = np.zeros((len(c_own), n_columns), np.float32)
    second = np.zeros((len(c_second), n_columns), np.float32)
    mean = np.zeros(SECOND * w3, np.float32)
    logs = np.zeros(n_columns, np.float32)
    for begin in range(0, len(dist), BESIDE):
        some = min(BESIDE, len(dist) - begin)
        for i in range(some):
            mine = slice(i * n_rays, (i + 1) * n_rays)
            for k in range(SAMPLES):
                seen[(k + 2) * CHANNELS : (k + 3) * CHANNELS, mine] = values[begin + i, k]
            three[SECOND * w3 :, mine] = scalars[begin + i]
        _convolve(near, arrays, seen, one, two, three)
        for i in range(some):
            mine = slice(i * n_rays, (i + 1) * n_rays)
            _means(three[: SECOND * w3, mine], mean)
            _fill(first[:, mine], 0, _vector(mean, k_whole, c_own))
        _layer(three, 0, k_own, first, 0)
        _rectify(first)
        _fill(second, 0, c_second)
        _layer(first, 0, k_second, second, 0)
        _rectify(second)
        _combine(second, k_factor[0], c_factor[0], logs)
        for i in range(some):
            at, mine = begin + i, slice(i * n_rays, (i + 1) * n_rays)
            if not values[at, :, 0].any():
                refined[at], quality[at] = dist[at], np.float32(0.0)
                continue
            for ray in range(n_rays):
                log = logs[i * n_rays + ray]
                log = min(max(log, np.float32(-MOST_LOG)), np.float32(MOST_LOG))
                # In float64 and then rounded: exponentials of float32 differ between machines.
                refined[at, ray] = dist[at, ray] * np.float32(math.exp(np.float64(log)))
            quality[at] = _judge(first[:, mine], second[:, mine], arrays)
