"""Levels of a pyramid as their metadata describe them, held against level 0.

Level 0 is believed. A level that is not there, or larger than one
listed before it, is left out; one whose scale or translation contradicts its shape stays, with the
transforms that its shape implies, and is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from anystar_batch.archive.ngff import Axis, ImageSource, Level
from anystar_batch.errors import UnsuitedError
from anystar_batch.geometry import as_zyx

TOLERANCE = 1e-6
"""Relative error of numbers that went through text."""


def with_levels(source: ImageSource, listed: Sequence[Level | None]) -> ImageSource:
    """Return an image with those of its listed levels that are there, in order and checked.

    Parameters
    ----------
    source : ImageSource
        Its `multiscales` lists all of them; its levels are not looked at.
    listed : sequence of Level or None
        A level for every dataset; None where the array is missing, never the first.

    Returns
    -------
    ImageSource
        Its `multiscales` lists what is left.
    """
    space, datasets = source.space_axes, source.multiscales["datasets"]
    levels, left_out = _ordered_levels(listed, [d["path"] for d in datasets], space)
    gone = {path for path, _ in left_out}
    kept = {**source.multiscales, "datasets": [d for d in datasets if d["path"] not in gone]}
    return replace(
        source,
        levels=checked_levels(levels, source.axes, space),
        left_out=left_out,
        multiscales=kept if gone else source.multiscales,
    )


def _ordered_levels(
    levels: Sequence[Level | None], paths: Sequence[str], space: Sequence[int]
) -> tuple[tuple[Level, ...], tuple[tuple[str, str], ...]]:
    """The levels that are there and no larger than those before, and path and reason of others."""
    found: list[Level] = []
    left_out: list[tuple[str, str]] = []
    for level, path in zip(levels, paths, strict=True):
        if level is None:
            left_out.append((path, "it is listed, but its array is missing"))
        elif found and any(level.shape[i] > found[-1].shape[i] for i in space):
            here, before = (tuple(one.shape[i] for i in space) for one in (level, found[-1]))
            left_out.append(
                (
                    path,
                    f"its shape {here} is larger than that of {found[-1].path}, {before}, listed "
                    "before it; expected levels from fine to coarse",
                )
            )
        else:
            found.append(level)
    return tuple(found), tuple(left_out)


def checked_levels(
    levels: Sequence[Level], axes: Sequence[Axis], space: Sequence[int]
) -> tuple[Level, ...]:
    """Return the levels; those whose metadata contradict level 0 with a fault and other transforms.

    Parameters
    ----------
    levels : sequence of Level
        From fine to coarse.
    axes : sequence of Axis
    space : (z, y, x)
        Indices of the spatial axes.

    Returns
    -------
    tuple of Level
        Of a level with a fault, voxel i of a spatial axis stands for the window [i f, (i+1) f) of
        level 0, f being the product of `pyramid.level_factors`: there the label's levels lie.
    """
    faults = [_fault(levels[0], level, axes, space) for level in levels]
    if not any(faults):
        return tuple(levels)
    from anystar_batch.pyramid import level_factors  # noqa: PLC0415  (numba takes a second)

    checked, factors = [], [1.0, 1.0, 1.0]
    for k, (level, fault) in enumerate(zip(levels, faults, strict=True)):
        if k:
            before, here = (as_zyx(one.shape[i] for i in space) for one in (levels[k - 1], level))
            factors = [a * b for a, b in zip(factors, level_factors(before, here), strict=True)]
        checked.append(_corrected(levels[0], level, fault, space, factors) if fault else level)
    return tuple(checked)


def _fault(finest: Level, level: Level, axes: Sequence[Axis], space: Sequence[int]) -> str:
    """Why a level's scale and translation cannot be believed; empty if they can."""
    for i in space:
        name, n, scale = axes[i].name, level.shape[i], level.scale[i]
        length, whole = n * scale, finest.shape[i] * finest.scale[i]
        if abs(length - whole) > scale * (1 + TOLERANCE) + TOLERANCE * whole:
            return (
                f"along {name} it spans {n} voxels of {scale:g}, that is {length:g}, but level 0 "
                f"{finest.shape[i]} of {finest.scale[i]:g}, that is {whole:g} (its scale "
                "contradicts its shape)"
            )
        if n < finest.shape[i] and scale <= finest.scale[i] * (1 + TOLERANCE):
            return (
                f"along {name} it has {n} voxels, level 0 {finest.shape[i]}, but its scale is "
                f"{scale:g}, no larger than {finest.scale[i]:g}"
            )
        offset = abs(level.translation[i] - finest.translation[i]) / scale
        if level.has_translation and offset > 1 + TOLERANCE:
            return (
                f"along {name} its translation differs from that of level 0 by {offset:.3g} of "
                f"its voxels of {scale:g}; expected less than one"
            )
    return ""


def _corrected(
    finest: Level, level: Level, fault: str, space: Sequence[int], factors: Sequence[float]
) -> Level:
    """The level with the transforms that its shape implies."""
    scale, translation = list(level.scale), list(level.translation)
    for i, factor in zip(space, factors, strict=True):
        scale[i] = finest.scale[i] * factor
        translation[i] = finest.translation[i] + (factor - 1) / 2 * finest.scale[i]
    return replace(
        level,
        scale=tuple(scale),
        translation=tuple(translation),
        has_translation=False,
        fault=fault,
    )


def value_dtype(path: str, where: str, name: str) -> str:
    """Return the type that reading gives, refusing what is not a real number.

    Raises
    ------
    UnsuitedError
        If it is no real number of at most 64 bits.
    """
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = np.dtype("V")
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        message = (
            f"{path}: {where} has the unsupported type {name}; "
            "expected integers, floats (to 64 bits) or bool"
        )
        raise UnsuitedError(message)
    return dtype.name
