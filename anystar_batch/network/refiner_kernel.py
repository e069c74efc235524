"""The second look's network as loops: one object at a time, every sum in one fixed order.

The rays of an object lie side by side on the fast axis: what the compiler does eight at a time are
eight rays, never eight terms of one sum. No `fastmath`, no fused multiply-adds.

::

    seen  [(33 + 4) x 4]  -conv1->  one [(17 + 2) x 12]  -conv2->  two [(9 + 2) x (16 + 16)]
          -conv3->  three [9 x 16 + scalars]  -own, whole->  first [48]  -second->  second [32]

Every row holds all rays. Places beyond a ray's ends hold 0, so a convolution is one matrix on a run
of rows.
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

Arrays = tuple[NDArray[np.float32], ...]


@compiled(error_model="numpy")
def _layer(
    rows: NDArray[np.float32],
    first: int,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """out[o] = bias[o] + sum of kernel[o, m] * rows[first + m], for every ray; terms in order.

    Two outputs and four terms at a time: half the traffic, and the same sums.
    """
    n_out, n_in = kernel.shape
    n_rays = rows.shape[1]
    for o in range(0, n_out, 2):
        p, q = out[o], out[o + 1]
        for ray in range(n_rays):
            p[ray] = bias[o]
            q[ray] = bias[o + 1]
        for m in range(0, n_in, 4):
            r0, r1, r2, r3 = (
                rows[first + m], rows[first + m + 1], rows[first + m + 2], rows[first + m + 3]
            )  # fmt: skip
            a0, a1, a2, a3 = kernel[o, m], kernel[o, m + 1], kernel[o, m + 2], kernel[o, m + 3]
            b0, b1, b2, b3 = (
                kernel[o + 1, m], kernel[o + 1, m + 1], kernel[o + 1, m + 2], kernel[o + 1, m + 3]
            )  # fmt: skip
            for ray in range(n_rays):
                x0, x1, x2, x3 = r0[ray], r1[ray], r2[ray], r3[ray]
                p[ray] = (((p[ray] + a0 * x0) + a1 * x1) + a2 * x2) + a3 * x3
                q[ray] = (((q[ray] + b0 * x0) + b1 * x1) + b2 * x2) + b3 * x3


@compiled(error_model="numpy")
def _rectify(out: NDArray[np.float32]) -> None:
    """Negative values become 0."""
    for o in range(out.shape[0]):
        for ray in range(out.shape[1]):
            out[o, ray] = max(out[o, ray], np.float32(0.0))


@compiled(error_model="numpy")
def _means(rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Mean of every row over the rays, in order."""
    share = np.float32(1.0 / rows.shape[1])
    for m in range(rows.shape[0]):
        total = np.float32(0.0)
        for ray in range(rows.shape[1]):
            total += rows[m, ray]
        out[m] = total * share


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
    w1, w2, w3, n_rays = len(c1), len(c2), len(c3), seen.shape[1]
    sixth = np.float32(1.0 / NEAREST)
    for window in range(FIRST):
        _layer(seen, 2 * window * CHANNELS, k1, c1, one[(window + 1) * w1 : (window + 2) * w1])
    _rectify(one)
    for window in range(SECOND):
        begin = (window + 1) * 2 * w2
        own, around = two[begin : begin + w2], two[begin + w2 : begin + 2 * w2]
        _layer(one, 2 * window * w1, k2, c2, own)
        _rectify(own)
        for c in range(w2):
            row = own[c]
            for ray in range(n_rays):
                total = row[near[ray, 0]] + row[near[ray, 1]] + row[near[ray, 2]]
                total += row[near[ray, 3]] + row[near[ray, 4]] + row[near[ray, 5]]
                around[c, ray] = total * sixth
    for window in range(SECOND):
        _layer(two, window * 2 * w2, k3, c3, three[window * w3 : (window + 1) * w3])
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
    """Run the network, object after object.

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
    # Places beyond a ray's ends hold 0, and stay so.
    seen = np.zeros(((SAMPLES + 4) * CHANNELS, n_rays), np.float32)
    one = np.zeros(((FIRST + 2) * w1, n_rays), np.float32)
    two = np.zeros(((SECOND + 2) * 2 * w2, n_rays), np.float32)
    three = np.zeros((SECOND * w3 + SCALARS, n_rays), np.float32)
    first = np.zeros((len(c_own), n_rays), np.float32)
    second = np.zeros((len(c_second), n_rays), np.float32)
    mean = np.zeros(SECOND * w3, np.float32)
    for i in range(len(dist)):
        if not values[i, :, 0].any():
            refined[i], quality[i] = dist[i], np.float32(0.0)
            continue
        for k in range(SAMPLES):
            seen[(k + 2) * CHANNELS : (k + 3) * CHANNELS] = values[i, k]
        _convolve(near, arrays, seen, one, two, three)
        three[SECOND * w3 :] = scalars[i]
        _means(three[: SECOND * w3], mean)
        _layer(three, 0, k_own, _vector(mean, k_whole, c_own), first)
        _rectify(first)
        _layer(first, 0, k_second, c_second, second)
        _rectify(second)
        for ray in range(n_rays):
            log = c_factor[0]
            for m in range(len(c_second)):
                log += k_factor[0, m] * second[m, ray]
            log = min(max(log, np.float32(-MOST_LOG)), np.float32(MOST_LOG))
            # In float64 and then rounded: exponentials of float32 differ between machines.
            refined[i, ray] = dist[i, ray] * np.float32(math.exp(np.float64(log)))
        quality[i] = _judge(first, second, arrays)
