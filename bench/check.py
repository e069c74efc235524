"""What has become slower: `python -m bench check OUT [--accept]`, after `python -m bench run OUT`.

Every part is told as its CPU seconds over those of the bare network in the same run: a machine that
is slower, or busy, is so for both. These ratios are compared with `bench/baseline.json`. A part is
slower if its ratio has grown by more than 15 %, and by more than a hundredth of the network's time:
below that is noise. Then the exit code is 1. With `--accept` the run becomes the baseline. A run
of another model, precision, or number of threads is not compared: exit code 2.

Whole processes (a small image, a batch) are told over the bare network on the first image.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

BASELINE = Path(__file__).parent / "baseline.json"
TOLERANCE = 0.15
"""Relative growth of a ratio that is no regression yet."""

LEAST = 0.01
"""Growth of a ratio that is noise, in units of the network's CPU time."""

SAME = ("model", "precision", "threads")
"""What two runs must have in common."""


@dataclass(frozen=True)
class Change:
    """A part of an image, then and now.

    Parameters
    ----------
    name : str
        `image: part`.
    before, now : float or None
        CPU seconds over the network's; None where it was not measured.
    """

    name: str
    before: float | None
    now: float | None

    def verdict(self, tolerance: float = TOLERANCE) -> str:
        """Return `slower`, `faster`, `new`, `missing`, or nothing."""
        if self.before is None or self.now is None:
            return "new" if self.before is None else "missing"
        more = self.now - self.before
        if abs(more) <= LEAST:
            return ""
        if more > tolerance * self.before:
            return "slower"
        return "faster" if -more > tolerance * self.before else ""


def ratios(document: Mapping[str, Any]) -> dict[str, float]:
    """Return every part of a run over its bare network, CPU seconds; medians of the repeats.

    Parameters
    ----------
    document : mapping
        Of `run.json`.
    """
    found: dict[str, float] = {}
    for image in document["images"]:
        runs = image["runs"]
        name = f"{image['density']} {image['size']}^3 r{image['radius']:g}"
        for part in sorted({part for run in runs for part in run["parts"]}):
            each = [run["parts"].get(part, {"cpu": 0.0})["cpu"] / run["bare_cpu"] for run in runs]
            found[f"{name}: {part}"] = statistics.median(each)
        each = [run["cpu_single"] / run["bare_cpu"] for run in runs]
        found[f"{name}: all"] = statistics.median(each)
    if document["images"]:
        unit = statistics.median(run["bare_cpu"] for run in document["images"][0]["runs"])
        for process in document.get("processes", []):
            found[f"process: {process['name']}"] = statistics.median(process["cpu"]) / unit
    return found


def compare(before: Mapping[str, float], now: Mapping[str, float]) -> list[Change]:
    """Return every part of either side, in order of its name."""
    names = sorted({*before, *now})
    return [Change(name, before.get(name), now.get(name)) for name in names]


def difference(baseline: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return what makes two runs incomparable, in words; nothing if they can be compared."""
    differing = [
        f"{key} {baseline.get(key)} then, {document.get(key)} now"
        for key in SAME
        if baseline.get(key) != document.get(key)
    ]
    return "; ".join(differing)


def table(changes: Sequence[Change], tolerance: float) -> str:
    """Return all parts as a Markdown table, what is told of them at the end of the line."""
    lines = ["| part | before | now | |", "|---|---|---|---|"]
    for change in changes:
        shown = ["-" if v is None else f"{v:.3f}" for v in (change.before, change.now)]
        growth = ""
        if change.before and change.now is not None:
            growth = f" {change.now / change.before - 1:+.0%}"
        verdict = change.verdict(tolerance)
        lines.append(
            f"| {change.name} | {' | '.join(shown)} | {verdict + growth if verdict else ''} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench check", description=__doc__)
    parser.add_argument("out", type=Path, help="of `python -m bench run`")
    parser.add_argument("--accept", action="store_true", help="make this run the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    options = parser.parse_args(arguments)
    try:
        document = json.loads((options.out / "run.json").read_text())
    except FileNotFoundError:
        refuse(f"{options.out}/run.json: there is no run; first: python -m bench run {options.out}")
    now = ratios(document)
    if options.accept:
        kept = {key: document[key] for key in (*SAME, "machine")} | {"ratios": now}
        options.baseline.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        print(f"{options.baseline}: {len(now)} parts")
        return
    if not options.baseline.exists():
        refuse(f"{options.baseline}: there is no baseline; --accept makes this run one")
    baseline = json.loads(options.baseline.read_text())
    why = difference(baseline, document)
    if why:
        refuse(f"the two runs cannot be compared: {why}; run with the same, or --accept this one")
    changes = compare(baseline["ratios"], now)
    print(table(changes, options.tolerance))
    counts = dict.fromkeys(("slower", "faster", "new", "missing"), 0)
    for change in changes:
        verdict = change.verdict(options.tolerance)
        if verdict:
            counts[verdict] += 1
    print("\n" + ", ".join(f"{count} {word}" for word, count in counts.items()))
    if counts["slower"]:
        sys.exit(1)
    if not any(change.before is not None and change.now is not None for change in changes):
        refuse("the run has no part of the baseline: other sizes? give those of the baseline")


def refuse(why: str) -> NoReturn:
    """End with exit code 2."""
    print(why, file=sys.stderr)
    sys.exit(2)
