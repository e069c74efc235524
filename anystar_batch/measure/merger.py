"""Parts of a volume merged as they come: memory goes with the result, and not with the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Generic, TypeVar

PENDING = 10**6
"""Rows that wait before they are merged."""

Part = TypeVar("Part", bound=Sized)


class Merger(Generic[Part]):
    """A result that grows part by part.

    Parameters
    ----------
    nothing : Part
        The result of no parts.
    join : callable
        Makes one part of several, whatever their order and grouping.

    Notes
    -----
    `PENDING` rows, or as many as the result has so far, wait before they are merged into it: each
    row is so joined a few times, whatever the number of parts.
    """

    def __init__(self, nothing: Part, join: Callable[[list[Part]], Part]) -> None:
        self._done, self._join = nothing, join
        self._waiting: list[Part] = []
        self._rows = 0

    def add(self, part: Part) -> None:
        """Take a part."""
        self._waiting.append(part)
        self._rows += len(part)
        if self._rows > max(PENDING, len(self._done)):
            self._done, self._waiting, self._rows = self.result(), [], 0

    def result(self) -> Part:
        """Return all parts so far as one."""
        return self._join([self._done, *self._waiting])


def merged(parts: Iterable[Part], nothing: Part, join: Callable[[list[Part]], Part]) -> Part:
    """Return parts as one; they are taken one by one. Arguments as of `Merger`."""
    merger = Merger(nothing, join)
    for part in parts:
        merger.add(part)
    return merger.result()
