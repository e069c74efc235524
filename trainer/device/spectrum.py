"""Steps in k-space: the Fourier transform of three axes, by those of one and two that Keras has."""

from __future__ import annotations

import numpy as np
from keras import ops

from trainer.device.draws import Tensor, wide


def fourier(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Return the discrete Fourier transform, `scipy.fft.fftn` of every sample.

    Parameters
    ----------
    real, imaginary : (b, z, y, x)

    Returns
    -------
    real, imaginary : (b, z, y, x)
    """
    real, imaginary = ops.fft2((real, imaginary))
    first_last = (0, 2, 3, 1)
    turned = ops.fft((ops.transpose(real, first_last), ops.transpose(imaginary, first_last)))
    real, imaginary = (ops.transpose(part, (0, 3, 1, 2)) for part in turned)
    return real, imaginary


def spiked(image: Tensor, at: Tensor, intensity: Tensor) -> Tensor:
    """Raise one point of k-space: `corruption.spikes`, at a given point.

    Parameters
    ----------
    image : (b, z, y, x)
    at : int32 (b, 3)
        The point.
    intensity : (b)
    """
    n = image.shape[1:]
    real, imaginary = fourier(image, ops.zeros_like(image))
    size = ops.sqrt(real**2 + imaginary**2)
    level = ops.mean(ops.log(size + 1e-10), axis=(1, 2, 3)) * 2.5 * intensity
    here: Tensor = 1.0
    turn: Tensor = 0.0
    for axis in range(3):
        shape = [-1 if k == axis else 1 for k in range(3)]
        voxel = np.arange(n[axis]).reshape(shape)[None]
        point = wide(at[:, axis])
        here = here * ops.cast(point == voxel, "float32")
        # Whole turns are taken off as integers: a cosine of large angles is inexact in float32.
        rest = ops.cast(ops.mod(point * voxel, n[axis]), "float32")
        turn = turn + rest * (2.0 * np.pi / n[axis])
    # Only one point changes, so only its wave does: the rest need not be transformed back.
    a = ops.sum(real * here, axis=(1, 2, 3))
    b = ops.sum(imaginary * here, axis=(1, 2, 3))
    was = ops.sqrt(a**2 + b**2)
    gain = ops.exp(level) - was
    # The angle of exactly 0 is 0.
    cosine = ops.where(was > 0.0, a / ops.maximum(was, 1e-30), 1.0)
    sine = ops.where(was > 0.0, b / ops.maximum(was, 1e-30), 0.0)
    wave = wide(gain * cosine) * ops.cos(turn) - wide(gain * sine) * ops.sin(turn)
    return image + wave / float(np.prod(n))


def low_passed(image: Tensor, alpha: Tensor) -> Tensor:
    """Cut high frequencies off sharply: `corruption.gibbs`.

    Parameters
    ----------
    image : (b, z, y, x)
    alpha : (b)
        Share of the largest radius that is cut off.
    """
    n = image.shape[1:]
    axes = np.ogrid[tuple(slice(-(k // 2), k - k // 2) for k in n)]
    radius = np.sqrt(sum(a.astype(np.float32) ** 2 for a in axes))
    limit = (1.0 - alpha) * float(radius.max()) * 2.0 / np.sqrt(2.0 * 3.0).astype(np.float32)
    passed = ops.cast(np.fft.ifftshift(radius)[None] <= wide(limit), "float32")
    real, imaginary = fourier(image, ops.zeros_like(image))
    # The inverse is the transform of the conjugate, conjugated, over the number of voxels.
    back, _ = fourier(real * passed, -imaginary * passed)
    return back / float(np.prod(n))
