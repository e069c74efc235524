"""Label images: their shapes follow from the image alone, and they become visible last.

A label is made and filled under a hidden name, described, renamed, and only then listed::

    labels/.anystar.<token>      create_label, LabelWriter: no attributes, in no list
    labels/.anystar.old          the label that is being replaced, for a moment
    labels/.anystar.trash        the same, on its way out
    labels/anystar               publish: complete, then listed in `labels`

Killed at any point, `recover` finishes or undoes the exchange: `anystar` is then the old label or
the new one, whole. With `--output` the label is a root group of its own, exchanged alike and listed
nowhere.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive import ngff, store
from anystar_batch.archive.lock import hold_directory
from anystar_batch.archive.ngff import JSON, ArrayInfo, Axis, ImageSource, Version
from anystar_batch.errors import OutputError
from anystar_batch.geometry import ZYX, Box

MIN_CHUNK, MAX_CHUNK = 64, 128
"""Bounds of a chunk's edge, voxels."""

SHARD_EDGE = 256
"""Edge that a shard aims at, voxels."""

MAX_FILES = 50_000
"""Chunks of level 0 above which they are gathered in shards, where the format has them."""

KEY = "anystar-batch"
"""Attribute that holds the provenance of a label."""

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
    version : {"0.4", "0.5"}
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


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """Where a label goes: into an image, or into a directory as a root group of its own.

    Use `in_image` and `standalone`.

    Parameters
    ----------
    parent : str
        Directory that holds the label's group.
    name : str
        Name of that group once published.
    label : str
        Name of the label.
    image : str
        The image it belongs to.
    is_standalone : bool
        Whether the group is a root of its own.
    """

    parent: str
    name: str
    label: str
    image: str
    is_standalone: bool

    @property
    def path(self) -> str:
        """The group once published."""
        return f"{self.parent}/{self.name}"

    def hidden_path(self, token: str) -> str:
        """Return the group while it is being made.

        Parameters
        ----------
        token : str
            Tells runs apart; letters, digits, `_` and `-`. A run that continues uses its own again.

        Raises
        ------
        OutputError
            If the token is none of these, or one that `publish` uses itself.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", token) or token in {"old", "trash"}:
            message = f"{token!r} cannot name a hidden label; expected letters and digits"
            raise OutputError(message)
        return f"{self.parent}/.{self.name}.{token}"


def in_image(image: str, label: str) -> LabelPlace:
    """Return the place `IMAGE/labels/LABEL`.

    Parameters
    ----------
    image : str
        Local path of the image.
    label : str
        Name of the label.

    Raises
    ------
    OutputError
        If the name cannot be that of a Zarr group.
    """
    _check_name(label)
    return LabelPlace(f"{store.local_path(image)}/labels", label, label, image, is_standalone=False)


def standalone(directory: str, stem: str, label: str, image: str) -> LabelPlace:
    """Return the place `DIRECTORY/STEM.LABEL.ome.zarr`.

    Parameters
    ----------
    directory : str
        Local directory of results.
    stem : str
        What tells the images of a run apart.
    label : str
        Name of the label.
    image : str
        Local path of the image.

    Raises
    ------
    OutputError
        If the name cannot be that of a Zarr group.
    """
    _check_name(label)
    name = f"{stem}.{label}.ome.zarr"
    _check_name(name)
    return LabelPlace(store.local_path(directory), name, label, image, is_standalone=True)


def _check_name(name: str) -> None:
    if not name or name.startswith((".", "__")) or re.search(r"[/\\\x00-\x1f]", name):
        message = (
            f"{name!r} cannot name a label; expected a name without slashes that does not begin "
            "with a dot or two underscores"
        )
        raise OutputError(message)


def label_spec(source: ImageSource) -> LabelSpec:
    """Derive the label image that mirrors an image's pyramid.

    Chunks are the image's own at level 0, clipped to 64 to 128 voxels an axis and to each level.
    They are gathered in shards of about 256 voxels an axis if the format is 0.5 and the image has
    shards, or level 0 would have more than 50,000 chunks.

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
    is_sharded = source.version == "0.5" and (
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
        "datasets": [{"path": d["path"], **cut(d)} for d in raw["datasets"]],
        "type": "mode",
        "metadata": copy.deepcopy(METHOD),
    }
    if raw.get("coordinateTransformations"):
        entry |= cut(raw)
    return entry


def create_label(place: LabelPlace, spec: LabelSpec, token: str) -> str:
    """Make an empty label under its hidden name; go on with one that an earlier run made.

    Parameters
    ----------
    place : LabelPlace
        Where the label will go.
    spec : LabelSpec
        Its arrays.
    token : str
        Tells runs apart.

    Returns
    -------
    str
        Path of the hidden group.

    Raises
    ------
    OutputError
        If the place cannot be written, or the hidden group has other arrays.
    """
    path = place.hidden_path(token)
    names = tuple(axis.name for axis in spec.axes)
    if store.read_node(path) is None:
        store.write_attributes(path, spec.zarr_format, {})
    for relative, info in zip(spec.paths, spec.arrays, strict=True):
        for above in list(Path(relative).parents)[-2::-1]:
            if store.read_node(f"{path}/{above}") is None:
                store.write_attributes(f"{path}/{above}", spec.zarr_format, {})
        if store.read_node(f"{path}/{relative}") is None:
            store.create_array(f"{path}/{relative}", spec.zarr_format, info, names)
        elif (found := store.array_info(path, relative, spec.zarr_format)) != info:
            message = f"{path}/{relative}: found {found}, expected {info}; delete the hidden label"
            raise OutputError(message)
    return path


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
        """
        spec = self.spec
        index = store.axis_index(spec.axes, spec.space_axes, t, 0, box)
        values = store.to_zyx(np.asarray(self._array(level)[index]), spec.space_axes)
        return np.ascontiguousarray(values, dtype=np.uint32)

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
        array = self._array(level)
        try:
            array[index] = store.from_zyx(labels, spec.space_axes)
        except OSError as error:
            raise store.output_error(f"{self.path}/{spec.paths[level]}", error) from error


def existing_labels(root: str) -> dict[str, JSON]:
    """Return the labels of an image: those listed, and groups under `labels` that are not.

    Parameters
    ----------
    root : str
        Local path of the image.

    Returns
    -------
    dict
        Name to attributes of the label's group; empty attributes if it is listed but missing.
        Hidden groups of unfinished runs are left out.
    """
    root = store.local_path(root)
    names = _listed(root)
    labels = Path(root, "labels")
    names += [
        entry.name
        for entry in (sorted(labels.iterdir()) if labels.is_dir() else [])
        if not entry.name.startswith(".")
        and entry.name not in names
        and store.read_node(str(entry)) is not None
    ]
    found = {}
    for name in names:
        node = store.read_node(f"{root}/labels/{name}")
        found[name] = {} if node is None else node.attributes
    return found


def _listed(root: str) -> list[str]:
    """Return the names in the list of labels of an image."""
    node = store.read_node(f"{root}/labels")
    if node is None:
        return []
    listed = ngff.ome_attributes(node.attributes, node.zarr_format).get("labels")
    return list(map(str, listed)) if isinstance(listed, list) else []


def published_attributes(place: LabelPlace) -> JSON | None:
    """Return the attributes of whatever has the label's final name, None if the name is free."""
    if not Path(place.path).exists() and (
        place.is_standalone or place.name not in _listed(store.local_path(place.image))
    ):
        return None
    node = store.read_node(place.path)
    return {} if node is None else node.attributes


def publish(place: LabelPlace, spec: LabelSpec, token: str, provenance: JSON) -> str:
    """Describe a finished label, give it its name, replacing an older one, and list it last.

    Parameters
    ----------
    place : LabelPlace
        Where the label goes.
    spec : LabelSpec
        Its arrays.
    token : str
        That of `create_label`; every level is written.
    provenance : dict
        JSON-able, stored as the attribute `anystar-batch`. Equal runs give equal dictionaries.

    Returns
    -------
    str
        Path of the published group.

    Raises
    ------
    OutputError
        If the place cannot be written; an older label is then still there or `recover` restores it.
    """
    hidden = place.hidden_path(token)
    sweep_partials(hidden)
    attributes = _attributes(place, spec, provenance)
    store.write_attributes(hidden, spec.zarr_format, attributes)
    with hold_directory(place.parent):
        _exchange(place, hidden)
        if not place.is_standalone:
            _list_label(place, spec.zarr_format)
        _remove(place, "old")
        _refresh_consolidated(place)
    return place.path


def _attributes(place: LabelPlace, spec: LabelSpec, provenance: JSON) -> JSON:
    """Return the attributes of the label's group."""
    image = "../../"
    if place.is_standalone:
        try:
            image = os.path.relpath(Path(place.image).resolve(), Path(place.path).resolve())
        except ValueError:  # another drive: no relative path leads there
            image = str(Path(place.image).resolve())
    entry = {"name": place.label, **copy.deepcopy(spec.multiscales)}
    label = {"source": {"image": image}}
    if spec.version == "0.4":
        return {
            "multiscales": [{"version": "0.4", **entry}],
            "image-label": {"version": "0.4", **label},
            KEY: provenance,
        }
    return {
        "ome": {"version": "0.5", "multiscales": [entry], "image-label": label},
        KEY: provenance,
    }


def _exchange(place: LabelPlace, hidden: str) -> None:
    """Put the new label in the place of the old one, which stays beside it under a hidden name."""
    try:
        if Path(place.path).exists():
            Path(place.path).rename(_aside(place, "old"))
        Path(hidden).rename(place.path)
        store.sync_directory(place.parent)
    except OSError as error:
        raise store.output_error(place.path, error) from error


def _aside(place: LabelPlace, what: str) -> Path:
    return Path(place.parent, f".{place.name}.{what}")


def _remove(place: LabelPlace, what: str) -> None:
    """Delete a group that was set aside; renamed first, so that half of one is never restored."""
    aside, trash = _aside(place, what), _aside(place, "trash")
    if trash.exists():
        shutil.rmtree(trash)
    if aside.exists() and what != "trash":
        aside.rename(trash)
        store.sync_directory(place.parent)
        shutil.rmtree(trash)


def _list_label(place: LabelPlace, zarr_format: Literal[2, 3]) -> None:
    """Add the label's name to those of the image, if it is not there."""
    labels = place.parent
    node = store.read_node(labels)
    attributes = {} if node is None else node.attributes
    names = list(dict.fromkeys([*_listed(store.local_path(place.image)), place.name]))
    if zarr_format == 2:
        wanted = {**attributes, "labels": names}
    else:
        ome = attributes.get("ome")
        ome = ome if isinstance(ome, dict) else {}
        wanted = {**attributes, "ome": {**ome, "version": "0.5", "labels": names}}
    if node is None or wanted != attributes:
        store.write_attributes(labels, zarr_format, wanted)


def recover(place: LabelPlace) -> None:
    """Finish or undo what a killed `publish` left; without one, change nothing.

    Parameters
    ----------
    place : LabelPlace
        Where a label goes. Nobody else publishes there: the caller holds the run's lock.

    Raises
    ------
    OutputError
        If the place cannot be written.
    """
    if not Path(place.parent).is_dir():
        return
    with hold_directory(place.parent):
        final, old = Path(place.path), _aside(place, "old")
        try:
            if old.exists() and not final.exists():
                old.rename(final)
                store.sync_directory(place.parent)
            node = store.read_node(place.path)
            if node is not None and KEY in node.attributes:
                sweep_partials(place.path)
                if not place.is_standalone:
                    _list_label(place, node.zarr_format)
            _remove(place, "old")
        except OSError as error:
            raise store.output_error(place.path, error) from error
        if node is not None:
            _refresh_consolidated(place)


def discard(place: LabelPlace, token: str) -> None:
    """Delete an unfinished hidden label; none there is as well.

    Parameters
    ----------
    place : LabelPlace
        Where the label would have gone.
    token : str
        That of `create_label`.
    """
    shutil.rmtree(place.hidden_path(token), ignore_errors=True)


def sweep_partials(path: str) -> None:
    """Delete the temporary files that killed writers left in a label of ours."""
    for folder, _, names in os.walk(path):
        for name in names:
            if name.endswith(store.PARTIAL):
                Path(folder, name).unlink(missing_ok=True)


def _refresh_consolidated(place: LabelPlace) -> None:
    """Rewrite consolidated metadata above the label that does not describe it as it is."""
    if place.is_standalone:
        return
    below = place.name
    root = Path(place.parent).absolute()
    while (node := store.read_node(str(root))) is not None:
        if node.was_consolidated and not store.is_consolidated(str(root), below):
            store.consolidate(str(root), node.zarr_format)
        below = f"{root.name}/{below}"
        root = root.parent
