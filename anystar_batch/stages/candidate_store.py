"""Raw candidates that stay with an image: sets of kept tiles, each with an index.

::

    embryo.candidates/4be01f2a7c90/index.jsonl      a header, then a line a tile
    embryo.candidates/4be01f2a7c90/T-INDEX-N-DIGEST.npy     candidates of a block of tiles

What a tile is and when it may be taken: `raw_tile`. Who writes a set: `pipeline.candidate_sets`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anystar_batch.stages.raw_tile import FORMAT, StoredTile

INDEX = "index.jsonl"

_KEY = b'{"key": "'


@dataclass(frozen=True, slots=True, eq=False)
class CandidateSet:
    """Raw candidates of one kind.

    Parameters
    ----------
    folder : Path
    header : dict
        First line of its index: `kind`, `parts`, `above`, `tiles`, and what `tune` needs.
    lines : dict
        JSON of every tile, by key.
    """

    folder: Path
    header: Mapping[str, Any]
    lines: Mapping[str, bytes]

    def tile(self, key: str) -> StoredTile | None:
        """Return where a tile lies; None if it is not there, or nobody can read where."""
        try:
            document = json.loads(self.lines[key])
            del document["key"]
            if document["file"] != Path(document["file"]).name:
                return None
            return StoredTile(str(self.folder), **document)
        except (KeyError, TypeError, ValueError):
            return None

    def tiles(self) -> Iterator[tuple[str, StoredTile]]:
        """Yield every tile of the set's own kind that can be read, and its key."""
        kind = str(self.header["kind"])
        for key in self.lines:
            stored = self.tile(key)
            if key.startswith(f"{kind}/") and stored is not None:
                yield key, stored

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """All raw candidates that lie beside an image.

    Parameters
    ----------
    sets : tuple of CandidateSet
        The newest first.
    damaged : tuple of str
        Folders whose index cannot be read.
    """

    sets: tuple[CandidateSet, ...] = ()
    damaged: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Read the indices of a folder; without one, or where it may not be read, there is none."""
        sets, damaged = list[tuple[int, CandidateSet]](), list[str]()
        try:
            listed = sorted(p for p in Path(folder).iterdir() if not p.name.startswith("."))
        except OSError:
            return cls()
        for path in listed:
            try:
                changed = (path / INDEX).stat().st_mtime_ns
                sets.append((-changed, _read_set(path)))
            except (OSError, ValueError):
                damaged.append(str(path))
        return cls(tuple(one for _, one in sorted(sets, key=lambda p: p[0])), tuple(damaged))

    def tile(self, key: str) -> StoredTile | None:
        """Return where a tile lies, by its key; the one with the lowest threshold."""
        every = [stored for one in self.sets if (stored := one.tile(key)) is not None]
        return min(every, key=lambda stored: stored.above, default=None)

    def count(self, kind: str, times: Sequence[int], above: float) -> int:
        """Return how many tiles of a kind are kept, of some times and from a threshold on."""
        one = self.of_kind(kind)
        if one is None or float(one.header["above"]) > above:
            return 0
        starts = tuple(f"{kind}/{time}/" for time in times)
        return sum(key.startswith(starts) for key in one.lines)

    def of_kind(self, kind: str) -> CandidateSet | None:
        """Return the set of a kind, None without one."""
        return next((one for one in self.sets if one.header["kind"] == kind), None)


def _read_set(folder: Path) -> CandidateSet:
    header: Any = None
    lines: dict[str, bytes] = {}
    for line in (folder / INDEX).read_bytes().splitlines():
        if header is None:
            header = json.loads(line)
        elif line.startswith(_KEY):
            lines[line[len(_KEY) :].partition(b'"')[0].decode(errors="replace")] = line
    is_header = isinstance(header, dict) and header.get("format") == FORMAT
    is_header = is_header and all(
        isinstance(header.get(k), dict) for k in ("parts", "options", "plan")
    )
    if not is_header or not isinstance(header.get("above"), int | float) or "kind" not in header:
        message = f"{folder / INDEX}: no index of candidates of format {FORMAT}"
        raise ValueError(message)
    return CandidateSet(folder, header, lines)


def index_text(header: Mapping[str, object], tiles: Mapping[str, StoredTile]) -> bytes:
    """Return the index of a set: a header, then a line a tile.

    Parameters
    ----------
    header : mapping
        JSON values.
    tiles : mapping
        By key.
    """
    lines = [json.dumps({"format": FORMAT, **header})]
    lines += [json.dumps({"key": key, **tile.to_json()}) for key, tile in tiles.items()]
    return "".join(f"{line}\n" for line in lines).encode()
