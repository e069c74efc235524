"""Raw candidates beside an image: used by every run, left by `--keep-candidates`, counted, removed.

They lie in one folder an image, `embryo.candidates`, whatever the label; in it a set for each kind
(`stages.candidate_store`). A set is exchanged whole, and is about no label: any run over the image
takes from it what it would get from the network.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anystar_batch.address import is_remote
from anystar_batch.archive.images import ImageReader
from anystar_batch.archive.storage.atomic_write import (
    partials,
    replace_directory,
    sync_directory,
    write_bytes_atomic,
)
from anystar_batch.archive.storage.files import PARTIAL, output_error, remove_tree
from anystar_batch.archive.storage.lock import hold
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import AnyStarBatchError, ConfigError, OutputError
from anystar_batch.events import Listener, Note
from anystar_batch.geometry import ZYX
from anystar_batch.network.scale import size_text
from anystar_batch.options import SEGMENT, typed_options
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.pipeline.probe import Find
from anystar_batch.pipeline.run_record import DECIDED
from anystar_batch.stages.candidate_store import INDEX, CandidateSet, Store, index_text
from anystar_batch.stages.image_identity import tile_content
from anystar_batch.stages.ledger import Ledger, differing
from anystar_batch.stages.predict import network_found
from anystar_batch.stages.raw_tile import (
    Found,
    StoredTile,
    decisive_parts,
    kind_of,
    load_found,
    origin_of,
    save_found,
    tile_key,
)
from anystar_batch.stages.run import Run
from anystar_batch.stages.task import Work, model_rays
from anystar_batch.stages.workdir import RAW, file_name
from anystar_batch.stars.candidates import Candidates

SUFFIX = ".candidates"
"""How the name of an image's folder of candidates ends."""

LOCK = ".lock"
"""File in it that whoever changes it holds."""


def check_place(config: SegmentConfig, outputs: Outputs) -> None:
    """Check that candidates can be kept where results go.

    Raises
    ------
    ConfigError
        If they are asked for and results go to an object store.
    """
    if is_remote(outputs.folder) and config.run.kept_above(1.0) is not None:
        message = (
            f"--keep-candidates: results go to {outputs.folder}; candidates are mapped from files, "
            "which object stores have not got; leave it out, or give --output DIR, a directory"
        )
        raise ConfigError(message)


def open_store(outputs: Outputs) -> Store:
    """Return the raw candidates that lie beside an image; none in object stores."""
    return Store() if is_remote(outputs.folder) else Store.open(outputs.candidates)


def lowest_above(store: Store, kind: str, keep_above: float | None) -> float | None:
    """Return the probability above which a run keeps candidates: not above what is kept already.

    Parameters
    ----------
    store : Store
    kind : str
        Of the run.
    keep_above : float or None
        What is asked for; None keeps none.
    """
    before = store.of_kind(kind)
    if keep_above is None or before is None:
        return keep_above
    return min(keep_above, float(before.header.get("above", keep_above)))


def probe_tiles(
    store: Store,
    parts: Mapping[str, object],
    ledger: Ledger | None = None,
    work_folder: str = "",
    keep_above: float | None = None,
) -> Find:
    """Return how the probe gets the candidates of its tiles: kept ones, or from the network.

    Parameters
    ----------
    store : Store
    parts : mapping
        What the fingerprint of the run is made of.
    ledger : Ledger or None
        For those that are to be kept; None keeps none.
    work_folder : str
        Work directory, likewise.
    keep_above : float or None
        Probability above which they are kept; None keeps none.
    """

    def find(work: Work, reader: ImageReader, time: int, tile: ZYX) -> tuple[Candidates, int]:
        plan, n_rays = work.plan, len(model_rays(work.plan.model))
        least = min(plan.prob_thresh, 1.0 if keep_above is None else keep_above)
        kind = kind_of(parts, plan)
        origin = origin_of(kind, plan, time, tile_content(plan, reader, time, tile))
        key = tile_key(kind, time, tile)
        stored = store.tile(key)
        found = "" if stored is None else load_found(stored, origin, least, n_rays)
        if isinstance(found, Found):
            if ledger is not None and keep_above is not None:
                ledger.done("raw", {key: {"from": "stored", "above": found.above}})
            return found.over(plan.prob_thresh)
        made = network_found(work, reader, time, tile, least)
        if ledger is not None and keep_above is not None:
            name = f"probe-{kind}-{file_name(time, (tile,), 'npy')}"
            noted = save_found(Path(work_folder) / RAW, name, [(key, origin, made)])
            ledger.done("raw", {key: {"from": "network"} | noted[key].to_json()})
        return made.over(plan.prob_thresh)

    return find


def tell_stored(run: Run, parts: Mapping[str, object]) -> None:
    """Say how many tiles were taken from kept candidates, and why others were not.

    Parameters
    ----------
    run : Run
        All of its tiles are predicted.
    parts : mapping
        What its fingerprint is made of.
    """
    store, kind = run.store, run.work.kind
    for folder in store.damaged:
        text = f"{folder}: its list of kept candidates is damaged; they are not used, delete it"
        run.on_event(Note(text, is_warning=True))
    if not store.sets:
        return
    raw, predicted = run.ledger.entries("raw"), run.ledger.entries("predict")
    tiles = sum(bool(entry["content"]) for entry in predicted.values())
    why: dict[str, int] = {}
    for key, entry in raw.items():
        if key.startswith(f"{kind}/"):
            why[str(entry["from"])] = why.get(str(entry["from"]), 0) + 1
    taken = why.pop("stored", 0)
    why.pop("nothing", None)
    if store.of_kind(kind) is None and taken == 0:
        text = f"kept candidates: none for these options ({_difference(store, parts)})"
        run.on_event(Note(text))
        return
    text = f"kept candidates: {taken} of {tiles} tiles"
    if taken < tiles:
        reasons = "; ".join(f"{name}: {count}" for name, count in sorted(why.items()))
        text += f", the others were left to the network{f' ({reasons})' if reasons else ''}"
    run.on_event(Note(text if taken < tiles else f"{text}; the network was not needed"))


def _difference(store: Store, parts: Mapping[str, object]) -> str:
    """What is other in the newest set than in this run."""
    before, now = store.sets[0].header.get("parts", {}), decisive_parts(parts)
    names = differing(before, now)
    shown = [f"{n}: {before.get(n)} there, {now.get(n)} here" for n in names if n != "image"]
    shown += ["the image's metadata"] if "image" in names else []
    return "; ".join(shown) or "they were made at another scale of the image"


def tell_not_kept(config: SegmentConfig, outputs: Outputs, on_event: Listener) -> None:
    """Say of a result that is published already that its candidates are kept by making it anew."""
    if config.run.kept_above(1.0) is not None and not open_store(outputs).sets:
        text = (
            "the label is there already, its candidates are not: they are kept while a label is "
            "made; give --overwrite with --keep-candidates"
        )
        on_event(Note(text))


def keep_candidates(
    run: Run, config: SegmentConfig, parts: Mapping[str, object], outputs: Outputs
) -> dict[str, Any] | None:
    """Put the run's raw candidates beside the image, whole or not at all.

    Whatever goes wrong is told, and does not fail the run.

    Parameters
    ----------
    run : Run
        All of its tiles are predicted.
    config : SegmentConfig
    parts : mapping
        What its fingerprint is made of.
    outputs : Outputs

    Returns
    -------
    dict or None
        `path`, `bytes` and `above` of what is kept; None for nothing.
    """
    if run.work.keep_above is None:
        return None
    run.work.fence.check()
    try:
        Path(outputs.candidates).mkdir(parents=True, exist_ok=True)
        with hold(f"{outputs.candidates}/{LOCK}"):
            kept = _exchanged(run, config, parts, outputs)
    except (AnyStarBatchError, OSError) as error:
        with contextlib.suppress(OSError):
            Path(outputs.candidates).rmdir()
        run.on_event(Note(f"candidates are not kept: {error}", is_warning=True))
        return None
    text = (
        f"candidates above {kept.header['above']:g} are kept in {kept.folder.parent} "
        f"({kept.size / 1e6:.3g} MB; delete it when thresholds are settled)"
    )
    run.on_event(Note(text))
    return {"path": str(kept.folder), "bytes": kept.size, "above": kept.header["above"]}


def _exchanged(
    run: Run, config: SegmentConfig, parts: Mapping[str, object], outputs: Outputs
) -> CandidateSet:
    """Write the run's set, if the one that is there lacks anything."""
    folder, kind = Path(outputs.candidates), run.work.kind
    store = Store.open(folder)
    before = store.of_kind(kind)
    tiles: dict[str, StoredTile] = {}
    if before is not None:
        tiles |= {key: one for key in before.lines if (one := before.tile(key)) is not None}
    is_new = before is None
    for key, entry in run.ledger.entries("raw").items():
        if "file" in entry:
            kept = {name: value for name, value in entry.items() if name != "from"}
            fresh = StoredTile(str(run.folder / RAW), **kept)
            is_new = is_new or tiles.get(key) is None or tiles[key].digest != fresh.digest
            tiles[key] = fresh
        elif entry["from"] == "stored":
            stored = store.tile(key)
            if stored is None:
                message = f"those of tile {key} are gone; give --restart"
                raise OutputError(message)
            is_new = is_new or key not in tiles
            tiles.setdefault(key, stored)
    if is_new:
        mine = [one for key, one in tiles.items() if key.startswith(f"{kind}/")]
        header = {
            "kind": kind,
            "above": max((one.above for one in mine), default=0.0),
            "tiles": len(mine),
            "parts": decisive_parts(parts),
            "options": _options(config, parts),
            "plan": run.ledger.entry("plan", ""),
        }
        _write_set(folder, kind, header, tiles)
    made = Store.open(folder).of_kind(kind)
    if made is None:
        message = f"{folder}: what was written cannot be read"
        raise OutputError(message)
    return made


def _options(config: SegmentConfig, parts: Mapping[str, object]) -> dict[str, object]:
    """The options that say what is segmented and how, as they are typed."""
    decided = {name: parts[name] for name in DECIDED}
    said = {option.name for option in SEGMENT if option.field.startswith(("result.", "model"))}
    return {k: v for k, v in typed_options(config, decided).items() if k in said}


def _write_set(
    folder: Path, kind: str, header: Mapping[str, object], tiles: Mapping[str, StoredTile]
) -> None:
    """Write a set beside its place, then exchange it; files that are there already are linked."""
    for torn in partials(folder, "."):
        remove_tree(torn)
    token = secrets.token_hex(4)
    made, aside = folder / f".{kind}.{token}{PARTIAL}", folder / f".{kind}.{token}.old{PARTIAL}"
    made.mkdir(parents=True)
    try:
        for source in {(one.folder, one.file) for one in tiles.values() if one.file}:
            _link(Path(*source), made / source[1])
        text = index_text(header, {k: replace(one, folder="") for k, one in tiles.items()})
        write_bytes_atomic(made / INDEX, text)
        sync_directory(made)
        replace_directory(made, folder / kind, aside)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; on another file system, copy it."""
    try:
        target.unlink(missing_ok=True)
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("r+b") as file:
            os.fsync(file.fileno())


def candidates_folder(home: str, stem: str) -> str:
    """Return where the raw candidates of an image lie."""
    return f"{home}/{stem}{SUFFIX}"


def remove_sets(folder: str) -> int:
    """Delete all raw candidates of an image, and the folder, if nothing else lies in it.

    Parameters
    ----------
    folder : str
        Of `candidates_folder`.

    Returns
    -------
    int
        Bytes that they had.

    Raises
    ------
    LockedError
        If a run is writing there.
    OutputError
        If something cannot be deleted.
    """
    if not Path(folder).is_dir():
        return 0
    size = sum(one.size for one in Store.open(folder).sets)
    with hold(f"{folder}/{LOCK}"):
        try:
            for path in Path(folder).iterdir():
                if re.fullmatch(r"[0-9a-f]{12}|\..*" + re.escape(PARTIAL), path.name):
                    shutil.rmtree(path)
        except OSError as error:
            raise output_error(folder, error) from error
    with contextlib.suppress(OSError):
        Path(folder).rmdir()
    return size


def described(home: str, stem: str) -> list[dict[str, Any]]:
    """Return what is kept of an image, a JSON object a set; none at an address."""
    if is_remote(home):
        return []
    sets = Store.open(candidates_folder(home, stem)).sets
    found = []
    for one in sets:
        plan, options = one.header.get("plan") or {}, one.header.get("options") or {}
        with contextlib.suppress(OSError):
            found.append(
                {
                    "path": str(one.folder),
                    "bytes": one.size,
                    "above": one.header.get("above", 0.0),
                    "tiles": one.header.get("tiles", 0),
                    "model": options.get("model"),
                    "channel": options.get("channel"),
                    "diameter_um": plan.get("diameter_um"),
                    "elongation": plan.get("elongation") or options.get("elongation") or 1.0,
                }
            )
    return found


def described_text(kept: Mapping[str, Any]) -> str:
    """Return what one set is, in a line."""
    size = kept["diameter_um"]
    objects = "" if size is None else f", objects of {size_text(size, kept['elongation'])}"
    return (
        f"candidates kept above {kept['above']:g}: {kept['bytes'] / 1e6:.3g} MB in {kept['path']} "
        f"({kept['model']}, channel {kept['channel']}{objects}); for tune and other thresholds"
    )
