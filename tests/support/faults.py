"""A phantom, the command over it in a forked process, and the faults that can befall it there.

A process counts what it does to files below its folder (Python's audit events: open, rename,
remove, make or remove a directory). At a chosen one it stops itself (SIGSTOP), so that whoever
started it can kill it, change files, start a second one, and let it go on; or from then on the disk
is full, or the clock has jumped. The store's faults (`zarr`'s reads of local files) come at random.
Nothing of this is in the package.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr.storage._local as local

from anystar_batch import cli
from anystar_batch.archive.storage import lock
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline import segment, sweep
from tests.support.fakes import (
    TruthPredictor,
    make_model,
    mean_level,
    random_ellipsoids,
    write_image,
)

OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}
"""Audit events that count as operations; `os.replace` is a rename, `unlink` a remove."""

BELOW = {"os.remove", "os.rmdir"}
"""Those of them that `shutil.rmtree` does by names below an open directory."""

PR_SET_PDEATHSIG = 1

INTERVAL = 2.0
"""Seconds between signs of life: on a busy machine a holder that lives may be silent for many."""


@dataclass(frozen=True)
class Phantom:
    """A small volume, and another image of the same shape with half the objects dark."""

    shape: tuple[int, int, int] = (40, 64, 72)
    count: int = 60

    @property
    def truth(self):
        return _truth(self.shape, self.count)

    def write(self, path, form, *, is_other=False):
        """Write the pyramid; `form` is 0.4, 0.5 or sharded."""
        base = self.truth.image()
        if is_other:
            base = np.where(self.truth.labels() % 2 == 1, 200, base).astype(base.dtype)
        levels = [base, mean_level(base, (1, 2, 2))]
        return write_image(
            path,
            levels,
            version="0.4" if form == "0.4" else "0.5",
            chunks=(16, 32, 32),
            shards=(32, 64, 64) if form == "sharded" else None,
            scale=(0.5, 0.5, 0.5),
        )


@functools.lru_cache(maxsize=2)
def _truth(shape, count):
    return random_ellipsoids(shape, count, 7, radius=(3.5, 7.0))


@dataclass(frozen=True)
class Fault:
    """What goes wrong inside a process.

    Parameters
    ----------
    kind : str
        `stop`, `full`, `fail`, `stall`, `short`, `clock`, or nothing.
    at : int
        Operation at which it begins; 0 is never for `stop`.
    length : int
        `full`: writing operations that fail, 0 for all after the first.
    share : float
        `fail`, `stall`, `short`: share of the reads that are hit.
    jump : float
        `clock`: seconds.
    seed : int
    folder : str
        What counts lies below it.
    note : str
        File that gets the numbers of the operations that others can see: on anything but the work
        directory and hidden labels.
    """

    kind: str = ""
    at: int = 0
    length: int = 0
    share: float = 0.0
    jump: float = 0.0
    seed: int = 0
    folder: str = ""
    note: str = ""


@dataclass(frozen=True)
class Seeing:
    """Finds the ellipsoids that the image shows; brings the fault along to other processes."""

    truth: object
    fault: Fault = field(default_factory=Fault)

    def __reduce__(self):
        return _arrived, (self.truth, self.fault)

    def __call__(self, *_):
        return self

    def find(self, image, window, core, prob_thresh):
        finder = TruthPredictor(self.truth, core=0.7, wobble=0.5, ties=True)
        points, prob, dist = finder.find(image, window, core, prob_thresh)
        lit = image[tuple((points - np.asarray(window.start)).T)] > 0.3
        return points[lit], prob[lit], dist[lit]


def _arrived(truth, fault):
    spoil_store(fault)
    return Seeing(truth, fault)


class Counter:
    """Numbers that a process and its parent share: operations, and how often a fault came."""

    def __init__(self):
        self._memory = mmap.mmap(-1, 16)

    def __getitem__(self, which):
        return int.from_bytes(self._memory[8 * which : 8 * which + 8], "little")

    def add(self, which):
        self._memory[8 * which : 8 * which + 8] = (self[which] + 1).to_bytes(8, "little")
        return self[which]


def spoil_store(fault, counter=None):
    """Let reads of zarr's local store fail, stall or come back short; once a process."""
    if fault.kind not in {"fail", "stall", "short"} or hasattr(local, "before_chaos"):
        return
    rng, door = random.Random(fault.seed), threading.Lock()
    local.before_chaos = local._get

    def get(path, prototype, byte_range):
        found = local.before_chaos(path, prototype, byte_range)
        with door:
            is_hit, where = rng.random() < fault.share, rng.random()
        if not is_hit:
            return found
        if counter is not None:
            counter.add(1)
        if fault.kind == "fail":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if fault.kind == "stall":
            time.sleep(0.3 * where)
            return found
        return prototype.buffer.from_bytes(found.to_bytes()[: int(where * len(found))])

    local._get = get


def watch(fault, counter):
    """Count operations, and do at the chosen one what the fault says."""
    failed = 0
    notes = os.open(fault.note, os.O_WRONLY | os.O_CREAT) if fault.note else None

    def hook(event, arguments):
        nonlocal failed
        if event not in OPERATIONS or not _place(event, arguments).startswith(fault.folder):
            return
        number = counter.add(0)
        if notes is not None and _is_visible(event, arguments):
            os.write(notes, f"{number}\n".encode())
        if fault.kind in {"stop", "clock"} and number == fault.at:
            if fault.kind == "clock":
                jump_clock(-2 * fault.jump)
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault.kind == "full" and number >= fault.at and _is_writing(event, arguments):
            failed += 1
            if not fault.length or failed <= fault.length:
                counter.add(1)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    if fault.folder:
        sys.addaudithook(hook)


def _place(event, arguments):
    """Where an operation acts. Whole directories are deleted by names below an open one."""
    name = arguments[0]
    if event in BELOW and arguments[1] != -1 and not str(name).startswith("/"):
        return f"{Path(f'/proc/self/fd/{arguments[1]}').readlink()}/{name}"
    return str(name)


def _is_visible(event, arguments):
    """Whether an operation changes what others than this run look at."""
    paths = [a for a in arguments[:2] if isinstance(a, str | os.PathLike)]
    if event in BELOW:
        paths = [_place(event, arguments)]
    hidden = (".work/", ".work.", "/.anystar.")
    return (event != "open" or _is_writing(event, arguments)) and any(
        not any(part in f"{os.fspath(path)}/" for part in hidden) for path in paths
    )


def _is_writing(event, arguments):
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in {"os.mkdir", "os.rename", "os.link"}


def jump_clock(seconds):
    """Set this process's clock forward or back."""
    before = time.time
    time.time = lambda: before() + seconds


def fork(function, log, *arguments):
    """Run a function in a process group of its own; return its id. What it prints goes to a file.

    Forked from a process that has everything loaded: a run costs its own work only.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a stopped one would stay
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        code = function(*arguments)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def network(phantom, fault):
    """What takes the network's place."""
    model = make_model(tile=32, context=8, diameter=12.0, max_radius=24.0)
    return {"factory": Seeing(phantom.truth, fault), "model": model}


def command(words, phantom, fault, counter):
    """Be `anystar-batch WORDS`, with a network that needs no TensorFlow."""
    lock.INTERVAL = INTERVAL
    given = network(phantom, fault)
    segment.segment = functools.partial(segment.segment, **given)
    sweep.sweep = functools.partial(sweep.sweep, **given)
    if fault.kind == "clock":
        jump_clock(fault.jump)
    spoil_store(fault, counter)
    watch(fault, counter)
    sys.argv = ["anystar-batch", *map(str, words)]
    cli.main()
    return 0


def warm(folder, phantom):
    """Load and compile what a run needs, so that forked processes need not."""
    shutil.rmtree(folder, ignore_errors=True)
    image = phantom.write(Path(folder) / "phantom.ome.zarr", "0.5")
    config = SegmentConfig(
        image=image,
        result=ResultConfig(diameter=Quantity(6.0, "um")),
        run=RunConfig(memory=6 * 10**9, block_shape=(16, 32, 32)),
    )
    segment.segment(config, **network(phantom, Fault()))
    shutil.rmtree(folder)


def prepared(folder, phantom, form, earlier, *, is_other=False):
    """Make a folder with an image and, where wanted, an earlier label; return an exit code."""
    image = phantom.write(Path(folder) / "phantom.ome.zarr", form, is_other=is_other)
    if earlier == "none":
        return 0
    label = {"other": "before", "same": "anystar"}[earlier]
    words = segment_words(image, "--label", label, "--prob-thresh", "0.85")
    child = fork(command, os.devnull, words, phantom, Fault(), Counter())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def segment_words(image, *more, block=(16, 32, 32)):
    options = ["--diameter", "6um", "--memory", "6GB", "--quiet", "--block-shape", *block]
    return ["segment", str(image), *options, *more]
