"""What has become slower: `python -m bench check OUT [--accept]`, after `python -m bench run OUT`.

Every part is told as its CPU seconds over those of the bare network on the first image of the same
run: a machine that is slower, or busy, is so for both. These ratios are compared with
`bench/baseline.json`. A part is slower if its ratio has grown by more than 15 %, and by more than a
hundredth of the network's time: below that is noise. Then the exit code is 1. With `--accept` the
run becomes the baseline. A run of another model, precision, number of threads or first image is not
compared, and one that lacks parts does not pass: exit code 2. The bare network is the unit: what it
loses is not seen here.
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
"""What two runs must have in common, besides the image of the unit."""


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
    if not document["images"]:
        return found
    unit = statistics.median(run["bare_cpu"] for run in document["images"][0]["runs"])
    for image in document["images"]:
        runs = image["runs"]
        name = name_of(image)
        for part in sorted({part for run in runs for part in run["parts"]}):
            each = [run["parts"].get(part, {"cpu": 0.0})["cpu"] for run in runs]
            found[f"{name}: {part}"] = statistics.median(each) / unit
        found[f"{name}: all"] = statistics.median(run["cpu_single"] for run in runs) / unit
    for process in document.get("processes", []):
        found[f"process: {process['name']}"] = statistics.median(process["cpu"]) / unit
    return found


def name_of(image: Mapping[str, Any]) -> str:
    """Return what an image of a run is called."""
    return f"{image['density']} {image['size']}^3 r{image['radius']:g}"


def conditions(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two runs must have in common."""
    first = name_of(document["images"][0]) if document["images"] else None
    return {key: document[key] for key in SAME} | {"unit": first}


def compare(before: Mapping[str, float], now: Mapping[str, float]) -> list[Change]:
    """Return every part of either side, in order of its name."""
    names = sorted({*before, *now})
    return [Change(name, before.get(name), now.get(name)) for name in names]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which conditions differ, in words; nothing if two runs can be compared."""
    return "; ".join(
        f"{key} {before.get(key)} then, {now[key]} now"
        for key in now
        if before.get(key) != now[key]
    )


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
        kept = conditions(document) | {"machine": document["machine"], "ratios": now}
        options.baseline.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        print(f"{options.baseline}: {len(now)} parts")
        return
    if not options.baseline.exists():
        refuse(f"{options.baseline}: there is no baseline; --accept makes this run one")
    baseline = json.loads(options.baseline.read_text())
    why = difference(baseline, conditions(document))
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
    if counts["missing"]:
        refuse("not every part of the baseline was measured: run with the same images")


def refuse(why: str) -> NoReturn:
    """End with exit code 2."""
    print(why, file=sys.stderr)
    sys.exit(2)
