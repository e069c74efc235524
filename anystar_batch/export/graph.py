"""GEFF, the graph exchange file format: a node a star, for trackers to link.

::

    OUT/                          attribute `geff`
    OUT/nodes/ids                 uint64 [n], the labels
    OUT/nodes/props/NAME/values   t, z, y, x, radius, prob, quality
    OUT/edges/ids                 uint64 [0, 2]: linking is the tracker's work

Places and radii are micrometres; `t` is the index of the image's time point, 0 without times.
The format: liveimagetrackingtools.org/geff, version 1.1, in Zarr v2 (2026-11).
"""

from __future__ import annotations

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


def write_geff(chosen: Selection, path: Path, label: str) -> None:
    """Write stars as the nodes of a graph without edges.

    Parameters
    ----------
    chosen : Selection
    path : Path
        Directory, not there yet.
    label : str
        Path of the label image as the file shall name it, whose numbers are the ids.
    """
    count, written = len(chosen), 0
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    ids = _array(root, "nodes/ids", (count,), "uint64")
    arrays: dict[str, Any] = {}
    low, high = np.full(4, np.inf), np.full(4, -np.inf)
    for stars in chosen.batches():
        properties = _properties(stars, chosen)
        for name, values in properties.items():
            if name not in arrays:
                place = f"nodes/props/{name}/values"
                arrays[name] = _array(root, place, (count,), str(values.dtype))
            arrays[name][written : written + len(stars)] = values
        ids[written : written + len(stars)] = stars.labels.astype(np.uint64)
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


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str) -> Any:  # noqa: ANN401
    chunks = tuple(max(1, min(CHUNK, n)) for n in shape)
    return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks)


def _properties(stars: StarBatch, chosen: Selection) -> dict[str, NDArray[Any]]:
    """Return the properties of some nodes by name."""
    z, y, x = in_um(stars.points, chosen.frame).T
    properties: dict[str, NDArray[Any]] = {"t": stars.times.astype(np.int64)}
    properties |= {"z": z, "y": y, "x": x}
    properties["radius"] = radii_um(stars, chosen.frame, chosen.rays)
    properties["prob"] = stars.prob
    return properties | ({} if stars.quality is None else {"quality": stars.quality})
