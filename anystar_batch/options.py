"""Every option, declared once: command line, file, Python and documentation are made from here.

An `Option` says what an option is called, what it takes, what it is for, and which field of a
`SegmentConfig` it sets; `config` checks the values. Adding one is a line in `SEGMENT` and a field
in `config` (CONTRIBUTING.md has the list). Importing this costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from anystar_batch.errors import ConfigError, did_you_mean, shorten

if TYPE_CHECKING:
    from anystar_batch.config import Inside, SegmentConfig
    from anystar_batch.parsing import Quantity

WHAT = "What to segment"
SIZE = "How big"
KEEP = "What to keep"
WRITE = "Where to write"
RUN = "How to run"
CHECKS = "Checks"

PANELS = (WHAT, SIZE, KEEP, WRITE, RUN, CHECKS)
"""Panels of the help, in the order in which a newcomer needs them."""

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
"""What the values of each type are called."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command.

    Parameters
    ----------
    name : str
        Of the parameter in Python, such as `min_volume`.
    kind : type
        `str`, `int`, `float` or `bool`.
    default : object
        None lets model or machine decide.
    panel : str
        One of `PANELS`.
    help : str
        A sentence.
    count : int
        How many values it takes: 1, or 3 for a triple (z, y, x).
    flags : tuple of str
        How it is typed, where that is not `--` and the key.
    metavar : str or None
        What stands for its value in the help.
    completion : str
        Function of `cli.completion` that offers values.
    is_bare, is_list : bool
        Text of which a number may be given as one; text with commas that may be a list.
    field : str
        Path of the field of `SegmentConfig` that it sets; empty for none.
    read, text : callable or None
        From a value as typed to that of the field (given the option's name too), and back.
    is_kept : bool
        Whether the file that a run leaves has it; not what speaks of what lay there before.
    in_sweep : bool
        Whether `sweep` has it.
    """

    name: str
    kind: type
    default: Any
    panel: str
    help: str
    count: int = 1
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    completion: str = ""
    is_bare: bool = False
    is_list: bool = False
    field: str = ""
    read: Callable[[str, Any], Any] | None = None
    text: Callable[[Any], Any] | None = None
    is_kept: bool = True
    in_sweep: bool = True

    @property
    def key(self) -> str:
        """As typed, without the dashes in front."""
        return self.name.removeprefix("as_").replace("_", "-")

    @property
    def words(self) -> str:
        """What is expected, for a message."""
        return KINDS[self.kind] if self.count == 1 else f"{self.count} numbers, as [1, 2, 3]"

    def is_value(self, value: object) -> bool:
        """Return whether a value is one of this option's type."""
        if self.kind is float:
            return _is_number(value)
        # In Python, true is a whole number.
        return isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool))

    def taken(self, value: object, place: str) -> object:
        """Return a value as the command line gives it.

        Parameters
        ----------
        value : object
            From a file or from Python.
        place : str
            Where it is from, for the message.

        Raises
        ------
        ConfigError
            If it is of another type.
        """
        items = list(value) if isinstance(value, list | tuple) else None
        if self.count > 1:
            if items is not None and len(items) == self.count and all(map(self.is_value, items)):
                return tuple(items)
        elif self.is_value(value):
            return value
        elif self.is_list and items is not None and all(_is_word(item) for item in items):
            return ",".join(map(str, items))
        elif self.is_bare and _is_number(value):
            return str(value)
        message = f"{place}: got {shorten(repr(value))}; expected {self.words}"
        raise ConfigError(message)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_word(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _absolute(_name: str, path: str) -> str:
    from anystar_batch.address import absolute

    return absolute(path)


def _diameter(_name: str, text: str) -> Quantity:
    from anystar_batch.parsing import parse_diameter

    return parse_diameter(text)


def _volume(name: str, text: str) -> Quantity:
    from anystar_batch.parsing import parse_volume

    return parse_volume(name, text)


def _shift(name: str, text: str) -> Quantity:
    from anystar_batch.parsing import parse_shift

    return parse_shift(name, text)


def _outline(name: str, text: str) -> float | None:
    from anystar_batch.parsing import parse_outline

    return parse_outline(name, text)


def _inside(name: str, text: str) -> Inside:
    from anystar_batch.config import Inside
    from anystar_batch.parsing import parse_inside

    inside = Inside(*parse_inside(name, text))
    return replace(inside, name=_absolute(name, inside.name)) if inside.is_path else inside


def _outline_text(share: float | None) -> str:
    return "visible" if share is None else repr(share)


def _memory(_name: str, text: str) -> int:
    from anystar_batch.parsing import parse_memory

    return parse_memory(text)


def _part(_name: str, text: str) -> tuple[int, int]:
    from anystar_batch.parsing import parse_part

    return parse_part(text)


def _scales(_name: str, text: str) -> tuple[int, ...]:
    from anystar_batch.parsing import parse_scales

    return parse_scales(text)


def _measures(_name: str, text: str) -> tuple[str, ...]:
    from anystar_batch.parsing import parse_measures

    return parse_measures(text)


def _quantity_text(size: Quantity) -> str:
    return size.exact


def _comma_text(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def _model_text(name: str) -> str:
    """A model by name, or its folder as everybody finds it."""
    from pathlib import Path

    from anystar_batch.network.model import bundled_models

    is_folder = name not in bundled_models() and Path(name).is_dir()
    return str(Path(name).absolute()) if is_folder else name


SEGMENT = (
    Option("label", str, "anystar", WRITE, "Name of the label.", field="label"),
    Option(
        "output",
        str,
        None,
        WRITE,
        "Write everything here, not into the images.",
        metavar="DIR",
        field="output",
        read=_absolute,
    ),
    Option(
        "stats",
        str,
        None,
        WRITE,
        "Table of a single image or plate: .csv or .parquet.",
        metavar="FILE",
        field="stats",
        read=_absolute,
        in_sweep=False,
    ),
    Option(
        "model",
        str,
        "anystar-mix",
        WHAT,
        "Bundled model, or a StarDist-3D folder.",
        completion="models",
        field="model",
        text=_model_text,
    ),
    Option(
        "channel",
        str,
        "0",
        WHAT,
        "Channel to segment: index or name.",
        completion="channels",
        is_bare=True,
        field="result.channel",
    ),
    Option(
        "multiscale",
        str,
        None,
        WHAT,
        "Of several images in one group: name or index. Default: the first.",
        metavar="NAME|INDEX",
        completion="multiscales",
        is_bare=True,
        field="result.multiscale",
    ),
    Option(
        "time",
        str,
        "all",
        WHAT,
        "Times to segment: all, 3, or 0,2,5-8.",
        is_bare=True,
        is_list=True,
        field="result.time",
    ),
    Option(
        "reference_time",
        int,
        None,
        WHAT,
        "Segment this time only; measure its objects at every --time.",
        metavar="T",
        field="result.reference_time",
    ),
    Option(
        "inside",
        str,
        None,
        WHAT,
        "Only within this label or mask; of a label, :3,7-9 names its regions.",
        metavar="LABEL[:IDS]|PATH",
        completion="labels",
        field="result.inside",
        read=_inside,
        text=str,
    ),
    Option(
        "diameter",
        str,
        None,
        SIZE,
        "Typical object: 12um, or 9px in the plane. Default: probed.",
        field="result.diameter",
        read=_diameter,
        text=_quantity_text,
    ),
    Option(
        "elongation",
        float,
        None,
        SIZE,
        "Length along z over that across. Default: probed; 1 with --diameter.",
        field="result.elongation",
    ),
    Option(
        "scales",
        str,
        "1",
        SIZE,
        "1,2 also looks for objects twice as large (--diameter: the small).",
        is_list=True,
        field="result.scales",
        read=_scales,
        text=_comma_text,
    ),
    Option(
        "voxel_size",
        float,
        None,
        SIZE,
        "Level-0 voxel in um, instead of the image's.",
        count=3,
        metavar="Z Y X",
        field="result.voxel_size",
        text=list,
    ),
    Option(
        "level",
        int,
        None,
        SIZE,
        "Level that the network reads, 0 the finest; `info` lists them. Default: by the diameter.",
        metavar="N",
        field="result.level",
    ),
    Option(
        "prob_thresh",
        float,
        None,
        KEEP,
        "Least object probability. Default: the model's.",
        field="result.prob_thresh",
    ),
    Option(
        "nms_thresh",
        float,
        None,
        KEEP,
        "Largest shared volume. Default: the model's.",
        field="result.nms_thresh",
    ),
    Option(
        "min_volume",
        str,
        None,
        KEEP,
        "Remove smaller objects: 500 (um3), or 120px (level-0 voxels).",
        metavar="VOLUME",
        is_bare=True,
        field="result.filters.min_volume",
        read=_volume,
        text=_quantity_text,
    ),
    Option(
        "max_volume",
        str,
        None,
        KEEP,
        "Remove larger objects.",
        metavar="VOLUME",
        is_bare=True,
        field="result.filters.max_volume",
        read=_volume,
        text=_quantity_text,
    ),
    Option(
        "min_prob",
        float,
        None,
        KEEP,
        "Remove objects less probable; unlike --prob-thresh after suppression.",
        field="result.filters.min_prob",
    ),
    Option(
        "min_quality",
        float,
        None,
        KEEP,
        "Remove objects whose outline the second look trusts less. Default: the model's.",
        field="result.filters.min_quality",
    ),
    Option(
        "min_contrast",
        float,
        None,
        KEEP,
        "Remove objects less unlike their surroundings, in standard deviations.",
        field="result.filters.min_contrast",
    ),
    Option(
        "min_regularity",
        float,
        None,
        KEEP,
        "Remove objects that fill less of their convex hull, 0 to 1.",
        field="result.filters.min_regularity",
    ),
    Option(
        "measure",
        str,
        "",
        WRITE,
        "Further columns: solidity,sphericity,surface,feret.",
        completion="measures",
        is_list=True,
        field="result.measure",
        read=_measures,
        text=_comma_text,
    ),
    Option(
        "refine",
        str,
        "auto",
        SIZE,
        "Second look at every outline at the image's own resolution: auto, on or off.",
        completion="refine",
        field="result.refine",
    ),
    Option(
        "outline",
        str,
        "visible",
        SIZE,
        "Where surfaces are put: visible, 0.5 (half maximum), 0.2 (into the haze).",
        metavar="VISIBLE|SHARE",
        is_bare=True,
        field="result.outline",
        read=_outline,
        text=_outline_text,
    ),
    Option(
        "expand",
        str,
        None,
        SIZE,
        "Move surfaces outward, without overlaps: 2um for cells around nuclei; -1um inward.",
        metavar="LENGTH",
        field="result.expand",
        read=_shift,
        text=_quantity_text,
    ),
    Option(
        "limits",
        str,
        "global",
        SIZE,
        "Intensity limits: global, one pair a volume; local, following it where parts are dim.",
        completion="limits",
        field="result.limits",
    ),
    Option(
        "tile",
        int,
        None,
        RUN,
        "Core edge of a network tile, working voxels.",
        field="result.tile",
    ),
    Option(
        "precision",
        str,
        "auto",
        RUN,
        "Of the network: float32, bfloat16, or auto: what is fast here.",
        completion="precisions",
        field="result.precision",
    ),
    Option(
        "backend",
        str,
        "tensorflow",
        RUN,
        "Of the network: tensorflow or jax.",
        completion="backends",
        field="result.backend",
    ),
    Option(
        "block_shape",
        int,
        None,
        RUN,
        "Block of work in level-0 voxels. No effect on results.",
        count=3,
        metavar="Z Y X",
        field="run.block_shape",
        text=list,
    ),
    Option(
        "memory",
        str,
        None,
        RUN,
        "Memory of all processes, e.g. 4GB. Default: 80 % of free.",
        field="run.memory",
        read=_memory,
        text="{}B".format,
    ),
    Option(
        "workers",
        int,
        None,
        RUN,
        "Processes; default one per GPU and per four cores, as memory allows.",
        field="run.workers",
    ),
    Option(
        "scheduler",
        str,
        None,
        RUN,
        "Running Dask cluster that does the work.",
        metavar="ADDRESS|FILE",
        field="run.scheduler",
    ),
    Option(
        "part",
        str,
        None,
        RUN,
        "Do one part of N of the work, for job arrays; a run without it finishes.",
        metavar="I/N",
        field="run.part",
        read=_part,
        text=lambda part: f"{part[0]}/{part[1]}",
        is_kept=False,
        in_sweep=False,
    ),
    Option(
        "work_dir",
        str,
        None,
        RUN,
        "Place for ledger and intermediate files.",
        metavar="DIR",
        field="run.work_dir",
        read=_absolute,
    ),
    Option(
        "keep_candidates",
        bool,
        False,
        WRITE,
        "Leave the candidates beside the image: other thresholds then take seconds (`tune`).",
        flags=("--keep-candidates/--no-keep-candidates",),
        field="run.keep_candidates",
    ),
    Option(
        "keep_above",
        float,
        None,
        WRITE,
        "Keep them from this probability on, where it is lower than --prob-thresh.",
        metavar="PROB",
        field="run.keep_above",
    ),
    Option(
        "table",
        bool,
        False,
        WRITE,
        "Put the table into the image too, for ngio and Fractal.",
        flags=("--table/--no-table",),
        field="run.table",
    ),
    Option(
        "stars",
        bool,
        False,
        WRITE,
        "Publish the stars too: the label as geometry, for meshes and more (`export`).",
        flags=("--stars/--no-stars",),
        field="run.stars",
    ),
    Option(
        "overwrite",
        bool,
        False,
        WRITE,
        "Replace a published label once done.",
        flags=("--overwrite/--no-overwrite",),
        field="run.overwrite",
        is_kept=False,
    ),
    Option(
        "restart",
        bool,
        False,
        RUN,
        "Throw away what an unfinished run left.",
        flags=("--restart/--no-restart",),
        field="run.restart",
        is_kept=False,
        in_sweep=False,
    ),
    Option(
        "no_report",
        bool,
        False,
        WRITE,
        "Leave out the page that shows the result.",
        flags=("--no-report/--report",),
        field="run.report",
        read=lambda _name, is_left_out: not is_left_out,
        text=lambda is_written: not is_written,
    ),
)
"""What `segment` and `anystar_batch.segment` take, and `sweep` most of it."""

SWEEP = (
    Option(
        "pattern",
        str,
        "*.ome.zarr",
        WHAT,
        "Names of images: directories, and zip files by what they hold.",
    ),
    Option(
        "max_hours",
        float,
        None,
        RUN,
        "Stop between blocks after so long; the next continues.",
        metavar="H",
    ),
    Option(
        "settle",
        str,
        "15min",
        WHAT,
        "Leave images with a file younger than this: 90s, 2h.",
        metavar="TIME",
    ),
)
"""What `sweep` takes besides."""

SCREEN = (
    Option(
        "fail_on_warning",
        bool,
        False,
        CHECKS,
        "Exit 3 if published with warnings.",
        flags=("--fail-on-warning/--no-fail-on-warning",),
    ),
    Option("dry_run", bool, False, CHECKS, "Print the plan; write nothing.", flags=("--dry-run",)),
    Option("as_json", bool, False, CHECKS, "One JSON object an image.", flags=("--json",)),
    Option("log_file", str, None, CHECKS, "Write a detailed log here.", metavar="F"),
    Option("quiet", bool, False, CHECKS, "Warnings and errors only.", flags=("-q", "--quiet")),
    Option(
        "verbose",
        bool,
        False,
        CHECKS,
        "Plain lines, also on a terminal.",
        flags=("-v", "--verbose"),
    ),
)
"""What concerns the screen and how a command ends; not the result, and not Python."""


def named(name: str) -> Option:
    """Return an option by its name.

    Raises
    ------
    KeyError
        If there is none.
    """
    return {option.name: option for option in (*SEGMENT, *SWEEP, *SCREEN)}[name]


def checked(
    document: Mapping[str, object], options: Iterable[Option], place: str
) -> dict[str, object]:
    """Return the values of a document by the names of parameters, as the command line gives them.

    Parameters
    ----------
    document : mapping
        Keys are names of options, with `-` or `_`.
    options : iterable of Option
        That may be given.
    place : str
        Where the document is from, for messages.

    Raises
    ------
    ConfigError
        If a key is no option or is given twice, or a value is of another type.
    """
    by_key = {option.key: option for option in options}
    values: dict[str, object] = {}
    for given, value in document.items():
        option = by_key.get(given.replace("_", "-"))
        if option is None:
            section = "; options stand alone, without sections" if isinstance(value, dict) else ""
            near = did_you_mean(given.replace("_", "-"), by_key)
            message = f"{place}: {given!r} is no option of this command{section}{near}"
            raise ConfigError(message)
        if option.name in values:
            message = f"{place}: {option.key!r} is given twice, with '-' and with '_'; drop one"
            raise ConfigError(message)
        values[option.name] = option.taken(value, f"{place}: {given}")
    return values


def segment_config(values: Mapping[str, Any], image: str) -> SegmentConfig:
    """Return what options ask of an image.

    Parameters
    ----------
    values : mapping
        Of options of `SEGMENT` by name, as typed; what is not there has its default.
    image : str
        Its path.

    Raises
    ------
    ConfigError
        If an option has a value that cannot be used.
    """
    from anystar_batch.config import SegmentConfig

    tree: dict[str, Any] = {}
    for option in SEGMENT:
        value = values.get(option.name, option.default)
        if value is not None and option.read is not None:
            value = option.read(f"--{option.key}", value)
        *groups, leaf = option.field.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    config: SegmentConfig = _filled(SegmentConfig(image=image), tree)
    return config


def _filled(config: Any, tree: Mapping[str, Any]) -> Any:  # noqa: ANN401  (our dataclasses)
    """A copy of a config with other values; what are mappings there are configs here."""
    inner = {
        name: _filled(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in tree.items()
    }
    return replace(config, **inner)


def typed_options(config: SegmentConfig, decided: Mapping[str, object]) -> dict[str, object]:
    """Return the options that ask for a config, by name, as they are typed.

    Parameters
    ----------
    config : SegmentConfig
        What was asked for.
    decided : mapping
        Values by name of what was decided where nothing was asked for; they win.

    Returns
    -------
    dict
        Text, numbers, lists and booleans, in the order of `SEGMENT`; what is not there has its
        default, or speaks of what lay there before (`Option.is_kept`).
    """
    options: dict[str, object] = {}
    for option in SEGMENT:
        value: Any = config
        for step in option.field.split("."):
            value = getattr(value, step)
        value = decided.get(option.name, value)
        if value is not None and option.is_kept:
            options[option.name] = value if option.text is None else option.text(value)
    return options
