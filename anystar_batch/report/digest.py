"""What the table says of all instances together, in fixed memory and always the same.

Counts, sums and extremes are of every row. Distributions come from a sample: the rows whose labels
have the smallest hashes, so that it neither depends on the order of reading nor on chance; up to
`SAMPLE` instances it is all of them. Distances to the nearest neighbour are exact for the instances
asked about: all centroids are searched, those of the first `KEPT` rows as they were read, of more
rows by reading the table, in pieces, a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from anystar_batch.geometry import ZYX, ZYXFloat
from anystar_batch.report.profiles import Profiles
from anystar_batch.report.table_rows import column_names, read_rows

SAMPLE = 50_000
"""Instances from which distributions are drawn."""

ASKED = 2_000
"""Instances whose nearest neighbour is looked for where there are more than `SAMPLE`."""

KEPT = 1 << 20
"""Instances whose centroids are kept while the table is read."""

EXTREMES = 6
"""Instances kept at each end."""

MARGIN = 0.05
"""An instance is doubtful if its probability exceeds the threshold by less."""

_APART = 1e12
"""Distance between two time points, micrometres: neighbours are of one time."""

_AXES = tuple(
    f"{what}_{a}{side}"
    for what, sides in (("centroid", ("",)), ("bbox", ("_min", "_max")))
    for a in "zyx"
    for side in sides
)

_ALWAYS = ("label", "prob", *_AXES, "num_voxels", "volume_um3", "equivalent_diameter_um",
           "touches_border")  # fmt: skip

Columns = dict[str, NDArray[Any]]
"""Name to float64 [n]."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the instances of a table lie.

    Parameters
    ----------
    shape : (z, y, x)
        Level-0 voxels.
    scale_um : (z, y, x)
        Micrometres per voxel of level 0.
    channel : str
        Name of the segmented channel.
    threshold : float
        Least probability that an instance could have.
    times : int
        Length of the time axis.
    """

    shape: ZYX
    scale_um: ZYXFloat
    channel: str
    threshold: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Digest:
    """What a table comes to.

    Parameters
    ----------
    instances : int
        Rows.
    touching : int
        Of them, cut by the volume's border.
    touching_expected : float
        How many would be if instances of these extents lay anywhere alike.
    doubtful : int
        Those within `MARGIN` of the threshold.
    brightest : float
        Largest intensity of the segmented channel in any instance; NaN without any.
    at_brightest : int
        Instances that reach it.
    volume_um3 : float
        Of all instances together.
    extent : (z, y, x)
        Mean extent of the boxes, level-0 voxels.
    per_time : int64 [times]
        Instances of every time point.
    profiles : Profiles
        Where they lie along the axes.
    sample : dict
        Columns of the sample, by label; `intensity` is the mean of the segmented channel.
    smallest, largest, least_certain : dict
        Columns of the extremes; those cut by the border are not among the smallest.
    certainty : str
        Column that orders the least certain: `quality`, or `prob` without a second look.
    neighbour_um : float64 [n]
        Distances from centroid to nearest centroid, of (some of) the sample.
    """

    instances: int
    touching: int
    touching_expected: float
    doubtful: int
    brightest: float
    at_brightest: int
    volume_um3: float
    extent: ZYXFloat
    per_time: NDArray[np.int64]
    profiles: Profiles
    sample: Columns
    smallest: Columns
    largest: Columns
    least_certain: Columns
    certainty: str
    neighbour_um: NDArray[np.float64]

    @property
    def is_sampled(self) -> bool:
        """Whether distributions are of a sample only."""
        return self.instances > len(self.sample["label"])


def digest_table(path: Path, frame: Frame) -> Digest:
    """Read the table and say what it comes to.

    Parameters
    ----------
    path : Path
        The CSV file.
    frame : Frame

    Raises
    ------
    DataError
        If it is no table of a run.
    OSError
        If it cannot be read.
    """
    names = [*_ALWAYS, f"intensity_mean_{frame.channel}", f"intensity_max_{frame.channel}"]
    columns = column_names(path)
    has_time, has_quality = "t" in columns, "quality" in columns
    names += ["t"] if has_time else []
    names += ["quality"] if has_quality else []
    sums = _Sums(frame, "quality" if has_quality else "prob")
    for rows in read_rows(path, names):
        rows["intensity"] = rows.pop(f"intensity_mean_{frame.channel}")
        rows["brightest"] = rows.pop(f"intensity_max_{frame.channel}")
        if not has_time:
            rows["t"] = np.zeros(len(rows["label"]))
        sums.add(rows)
    return sums.finish(path)


def hashes(labels: NDArray[Any]) -> NDArray[np.uint64]:
    """Return a number for every label that says nothing of its size (SplitMix64)."""
    x = labels.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


class _Sums:
    """Sums, sample and extremes of the rows so far."""

    def __init__(self, frame: Frame, certainty: str) -> None:
        self.frame, self.certainty = frame, certainty
        self.count = np.zeros(3, np.int64)  # all, touching, doubtful
        self.volume, self.extent = 0.0, np.zeros(3)
        self.brightest, self.at_brightest = -np.inf, 0
        self.per_time = np.zeros(frame.times, np.int64)
        self.profiles = Profiles.empty(frame.shape)
        names = dict.fromkeys((*_ALWAYS, "t", "intensity", "brightest", certainty))
        empty = {name: np.zeros(0) for name in names}
        self.sample, self.smallest, self.largest, self.doubted = ([empty] for _ in range(4))
        self.places: list[Columns] | None = []

    def add(self, rows: Columns) -> None:
        """Add some rows."""
        doubtful = rows["prob"] < self.frame.threshold + MARGIN
        self.count += len(doubtful), int(rows["touches_border"].sum()), int(doubtful.sum())
        self.volume += float(rows["volume_um3"].sum())
        self.extent += [float((rows[f"bbox_{a}_max"] - rows[f"bbox_{a}_min"]).sum()) for a in "zyx"]
        self.per_time += np.bincount(rows["t"].astype(np.int64), minlength=len(self.per_time))
        self.profiles.add(rows)
        seen = rows["brightest"][np.isfinite(rows["brightest"])]
        if len(seen) and seen.max() >= self.brightest:
            most = float(seen.max())
            before = self.at_brightest if most == self.brightest else 0
            self.brightest, self.at_brightest = most, before + int((seen == most).sum())
        inner = _take(rows, rows["touches_border"] == 0)
        for kept, new, key, most_kept in (
            (self.sample, rows, hashes(rows["label"]), SAMPLE),
            (self.smallest, inner, inner["num_voxels"], EXTREMES),
            (self.largest, rows, -rows["num_voxels"], EXTREMES),
            (self.doubted, rows, rows[self.certainty], EXTREMES),
        ):
            kept.append(_take(new, _least(key, new["label"], most_kept)))
        if self.places is not None:
            self.places.append({n: rows[n] for n in ("t", *(f"centroid_{a}" for a in "zyx"))})
        if self.count[0] > KEPT:
            self.places = None
        self._shrink(3 * SAMPLE)

    def finish(self, path: Path) -> Digest:
        """Return what all rows come to."""
        self._shrink(0)
        n, touching, doubtful = (int(c) for c in self.count)
        extent = self.extent / max(1, n)
        # Of all places of a box that show a voxel of it, those where it meets no border.
        pairs = zip(self.frame.shape, extent, strict=True)
        free = np.prod([max(0.0, s - e - 1) / (s + e - 1) for s, e in pairs])
        sample = _take(self.sample[0], np.argsort(self.sample[0]["label"], kind="stable"))
        return Digest(
            instances=n,
            touching=touching,
            touching_expected=n * (1 - float(free)),
            doubtful=doubtful,
            brightest=self.brightest if self.at_brightest else float("nan"),
            at_brightest=self.at_brightest,
            volume_um3=self.volume,
            extent=(float(extent[0]), float(extent[1]), float(extent[2])),
            per_time=self.per_time,
            profiles=self.profiles,
            sample=sample,
            smallest=self.smallest[0],
            largest=self.largest[0],
            least_certain=self.doubted[0],
            certainty=self.certainty,
            neighbour_um=self._neighbours(path, sample, n),
        )

    def _shrink(self, beyond: int) -> None:
        """Keep the best only; of the sample once there are more than `beyond` rows of it."""
        if sum(len(part["label"]) for part in self.sample) > beyond:
            self.sample[:] = [_best(self.sample, lambda r: hashes(r["label"]), SAMPLE)]
        self.smallest[:] = [_best(self.smallest, lambda r: r["num_voxels"], EXTREMES)]
        self.largest[:] = [_best(self.largest, lambda r: -r["num_voxels"], EXTREMES)]
        self.doubted[:] = [_best(self.doubted, lambda r: r[self.certainty], EXTREMES)]

    def _neighbours(self, path: Path, sample: Columns, count: int) -> NDArray[np.float64]:
        """Distance to the nearest other centroid of the same time, for each that is asked about."""
        if count < 2:
            return np.zeros(0)
        asked = sample
        pieces: Iterable[Columns] = [sample]
        if count > len(sample["label"]):
            asked = _take(sample, _least(hashes(sample["label"]), sample["label"], ASKED))
            names = [f"centroid_{a}" for a in "zyx"]
            names += ["t"] if "t" in column_names(path) else []
            pieces = read_rows(path, names) if self.places is None else self.places
        where = self._points(asked)
        best = np.full((len(where), 2), np.inf)
        for piece in pieces:
            # Itself is among the two nearest, at distance 0.
            nearest = cKDTree(self._points(piece)).query(where, k=2)[0]
            best = np.sort(np.concatenate([best, nearest], axis=1), axis=1)[:, :2]
        distance = best[:, 1]
        return np.asarray(distance[distance < _APART / 2])

    def _points(self, rows: Columns) -> NDArray[np.float64]:
        """Centroids in micrometres, the time as a fourth axis on which all is far apart."""
        axes = [rows[f"centroid_{a}"] * s for a, s in zip("zyx", self.frame.scale_um, strict=True)]
        time = rows["t"] * _APART if "t" in rows else np.zeros(len(axes[0]))
        return np.stack([*axes, time], axis=1)


def _take(rows: Columns, index: NDArray[Any]) -> Columns:
    return {name: values[index] for name, values in rows.items()}


def _least(key: NDArray[Any], label: NDArray[Any], most: int) -> NDArray[np.intp]:
    """Index of the rows with the least keys, ties by label."""
    return np.asarray(np.lexsort((label, key))[:most])


def _best(parts: Sequence[Columns], key: Any, most: int) -> Columns:  # noqa: ANN401
    """The rows with the least keys of several parts."""
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _take(rows, _least(key(rows), rows["label"], most))
