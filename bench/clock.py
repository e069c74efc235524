"""Where the time goes in a process: wall and CPU seconds of named functions, without their callees.

Functions are wrapped where they are looked up, for the time of a `with` block; the package knows
nothing of it. CPU seconds are the process's, all threads: of what runs side by side, the function
that is on the main thread's stack gets everything.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PARTS: dict[str, tuple[str, ...]] = {
    "read": (
        "anystar_batch.archive.images:ImageReader.read_box",
        "anystar_batch.archive.images:ImageReader.identities",
    ),
    "resample": ("anystar_batch.network.window:resample",),
    "normalise": ("anystar_batch.network.window:normalise",),
    "tile": ("anystar_batch.stages.predict:tile_image",),
    "network": ("anystar_batch.network.predictor:KerasPredictor.find",),
    "suppress": (
        "anystar_batch.stages.predict:suppress_region",
        "anystar_batch.stages.suppress:suppress_region",
        "anystar_batch.stages.suppress:suppress_block",
        "anystar_batch.stages.suppress:resolve",
        "anystar_batch.stages.number:own_block",
    ),
    "store candidates": (
        "anystar_batch.stages.predict:save_candidates",
        "anystar_batch.stages.suppress:save_candidates",
        "anystar_batch.stages.suppress:load_candidates",
        "anystar_batch.stages.workdir:load_candidates",
    ),
    "second look": (
        "anystar_batch.stages.refine:refine_block",
        "anystar_batch.stages.refine:refine_survivors",
    ),
    "paint": ("anystar_batch.stages.paint:paint_block", "anystar_batch.stages.paint:paint"),
    "statistics": (
        "anystar_batch.stages.paint:partials",
        "anystar_batch.stages.paint:star_scores",
        "anystar_batch.pipeline.segment:table_run",
    ),
    "write": ("anystar_batch.archive.label_image:LabelWriter.write_box",),
    "pyramid": (
        "anystar_batch.stages.pyramid:CoarseLevels.add",
        "anystar_batch.stages.paint:write_coarse",
        "anystar_batch.stages.pyramid:pyramid_block",
    ),
}
"""Functions of every part, `module:name`, where their callers look them up."""


@dataclass(slots=True)
class Spent:
    """Seconds of one part.

    Parameters
    ----------
    wall, cpu : float
    """

    wall: float = 0.0
    cpu: float = 0.0


@dataclass(slots=True)
class Clock:
    """Seconds of every part, filled while `timed` is open."""

    parts: dict[str, Spent] = field(default_factory=dict)
    _stack: list[tuple[str, list[float]]] = field(default_factory=list)

    def enter(self, name: str) -> tuple[float, float]:
        """Begin a call of a part."""
        self._stack.append((name, [0.0, 0.0]))
        return time.perf_counter(), time.process_time()

    def leave(self, began: tuple[float, float]) -> None:
        """End it: its time without that of the parts it has called."""
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        name, inner = self._stack.pop()
        spent = self.parts.setdefault(name, Spent())
        spent.wall += wall - inner[0]
        spent.cpu += cpu - inner[1]
        if self._stack:
            self._stack[-1][1][0] += wall
            self._stack[-1][1][1] += cpu


@contextlib.contextmanager
def timed() -> Iterator[Clock]:
    """Time the parts of whatever runs on this thread in the block."""
    clock, main = Clock(), threading.get_ident()
    with contextlib.ExitStack() as undo:
        for part, names in PARTS.items():
            for name in names:
                owner, attribute = _find(name)
                honest = getattr(owner, attribute)
                setattr(owner, attribute, _wrapped(clock, main, part, honest))
                undo.callback(setattr, owner, attribute, honest)
        yield clock


def _find(name: str) -> tuple[Any, str]:
    module, _, path = name.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, attribute = path.split(".")
    for step in outer:
        owner = getattr(owner, step)
    return owner, attribute


def _wrapped(clock: Clock, main: int, part: str, honest: Any) -> Any:  # noqa: ANN401
    def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        if threading.get_ident() != main:
            return honest(*arguments, **named)
        began = clock.enter(part)
        try:
            return honest(*arguments, **named)
        finally:
            clock.leave(began)

    return call
