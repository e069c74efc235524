"""The options of a run as a file that `--config` takes: as typed, or as decided.

`anystar-batch segment IMAGE --config FILE` makes the same bytes again. What model or machine have
decided is written out (thresholds, tile, precision); a probed diameter is not, since the probe
finds it again, and a diameter that was given makes another fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomli_w

from anystar_batch.config import SegmentConfig
from anystar_batch.network.bundled import bundled_models
from anystar_batch.parsing import Volume

HEADER = (
    "# The options of a run. The same again: anystar-batch segment IMAGE --config THIS_FILE\n"
    "# An option on the command line wins over its line here.\n"
)

NOT_KEPT = frozenset({"overwrite", "restart"})
"""Options that speak of what lay there when the run began: whoever repeats it decides anew."""


def effective_options(config: SegmentConfig, parts: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a run by the names of `cli.options.Chosen`, as they are typed.

    Parameters
    ----------
    config : SegmentConfig
        What was asked for.
    parts : mapping
        What the fingerprint was made of: what was decided where nothing was asked for.

    Returns
    -------
    dict
        Text, numbers, lists and booleans; what is not there has its default.
    """
    wanted, run, filters = config.result, config.run, config.result.filters
    diameter = wanted.diameter
    options = {
        "label": config.label,
        "output": config.output,
        "stats": config.stats,
        "model": _model(config.model),
        "channel": wanted.channel,
        "time": wanted.time,
        "reference_time": wanted.reference_time,
        "diameter": None if diameter is None else f"{diameter.value!r}{diameter.unit}",
        "scales": ",".join(map(str, wanted.scales)),
        "voxel_size": None if wanted.voxel_size is None else list(wanted.voxel_size),
        "prob_thresh": parts["prob_thresh"],
        "nms_thresh": parts["nms_thresh"],
        "min_volume": _volume(filters.min_volume),
        "max_volume": _volume(filters.max_volume),
        "min_prob": filters.min_prob,
        "min_contrast": filters.min_contrast,
        "min_regularity": filters.min_regularity,
        "measure": ",".join(wanted.measure),
        "tile": parts["tile"],
        "precision": parts["precision"],
        "backend": wanted.backend,
        "block_shape": None if run.block_shape is None else list(run.block_shape),
        "memory": None if run.memory is None else f"{run.memory}B",
        "workers": run.workers,
        "scheduler": run.scheduler,
        "work_dir": run.work_dir,
        "table": run.table,
        "no_report": not run.report,
    }
    return {name: value for name, value in options.items() if value is not None}


def effective_toml(config: SegmentConfig, parts: Mapping[str, object]) -> str:
    """Return the options of a run as the text of a TOML file; see `effective_options`.

    Parameters
    ----------
    config : SegmentConfig
    parts : mapping
    """
    options = effective_options(config, parts)
    return HEADER + tomli_w.dumps({name.replace("_", "-"): v for name, v in options.items()})


def _model(name: str) -> str:
    """A model by name, or its folder as everybody finds it."""
    is_folder = name not in bundled_models() and Path(name).is_dir()
    return str(Path(name).absolute()) if is_folder else name


def _volume(volume: Volume | None) -> str | None:
    return None if volume is None else f"{volume.value!r}{volume.unit}"
