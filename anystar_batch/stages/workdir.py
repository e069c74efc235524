"""The work directory: names, formats, writing and reading of every intermediate file.

::

    candidates/T-INDEX-N-DIGEST.npy    candidates of a block of tiles (predict)
    raw/T-INDEX-N-DIGEST.npy           the same before suppression, where they are kept (predict)
    survivors/T-INDEX-N-DIGEST.npy     kept and undecided ones (suppress)
    resolved-T.npy                     position keys of undecided ones that survive (suppress)
    refined/T-INDEX-N-DIGEST.npy       survivors after the second look (refine)
    survivors-2/..., resolved-2-T.npy  as above, of the refined ones (suppress 2)
    instances-T.npy                    position keys of all instances: the n-th has label n (number)
    partials/T-INDEX-N-DIGEST.npy      sums of the labels of a block of write units (paint)

Files of candidates and of sums are one array of records each, a block's tiles or units one after
another. A `Slice` says where one tile's records lie, so that a later block reads of its neighbours'
files only what it needs, through a memory map.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.storage.atomic_write import write_bytes_atomic
from anystar_batch.geometry import ZYX, Box, index_name, inside
from anystar_batch.measure.partials import SHAPE, Partials
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

FOLDERS = (CANDIDATES, RAW, *SURVIVORS, REFINED, PARTIALS)
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


def save_array(path: Path, array: NDArray[np.int64]) -> None:
    """Write position keys, whole or not at all.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes_atomic(path, stream.getvalue())


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
        stream = BytesIO()
        np.save(stream, np.concatenate(arrays), allow_pickle=False)
        write_bytes_atomic(folder / name, stream.getvalue())
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
    resolved = np.load(resolved_path(work.folder, time, number), allow_pickle=False)
    keys = position_keys(candidates.points, work.plan.working.shape)
    final = (status == Status.KEPT) | np.isin(keys, resolved)
    return candidates.take(final)


def load_instances(
    work: Work, time: int, near: Sequence[Slice], first_label: int, region: Box | None = None
) -> tuple[Candidates, NDArray[np.uint32]]:
    """Return the instances of some tiles, or those in a region of them, and their labels."""
    survivors = load_survivors(work, time, near, region)
    numbered = np.load(label_keys_path(work.folder, time), mmap_mode="r", allow_pickle=False)
    keys = position_keys(survivors.points, work.plan.working.shape)
    rank = np.searchsorted(numbered, keys)
    is_numbered = rank < len(numbered)
    is_numbered[is_numbered] = numbered[rank[is_numbered]] == keys[is_numbered]
    labels = (rank[is_numbered] + first_label).astype(np.uint32)
    return survivors.take(is_numbered), labels


def sums_type(intensity: np.dtype[Any], num_channels: int) -> np.dtype[Any]:
    """Return the row of a file: which write unit of the task it was measured in, and the sums.

    Parameters
    ----------
    intensity : dtype
        Of the sums of one channel: `partials.intensity_dtype`.
    num_channels : int
    """
    return np.dtype([("unit", "<u4"), ("shape", SHAPE), ("intensity", intensity, (num_channels,))])


def save_sums(
    folder: Path, name: str, units: Sequence[ZYX], parts: Sequence[tuple[ZYX, Partials]]
) -> dict[ZYX, dict[str, object]]:
    """Write the sums of a paint task, and return what the ledger notes of each of its units.

    Parameters
    ----------
    folder : Path
        Work directory.
    name : str
        File, one of this task alone.
    units : sequence of (z, y, x)
        Write units of the task.
    parts : sequence of (unit, Partials)
        Sums of their chunks; none writes no file.

    Returns
    -------
    dict
        Unit to `file`, its number `unit` in there, and its `first` and `last` label; without labels
        the file is "".
    """
    noted: dict[ZYX, dict[str, object]] = {
        unit: {"file": "", "unit": at, "first": 0, "last": 0} for at, unit in enumerate(units)
    }
    parts = [(unit, part) for unit, part in parts if len(part.shape)]
    if not parts:
        return noted
    intensity = parts[0][1].intensity
    dtype = sums_type(intensity.dtype, intensity.shape[1])
    rows = np.empty(sum(len(part.shape) for _, part in parts), dtype)
    rows["unit"] = np.concatenate([np.full(len(p.shape), noted[u]["unit"]) for u, p in parts])
    rows["shape"] = np.concatenate([part.shape for _, part in parts])
    rows["intensity"] = np.concatenate([part.intensity for _, part in parts])
    for unit, part in parts:
        labels, entry = part.shape["label"], noted[unit]
        first, last = int(labels.min()), int(labels.max())
        if entry["file"]:
            first, last = min(first, int(str(entry["first"]))), max(last, int(str(entry["last"])))
        entry |= {"file": name, "first": first, "last": last}
    rows = rows[np.argsort(rows["shape"]["label"], kind="stable")]
    stream = BytesIO()
    np.save(stream, rows, allow_pickle=False)
    write_bytes_atomic(folder / PARTIALS / name, stream.getvalue())
    return noted


class Sums:
    """The rows of all painted write units.

    Parameters
    ----------
    folder : Path
        Work directory.
    entries : mapping
        The ledger's entries of the paint stage, by key of the unit.

    Notes
    -----
    A file may hold units that a crash kept out of the ledger and that another block has measured
    since: only what the ledger says of a file is taken from it.
    """

    def __init__(self, folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self._files: dict[str, _SumsFile] = {}
        for entry in entries.values():
            if not entry["file"]:
                continue
            name = str(entry["file"])
            file = self._files.setdefault(name, _SumsFile(folder / PARTIALS / name))
            file.add(int(entry["unit"]), int(entry["first"]), int(entry["last"]))

    @property
    def last(self) -> int:
        """The largest label; 0 without labels."""
        return max((file.last for file in self._files.values()), default=0)

    def between(self, start: int, stop: int) -> list[NDArray[Any]]:
        """Return the rows of the labels from `start` to before `stop`, one array a file."""
        return [
            file.between(start, stop)
            for _, file in sorted(self._files.items())
            if file.first < stop and file.last >= start
        ]


class _SumsFile:
    """One file, mapped while its labels are asked for."""

    def __init__(self, path: Path) -> None:
        self.first, self.last = 2**32, 0
        self._path, self._units = path, list[int]()
        self._rows: NDArray[Any] | None = None

    def add(self, unit: int, first: int, last: int) -> None:
        """Take the rows of a unit from it."""
        self._units.append(unit)
        self.first, self.last = min(self.first, first), max(self.last, last)

    def between(self, start: int, stop: int) -> NDArray[Any]:
        """Return the rows of some labels."""
        if self._rows is None:
            self._rows = np.load(self._path, mmap_mode="r", allow_pickle=False)
        # A field of mapped rows: looked at one by one, so that only pages in question are read.
        labels = self._rows["shape"]["label"]
        low = bisect.bisect_left(labels, start)
        rows = np.array(self._rows[low : bisect.bisect_left(labels, stop, lo=low)])
        if stop > self.last:
            self._rows = None
        return rows[np.isin(rows["unit"], self._units)]
