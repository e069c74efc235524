"""What the network sees of a tile: read, resampled and normalised, a slab of planes at a time.

A tile may show many more voxels of the level than it has working voxels. They are read along z in
whole chunks and used up at once, so that memory holds a slab of them and the tile, never the crop::

    level    | chunk | chunk | chunk |     read as far as the next slab needs, decoded once
    tile     |---|---|---|---|---|         slabs, each from the planes its weights name

A slab's voxels are those of the whole tile, bit for bit (`network.resample`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.geometry import ZYX, Box, hull
from anystar_batch.network.intensity import normalise, raised
from anystar_batch.network.resample import Taps, resample, source_box, tile_taps
from anystar_batch.network.tiles import View
from anystar_batch.stages.plan import Plan

SLAB_VOXELS = 8 * 10**6
"""Voxels of the level that are resampled together, about; at least what one plane needs."""


AHEAD = 128
"""Most planes that are read beyond what a slab needs, to the end of their chunk."""


def tile_source(plan: Plan, tile: ZYX) -> Box:
    """Return what a tile reads, voxels of the plan's level."""
    return hull(source_box(_tile_taps(plan, tile, view)) for view in plan.views)


def tile_image(
    plan: Plan, reader: ImageReader, time: int, tile: ZYX, view: View | None = None
) -> NDArray[np.float32] | None:
    """Return what the network sees of a tile.

    Parameters
    ----------
    plan : Plan
    reader : ImageReader
        The image.
    time : int
    tile : (z, y, x)
        Index of the tile.
    view : View, optional
        One of the plan's; None is the first, the working voxels.

    Returns
    -------
    float32 (z, y, x) or None
        The tile's window in that view, 0 to 1; None where the image has one value only, or none
        at all (NaN).
    """
    low, high = plan.limits_of(time) or (0.0, 1.0)
    z, y, x = _tile_taps(plan, tile, plan.views[0] if view is None else view)
    source = source_box((z, y, x))
    planes = Planes(
        lambda start, stop: reader.read_box(
            plan.working.level,
            time,
            plan.channel,
            Box((start, *source.start[1:]), (stop, *source.stop[1:])),
        ),
        source.stop[0],
        plan.source.chunks_zyx(plan.working.level)[0],
    )
    image = np.empty((len(z.first), len(y.first), len(x.first)), np.float32)
    values = set[float | None]()
    for start, stop in _slabs(z, source.shape[1] * source.shape[2]):
        part = Taps(z.first[start:stop], z.weights[start:stop])
        first, last = part.span
        crop, value = raised(planes.get(first, last), low)
        values.add(value)
        origin = (first, *source.start[1:])
        image[start:stop] = normalise(resample(crop, origin, (part, y, x)), 0.0, high - low)
    if None not in values and (len(values) == 1 or all(v != v for v in values)):
        return None
    return image


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


def _tile_taps(plan: Plan, tile: ZYX, view: View) -> tuple[Taps, Taps, Taps]:
    """The weights that make what the network sees of a tile."""
    return tile_taps(
        view.tiles.window_box(tile),
        plan.working.shape,
        plan.source.shape_zyx(plan.working.level),
        plan.working.zoom,
        view.step,
    )


def _slabs(z: Taps, plane: int) -> list[tuple[int, int]]:
    """Ranges of output planes whose source is about `SLAB_VOXELS`, first source first."""
    low, high = z.span
    # The spread of the sources over the outputs: mirrored parts see fewer.
    each = max(1.0, (high - low) / len(z.first))
    count = max(1, int(SLAB_VOXELS / (plane * each)))
    slabs = [(a, min(len(z.first), a + count)) for a in range(0, len(z.first), count)]
    # By source: a mirrored slab comes with the planes that it mirrors.
    return sorted(slabs, key=lambda slab: int(z.first[slab[0] : slab[1]].min()))
