"""When to begin no further block: at a time, or when asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Stop:
    """Tells an engine when to stop between blocks.

    Parameters
    ----------
    seconds : float, optional
        From now; None is never, unless asked.

    Notes
    -----
    Pickled, it carries the time alone, by the clock that all processes of one machine share.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds
        self._asked = threading.Event()
        self._why = "at its time limit"

    def ask(self, why: str) -> None:
        """Stop from now on.

        Parameters
        ----------
        why : str
            Completes "stopped ...".
        """
        self._why = why
        self._asked.set()

    @property
    def is_due(self) -> bool:
        """Whether nothing more may begin."""
        late = self._until is not None and time.monotonic() >= self._until
        return late or self._asked.is_set()

    @property
    def why(self) -> str:
        """Completes "stopped ..."."""
        return self._why

    def __reduce__(self) -> tuple[Callable[[float | None], Stop], tuple[float | None]]:
        """Pickle the time only."""
        return _stop_until, (self._until,)


def _stop_until(until: float | None) -> Stop:
    return Stop(None if until is None else until - time.monotonic())
