"""The arrays of a label image: they mirror the image's pyramid and follow from it alone.

Every level has the image's path, shape and transforms, without the channel axis; where the image's
transforms contradict its shapes, those that the shapes imply. A write unit (a
shard, or a chunk without shards) belongs to one task: `LabelWriter` takes nothing smaller.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive import arrays as store
from anystar_batch.archive.coordinate_systems import RAW, label_entry
from anystar_batch.archive.metadata import composed
from anystar_batch.archive.ngff import JSON, ArrayInfo, Axis, ImageSource, Version
from anystar_batch.archive.storage import files
from anystar_batch.errors import DataError, LostLockError, shorten
from anystar_batch.geometry import ZYX, Box

MIN_CHUNK, MAX_CHUNK = 64, 128
"""Bounds of a chunk's edge, voxels."""

SHARD_EDGE = 256
"""Edge that a shard aims at, voxels."""

MAX_FILES = 50_000
"""Chunks of level 0 above which they are gathered in shards, where the format has them."""

METHOD: JSON = {
    "description": (
        "Label image of one instance per number. Each voxel of level n is the most frequent label "
        "of its window of level n-1; ties go to the foreground, then to the smallest label."
    ),
    "method": "anystar_batch.pyramid.downsample_mode",
}
"""`metadata` of the multiscale, as NGFF asks for."""


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """Everything of a label image but its voxels: a function of the image alone.

    All tuples of a level have one item per axis of the label, in the image's order without the
    channel axis.

    Parameters
    ----------
    version : {"0.4", "0.5", "0.6"}
        NGFF version, the image's.
    axes : tuple of Axis
        The image's axes without the channel axis.
    space_axes : (z, y, x)
        Indices of the spatial axes among `axes`.
    paths : tuple of str
        Path of every level, the image's.
    arrays : tuple of ArrayInfo
        Shape, chunks, shards and type of every level.
    multiscales : dict
        Entry for the label's attributes, without a name.
    """

    version: Version
    axes: tuple[Axis, ...]
    space_axes: ZYX
    paths: tuple[str, ...]
    arrays: tuple[ArrayInfo, ...]
    multiscales: JSON = field(hash=False)

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """Zarr format that stores the label."""
        return 2 if self.version == "0.4" else 3

    @property
    def num_levels(self) -> int:
        """Number of levels, the image's."""
        return len(self.arrays)

    @property
    def num_times(self) -> int:
        """Length of the time axis, 1 without one."""
        for axis, length in zip(self.axes, self.arrays[0].shape, strict=True):
            if axis.type == "time":
                return length
        return 1

    def shape_zyx(self, level: int = 0) -> ZYX:
        """Return voxels per axis of a level, (z, y, x)."""
        return self._zyx(self.arrays[level].shape)

    def chunks_zyx(self, level: int = 0) -> ZYX:
        """Return voxels per axis of a chunk (of an inner chunk, if sharded), (z, y, x)."""
        return self._zyx(self.arrays[level].chunks)

    def write_unit_zyx(self, level: int = 0) -> ZYX:
        """Return the voxels that one task must own, (z, y, x): a shard, or a chunk without shards.

        Two tasks that write parts of one such unit lose data silently.
        """
        info = self.arrays[level]
        return self._zyx(info.shards or info.chunks)

    def _zyx(self, values: tuple[int, ...]) -> ZYX:
        z, y, x = (values[i] for i in self.space_axes)
        return z, y, x


def label_spec(source: ImageSource) -> LabelSpec:
    """Derive the label image that mirrors an image's pyramid.

    Chunks are the image's own at level 0, clipped to 64 to 128 voxels an axis and to each level.
    They are gathered in shards of about 256 voxels an axis if the format is Zarr v3 and the image
    has shards, or level 0 would have more than 50,000 chunks.

    Parameters
    ----------
    source : ImageSource
        The image.

    Returns
    -------
    LabelSpec
    """
    keep = [i for i in range(len(source.axes)) if i != source.c_axis]
    axes = tuple(source.axes[i] for i in keep)
    z, y, x = (keep.index(i) for i in source.space_axes)
    space = (z, y, x)
    edges = [1] * len(axes)
    for axis, chunk in zip(space, source.chunks_zyx(0), strict=True):
        edges[axis] = min(max(chunk, MIN_CHUNK), MAX_CHUNK)
    shapes = [tuple(level.shape[i] for i in keep) for level in source.levels]
    is_sharded = source.version != "0.4" and (
        source.levels[0].shards is not None or _num_chunks(shapes[0], edges) > MAX_FILES
    )
    return LabelSpec(
        version=source.version,
        axes=axes,
        space_axes=space,
        paths=tuple(level.path for level in source.levels),
        arrays=tuple(_label_array(shape, edges, space, is_sharded=is_sharded) for shape in shapes),
        multiscales=_label_multiscales(source, keep),
    )


def _num_chunks(shape: tuple[int, ...], edges: list[int]) -> int:
    total = 1
    for n, edge in zip(shape, edges, strict=True):
        total *= -(-n // edge)
    return total


def _label_array(
    shape: tuple[int, ...], edges: list[int], space: ZYX, *, is_sharded: bool
) -> ArrayInfo:
    """Return the array of one level: no chunk larger than it, no shard larger than its chunks."""
    chunks = tuple(min(edge, n) for edge, n in zip(edges, shape, strict=True))
    shards = list(chunks)
    for axis in space if is_sharded else ():
        count = min(max(1, SHARD_EDGE // chunks[axis]), -(-shape[axis] // chunks[axis]))
        shards[axis] = count * chunks[axis]
    return ArrayInfo(shape, chunks, tuple(shards) if is_sharded else None, "uint32")


def _label_multiscales(source: ImageSource, keep: list[int]) -> JSON:
    """Copy the image's multiscale without the channel axis."""

    def cut(holder: JSON) -> JSON:
        transforms = copy.deepcopy(holder["coordinateTransformations"])
        for t in transforms:
            if t["type"] in t:
                t[t["type"]] = [t[t["type"]][i] for i in keep]
        return {"coordinateTransformations": transforms}

    raw = source.multiscales
    entry: JSON = {
        "axes": [copy.deepcopy(raw["axes"][i]) for i in keep],
        "datasets": [
            {"path": path, **(_implied(source, path, keep) or cut(d))}
            for path, d in ((d["path"].strip("/"), d) for d in raw["datasets"])
        ],
        "type": "mode",
        "metadata": copy.deepcopy(METHOD),
    }
    if raw.get("coordinateTransformations"):
        entry |= cut(raw)
    return entry if RAW not in raw else label_entry(entry, raw[RAW], keep)


def _implied(source: ImageSource, path: str, keep: list[int]) -> JSON:
    """Where labels lie on a level whose transforms contradict its shape; of others nothing."""
    level = next((level for level in source.levels if level.path == path and level.fault), None)
    if level is None:
        return {}
    outer_scale, outer_shift, _ = composed(
        source.path, "multiscales", source.multiscales, len(source.axes)
    )
    scale = [a / b for a, b in zip(level.scale, outer_scale, strict=True)]
    shift = [
        (a - c) / b for a, b, c in zip(level.translation, outer_scale, outer_shift, strict=True)
    ]
    return {
        "coordinateTransformations": [
            {"type": "scale", "scale": [scale[i] for i in keep]},
            {"type": "translation", "translation": [shift[i] for i in keep]},
        ]
    }


class LabelWriter:
    """Read and write boxes of a label image; arrays are opened on first use in every process.

    Parameters
    ----------
    path : str
        The label's group, hidden or published.
    spec : LabelSpec
        Its arrays.
    """

    __slots__ = ("_arrays", "path", "spec")

    def __init__(self, path: str, spec: LabelSpec) -> None:
        self.path = path
        self.spec = spec
        self._arrays: dict[int, Any] = {}

    def __reduce__(self) -> tuple[type[LabelWriter], tuple[str, LabelSpec]]:
        """Pickle path and description only: open arrays stay in their process."""
        return LabelWriter, (self.path, self.spec)

    def _array(self, level: int) -> Any:  # noqa: ANN401 - zarr's own type stays behind its door
        if level not in self._arrays:
            path = f"{self.path}/{self.spec.paths[level]}"
            self._arrays[level] = store.open_array(path, self.spec.zarr_format, "r+")
        return self._arrays[level]

    def read_box(self, level: int, t: int, box: Box) -> NDArray[np.uint32]:
        """Read the labels of a box.

        Parameters
        ----------
        level, t : int
            Level and time; 0 where there is no such axis.
        box : Box
            Voxels of that level, inside the label.

        Returns
        -------
        (z, y, x)
            C-contiguous.

        Raises
        ------
        DataError
            If what was written cannot be read back.
        """
        spec = self.spec
        index = store.axis_index(spec.axes, spec.space_axes, t, 0, box)
        array = self._array(level)
        try:
            values = np.asarray(array[index])
        except Exception as error:
            message = (
                f"{self.path}: level {spec.paths[level]}, t {t}, {box}: the labels cannot be read "
                f"back ({type(error).__name__}: {shorten(error)}); run again; if that does not "
                "help, give --restart"
            )
            raise DataError(message) from error
        return np.ascontiguousarray(store.to_zyx(values, spec.space_axes), dtype=np.uint32)

    def write_box(self, level: int, t: int, box: Box, labels: NDArray[np.uint32]) -> None:
        """Write the labels of a box of whole write units.

        Background only removes a stored chunk: what is on disk depends on the labels alone, not on
        what an earlier, killed run wrote.

        Parameters
        ----------
        level, t : int
            Level and time; 0 where there is no such axis.
        box : Box
            Voxels of that level: starts and stops on multiples of `spec.write_unit_zyx(level)`, or
            stops at the volume's end.
        labels : (z, y, x)
            Its labels.

        Raises
        ------
        ValueError
            If the box cuts a write unit, or the labels have another shape or type.
        LostLockError
            If the label is gone: zarr would make its directories anew.
        OutputError
            If the place cannot be written or is full.
        """
        spec = self.spec
        unit, shape = spec.write_unit_zyx(level), spec.shape_zyx(level)
        for a, b, u, n in zip(box.start, box.stop, unit, shape, strict=True):
            if a % u or not 0 <= a < b <= n or (b % u and b != n):
                message = f"{box} is not made of whole write units {unit} of a level {shape}"
                raise ValueError(message)
        if labels.shape != box.shape or labels.dtype != np.uint32:
            message = f"got {labels.dtype} of shape {labels.shape}, expected uint32 of {box.shape}"
            raise ValueError(message)
        index = store.axis_index(spec.axes, spec.space_axes, t, 0, box)
        if not files.exists(f"{self.path}/{'zarr.json' if spec.zarr_format == 3 else '.zgroup'}"):
            message = f"{self.path}: gone; another run has published or deleted it meanwhile"
            raise LostLockError(message)
        array = self._array(level)
        try:
            array[index] = store.from_zyx(labels, spec.space_axes)
        except OSError as error:
            raise files.output_error(f"{self.path}/{spec.paths[level]}", error) from error
