"""Read label volumes of any program once, box by box, and keep sums: objects, contacts, overlaps.

Boxes are whole chunks, and come with the longest axis slowest: of the faces that wait for their
other side (`measure.contacts`) there is then never more than one plane across the two shorter axes.
Besides it and one box, memory holds 88 bytes an object, and 24 for every pair of objects that share
a voxel where two volumes are compared.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.events import BlockDone, Listener, StageStarted, ignore, timed_stage
from anystar_batch.geometry import ZYX
from anystar_batch.measure import extents, overlaps
from anystar_batch.measure.contacts import Contacts
from anystar_batch.measure.merger import Merger
from anystar_batch.pipeline.label_volumes import BLOCK_SHAPE, LabelReader
from anystar_batch.report.profiles import Profiles
from anystar_batch.stages.blocks import Block, Blocks, plan_blocks, units_per_block


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What one pass over labels gives.

    Parameters
    ----------
    objects : extents.EXTENT [n]
        Every object, time by time, by label.
    times : int64 [n]
        The time point of each.
    profiles : Profiles
        Where they lie along each axis, with the pairs of voxels; of all times.
    shared : tuple of Overlaps
        Voxels shared with the objects of a second volume, a table a time point; none without it.
    """

    objects: NDArray[Any]
    times: NDArray[np.int64]
    profiles: Profiles
    shared: tuple[overlaps.Overlaps, ...]

    @property
    def extent(self) -> tuple[float, float, float]:
        """Mean extent of the objects (z, y, x), voxels, at least 1."""
        if not len(self.objects):
            return 1.0, 1.0, 1.0
        z, y, x = (self.objects["high"] - self.objects["low"]).mean(axis=0)
        return float(z), float(y), float(x)


def survey(
    readers: Sequence[LabelReader],
    times: Sequence[int],
    shape: ZYX,
    block_shape: ZYX | None = None,
    listen: Listener = ignore,
) -> Survey:
    """Read one label volume, or two of the same shape.

    Parameters
    ----------
    readers : sequence of LabelReader
        The volume whose objects are summed up, and perhaps one that it is compared with.
    times : sequence of int
        Time points; each is a volume of its own.
    shape : (z, y, x)
        Voxels of a time point.
    block_shape : (z, y, x), optional
        Voxels of a box, rounded up to whole chunks of the first volume; never changes the result.
    listen : callable
        Takes events, one a box.

    Returns
    -------
    Survey

    Raises
    ------
    ImageError
        If a label is negative.
    DataError
        If stored voxels cannot be read.
    """
    unit = readers[0].volume.source.chunks_zyx(readers[0].level)
    blocks = plan_blocks(shape, unit, units_per_block(block_shape or BLOCK_SHAPE, unit))
    contacts, profiles = Contacts(shape), Profiles.empty(shape)
    objects, shared = [], []
    with timed_stage(listen, StageStarted("survey", len(blocks) * len(times))):
        for at in times:
            pairs = overlaps.merger()
            rows = extents.merge(_boxes(readers, blocks, at, (contacts, pairs), listen))
            contacts.check_complete()
            profiles.add(extents.columns(rows))
            objects.append(rows)
            shared.append(pairs.result())
    return Survey(
        objects=np.concatenate(objects),
        times=np.repeat(np.asarray(times, np.int64), [len(rows) for rows in objects]),
        profiles=profiles.with_pairs(contacts.counts),
        shared=tuple(shared) if len(readers) > 1 else (),
    )


def ordered(blocks: Blocks) -> Iterator[Block]:
    """Yield blocks with the longest axis of the volume slowest.

    Parameters
    ----------
    blocks : Blocks

    Examples
    --------
    >>> [b.name for b in ordered(plan_blocks((1, 4, 2), (1, 2, 1), (1, 1, 1)))]
    ['0.0.0', '0.0.1', '0.1.0', '0.1.1']
    >>> [b.name for b in ordered(plan_blocks((1, 2, 4), (1, 1, 2), (1, 1, 1)))]
    ['0.0.0', '0.1.0', '0.0.1', '0.1.1']
    """
    axes = sorted(range(3), key=lambda a: -blocks.shape[a])
    _, rows, columns = blocks.counts
    for indices in itertools.product(*(range(blocks.counts[a]) for a in axes)):
        z, y, x = (indices[axes.index(a)] for a in range(3))
        yield blocks[(z * rows + y) * columns + x]


def _boxes(
    readers: Sequence[LabelReader],
    blocks: Blocks,
    at: int,
    sums: tuple[Contacts, Merger[overlaps.Overlaps]],
    listen: Listener,
) -> Iterator[NDArray[Any]]:
    """Yield the objects of every box of one time point; contacts and overlaps go into `sums`."""
    contacts, pairs = sums
    for block in ordered(blocks):
        started = time.monotonic()
        labels = readers[0].read_box(at, block.box)
        narrow, names = extents.narrowed(labels)
        contacts.add(labels, narrow, block.box)
        for other in readers[1:]:
            pairs.add(overlaps.match(labels, other.read_box(at, block.box)))
        yield extents.box_extents(narrow, names, block.box.start)
        listen(BlockDone("survey", f"{at}/{block.name}", time.monotonic() - started))
