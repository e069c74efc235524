"""Which objects a user wants to keep: by size, certainty, contrast and shape.

A filter acts on survivors: it only removes, and what it removes has suppressed its rivals before.
How each value is measured: `stars/measures.py`; what each is for: `docs/filters.md`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import ZYXFloat

_UM3 = {"": 1.0, "nm": 1e-9, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e9}
"""Cubic micrometres of each cubic unit; no unit at all is micrometres."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Volume of an object.

    Parameters
    ----------
    value : float
        Positive.
    unit : str
        `um3`, or `px`: level-0 voxels.
    """

    value: float
    unit: str

    def __str__(self) -> str:
        """Return the volume as an option takes it."""
        return f"{self.value:g}{self.unit}"

    def in_voxels(self, scale_um: ZYXFloat) -> float:
        """Return the volume in level-0 voxels, given their size (z, y, x)."""
        if self.unit == "px":
            return self.value
        return self.value / (scale_um[0] * scale_um[1] * scale_um[2])


def parse_volume(option: str, text: str) -> Volume:
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
    Volume(value=500.0, unit='um3')
    >>> parse_volume("--min-volume", "120px")
    Volume(value=120.0, unit='px')
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(?:(px)|([nuµμm]m)(?:\^?3|³))?\s*", text)
    try:
        value = float(match[1]) if match else math.nan
    except ValueError:
        value = math.nan
    is_voxels = match is not None and match[2] == "px"
    unit = (match[3] or "") if match else ""
    volume = Volume(value, "px") if is_voxels else Volume(value * _UM3[unit], "um3")
    if not 0.0 < volume.value < math.inf:
        message = (
            f"{option}: got {text!r}; expected a positive volume: 500 or 500um3 (cubic "
            "micrometres), 0.1mm3, or 120px (level-0 voxels)"
        )
        raise ConfigError(message)
    return volume


@dataclass(frozen=True, slots=True)
class Filters:
    """What an object must have to be kept; None asks for nothing.

    Parameters
    ----------
    min_volume, max_volume : Volume or None
        Least and largest volume of the star itself.
    min_prob : float or None
        Least object probability, 0 to 1.
    min_contrast : float or None
        Least contrast to the surroundings, see `stars.measures.contrasts`. 0 removes nothing, and
        has the contrast written to the table.
    min_regularity : float or None
        Least share of its convex hull that the star fills, 0 to 1. 0 as above.
    """

    min_volume: Volume | None = None
    max_volume: Volume | None = None
    min_prob: float | None = None
    min_contrast: float | None = None
    min_regularity: float | None = None

    def __post_init__(self) -> None:
        for name, share in (("min-prob", self.min_prob), ("min-regularity", self.min_regularity)):
            if share is not None and not 0.0 <= share <= 1.0:
                message = f"--{name}: got {share:g}; expected 0 to 1"
                raise ConfigError(message)
        if self.min_contrast is not None and not 0.0 <= self.min_contrast < math.inf:
            message = (
                f"--min-contrast: got {self.min_contrast:g}; expected 0 or more, in standard "
                "deviations (dark objects have a positive contrast too)"
            )
            raise ConfigError(message)
        if self.min_volume and self.max_volume and self.min_volume.unit == self.max_volume.unit:
            self.volume_range((1.0, 1.0, 1.0))

    def volume_range(self, scale_um: ZYXFloat) -> tuple[float, float]:
        """Return the least and the largest volume, level-0 voxels.

        Parameters
        ----------
        scale_um : (z, y, x)
            Level-0 voxel size, micrometres.

        Raises
        ------
        ConfigError
            If no volume lies between them.
        """
        least = 0.0 if self.min_volume is None else self.min_volume.in_voxels(scale_um)
        most = math.inf if self.max_volume is None else self.max_volume.in_voxels(scale_um)
        if least > most:
            message = (
                f"--min-volume: got {self.min_volume}, more than --max-volume {self.max_volume}; "
                "expected at most that: no object would be left"
            )
            raise ConfigError(message)
        return least, most

    def __str__(self) -> str:
        """Return the filters that were given as the options that give them."""
        given = ((f.name.replace("_", "-"), getattr(self, f.name)) for f in fields(self))
        return " ".join(f"--{name} {value}" for name, value in given if value is not None)

    def to_json(self) -> dict[str, object]:
        """Return the filters that were given as plain JSON values; none give an empty one."""
        volumes = {"min_volume": self.min_volume, "max_volume": self.max_volume}
        numbers = {
            "min_prob": self.min_prob,
            "min_contrast": self.min_contrast,
            "min_regularity": self.min_regularity,
        }
        found: dict[str, object] = {k: [v.value, v.unit] for k, v in volumes.items() if v}
        return found | {k: v for k, v in numbers.items() if v is not None}
