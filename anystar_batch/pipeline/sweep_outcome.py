"""What a sweep says of itself: an outcome of every image, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from anystar_batch.pipeline.run_record import Summary

MOST_TOLD = 3
"""Most images of one container that are named one by one as not for this tool."""


class Status(StrEnum):
    """What became of an image."""

    DONE = "done"
    CURRENT = "current"
    OTHER = "other label"
    WAITING = "being written"
    LOCKED = "locked"
    FAILED = "failed"
    UNSUITED = "not for this tool"
    STOPPED = "stopped"
    LEFT = "left"
    WANTED = "wanted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image of a sweep.

    Parameters
    ----------
    image : str
        Its path.
    status : Status
        What became of it.
    text : str
        Why, or what to look at; empty if there is nothing to say.
    summary : Summary or None
        Of the run, where there was one.
    """

    image: str
    status: Status
    text: str = ""
    summary: Summary | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values; a run's summary is merged into it."""
        more = {} if self.summary is None else self.summary.to_json()
        return more | {"image": self.image, "status": str(self.status), "text": self.text}


def condensed(outcomes: Sequence[Outcome], top: str) -> list[Outcome]:
    """Return the outcomes of a container or a plate, its many unsuited images as one.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of those of its images of which it is known already.
    top : str
        Its path.
    """
    unsuited = [one for one in outcomes if one.status is Status.UNSUITED]
    if len(unsuited) <= MOST_TOLD:
        return list(outcomes)
    text = f"{top}: {len(unsuited)} of its images; the first: {unsuited[0].text}"
    others = [one for one in outcomes if one.status is not Status.UNSUITED]
    return [*others, Outcome(top, Status.UNSUITED, text)]


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that has ended.

    Parameters
    ----------
    root : str
        Directory below which the images lie.
    outcomes : tuple of Outcome
        One of every image, and of what is not for this tool.
    seconds : float
        Wall time.
    stopped : str or None
        Why it ended before all images were done; None if it did not.
    """

    root: str
    outcomes: tuple[Outcome, ...]
    seconds: float
    stopped: str | None

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by status, in the order of `Status`; none of 0."""
        counted = Counter(one.status for one in self.outcomes)
        return {str(status): counted[status] for status in Status if counted[status]}

    @property
    def has_failed(self) -> bool:
        """Whether any image failed."""
        return Status.FAILED in self.counts

    @property
    def has_warned(self) -> bool:
        """Whether any run published with warnings."""
        return any(one.summary is not None and one.summary.warnings for one in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "root": self.root,
            "images": sum(one.status is not Status.UNSUITED for one in self.outcomes),
            "counts": self.counts,
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
        }
