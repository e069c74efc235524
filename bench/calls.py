"""Calls of a run that go up: `python -m bench.calls`.

Imports go down (`bench.house`); a call can still go up, if something was handed down before. This
runs the command on a small image, in this process and with a predictor that knows the objects, and
lists every call from a room of a lower floor, or of the same one, into another room.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from bench import house

ROOT = f"{house.ROOT / house.PACKAGE}{os.sep}"
ASKED = ("--diameter", "5um", "--min-contrast", "0.5", "--workers", "1", "--block-shape")


def module_of(frame: FrameType) -> str | None:
    """Return the module of ours that a frame runs, without the package's name."""
    path = frame.f_code.co_filename
    return path[len(ROOT) : -3].replace(os.sep, ".") if path.startswith(ROOT) else None


class Calls:
    """A profiler that notes the calls that go up.

    Parameters
    ----------
    floors : mapping
        Floor of every room.
    """

    def __init__(self, floors: dict[str, int]) -> None:
        self.up: Counter[tuple[str, str]] = Counter()
        self.down = 0
        self._floors = floors

    def __call__(self, frame: FrameType, event: str, _value: Any) -> None:  # noqa: ANN401
        """Note one call."""
        callee = module_of(frame) if event == "call" else None
        back = frame.f_back
        while callee is not None and back is not None:
            caller = module_of(back)
            if caller is not None:
                self._note(caller, back, callee, frame)
                return
            back = back.f_back

    def _note(self, caller: str, back: FrameType, callee: str, frame: FrameType) -> None:
        rooms = caller.split(".", maxsplit=1)[0], callee.split(".", maxsplit=1)[0]
        if rooms[0] == rooms[1] or not {*rooms} <= self._floors.keys():
            return
        if self._floors[rooms[0]] < self._floors[rooms[1]]:
            self.down += 1
        else:
            names = f"{caller}: {back.f_code.co_name}", f"{callee}: {frame.f_code.co_name}"
            self.up[names] += 1


def main() -> None:
    """Run and list."""
    from typer.testing import CliRunner

    from anystar_batch import cli
    from anystar_batch.pipeline import prepare, segment
    from tests.support import tiny_volume

    prepare.KerasFactory = lambda *_: tiny_volume.Spheres()  # type: ignore[misc,assignment]
    segment.check_network = lambda _: None  # type: ignore[attr-defined]
    calls = Calls({room.name: room.floor for room in house.rooms()})
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "embryo.ome.zarr"
        tiny_volume.small_image(image, levels=2)
        threading.setprofile(calls)
        sys.setprofile(calls)
        done = CliRunner().invoke(cli.app, ["segment", str(image), *ASKED, "12", "16", "16"])
        sys.setprofile(None)
        threading.setprofile(None)
    print(f"exit code {done.exit_code}; {calls.down} calls from room to room go down")
    for (caller, callee), count in sorted(calls.up.items()):
        print(f"{count:7} {caller:40} -> {callee}")


if __name__ == "__main__":
    main()
