"""Candidates on disk between the stages: one file a block, found again tile by tile.

A file is one NumPy array of records, the tiles of its block one after another. A `Slice` says where
one tile's records lie, so that a later block reads of its neighbours' files only what it needs,
through a memory map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.storage.files import write_bytes_atomic
from anystar_batch.geometry import Box, inside
from anystar_batch.stars.candidates import Candidates, decode, encode


@dataclass(frozen=True, slots=True)
class Slice:
    """Records `[start, stop)` of a file.

    Parameters
    ----------
    file : str
        Name of the file in its folder.
    start, stop : int
        First record, and the first one after the last.
    """

    file: str
    start: int
    stop: int


def record_type(n_rays: int, *, has_contrast: bool = False) -> np.dtype[np.void]:
    """Return the type of a stored candidate: 18 bytes and one a ray, 4 more with its contrast."""
    return np.dtype(
        [
            ("points", "<i4", 3),
            ("prob", "<f4"),
            ("dist", "u1", n_rays),
            ("step", "i1"),
            ("status", "u1"),
            *([("contrast", "<f4")] if has_contrast else []),
        ]
    )


def save(
    folder: Path, name: str, parts: Sequence[tuple[str, Candidates, NDArray[np.int8]]]
) -> dict[str, Slice]:
    """Write the candidates of several tiles to one file.

    Parameters
    ----------
    folder : Path
        Must exist.
    name : str
        Name of the file.
    parts : sequence of (key, candidates, statuses)
        Of every tile; distances quantised, statuses int8 [n]. All have contrasts, or none.

    Returns
    -------
    dict
        Where each tile's records lie, by key; tiles without any have an empty slice.
    """
    found: dict[str, Slice] = {}
    arrays, position = [], 0
    for key, candidates, status in parts:
        fields = encode(candidates)
        kind = record_type(candidates.dist.shape[1], has_contrast="contrast" in fields)
        records = np.empty(len(candidates), kind)
        for field, values in fields.items():
            records[field] = values
        records["status"] = status
        if len(records):  # of no candidates nobody knows whether they have contrasts
            arrays.append(records)
        found[key] = Slice(name, position, position + len(records))
        position += len(records)
    if position:
        stream = BytesIO()
        np.save(stream, np.concatenate(arrays), allow_pickle=False)
        write_bytes_atomic(folder / name, stream.getvalue())
    return found


def load(
    folder: Path, slices: Sequence[Slice], n_rays: int, region: Box | None = None
) -> tuple[Candidates, NDArray[np.int8]]:
    """Read the candidates of several tiles.

    Parameters
    ----------
    folder : Path
        Folder of the files.
    slices : sequence of Slice
        What to read.
    n_rays : int
        Rays of a candidate.
    region : Box, optional
        Leave out, unread, whose point lies elsewhere; working voxels.

    Returns
    -------
    Candidates
    int8 [n]
        Statuses.
    """
    files: dict[str, NDArray[np.void]] = {}
    arrays = []
    for piece in slices:
        if piece.stop > piece.start:
            if piece.file not in files:
                files[piece.file] = np.load(folder / piece.file, mmap_mode="r", allow_pickle=False)
            records = files[piece.file][piece.start : piece.stop]
            if region is not None:
                records = records[inside(records["points"], region)]
            arrays.append(np.asarray(records))
    records = np.concatenate(arrays) if arrays else np.empty(0, record_type(n_rays))
    fields: Mapping[str, NDArray[Any]] = {
        name: np.ascontiguousarray(records[name])
        for name in records.dtype.names or ()
        if name != "status"
    }
    return decode(fields), records["status"].astype(np.int8)
