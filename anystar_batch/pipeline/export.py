"""Export the stars of a label: which label, which stars, which format; whole or not at all.

What is written gets its name last: a file or directory of that name is complete. The label and its
image are only read.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from anystar_batch.address import absolute, is_remote, relative_path
from anystar_batch.archive import nodes
from anystar_batch.archive.discovery import find_images
from anystar_batch.archive.label_lookup import chosen_labels, labels_of
from anystar_batch.archive.label_place import KEY
from anystar_batch.archive.metadata import is_label
from anystar_batch.archive.star_group import StarReader
from anystar_batch.archive.storage.atomic_write import partials, replace_directory, sync_directory
from anystar_batch.archive.storage.files import output_error, partial_path
from anystar_batch.archive.storage.lock import hold
from anystar_batch.errors import (
    AnyStarBatchError,
    ConfigError,
    ImageError,
    OutputExistsError,
    did_you_mean,
)
from anystar_batch.events import Listener, StageStarted, ignore, timed_stage
from anystar_batch.export.graph import Source, write_geff
from anystar_batch.export.meshes import write_obj, write_ply
from anystar_batch.export.neuroglancer import write_precomputed
from anystar_batch.export.outlines import import_pyarrow, write_outlines, write_spheres
from anystar_batch.export.repaint import MARK, write_labels
from anystar_batch.export.selection import Selection, parse_labels
from anystar_batch.geometry import ZYXFloat
from anystar_batch.parsing import parse_times

FORMATS: dict[str, str] = {
    "ply": ".ply",
    "obj": ".obj",
    "neuroglancer": "",
    "geff": ".geff",
    "geoparquet": ".parquet",
    "labels": ".zarr",
}
"""Formats, and the end of a name that stands for each."""

SHAPES = ("outlines", "spheres")
"""What GeoParquet holds."""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What is exported.

    Parameters
    ----------
    path : str
        Image, or label.
    out : str
        File or directory to write.
    to : str or None
        One of `FORMATS`; None goes by the end of `out`.
    label, output : str, str or None
        Of an image: name of its label, and where `segment --output` wrote it.
    labels, time : str
        Labels, such as `1,5-9`, empty for all; times, as `segment` takes them.
    voxel_size : (z, y, x) or None
        Of labels: micrometres; None is the label's own.
    shape : {"outlines", "spheres"}
        What GeoParquet holds.
    alternatives : str
        Of GEFF: further labels of the image, with commas, whose stars are nodes too.
    overwrite : bool
        Replace what an earlier export wrote there.
    """

    path: str
    out: str
    to: str | None = None
    label: str = "anystar"
    output: str | None = None
    labels: str = ""
    time: str = "all"
    voxel_size: ZYXFloat | None = None
    shape: str = "outlines"
    alternatives: str = ""
    overwrite: bool = False

    def __post_init__(self) -> None:
        to = self.to or next(
            (k for k, end in FORMATS.items() if end and self.out.rstrip("/").endswith(end)), None
        )
        if to not in FORMATS:
            given = "the name says no format" if self.to is None else f"got {self.to!r}"
            near = "" if self.to is None else did_you_mean(self.to, FORMATS)
            message = f"--to: {given}; expected {', '.join(FORMATS)}{near}"
            raise ConfigError(message)
        if self.shape not in SHAPES:
            near = did_you_mean(self.shape, SHAPES)
            message = f"--shape: got {self.shape!r}; expected {' or '.join(SHAPES)}{near}"
            raise ConfigError(message)
        if self.voxel_size is not None and not all(0 < v < math.inf for v in self.voxel_size):
            message = f"--voxel-size: got {self.voxel_size}; expected three positive micrometres"
            raise ConfigError(message)
        for name, is_given, of in (
            ("voxel-size", self.voxel_size is not None, ("labels",)),
            ("alternatives", bool(self.alternatives), ("geff",)),
            ("shape", self.shape != SHAPES[0], ("geoparquet",)),
            ("labels", bool(self.labels), tuple(k for k in FORMATS if k != "labels")),
            ("time", self.time != "all", tuple(k for k in FORMATS if k != "labels")),
        ):
            if is_given and to not in of:
                message = f"--{name} is for --to {', '.join(of)}, not for {to}; leave it out"
                raise ConfigError(message)
        if self.alternatives and self.labels:
            message = "--labels and --alternatives contradict each other: leave one out"
            raise ConfigError(message)
        if is_remote(self.out):
            message = f"{self.out}: expected a path of a file system; copy it to the store then"
            raise ConfigError(message)
        object.__setattr__(self, "to", to)
        object.__setattr__(self, "out", absolute(self.out))


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Parameters
    ----------
    label, path, format : str
        The label, what was written, and how.
    stars : int
        How many stars of the label; alternatives are not counted.
    bytes : int
        Size of what was written.
    """

    label: str
    path: str
    format: str
    stars: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def export(config: ExportConfig, listen: Listener = ignore) -> Exported:
    """Write the stars of a label for other programs.

    Parameters
    ----------
    config : ExportConfig
    listen : callable
        Told of the beginning and the end.

    Raises
    ------
    ImageError
        If there is no such image or label, or it has no stars.
    ConfigError
        If nothing is selected, or what writes the format is not installed.
    OutputExistsError
        If something has the name already.
    OutputError
        If the place cannot be written.
    """
    label = find_label(config)
    reader, out = StarReader(label), Path(config.out)
    write, count = _writer(config, reader, label)
    _check_free(config, out)
    with timed_stage(listen, StageStarted("export", 1)):
        _write_whole(out, write, is_replaced=config.overwrite)
    return Exported(label, str(out), str(config.to), count, _size(out))


def _writer(
    config: ExportConfig, reader: StarReader, label: str
) -> tuple[Callable[[Path], None], int]:
    """What writes the format to a path, and how many stars."""
    if config.to == "labels":
        return partial(write_labels, reader, label, config.voxel_size), reader.frame.count
    times = None
    if config.time != "all":
        times = parse_times(config.time, reader.frame.num_times or 1)
    chosen = Selection(reader, parse_labels(config.labels), times)
    if config.to == "geoparquet":
        import_pyarrow()
    sources = [_source(label, chosen)]
    for name in filter(None, (name.strip() for name in config.alternatives.split(","))):
        other = find_label(replace(config, label=name))
        if other == label:
            message = (
                f"--alternatives: {name}: it is {label} itself; expected other labels of the "
                "image, and the image's path"
            )
            raise ConfigError(message)
        sources.append(_source(other, Selection(StarReader(other), (), times)))
    writers: dict[str, Callable[[Selection, Path], None]] = {
        "ply": write_ply,
        "obj": write_obj,
        "neuroglancer": write_precomputed,
        "geff": lambda _, path: write_geff(sources, path, relative_path(label, config.out)),
        "geoparquet": write_spheres if config.shape == "spheres" else write_outlines,
    }
    return partial(writers[str(config.to)], chosen), len(chosen)


def _source(label: str, chosen: Selection) -> Source:
    """The stars of a label, with the thresholds that the label names."""
    node = nodes.read_node(label)
    ours = None if node is None else node.attributes.get(KEY)
    decided = ours.get("decided") if isinstance(ours, dict) else None
    prob, nms = (
        float(decided[name]) if isinstance(decided, dict) else math.nan
        for name in ("prob_thresh", "nms_thresh")
    )
    return Source(chosen, prob, nms)


def find_label(config: ExportConfig) -> str:
    """Return the path of the label that a config names.

    Raises
    ------
    ImageError
        If there is no image or label.
    ConfigError
        If the image has no label of the name.
    """
    path, node = nodes.read_root(config.path)
    if is_label(node.attributes, node.zarr_format):
        return path
    images = find_images(path)
    if len(images) != 1:
        message = (
            f"{path}: a container of {len(images)} images; give one of them, or a label, e.g. "
            f"{images[0]}"
        )
        raise ImageError(message)
    image, name = images[0], config.label
    return chosen_labels(labels_of(image, config.output), [name], image, config.output)[name]


def _check_free(config: ExportConfig, out: Path) -> None:
    """Check that the name is free, or has what an earlier export wrote."""
    if not out.exists():
        return
    if not config.overwrite:
        message = f"{out} exists already; give another name, or --overwrite to replace it"
        raise OutputExistsError(message)
    if out.is_dir() and not _is_export(out, str(config.to)):
        message = (
            f"{out} is a directory that no export --to {config.to} wrote; it is not replaced, "
            "whatever --overwrite says; give another name"
        )
        raise OutputExistsError(message)


def _is_export(out: Path, to: str) -> bool:
    if to == "neuroglancer":
        return (out / "info").is_file() and (out / "mesh/info").is_file()
    node = nodes.read_node(str(out))
    mark = {"geff": "geff", "labels": MARK}.get(to)
    return node is not None and mark in node.attributes


def _write_whole(out: Path, write: Callable[[Path], None], *, is_replaced: bool) -> None:
    """Write under a hidden name, then give it its own."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with hold(f"{out.parent}/.{out.name}.lock"):
            for torn in partials(out.parent, f".{out.name}."):
                _remove(torn)
            made, aside = partial_path(out), partial_path(out)
            try:
                write(made)
                if out.exists() and not is_replaced:
                    message = f"{out} was made meanwhile; nothing is replaced"
                    raise OutputExistsError(message)
                if made.is_dir():
                    replace_directory(made, out, aside)
                else:
                    with made.open("r+b") as file:
                        os.fsync(file.fileno())
                    made.replace(out)
                    sync_directory(out.parent)
            finally:
                _remove(made)
                _remove(aside)
    except AnyStarBatchError:
        raise
    except OSError as error:
        raise output_error(out, error) from error


def _size(out: Path) -> int:
    """Bytes of a file, or of all files of a directory."""
    if out.is_file():
        return out.stat().st_size
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
