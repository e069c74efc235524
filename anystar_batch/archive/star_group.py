"""The stars of a label: a Zarr group `stars` in the label's own, in rows sorted by label number.

::

    LABEL/stars/                attribute `anystar-batch-stars`: version, shape, sizes, offsets
        label             uint32  [n]              1 to n
        time              int32   [n]              index of the time point; 0 without times
        points            float64 [n, 3]           centres (z, y, x), voxels of level 0
        distances         float32 [n, n_rays]      centre to surface, working voxels
        inner_distances   float32 [n, n_rays]      the same before `--expand` moved it outward
        prob              float32 [n]              object probability
        quality           float32 [n]              after a second look
        rays              float64 [n_rays, 3]      unit vectors (z, y, x), working voxels
        faces             uint16  [n_faces, 3]     triangles of rays, det[a, b, c] > 0

A corner of star i lies at `points[i] + distances[i, k] * rays[k] * scale`, voxels of level 0; one
voxel is `voxel_size_um`, and voxel 0 lies at `translation_um`. Readers of OME-Zarr go by the
label's `multiscales`, and do not see the group. Bytes depend on the stars alone: rows are stored in
chunks of `CHUNK`, whoever wrote how many at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive import arrays, nodes
from anystar_batch.archive.ngff import JSON, ArrayInfo
from anystar_batch.archive.storage import files
from anystar_batch.errors import ImageError, RaysError
from anystar_batch.geometry import ZYX, ZYXFloat, as_triple, as_zyx
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.rays import Rays

STARS = "stars"
"""Name of the group in the label's."""

KEY = "anystar-batch-stars"
"""Its attribute."""

VERSION = "1"
"""Of the format; a reader refuses others."""

CHUNK = 4096
"""Rows of a chunk."""


@dataclass(frozen=True, slots=True)
class StarFrame:
    """What the numbers of stars mean.

    Parameters
    ----------
    fingerprint : str
        Of the label whose objects they are.
    count : int
        Number of stars.
    shape : (z, y, x)
        The label, voxels of level 0.
    voxel_um, translation_um : (z, y, x)
        Size of such a voxel, and position of the centre of voxel 0, micrometres.
    lattice : LatticeMap
        Level-0 voxel = working voxel * scale + offset.
    working_um : (z, y, x)
        Size of a working voxel, micrometres.
    num_times : int or None
        Length of the label's time axis; None without one.
    expand_um : float
        How far `--expand` moved surfaces, micrometres.
    has_quality : bool
        Whether a second look gave qualities.
    """

    fingerprint: str
    count: int
    shape: ZYX
    voxel_um: ZYXFloat
    translation_um: ZYXFloat
    lattice: LatticeMap
    working_um: ZYXFloat
    num_times: int | None
    expand_um: float
    has_quality: bool

    @property
    def is_expanded(self) -> bool:
        """Whether surfaces were moved outward: contested voxels then go to the nearest star."""
        return self.expand_um > 0.0

    def to_json(self) -> JSON:
        """Return it as the group's attribute."""
        return {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "count": self.count,
            "axes": ["z", "y", "x"],
            "shape": list(self.shape),
            "voxel_size_um": list(self.voxel_um),
            "translation_um": list(self.translation_um),
            "scale": list(self.lattice.scale),
            "offset": list(self.lattice.offset),
            "working_voxel_um": list(self.working_um),
            "num_times": self.num_times,
            "expand_um": self.expand_um,
            "has_quality": self.has_quality,
            "corners": "points + distances * rays * scale, voxels of level 0",
            "priority": (
                "a voxel belongs to the first star that holds its centre, by falling prob (times "
                "quality, where there is one), then by rising label"
            ),
        }

    @classmethod
    def from_json(cls, document: JSON) -> StarFrame:
        """Return what `to_json` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it did not write that.
        """
        triples = {
            name: tuple(float(v) for v in document[name])
            for name in ("voxel_size_um", "translation_um", "scale", "offset", "working_voxel_um")
        }
        times = document["num_times"]
        return cls(
            fingerprint=str(document["fingerprint"]),
            count=int(document["count"]),
            shape=as_zyx(document["shape"]),
            voxel_um=as_triple(triples["voxel_size_um"]),
            translation_um=as_triple(triples["translation_um"]),
            lattice=LatticeMap(as_triple(triples["scale"]), as_triple(triples["offset"])),
            working_um=as_triple(triples["working_voxel_um"]),
            num_times=None if times is None else int(times),
            expand_um=float(document["expand_um"]),
            has_quality=bool(document["has_quality"]),
        )


def has_stars(label: str) -> bool:
    """Return whether a label has its stars."""
    node = nodes.read_node(f"{label}/{STARS}")
    return node is not None and KEY in node.attributes


def columns_of(frame: StarFrame, n_rays: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of a row of every array that has a row for each star."""
    columns: dict[str, tuple[str, tuple[int, ...]]] = {
        "label": ("uint32", ()),
        "time": ("int32", ()),
        "points": ("float64", (3,)),
        "distances": ("float32", (n_rays,)),
        "prob": ("float32", ()),
    }
    columns |= {"inner_distances": ("float32", (n_rays,))} if frame.is_expanded else {}
    return columns | ({"quality": ("float32", ())} if frame.has_quality else {})


class StarWriter:
    """Writes the stars of a label in the order of their numbers; rows wait until a chunk is full.

    Parameters
    ----------
    label : str
        Path of the label's group, hidden or not. Stars that are there are deleted.
    zarr_format : {2, 3}
        The label's.
    frame : StarFrame
    rays : Rays

    Raises
    ------
    OutputError
        If the place cannot be written.
    """

    def __init__(
        self, label: str, zarr_format: Literal[2, 3], frame: StarFrame, rays: Rays
    ) -> None:
        self._path, self._format = f"{label}/{STARS}", zarr_format
        self._written, self._waiting = 0, list[Mapping[str, NDArray[Any]]]()
        self._columns = columns_of(frame, len(rays))
        files.remove_tree(self._path)
        nodes.write_attributes(self._path, zarr_format, {KEY: frame.to_json()})
        for name, (dtype, row) in self._columns.items():
            self._create(name, (frame.count, *row), dtype)
        for name, values in (("rays", rays.vertices), ("faces", rays.faces.astype(np.uint16))):
            self._create(name, values.shape, str(values.dtype))
            self._write(name, slice(None), values)

    def _create(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        inner = {"points": "axis", "rays": "axis", "faces": "corner"}.get(name, "ray")
        first = {"rays": "ray", "faces": "face"}.get(name, "star")
        chunks = (max(1, min(CHUNK, shape[0])), *shape[1:])
        info = ArrayInfo(shape, chunks, None, dtype)
        names = (first, inner)[: len(shape)]
        arrays.create_array(f"{self._path}/{name}", self._format, info, names, is_shuffled=True)

    def _write(self, name: str, rows: slice, values: NDArray[Any]) -> None:
        array = arrays.open_array(f"{self._path}/{name}", self._format, "r+")
        try:
            array[rows] = values
        except OSError as error:
            raise files.output_error(f"{self._path}/{name}", error) from error

    def append(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Add the next stars: an array for each of `columns_of`, of equal lengths."""
        self._waiting.append(rows)
        count = sum(len(part["label"]) for part in self._waiting)
        if count >= CHUNK:
            self._flush(count - count % CHUNK)

    def close(self) -> None:
        """Write what waits."""
        self._flush(sum(len(part["label"]) for part in self._waiting))

    def _flush(self, count: int) -> None:
        if not count:
            return
        rest: dict[str, NDArray[Any]] = {}
        where = slice(self._written, self._written + count)
        for name, (dtype, _) in self._columns.items():
            values = np.concatenate([part[name] for part in self._waiting])
            self._write(name, where, values[:count].astype(dtype, copy=False))
            rest[name] = values[count:].copy()
        self._written += count
        self._waiting = [rest] if len(rest["label"]) else []


class StarReader:
    """Reads the stars of a label, some rows at a time.

    Parameters
    ----------
    label : str
        Path of the label's group.

    Raises
    ------
    ImageError
        If it has none, of a version unknown here, or they cannot be read.
    """

    def __init__(self, label: str) -> None:
        node = nodes.read_node(f"{label}/{STARS}")
        document = None if node is None else node.attributes.get(KEY)
        if node is None or not isinstance(document, dict):
            message = (
                f"{label}: the label has no stars; they are published by `segment --stars` (the "
                "same command with --stars adds them to a label that is there already)"
            )
            raise ImageError(message)
        if document.get("version") != VERSION:
            message = (
                f"{label}/{STARS}: stars of version {document.get('version')!r}; expected "
                f"{VERSION!r}: use the anystar-batch that wrote them, or a newer one"
            )
            raise ImageError(message)
        self._path, self._format = f"{label}/{STARS}", node.zarr_format
        self._arrays: dict[str, Any] = {}
        try:
            self.frame = StarFrame.from_json(document)
            self.rays = Rays(self._whole("rays"), self._whole("faces").astype(np.int64))
        except (KeyError, TypeError, ValueError, RaysError) as error:
            message = (
                f"{label}/{STARS}: its metadata or rays are damaged ({error}); delete the group, "
                "and segment again with --stars"
            )
            raise ImageError(message) from error

    def _whole(self, name: str) -> NDArray[Any]:
        return self.rows(name, 0, None)

    def rows(self, name: str, start: int, stop: int | None) -> NDArray[Any]:
        """Return rows of one array, `[start, stop)`.

        Raises
        ------
        ImageError
            If they cannot be read; `DataError` where that may pass.
        """
        if name not in self._arrays:
            self._arrays[name] = arrays.open_array(f"{self._path}/{name}", self._format, "r")
        try:
            return np.ascontiguousarray(self._arrays[name][start:stop])
        except Exception as error:
            message = (
                f"{self._path}/{name}: rows {start} to {stop} cannot be read "
                f"({type(error).__name__}: {error})"
            )
            raise nodes.kind_of(error)(message) from error
