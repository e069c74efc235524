"""Options as users type them: sizes, amounts of memory, durations, selections."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from anystar_batch.errors import ConfigError, did_you_mean
from anystar_batch.geometry import ZYXFloat

_LENGTHS = {"nm": (1e-3, "um"), "mm": (1e3, "um"), "px": (1.0, "px")}

_LENGTHS |= dict.fromkeys(("um", "µm", "μm"), (1.0, "um"))
"""Units of a length as typed: the factor to the unit that is kept, and that unit."""

_VOLUMES = {
    f"{unit}{cubic}": (factor, "um3")
    for unit, factor in (("nm", 1e-9), ("um", 1.0), ("µm", 1.0), ("μm", 1.0), ("mm", 1e9))
    for cubic in ("3", "^3", "³")
}

_VOLUMES |= {"": (1.0, "um3"), "px": (1.0, "px")}
"""The same of a volume."""

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_MEMORY_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

_MEMORY_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

MIN_MEMORY = 1_000_000_000
"""Least memory a run accepts, bytes: the interpreter and TensorFlow alone need half of it."""

MEASURES = ("solidity", "sphericity", "surface", "feret")
"""Further columns of the table that a user may ask for: shapes of the stars."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """The size of an object, its diameter or its volume; or how far its surface moves.

    Parameters
    ----------
    value : float
        Positive, but for a surface that moves inward.
    unit : str
        `um` or `um3`; or `px`, level-0 voxels: of a length those in the plane.
    """

    value: float
    unit: str

    def __str__(self) -> str:
        """Return the size as an option takes it, in few digits: for a person."""
        return f"{self.value:g}{self.unit}"

    @property
    def exact(self) -> str:
        """The size as an option takes it, with every digit."""
        return f"{self.value!r}{self.unit}"

    def in_um(self, scale_um: ZYXFloat) -> float:
        """Return a length in micrometres, given level 0's voxel size (z, y, x)."""
        if self.unit == "px":
            return self.value * math.sqrt(scale_um[1] * scale_um[2])
        return self.value

    def in_voxels(self, scale_um: ZYXFloat) -> float:
        """Return a volume in level-0 voxels, given their size (z, y, x)."""
        if self.unit == "px":
            return self.value
        return self.value / (scale_um[0] * scale_um[1] * scale_um[2])


def parse_inside(option: str, text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Read where to segment, `organoids:3,7-9` or a path: name and ranges of numbers.

    Raises
    ------
    ConfigError
        If there is no name, or what follows the colon are no positive numbers.

    """
    match = re.fullmatch(r"([^:]+|.*/.*?)(?::([\d\s,-]*))?", text.strip())
    name, listed = (match[1], match[2]) if match else ("", None)
    ids = () if listed is None else parse_ranges(listed)
    if not name or ids is None:
        message = (
            f"{option}: got {text!r}; expected a label of the image, or the path of one or of a "
            "mask, perhaps with regions from 1 on: organoids, organoids:3,7-9, masks/a.ome.zarr"
        )
        raise ConfigError(message)
    return name, tuple(sorted(ids))


def parse_ranges(text: str) -> tuple[tuple[int, int], ...] | None:
    """Numbers from 1 on and ranges of them, with commas; None if it is anything else."""
    parts = text.split(",")
    found = [re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+))?\s*", part) for part in parts]
    ids = tuple((int(m[1]), int(m[2] or m[1])) for m in found if m)
    return ids if len(ids) == len(parts) and all(0 < a <= b for a, b in ids) else None


def parse_diameter(text: str) -> Quantity:
    """Read a diameter such as `12um`, `0.9 mm`, `9px`.

    Raises
    ------
    ConfigError
        If there is no positive number, or no known unit.

    Examples
    --------
    >>> parse_diameter("450nm")
    Quantity(value=0.45, unit='um')
    """
    diameter = _quantity(text, _LENGTHS)
    if diameter is None:
        message = (
            f"--diameter: got {text!r}; expected a positive number with a unit: 12um, 450nm, "
            "0.1mm, or 9px (level-0 voxels in the plane)"
        )
        raise ConfigError(message)
    return diameter


def parse_volume(option: str, text: str) -> Quantity:
    """Read a volume such as `500`, `500um3`, `0.1 mm^3`, `120px`.

    Parameters
    ----------
    option : str
        Name of the option, for the message.
    text : str
        What was given. A number alone is cubic micrometres.

    Raises
    ------
    ConfigError
        If there is no positive number, or an unknown unit.

    Examples
    --------
    >>> parse_volume("--min-volume", "500")
    Quantity(value=500.0, unit='um3')
    >>> parse_volume("--min-volume", "120px")
    Quantity(value=120.0, unit='px')
    """
    volume = _quantity(text, _VOLUMES)
    if volume is None:
        message = (
            f"{option}: got {text!r}; expected a positive volume: 500 or 500um3 (cubic "
            "micrometres), 0.1mm3, or 120px (level-0 voxels)"
        )
        raise ConfigError(message)
    return volume


def parse_shift(option: str, text: str) -> Quantity:
    """Read how far surfaces move: `2um` outward, `-300nm` inward, `1px`.

    Parameters
    ----------
    option : str
        Name of the option, for the message.
    text : str
        What was given.

    Raises
    ------
    ConfigError
        If there is no finite number, or no known unit.

    Examples
    --------
    >>> parse_shift("--expand", "-300nm")
    Quantity(value=-0.3, unit='um')
    """
    shift = _measured(text, _LENGTHS)
    if shift is None:
        message = (
            f"{option}: got {text!r}; expected a length with a unit: 2um outward, -300nm inward, "
            "or 1px (level-0 voxels in the plane)"
        )
        raise ConfigError(message)
    return shift


def parse_outline(option: str, text: str) -> float | None:
    """Read where surfaces are put: None for `visible`, else a share of the profile's fall.

    Parameters
    ----------
    option : str
        Name of the option, for the message.
    text : str
        What was given.

    Raises
    ------
    ConfigError
        If it is neither `visible` nor a number between 0 and 1.

    Examples
    --------
    >>> parse_outline("--outline", "visible"), parse_outline("--outline", "0.5")
    (None, 0.5)
    """
    if text.strip().lower() == "visible":
        return None
    share = _number(text.strip())
    if share is None or not 0.0 < share < 1.0:
        message = (
            f"{option}: got {text!r}; expected visible, or a share between 0 and 1 of the way from "
            "the surroundings' brightness to the core's: 0.5 is half maximum, 0.2 lies in the haze"
        )
        raise ConfigError(message)
    return share


def _quantity(text: str, units: Mapping[str, tuple[float, str]]) -> Quantity | None:
    """Read a number with one of the units; None if it is none, or not positive and finite."""
    found = _measured(text, units)
    return found if found is not None and found.value > 0.0 else None


def _measured(text: str, units: Mapping[str, tuple[float, str]]) -> Quantity | None:
    """Read a number of any sign with one of the units; None if it is none, or not finite."""
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(\S*)\s*", text)
    value = _number(match[1]) if match else None
    if match is None or value is None or match[2] not in units:
        return None
    factor, unit = units[match[2]]
    value *= factor
    return Quantity(value, unit) if math.isfinite(value) else None


def parse_memory(text: str) -> int:
    """Read an amount of memory such as `4GB`, `512MiB`, in bytes.

    Raises
    ------
    ConfigError
        If it is not a number with a unit of bytes, or less than `MIN_MEMORY`.

    Examples
    --------
    >>> parse_memory("4GB")
    4000000000
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]+)\s*", text)
    value = _number(match[1]) if match else None
    unit = match[2].upper() if match else ""
    if value is None or unit not in _MEMORY_UNITS:
        message = f"--memory: got {text!r}; expected a number with a unit, as 4GB or 512MiB"
        raise ConfigError(message)
    size = int(value * _MEMORY_UNITS[unit])
    if size < MIN_MEMORY:
        message = (
            f"--memory: got {text!r}; expected at least {MIN_MEMORY // 10**6} MB, which the "
            "interpreter, the network and one block need"
        )
        raise ConfigError(message)
    return size


def parse_duration(option: str, text: str) -> float:
    """Read a duration such as `90s`, `15min`, `2h`, `1d`, `0`, in seconds.

    Parameters
    ----------
    option : str
        Named in the error.
    text : str
        A number with a unit of time; 0 needs none.

    Raises
    ------
    ConfigError
        If it is none, or negative.

    Examples
    --------
    >>> parse_duration("--settle", "15min")
    900.0
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", text)
    value = _number(match[1]) if match else None
    unit = _SECONDS.get(match[2]) if match else None
    if value is None or (unit is None and (value != 0 or (match and match[2]))):
        message = f"{option}: got {text!r}; expected a duration such as 90s, 15min, 2h, 1d, or 0"
        raise ConfigError(message)
    return value * (unit or 0)


def parse_part(text: str) -> tuple[int, int]:
    """Read which part of a run is wanted, such as `3/8`: index from 1, and count.

    Raises
    ------
    ConfigError
        If it is not two whole numbers.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if match is None:
        message = f"--part: got {text!r}; expected I/N, such as 3/8 for the third of eight"
        raise ConfigError(message)
    return int(match[1]), int(match[2])


def parse_scales(text: str) -> tuple[int, ...]:
    """Read the scales to look at, such as `1,2`.

    Raises
    ------
    ConfigError
        If they are no whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        message = f"--scales: got {text!r}; expected whole numbers such as 1,2"
        raise ConfigError(message)
    return tuple(int(part) for part in parts)


def parse_measures(text: str) -> tuple[str, ...]:
    """Read the further columns of the table, such as `solidity,feret`.

    Returns
    -------
    tuple of str
        In the order of `MEASURES`, without repetition.

    Raises
    ------
    ConfigError
        If one is not known.
    """
    chosen = {part.strip() for part in text.split(",")} - {""}
    for name in sorted(chosen - set(MEASURES)):
        near = did_you_mean(name, MEASURES)
        message = f"--measure: got {name!r}; expected some of {','.join(MEASURES)}{near}"
        raise ConfigError(message)
    return tuple(name for name in MEASURES if name in chosen)


def parse_times(text: str, count: int) -> tuple[int, ...]:
    """Read a selection of time points such as `all`, `3`, `0,2,5-8`.

    Parameters
    ----------
    text : str
        Indices and inclusive ranges, separated by commas.
    count : int
        Time points of the image.

    Returns
    -------
    tuple of int
        Sorted, without repetition.

    Raises
    ------
    ConfigError
        If it cannot be read, or names a time the image does not have.

    Examples
    --------
    >>> parse_times("0,2-4", 6)
    (0, 2, 3, 4)
    """
    if text.strip() == "all":
        return tuple(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+))?\s*", part)
        if match is None:
            message = f"--time: got {text!r}; expected `all`, or indices such as 0,2,5-8"
            raise ConfigError(message)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= count:
            message = f"--time: got {part.strip()!r}; the image has times 0 to {count - 1}"
            raise ConfigError(message)
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
