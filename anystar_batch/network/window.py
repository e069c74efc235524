"""What the network sees of a window: raised, resampled and normalised, a slab of planes at a time.

Both the command and the trainer call `window_image`, so that training and inference see the same.

A window may show many more voxels of the level than it has working voxels. They are read along z in
whole chunks and used up at once, so that memory holds a slab of them and the window, never the
crop::

    level    | chunk | chunk | chunk |     read as far as the next slab needs, decoded once
    window   |---|---|---|---|---|         slabs, each from the planes its weights name

A slab's voxels are those of the whole window, bit for bit (`resample`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import Box
from anystar_batch.network.intensity import normalise, raised
from anystar_batch.network.limits_field import LimitsField
from anystar_batch.network.resample import Taps, resample, source_box

SLAB_VOXELS = 8 * 10**6
"""Voxels of the level that are resampled together, about; at least what one plane needs."""

AHEAD = 128
"""Most planes that are read beyond what a slab needs, to the end of their chunk."""


def window_image(
    read: Callable[[Box], NDArray[np.number]],
    axes: tuple[Taps, Taps, Taps],
    limits: tuple[float, float],
    chunk: int,
    field: LimitsField | None = None,
) -> tuple[NDArray[np.float32], bool]:
    """Return what the network sees of a window.

    Parameters
    ----------
    read : callable
        Given a box of the level, returns its intensities (z, y, x).
    axes : Taps of z, y, x
        The window's weights, see `resample.tile_taps`.
    limits : (low, high)
        Intensities that become 0 and 1.
    chunk : int
        Planes of a stored chunk, which is decoded whole.
    field : LimitsField, optional
        Limits that follow the image, over the voxels of the level; they count instead.

    Returns
    -------
    image : float32 (z, y, x)
        Shape of the window, 0 to 1.
    is_constant : bool
        Whether all voxels that were read have one value, or none has any (NaN).
    """
    low, high = limits if field is None else (field.floor, math.nan)
    z, y, x = axes
    source = source_box(axes)
    planes = Planes(
        lambda start, stop: read(Box((start, *source.start[1:]), (stop, *source.stop[1:]))),
        source.stop[0],
        chunk,
    )
    image = np.empty((len(z.first), len(y.first), len(x.first)), np.float32)
    values = set[float | None]()
    for start, stop in _slabs(z, source.shape[1] * source.shape[2]):
        part = Taps(z.first[start:stop], z.weights[start:stop])
        first, last = part.span
        above, value = raised(planes.get(first, last), low)
        values.add(value)
        origin = (first, *source.start[1:])
        shown = resample(above, origin, (part, y, x))
        if field is None:
            image[start:stop] = normalise(shown, 0.0, high - low)
        else:
            image[start:stop] = field.scaled(shown, (part.centres, y.centres, x.centres))
    return image, None not in values and (len(values) == 1 or all(v != v for v in values))


class Planes:
    """Planes of a level for readers that go along z: each is read once.

    Parameters
    ----------
    read : callable
        Given start and stop, returns those planes (z, y, x).
    stop : int
        First plane that nobody will ask for.
    chunk : int
        Planes of a chunk, which is decoded whole.
    """

    def __init__(
        self, read: Callable[[int, int], NDArray[np.number]], stop: int, chunk: int
    ) -> None:
        self._read = read
        self._stop = stop
        self._chunk = chunk
        self._start = 0
        self._held: NDArray[np.number] | None = None

    def get(self, start: int, stop: int) -> NDArray[np.number]:
        """Return planes `[start, stop)`."""
        held = self._held
        if held is None or start < self._start or start > self._start + len(held):
            held = self._read(start, self._ahead(stop))
        else:
            end = self._start + len(held)
            held = held[start - self._start :]
            if stop > end:
                held = np.concatenate([held, self._read(end, self._ahead(stop))])
        self._held, self._start = held, start
        return held[: stop - start]

    def _ahead(self, stop: int) -> int:
        """How far to read: to the end of the chunk, unless that is far."""
        end = min(self._stop, -(-stop // self._chunk) * self._chunk)
        return end if end - stop <= AHEAD else stop


def _slabs(z: Taps, plane: int) -> list[tuple[int, int]]:
    """Ranges of output planes whose source is about `SLAB_VOXELS`, first source first."""
    low, high = z.span
    # The spread of the sources over the outputs: mirrored parts see fewer.
    each = max(1.0, (high - low) / len(z.first))
    count = max(1, int(SLAB_VOXELS / (plane * each)))
    slabs = [(a, min(len(z.first), a + count)) for a in range(0, len(z.first), count)]
    # By source: a mirrored slab comes with the planes that it mirrors.
    return sorted(slabs, key=lambda slab: int(z.first[slab[0] : slab[1]].min()))
