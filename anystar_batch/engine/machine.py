"""Memory and cores: what this machine, a container or a batch system leaves us, and what we hold.

Linux control groups (v2 and v1) bound both; without them the machine's own numbers count.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import psutil

_NONE = 2**60
"""Limits from here on are how v1 says that there is none."""

FREE_SHARE = 0.8
"""Share of the free memory a run takes when the user names none."""


def memory_left(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process and its children may still take, None without a limit.

    Files that were read stay in memory until it is needed: those not used lately count as free.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are.
    """
    left = []
    for folder in _folders(root, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and limit < _NONE and used is not None:
            left.append(max(0, limit - max(0, used - _inactive(folder))))
    return min(left, default=None)


def cores(root: Path = Path("/")) -> int | None:
    """Return how many cores' time this process may take, at least 1, None without a limit.

    Parameters
    ----------
    root : Path
        Where `proc` and `sys` are.
    """
    shares = []
    for folder in _folders(root, "cpu"):
        words = (_text(folder / "cpu.max") or "").split()
        if not words:
            quota = _text(folder / "cpu.cfs_quota_us")
            words = [] if quota is None else [quota, _text(folder / "cpu.cfs_period_us") or ""]
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
            shares.append(int(words[0]) / int(words[1]))
    return max(1, math.floor(min(shares) + 0.01)) if shares else None


def usable_cores() -> int:
    """Return how many cores this process may use: those it is bound to, and its share of them."""
    bound, given = len(os.sched_getaffinity(0)), cores()
    return bound if given is None else min(bound, given)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Directories of the groups that this process is in, from its own upwards.

    A container sees its own group as the root; where the path is the host's, the root is ours.
    """
    base = root / "sys/fs/cgroup"
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        top = base if not names else base / controller
        inner = PurePosixPath(path.lstrip("/"))
        for part in (inner, *inner.parents):
            if (top / part).is_dir():
                yield top / part


def _inactive(folder: Path) -> int:
    """Bytes of files that were read and are not used now."""
    lines = (_text(folder / "memory.stat") or "").splitlines()
    counters = dict(line.split(maxsplit=1) for line in lines if " " in line)
    text = counters.get("total_inactive_file", counters.get("inactive_file", "0")).strip()
    return int(text) if text.isdecimal() else 0


def _number(*paths: Path) -> int | None:
    """The number in the first of some files that is there; None for `max`."""
    for path in paths:
        text = _text(path)
        if text is not None:
            return int(text) if text.isdecimal() else None
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def available_memory() -> int:
    """Return the bytes a run may take by default: of the machine's, and of a container's limit."""
    free, left = int(psutil.virtual_memory().available), memory_left()
    return int((free if left is None else min(free, left)) * FREE_SHARE)


class MemoryMeter:
    """Samples the memory of this process and its children while a `with` block runs."""

    def __init__(self, interval: float = 0.5) -> None:
        self.peak = 0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, used_memory())
            if self._stop.wait(self._interval):
                return


def used_memory() -> int:
    """Return the resident bytes of this process and of all below it; shared pages count in each."""
    process = psutil.Process()
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += int(member.memory_info().rss)
        except psutil.Error:  # it has ended meanwhile
            continue
    return total
