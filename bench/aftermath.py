"""What must hold after a disturbed run, told from the files alone, without the package's code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Digest = str
LABEL, BEFORE = "anystar", "before"


@dataclass(frozen=True)
class State:
    """What lies in a folder with one image.

    Parameters
    ----------
    image : str
        Digest of the image without its labels.
    labels : mapping of str to str
        Digest of every visible label's group, by name.
    listed : tuple of str
        Names in the image's list of labels.
    tables : mapping of str to str
        Digest of every table, by label.
    """

    image: Digest
    labels: Mapping[str, Digest]
    listed: tuple[str, ...]
    tables: Mapping[str, Digest]


def digest(folder: Path, but: str | None = None) -> Digest:
    """Return a digest of names and bytes of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative.parts[0] != but:
            total.update(f"{relative}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def look(folder: Path) -> State:
    """Return what lies in a folder."""
    image = folder / "phantom.ome.zarr"
    labels = image / "labels"
    names = [p.name for p in labels.iterdir()] if labels.is_dir() else []
    shown = [n for n in names if not n.startswith(".") and (labels / n).is_dir()]
    tables = {
        p.name.removeprefix("phantom.").removesuffix(".csv"): hashlib.sha256(
            p.read_bytes()
        ).hexdigest()[:16]
        for p in folder.glob("phantom.*.csv")
    }
    return State(
        digest(image, but="labels"), {n: digest(labels / n) for n in shown}, _listed(labels), tables
    )


def _listed(labels: Path) -> tuple[str, ...]:
    for name in ("zarr.json", ".zattrs"):
        if (labels / name).exists():
            document = json.loads((labels / name).read_bytes())
            attributes = document.get("attributes", document)
            return tuple(attributes.get("ome", attributes).get("labels", ()))
    return ()


def leftovers(folder: Path) -> list[str]:
    """Return what a finished run must not leave: work, locks, hidden groups, partial files."""
    found = []
    for top, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            is_hidden = name.startswith(".") and name not in {".zattrs", ".zgroup", ".zarray"}
            if is_hidden or name.endswith((".work", ".lock", ".partial")):
                found.append(str(Path(top, name).relative_to(folder)))
    return sorted(found)


def judge(
    state: State, start: State, good: tuple[State, ...], deleted: tuple[str, ...]
) -> dict[str, bool]:
    """Return whether what can be seen after a disturbance is what may be seen.

    Parameters
    ----------
    state : State
        Now.
    start : State
        Before the run.
    good : tuple of State
        After undisturbed runs, one of which this may have become.
    deleted : tuple of str
        Labels that the disturbance itself has deleted.
    """
    old = {n: d for n, d in start.labels.items() if n not in deleted}
    new = {d.labels[LABEL] for d in good}
    tables = {d.tables[LABEL] for d in good} | {start.tables.get(LABEL, "")}
    kept = all(
        state.labels.get(n) == d or (n == LABEL and state.labels.get(n) in new)
        for n, d in old.items()
    ) and all(state.tables.get(n) == d for n, d in start.tables.items() if n != LABEL)
    whole = {*new, *start.labels.values()}
    return {
        "earlier label reads identically": kept,
        "nothing half-written is shown": all(d in whole for d in state.labels.values()),
        "listed labels are there": all(n in state.labels or n in deleted for n in state.listed),
        "table is whole": state.tables.get(LABEL, "") in {*tables, ""},
    }
