"""`segment --dry-run`: the plan of an image, and what it will take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from anystar_batch.cli.screen import DONE

if TYPE_CHECKING:
    from anystar_batch.config import SegmentConfig
    from anystar_batch.pipeline.dry_run import Preview


def preview(config: SegmentConfig, *, as_json: bool) -> int:
    """Print what a run would do; return the exit code."""
    from anystar_batch.pipeline import dry_run  # noqa: PLC0415

    found = dry_run.preview(config)
    is_here = config.run.scheduler is None
    typer.echo(json.dumps(found.to_json()) if as_json else _text(found, is_here=is_here))
    return DONE


def _text(preview: Preview, *, is_here: bool) -> str:
    plan = preview.plan
    document = preview.to_json()
    diameter = "native scale" if plan.diameter_um is None else f"{plan.diameter_um:.3g} um"
    zoom = " x ".join(f"{z:.3g}" for z in plan.working.zoom)
    filters = [f"  filters     {plan.filters}"] if plan.filters.to_json() else []
    done = f", {preview.tiles_done} done by an unfinished run" if preview.tiles_done else ""
    known = preview.estimate
    work = "" if known is None else f", about {_size(known.work_bytes)} of work files"
    return "\n".join(
        [
            f"image         {plan.source.path}",
            f"  volume      {plan.source.shape_zyx(0)} voxels (z, y, x), {len(plan.times)} time(s)",
            f"  diameter    {diameter}",
            f"  reads       level {plan.working.level} ({plan.level.origin}), zoom {zoom}",
            f"  working     {plan.working.shape} voxels of "
            + " x ".join(f"{v:.4g}" for v in plan.working.voxel_um)
            + " um",
            f"  tiles       {preview.tiles} of {plan.tiles.core}, window {plan.tiles.window}{done}",
            *filters,
            f"  blocks      {preview.blocks} of {preview.block_shape} level-0 voxels",
            f"  memory      {document['memory_per_worker'] / 1e9:.2f} GB a worker",
            f"  disk        {_size(preview.label_bytes)} of labels before compression{work}; "
            f"{preview.free_bytes / 1e9:.1f} GB free",
            f"  time        {_time_text(preview, is_here=is_here)}",
            f"label         {preview.places.label.path} ({preview.status})",
            f"table         {preview.places.stats}",
        ]
    )


def _time_text(preview: Preview, *, is_here: bool) -> str:
    """How long the run will take, and by what that is told."""
    from anystar_batch.pace import duration  # noqa: PLC0415

    known = preview.estimate
    if preview.status == "nothing to do":
        return "none: the very result is there"
    if known is None:
        return "unknown: nothing is stored in the tiles that were looked at"
    workers = f"{known.workers} worker" + ("" if known.workers == 1 else "s")
    tiles = f"{known.tiles} tile" + ("" if known.tiles == 1 else "s")
    where = "" if is_here else " of this machine; the cluster was not asked"
    return (
        f"about {duration(known.seconds)} for the network, an estimate: {tiles} of "
        f"{known.tile_seconds:.2g} s on {workers}{where}; other stages come on top"
    )


def _size(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.3g} GB" if count >= 10**9 else f"{count / 1e6:.3g} MB"
