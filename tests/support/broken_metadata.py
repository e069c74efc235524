"""Valid metadata documents, spoilt at random: what an archive may hold after years."""

from __future__ import annotations

import copy
import json

HUGE = 10**15

STRANGE = [
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    -(10**9),
    HUGE,
    10**400,
    "",
    "..",
    "../../etc",
    "/etc",
    "0",
    "x" * 5000,
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"name": None},
    [0, 0, 0],
    [1.0, -1.0, float("nan")],
    [HUGE, HUGE, HUGE],
]
"""What a field may hold instead of what belongs there."""


def spoil(document, rng, changes):
    """Return a copy of a document with places spoilt: lost, replaced, repeated, swapped."""
    spoilt = copy.deepcopy(document)
    for _ in range(changes):
        places = list(_places(spoilt))
        if not places:
            return spoilt
        holder, key = places[int(rng.integers(len(places)))]
        what = int(rng.integers(6))
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder[key], list) and holder[key]:
            holder[key] = holder[key] * int(rng.integers(2, 5))
        elif what == 2:
            other, name = places[int(rng.integers(len(places)))]
            # A copy: a document is a tree.
            holder[key] = copy.deepcopy(other[name]) if name in _keys(other) else None
        elif what == 3 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * [-1, 0, 2, 0.5, HUGE][int(rng.integers(5))]
        else:
            holder[key] = copy.deepcopy(STRANGE[int(rng.integers(len(STRANGE)))])
    return spoilt


def text_of(document, rng):
    """Return a document's text, cut or with a wrong byte now and then."""
    text = json.dumps(document).encode()
    kind = int(rng.integers(20))
    if kind == 0:
        return text[: int(rng.integers(len(text) + 1))]
    if kind == 1 and text:
        at = int(rng.integers(len(text)))
        return text[:at] + bytes([int(rng.integers(256))]) + text[at + 1 :]
    return text


def _keys(holder):
    return range(len(holder)) if isinstance(holder, list) else holder.keys()


def _places(document):
    """Every (holder, key) of a document."""
    stack = [document]
    while stack:
        holder = stack.pop()
        if isinstance(holder, dict | list):
            for key in list(_keys(holder)):
                yield holder, key
                stack.append(holder[key])
