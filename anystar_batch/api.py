"""`anystar_batch.segment`: the command `segment` for Python, with the same words.

Importing this costs nothing: everything heavy is imported by the call.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anystar_batch.config import SegmentConfig
    from anystar_batch.events import Listener
    from anystar_batch.pipeline.run_record import Summary


def segment(  # noqa: PLR0913  (one parameter an option)
    image: str | os.PathLike[str],
    *,
    label: str = "anystar",
    output: str | os.PathLike[str] | None = None,
    channel: str | int = "0",
    time: str | int | Sequence[int] = "all",
    reference_time: int | None = None,
    diameter: str | None = None,
    scales: str | Sequence[int] = "1",
    voxel_size: Sequence[float] | None = None,
    prob_thresh: float | None = None,
    nms_thresh: float | None = None,
    min_volume: str | float | None = None,
    max_volume: str | float | None = None,
    min_prob: float | None = None,
    min_contrast: float | None = None,
    min_regularity: float | None = None,
    measure: str | Sequence[str] = "",
    model: str | os.PathLike[str] = "anystar-mix",
    tile: int | None = None,
    precision: str = "auto",
    backend: str = "tensorflow",
    block_shape: Sequence[int] | None = None,
    memory: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    stats: str | os.PathLike[str] | None = None,
    table: bool = False,
    overwrite: bool = False,
    restart: bool = False,
    no_report: bool = False,
    on_event: Listener | None = None,
) -> Summary:
    """Find every star-convex object in an image; publish labels and statistics.

    Options have the names, defaults and values of the command line (`anystar-batch segment
    --help`). Texts with commas may be sequences, and numbers numbers. None is the default.

    Parameters
    ----------
    image : str or path
        Path or address of an OME-Zarr image; of a container one series.
    on_event : callable, optional
        Told of every stage, block and warning, see `anystar_batch.events`; None tells nobody.

    Returns
    -------
    Summary
        `label`, `stats` and `report` are the paths of label, table and page; `instances` is the
        number of labels, `warnings` what may not be as wanted, `status` `done` or `nothing to do`.

    Raises
    ------
    AnyStarBatchError
        With a message that says what was found, what was expected and what to do:
        `ConfigError` (a ValueError) of an option, `ImageError` (a ValueError) of the image,
        `ModelError`, `OutputError`, `OutputExistsError`, `LockedError`, `BlockError`. Nothing is
        published then; the same call continues.

    Notes
    -----
    With more than one worker, processes are started that import the main module anew: a script
    calls this below ``if __name__ == "__main__":``.
    """
    asked = {k: v for k, v in locals().items() if k not in {"image", "on_event"}}
    from anystar_batch.engine.engines import open_engine  # noqa: PLC0415
    from anystar_batch.engine.machine import available_memory  # noqa: PLC0415
    from anystar_batch.events import ignore  # noqa: PLC0415
    from anystar_batch.network.devices import gpu_names  # noqa: PLC0415
    from anystar_batch.pipeline import segment as pipeline  # noqa: PLC0415

    config = _config(os.fspath(image), asked)
    run = config.run
    memory_bytes = run.memory if run.memory is not None else available_memory()
    gpus = gpu_names(config.result.backend)
    with open_engine(run.workers, memory_bytes, scheduler=run.scheduler, gpus=gpus) as engine:
        return pipeline.segment(config, on_event or ignore, engine=engine)


def _config(image: str, asked: dict[str, Any]) -> SegmentConfig:
    """Check options as those of a file are checked; return what is wanted of the image."""
    from anystar_batch.cli.segment import segment as command  # noqa: PLC0415
    from anystar_batch.errors import ImageError  # noqa: PLC0415
    from anystar_batch.options import Chosen, checked, options_of  # noqa: PLC0415
    from anystar_batch.pipeline.inputs import image_configs  # noqa: PLC0415

    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in asked.items()
        if value is not None
    }
    options: dict[str, Any] = checked(given, options_of(command), "segment")
    default = inspect.signature(command).parameters
    chosen = Chosen(
        **{f.name: options.get(f.name, default[f.name].default) for f in fields(Chosen)}
    )
    configs, plates = image_configs(chosen, [image], options.get("stats"))
    if plates or len(configs) > 1:
        what = (
            f"a plate of {len(configs)} fields"
            if plates
            else f"a container of {len(configs)} series"
        )
        message = f"{image}: {what}; give one of them: {configs[0].image}"
        raise ImageError(message)
    return configs[0]
