"""What an image is, in a few lines: for `anystar-batch info`."""

from __future__ import annotations

import math
from typing import Any

from anystar_batch.archive.labels import KEY, existing_labels
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.nodes import read_node
from anystar_batch.archive.store import find_images, read_image
from anystar_batch.naming import name_images
from anystar_batch.origin import Origin, label_origin


def describe(path: str) -> list[dict[str, Any]]:
    """Return what each image of a path is, as plain JSON values.

    Parameters
    ----------
    path : str
        An image, or a container of series.

    Raises
    ------
    ImageError
        If there is no image that can be read.
    """
    sources = [read_image(image) for image in find_images(path)]
    named = name_images([path], with_output=False)
    return [
        _describe(source, one.home, one.stem) for source, one in zip(sources, named, strict=True)
    ]


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
                "shards": None if level.shards is None else list(level.shards),
                "bytes": math.prod(level.shape) * voxel,
            }
            for k, level in enumerate(source.levels)
        ],
        "labels": [label.to_json() for label in labels],
        "made": label_origin(stem, own).to_json() if KEY in own else None,
    }
