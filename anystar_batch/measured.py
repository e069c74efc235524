"""Files of the sums that painted blocks leave, and the rows of some labels out of all of them.

A file holds the rows of one paint task, sorted by label, and is mapped, not read: labels are
numbered by position, so a range of labels is a slab of the volume, and few files know of it.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.storage.files import write_bytes_atomic
from anystar_batch.geometry import ZYX
from anystar_batch.measure.partials import SHAPE, Partials

PARTIALS = "partials"
"""Folder of the files in the work directory."""


def row_dtype(intensity: np.dtype[Any], num_channels: int) -> np.dtype[Any]:
    """Return the row of a file: which write unit of the task it was measured in, and the sums.

    Parameters
    ----------
    intensity : dtype
        Of the sums of one channel: `partials.intensity_dtype`.
    num_channels : int
    """
    return np.dtype([("unit", "<u4"), ("shape", SHAPE), ("intensity", intensity, (num_channels,))])


def save(
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
    dtype = row_dtype(intensity.dtype, intensity.shape[1])
    rows = np.empty(sum(len(part.shape) for _, part in parts), dtype)
    rows["unit"] = np.concatenate([np.full(len(p.shape), noted[u]["unit"]) for u, p in parts])
    rows["shape"] = np.concatenate([part.shape for _, part in parts])
    rows["intensity"] = np.concatenate([part.intensity for _, part in parts])
    for unit, part in parts:
        labels, known = part.shape["label"], noted[unit]
        first, last = int(labels.min()), int(labels.max())
        if known["file"]:
            first, last = min(first, int(str(known["first"]))), max(last, int(str(known["last"])))
        known |= {"file": name, "first": first, "last": last}
    rows = rows[np.argsort(rows["shape"]["label"], kind="stable")]
    stream = BytesIO()
    np.save(stream, rows, allow_pickle=False)
    write_bytes_atomic(folder / PARTIALS / name, stream.getvalue())
    return noted


class Measured:
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
        self._files: dict[str, _File] = {}
        for entry in entries.values():
            if not entry["file"]:
                continue
            name = str(entry["file"])
            file = self._files.setdefault(name, _File(folder / PARTIALS / name))
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


class _File:
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
