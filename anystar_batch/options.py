"""Options as users name them: on the command line, in a file, from Python. `config` checks them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from anystar_batch.errors import ConfigError, did_you_mean, shorten

if TYPE_CHECKING:
    from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig

BARE = frozenset({"channel", "time", "min_volume", "max_volume"})
"""Options that are text, of which a number may be given as one."""

LISTS = frozenset({"time", "scales", "measure"})
"""Options that are text with commas, which may be given as a list."""

KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
"""What the values of each type are called."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command.

    Parameters
    ----------
    name : str
        Of the function's parameter.
    key : str
        As typed, without the dashes in front.
    kind : type
        `str`, `int`, `float` or `bool`.
    count : int
        How many of it: 1, or 3 for a triple.
    """

    name: str
    key: str
    kind: type
    count: int

    @property
    def words(self) -> str:
        """What is expected, for a message."""
        return KINDS[self.kind] if self.count == 1 else f"{self.count} numbers, as [1, 2, 3]"


def options_of(command: Callable[..., object]) -> tuple[Option, ...]:
    """Return the options of a command that a file may hold: all but `--config` and arguments."""
    hints = get_type_hints(command, include_extras=True)
    return tuple(
        _option(name, get_args(hints[name])[0])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.default is not inspect.Parameter.empty and name != "config"
    )


def _option(name: str, annotation: Any) -> Option:  # noqa: ANN401  (types are no one type)
    if get_origin(annotation) is UnionType:
        (annotation,) = set(get_args(annotation)) - {NoneType}
    kinds = get_args(annotation) if get_origin(annotation) is tuple else (annotation,)
    return Option(name, name.removeprefix("as_").replace("_", "-"), kinds[0], len(kinds))


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
    known = {option.key: option for option in options}
    found: dict[str, object] = {}
    for given, value in document.items():
        option = known.get(given.replace("_", "-"))
        if option is None:
            section = "; options stand alone, without sections" if isinstance(value, dict) else ""
            near = did_you_mean(given.replace("_", "-"), known)
            message = f"{place}: {given!r} is no option of this command{section}{near}"
            raise ConfigError(message)
        if option.name in found:
            message = f"{place}: {option.key!r} is given twice, with '-' and with '_'; drop one"
            raise ConfigError(message)
        found[option.name] = _value(option, value, f"{place}: {given}")
    return found


def _value(option: Option, value: object, place: str) -> object:
    """The value as the command line gives it."""
    items = list(value) if isinstance(value, list | tuple) else None
    if option.count > 1:
        if items is not None and len(items) == option.count and all(_is(v, option) for v in items):
            return tuple(items)
    elif _is(value, option):
        return value
    elif option.name in LISTS and items is not None and all(_is_word(v) for v in items):
        return ",".join(map(str, items))
    elif option.name in BARE and _is_number(value):
        return str(value)
    message = f"{place}: got {shorten(repr(value))}; expected {option.words}"
    raise ConfigError(message)


def _is(value: object, option: Option) -> bool:
    if option.kind is float:
        return _is_number(value)
    # In Python, true is a whole number.
    return isinstance(value, option.kind) and (option.kind is bool or not isinstance(value, bool))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_word(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a user chose of the options above, as typed; `segment_config` checks it.

    Parameters are the options of the same names.
    """

    label: str
    output: str | None
    channel: str
    time: str
    diameter: str | None
    scales: str
    voxel_size: tuple[float, float, float] | None
    prob_thresh: float | None
    nms_thresh: float | None
    min_volume: str | None
    max_volume: str | None
    min_prob: float | None
    min_contrast: float | None
    min_regularity: float | None
    model: str
    tile: int | None
    precision: str
    backend: str
    block_shape: tuple[int, int, int] | None
    memory: str | None
    workers: int | None
    scheduler: str | None
    work_dir: str | None
    overwrite: bool
    no_report: bool
    restart: bool = False
    reference_time: int | None = None
    measure: str = ""
    table: bool = False

    def segment_config(self, image: str) -> SegmentConfig:
        """Return what is wanted of an image.

        Parameters
        ----------
        image : str
            Its path.

        Raises
        ------
        ConfigError
            If an option has a value that cannot be used.
        """
        from anystar_batch.address import absolute  # noqa: PLC0415
        from anystar_batch.config import SegmentConfig  # noqa: PLC0415

        return SegmentConfig(
            image=image,
            label=self.label,
            output=None if self.output is None else absolute(self.output),
            model=self.model,
            result=self._result(),
            run=self._run(),
        )

    def _result(self) -> ResultConfig:
        from anystar_batch import config as c  # noqa: PLC0415
        from anystar_batch import parsing as p  # noqa: PLC0415
        from anystar_batch.config import Filters  # noqa: PLC0415
        from anystar_batch.parsing import parse_volume  # noqa: PLC0415

        least, most = self.min_volume, self.max_volume
        return c.ResultConfig(
            channel=self.channel,
            time=self.time,
            diameter=None if self.diameter is None else p.parse_diameter(self.diameter),
            voxel_size=self.voxel_size,
            prob_thresh=self.prob_thresh,
            nms_thresh=self.nms_thresh,
            tile=self.tile,
            scales=p.parse_scales(self.scales),
            precision=self.precision,
            backend=self.backend,
            reference_time=self.reference_time,
            measure=p.parse_measures(self.measure),
            filters=Filters(
                min_volume=None if least is None else parse_volume("--min-volume", least),
                max_volume=None if most is None else parse_volume("--max-volume", most),
                min_prob=self.min_prob,
                min_contrast=self.min_contrast,
                min_regularity=self.min_regularity,
            ),
        )

    def _run(self) -> RunConfig:
        from anystar_batch import config as c  # noqa: PLC0415
        from anystar_batch import parsing as p  # noqa: PLC0415
        from anystar_batch.address import absolute  # noqa: PLC0415

        return c.RunConfig(
            block_shape=self.block_shape,
            memory=None if self.memory is None else p.parse_memory(self.memory),
            workers=self.workers,
            scheduler=self.scheduler,
            work_dir=None if self.work_dir is None else absolute(self.work_dir),
            overwrite=self.overwrite,
            restart=self.restart,
            table=self.table,
            report=not self.no_report,
        )
