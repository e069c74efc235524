"""GEFF, the graph exchange file format: a node a star, for trackers to link.

::

    OUT/                          attribute `geff`
    OUT/nodes/ids                 uint64 [n], the labels
    OUT/nodes/props/NAME/values   t, z, y, x, radius, prob, quality
    OUT/edges/ids                 uint64 [0, 2]: linking is the tracker's work

With alternatives, stars of further labels of the image, made at other thresholds, are nodes too:
their ids follow those of the label, and `source` (0: the label), `label` (number in its own label),
`prob_thresh` and `nms_thresh` say where each is from. A star that several labels have is one node.

Places and radii are micrometres; `t` is the index of the image's time point, 0 without times.
The format: liveimagetrackingtools.org/geff, version 1.1, in Zarr v2 (2026-11).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from anystar_batch.archive.star_group import CHUNK
from anystar_batch.export.selection import Selection, StarBatch, in_um, radii_um

VERSION = "1.1"
"""Of the specification."""

UNITS = {"z": "micrometer", "y": "micrometer", "x": "micrometer", "radius": "micrometer"}
"""Units of properties; others have none."""


@dataclass(frozen=True, slots=True)
class Source:
    """Stars of one label among those that become nodes.

    Parameters
    ----------
    chosen : Selection
    prob_thresh, nms_thresh : float
        Thresholds of its run.
    """

    chosen: Selection
    prob_thresh: float
    nms_thresh: float


def write_geff(sources: Sequence[Source], path: Path, label: str) -> None:
    """Write stars as the nodes of a graph without edges.

    Parameters
    ----------
    sources : sequence of Source
        The label, then further ones of the image, whose stars are alternatives. A star that an
        earlier one has too is left out.
    path : Path
        Directory, not there yet.
    label : str
        Path of the label image as the file shall name it, whose numbers are the first ids.
    """
    fresh = _fresh(sources)
    count, written = sum(int(mask.sum()) for mask in fresh), 0
    last = sources[0].chosen.frame.count
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    ids = _array(root, "nodes/ids", (count,), "uint64")
    arrays: dict[str, Any] = {}
    low, high = np.full(4, np.inf), np.full(4, -np.inf)
    for number, (source, mask) in enumerate(zip(sources, fresh, strict=True)):
        start = 0
        for every in source.chosen.batches():
            stars = every.take(mask[start : start + len(every)])
            start += len(every)
            if not len(stars):
                continue
            rows = slice(written, written + len(stars))
            properties = _properties(stars, source, number, is_alone=len(sources) == 1)
            for name, values in properties.items():
                if name not in arrays:
                    place = f"nodes/props/{name}/values"
                    arrays[name] = _array(root, place, (count,), str(values.dtype))
                arrays[name][rows] = values
            numbers = last + 1 + np.arange(len(stars)) if number else stars.labels
            ids[rows] = numbers.astype(np.uint64)
            last += len(stars) if number else 0
            axes = np.stack([properties[name].astype(np.float64) for name in "tzyx"])
            low, high = np.minimum(low, axes.min(axis=1)), np.maximum(high, axes.max(axis=1))
            written += len(stars)
    _array(root, "edges/ids", (0, 2), "uint64")
    root.require_group("edges/props")
    root.attrs["geff"] = {
        "geff_version": VERSION,
        "directed": True,
        "axes": [
            {
                "name": name,
                "type": "time" if name == "t" else "space",
                "unit": UNITS.get(name, "frame"),
                "min": float(low[k]),
                "max": float(high[k]),
            }
            for k, name in enumerate("tzyx")
        ],
        "node_props_metadata": {
            name: {
                "identifier": name,
                "dtype": str(array.dtype),
                "varlength": False,
                **({"unit": UNITS[name]} if name in UNITS else {}),
            }
            for name, array in arrays.items()
        },
        "edge_props_metadata": {},
        "sphere": "radius",
        "related_objects": [{"type": "labels", "path": label}],
    }


def _fresh(sources: Sequence[Source]) -> list[NDArray[np.bool_]]:
    """Which stars of each source none before it has: by time, centre and every distance."""
    if len(sources) == 1:
        return [np.ones(len(sources[0].chosen), np.bool_)]
    seen, masks = set[bytes](), list[NDArray[np.bool_]]()
    for source in sources:
        is_new = list[bool]()
        for stars in source.chosen.batches():
            for time, point, dist in zip(stars.times, stars.points, stars.dist, strict=True):
                key = hashlib.blake2b(
                    time.tobytes() + point.tobytes() + dist.tobytes(), digest_size=16
                )
                is_new.append(key.digest() not in seen)
                seen.add(key.digest())
        masks.append(np.array(is_new, np.bool_))
    return masks


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str) -> Any:  # noqa: ANN401
    chunks = tuple(max(1, min(CHUNK, n)) for n in shape)
    return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks)


def _properties(
    stars: StarBatch, source: Source, number: int, *, is_alone: bool
) -> dict[str, NDArray[Any]]:
    """Return the properties of some nodes by name."""
    frame, rays = source.chosen.frame, source.chosen.rays
    z, y, x = in_um(stars.points, frame).T
    properties: dict[str, NDArray[Any]] = {"t": stars.times.astype(np.int64)}
    properties |= {"z": z, "y": y, "x": x, "radius": radii_um(stars, frame, rays)}
    properties["prob"] = stars.prob
    quality = np.full(len(stars), np.nan, np.float32) if stars.quality is None else stars.quality
    if is_alone:
        return properties | ({} if stars.quality is None else {"quality": quality})
    properties |= {"quality": quality, "label": stars.labels.astype(np.int64)}
    properties["source"] = np.full(len(stars), number, np.int64)
    properties["prob_thresh"] = np.full(len(stars), source.prob_thresh)
    return properties | {"nms_thresh": np.full(len(stars), source.nms_thresh)}
