"""Likeness of a crop of a coarse level and what a finer level shows, however it was made.

A level is compared with what is expected of it: the mean of every window, and, where that explains
little, a blurred mean, the middle of the window, one voxel of it (stride, nearest neighbour), its
largest, smallest or median value. Correlations do not depend on brightness; gain and offset are
looked at besides. ::

    left edge of voxel i  =  i * step + shift    in voxels of the finer level, edges at integers
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx

REACH = 2
"""Voxels of the level by which a crop is moved to see whether it fits better there."""

FAINT = 0.25
"""Share of a crop's texture that a plane of it must have to be missed."""

ENOUGH = 0.9
"""Correlation with the means above which strides are not tried where the crop is moved to."""

MOST_PHASES = 32
"""Most voxels of a window, an axis, that are tried as the one that was taken."""

EXACT = 0.99
"""Correlation above which a level was made in the way that was found, and no other is tried."""

MOVES: tuple[ZYX, ...] = tuple(
    as_zyx(move)
    for move in product(range(-REACH, REACH + 1), repeat=3)
    if max(map(abs, move)) <= 1 or sum(map(abs, move)) == REACH == max(map(abs, move))
)
"""Where a crop is tried: all neighbours, and further along the axes."""

HERE = MOVES.index((0, 0, 0))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a level lies in a finer one.

    Parameters
    ----------
    step : (z, y, x)
        Voxels of the finer level per voxel.
    shift : (z, y, x)
        Left edge of voxel 0, voxels of the finer level.
    shape, fine_shape : (z, y, x)
        Voxels of the level and of the finer one.
    """

    step: ZYXFloat
    shift: ZYXFloat
    shape: ZYX
    fine_shape: ZYX

    def fine_box(self, box: Box, margin: int = REACH) -> Box:
        """Return the voxels of the finer level under a box and `margin` voxels of the level around.

        At least one voxel an axis.
        """
        starts, stops = [], []
        for axis in range(3):
            first, last = (
                _edge(n, self.step[axis], self.shift[axis])
                for n in (box.start[axis] - margin, box.stop[axis] + margin)
            )
            length = self.fine_shape[axis]
            start = min(max(0, first), length - 1)
            starts.append(start)
            stops.append(max(start + 1, min(last, length)))
        return Box(as_zyx(starts), as_zyx(stops))


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a crop of a level compares with the finer one.

    Parameters
    ----------
    is_empty : bool
        Whether the crop is constant where the finer level is not.
    is_lost : bool
        Whether the finer level is constant where the crop is not.
    texture : float
        Standard deviation of what is expected; 0 where nothing can be told.
    correlation : float
        With the best of the known ways; NaN where nothing can be told.
    how : str
        That way.
    gain, offset : float
        The crop's intensities over those expected; difference of the means over the spread of the
        finer level.
    moved : float64 [len(MOVES)]
        Correlation with the crop moved; NaN where too little of it is left.
    """

    is_empty: bool = False
    is_lost: bool = False
    texture: float = 0.0
    correlation: float = float("nan")
    how: str = ""
    gain: float = 1.0
    offset: float = 0.0
    moved: NDArray[np.float64] | None = None


def is_constant(values: NDArray[Any]) -> bool:
    """Return whether all finite values are one; true if none is finite."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
    return finite.size == 0 or bool(finite.min() == finite.max())


def likeness(coarse: NDArray[Any], box: Box, fine: NDArray[Any], place: Place) -> Likeness:
    """Compare a crop of a level with the finer one.

    Parameters
    ----------
    coarse : (z, y, x)
        The level in `box`.
    box : Box
        Voxels of the level.
    fine : (z, y, x)
        The finer level in `place.fine_box(box)`.
    place : Place

    Returns
    -------
    Likeness
    """
    start = place.fine_box(box).start
    quantum = 0.5 if fine.dtype.kind in "iu" else 1e-6 * float(np.abs(_filled(fine)).max())
    exact = _filled(fine)
    windows = [_windows(place, box, axis, start[axis], fine.shape[axis]) for axis in range(3)]
    inner = [(first[REACH:-REACH], stop[REACH:-REACH]) for first, stop, _ in windows]
    means = _means(exact, [(first, stop) for first, stop, _ in windows])
    mean = means[REACH:-REACH, REACH:-REACH, REACH:-REACH]
    texture, is_flat = float(mean.std()), is_constant(coarse)
    if is_flat or texture <= quantum:
        picks = _strides(exact, inner, box, place, start)
        under = exact[tuple(slice(int(a[0]), int(b[-1])) for a, b in inner)]
        is_beyond = is_flat and float(under.std()) > quantum and _is_beyond(_filled(coarse), under)
        varies = texture > 2 * quantum and not any(is_constant(pick) for pick in picks)
        is_lost = not is_flat and is_constant(under) and float(_filled(coarse).std()) > quantum
        return Likeness(is_empty=is_flat and (varies or is_beyond), is_lost=is_lost)
    shown = _filled(coarse)
    strides = _strides(exact, inner, box, place, start)
    if _has_empty_plane(shown, mean, exact, (inner, strides), (quantum, FAINT * texture)):
        return Likeness(is_empty=True)
    best, how, fitted = _correlation(shown, mean), "mean", mean
    if best < EXACT:
        taken = _best_stride(shown, exact, inner)
        for name, other in (taken, *_other_ways(exact, means, inner, box, place, start)):
            value = _correlation(shown, other)
            if value > best:
                best, how, fitted = value, name, other
    valid = [inside for _, _, inside in windows]
    moved = _moved(shown, means, valid)
    if best < EXACT and moved[HERE] < ENOUGH:
        around = [(first, stop) for first, stop, _ in windows]
        for at in _phases(place):
            moved = np.fmax(moved, _moved(shown, _picked(exact, around, at), valid))
    moved[HERE] = best
    spread = max(float(exact.std()), quantum)
    return Likeness(
        texture=texture,
        correlation=best,
        how=how,
        gain=float(shown.std() / max(float(fitted.std()), 1e-300)),
        offset=float((shown.mean() - fitted.mean()) / spread),
        moved=moved,
    )


def _has_empty_plane(
    shown: NDArray[np.float64],
    mean: NDArray[np.float64],
    exact: NDArray[np.float64],
    made: tuple[list[tuple[NDArray[np.int64], NDArray[np.int64]]], Iterator[NDArray[np.float64]]],
    least: tuple[float, float],
) -> bool:
    """Whether a plane of a crop is constant that is not, however the level was made."""
    windows, strides = made
    suspects = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        spread = np.where(np.ptp(shown, axis=others) == 0, mean.std(axis=others), 0.0)
        first, stop = windows[axis]
        for n in np.flatnonzero(np.ptp(shown, axis=others) == 0):
            under = np.take(exact, range(first[n], stop[n]), axis=axis)
            if under.std() > least[0] and _is_beyond(np.take(shown, n, axis=axis), under):
                return True
        suspects += [(axis, int(n)) for n in np.flatnonzero(spread > max(least))]
    if not suspects:
        return False
    picks = list(strides)
    return any(
        not any(is_constant(np.take(pick, n, axis=axis)) for pick in picks) for axis, n in suspects
    )


def _is_beyond(constant: NDArray[np.float64], under: NDArray[np.float64]) -> bool:
    """Whether a constant is no value between those that it stands for."""
    value = float(constant.flat[0])
    return not float(under.min()) - 1e-9 <= value <= float(under.max()) + 1e-9


def _edge(n: int, step: float, shift: float) -> int:
    return int(np.floor(n * step + shift + 0.5))


def _filled(values: NDArray[Any]) -> NDArray[np.float64]:
    """The values in float64; what is not finite becomes their mean."""
    exact = np.asarray(values, np.float64)
    finite = np.isfinite(exact)
    if finite.all():
        return exact
    return np.where(finite, exact, exact[finite].mean() if finite.any() else 0.0)


def _windows(
    place: Place, box: Box, axis: int, origin: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Windows of the box and `REACH` around it in the fine crop; which lie in the volume."""
    index = np.arange(box.start[axis] - REACH, box.stop[axis] + REACH + 1)
    edges = np.floor(index * place.step[axis] + place.shift[axis] + 0.5).astype(np.int64)
    valid = (edges[:-1] + edges[1:] > 0) & (edges[:-1] + edges[1:] < 2 * place.fine_shape[axis])
    edges = edges - origin
    first = np.clip(edges[:-1], 0, length - 1)
    return first, np.maximum(np.clip(edges[1:], 0, length), first + 1), valid


def _means(
    exact: NDArray[np.float64], windows: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> NDArray[np.float64]:
    mean = exact
    for axis, (first, stop) in enumerate(windows):
        total = np.cumsum(np.insert(mean, 0, 0.0, axis=axis), axis=axis)
        shape = [-1 if k == axis else 1 for k in range(3)]
        width = (stop - first).reshape(shape)
        mean = (np.take(total, stop, axis=axis) - np.take(total, first, axis=axis)) / width
    return mean


def _picked(
    exact: NDArray[np.float64],
    windows: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    at: tuple[float, ...],
) -> NDArray[np.float64]:
    """One voxel of each window, 0 its first on an axis and 1 its last."""
    picks = [
        a + np.rint((b - 1 - a) * share).astype(np.int64)
        for (a, b), share in zip(windows, at, strict=True)
    ]
    return exact[np.ix_(*picks)]


def _other_ways(
    exact: NDArray[np.float64],
    means: NDArray[np.float64],
    windows: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    box: Box,
    place: Place,
    start: ZYX,
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """What the crop would be if it had been made in other ways."""
    blurred = means
    for axis in range(3):
        before, after = np.roll(blurred, 1, axis), np.roll(blurred, -1, axis)
        blurred = 0.25 * before + 0.5 * blurred + 0.25 * after
    yield "blurred mean", blurred[REACH:-REACH, REACH:-REACH, REACH:-REACH]
    middle = [((a + b - 1) // 2, (a + b) // 2 + 1) for a, b in windows]
    yield "middle", _means(exact, middle)
    for at in _phases(place):
        yield "stride", _picked(exact, windows, at)
    for picks in _nearest(box, place, start, exact.shape):
        yield "stride", exact[np.ix_(*picks)]
    for name, how in (("maximum", np.max), ("minimum", np.min), ("median", np.median)):
        yield name, _reduced(exact, windows, how)


def _best_stride(
    shown: NDArray[np.float64],
    exact: NDArray[np.float64],
    windows: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[str, NDArray[np.float64]]:
    """One voxel of each window, the best on every axis while the others are averaged."""
    chosen = list(windows)
    for axis, (first, stop) in enumerate(windows):
        best = -2.0
        for phase in range(min(MOST_PHASES, int((stop - first).max()))):
            pick = np.minimum(first + phase, stop - 1)
            tried = list(windows)
            tried[axis] = (pick, pick + 1)
            value = _correlation(shown, _means(exact, tried))
            if value > best:
                best, chosen[axis] = value, (pick, pick + 1)
    return "stride", _means(exact, chosen)


def _phases(place: Place) -> Iterator[tuple[float, ...]]:
    """The voxels of a window that a stride may take: first, last, and the middle ones."""
    shares = []
    for step in place.step:
        size = max(1, int(step + 1e-6))
        picks = sorted({0, (size - 1) // 2, size // 2, size - 1})
        shares.append([k / max(1, size - 1) for k in picks])
    yield from product(*shares)


def _strides(
    exact: NDArray[np.float64],
    windows: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    box: Box,
    place: Place,
    start: ZYX,
) -> Iterator[NDArray[np.float64]]:
    """What a crop would be if single voxels had been taken: ends and middle of windows, nearest."""
    for at in product((0.0, 0.5, 1.0), repeat=3):
        yield _picked(exact, windows, at)
    for picks in _nearest(box, place, start, exact.shape):
        yield exact[np.ix_(*picks)]


def _nearest(
    box: Box, place: Place, start: ZYX, lengths: tuple[int, ...]
) -> Iterator[list[NDArray[np.int64]]]:
    """Voxels that resizing to the nearest neighbour takes, by the customs of several libraries."""
    for rule in range(3):
        picks = []
        for axis in range(3):
            index = np.arange(box.start[axis], box.stop[axis])
            n, m = place.fine_shape[axis], place.shape[axis]
            at = (
                np.floor((index + 0.5) * n / m),
                np.floor(index * n / m),
                np.rint(index * (n - 1) / max(1, m - 1)),
            )[rule]
            picks.append(np.clip(at.astype(np.int64) - start[axis], 0, lengths[axis] - 1))
        yield picks


def _reduced(
    exact: NDArray[np.float64],
    windows: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    how: Callable[..., Any],
) -> NDArray[np.float64]:
    """Largest, smallest or middle value of each window; in smaller ones the last voxel repeats."""
    picks, shape = [], []
    for first, stop in windows:
        size = int((stop - first).max())
        index = np.minimum(first[:, np.newaxis] + np.arange(size), stop[:, np.newaxis] - 1)
        picks.append(index.ravel())
        shape += [len(first), size]
    values: NDArray[np.float64] = how(exact[np.ix_(*picks)].reshape(shape), axis=(1, 3, 5))
    return values


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's correlation; 0 where either is constant."""
    x, y = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def _moved(
    shown: NDArray[np.float64], means: NDArray[np.float64], valid: list[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Correlation of a crop with the means, moved by each of `MOVES`."""
    found = np.full(len(MOVES), np.nan)
    bounds = [(int(v.argmax()), len(v) - int(v[::-1].argmax())) if v.any() else (0, 0)
              for v in valid]  # fmt: skip
    for k, move in enumerate(MOVES):
        mine, theirs = [], []
        for axis, by in enumerate(move):
            low = max(0, bounds[axis][0] - REACH - by)
            high = min(shown.shape[axis], bounds[axis][1] - REACH - by)
            mine.append(slice(low, max(low, high)))
            theirs.append(slice(low + REACH + by, max(low, high) + REACH + by))
        part = shown[tuple(mine)]
        if 2 * part.size >= shown.size:
            found[k] = _correlation(part, means[tuple(theirs)])
    return found
