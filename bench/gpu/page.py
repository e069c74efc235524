"""What was measured on a GPU, as Markdown tables and as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

HEADS = {
    "network": ("window", "Mvoxel/s", "s a window", "of it, to the device", "first call, s", "GB"),
    "command": (
        "image",
        "objects",
        "Mvoxel/s",
        "bare network",
        "ratio",
        "device's share",
        "GPU busy, %",
        "second look's share, one by one",
        "s",
        "GB",
    ),
    "again": ("bytes", "objects", "same as in the process before"),
    "shell": ("command", "s", "Mvoxel/s"),
    "training": ("step", "samples/s", "s a step", "first call, s", "GB"),
}
"""Columns of the parts' tables."""

NOTES = {
    "network": "GB: the device's peak, where the backend tells it and it is more than before.",
    "command": (
        "Useful working voxels a second; the device's share is the time within the network's "
        "calls over the command's; the second look runs on the processor."
    ),
    "shell": "A process from start to end, compilation included.",
    "training": "The trainer's step on samples made before.",
}


def page(document: Mapping[str, Any]) -> str:
    """Return the whole document as Markdown."""
    devices = list(dict.fromkeys(p["device"] for p in document["parts"] if "device" in p))
    told = document["machine"]
    lines = [
        f"# {', '.join(devices) or 'Nothing yet'}",
        "",
        f"{document['began']}, {document['seconds']:.0f} of {60 * document['minutes']:.0f} s"
        + ("" if document["ended"] else ", not at its end")
        + (f"; {told['processor']}, {told['cores']} cores, Python {told['python']}, ")
        + ", ".join(f"{name} {version}" for name, version in told["versions"].items())
        + (f"; {'; '.join(told['gpus'])}" if told["gpus"] else ""),
    ]
    if not any(device.startswith("gpu") for device in devices):
        lines += ["", "**No GPU was used: this says nothing of one.**"]
    if document["quick"]:
        lines += ["", "**Tiny sizes (`--quick`): the numbers say nothing.**"]
    if document["failures"]:
        lines += ["", "**Failed:**", "", *(f"- {_flat(f)}" for f in document["failures"])]
    for part in document["parts"]:
        lines += ["", *_part(part)]
    return "\n".join(lines)


def line(title: str, row: Row) -> str:
    """Return a row as it is shown while others are still measured."""
    name = next(kind for kind in HEADS if title.startswith(kind))
    cells = zip(HEADS[name][1:], _cells(name, row)[1:], strict=True)
    if "digests" in row or "error" in row or "out_of_memory" in row:
        return f"{title}: {row['case']}: {_odd(row)}"
    return f"{title}: {row['case']}: " + ", ".join(f"{k} {v}" for k, v in cells if v != "-")


def _part(part: Mapping[str, Any]) -> list[str]:
    head = HEADS[part["name"]]
    start = part.get("start_up_seconds")
    lines = [
        f"## {part['title']}",
        "",
        f"{part.get('device', 'a process of its own')}, {part.get('seconds', 0):.0f} of "
        f"{part['budget_seconds']:.0f} s"
        + (f", CPU {part['cpu_seconds']:.0f} s" if "cpu_seconds" in part else "")
        + ("" if start is None else f", start {start:.1f} s")
        + (f". {NOTES[part['name']]}" if part["name"] in NOTES else "."),
    ]
    plain = [r for r in part["rows"] if not _is_odd(r) or part["name"] == "again"]
    if plain:
        lines += ["", _joined(head), "|" + "---|" * len(head)]
        lines += [_joined(_cells(part["name"], row)) for row in plain]
    odd = [f"- {r['case']}: {_odd(r)}" for r in part["rows"] if _is_odd(r)]
    odd += [f"- left out: {m['left_out']} ({m['why']})" for m in part["left_out"]]
    if "ended_in" in part:
        odd.append(f"- ended when its time was over, in {part['ended_in']}")
    if "error" in part:
        odd.append(f"- **failed**: {_flat(part['error'])}")
    return [*lines, *(["", *odd] if odd else [])]


def _cells(name: str, row: Row) -> Sequence[str]:
    """The cells of a part's row."""
    get = row.get
    if name == "network":
        names = ("mvoxels", "seconds", "copy_seconds", "first_seconds")
        return (row["case"], *(_number(get(k)) for k in names), _giga(get("peak_device_bytes")))
    if name == "command":
        names = ("instances", "mvoxels", "bare_mvoxels", "ratio", "device_share", "gpu_percent",
                 "second_look_share", "wall")  # fmt: skip
        return (row["case"], *(_number(get(k)) for k in names), _giga(get("peak_device_bytes")))
    if name == "again":
        return (row["case"], _number(get("instances")), _yes(get("same_bytes")))
    if name == "shell":
        return (row["case"], _number(get("wall")), _number(get("mvoxels")))
    names = ("samples_per_second", "seconds", "first_seconds")
    return (row["case"], *(_number(get(k)) for k in names), _giga(get("peak_device_bytes")))


def _is_odd(row: Row) -> bool:
    return any(key in row for key in ("error", "out_of_memory", "digests"))


def _odd(row: Row) -> str:
    """What is told of a row that is no measurement."""
    if "error" in row:
        return f"**failed**: {_flat(row['error'])}"
    if "digests" in row:
        kinds = ", ".join(row["digests"])
        same = {True: "the same", False: "**different**", None: "taken"}[row.get("same_bytes")]
        return f"{row['instances']} objects, bytes of {kinds}: {same}"
    return "out of memory"


def _number(value: float | None) -> str:
    """Three digits of a number."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _giga(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "-"}[value]


def _joined(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _flat(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())
