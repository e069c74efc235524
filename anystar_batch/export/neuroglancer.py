"""Neuroglancer's precomputed format: legacy single-resolution meshes, two small files a star.

::

    OUT/info            a segmentation without chunks, which names the meshes
    OUT/mesh/info
    OUT/mesh/5:0        {"fragments": ["5"]}
    OUT/mesh/5          number of vertices, vertices (x, y, z) in nanometres, triangles

The format: github.com/google/neuroglancer, src/datasource/precomputed/meshes.md (2026-11). Places
are those of OME-Zarr: the centre of voxel 0 lies at the label's translation.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from anystar_batch.export.selection import Selection, corners_xyz, faces_xyz

NM = 1000.0
"""Nanometres in a micrometre."""

CHUNK = 64
"""Edge of the chunks that the volume is said to have; there are none."""


def write_precomputed(chosen: Selection, path: Path) -> None:
    """Write stars as a directory that Neuroglancer opens as `precomputed://`.

    Parameters
    ----------
    chosen : Selection
    path : Path
        Directory, not there yet.
    """
    frame, faces = chosen.frame, faces_xyz(chosen.rays).astype("<u4").tobytes()
    meshes = path / "mesh"
    meshes.mkdir(parents=True)
    voxel = [size * NM for size in frame.voxel_um[::-1]]
    shift = [round(t / v) for t, v in zip(frame.translation_um, frame.voxel_um, strict=True)]
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation",
        "data_type": "uint32",
        "num_channels": 1,
        "mesh": "mesh",
        "scales": [
            {
                "key": "0",
                "size": list(frame.shape[::-1]),
                "resolution": voxel,
                "voxel_offset": shift[::-1],
                "chunk_sizes": [[CHUNK, CHUNK, CHUNK]],
                "encoding": "raw",
            }
        ],
    }
    _write_json(path / "info", info)
    _write_json(meshes / "info", {"@type": "neuroglancer_legacy_mesh"})
    for stars in chosen.batches():
        nm = np.ascontiguousarray(corners_xyz(stars, frame, chosen.rays) * NM, "<f4")
        for label, places in zip(stars.labels.tolist(), nm, strict=True):
            count = np.array([len(places)], "<u4").tobytes()
            (meshes / str(label)).write_bytes(count + places.tobytes() + faces)
            _write_json(meshes / f"{label}:0", {"fragments": [str(label)]})


def _write_json(path: Path, document: object) -> None:
    path.write_text(f"{json.dumps(document)}\n", encoding="utf-8")
