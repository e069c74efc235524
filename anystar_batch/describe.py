"""What an image is, in a few lines: for `anystar-batch info`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from anystar_batch.address import normal
from anystar_batch.archive.discovery import Field, find_images, plate_fields
from anystar_batch.archive.images import read_image
from anystar_batch.archive.label_list import existing_labels
from anystar_batch.archive.label_place import KEY
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.nodes import read_node
from anystar_batch.errors import ImageError
from anystar_batch.naming import name_images
from anystar_batch.origin import Origin, label_origin


def describe(path: str) -> tuple[str | None, Iterator[dict[str, Any]]]:
    """Return what a path is, and what each image of it is as plain JSON values.

    Parameters
    ----------
    path : str
        An image, a container of series, or a plate or a well of one.

    Returns
    -------
    plate : str or None
        What a plate or a well is, in one line; None of anything else.
    images : iterator of dict
        Of a field of a plate with `plate`, `well` and `field` besides. One that cannot be read has
        `path` and `error` instead of the rest: a plate of thousands has more to say.

    Raises
    ------
    ImageError
        If there is no Zarr at the path, or what it lists lies elsewhere; while the images are asked
        for, if there is none that can be read.
    """
    fields = plate_fields(path)
    if fields is None:
        return None, _images(path)
    return _plate_text(normal(path), fields), _fields(path, fields)


def _images(path: str) -> Iterator[dict[str, Any]]:
    named = name_images([path], with_output=False)
    sources = [read_image(image) for image in find_images(path)]
    for source, one in zip(sources, named, strict=True):
        yield _describe(source, one.home, one.stem)


def _fields(path: str, fields: Sequence[Field]) -> Iterator[dict[str, Any]]:
    named = name_images([path], with_output=False) if fields else ()
    for field, one in zip(fields, named, strict=True):
        where = {"plate": normal(path), "well": field.well, "field": field.name}
        try:
            yield {**where, **_describe(read_image(field.path), one.home, one.stem)}
        except ImageError as error:
            yield {**where, "path": field.path, "error": str(error)}


def _plate_text(path: str, fields: Sequence[Field]) -> str:
    wells = len({field.well for field in fields})
    images = f"{len(fields)} field" + ("" if len(fields) == 1 else "s")
    if fields and all(field.path == f"{path}/{field.name}" for field in fields):
        return f"{path}: well {fields[0].well} of a plate (HCS), {images}"
    return f"{path}: a plate (HCS), {wells} well{'' if wells == 1 else 's'}, {images}"


def field_text(document: dict[str, Any]) -> str:
    """Return what a field of a plate is, in one line."""
    name = f"{document['well']}/{document['field']}".rstrip("/")
    if "error" in document:
        return f"  {name}: error: {document['error']}"
    level = document["levels"][0]
    size = " x ".join(f"{v:.4g}" for v in level["voxel_um"])
    labels = ", ".join(_count(Origin(**label)) for label in document["labels"])
    return (
        f"  {name}: {tuple(level['shape'])} voxels of {size} um, axes {document['axes']}, "
        f"{document['dtype']}; {labels or 'no labels'}"
    )


def _count(label: Origin) -> str:
    """A label of a field and how many instances it has, if that is known."""
    if label.instances is None:
        return f"label {label.name}"
    old = " (not current)" if label.is_current is False else ""
    return f"label {label.name}, {label.instances} instances{old}"


def describe_text(document: dict[str, Any]) -> str:
    """Return the description as lines for a person."""
    axes = ", ".join(f"{a['name']} ({a['unit'] or a['type']})" for a in document["axes_described"])
    lines = [
        f"{document['path']}",
        f"  OME-NGFF {document['version']}, axes {document['axes']}, {document['dtype']}, "
        f"unit {document['unit']}",
        f"  axes {axes}",
        f"  channels {', '.join(document['channels'])}; {document['times']} time(s)",
    ]
    for level in document["levels"]:
        size = " x ".join(f"{v:.4g}" for v in level["voxel_um"])
        shards = f", shards {tuple(level['shards'])}" if level["shards"] else ""
        lines.append(
            f"  level {level['path']}: {tuple(level['shape'])} voxels of {size} um, "
            f"chunks {tuple(level['chunks'])}{shards}, {level['bytes'] / 1e9:.3g} GB"
        )
    if document["made"] is not None:
        lines.append(f"  itself a {Origin(**document['made'])}")
    elif not document["labels"]:
        lines.append("  labels: none")
    lines += [f"  {Origin(**label)}" for label in document["labels"]]
    return "\n".join(lines)


def _describe(source: ImageSource, home: str, stem: str) -> dict[str, Any]:
    labels = [
        label_origin(name, attributes, source, f"{home}/{stem}.{name}.run.json")
        for name, attributes in existing_labels(source.path).items()
    ]
    node = read_node(source.path)
    own = {} if node is None else node.attributes
    voxel = source.dtype.itemsize
    return {
        "path": source.path,
        "version": source.version,
        "axes": "".join(a.name if len(a.name) == 1 else f"({a.name})" for a in source.axes),
        "axes_described": [{"name": a.name, "type": a.type, "unit": a.unit} for a in source.axes],
        "dtype": str(source.dtype),
        "unit": "none (micrometres assumed)" if source.unit_assumed else "micrometre",
        "channels": list(source.channels),
        "times": source.num_times,
        "levels": [
            {
                "path": level.path,
                "shape": list(source.shape_zyx(k)),
                "voxel_um": list(source.scale_um(k)),
                "chunks": list(source.chunks_zyx(k)),
                "shards": None if (shards := source.shards_zyx(k)) is None else list(shards),
                "bytes": math.prod(level.shape) * voxel,
            }
            for k, level in enumerate(source.levels)
        ],
        "labels": [label.to_json() for label in labels],
        "made": label_origin(stem, own).to_json() if KEY in own else None,
    }
