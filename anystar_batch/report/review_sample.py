"""Which instances a person is asked about: a random sample, and the worst first.

The sample has the labels with the smallest hashes, which depend on the seed: it is the same for
every order of reading, a larger one begins with the smaller one, and whoever stops early has looked
at a random sample all the same. The table is read in pieces and never held.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.report.digest import Columns, hashes
from anystar_batch.report.table_rows import column_names, read_rows

_COLUMNS = (
    "label",
    "prob",
    *(f"centroid_{a}" for a in "zyx"),
    *(f"bbox_{a}_{side}" for a in "zyx" for side in ("min", "max")),
    "equivalent_diameter_um",
)


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Instances to look at.

    Parameters
    ----------
    sample : dict
        Columns of the random sample, in random order.
    worst : dict
        Columns of the others with the lowest quality, lowest first; where there was no second look
        of the lowest probability.
    instances : int
        Rows of the table.
    """

    sample: Columns
    worst: Columns
    instances: int


def select(table: Path, count: int, worst: int, seed: int) -> Selection:
    """Choose instances of a table.

    Parameters
    ----------
    table : Path
        CSV or Parquet.
    count, worst : int
        How many of each list; fewer where there are fewer instances. No instance is in both.
    seed : int
        Of the sample: 0 or more.

    Raises
    ------
    DataError
        If it is no table of a run.
    """
    there = column_names(table)
    names = [*_COLUMNS, *(name for name in ("t", "quality") if name in there)]
    salt = hashes(np.array([seed], np.uint64))
    drawn: Columns = {}
    lowest: Columns = {}
    instances = 0
    for rows in read_rows(table, names):
        instances += len(rows["label"])
        rows.setdefault("t", np.zeros(len(rows["label"])))
        rows["draw"] = hashes(rows["label"].astype(np.uint64) ^ salt)
        drawn = _least(drawn, rows, ("label", "draw"), count)
        keys = ("label", "prob", "quality") if "quality" in rows else ("label", "prob")
        # Those that the sample takes are made up for.
        lowest = _least(lowest, rows, keys, worst + count)
    if not instances:
        return Selection({}, {}, 0)
    others = ~np.isin(lowest["label"], drawn["label"])
    return Selection(drawn, {k: v[others][:worst] for k, v in lowest.items()}, instances)


def each(rows: Columns) -> list[dict[str, float]]:
    """Return columns as rows."""
    number = len(next(iter(rows.values()), ()))
    return [{name: float(v[k]) for name, v in rows.items()} for k in range(number)]


def _least(kept: Columns, rows: Columns, keys: tuple[str, ...], most: int) -> Columns:
    """The rows of both with the least keys, the last key first; sorted."""
    both = {k: np.concatenate([kept[k], v]) if kept else v for k, v in rows.items()}
    order: NDArray[np.intp] = np.lexsort([both[key] for key in keys])[:most]
    return {k: v[order] for k, v in both.items()}
