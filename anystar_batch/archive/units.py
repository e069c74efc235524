"""Units of length as the metadata of images state them: of the specification, and as people write.

The specification has the names of UDUNITS-2. Writers also have plurals, capitals, British spelling,
symbols, the key `units`, and words for no unit at all. What is none of these is no length: it is
named, and never taken for micrometres.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping

MICROMETRES = {
    "angstrom": 1e-4,
    "attometer": 1e-12,
    "centimeter": 1e4,
    "decameter": 1e7,
    "decimeter": 1e5,
    "exameter": 1e24,
    "femtometer": 1e-9,
    "foot": 304800.0,
    "gigameter": 1e15,
    "hectometer": 1e8,
    "inch": 25400.0,
    "kilometer": 1e9,
    "megameter": 1e12,
    "meter": 1e6,
    "micrometer": 1.0,
    "mile": 1609344000.0,
    "millimeter": 1e3,
    "nanometer": 1e-3,
    "parsec": 3.0856775814913674e22,
    "petameter": 1e21,
    "picometer": 1e-6,
    "terameter": 1e18,
    "yard": 914400.0,
    "yoctometer": 1e-18,
    "yottameter": 1e30,
    "zeptometer": 1e-15,
    "zettameter": 1e27,
    # Not in the specification, but written by common converters and without a second meaning;
    # so is the decametre above.
    "micron": 1.0,
}
"""Micrometres in one unit of length, by name: UDUNITS-2 names of the specification, synonyms."""

SYMBOLS = {
    "pm": 1e-6,
    "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "\N{GREEK SMALL LETTER MU}m": 1.0,
    "\N{GREEK SMALL LETTER MU}": 1.0,
    "\\u00B5m": 1.0,  # ImageJ escapes the sign, and some take the text as it is
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "km": 1e9,
    "in": 25400.0,
    "ft": 304800.0,
}
"""The same by symbol, as it is written: Mm and mm are two things. Compatible signs are one."""

UNMISTAKABLE = frozenset({"um", "\N{GREEK SMALL LETTER MU}m", "nm", "pm"})
"""Symbols whose capitals mean nothing else here."""

NO_UNIT = frozenset(
    {
        "arbitrary",
        "none",
        "null",
        "pixel",
        "px",
        "reference frame",
        "unitless",
        "unknown",
        "voxel",
        "vx",
    }
)
"""What writers put where there is no unit of length."""


@functools.lru_cache(maxsize=256)
def micrometres_in(unit: str | None) -> float | None:
    """Return the micrometres in a unit of length as people write it; None for no or another unit.

    Case, spaces, plurals and British spelling do not matter in names; case does in symbols.

    Examples
    --------
    >>> [micrometres_in(u) for u in ("micrometer", "Nanometres", " um", "Microns", "pixel")]
    [1.0, 0.001, 1.0, 1.0, None]
    """
    # One way to write each sign: the two micro signs, the two angstrom signs, composed or not.
    text = "".join(unicodedata.normalize("NFKC", unit or "").split())
    if text in SYMBOLS:
        return SYMBOLS[text]
    plain = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(c for c in plain if not unicodedata.combining(c))  # of angstrom
    name = letters.replace("metre", "meter").removesuffix("s")
    name = {"inche": "inch", "feet": "foot"}.get(name, name)
    if name in UNMISTAKABLE:
        return SYMBOLS[name]
    return MICROMETRES.get(name)


def is_no_unit(unit: str) -> bool:
    """Return whether a unit is one of the words that writers put where there is none.

    Examples
    --------
    >>> is_no_unit("Pixels"), is_no_unit("furlong")
    (True, False)
    """
    return " ".join(unit.split()).casefold().removesuffix("s") in NO_UNIT


def unit_of(axis: Mapping[str, object]) -> str | None:
    """Return the unit that an axis states, None without one.

    Parameters
    ----------
    axis : mapping
        One of `axes`, as written in the file; the unit is below `unit`, with some writers `units`.

    Examples
    --------
    >>> unit_of({"name": "z", "units": "nanometer"})
    'nanometer'
    """
    said = [str(axis[key]) for key in ("unit", "units") if axis.get(key)]
    return next((unit for unit in said if unit.strip()), None)
