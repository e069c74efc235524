"""What the network says of one tile, before suppression; what decides it; how it is kept.

A kept tile is taken only where the network would say the very same: the same image, model and
working voxels (`kind_of`), the same intensity limits and stored chunks (`origin_of`), a threshold
not below the one it was kept at, and bytes that have the digest that was noted of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.geometry import ZYX
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.task import piece_key
from anystar_batch.stages.workdir import (
    Slice,
    candidate_type,
    load_candidates,
    save_candidates,
)
from anystar_batch.stars.candidates import LEAST_STEP, Candidates

FORMAT = 1
"""Of what is kept; raised whenever it changes, or what decides it."""

HARMLESS = frozenset(
    {
        *("prob_thresh", "nms_thresh", "filters", "outline", "expand", "measure", "course"),
        *("refine", "refiner", "quality_cut", "times", "diameter", "voxel_size", "position"),
        *("probe", "inside", "elongation"),
    }
)
"""Parts of the fingerprint that do not decide raw candidates; others do, those to come too.

The sizes are among them: what they make of the working voxels, the plan says.
"""

UNDECISIVE = frozenset(
    {
        *("source", "model", "times", "limits", "scale_um", "translation_um", "diameter_um"),
        *("prob_thresh", "nms_thresh", "filters", "course", "measure", "second_look"),
        *("outline", "expand_um", "region", "elongation"),
    }
)
"""Fields of a plan that do not decide them, or that parts and origin speak for."""

TOO_LARGE = 1
"""Status of a record that only counts: the candidate was too large to be stored."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What the network finds in a tile above a threshold.

    Parameters
    ----------
    candidates : Candidates
        Quantised, of the tile's core.
    too_large : float32 [m]
        Probabilities of those that were dropped as too large.
    above : float
        The threshold.
    """

    candidates: Candidates
    too_large: NDArray[np.float32]
    above: float

    @classmethod
    def nothing(cls, n_rays: int) -> Found:
        """Return what is found where there is nothing."""
        return cls(Candidates.empty(n_rays), np.empty(0, np.float32), 0.0)

    def over(self, prob_thresh: float) -> tuple[Candidates, int]:
        """Return the candidates above a threshold not below ours, and how many were too large."""
        if prob_thresh == self.above:
            return self.candidates, len(self.too_large)
        fits = self.candidates.prob > prob_thresh
        return self.candidates.take(fits), int(np.sum(self.too_large > prob_thresh))


@dataclass(frozen=True, slots=True)
class StoredTile:
    """Where the raw candidates of a tile lie.

    Parameters
    ----------
    folder : str
        Of the file.
    file : str
        Its name; empty where the tile has none.
    start, stop : int
        Its records.
    origin : str
        What they were made of, see `origin_of`.
    digest : str
        Of the records and of all that is said here of them.
    above : float
        All of the tile with a larger probability are there.
    """

    folder: str
    file: str
    start: int
    stop: int
    origin: str
    digest: str
    above: float

    def to_json(self) -> dict[str, object]:
        """Return it as plain JSON values, but for the folder."""
        return {k: v for k, v in asdict(self).items() if k != "folder"}


def kind_of(parts: Mapping[str, object], plan: Plan) -> str:
    """Return the digest of what decides raw candidates, but for the voxels and their limits.

    Parameters
    ----------
    parts : mapping
        What the fingerprint is made of.
    plan : Plan

    Returns
    -------
    str
        12 hexadecimal digits.
    """
    decisive = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name not in UNDECISIVE}
    document = {"format": FORMAT, "parts": decisive_parts(parts), "plan": decisive}
    text = json.dumps(document, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def decisive_parts(parts: Mapping[str, object]) -> dict[str, object]:
    """Return the parts of the fingerprint that decide raw candidates, as JSON gives them back."""
    kept: dict[str, object] = json.loads(
        json.dumps({name: value for name, value in parts.items() if name not in HARMLESS})
    )
    return kept


def _plain(value: Any) -> object:  # noqa: ANN401  (whatever a plan holds)
    """A value of a plan as JSON; arrays whole, whatever else is an error."""
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.tolist()]
    return asdict(value)


def origin_of(kind: str, plan: Plan, time: int, content: str) -> str:
    """Return the digest of all that decides the raw candidates of a tile.

    Parameters
    ----------
    kind : str
        Of `kind_of`.
    plan : Plan
    time : int
    content : str
        Of `image_identity.tile_content`.
    """
    text = json.dumps([kind, plan.limits_of(time), content], default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tile_key(kind: str, time: int, tile: ZYX) -> str:
    """Return the name of a tile in ledger and index, e.g. `4be01f2a7c90/0/1.3.2`."""
    return f"{kind}/{piece_key(time, tile)}"


def save_found(
    folder: Path, name: str, parts: Sequence[tuple[str, str, Found]]
) -> dict[str, StoredTile]:
    """Write what was found in several tiles to one file.

    Parameters
    ----------
    folder : Path
        Must exist.
    name : str
        Name of the file.
    parts : sequence of (key, origin, Found)
        Of every tile.

    Returns
    -------
    dict
        Where each tile lies, by key.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    records = [(key, *_with_too_large(found)) for key, _, found in parts]
    slices = save_candidates(folder, name, records)
    stored: dict[str, StoredTile] = {}
    for key, origin, found in parts:
        piece = slices[key]
        file = piece.file if piece.stop > piece.start else ""
        tile = StoredTile(str(folder), file, piece.start, piece.stop, origin, "", found.above)
        raw = _read(tile, found.candidates.dist.shape[1])
        stored[key] = StoredTile(**asdict(tile) | {"digest": _digest(tile, raw)})
    return stored


def _with_too_large(found: Found) -> tuple[Candidates, NDArray[np.int8]]:
    """Candidates and, after them, a record for each that was too large."""
    count, n_rays = len(found.too_large), found.candidates.dist.shape[1]
    large = Candidates(
        np.zeros((count, 3), np.int32),
        found.too_large,
        np.full((count, n_rays), LEAST_STEP, np.float32),
    )
    status = np.zeros(len(found.candidates) + count, np.int8)
    status[len(found.candidates) :] = TOO_LARGE
    return Candidates.concatenate([found.candidates, large], n_rays), status


def load_found(stored: StoredTile, origin: str, least: float, n_rays: int) -> Found | str:
    """Read what was found in a tile.

    Parameters
    ----------
    stored : StoredTile
    origin : str
        What it must have been made of.
    least : float
        Threshold that it must not be kept above.
    n_rays : int
        Rays of a candidate.

    Returns
    -------
    Found or str
        In words why it cannot be used.
    """
    if stored.origin != origin:
        return "the image or its intensity limits are others there"
    if stored.above > least:
        return f"kept above {stored.above:g}, wanted above {least:g}"
    try:
        raw = _read(stored, n_rays)
        if _digest(stored, raw) != stored.digest:
            return "damaged"
        piece = Slice(stored.file, stored.start, stored.stop)
        together, status = load_candidates(Path(stored.folder), [piece], n_rays)
    except Exception:  # noqa: BLE001  (whatever a damaged file leads to, the network knows)
        return "missing or damaged"
    is_large = status == TOO_LARGE
    return Found(together.take(~is_large), together.prob[is_large], stored.above)


def _read(stored: StoredTile, n_rays: int) -> bytes:
    """The bytes of a tile's records."""
    if stored.stop <= stored.start:
        return b""
    path = Path(stored.folder) / stored.file
    records = np.load(path, mmap_mode="r", allow_pickle=False)
    if records.dtype != candidate_type(n_rays) or len(records) < stored.stop:
        message = f"{path}: {len(records)} records of {records.dtype}"
        raise ValueError(message)
    return bytes(records[stored.start : stored.stop].tobytes())


def _digest(stored: StoredTile, raw: bytes) -> str:
    digest = hashlib.sha256(raw)
    digest.update(f"{stored.origin} {stored.above!r} {stored.stop - stored.start}".encode())
    return digest.hexdigest()[:16]
