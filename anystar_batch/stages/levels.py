"""Which levels of a pyramid show what level 0 shows: decided once, from a bounded sample of voxels.

Metadata come first (`archive.level_metadata`). Then places all over the volume are compared with
the next finer level that has passed, the first of them with level 0: the textured ones by
correlation, those where the level is constant by whether the finer level is, too. A small level is
looked at whole. Image and channel decide; selected times, blocks and memory do not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.address import is_remote
from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.errors import DataError
from anystar_batch.geometry import ZYX, Box, as_triple, as_zyx, grid_box, grid_shape, iter_grid
from anystar_batch.network.downsampling import HERE, MOVES, Likeness, Place, is_constant, likeness
from anystar_batch.pyramid import level_factors

CROP = 24
"""Edge of a place, voxels of the level."""

FINE_CROP = 192
"""Most voxels of the finer level along it, as far as 4 voxels of the level allow."""

WHOLE = 1 << 24
"""Voxels of the finer level up to which every place is looked at."""

PLACES = 16
"""Places, textured and constant ones each, that are compared with the finer level."""

DECODED = 1 << 28
"""Voxels that may be decoded to compare a level, as far as `FEWEST` places allow."""

FEWEST = 8
"""Places that are looked at whatever it takes."""

LISTED = 256
"""Stored chunks among which places are chosen where the lattice shows nothing."""

TIMES = 5
"""Times of a series at which levels are compared."""

LEAST = 0.6
"""Least mean correlation of a level that shows what the finer one shows..."""

PEAK = (0.25, 0.2)
"""...or, where noise is all there is, so much, and so much more than moved..."""

PEAK_VOXELS = 1500
"""...in at least so many voxels: few blobs of another image are alike by chance."""

LEAST_HERE = 0.3
"""The same of a single place, if it has a quarter of the strongest texture."""

BETTER = 1.5
"""How much less a level must be unlike the finer one elsewhere to lie elsewhere."""

GAIN = 5.0
"""Most by which intensities may be stretched or squeezed..."""

CLEAR = 0.8
"""...where correlations are so high; else noise is what is averaged away."""

OFFSET = 4.0
"""Most by which they may be raised or lowered, standard deviations of the finer level."""

Read = Callable[[Box], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a level shows what level 0 shows.

    Parameters
    ----------
    level : int
    agrees : bool
    how : str
        How that was told.
    why : str
        Why it does not; empty if it does.
    lost : str
        Where the finer level shows nothing and this one does; empty for nowhere.
    """

    level: int
    agrees: bool
    how: str
    why: str = ""
    lost: str = ""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Verdict:
        """Return a verdict from what `to_json` has made of it."""
        return cls(**document)

    def to_json(self) -> dict[str, object]:
        """Return the verdict as plain JSON values."""
        return {"level": self.level, "agrees": self.agrees, "how": self.how, "why": self.why,
                "lost": self.lost}  # fmt: skip


def check_levels(reader: ImageReader, channel: int) -> tuple[Verdict, ...]:
    """Judge every level of an image, level 0 first.

    Parameters
    ----------
    reader : ImageReader
        The image.
    channel : int

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded.
    """
    source = reader.source
    verdicts = [Verdict(0, agrees=True, how="it is what the others are compared with")]
    passed = 0
    for level in range(1, len(source.levels)):
        fault = source.levels[level].fault
        if fault:
            verdicts.append(Verdict(level, agrees=False, how="by its metadata", why=fault))
            continue
        verdict = _check(reader, level, passed, channel)
        verdicts.append(verdict)
        passed = level if verdict.agrees else passed
    return tuple(verdicts)


def _check(reader: ImageReader, level: int, finer: int, channel: int) -> Verdict:
    """Compare a level with a finer one that has passed."""
    found: list[tuple[int, Box, Likeness]] = []
    for time in _times(reader.source.num_times):
        found += [(time, box, one) for box, one in _likenesses(reader, level, finer, time, channel)]
    told = [(t, box, one) for t, box, one in found if one.texture > 0]
    count = len(found)
    compared = f"at {count} place{'' if count == 1 else 's'}, against level {finer}"
    how = (
        f"by its metadata and its voxels {compared} (correlation "
        f"{np.mean([one.correlation for *_, one in told]):.2f}, {_commonest(told)})"
        if told
        else f"by its metadata; its voxels {compared}, show nothing that could be compared"
    )
    lost = [(t, box) for t, box, one in found if one.is_lost]
    empty = [(t, box) for t, box, one in found if one.is_empty]
    why = ""
    if empty:
        why = (
            f"it holds nothing at {len(empty)} of {len(found)} places where level {finer} shows "
            f"something, first at {_where(empty[0], reader.source)}"
        )
    elif told:
        why = _difference(told, finer, reader.source)
    text = "" if not lost else f"{len(lost)} places, first {_where(lost[0], reader.source)}"
    return Verdict(level, agrees=not why, how=how, why=why, lost=text)


def _difference(told: list[tuple[int, Box, Likeness]], finer: int, source: ImageSource) -> str:
    """How textured places of a level differ from the finer one; empty if they do not."""
    values = np.array([one.correlation for *_, one in told])
    moved = np.array([one.moved for *_, one in told])
    few = np.isnan(moved).sum(axis=0) * 2 > len(moved)
    means = np.where(few, -1.0, np.nanmean(np.where(few, 0.0, moved), axis=0))
    best = int(means.argmax())
    higher = means[HERE] - np.delete(means, HERE).max()
    is_peak = values.mean() >= PEAK[0] and higher >= PEAK[1]
    is_many = sum(box.size for _, box, _ in told) >= PEAK_VOXELS
    if values.mean() < LEAST and not (is_peak and is_many):
        return f"it shows something else than level {finer} (correlation {values.mean():.2f})"
    if 1 - means[HERE] > BETTER * (1 - means[best]) + 1e-4:
        by = ", ".join(f"{n:+d}" for n in MOVES[best])
        return (
            f"it lies elsewhere: moved by ({by}) voxels (z, y, x), or further, it fits level "
            f"{finer} better (correlation {means[best]:.3f}, in place {means[HERE]:.3f})"
        )
    strong = max(one.texture for *_, one in told) / 4
    others = [
        (t, box) for t, box, one in told if one.correlation < LEAST_HERE and one.texture >= strong
    ]
    if others:
        return (
            f"it shows something else than level {finer} at {len(others)} of {len(told)} places, "
            f"first at {_where(others[0], source)}"
        )
    gain = float(np.median([one.gain for *_, one in told]))
    offset = float(np.median([one.offset for *_, one in told]))
    is_stretched = values.mean() > CLEAR and not 1 / GAIN <= gain <= GAIN
    if is_stretched or abs(offset) > OFFSET:
        return (
            f"its intensities are others than those of level {finer}: {gain:.3g} times the "
            f"contrast, moved by {offset:.3g} standard deviations"
        )
    return ""


def _commonest(told: list[tuple[int, Box, Likeness]]) -> str:
    names = [one.how for *_, one in told]
    return max(sorted(set(names)), key=names.count)


def _where(place: tuple[int, Box], source: ImageSource) -> str:
    time, box = place
    at = f", time {time}" if source.num_times > 1 else ""
    return f"its voxels {box.start} to {box.stop} (z, y, x){at}"


def _times(count: int) -> list[int]:
    """Some times of a series, its first and last among them."""
    most = min(count, TIMES)
    return sorted({k * (count - 1) // max(1, most - 1) for k in range(most)})


def place_of(source: ImageSource, level: int, finer: int) -> tuple[Place, ...]:
    """Return where a level lies in a finer one: as declared, and by whole factors of its shape."""

    def frame(k: int) -> tuple[list[float], list[float]]:
        finest, here = source.scale_um(0), source.scale_um(k)
        step = [b / a for a, b in zip(finest, here, strict=True)]
        if k == 0 or not source.levels[k].has_translation:
            return step, [0.0] * 3
        moved = zip(source.translation_um(k), source.translation_um(0), finest, strict=True)
        offset = [(b - a) / size for b, a, size in moved]
        return step, [o - (s - 1) / 2 for o, s in zip(offset, step, strict=True)]

    step, shift = frame(level)
    fine_step, fine_shift = frame(finer)
    shape, fine_shape = source.shape_zyx(level), source.shape_zyx(finer)
    steps = [a / b for a, b in zip(step, fine_step, strict=True)]
    shifts = [(a - b) / s for a, b, s in zip(shift, fine_shift, fine_step, strict=True)]
    factors = level_factors(fine_shape, shape)
    declared = Place(as_triple(steps), as_triple(shifts), shape, fine_shape)
    if all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(steps, factors, strict=True)):
        return (declared,)
    return (declared, Place(factors, as_triple(shifts), shape, fine_shape))


def _likenesses(
    reader: ImageReader, level: int, finer: int, time: int, channel: int
) -> list[tuple[Box, Likeness]]:
    """Compare places of one time; of two ways of counting, the one that fits better."""
    source = reader.source
    read, read_fine = (_whole_or_boxes(reader, k, finer, time, channel) for k in (level, finer))
    places = place_of(source, level, finer)
    shape = source.shape_zyx(level)
    edge = as_zyx(
        min(n, max(4, min(CROP, int(FINE_CROP / s))))
        for n, s in zip(shape, places[0].step, strict=True)
    )
    is_whole = math.prod(source.shape_zyx(finer)) <= WHOLE
    crops = [(box, read(box)) for box in _lattice(shape, edge, _counts(source, level, finer, edge))]
    singled: list[tuple[Box, NDArray[Any]]] = []
    if not is_whole:
        boxes = list(_suspects(reader, level, finer, time, channel, edge))
        if all(is_constant(crop) for _, crop in crops):
            boxes += _stored(reader, level, finer, time, channel, edge)
        singled = [(box, read(box)) for box in boxes]
    varied = [(box, crop) for box, crop in (*singled, *crops) if not is_constant(crop)]
    constant = [(box, crop) for box, crop in crops if is_constant(crop)]
    chosen = _textured(varied, shape)
    if is_whole:
        chosen += [(b, c) for b, c in varied if is_constant(read_fine(places[0].fine_box(b, 0)))]
    else:
        few = _affordable(source, finer, places[0].fine_box(Box((0, 0, 0), edge)).shape)
        chosen, constant = _spread(chosen, few), _spread(constant, min(few, PLACES))
        constant += [(box, crop) for box, crop in singled if is_constant(crop)]
    results = [
        [
            (box, likeness(crop, box, read_fine(place.fine_box(box)), place))
            for box, crop in (*chosen, *constant)
        ]
        for place in places
    ]
    return max(results, key=_fit)


def _fit(each: list[tuple[Box, Likeness]]) -> tuple[bool, float]:
    """What is empty by either way of counting is empty; else the better correlation wins."""
    told = [one.correlation for _, one in each if one.texture > 0]
    return any(one.is_empty for _, one in each), float(np.mean(told)) if told else 0.0


def _whole_or_boxes(reader: ImageReader, level: int, finer: int, time: int, channel: int) -> Read:
    """A function that reads boxes of a level; of a small one from memory."""
    source = reader.source
    if math.prod(source.shape_zyx(finer)) > WHOLE:
        return lambda box: reader.read_box(level, time, channel, box)
    whole = reader.read_box(level, time, channel, Box.of_shape(source.shape_zyx(level)))
    return lambda box: whole[box.slices]


def _counts(source: ImageSource, level: int, finer: int, edge: ZYX) -> ZYX:
    """Places an axis: of a small level all of it, of a large one as many as may be read."""
    if math.prod(source.shape_zyx(finer)) <= WHOLE:
        return as_zyx(-(-n // e) for n, e in zip(source.shape_zyx(level), edge, strict=True))
    few = _affordable(source, level, edge)
    most = 4 if few >= 64 else 3 if few >= 27 else 2
    return most, most, most


def _suspects(
    reader: ImageReader, level: int, finer: int, time: int, channel: int, edge: ZYX
) -> Iterator[Box]:
    """Places where one of the two levels has a chunk stored and the other has not."""
    source = reader.source
    shape, fine_shape = source.shape_zyx(level), source.shape_zyx(finer)
    step, fine_step = source.storage_zyx(level), source.storage_zyx(finer)
    counts, fine_counts = grid_shape(shape, step), grid_shape(fine_shape, fine_step)
    most = 4 if is_remote(source.path) else 6
    found = []
    for pick in iter_grid(as_zyx(min(n, most) for n in counts)):
        index = as_zyx(
            k * (n - 1) // max(1, min(n, most) - 1) for k, n in zip(pick, counts, strict=True)
        )
        box = grid_box(index, step, shape)
        middle = [(a + b) // 2 for a, b in zip(box.start, box.stop, strict=True)]
        under = as_zyx(
            min(c - 1, m * f // n // s)
            for m, f, n, s, c in zip(middle, fine_shape, shape, fine_step, fine_counts, strict=True)
        )
        here = reader.chunk_exists(level, time, channel, index)
        if here != reader.chunk_exists(finer, time, channel, under):
            found.append(_around(middle, edge, shape))
    yield from _spread(found, PLACES)


def _stored(
    reader: ImageReader, level: int, finer: int, time: int, channel: int, edge: ZYX
) -> list[Box]:
    """Places of chunks that are stored, where a lattice sees nothing, as in a sparse volume."""
    source, found = reader.source, []
    shape = source.shape_zyx(level)
    for k in (level, finer):
        stored: list[tuple[ZYX, Box]] = []
        with suppress(DataError):  # a web server cannot list
            stored = list(itertools.islice(reader.existing_chunks(k, time, channel), LISTED))
        for _, box in _spread(stored, FEWEST):
            ends = zip(box.start, box.stop, shape, source.shape_zyx(k), strict=True)
            middle = [(a + b) * n // (2 * m) for a, b, n, m in ends]
            found.append(_around(middle, edge, shape))
    return found


def _around(middle: list[int], edge: ZYX, shape: ZYX) -> Box:
    start = as_zyx(
        min(max(0, m - e // 2), n - e) for m, e, n in zip(middle, edge, shape, strict=True)
    )
    return Box(start, as_zyx(a + e for a, e in zip(start, edge, strict=True)))


def _lattice(shape: ZYX, edge: ZYX, counts: ZYX) -> Iterator[Box]:
    """Boxes spread evenly, the first and the last at the borders."""
    starts = [
        sorted({k * (n - e) // max(1, c - 1) for k in range(c)})
        for n, e, c in zip(shape, edge, counts, strict=True)
    ]
    for start in itertools.product(*starts):
        at = as_zyx(start)
        yield Box(at, as_zyx(a + e for a, e in zip(at, edge, strict=True)))


def _textured(varied: list[tuple[Box, NDArray[Any]]], shape: ZYX) -> list[tuple[Box, NDArray[Any]]]:
    """The most textured places of every octant, so that all of the volume has its say."""
    octants: dict[tuple[bool, ...], list[tuple[float, ZYX, int]]] = {}
    for k, (box, crop) in enumerate(varied):
        key = tuple(a + b > n for a, b, n in zip(box.start, box.stop, shape, strict=True))
        texture = float(np.nanvar(np.where(np.isfinite(crop), crop, np.nan).astype(np.float64)))
        octants.setdefault(key, []).append((-texture, box.start, k))
    best = [sorted(each)[: PLACES // 8] for _, each in sorted(octants.items())]
    return [varied[k] for each in best for *_, k in each]


def _affordable(source: ImageSource, level: int, edge: ZYX) -> int:
    """How many boxes of a level may be read."""
    chunk = source.chunks_zyx(level)
    each = math.prod((n // c + 1) * c for n, c in zip(edge, chunk, strict=True))
    return max(FEWEST, DECODED // each)


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many, evenly spread."""
    count = min(len(items), most)
    return [items[k * len(items) // count] for k in range(count)]
