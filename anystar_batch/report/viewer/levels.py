"""Levels as arrays whose voxels are read when somebody looks: what a viewer is given.

A viewer takes a tile of a level first and a plane of the tile next, and means the plane alone: an
index reads nothing and gives a narrower view. Voxels are read, chunk by chunk, when the view is
turned into an array. Nothing is kept per chunk: with Dask, which names every chunk of an array
before it reads one, a plane of a level of 4.8 x 10^8 chunks ended for lack of memory.

A level that is too large to be seen whole gets coarser ones that show every second voxel. They take
time to read, as all chunks are decoded, and little memory.
"""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from types import EllipsisType
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from anystar_batch.archive.arrays import open_array
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.errors import DataError, ImageError, shorten

COARSE_VOXELS = 2**27
"""Most voxels of the coarsest level: a viewer shows them at once in 3D."""

MOST_BYTES = 2**32
"""Most bytes that are read at once."""

Index: TypeAlias = SupportsIndex | slice | EllipsisType


class LazyLevel:
    """Some of the voxels of one channel of one level, not read yet.

    Its axes are t, if the image has one, and z, y, x, without those of which one index was taken.

    Parameters
    ----------
    source : ImageSource
        The image.
    level : int
    channel : int
        0 where the image has no such axis.
    taken : tuple of range or int, optional
        Of every axis of the stored array, which indices; None is all.
    """

    __slots__ = ("_axes", "_level", "_source", "_taken")

    def __init__(
        self,
        source: ImageSource,
        level: int,
        channel: int,
        taken: tuple[range | int, ...] | None = None,
    ) -> None:
        if taken is None:
            taken = tuple(
                channel if axis == source.c_axis else range(length)
                for axis, length in enumerate(source.levels[level].shape)
            )
        shown = (*(() if source.t_axis is None else (source.t_axis,)), *source.space_axes)
        self._source, self._level, self._taken = source, level, taken
        self._axes = tuple(axis for axis in shown if isinstance(taken[axis], range))

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        return tuple(len(taken) for taken in self._ranges)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._axes)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that reading gives."""
        return np.dtype(self._source.levels[self._level].dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that reading takes."""
        return self.size * self.dtype.itemsize

    @property
    def _ranges(self) -> list[range]:
        every = (self._taken[axis] for axis in self._axes)
        return [taken for taken in every if isinstance(taken, range)]

    def __getitem__(self, key: Index | tuple[Index, ...]) -> LazyLevel:
        """Return a narrower view; nothing is read.

        Raises
        ------
        IndexError
            If an index is outside, there are too many, or a slice goes backwards.
        """
        given = key if isinstance(key, tuple) else (key,)
        missing = self.ndim - sum(one is not ... for one in given)
        if missing < 0:
            message = f"{len(given)} indices for {self.ndim} axes"
            raise IndexError(message)
        keys: list[SupportsIndex | slice] = []
        for one in given:
            keys += [slice(None)] * missing if isinstance(one, EllipsisType) else [one]
        taken = list(self._taken)
        for axis, whole, index in zip(self._axes, self._ranges, keys, strict=False):
            if not isinstance(index, slice):
                taken[axis] = whole[operator.index(index)]
                continue
            part = whole[index]
            if part.step < 0:
                message = f"{index} goes backwards; expected a step above 0"
                raise IndexError(message)
            taken[axis] = part
        return LazyLevel(self._source, self._level, 0, tuple(taken))

    def __len__(self) -> int:
        """Return the length of the first axis."""
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the voxels.

        Raises
        ------
        ImageError
            If they are more than `MOST_BYTES`.
        DataError
            If a stored chunk cannot be read.
        """
        del copy  # they are always new
        source, path = self._source, self._source.levels[self._level].path
        if self.nbytes > MOST_BYTES:
            message = (
                f"{source.path}: {self.shape} voxels of level {path} take {self.nbytes / 1e9:.1f} "
                f"GB; at most {MOST_BYTES / 1e9:.1f} GB are read at once"
            )
            raise ImageError(message)
        target_type = np.dtype(dtype) if dtype is not None else self.dtype
        if self.size == 0:
            return np.empty(self.shape, target_type)
        index = tuple(
            slice(one.start, one.stop, one.step) if isinstance(one, range) else one
            for one in self._taken
        )
        try:
            values = np.asarray(_array(f"{source.path}/{path}", source.zarr_format)[index])
        except DataError:
            raise
        except Exception as error:
            message = (
                f"{source.path}: level {path}, {index}: the stored data cannot be read "
                f"({type(error).__name__}: {shorten(error)})"
            )
            raise DataError(message) from error
        stored = sorted(self._axes)
        return values.transpose([stored.index(axis) for axis in self._axes]).astype(target_type)


@lru_cache(maxsize=256)
def _array(path: str, zarr_format: Literal[2, 3]) -> Any:  # noqa: ANN401
    """The array, opened once."""
    return open_array(path, zarr_format, "r")


def lazy_levels(source: ImageSource, channel: int) -> tuple[LazyLevel, ...]:
    """Return the levels of a channel, finest first, the last of them small enough to be seen whole.

    Parameters
    ----------
    source : ImageSource
        The image.
    channel : int
        0 where the image has no such axis.

    Returns
    -------
    tuple of LazyLevel
        Axes (t, z, y, x) or (z, y, x), whatever their order in the file.
    """
    levels = [LazyLevel(source, level, channel) for level in range(len(source.levels))]
    while math.prod(levels[-1].shape[-3:]) > COARSE_VOXELS:
        last = levels[-1]
        longest = max(last.shape[-3:])
        halved = [slice(None, None, 2 if 2 * n >= longest else 1) for n in last.shape[-3:]]
        levels.append(last[(..., *halved)])
    return tuple(levels)
