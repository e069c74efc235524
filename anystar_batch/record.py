"""What a run says of itself: to the caller, in the label's attributes, in the run record.

The label's attributes are equal for equal results; when, where and with how many workers they were
made stands in the run record only.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from anystar_batch import __version__
from anystar_batch.config import SegmentConfig
from anystar_batch.estimate import Estimate
from anystar_batch.geometry import ZYX
from anystar_batch.places import Places
from anystar_batch.stages.blocks import PROCESS_BYTES, units_per_block
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.run import Run, instance_count, removed_counts

DONE = "done"
"""Status of a run that published its label."""

PACKAGES = ("keras", "stardist", "numpy", "numba", "scipy", "zarr", "dask", "pillow")
"""Packages whose versions the run record names, beside the backend."""

NOTHING_TO_DO = "nothing to do"
"""Status of a run that found its very result published."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run has to show.

    Parameters
    ----------
    image, label, stats : str
        Paths of image, published label and table.
    status : str
        `done`, or `nothing to do` where the same result was there already.
    instances : int
        Number of labels.
    voxels : int
        Level-0 voxels of the segmented channel and times.
    seconds : dict
        Wall time by stage.
    peak_memory : int
        Largest memory of this process and its workers, bytes.
    fingerprint : str
        Digest of what decides the result.
    warnings : tuple of str
        What may not be as wanted.
    removed : dict
        Survivors that each filter has removed.
    report : str or None
        Path of the page that shows the result; None where there is none.
    """

    image: str
    label: str
    stats: str
    status: str
    instances: int
    voxels: int
    seconds: Mapping[str, float]
    peak_memory: int
    fingerprint: str
    warnings: tuple[str, ...] = ()
    removed: Mapping[str, int] = field(default_factory=dict)
    report: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run would do: the answer of a dry run.

    Parameters
    ----------
    plan : Plan
        What was decided.
    status : str
        `new`, `replace` where a published label would make room, or `nothing to do`.
    block_shape : (z, y, x)
        Level-0 voxels of a block.
    blocks : int
        Blocks of tiles over all times.
    tiles : int
        Tiles over all times.
    label_bytes : int
        Uncompressed size of the label's levels.
    tile_bytes, block_bytes : int
        Memory of the network for one tile, and of a block besides.
    places : Places
        Where results would go.
    tiles_done : int
        Of the tiles: those that an unfinished run has done.
    estimate : Estimate or None
        What one tile took; None where there is nothing to do, or no tile with anything stored.
    free_bytes : int
        Of the fuller of the disks on which work and results lie; object stores do not count.
    """

    plan: Plan
    status: str
    block_shape: ZYX
    blocks: int
    tiles: int
    label_bytes: int
    tile_bytes: int
    block_bytes: int
    places: Places
    tiles_done: int = 0
    estimate: Estimate | None = None
    free_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the preview as plain JSON values."""
        known = self.estimate
        return {
            "image": self.plan.source.path,
            "label": self.places.label.path,
            "stats": self.places.stats,
            "status": self.status,
            "plan": self.plan.to_json(),
            "block_shape": list(self.block_shape),
            "blocks": self.blocks,
            "tiles": self.tiles,
            "label_bytes_uncompressed": self.label_bytes,
            "memory_per_worker": self.tile_bytes + self.block_bytes + PROCESS_BYTES,
            "tiles_done": self.tiles_done,
            "seconds": None if known is None else round(known.seconds, 1),
            "tile_seconds": None if known is None else round(known.tile_seconds, 4),
            "workers": None if known is None else known.workers,
            "work_bytes": None if known is None else known.work_bytes,
            "free_bytes": self.free_bytes,
        }


def provenance(run: Run, parts: Mapping[str, object]) -> dict[str, object]:
    """Return what the label says of its making: the same for equal runs, whenever made.

    Parameters
    ----------
    run : Run
        Its label is finished.
    parts : mapping
        What the fingerprint was made of.
    """
    counted = run.ledger.entries("number").values()
    known = run.ledger.entry("plan", "") or {}
    times = run.plan.times
    removed = removed_counts(run)
    return {
        "fingerprint": run.ledger.fingerprint,
        "instances": instance_count(run),
        "hidden": sum(int(e["hidden"]) for e in counted),
        **({"removed": removed} if removed else {}),
        "model": {"name": run.plan.model.name, "version": run.plan.model.version},
        "options": {k: v for k, v in parts.items() if k != "image"},
        "decided": run.plan.to_json(),
        "probe": known.get("probe"),
        "times_segmented": list(times),
        "times_left_empty": sorted({*range(run.plan.source.num_times)} - {*times}),
    }


def run_record(config: SegmentConfig, run: Run, summary: Summary) -> dict[str, Any]:
    """Return what the run was: with time, host, workers and blocks, which no label mentions.

    Parameters
    ----------
    config : SegmentConfig
        Every option of the user's.
    run : Run
    summary : Summary
    """
    known = run.ledger.entry("plan", "") or {}
    predicted = run.ledger.entries("predict").values()
    return {
        "anystar_batch": __version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "config": config.to_json(),
        "workers": run.engine.workers,
        "block_shape": list(run.block_shape),
        "borders": borders(run),
        "model": {
            "name": run.plan.model.name,
            "version": run.plan.model.version,
            "sha256": run.plan.model.sha256,
            "diameter_voxels": run.plan.model.diameter,
        },
        "versions": versions(config.result.backend),
        "plan": run.plan.to_json(),
        "probe": known.get("probe"),
        "candidates_too_large": sum(int(e["too_large"]) for e in predicted),
        "survivors_hidden": sum(int(e["hidden"]) for e in run.ledger.entries("number").values()),
        "summary": summary.to_json(),
    }


def borders(run: Run) -> dict[str, Any]:
    """Return where work was cut, as edges of level 0: what a seam would have to lie on.

    Parameters
    ----------
    run : Run

    Returns
    -------
    dict
        `grids`: each with its `name`, the `first` plane inside the volume and the `step` to the
        next, (z, y, x); `period`: step of the lattice on which candidates lie. Level-0 voxels.
    """
    lattice, core = run.plan.lattice, run.plan.tiles.core
    unit = run.spec.write_unit_zyx(0)
    tiles = units_per_block(run.block_shape, core, lattice.scale)
    units = units_per_block(run.block_shape, unit)
    # A voxel's centre has the integer coordinate; its edges lie half a voxel beside it.
    moved = [0.5 - 0.5 * s + o for s, o in zip(lattice.scale, lattice.offset, strict=True)]

    def of_tiles(name: str, count: ZYX) -> dict[str, Any]:
        step = [c * n * s for c, n, s in zip(core, count, lattice.scale, strict=True)]
        return _grid(name, step, [a + b for a, b in zip(step, moved, strict=True)])

    write = [float(u * n) for u, n in zip(unit, units, strict=True)]
    grid = run.plan.model.unet.grid
    return {
        "grids": [
            of_tiles("blocks", tiles),
            of_tiles("tiles", (1, 1, 1)),
            _grid("blocks of the label", write, write),
        ],
        "period": [round(g * s, 6) for g, s in zip(grid, lattice.scale, strict=True)],
    }


def _grid(name: str, step: Sequence[float], first: Sequence[float]) -> dict[str, Any]:
    return {
        "name": name,
        "step": [round(v, 6) for v in step],
        "first": [round(v, 6) for v in first],
    }


def versions(backend: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that decide; nothing is imported.

    Parameters
    ----------
    backend : str
        What the network runs under.
    """
    found = {"anystar-batch": __version__, "python": platform.python_version()}
    names = ((backend, (backend, f"{backend}-cpu")), *((n, (n,)) for n in PACKAGES))
    for name, distributions in names:
        for distribution in distributions:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(distribution)
                break
    return found
