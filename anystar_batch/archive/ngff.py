"""What OME-NGFF metadata says of an image, as frozen values: axes, levels, physical units.

An `ImageSource` is everything that planning needs to know of an image. Its shapes, scales and
translations have one item per axis of the image, in the image's own order; only the methods whose
names end in `_zyx` or `_um` turn them into (z, y, x). `metadata` makes them.

Dataset transforms come first, those of the multiscale second::

    index --dataset scale, translation--> --multiscale scale, translation--> physical
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from anystar_batch.archive.units import is_no_unit, micrometres_in
from anystar_batch.errors import ConfigError, did_you_mean
from anystar_batch.geometry import ZYX, ZYXFloat

JSON: TypeAlias = dict[str, Any]
"""A JSON object as `json.loads` gives it."""

Version: TypeAlias = Literal["0.4", "0.5", "0.6"]
"""The NGFF versions that can be read and written."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an image.

    Parameters
    ----------
    name : str
        Name, unique within the image.
    type : str
        `space`, `time`, `channel` or a type of the writer's own.
    unit : str or None
        Unit of the physical coordinate, as written in the file.
    """

    name: str
    type: str
    unit: str | None


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """What the metadata of one Zarr array says.

    Parameters
    ----------
    shape, chunks : tuple of int
        Voxels per axis of the array; of a chunk (of an inner chunk, if sharded).
    shards : tuple of int or None
        Voxels per axis of a shard.
    dtype : str
        NumPy's name of the type, e.g. `uint16`.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: str


@dataclass(frozen=True, slots=True)
class Level:
    """One dataset of a pyramid, all tuples in the order of the image's axes.

    Parameters
    ----------
    path : str
        Path below the image, with `/`.
    shape, chunks : tuple of int
        Voxels per axis of the array; of a chunk (of an inner chunk, if sharded).
    shards : tuple of int or None
        Voxels per axis of a shard.
    dtype : str
        Type of the values that reading gives, e.g. `uint16`; bool is read as `uint8`.
    scale, translation : tuple of float
        Physical units per voxel, and physical position of the centre of voxel 0: transforms of the
        dataset, then of the multiscale.
    has_translation : bool
        Whether the dataset itself declares a translation. One declared for the whole multiscale
        does not count: it moves all levels alike and says nothing about how one was made.
    fault : str
        Why scale and translation as written cannot be believed; empty if they can. With a fault the
        level is not read, and its transforms here are those that its shape implies.
    """

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    has_translation: bool
    fault: str = ""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image that has passed every check, as its metadata describes it.

    Parameters
    ----------
    path : str
        Where the image lies.
    name : str
        Name in the metadata, else the last part of the path.
    version : {"0.4", "0.5", "0.6"}
        NGFF version; 0.4 is stored as Zarr v2, the others as Zarr v3.
    axes : tuple of Axis
        In the order of the arrays' axes.
    levels : tuple of Level
        Level 0 has the full resolution.
    channels : tuple of str
        Unique names: of the `omero` metadata, or "0", "1", ...
    multiscales : dict
        The entry of `multiscales` that is read, as written in the file.
    was_consolidated : bool
        Whether the image's root group carries consolidated metadata.
    multiscale : int
        Index of that entry; 0 is the first.
    multiscale_names : tuple of str
        Names of all multiscales of the group.
    left_out : tuple of (path, reason)
        Datasets that are listed and no levels here: missing, or not in order.
    unused : tuple of int
        Levels that do not show what level 0 shows (`stages.levels`): nobody reads them.
    """

    path: str
    name: str
    version: Version
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    channels: tuple[str, ...]
    multiscales: JSON = field(hash=False)
    was_consolidated: bool
    multiscale: int = 0
    multiscale_names: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    unused: tuple[int, ...] = ()

    @property
    def readable(self) -> tuple[int, ...]:
        """Levels that may be read instead of level 0, and level 0, in order."""
        levels = enumerate(self.levels)
        return tuple(k for k, one in levels if not one.fault and k not in self.unused)

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Zarr format that stores this NGFF version."""
        return 2 if self.version == "0.4" else 3

    @property
    def others(self) -> tuple[str, ...]:
        """Names of further multiscales of the group, which are not read."""
        return tuple(n for i, n in enumerate(self.multiscale_names) if i != self.multiscale)

    @property
    def t_axis(self) -> int | None:
        """Index of the time axis."""
        return next((i for i, a in enumerate(self.axes) if a.type == "time"), None)

    @property
    def c_axis(self) -> int | None:
        """Index of the axis that is neither space nor time: channels, or the writer's own."""
        return next((i for i, a in enumerate(self.axes) if a.type not in {"space", "time"}), None)

    @property
    def space_axes(self) -> ZYX:
        """Indices of z, y, x: by name if all three names are there, else in the order listed."""
        space = [i for i, a in enumerate(self.axes) if a.type == "space"]
        by_name = {self.axes[i].name.casefold(): i for i in space}
        z, y, x = [by_name[n] for n in "zyx"] if set(by_name) == set("zyx") else space
        return z, y, x

    @property
    def num_times(self) -> int:
        """Length of the time axis, 1 without one."""
        return 1 if self.t_axis is None else self.levels[0].shape[self.t_axis]

    @property
    def num_channels(self) -> int:
        """Length of the channel axis, 1 without one."""
        return 1 if self.c_axis is None else self.levels[0].shape[self.c_axis]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values of level 0 that reading gives."""
        return np.dtype(self.levels[0].dtype)

    @property
    def unit_assumed(self) -> bool:
        """Whether micrometres are assumed on some spatial axis: no unit there, or not a length."""
        return not all(self.has_unit_zyx)

    @property
    def has_unit_zyx(self) -> tuple[bool, bool, bool]:
        """Whether the unit of z, y, x is a length that is known."""
        z, y, x = (micrometres_in(self.axes[i].unit) is not None for i in self.space_axes)
        return z, y, x

    @property
    def unknown_units(self) -> dict[str, str]:
        """Units of spatial axes that say something, but no length that is known, by axis."""
        return {
            axis.name: axis.unit
            for axis in (self.axes[i] for i in self.space_axes)
            if axis.unit is not None
            and micrometres_in(axis.unit) is None
            and not is_no_unit(axis.unit)
        }

    def shape_zyx(self, level: int = 0) -> ZYX:
        """Return voxels per axis of a level, (z, y, x)."""
        z, y, x = (self.levels[level].shape[i] for i in self.space_axes)
        return z, y, x

    def chunks_zyx(self, level: int = 0) -> ZYX:
        """Return voxels per axis of a chunk (of an inner chunk, if sharded), (z, y, x)."""
        z, y, x = (self.levels[level].chunks[i] for i in self.space_axes)
        return z, y, x

    def shards_zyx(self, level: int = 0) -> ZYX | None:
        """Return voxels per axis of a shard, (z, y, x), or None for a level without shards."""
        shards = self.levels[level].shards
        if shards is None:
            return None
        z, y, x = (shards[i] for i in self.space_axes)
        return z, y, x

    def storage_zyx(self, level: int = 0) -> ZYX:
        """Return voxels per axis of one stored object: a shard, or a chunk without shards."""
        return self.shards_zyx(level) or self.chunks_zyx(level)

    def scale_um(self, level: int = 0) -> ZYXFloat:
        """Return micrometres per voxel of a level, (z, y, x)."""
        return self._um(self.levels[level].scale)

    def translation_um(self, level: int = 0) -> ZYXFloat:
        """Return the position of the centre of voxel 0 of a level, (z, y, x), micrometres."""
        return self._um(self.levels[level].translation)

    def _um(self, values: tuple[float, ...]) -> ZYXFloat:
        units = (micrometres_in(self.axes[i].unit) for i in self.space_axes)
        each = zip(self.space_axes, units, strict=True)
        z, y, x = (values[i] * (1.0 if unit is None else unit) for i, unit in each)
        return z, y, x


def metadata_fingerprint(source: ImageSource) -> JSON:
    """Return what the result depends on of an image's metadata: not its place, name or version.

    Parameters
    ----------
    source : ImageSource
        The image.

    Returns
    -------
    dict
        JSON-able: axes, channels (they name columns), and of every level shape, type, chunking and
        transforms.
    """
    return {
        "axes": [[a.name, a.type, a.unit] for a in source.axes],
        "channels": list(source.channels),
        "levels": [
            {
                "path": level.path,
                "shape": list(level.shape),
                "dtype": level.dtype,
                "chunks": list(level.chunks),
                "shards": None if level.shards is None else list(level.shards),
                "scale": list(level.scale),
                "translation": list(level.translation),
                "has_translation": level.has_translation,
            }
            | ({"fault": level.fault} if level.fault else {})
            for level in source.levels
        ],
    }


def multiscale_json(source: ImageSource) -> JSON:
    """Return which of several multiscales an image is, as JSON values; nothing for the first."""
    if source.multiscale == 0:
        return {}
    name = source.multiscale_names[source.multiscale]
    return {"multiscale": {"index": source.multiscale, "name": name}}


def channel_index(source: ImageSource, channel: str) -> int:
    """Return the index of a channel given by name or index.

    Raises
    ------
    ConfigError
        If the image has no such channel.
    """
    if channel in source.channels:
        return source.channels.index(channel)
    if channel.isdecimal() and int(channel) < source.num_channels:
        return int(channel)
    names = ", ".join(f"{i} ({n})" for i, n in enumerate(source.channels))
    near = did_you_mean(channel, source.channels)
    message = f"--channel: got {channel!r}; the image has {names}{near}"
    raise ConfigError(message)


def level_index(source: ImageSource, asked: int | None) -> int | None:
    """Return the level that `--level` asks for; None for none.

    Raises
    ------
    ConfigError
        If the image has no such level.
    """
    count = len(source.levels)
    if asked is not None and asked >= count:
        paths = ", ".join(f"{k} ({level.path})" for k, level in enumerate(source.levels))
        message = f"--level: got {asked}; the image has {count}: {paths}"
        raise ConfigError(message)
    return asked
