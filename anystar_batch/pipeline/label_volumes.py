"""One or two label volumes, read box by box: what they must have in common, and their voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.label_source import LabelSource
from anystar_batch.archive.ngff import channel_index
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.geometry import ZYX, Box
from anystar_batch.parsing import parse_times

BLOCK_SHAPE = (128, 256, 256)
"""Voxels of a box, rounded up to whole chunks: some 200 MB while it is counted, noise more."""


@dataclass(slots=True)
class LabelReader:
    """Reads boxes of one label volume.

    Parameters
    ----------
    volume : LabelSource
    level, channel : int
    """

    volume: LabelSource
    level: int
    channel: int
    _reader: ImageReader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = ImageReader(self.volume.source)

    def read_box(self, time: int, box: Box) -> NDArray[np.integer[Any]]:
        """Return the labels of a box.

        Parameters
        ----------
        time : int
            Time point; a volume of one time gives that.
        box : Box
            Voxels of the level.

        Returns
        -------
        integer (z, y, x)

        Raises
        ------
        ImageError
            If a label is negative.
        """
        t = time if self.volume.source.num_times > 1 else 0
        values = self._reader.read_box(self.level, t, self.channel, box)
        if values.dtype.kind == "i" and values.min() < 0:
            message = (
                f"{self.volume.path}: label {values.min()} in {box}, time {t}; expected "
                "0 (background) and above"
            )
            raise ImageError(message)
        return values


def open_labels(
    volumes: Sequence[LabelSource], level: int, channel: str | None
) -> tuple[LabelReader, ...]:
    """Return readers of volumes.

    Parameters
    ----------
    volumes : sequence of LabelSource
    level : int
        Of all of them.
    channel : str or None
        Index or name, for those that have several channels.

    Raises
    ------
    ConfigError
        If a volume has several channels and none is named, or it has no such channel.
    """
    channels = _channels(channel, volumes)
    return tuple(LabelReader(v, level, c) for v, c in zip(volumes, channels, strict=True))


def common_shape(volumes: Sequence[LabelSource], level: int) -> ZYX:
    """Return the voxels (z, y, x) of one time point of volumes.

    Parameters
    ----------
    volumes : sequence of LabelSource
        One or two.
    level : int

    Raises
    ------
    ConfigError
        If one has no such level.
    ImageError
        If they differ.
    """
    for volume in volumes:
        if level >= len(volume.source.levels):
            last = len(volume.source.levels) - 1
            message = f"--level: got {level}; {volume.path} has levels 0 to {last}"
            raise ConfigError(message)
    shape, other = (v.source.shape_zyx(level) for v in (volumes[0], volumes[-1]))
    if shape != other:
        message = (
            f"{volumes[0].path} has {shape} voxels (z, y, x) on level {level}, {volumes[-1].path} "
            f"{other}; expected volumes that match voxel by voxel: resample or crop one of them"
        )
        raise ImageError(message)
    return shape


def common_times(text: str, volumes: Sequence[LabelSource]) -> tuple[int, ...]:
    """Return the time points to read; a single volume goes with any one time of a series.

    Parameters
    ----------
    text : str
        See `parse_times`.
    volumes : sequence of LabelSource
        One or two.

    Raises
    ------
    ImageError
        If they have other numbers of time points.
    ConfigError
        If there is no such time.
    """
    counts = (volumes[0].source.num_times, volumes[-1].source.num_times)
    times = parse_times(text, max(counts))
    if counts[0] != counts[1] and not (min(counts) == 1 and len(times) == 1):
        message = (
            f"{volumes[0].path} has {counts[0]} time point(s), {volumes[-1].path} {counts[1]}; "
            "expected as many, or one and a single --time of the other"
        )
        raise ImageError(message)
    return times


def _channels(text: str | None, volumes: Sequence[LabelSource]) -> list[int]:
    """Return the channel of each volume; of one with a single channel, that."""
    sources = [volume.source for volume in volumes]
    several = [s for s in sources if s.num_channels > 1]
    if text is None:
        for source in several:
            names = ", ".join(f"{i} ({n})" for i, n in enumerate(source.channels))
            message = f"--channel: {source.path} has channels {names}; give one of them"
            raise ConfigError(message)
        return [0] * len(sources)
    if not several:
        channel_index(sources[0], text)
    return [channel_index(s, text) if s in several else 0 for s in sources]
