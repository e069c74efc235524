"""Meshes in one file: PLY (binary) and Wavefront OBJ, axes (x, y, z), micrometres.

A star has one vertex a ray, shared by its triangles, which are oriented outward: every star is
closed. Which star a triangle belongs to stands beside it: the property `label` in PLY, an object
`label_N` in OBJ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anystar_batch import __version__
from anystar_batch.errors import ConfigError
from anystar_batch.export.selection import Selection, corners_xyz, faces_xyz

MOST_VERTICES = 2**31
"""Indices of vertices that readers hold in 32 bits, with a sign."""


def write_ply(chosen: Selection, path: Path) -> None:
    """Write stars as one binary PLY file: all vertices, then all faces.

    Parameters
    ----------
    chosen : Selection
    path : Path
        File, not there yet.

    Raises
    ------
    ConfigError
        If there are more vertices than PLY readers count.
    """
    corners, faces = len(chosen.rays), faces_xyz(chosen.rays)
    if len(chosen) * corners > MOST_VERTICES:
        message = (
            f"{len(chosen)} stars have {len(chosen) * corners} vertices; PLY holds "
            f"{MOST_VERTICES}; give --labels, some at a time"
        )
        raise ConfigError(message)
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"comment anystar-batch {__version__}; micrometres\n"
        f"element vertex {len(chosen) * corners}\n"
        "property double x\nproperty double y\nproperty double z\n"
        f"element face {len(chosen) * len(faces)}\n"
        "property list uchar int vertex_indices\nproperty uint label\nend_header\n"
    )
    kind = np.dtype([("count", "u1"), ("corners", "<i4", 3), ("label", "<u4")])
    with path.open("wb") as file:
        file.write(header.encode("ascii"))
        for stars in chosen.batches():
            xyz = corners_xyz(stars, chosen.frame, chosen.rays)
            file.write(np.ascontiguousarray(xyz, "<f8").tobytes())
        first = 0
        for stars in chosen.batches():
            records = np.empty((len(stars), len(faces)), kind)
            starts = first + corners * np.arange(len(stars))
            records["count"] = 3
            records["corners"] = faces + starts[:, None, None]
            records["label"] = stars.labels[:, None]
            file.write(records.tobytes())
            first += corners * len(stars)


def write_obj(chosen: Selection, path: Path) -> None:
    """Write stars as one Wavefront OBJ file, an object a star.

    Parameters
    ----------
    chosen : Selection
    path : Path
        File, not there yet.
    """
    corners, faces = len(chosen.rays), faces_xyz(chosen.rays)
    first = 1
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(f"# anystar-batch {__version__}; micrometres\n")
        for stars in chosen.batches():
            xyz = corners_xyz(stars, chosen.frame, chosen.rays)
            for label, places in zip(stars.labels.tolist(), xyz.tolist(), strict=True):
                lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in places]
                lines += [f"f {a} {b} {c}" for a, b, c in (faces + first).tolist()]
                file.write(f"o label_{label}\n" + "\n".join(lines) + "\n")
                first += corners
