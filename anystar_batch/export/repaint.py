"""Labels painted again from stars, at any voxel size: at the label's own, the very label.

The rule is that of painting (`stars.raster`, `stars.expand`): a voxel of any lattice shows the
first star in priority that holds its centre. So an object is as sharp as the voxels are small, and
what overlaps is settled alike at every size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive import arrays, nodes
from anystar_batch.archive.images import read_image
from anystar_batch.archive.label_image import label_spec
from anystar_batch.archive.ngff import ArrayInfo, ImageSource
from anystar_batch.archive.star_group import StarFrame, StarReader
from anystar_batch.geometry import ZYX, Box, ZYXFloat, as_zyx
from anystar_batch.stars.candidates import Candidates
from anystar_batch.stars.expand import paint_around
from anystar_batch.stars.polyhedra import LatticeMap, bounding_boxes
from anystar_batch.stars.raster import paint

MARK = "anystar-batch-export"
"""Attribute of labels that were painted from stars."""


def shape_at(frame: StarFrame, voxel_um: ZYXFloat) -> ZYX:
    """Return how many voxels of a size cover the label, at least one an axis."""
    edges = (
        n * own / size for n, own, size in zip(frame.shape, frame.voxel_um, voxel_um, strict=True)
    )
    return as_zyx(max(1, int(np.ceil(edge - 1e-6))) for edge in edges)


def lattice_at(frame: StarFrame, voxel_um: ZYXFloat) -> LatticeMap:
    """Return the map from working voxels to voxels of a size whose first begins where level 0 does.

    At the label's own size it is the very map that painted the label.
    """
    ratios = [own / size for own, size in zip(frame.voxel_um, voxel_um, strict=True)]
    scale = [r * s for r, s in zip(ratios, frame.lattice.scale, strict=True)]
    offset = [r * o + (r - 1.0) / 2.0 for r, o in zip(ratios, frame.lattice.offset, strict=True)]
    return LatticeMap((scale[0], scale[1], scale[2]), (offset[0], offset[1], offset[2]))


def translation_at(frame: StarFrame, voxel_um: ZYXFloat) -> ZYXFloat:
    """Return the centre of the first voxel of a size, (z, y, x), micrometres."""
    z, y, x = (
        t - own / 2.0 + size / 2.0 if own != size else t
        for t, own, size in zip(frame.translation_um, frame.voxel_um, voxel_um, strict=True)
    )
    return z, y, x


class Painter:
    """Paints boxes of the label from its stars, at one voxel size.

    Parameters
    ----------
    reader : StarReader
    voxel_um : (z, y, x), optional
        Voxel size, micrometres; the label's own by default.

    Notes
    -----
    Stars of a slab of planes are read when a box of it is asked for, and kept until another slab
    is: boxes in the order of z read each star about once.
    """

    def __init__(self, reader: StarReader, voxel_um: ZYXFloat | None = None) -> None:
        frame = reader.frame
        self.voxel_um = frame.voxel_um if voxel_um is None else voxel_um
        self.lattice, self.shape = lattice_at(frame, self.voxel_um), shape_at(frame, self.voxel_um)
        self._reader, self._slab = reader, (-1, -1, -1)
        self._times = reader.rows("time", 0, None)
        self._z = reader.rows("points", 0, None)[:, 0]
        self._reach = self._longest()
        self._stars: tuple[Candidates, Candidates, NDArray[np.uint32]] | None = None

    def _longest(self) -> float:
        """How far stars reach along z at most, voxels of level 0."""
        reader, longest = self._reader, 0.0
        for start in range(0, reader.frame.count, 1 << 14):
            dist = reader.rows("distances", start, start + (1 << 14))
            longest = max(longest, float(dist.max(initial=0.0)))
        return longest * reader.frame.lattice.scale[0]

    def box(self, box: Box, time: int = 0) -> NDArray[np.uint32]:
        """Return the labels of a box.

        Parameters
        ----------
        box : Box
            Voxels of the painter's size.
        time : int

        Returns
        -------
        uint32 (z, y, x)
        """
        out = np.zeros(box.shape, np.uint32)
        stars, inner, labels = self._near(box, time)
        boxes = bounding_boxes(stars, self._reader.rays, self.lattice)
        meets = (boxes[:, 1] > box.start) & (boxes[:, 0] < box.stop)
        near = np.flatnonzero(meets.all(axis=1))
        if not len(near):
            return out
        rays, frame = self._reader.rays, self._reader.frame
        some, core, ids = stars.take(near), inner.take(near), labels[near]
        paint(out, box, core if frame.is_expanded else some, ids, rays, self.lattice)
        if frame.is_expanded:
            paint_around(out, box, core, some, ids, rays, self.lattice, frame.working_um)
        return out

    def _near(self, box: Box, time: int) -> tuple[Candidates, Candidates, NDArray[np.uint32]]:
        """Stars that may reach the planes of a box: as painted, before expansion, and labels."""
        ratio = self.voxel_um[0] / self._reader.frame.voxel_um[0]
        low = (box.start[0] - 0.5) * ratio - 0.5 - self._reach - 1.0
        high = (box.stop[0] + 0.5) * ratio - 0.5 + self._reach + 1.0
        first, last = np.searchsorted(self._times, [time, time + 1])
        start, stop = first + np.searchsorted(self._z[first:last], [low, high])
        slab = (time, int(start), int(stop))
        if self._stars is None or slab != self._slab:
            self._slab, self._stars = slab, self._read(int(start), int(stop))
        return self._stars

    def _read(self, start: int, stop: int) -> tuple[Candidates, Candidates, NDArray[np.uint32]]:
        reader, frame = self._reader, self._reader.frame
        lattice = frame.lattice
        places = (reader.rows("points", start, stop) - lattice.offset) / lattice.scale
        points = np.rint(places).astype(np.int32)
        quality = reader.rows("quality", start, stop) if frame.has_quality else None
        prob = reader.rows("prob", start, stop)
        stars, inner = (
            Candidates(points, prob, reader.rows(name, start, stop), quality=quality)
            for name in (
                "distances",
                "inner_distances" if frame.is_expanded else "distances",
            )
        )
        return stars, inner, reader.rows("label", start, stop)

    def boxes(self, unit: ZYX) -> Iterator[Box]:
        """Yield boxes that cover the volume, slabs of planes slowest."""
        counts = [-(-n // u) for n, u in zip(self.shape, unit, strict=True)]
        for index in np.ndindex(*counts):
            start = as_zyx(i * u for i, u in zip(index, unit, strict=True))
            stop = as_zyx(min(a + u, n) for a, u, n in zip(start, unit, self.shape, strict=True))
            yield Box(start, stop)


def write_labels(reader: StarReader, label: str, voxel_um: ZYXFloat | None, path: Path) -> None:
    """Paint the label again, as an OME-Zarr label image of one level, of the label's own format.

    Parameters
    ----------
    reader : StarReader
        Its stars.
    label : str
        Path of the label.
    voxel_um : (z, y, x) or None
        Voxel size, micrometres; None is the label's own.
    path : Path
        Group, not there yet.

    Raises
    ------
    ImageError
        If the label cannot be read.
    """
    source, painter = read_image(label), Painter(reader, voxel_um)
    info, spec = _array(source, painter.shape), label_spec(source)
    names = tuple(axis.name for axis in spec.axes)
    nodes.write_attributes(str(path), spec.zarr_format, _attributes(source, reader, painter))
    arrays.create_array(f"{path}/0", spec.zarr_format, info, names)
    array = arrays.open_array(f"{path}/0", spec.zarr_format, "r+")
    unit = info.shards or info.chunks
    z, y, x = (unit[axis] for axis in spec.space_axes)
    for time in range(spec.num_times):
        for box in painter.boxes((z, y, x)):
            index = arrays.axis_index(spec.axes, spec.space_axes, time, 0, box)
            array[index] = arrays.from_zyx(painter.box(box, time), spec.space_axes)


def _array(source: ImageSource, shape: ZYX) -> ArrayInfo:
    """The array of the label's level 0, of another shape."""
    spec = label_spec(source)
    own = spec.arrays[0]
    lengths, chunks = list(own.shape), list(own.chunks)
    shards = None if own.shards is None else list(own.shards)
    for axis, n in zip(spec.space_axes, shape, strict=True):
        lengths[axis], chunks[axis] = n, min(own.chunks[axis], n)
        if shards is not None:
            count = min(shards[axis] // own.chunks[axis], -(-n // chunks[axis]))
            shards[axis] = max(1, count) * chunks[axis]
    whole = None if shards is None else tuple(shards)
    return ArrayInfo(tuple(lengths), tuple(chunks), whole, "uint32")


def _attributes(source: ImageSource, reader: StarReader, painter: Painter) -> dict[str, object]:
    """Attributes of the group, in micrometres."""
    spec, frame = label_spec(source), reader.frame
    scale, shift = list(source.levels[0].scale), list(source.levels[0].translation)
    axes: list[dict[str, object]] = [
        {"name": axis.name, "type": axis.type, **({"unit": axis.unit} if axis.unit else {})}
        for axis in spec.axes
    ]
    centre = translation_at(frame, painter.voxel_um)
    for k, axis in enumerate(spec.space_axes):
        axes[axis]["unit"] = "micrometer"
        scale[axis], shift[axis] = painter.voxel_um[k], centre[k]
    entry = {
        "name": source.name,
        "axes": axes,
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": shift},
                ],
            }
        ],
    }
    mark = {"fingerprint": frame.fingerprint, "voxel_size_um": list(painter.voxel_um)}
    if spec.zarr_format == 2:
        label = {"version": "0.4"}
        return {"multiscales": [{"version": "0.4", **entry}], "image-label": label, MARK: mark}
    return {"ome": {"version": "0.5", "multiscales": [entry], "image-label": {}}, MARK: mark}
