"""Tune: show what each threshold would find, from kept candidates; or delete them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from anystar_batch.address import absolute, is_remote
from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.label_place import KEY, label_place
from anystar_batch.archive.labels import published_attributes
from anystar_batch.archive.storage.files import exists
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.events import Listener, ignore
from anystar_batch.network.model import Model
from anystar_batch.network.scale import size_text
from anystar_batch.options import segment_config
from anystar_batch.pipeline.candidate_sets import candidates_folder, remove_sets
from anystar_batch.pipeline.inputs import NamedImage, name_images
from anystar_batch.pipeline.levels import with_verdicts
from anystar_batch.pipeline.prepare import request
from anystar_batch.pipeline.probe import with_elongation
from anystar_batch.pipeline.region import region_of
from anystar_batch.pipeline.threshold_table import threshold_table
from anystar_batch.stages.candidate_store import CandidateSet, Store
from anystar_batch.stages.levels import Verdict
from anystar_batch.stages.plan import Plan, make_plan
from anystar_batch.stages.raw_tile import decisive_parts, kind_of


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """What is asked.

    Parameters
    ----------
    image : str
        Path or address of the image.
    label : str
        Whose options the candidates shall be of, if it is there.
    output : str or None
        Directory to which `segment --output` wrote.
    nms_thresh : float or None
        Another one than that of the run.
    """

    image: str
    label: str = "anystar"
    output: str | None = None
    nms_thresh: float | None = None

    def __post_init__(self) -> None:
        if self.nms_thresh is not None and not 0.0 < self.nms_thresh < 1.0:
            message = f"--nms-thresh: got {self.nms_thresh:g}; expected more than 0, less than 1"
            raise ConfigError(message)


def tune(
    config: TuneConfig, listen: Listener = ignore, *, model: Model | None = None
) -> dict[str, Any]:
    """Say what each threshold would find.

    Parameters
    ----------
    config : TuneConfig
    listen : callable
        Told of every group of tiles.
    model : Model, optional
        Instead of the one that kept the candidates.

    Returns
    -------
    dict
        JSON-able: `rows`, see `threshold_table.Row`, and what they are of.

    Raises
    ------
    ImageError
        If no candidates are kept, or none that this image and model still have.
    ConfigError
        If it is not one image.
    """
    one, folder = _place(config)
    store = Store.open(folder)
    if not store.sets:
        why = "its list is damaged" if store.damaged else "none are kept"
        message = (
            f"{folder}: no candidates to tune with ({why}); keep them: anystar-batch segment "
            f"{config.image} --keep-candidates --overwrite"
        )
        raise ImageError(message)
    options = _label_options(config, one)
    chosen = _chosen(store.sets, options)
    plan, parts = _plan(one, chosen, config, model)
    kind = str(chosen.header["kind"])
    if kind_of(parts, plan) != kind:
        message = (
            f"{chosen.folder}: kept of another image or by another model than those here now; "
            f"keep them anew: anystar-batch segment {config.image} --keep-candidates --overwrite"
        )
        raise ImageError(message)
    current = float(options.get("prob_thresh", parts["prob_thresh"]))
    table = threshold_table(plan, chosen, current, listen)
    return {
        "image": one.path,
        "candidates": str(chosen.folder),
        "above": float(chosen.header["above"]),
        "model": chosen.header["options"].get("model"),
        "channel": plan.channel,
        "diameter_um": plan.diameter_um,
        "elongation": plan.elongation,
        "nms_thresh": plan.nms_thresh,
        "filters": plan.filters.to_json(),
        "second_look": plan.second_look is not None,
        "tiles": table.tiles,
        "tiles_usable": table.usable,
        "tiles_seen": table.seen,
        "prob_thresh": current,
        "rows": [asdict(row) for row in table.rows],
        "then": _then(config, one, folder),
    }


def _then(config: TuneConfig, one: NamedImage, folder: str) -> str:
    """The command that segments with another threshold and all other options of the label."""
    words = ["anystar-batch", "segment", config.image]
    options = f"{folder.rpartition('/')[0]}/{one.stem}.{config.label}.toml"
    if exists(options):
        words += ["--config", options]
    elif config.output is not None:
        words += ["--output", config.output]
    return shlex.join([*words, "--prob-thresh", "P", "--overwrite"])


def remove_candidates(config: TuneConfig) -> dict[str, Any]:
    """Delete the kept candidates of an image; return which folder, and how many bytes it had.

    Raises
    ------
    ConfigError
        If it is not one image.
    LockedError
        If a run is writing there.
    OutputError
        If something cannot be deleted.
    """
    _, folder = _place(config)
    return {"removed": folder, "bytes": remove_sets(folder)}


def _place(config: TuneConfig) -> tuple[NamedImage, str]:
    """The image, and the folder of its candidates."""
    named = name_images([config.image], with_output=config.output is not None)
    if len(named) != 1:
        message = (
            f"{config.image}: {len(named)} images; expected one: give one, e.g. {named[0].path}"
        )
        raise ConfigError(message)
    home = named[0].home if config.output is None else absolute(config.output)
    if is_remote(home):
        message = f"{home}: candidates are kept in directories only, never in object stores"
        raise ConfigError(message)
    return named[0], candidates_folder(home, named[0].stem)


def _label_options(config: TuneConfig, one: NamedImage) -> Mapping[str, Any]:
    """What the label was made with; nothing without one of ours."""
    output = None if config.output is None else absolute(config.output)
    place = label_place(one.path, config.label, home=one.home, stem=one.stem, output=output)
    ours = (published_attributes(place) or {}).get(KEY)
    options = ours.get("options") if isinstance(ours, dict) else None
    return options if isinstance(options, dict) else {}


def _chosen(sets: Sequence[CandidateSet], options: Mapping[str, Any]) -> CandidateSet:
    """The newest set of what the label was made of, or else the newest."""
    wanted = decisive_parts(options)
    same = [
        one
        for one in sets
        if {k: v for k, v in one.header["parts"].items() if k != "image"} == wanted
    ]
    return (same or list(sets))[0]


def _plan(
    one: NamedImage, chosen: CandidateSet, config: TuneConfig, model: Model | None
) -> tuple[Plan, dict[str, object]]:
    """The plan of the run that kept the candidates, and the parts of its fingerprint."""
    asked = segment_config(chosen.header["options"], one.path)
    requested = request(replace(asked, home=one.home, stem=one.stem), model)
    entry = chosen.header["plan"]
    verdicts = tuple(Verdict.from_json(each) for each in entry.get("levels", ()))
    plan = make_plan(
        ImageReader(with_verdicts(requested.source, verdicts)),
        requested.model,
        with_elongation(requested.config.result, entry),
        entry["diameter_um"],
        tuple(None if p is None else (float(p[0]), float(p[1])) for p in entry["limits"]),
        entry["reference"],
        region_of(requested.region, entry),
    )
    nms_thresh = plan.nms_thresh if config.nms_thresh is None else config.nms_thresh
    # Contrasts are measured on the image, tile by tile: not here.
    filters = replace(plan.filters, min_contrast=None)
    return replace(plan, nms_thresh=nms_thresh, filters=filters), requested.parts


def tuned_text(document: Mapping[str, Any]) -> str:
    """Return what each threshold would find, as lines for a person.

    Parameters
    ----------
    document : mapping
        Of `tune`.
    """
    size = document["diameter_um"]
    objects = "" if size is None else f", objects of {size_text(size, document['elongation'])}"
    lines = [
        f"{document['image']}",
        f"  {document['model']}, channel {document['channel']}{objects}, "
        f"--nms-thresh {document['nms_thresh']:g}; candidates above {document['above']:g} are kept",
    ]
    seen, total = document["tiles_seen"], document["tiles"]
    if seen < total:
        lines.append(f"  a sample: {seen} of {total} tiles; numbers of objects are estimates")
    if document["tiles_usable"] < total:
        gone = total - document["tiles_usable"]
        lines.append(f"  {gone} tiles cannot be used (damaged, or the image has changed there)")
    lines.append("  --prob-thresh   objects   median quality   median um3   median prob")
    for row in document["rows"]:
        quality, volume, prob = (
            "-" if row[k] is None else f"{row[k]:{how}}"
            for k, how in (("median_quality", ".2f"), ("median_volume_um3", ".4g"),
                           ("median_prob", ".2f"))
        )  # fmt: skip
        mark = "   <- now" if row["is_current"] else ""
        lines.append(
            f"  {row['prob_thresh']:13g}{row['objects']:10,}{quality:>17}{volume:>13}{prob:>14}"
            f"{mark}"
        )
    if not any(row["is_current"] for row in document["rows"]):
        lines.append(f"  now: {document['prob_thresh']:g}, below what is kept")
    return "\n".join([*lines, f"  then: {document['then']}"])


def removed_text(document: Mapping[str, Any]) -> str:
    """Return what was removed, in a line."""
    return f"{document['removed']}: {document['bytes'] / 1e6:.3g} MB of candidates removed"
