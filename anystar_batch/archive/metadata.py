"""OME-NGFF metadata documents, 0.4 to 0.6: dictionaries in, checked values out, no I/O.

What a document claims is checked here, once, and never allocated: a claim of 10^15 voxels is a
valid plan. Nothing is repaired: what the specification demands and the file lacks is an error that
says what was found, what was expected and what to do.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from anystar_batch.archive.coordinate_systems import spatialdata_plain, to_plain
from anystar_batch.archive.level_metadata import value_dtype, with_levels
from anystar_batch.archive.names import channel_names, multiscale_names
from anystar_batch.archive.ngff import JSON, ArrayInfo, Axis, ImageSource, Level, Version
from anystar_batch.archive.units import unit_of
from anystar_batch.errors import ImageError, NoImageError, UnsuitedError, shorten

MOST_VOXELS = 2**31 - 1
"""Most voxels an axis: positions are 32-bit integers."""

LONGEST_PATH = 500
"""Longest path of a dataset, characters: longer ones no file system would open."""

MOST_CHUNKS = 10**13
"""Most chunks or shards a level."""

_OLD_VERSIONS = ("0.1", "0.2", "0.3")


def ome_attributes(attributes: JSON, zarr_format: int) -> JSON:
    """Return the dictionary that holds the OME keys of a group: below `ome` in Zarr v3."""
    if zarr_format == 2:
        return attributes
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else {}


def all_attributes(attributes: JSON, zarr_format: int) -> JSON:
    """Return a group's attributes with those of OME-Zarr, wherever these are written."""
    inner = ome_attributes(attributes, 3)
    return {**attributes, **inner} if zarr_format == 3 else {**inner, **attributes}


def is_label(attributes: JSON, zarr_format: int) -> bool:
    """Return whether a group says that it is a label image."""
    return "image-label" in all_attributes(attributes, zarr_format)


def multiscales_of(
    path: str, attributes: JSON, zarr_format: int, index: int = 0
) -> tuple[Version, JSON]:
    """Return the NGFF version of an image and one entry of its `multiscales`.

    Parameters
    ----------
    path : str
        Where the image lies; for messages.
    attributes : dict
        Attributes of its root group.
    zarr_format : int
        2 or 3.
    index : int
        Of the entry; 0 is the first.

    Returns
    -------
    version : {"0.4", "0.5", "0.6"}
    multiscales : dict
        As 0.5 has it.

    Raises
    ------
    ImageError
        If there is no `multiscales` entry, or its version is not 0.4 (Zarr v2), 0.5 or 0.6 (Zarr
        v3).
    """
    entries = all_attributes(attributes, zarr_format).get("multiscales")
    listed = entries if isinstance(entries, list) else []
    entry: JSON | None = listed[index] if len(listed) > index else None
    if not isinstance(entry, dict):
        message = f"{path}: the group has no OME-Zarr `multiscales`; give the path of an image"
        raise NoImageError(message)
    stated, of_group = entry.get("version"), ome_attributes(attributes, 3).get("version")
    version = (of_group or stated) if zarr_format == 3 else (stated or of_group)
    if version is None and zarr_format == 2:
        # The version is only recommended in 0.4; axes as objects are what 0.4 brought.
        axes = entry.get("axes")
        is_new = isinstance(axes, list) and all(isinstance(a, dict) for a in axes)
        version = "0.4" if is_new else "0.3"
    minor = re.sub(r"^(\d+\.\d+)\.\d+$", r"\1", str(version))
    if minor == f"{'0.4' if zarr_format == 2 else '0.5'}-dev-spatialdata":
        return ("0.4" if zarr_format == 2 else "0.5"), spatialdata_plain(entry)
    if zarr_format == 3 and re.match(r"0\.6(\W|dev|$)", minor):
        return "0.6", to_plain(path, entry)
    if zarr_format == 2 and minor == "0.5-dev":  # some converters say so of what is 0.4
        minor = "0.4"
    if minor in _OLD_VERSIONS:
        message = (
            f"{path}: OME-NGFF {version} (or older) has no voxel size that can be trusted; "
            "rewrite the image as 0.4 or 0.5, e.g. with bioformats2raw or ome-zarr"
        )
        raise UnsuitedError(message)
    if zarr_format == 2 and minor == "0.4":
        return "0.4", entry
    if zarr_format == 3 and minor == "0.5":
        return "0.5", entry
    if zarr_format == 3 and minor in {"0.4", "None"}:
        said = "0.4" if minor == "0.4" else "without a version"
        message = (
            f"{path}: OME-NGFF {said} in Zarr v3, as migrating the Zarr format alone leaves it; "
            "expected 0.4 in Zarr v2 or 0.5 in Zarr v3; where .zattrs, .zgroup and .zarray still "
            "lie beside, move the zarr.json files away; else rewrite the image as 0.5"
        )
        raise ImageError(message)
    message = (
        f"{path}: OME-NGFF version {shorten(version)} in Zarr v{zarr_format} is unknown here; "
        "expected 0.4 in Zarr v2, 0.5 or 0.6 in Zarr v3"
    )
    raise UnsuitedError(message)


def dataset_paths(path: str, multiscales: JSON) -> tuple[str, ...]:
    """Return the paths of the levels, each below the image.

    Parameters
    ----------
    path : str
        Where the image lies; for messages.
    multiscales : dict
        Entry of `multiscales`.

    Returns
    -------
    tuple of str
        Relative, with `/`, unique.

    Raises
    ------
    ImageError
        If there is no dataset, a path leads outside the image, or two are equal.
    """
    datasets = multiscales.get("datasets")
    if not (isinstance(datasets, list) and datasets and all(isinstance(d, dict) for d in datasets)):
        message = f"{path}: `multiscales` lists no datasets; the image is incomplete"
        raise ImageError(message)
    paths: list[str] = []
    for dataset in datasets:
        relative = dataset.get("path")
        # A slash in front is the image's own group, as everywhere in Zarr: BigStitcher writes `/0`.
        inner = relative.strip("/") if isinstance(relative, str) else ""
        is_short = len(inner) <= LONGEST_PATH
        if not is_short or not {"", "..", "."}.isdisjoint(inner.split("/")) or "\\" in inner:
            name = shorten(repr(relative))
            message = f"{path}: dataset path {name} does not name an array inside the image"
            raise ImageError(message)
        paths.append(inner)
    if len(set(paths)) != len(paths):
        message = f"{path}: two datasets have the same path: {', '.join(paths)}"
        raise ImageError(message)
    return tuple(paths)


def image_source(
    path: str,
    attributes: JSON,
    zarr_format: int,
    arrays: Sequence[ArrayInfo | None],
    *,
    was_consolidated: bool,
    multiscale: int = 0,
) -> ImageSource:
    """Build and check the description of an image.

    Parameters
    ----------
    path : str
        Where the image lies.
    attributes : dict
        Attributes of its root group.
    zarr_format : int
        2 or 3.
    arrays : sequence of ArrayInfo or None
        One for every dataset, in the order of `dataset_paths`; None for a missing one.
    was_consolidated : bool
        Whether the root group carries consolidated metadata.
    multiscale : int
        Index of the entry of `multiscales`; 0 is the first.

    Returns
    -------
    ImageSource

    Raises
    ------
    ImageError
        If the axes, shapes, types or transforms cannot be used as a 3D image.

    Examples
    --------
    >>> scale = {"type": "scale", "scale": [500.0, 100.0, 100.0]}
    >>> entry = {"version": "0.4",
    ...          "axes": [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"],
    ...          "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}
    >>> info = ArrayInfo((9, 64, 64), (9, 64, 64), None, "uint16")
    >>> source = image_source("a.zarr", {"multiscales": [entry]}, 2, [info], was_consolidated=False)
    >>> source.scale_um()
    (0.5, 0.1, 0.1)
    """
    version, multiscales = multiscales_of(path, attributes, zarr_format, multiscale)
    paths = dataset_paths(path, multiscales)
    axes = _axes(path, multiscales)
    outer = composed(path, "multiscales", multiscales, len(axes))
    levels = [
        None if info is None else _level(path, axes, {**dataset, "path": relative}, info, outer)
        for relative, dataset, info in zip(paths, multiscales["datasets"], arrays, strict=True)
    ]
    stated = [*_listed(multiscales["datasets"][0]), *_listed(multiscales)]
    is_sized = any(t["type"] == "scale" for t in stated)
    name = multiscales.get("name")
    source = ImageSource(
        path=path,
        name=name if isinstance(name, str) and name else PurePosixPath(path).name,
        version=version,
        # `identity` alone, as iohub writes it, is no voxel size, whatever the unit.
        axes=axes if is_sized else tuple(replace(a, unit=None) for a in axes),
        levels=tuple(level for level in levels if level is not None),
        channels=(),
        multiscales=multiscales,
        was_consolidated=was_consolidated,
        multiscale=multiscale,
    )
    _check_shapes(source)
    source = with_levels(source, levels)
    ome = all_attributes(attributes, zarr_format)
    omero = (ome.get("omero"), multiscales.get("omero"))  # either, with some writers
    names = multiscale_names(ome.get("multiscales"))
    channels = channel_names(omero if len(names) == 1 else omero[::-1], source.num_channels)
    return replace(source, channels=channels, multiscale_names=names)


_TYPE_OF_NAME = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def _axes(path: str, multiscales: JSON) -> tuple[Axis, ...]:
    """Read the axes: three of space, at most one of time and one other."""
    raw = multiscales.get("axes")
    if not (isinstance(raw, list) and all(isinstance(a, dict) and "name" in a for a in raw)):
        message = f"{path}: `multiscales` has no usable axes; expected objects with a name"
        raise ImageError(message)
    axes = []
    for a in raw:
        name = str(a["name"])
        # The type is only recommended; without one, the five customary names are clear.
        kind = str(a.get("type") or _TYPE_OF_NAME.get(name.casefold(), "custom"))
        axes.append(Axis(name, kind, unit_of(a)))
    listed = ", ".join(a.name for a in axes)
    num_space = sum(a.type == "space" for a in axes)
    if num_space == 0:
        message = f"{path}: no spatial axes among {listed}; expected z, y and x of type space"
        raise UnsuitedError(message)
    if num_space < 3:
        message = (
            f"{path}: the image is 2D (axes {listed}); anystar-batch segments 3D volumes: "
            "use StarDist 2D for planes"
        )
        raise UnsuitedError(message)
    num_time = sum(a.type == "time" for a in axes)
    if num_space > 3 or num_time > 1 or len(axes) - num_space - num_time > 1:
        message = (
            f"{path}: axes {listed} are not an NGFF image's; expected three of space, at most "
            "one of time and at most one other"
        )
        raise UnsuitedError(message)
    if len({a.name for a in axes}) != len(axes):
        message = f"{path}: two axes have the same name: {listed}"
        raise ImageError(message)
    return tuple(axes)


def _listed(holder: JSON) -> list[JSON]:
    """Return the transforms of a dataset or a multiscale, one alone or none as a list too."""
    transforms = holder.get("coordinateTransformations") or []
    return transforms if isinstance(transforms, list) else [transforms]


def composed(
    path: str, where: str, holder: JSON, ndim: int, *, needs_scale: bool = False
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Return `coordinateTransformations` as (scale, translation, declares a translation).

    Raises
    ------
    ImageError
        If one of them cannot be used.
    """
    scale, translation = [1.0] * ndim, [0.0] * ndim
    has_scale = has_translation = False
    for t in _listed(holder):
        kind = t.get("type") if isinstance(t, dict) else None
        if kind == "identity":
            has_scale = True
            continue
        values = t.get(kind) if kind in ("scale", "translation") else None
        if not (isinstance(values, list) and len(values) == ndim and all(map(_is_finite, values))):
            message = (
                f"{path}: {where} has a coordinate transformation that cannot be used: "
                f"{shorten(repr(t))}; "
                f"expected a scale or translation of {ndim} finite numbers"
            )
            raise ImageError(message)
        if kind == "scale":
            has_scale = True
            scale = [s * v for s, v in zip(scale, values, strict=True)]
            translation = [s * v for s, v in zip(translation, values, strict=True)]
        else:
            has_translation = True
            translation = [s + v for s, v in zip(translation, values, strict=True)]
    if needs_scale and not has_scale:
        message = f"{path}: {where} declares no scale; write one (NGFF demands it)"
        raise ImageError(message)
    return tuple(scale), tuple(translation), has_translation


def _is_finite(value: object) -> bool:
    largest = sys.float_info.max
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        # An integer may be too large for a float.
        and -largest <= value <= largest
    )


def _level(
    path: str,
    axes: tuple[Axis, ...],
    dataset: JSON,
    info: ArrayInfo,
    outer: tuple[tuple[float, ...], tuple[float, ...], bool],
) -> Level:
    """Check one dataset against its array and compose its transforms."""
    where = f"dataset {dataset['path']}"
    if len(info.shape) != len(axes):
        message = f"{path}: {where} has {len(info.shape)} axes, the metadata {len(axes)}"
        raise ImageError(message)
    if 0 in info.shape:
        message = f"{path}: the image is empty: {where} has shape {info.shape}"
        raise ImageError(message)
    chunks = info.shards or info.chunks
    if min(info.chunks, default=1) < 1 or min(chunks, default=1) < 1:
        message = f"{path}: {where} has chunks of {chunks}; expected positive numbers"
        raise ImageError(message)
    claimed = math.prod(-(-n // c) for n, c in zip(info.shape, chunks, strict=True))
    if max(info.shape) > MOST_VOXELS or claimed > MOST_CHUNKS:
        message = (
            f"{path}: {where} claims {shorten(info.shape)} voxels in {shorten(claimed)} chunks or "
            f"shards; expected at most {MOST_VOXELS} an axis and {MOST_CHUNKS} of them; is its "
            "metadata damaged?"
        )
        raise ImageError(message)
    inner = composed(path, where, dataset, len(axes), needs_scale=True)
    scale = tuple(a * b for a, b in zip(inner[0], outer[0], strict=True))
    moved = tuple(a * b + c for a, b, c in zip(inner[1], outer[0], outer[1], strict=True))
    if any(s <= 0 for s, a in zip(scale, axes, strict=True) if a.type == "space"):
        message = f"{path}: {where} has scale {scale}; expected positive voxel sizes"
        raise ImageError(message)
    return Level(
        path=dataset["path"],
        shape=info.shape,
        chunks=info.chunks,
        shards=info.shards,
        dtype=value_dtype(path, where, info.dtype),
        scale=scale,
        translation=moved,
        has_translation=inner[2],
    )


def _check_shapes(source: ImageSource) -> None:
    """Refuse single planes, and levels that differ in time or channel."""
    if 1 in source.shape_zyx():
        said = f"the image is 2D (one plane, (z, y, x) = {source.shape_zyx()}); anystar-batch"
        use = "segments 3D volumes: use StarDist 2D for planes"
        raise UnsuitedError(f"{source.path}: {said} {use}")
    for axis in (source.t_axis, source.c_axis):
        lengths = [] if axis is None else [level.shape[axis] for level in source.levels]
        if len(set(lengths)) > 1:
            named = f"{source.path}: levels {', '.join(level.path for level in source.levels)}"
            raise ImageError(f"{named} differ in their number of times or channels: {lengths}")
