"""What an image is, in a few lines: for `anystar-batch info`."""

from __future__ import annotations

from typing import Any

from anystar_batch.archive.labels import KEY, existing_labels
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.store import find_images, read_image


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
    return [_describe(read_image(image)) for image in find_images(path)]


def describe_text(document: dict[str, Any]) -> str:
    """Return the description as lines for a person."""
    lines = [
        f"{document['path']}",
        f"  OME-NGFF {document['version']}, axes {document['axes']}, {document['dtype']}, "
        f"unit {document['unit']}",
        f"  channels {', '.join(document['channels'])}; {document['times']} time(s)",
    ]
    for level in document["levels"]:
        size = " x ".join(f"{v:.4g}" for v in level["voxel_um"])
        shards = f", shards {tuple(level['shards'])}" if level["shards"] else ""
        lines.append(
            f"  level {level['path']}: {tuple(level['shape'])} voxels of {size} um, "
            f"chunks {tuple(level['chunks'])}{shards}"
        )
    if not document["labels"]:
        lines.append("  labels: none")
    for label in document["labels"]:
        ours = f", {label['instances']} instances" if label["instances"] is not None else ""
        made = f", fingerprint {label['fingerprint'][:12]}" if label["fingerprint"] else ""
        lines.append(f"  label {label['name']}{ours}{made}")
    return "\n".join(lines)


def _describe(source: ImageSource) -> dict[str, Any]:
    labels = []
    for name, attributes in existing_labels(source.path).items():
        provenance = attributes.get(KEY)
        ours = provenance if isinstance(provenance, dict) else {}
        labels.append(
            {
                "name": name,
                "instances": ours.get("instances"),
                "fingerprint": ours.get("fingerprint"),
            }
        )
    return {
        "path": source.path,
        "version": source.version,
        "axes": "".join(a.name if len(a.name) == 1 else f"({a.name})" for a in source.axes),
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
            }
            for k, level in enumerate(source.levels)
        ],
        "labels": labels,
    }
