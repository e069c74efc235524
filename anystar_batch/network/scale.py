"""Choose the working voxel size from the object's diameter, and the level to read it from.

The network knows objects of a certain size in voxels (`Model.diameter`). A working voxel is the
size at which the image's objects have that size, the same on every axis in micrometres. The network
reads the coarsest level that is fine enough, so that a huge volume costs what its objects need.

::

    working voxel u  ->  level voxel  v = (u + 0.5) * zoom - 0.5
    level voxel v    ->  level 0      x = v * step + offset
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYX, ZYXFloat, as_triple, as_zyx
from anystar_batch.network.resample import working_shape

SLACK = 1.1
"""A level up to this factor coarser than the working voxel still serves, without resampling."""

MAX_UPSAMPLING = 6.0
"""Most working voxels per level-0 voxel and axis in the plane: beyond, objects are noise."""

ELONGATED = (1.15, 2.0)
"""Least elongation that counts, and most by which objects are squeezed. What looks flat may be cut
by a thin stack, so nothing is stretched."""

MEASURED = 8
"""Fewest objects whose median elongation counts."""


@dataclass(frozen=True, slots=True)
class LevelMap:
    """Where a level's voxels lie in level 0: `x = v * step + offset`, per axis.

    Parameters
    ----------
    step : (z, y, x)
        Level-0 voxels per voxel of the level.
    offset : (z, y, x)
        Level-0 coordinate of the level's voxel 0, voxels.
    origin : str
        How the offset is known: `level 0`, `declared`, `area average` or `stride`.
    """

    step: ZYXFloat
    offset: ZYXFloat
    origin: str


@dataclass(frozen=True, slots=True)
class WorkingScale:
    """The working voxels of a run.

    Parameters
    ----------
    level : int
        Level that is read.
    zoom : (z, y, x)
        Level voxels per working voxel; exactly 1 where within 10 %.
    voxel_um : (z, y, x)
        Size of a working voxel, micrometres.
    shape : (z, y, x)
        The volume in working voxels.
    """

    level: int
    zoom: ZYXFloat
    voxel_um: ZYXFloat
    shape: ZYX

    def to_level0(self, level: LevelMap) -> tuple[ZYXFloat, ZYXFloat]:
        """Return (scale, offset): level-0 coordinate = working coordinate * scale + offset."""
        scale, offset = [], []
        for zoom, step, shift in zip(self.zoom, level.step, level.offset, strict=True):
            scale.append(zoom * step)
            offset.append((0.5 * zoom - 0.5) * step + shift)
        return as_triple(scale), as_triple(offset)


def working_scale(
    voxel_um: float | None,
    scales_um: Sequence[ZYXFloat],
    shapes: Sequence[ZYX],
    levels: Sequence[int] | None = None,
    elongation: float = 1.0,
) -> WorkingScale:
    """Choose level and zoom for a working voxel size.

    Parameters
    ----------
    voxel_um : float or None
        Wanted edge of a working voxel, micrometres; None takes the finest level as it is.
    scales_um : sequence of (z, y, x)
        Voxel size of every level, micrometres.
    shapes : sequence of (z, y, x)
        Shape of every level.
    levels : sequence of int, optional
        Levels that may be read, from fine to coarse; None is all of them.
    elongation : float
        So many times longer along z than across is a working voxel, whose volume stays the cube of
        its edge: objects of that elongation look round.

    Returns
    -------
    WorkingScale

    Raises
    ------
    ConfigError
        If the finest of them would have to be enlarged beyond `MAX_UPSAMPLING` in the plane, or if
        the working volume would be thinner than two voxels in the plane, or if nothing is rescaled
        and an elongation is asked for.
    """
    levels = range(len(scales_um)) if levels is None else levels
    level = levels[0]
    finest = scales_um[level]
    if voxel_um is None and elongation != 1.0:
        message = (
            f"elongation: got {elongation:g}, but the model has no known object size, so that the "
            "image is not rescaled; leave --elongation out"
        )
        raise ConfigError(message)
    if voxel_um is None:
        return WorkingScale(level, (1.0, 1.0, 1.0), finest, shapes[level])
    wanted = long_voxel(voxel_um, elongation)
    in_plane, across = min(finest[1], finest[2]), wanted[1]
    if across * MAX_UPSAMPLING < in_plane:
        message = (
            f"diameter: objects this small would need voxels of {across:.3g} um, but the image "
            f"has {in_plane:.3g} um; expected at least {in_plane / MAX_UPSAMPLING:.3g} um; give a "
            "larger --diameter, or check --voxel-size"
        )
        raise ConfigError(message)
    for k in levels:
        scale = scales_um[k]
        if all(
            s <= SLACK * w or s <= f * 1.001 for s, w, f in zip(scale, wanted, finest, strict=True)
        ):
            level = max(level, k)
    zoom, voxel = [], []
    for size, edge in zip(scales_um[level], wanted, strict=True):
        ratio = edge / size
        keep = 1.0 / SLACK <= ratio <= SLACK
        zoom.append(1.0 if keep else ratio)
        voxel.append(size if keep else edge)
    shape = working_shape(shapes[level], as_triple(zoom))
    if min(shape[1:]) < 2:
        extent = [n * s for n, s in zip(shapes[levels[0]], finest, strict=True)]
        message = (
            f"diameter: a working voxel of {voxel_um:.3g} um leaves the volume of "
            f"{extent[0]:.3g} x {extent[1]:.3g} x {extent[2]:.3g} um (z, y, x) only {shape} "
            "voxels; give a smaller --diameter, or check --voxel-size"
        )
        raise ConfigError(message)
    return WorkingScale(level, as_triple(zoom), as_triple(voxel), shape)


def squeeze(elongation: float, objects: int) -> float:
    """Return the elongation at which objects are looked at: 1, unless enough are clearly longer.

    Parameters
    ----------
    elongation : float
        Their median length along z over that across.
    objects : int
        So many were measured.
    """
    least, most = ELONGATED
    return min(elongation, most) if objects >= MEASURED and elongation >= least else 1.0


def long_voxel(edge: float, elongation: float) -> ZYXFloat:
    """Return the voxel, (z, y, x), of a cube's volume in which objects of an elongation are round.

    Parameters
    ----------
    edge : float
        Of the cube; any unit.
    elongation : float
        Length along z over that across.
    """
    across = edge * elongation ** (-1.0 / 3.0)
    return edge * elongation ** (2.0 / 3.0), across, across


def elongations(spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much longer along z than across each object is.

    Parameters
    ----------
    spread : float64 [n, 3]
        Standard deviation of its volume along z, y, x, in one unit of length.

    Returns
    -------
    float64 [n]
    """
    z, y, x = spread.T
    return np.asarray(z / np.sqrt(y * x))


def size_text(diameter_um: float, elongation: float) -> str:
    """Return the size at which objects are looked at, in words.

    Parameters
    ----------
    diameter_um : float
        Micrometres.
    elongation : float
        Their length along z over that across; 1 is not told.

    Examples
    --------
    >>> size_text(12.0, 1.0), size_text(12.0, 1.4)
    ('12 um', '12 um, 1.4 times as long along z')
    """
    longer = "" if elongation == 1.0 else f", {elongation:.3g} times as long along z"
    return f"{diameter_um:.3g} um{longer}"


def choose_offset(
    fine: NDArray[np.number], coarse: NDArray[np.number], start: ZYX, step: ZYXFloat
) -> tuple[str, ZYX]:
    """Decide how an undeclared level was made, by one textured crop.

    Parameters
    ----------
    fine : (z, y, x)
        Level 0 over the crop: voxels `round(start * step)` onwards.
    coarse : (z, y, x)
        The level over the crop, from voxel `start`.
    start : (z, y, x)
        First voxel of the crop in the level.
    step : (z, y, x)
        Level-0 voxels per voxel of the level.

    Returns
    -------
    str
        `area average` or `stride`, whichever explains `coarse` better; equal: `area average`.
    (z, y, x)
        Of a stride, which level-0 voxel of each window was taken; writers that resize to the
        nearest neighbour do not take the first.
    """
    # One undefined voxel must not spread through the running sums.
    exact = np.where(np.isfinite(fine), fine, 0).astype(np.float64)
    finite = np.isfinite(coarse)
    mean, windows = exact, []
    for axis in range(3):
        index = start[axis] + np.arange(coarse.shape[axis])
        origin = round(start[axis] * step[axis])
        first = np.rint(index * step[axis]).astype(np.int64) - origin
        stop = np.maximum(np.rint((index + 1) * step[axis]).astype(np.int64) - origin, first + 1)
        stop = np.minimum(stop, fine.shape[axis])
        first = np.minimum(first, stop - 1)
        total = np.cumsum(np.insert(mean, 0, 0.0, axis=axis), axis=axis)
        shape = [-1 if k == axis else 1 for k in range(3)]
        width = (stop - first).reshape(shape)
        mean = (np.take(total, stop, axis=axis) - np.take(total, first, axis=axis)) / width
        windows.append((first, stop))
    how, taken, least = "area average", (0, 0, 0), float(np.abs(mean - coarse)[finite].sum())
    for phase in product(*(_phases(s) for s in step)):
        picks = [np.minimum(a + p, b - 1) for (a, b), p in zip(windows, phase, strict=True)]
        error = float(np.abs(exact[np.ix_(*picks)] - coarse)[finite].sum())
        if error < least:
            how, taken, least = "stride", as_zyx(phase), error
    return how, taken


def _phases(step: float) -> list[int]:
    """The voxels of a window that a writer may have taken: first, last, and the middle ones."""
    size = max(1, int(step + 1e-6))
    return sorted({0, (size - 1) // 2, size // 2, size - 1})


def level_map(
    step: ZYXFloat, declared: ZYXFloat | None, how: str | None, taken: ZYX = (0, 0, 0)
) -> LevelMap:
    """Return where a level's voxels lie.

    Parameters
    ----------
    step : (z, y, x)
        Level-0 voxels per voxel of the level.
    declared : (z, y, x) or None
        Declared translation against level 0, level-0 voxels.
    how : str or None
        `area average` or `stride`, where nothing is declared; None for level 0 itself.
    taken : (z, y, x)
        Of a stride, which level-0 voxel of each window was taken.
    """
    if declared is not None:
        return LevelMap(step, declared, "declared")
    if how == "area average":
        return LevelMap(step, as_triple([(s - 1.0) / 2.0 for s in step]), how)
    return LevelMap(step, as_triple(taken), how if how is not None else "level 0")
