"""The work directory: names, formats, writing and reading of every intermediate file.

::

    candidates/T-INDEX-N-DIGEST.npy    candidates of a block of tiles (predict)
    raw/T-INDEX-N-DIGEST.npy           the same before suppression, where they are kept (predict)
    survivors/T-INDEX-N-DIGEST.npy     kept and undecided ones (suppress)
    resolved-T.npy                     position keys of undecided ones that survive (suppress)
    refined/T-INDEX-N-DIGEST.npy       survivors after the second look (refine)
    survivors-2/..., resolved-2-T.npy  as above, of the refined ones (suppress 2)
    instances-T.npy                    position keys of all instances: the n-th has label n (number)
    partials/T-INDEX-N-DIGEST.npy      sums of the labels of a block of write units (paint), see
                                       `label_sums`
    rows/FIRST-LAST.csv                rows of some labels (table)

Files of candidates and of sums are one array of records each, a block's tiles or units one after
another. A `Slice` says where one tile's records lie, so that a later block reads of its neighbours'
files only what it needs, through a memory map. Files are mapped one at a time: a mapped file stays
open, and a slab across a large volume meets more of them than a process may hold.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.storage.atomic_write import write_bytes_atomic
from anystar_batch.errors import LedgerMismatchError
from anystar_batch.geometry import ZYX, Box, index_name, inside
from anystar_batch.stages.task import Work, model_rays, position_keys
from anystar_batch.stars.candidates import MEASURES, Candidates, decode, encode
from anystar_batch.stars.suppress import Status

CANDIDATES = "candidates"
"""Folder of the files after prediction."""

RAW = "raw"
"""Folder of the files that `--keep-candidates` leaves with the image; see `raw_tile`."""

REFINED = "refined"
"""Folder of the files after the second look."""

SURVIVORS = ("survivors", "survivors-2")
"""Folders of the files after each suppression: kept and undecided."""

PARTIALS = "partials"
"""Folder of the files after painting: sums of labels."""

ROWS = "rows"
"""Folder of the pieces of the table."""

FOLDERS = (CANDIDATES, RAW, *SURVIVORS, REFINED, PARTIALS, ROWS)
"""All folders of a work directory."""


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


def resolved_path(folder: str, time: int, number: int = 1) -> Path:
    """Return the file of the position keys of undecided candidates that survive.

    Parameters
    ----------
    folder : str
        Work directory.
    time : int
    number : int
        Of the suppression: 1, or 2 after the second look.
    """
    return Path(folder) / (f"resolved-{time}.npy" if number == 1 else f"resolved-2-{time}.npy")


def label_keys_path(folder: str, time: int) -> Path:
    """Return the file of the sorted position keys of all instances: the n-th has label n."""
    return Path(folder) / f"instances-{time}.npy"


def file_name(time: int, units: Sequence[ZYX], suffix: str) -> str:
    """Return a name that only the same tiles or write units of the same time have."""
    digest = hashlib.sha256(repr(units).encode()).hexdigest()[:12]
    return f"{time}-{index_name(units[0])}-{len(units)}-{digest}.{suffix}"


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write position keys or records, whole or not at all.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes_atomic(path, stream.getvalue())


def stored(path: Path) -> NDArray[Any]:
    """Map a file of the work directory.

    Raises
    ------
    LedgerMismatchError
        If it is missing, though the ledger speaks of it.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        message = f"{path} is missing: the work directory is damaged; give --restart"
        raise LedgerMismatchError(message) from error
    return array


def candidate_type(n_rays: int, further: Iterable[str] = ()) -> np.dtype[np.void]:
    """Return the type of a stored candidate: 18 bytes, one a ray, and 4 a further measure."""
    return np.dtype(
        [
            ("points", "<i4", 3),
            ("prob", "<f4"),
            ("dist", "u1", n_rays),
            ("step", "i1"),
            ("status", "u1"),
            *[(name, "<f4") for name in further],
        ]
    )


def save_candidates(
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
        Of every tile; distances quantised, statuses int8 [n]. All have the same measures.

    Returns
    -------
    dict
        Where each tile's records lie, by key; tiles without any have an empty slice.
    """
    slices: dict[str, Slice] = {}
    arrays, position = [], 0
    for key, candidates, status in parts:
        fields = encode(candidates)
        further = [name for name in MEASURES if name in fields]
        kind = candidate_type(candidates.dist.shape[1], further)
        records = np.empty(len(candidates), kind)
        for field, values in fields.items():
            records[field] = values
        records["status"] = status
        if len(records):  # of no candidates nobody knows what was measured
            arrays.append(records)
        slices[key] = Slice(name, position, position + len(records))
        position += len(records)
    if position:
        save_array(folder / name, np.concatenate(arrays))
    return slices


def load_candidates(
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
    arrays = []
    full = (piece for piece in slices if piece.stop > piece.start)
    for file, pieces in itertools.groupby(full, lambda piece: piece.file):
        mapped = stored(folder / file)
        for piece in pieces:
            records = mapped[piece.start : piece.stop]
            where = ... if region is None else inside(records["points"], region)
            arrays.append(np.array(records[where]))
        del mapped, records
    records = np.concatenate(arrays) if arrays else np.empty(0, candidate_type(n_rays))
    fields: Mapping[str, NDArray[Any]] = {
        name: np.ascontiguousarray(records[name])
        for name in records.dtype.names or ()
        if name != "status"
    }
    return decode(fields), records["status"].astype(np.int8)


def slice_of(entry: dict[str, object]) -> Slice:
    """Return where the candidates of a tile lie, from its entry in the ledger."""
    return Slice(str(entry["file"]), int(str(entry["start"])), int(str(entry["stop"])))


def load_survivors(
    work: Work,
    time: int,
    near: Sequence[Slice],
    region: Box | None = None,
    number: int | None = None,
) -> Candidates:
    """Return the survivors of some tiles, or those of them whose points lie in a region.

    They were kept, or undecided and resolved so. The filters have not acted on them; `own` says
    whom they keep.

    Parameters
    ----------
    work : Work
    time : int
    near : sequence of Slice
        Of the stage `run.suppression(number)`.
    region : Box, optional
        Working voxels.
    number : int, optional
        Of the suppression; the plan's last by default.
    """
    number = work.plan.suppressions if number is None else number
    rays, folder = model_rays(work.plan.model), Path(work.folder) / SURVIVORS[number - 1]
    candidates, status = load_candidates(folder, near, len(rays), region)
    resolved = stored(resolved_path(work.folder, time, number))
    keys = position_keys(candidates.points, work.plan.working.shape)
    final = (status == Status.KEPT) | np.isin(keys, resolved)
    return candidates.take(final)


def load_instances(
    work: Work, time: int, near: Sequence[Slice], first_label: int, region: Box | None = None
) -> tuple[Candidates, NDArray[np.uint32]]:
    """Return the instances of some tiles, or those in a region of them, and their labels."""
    survivors = load_survivors(work, time, near, region)
    numbered = stored(label_keys_path(work.folder, time))
    keys = position_keys(survivors.points, work.plan.working.shape)
    rank = np.searchsorted(numbered, keys)
    is_numbered = rank < len(numbered)
    is_numbered[is_numbered] = numbered[rank[is_numbered]] == keys[is_numbered]
    labels = (rank[is_numbered] + first_label).astype(np.uint32)
    return survivors.take(is_numbered), labels
