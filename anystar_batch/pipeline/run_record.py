"""The run record: what a run says to its caller, in the label's attributes, in files beside it.

The label's attributes are equal for equal results; when, where and with how many workers they were
made stands in the run record only.

Its options are a file that `--config` takes. `anystar-batch segment IMAGE --config FILE` makes the
same bytes again. What model or machine have decided is written out (thresholds, tile, precision); a
probed diameter is not, since the probe finds it again, and a diameter that was given makes another
fingerprint.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import tomli_w

from anystar_batch import __version__
from anystar_batch.config import SegmentConfig
from anystar_batch.geometry import ZYX
from anystar_batch.options import typed_options
from anystar_batch.stages.blocks import units_per_block
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.region_survey import share, wanted_tiles
from anystar_batch.stages.run import Run, instance_count, refined_counts, removed_counts

DONE = "done"
"""Status of a run that published its label."""

PACKAGES = ("keras", "stardist", "numpy", "numba", "scipy", "zarr", "dask", "pillow")
"""Packages whose versions the run record names, beside the backend."""

NOTHING_TO_DO = "nothing to do"
"""Status of a run that found its very result published."""

HEADER = (
    "# The options of a run. The same again: anystar-batch segment IMAGE --config THIS_FILE\n"
    "# An option on the command line wins over its line here.\n"
)

DECIDED = ("prob_thresh", "nms_thresh", "tile", "precision")
"""Options that model or machine decide where they are not given."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run has to show.

    Parameters
    ----------
    image, label, stats : str
        Paths of image, published label and table.
    status : str
        `done`, or `nothing to do` where the same result was there already; of one part of a run
        `part 3/8`: nothing is published yet.
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
    channel : str
        Index and name of the channel that is segmented, as `1 (GFP)`.
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
    channel: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)


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
    plan_entry = run.ledger.entry("plan", "") or {}
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
        "probe": plan_entry.get("probe"),
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
    plan_entry = run.ledger.entry("plan", "") or {}
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
        "probe": plan_entry.get("probe"),
        **({"limits_grids": plan_entry["cells"]} if "cells" in plan_entry else {}),
        **({"refined": refined} if (refined := refined_counts(run)) else {}),
        **({"inside": inside} if (inside := _inside(run.plan)) else {}),
        "candidates_too_large": sum(int(e["too_large"]) for e in predicted),
        "survivors_hidden": sum(int(e["hidden"]) for e in run.ledger.entries("number").values()),
        "summary": summary.to_json(),
    }


def _inside(plan: Plan) -> dict[str, Any]:
    """What part of the image lies in the region, and how many tiles were near; empty without."""
    if plan.region is None:
        return {}
    near = sum(int(np.count_nonzero(wanted_tiles(plan, time))) for time in plan.times)
    tiles = math.prod(plan.tiles.counts) * len(plan.times)
    part = share(plan.region, plan.source, plan.times)
    return {"share": part, "tiles": near, "tiles_outside": tiles - near}


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
    by_package = {"anystar-batch": __version__, "python": platform.python_version()}
    names = ((backend, (backend, f"{backend}-cpu")), *((n, (n,)) for n in PACKAGES))
    for name, distributions in names:
        for distribution in distributions:
            version = _version(distribution)
            if version is not None:
                by_package[name] = version
                break
    return by_package


@functools.cache
def _version(distribution: str) -> str | None:
    """The version that is installed, looked up once a process: a file is parsed for it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def effective_toml(config: SegmentConfig, parts: Mapping[str, object]) -> str:
    """Return the options of a run as the text of a TOML file; see `options.typed_options`.

    Parameters
    ----------
    config : SegmentConfig
        What was asked for.
    parts : mapping
        What the fingerprint was made of: what was decided where nothing was asked for.
    """
    options = typed_options(config, {name: parts[name] for name in DECIDED})
    return HEADER + tomli_w.dumps({name.replace("_", "-"): v for name, v in options.items()})
