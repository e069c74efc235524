"""A review: what a person says of instances, and the error rate that a random sample gives.

Only the random sample enters the rate: instances that were looked at because they seemed bad say
nothing of all the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from anystar_batch.errors import ConfigError, shorten

FORMAT = "anystar-batch review"
"""What a file of answers calls itself."""

VERSION = 1
"""Of the file of answers; another one is refused."""

KINDS = {
    "right": "right",
    "false": "false",
    "merged": "merged",
    "split": "split",
    "outline": "bad outline",
}
"""What may be said of an instance, and its words. All but the first are errors."""

MOST = 2000
"""Most instances of either list: a page of so many has some 30 MB."""

Z95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of a random sample, with its 95 % interval.

    Parameters
    ----------
    count, of : int

    Notes
    -----
    Wilson's score interval. The sample is taken as one of a population without end: where it is a
    large part of all instances, the interval is wider than it need be.

    References
    ----------
    Wilson, Probable inference, the law of succession, and statistical inference, Journal of the
    American Statistical Association 22 (1927); Brown, Cai, DasGupta, Statistical Science 16 (2001).

    Examples
    --------
    >>> print(Proportion(3, 100))
    3.0 % (1.0 to 8.5) of 100
    """

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; 0 and 1 of nothing."""
        if not self.of:
            return 0.0, 1.0
        share, n = self.count / self.of, self.of
        middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + (Z95 / (2 * n)) ** 2)
        # At the ends the two are equal but for rounding.
        low = 0.0 if self.count == 0 else middle - half
        return low, 1.0 if self.count == self.of else middle + half

    def __str__(self) -> str:
        """Return share and interval in per cent."""
        if not self.of:
            return "not known: nothing was answered"
        share, (low, high) = self.count / self.of, self.interval
        return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of {self.of}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; shares are 0 to 1, None of nothing."""
        low, high = self.interval
        share = self.count / self.of if self.of else None
        return {"count": self.count, "of": self.of, "share": share, "interval_95": [low, high],
                "text": str(self)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of an instance.

    Parameters
    ----------
    label : int
    kind : str or None
        One of `KINDS`; None if only `missed` was said.
    missed : bool
        Whether an object next to it was not found.
    """

    label: int
    kind: str | None
    missed: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """A file of answers.

    Parameters
    ----------
    fingerprint : str
        Of the label that was reviewed.
    seed, count, worst : int
        What chose the instances of the page: of the random sample, and how many of each list.
    answers : dict
        By label.
    """

    fingerprint: str
    seed: int
    count: int
    worst: int
    answers: Mapping[int, Answer]


def parse_answers(document: object, name: str) -> Answers:
    """Check what a page has saved.

    Parameters
    ----------
    document : object
        The JSON value.
    name : str
        Of the file, for messages.

    Raises
    ------
    ConfigError
        If it is no file of answers, or of another version.
    """

    def wrong(found: object, expected: str) -> ConfigError:
        return ConfigError(
            f"--answers: {name}: found {shorten(found, 60)}; expected {expected}; give the JSON "
            "file that the page of `anystar-batch review` has saved"
        )

    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise wrong(f"the format {found!r}", f"{FORMAT!r}")
    if document.get("version") != VERSION:
        raise wrong(f"version {document.get('version')!r} of the file", str(VERSION))
    fingerprint, listed = document.get("fingerprint"), document.get("answers")
    if not isinstance(fingerprint, str) or not isinstance(listed, list):
        raise wrong("no fingerprint or no answers", "both")
    numbers = {}
    for key, least in (("seed", 0), ("count", 1), ("worst", 0)):
        value = _whole(document.get(key))
        if value is None or not least <= value:
            raise wrong(f"{key} {document.get(key)!r}", f"a whole number, {least} or more")
        numbers[key] = value
    answers: dict[int, Answer] = {}
    for one in listed:
        answer = _answer(one)
        if answer is None or answer.label in answers:
            raise wrong(f"the answer {one!r}", "one a label, each with label, answer and missed")
        answers[answer.label] = answer
    return Answers(fingerprint, **numbers, answers=answers)


def _answer(one: object) -> Answer | None:
    """One answer, None if it is none."""
    if not isinstance(one, dict):
        return None
    label, kind, missed = _whole(one.get("label")), one.get("answer"), one.get("missed")
    is_known = kind is None or (isinstance(kind, str) and kind in KINDS)
    if label is None or label < 1 or not is_known or not isinstance(missed, bool):
        return None
    return Answer(label, kind, missed)


def _whole(value: object) -> int | None:
    """A whole number of somebody's file, None if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def judge(sample: Iterable[int], answers: Mapping[int, Answer]) -> dict[str, Any]:
    """Return what the answers say of all instances, and what was said besides.

    Parameters
    ----------
    sample : iterable of int
        Labels of the random sample.
    answers : dict
        By label; those of other labels are counted apart.

    Returns
    -------
    dict
        JSON-able: `error_rate`, `kinds` and `missed_next_to_it` of the sampled instances with an
        answer, `not_answered` of the others; `worst_first` counts the answers to the other list.
    """
    labels = set(sample)
    said = [one for one in answers.values() if one.kind is not None]
    drawn = [one for one in said if one.label in labels]
    others = [one for one in said if one.label not in labels]
    n = len(drawn)
    kinds = {kind: sum(one.kind == kind for one in drawn) for kind in KINDS}
    return {
        "error_rate": Proportion(n - kinds["right"], n).to_json(),
        "kinds": {k: Proportion(c, n).to_json() for k, c in kinds.items()},
        "missed_next_to_it": Proportion(sum(one.missed for one in drawn), n).to_json(),
        "not_answered": len(labels) - n,
        "worst_first": {
            "answered": len(others),
            **{kind: sum(one.kind == kind for one in others) for kind in KINDS},
        },
    }
