"""`anystar_batch.segment`: the command `segment` for Python, with the same words.

Importing this costs nothing: everything heavy is imported by the call.
"""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

from anystar_batch.options import SEGMENT, checked

if TYPE_CHECKING:
    from anystar_batch.config import SegmentConfig
    from anystar_batch.events import Listener
    from anystar_batch.pipeline.run_record import Summary


def segment(
    image: str | os.PathLike[str],
    *,
    on_event: Listener | None = None,
    **options: Any,  # noqa: ANN401  (each has its own type: `options.SEGMENT`)
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
    {options}

    Returns
    -------
    Summary
        `label`, `stats` and `report` are the paths of label, table and page; `instances` is the
        number of labels, `warnings` what may not be as wanted, `status` `done`, `nothing to do` or,
        of one part of a run, `part I/N`.

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
    from anystar_batch.events import ignore
    from anystar_batch.pipeline.part import segment_asked
    from anystar_batch.pipeline.prepare import engine_for

    config = _config(os.fspath(image), options)
    with engine_for(config) as engine:
        return segment_asked(config, on_event or ignore, engine=engine)


def _declared() -> None:
    """Give the function the signature and the documentation of its options."""
    signature = inspect.signature(segment)
    image, on_event, _ = signature.parameters.values()
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(o.name, kind, default=o.default) for o in SEGMENT]
    segment.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[image, *parameters, on_event]
    )
    lines = [
        f"{o.name} : {o.kind.__name__ if o.count == 1 else f'{o.count} {o.kind.__name__}s'}, "
        f"default {o.default!r}\n        {o.help}"
        for o in SEGMENT
    ]
    segment.__doc__ = (segment.__doc__ or "").replace("{options}", "\n    ".join(lines))


def _config(image: str, asked: dict[str, Any]) -> SegmentConfig:
    """Check options as those of a file are checked; return what is asked of the image."""
    from anystar_batch.errors import ImageError
    from anystar_batch.pipeline.inputs import image_configs

    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in asked.items()
        if value is not None
    }
    options = {o.name: o.default for o in SEGMENT} | checked(given, SEGMENT, "segment")
    configs, plates = image_configs(options, [image])
    if plates or len(configs) > 1:
        what = (
            f"a plate of {len(configs)} fields"
            if plates
            else f"a container of {len(configs)} series"
        )
        message = f"{image}: {what}; give one of them: {configs[0].image}"
        raise ImageError(message)
    return configs[0]


_declared()
