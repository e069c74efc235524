"""Sums of painted labels as files: a paint task writes its own, the table reads a range of labels.

A file is one array of records, sorted by label: which write unit of the task a row was measured in,
the sums of the label in one storage chunk of it, and what is known of the label's star. That is the
same in all rows of a label, wherever they were measured: whoever reads some of them knows it.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX
from anystar_batch.measure.partials import SHAPE, Partials
from anystar_batch.stages.workdir import PARTIALS, save_array, stored


def sums_type(
    intensity: np.dtype[Any], num_channels: int, scores: np.dtype[Any]
) -> np.dtype[np.void]:
    """Return the row of a file.

    Parameters
    ----------
    intensity : dtype
        Of the sums of one channel: `partials.intensity_dtype`.
    num_channels : int
    scores : dtype
        What is known of a star: `star_scores.score_type`.
    """
    return np.dtype(
        [
            ("unit", "<u4"),
            ("shape", SHAPE),
            ("intensity", intensity, (num_channels,)),
            ("scores", scores),
        ]
    )


def save_sums(
    folder: Path,
    name: str,
    units: Sequence[ZYX],
    parts: Sequence[tuple[ZYX, Partials]],
    scores: tuple[NDArray[np.uint32], NDArray[np.void]],
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
    scores : (uint32 [m], records [m])
        Every label of the parts, sorted, and what is known of its star.

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
    intensity, (labels, known) = parts[0][1].intensity, scores
    dtype = sums_type(intensity.dtype, intensity.shape[1], known.dtype)
    rows = np.empty(sum(len(part.shape) for _, part in parts), dtype)
    rows["unit"] = np.concatenate([np.full(len(p.shape), noted[u]["unit"]) for u, p in parts])
    rows["shape"] = np.concatenate([part.shape for _, part in parts])
    rows["intensity"] = np.concatenate([part.intensity for _, part in parts])
    rows["scores"] = known[np.searchsorted(labels, rows["shape"]["label"])]
    for unit, part in parts:
        painted, entry = part.shape["label"], noted[unit]
        first, last = int(painted.min()), int(painted.max())
        if entry["file"]:
            first, last = min(first, int(str(entry["first"]))), max(last, int(str(entry["last"])))
        entry |= {"file": name, "first": first, "last": last}
    rows = rows[np.argsort(rows["shape"]["label"], kind="stable")]
    save_array(folder / PARTIALS / name, rows)
    return noted


@dataclass(frozen=True, slots=True)
class SumsFile:
    """What the ledger says of a file.

    Parameters
    ----------
    name : str
        Name of the file in its folder.
    units : tuple of int
        Those of its units that are taken from it.
    first, last : int
        Their first and last label.
    """

    name: str
    units: tuple[int, ...]
    first: int
    last: int


class Sums:
    """Where the sums of all painted write units are.

    Parameters
    ----------
    entries : mapping
        The ledger's entries of the paint stage, by key of the unit.

    Notes
    -----
    A file may hold units that a crash kept out of the ledger and that another block has measured
    since: only what the ledger says of a file is taken from it.
    """

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        units: dict[str, list[tuple[int, int, int]]] = {}
        for entry in entries.values():
            if entry["file"]:
                one = (int(entry["unit"]), int(entry["first"]), int(entry["last"]))
                units.setdefault(str(entry["file"]), []).append(one)
        self._files = []
        for name, some in sorted(units.items()):
            numbers, first, last = zip(*some, strict=True)
            self._files.append(SumsFile(name, numbers, min(first), max(last)))
        self._first = np.array([file.first for file in self._files], np.int64)
        self._last = np.array([file.last for file in self._files], np.int64)

    @property
    def last(self) -> int:
        """The largest label; 0 without labels."""
        return int(self._last.max(initial=0))

    def between(self, start: int, stop: int) -> tuple[SumsFile, ...]:
        """Return the files that may hold labels from `start` to before `stop`."""
        meets = (self._first < stop) & (self._last >= start)
        return tuple(self._files[at] for at in np.flatnonzero(meets))


def load_sums(
    folder: Path, files: Sequence[SumsFile], start: int, stop: int
) -> list[NDArray[np.void]]:
    """Return the rows of the labels from `start` to before `stop`, one array a file.

    Parameters
    ----------
    folder : Path
        Work directory.
    files : sequence of SumsFile
        From `Sums.between`.
    start, stop : int
        Labels.

    Raises
    ------
    LedgerMismatchError
        If a file is missing.
    """
    found = []
    for file in files:
        rows = stored(folder / PARTIALS / file.name)
        # A field of mapped rows: looked at one by one, so that only pages in question are read.
        labels = rows["shape"]["label"]
        low = bisect.bisect_left(labels, start)
        some = np.array(rows[low : bisect.bisect_left(labels, stop, lo=low)])
        found.append(some[np.isin(some["unit"], file.units)])
    return found
