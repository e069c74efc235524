"""What disturbed runs begin with, and the undisturbed ones with which they are compared."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.aftermath import State, look
from bench.disturbances import KINDS, room_taken
from bench.processes import Process
from tests.support import faults

FORMS = ("0.5", "0.4", "sharded")
EARLIER = ("none", "other", "none", "same")
BLOCKS = ((16, 32, 32), (40, 64, 72), (16, 64, 32), (32, 32, 72))


@dataclass(frozen=True)
class Undisturbed:
    """What runs are compared with, of one format.

    Parameters
    ----------
    starts : dict
        State of a folder before the run, by the earlier label.
    good : State
        After an undisturbed run without an earlier label.
    good_other : State
        The same of the other image.
    operations : dict
        Operations on files of one run, by the earlier label and the number of workers.
    visible : dict
        Numbers of those, with one worker, that others can see, by the earlier label.
    seconds : dict
        Time of one run, by the number of workers.
    room : int
        Bytes on disk of what a run publishes.
    """

    starts: dict[str, State]
    good: State
    good_other: State
    operations: dict[tuple[str, int], int]
    visible: dict[str, tuple[int, ...]]
    seconds: dict[int, float]
    room: int


@dataclass(frozen=True)
class Bench:
    """What all runs share.

    Parameters
    ----------
    out : Path
    phantom : Phantom
    forms : dict
        Undisturbed runs, by format.
    kinds : tuple of str
    workers : tuple of int
        Numbers of workers of which there is an undisturbed run.
    seed : int
    is_timed : bool
        Whether some disturbances come after a time: what that meets depends on the machine.
    """

    out: Path
    phantom: faults.Phantom
    forms: dict[str, Undisturbed]
    kinds: tuple[str, ...]
    workers: tuple[int, ...]
    seed: int
    is_timed: bool

    @property
    def templates(self) -> Path:
        """Folder of what runs begin with."""
        return self.out / "templates"


def prepare(out: Path, kinds: tuple[str, ...], seed: int, *, is_small: bool) -> Bench:
    """Make what runs begin with and end with.

    Parameters
    ----------
    out : Path
        Directory of the bench.
    kinds : tuple of str
        Disturbances to draw from.
    seed : int
    is_small : bool
        A smaller phantom, one format, one worker; no moment is told by time.
    """
    phantom = faults.Phantom((24, 36, 40), 20) if is_small else faults.Phantom()
    faults.warm(out / "warm", phantom)
    workers = {1} if is_small else {n for kind in kinds for n in KINDS[kind].workers}
    bench = Bench(out, phantom, {}, kinds, tuple(sorted(workers)), seed, not is_small)
    shutil.rmtree(bench.templates, ignore_errors=True)
    for form in FORMS[:1] if is_small else FORMS:
        bench.forms[form] = _undisturbed(bench, form)
    return bench


def _undisturbed(bench: Bench, form: str) -> Undisturbed:
    """Run everything of one format once, undisturbed."""
    starts = {}
    for earlier in sorted(set(EARLIER)):
        folder = bench.templates / form / earlier
        _check(faults.prepared(folder, bench.phantom, form, earlier), folder)
        starts[earlier] = look(folder)
    other = bench.templates / form / "other image"
    _check(faults.prepared(other, bench.phantom, form, "none", is_other=True), other)
    operations, visible, seconds, found, rooms = {}, {}, {}, {}, []
    notes = bench.out / "notes"
    cases = [(name, n) for name in starts for n in bench.workers if n == 1 or name == "none"]
    for name, count in [*cases, ("other image", 1)]:
        template = bench.templates / form / name
        folder = shutil.copytree(template, bench.out / "undisturbed")
        notes.unlink(missing_ok=True)
        fault = faults.Fault(folder=str(folder), note=str(notes))
        began = time.monotonic()
        process = start(bench, folder, words(name), count, fault)
        _check(process.wait(), folder)
        found[name] = look(folder)
        operations[name, count] = process.counter[0]
        if count == 1:
            visible[name] = tuple(map(int, notes.read_text().split()))
        if name == "none":
            seconds[count] = time.monotonic() - began
            rooms.append(room_taken(folder) - room_taken(template))
        shutil.rmtree(folder)
    good = found["none"], found["other image"]
    return Undisturbed(starts, *good, operations, visible, seconds, rooms[0])


def words(earlier: str) -> tuple[str, ...]:
    """Return the options that an earlier label asks for."""
    return ("--overwrite",) if earlier == "same" else ()


def start(
    bench: Bench,
    folder: Path,
    more: tuple[str, ...],
    workers: int,
    fault: faults.Fault,
    block: tuple[int, int, int] = BLOCKS[0],
) -> Process:
    """Start the command over the image of a folder.

    Parameters
    ----------
    bench : Bench
    folder : Path
        Holds the image.
    more : tuple of str
        More options.
    workers : int
    fault : Fault
        What goes wrong.
    block : (z, y, x)
        Block shape, voxels.
    """
    image = folder / "phantom.ome.zarr"
    words = faults.segment_words(image, "--workers", str(workers), *more, block=block)
    log = bench.out / f"{folder.name}.{len(list(bench.out.glob(folder.name + '.*.log')))}.log"
    return Process(words, bench.phantom, fault, log)


def _check(code: int, folder: Path) -> None:
    if code != 0:
        sys.exit(f"{folder}: an undisturbed run ended with {code}")
