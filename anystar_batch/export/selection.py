"""Which stars are exported, read a chunk of rows at a time.

A star is the polyhedron that was painted, alone: where stars overlap both have the volume, while a
voxel of the label belongs to one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.star_group import CHUNK, StarFrame, StarReader
from anystar_batch.errors import ConfigError
from anystar_batch.parsing import parse_ranges
from anystar_batch.stars.polyhedra import volumes
from anystar_batch.stars.rays import Rays


@dataclass(frozen=True, slots=True, eq=False)
class StarBatch:
    """Some stars, in the order of their labels.

    Parameters
    ----------
    labels : uint32 [n]
    times : int32 [n]
    points : float64 [n, 3]
        Centres, axes (z, y, x), voxels of level 0.
    dist : float32 [n, n_rays]
        Working voxels.
    prob : float32 [n]
    quality : float32 [n] or None
    """

    labels: NDArray[np.uint32]
    times: NDArray[np.int32]
    points: NDArray[np.float64]
    dist: NDArray[np.float32]
    prob: NDArray[np.float32]
    quality: NDArray[np.float32] | None

    def __len__(self) -> int:
        """Return the number of stars."""
        return len(self.labels)

    def take(self, mask: NDArray[np.bool_]) -> StarBatch:
        """Return those where a mask (bool [n]) is."""
        return StarBatch(
            self.labels[mask],
            self.times[mask],
            self.points[mask],
            self.dist[mask],
            self.prob[mask],
            None if self.quality is None else self.quality[mask],
        )


class Selection:
    """Stars of a label, by label number and time.

    Parameters
    ----------
    reader : StarReader
    ranges : sequence of (first, last)
        Labels; none: all.
    times : sequence of int or None
        Time points; None: all.

    Raises
    ------
    ConfigError
        If a label does not exist, or nothing is left.
    """

    def __init__(
        self,
        reader: StarReader,
        ranges: Sequence[tuple[int, int]] = (),
        times: Sequence[int] | None = None,
    ) -> None:
        count = reader.frame.count
        for first, last in ranges:
            if last > count:
                message = f"--labels: got {first}-{last}; the label has 1 to {count}"
                raise ConfigError(message)
        listed = [np.arange(first - 1, last) for first, last in ranges or [(1, count)]]
        rows = np.unique(np.concatenate(listed))
        if times is not None:
            rows = rows[np.isin(reader.rows("time", 0, None)[rows], times)]
        if not len(rows):
            message = "no star is left to export: check --labels and --time"
            raise ConfigError(message if count else "the label has no objects: nothing to export")
        self.reader, self._rows = reader, rows

    def __len__(self) -> int:
        """Return the number of stars."""
        return len(self._rows)

    @property
    def frame(self) -> StarFrame:
        """What their numbers mean."""
        return self.reader.frame

    @property
    def rays(self) -> Rays:
        """Directions and faces."""
        return self.reader.rays

    def batches(self) -> Iterator[StarBatch]:
        """Yield the stars, at most `CHUNK` at a time."""
        reader, quality = self.reader, self.frame.has_quality
        for rows in np.split(self._rows, np.flatnonzero(np.diff(self._rows // CHUNK)) + 1):
            start, stop = int(rows[0]), int(rows[-1]) + 1
            names = ("label", "time", "points", "distances", "prob", *(["quality"] * quality))
            columns = {name: reader.rows(name, start, stop)[rows - start] for name in names}
            yield StarBatch(
                columns["label"],
                columns["time"],
                columns["points"],
                columns["distances"],
                columns["prob"],
                columns.get("quality"),
            )


def parse_labels(text: str) -> tuple[tuple[int, int], ...]:
    """Read which labels, `1,5-9`: ranges from first to last; an empty text is none.

    Raises
    ------
    ConfigError
        If they are no positive numbers.

    Examples
    --------
    >>> parse_labels("1,5-9")
    ((1, 1), (5, 9))
    """
    ranges = parse_ranges(text) if text.strip() else ()
    if ranges is None:
        message = f"--labels: got {text!r}; expected numbers from 1 on, such as 1,5-9"
        raise ConfigError(message)
    return ranges


def corners_voxels(stars: StarBatch, frame: StarFrame, rays: Rays) -> NDArray[np.float64]:
    """Return the corners of stars, float64 [n, n_rays, 3], axes (z, y, x), voxels of level 0."""
    steps = rays.vertices * np.asarray(frame.lattice.scale)
    corners: NDArray[np.float64] = stars.dist.astype(np.float64)[:, :, None] * steps
    return corners + stars.points[:, None, :]


def in_um(places: NDArray[np.float64], frame: StarFrame) -> NDArray[np.float64]:
    """Return places of level 0, [..., 3] (z, y, x), in micrometres of physical space."""
    um: NDArray[np.float64] = places * np.asarray(frame.voxel_um) + np.asarray(frame.translation_um)
    return um


def corners_xyz(stars: StarBatch, frame: StarFrame, rays: Rays) -> NDArray[np.float64]:
    """Return the corners of stars, float64 [n, n_rays, 3], axes (x, y, z), micrometres."""
    return in_um(corners_voxels(stars, frame, rays), frame)[:, :, ::-1]


def faces_xyz(rays: Rays) -> NDArray[np.int64]:
    """Return the triangles of a star, outward in (x, y, z): a turned order of axes mirrors them."""
    return np.ascontiguousarray(rays.faces[:, ::-1])


def volumes_um3(stars: StarBatch, frame: StarFrame, rays: Rays) -> NDArray[np.float64]:
    """Return the volumes of stars, float64 [n], cubic micrometres."""
    step = float(np.prod(np.asarray(frame.lattice.scale) * np.asarray(frame.voxel_um)))
    um3: NDArray[np.float64] = volumes(stars.dist, rays) * step
    return um3


def radii_um(stars: StarBatch, frame: StarFrame, rays: Rays) -> NDArray[np.float64]:
    """Return the radii of balls of the same volumes, float64 [n], micrometres."""
    radii: NDArray[np.float64] = np.cbrt(volumes_um3(stars, frame, rays) * 0.75 / np.pi)
    return radii
