"""What disturbs a run, kind by kind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.processes import Process

PAGE = 4096


@dataclass(frozen=True)
class Disturbance:
    """One run, drawn.

    Parameters
    ----------
    number : int
    kind : str
        One of `KINDS`.
    variant : str
        How exactly, see the kind.
    form : str
        `0.4`, `0.5` or `sharded`.
    earlier : str
        Label that is published before: `none`, `other` (of another name), `same` (to be replaced).
    workers : int
    at : int
        Operation on files at which it comes; 0 is before the run.
    after : float or None
        Instead, seconds after the start.
    seed : int
    """

    number: int
    kind: str
    variant: str
    form: str
    earlier: str
    workers: int
    at: int
    after: float | None
    seed: int


@dataclass
class Scene:
    """A disturbed run under way: what acts on it may need.

    Parameters
    ----------
    drawn : Disturbance
    folder : Path
        Holds the image.
    process : Process
    start : callable
        Starts another process with the same command.
    other : Path
        Another image of the same shape.
    rng : random.Random
    codes : list of int
        Exit codes of further processes.
    deleted : list of str
        Labels that were deleted.
    mend : list of callable
        What brings the image back, before the rerun.
    has_missed : bool
        Whether there was nothing to disturb.
    """

    drawn: Disturbance
    folder: Path
    process: Process | None
    start: Callable[[], Process]
    other: Path
    rng: random.Random
    codes: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    mend: list[Callable[[], None]] = field(default_factory=list)
    has_missed: bool = False

    @property
    def image(self) -> Path:
        """The image."""
        return self.folder / "phantom.ome.zarr"


def _kill(scene: Scene) -> None:
    scene.process.signal(signal.SIGKILL)


def _kill_all(scene: Scene) -> None:
    scene.process.end()


def _kill_worker(scene: Scene) -> None:
    workers = scene.process.workers()
    scene.has_missed = not workers
    if workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            scene.rng.choice(workers).kill()


def _terminate(scene: Scene) -> None:
    scene.process.signal(signal.SIGTERM)


def _interrupt(scene: Scene) -> None:
    scene.process.signal(signal.SIGINT)


def _second(scene: Scene) -> None:
    """Start the same command again; the first goes on before or after the second's end."""
    if scene.drawn.variant == "together":
        scene.process.signal(signal.SIGCONT)
    scene.codes.append(scene.start().wait())


def _jump(scene: Scene) -> None:
    """Let the file system's clock jump, as the locks' files show it, and start a second run."""
    for lock in [*scene.folder.glob("*.lock"), *scene.image.glob("labels/.*.lock")]:
        then = time.time() + scene.rng.choice([-1, 1]) * scene.rng.uniform(3600, 400 * 86400)
        with contextlib.suppress(FileNotFoundError):
            os.utime(lock, (then, then))
    scene.process.signal(signal.SIGCONT)
    scene.codes.append(scene.start().wait())


def _delete(scene: Scene) -> None:
    labels = scene.image / "labels"
    if scene.drawn.variant == "labels":
        scene.deleted.extend(p.name for p in labels.glob("[!.]*"))
        shutil.rmtree(labels, ignore_errors=True)
    for path in list(labels.glob(".anystar.*" if scene.drawn.variant == "hidden" else "[!.]*")):
        if path.is_dir():
            scene.deleted.append(path.name)
            shutil.rmtree(path, ignore_errors=True)


def _replace(scene: Scene) -> None:
    """Put another image of the same shape in the place of this one."""
    if scene.drawn.variant == "folder":
        scene.deleted.extend(p.name for p in (scene.image / "labels").glob("[!.]*"))
        scene.image.rename(scene.folder.parent / f"{scene.folder.name}.gone")
        shutil.copytree(scene.other, scene.image)
        return
    for source in scene.other.rglob("*"):
        if source.is_file() and "labels" not in source.parts:
            shutil.copy(source, scene.image / source.relative_to(scene.other))


def chunks(image: Path) -> list[Path]:
    """Return the files of level 0 that hold voxels."""
    found = [p for p in (image / "0").rglob("*") if p.is_file() and p.name[0].isdecimal()]
    return sorted(found)


def _damage(scene: Scene) -> None:
    """Spoil one chunk; some damages leave size and time as they were."""
    file = scene.rng.choice(chunks(scene.image))
    whole, status = file.read_bytes(), file.stat()
    cut = scene.rng.choice([0, 1, scene.rng.randrange(len(whole))])
    spoilt = {
        "cut": whole[:cut],
        "zero tail": whole[:cut] + bytes(len(whole) - cut),
        "noise": scene.rng.randbytes(len(whole)),
    }
    file.write_bytes(spoilt[scene.drawn.variant])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    keeps_time = scene.rng.random() < 0.5

    def restore() -> None:
        file.write_bytes(whole)
        if keeps_time:
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    scene.mend.append(restore)


@dataclass(frozen=True)
class Kind:
    """What is done, and which exit codes it may have.

    Parameters
    ----------
    codes : frozenset of int
        Allowed exit codes of the disturbed run.
    act : callable, optional
        Done while the process is stopped, or after a time.
    fault : str
        What goes wrong inside the process instead.
    variants : tuple of str
    workers : tuple of int
        Numbers of workers to draw from.
    may_restart : bool
        Whether the rerun may ask for `--restart`.
    is_before : bool
        Whether it comes before the run.
    replaces : bool
        Whether there is another image afterwards.
    """

    codes: frozenset[int]
    act: Callable[[Scene], None] | None = None
    fault: str = "stop"
    variants: tuple[str, ...] = ("",)
    workers: tuple[int, ...] = (1,)
    may_restart: bool = False
    is_before: bool = False
    replaces: bool = False


def _kind(
    codes: tuple[int, ...], act: Callable[[Scene], None] | None = None, **more: object
) -> Kind:
    return Kind(frozenset({0, *codes}), act, **more)  # type: ignore[arg-type]


KINDS: Mapping[str, Kind] = {
    "kill -9 client": _kind((-9,), _kill, workers=(1, 1, 1, 2)),
    "kill -9 worker": _kind((), _kill_worker, workers=(2,)),
    "kill -9 all": _kind((-9,), _kill_all, workers=(1, 2)),
    "SIGTERM": _kind((-15,), _terminate),
    "SIGINT": _kind((130,), _interrupt),
    "writes fail, disk full": _kind((1,), fault="full", variants=("1", "5", "")),
    "small disk": _kind((1,), fault="disk"),
    "store fails": _kind((1,), fault="fail", workers=(1, 1, 1, 2)),
    "store stalls": _kind((), fault="stall"),
    # Metadata that are cut short are a spoilt image, as far as anybody can tell.
    "store reads short": _kind((1, 2), fault="short", workers=(1, 1, 1, 2)),
    "chunk damaged before": _kind(
        (1,), _damage, variants=("cut", "zero tail", "noise"), may_restart=True, is_before=True
    ),
    "chunk damaged during": _kind(
        (1, 2), _damage, variants=("cut", "zero tail", "noise"), may_restart=True
    ),
    "clock jumps": _kind((75,), _jump, fault="clock"),
    "two runs": _kind((75,), _second, variants=("stopped", "together")),
    "label deleted": _kind(
        (1, 2, 75), _delete, variants=("earlier", "hidden", "labels"), may_restart=True
    ),
    "image replaced": _kind(
        (1, 2, 75), _replace, variants=("chunks", "folder"), may_restart=True, replaces=True
    ),
}
"""Every kind of disturbance."""


@contextlib.contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Callable[[], None]]:
    """Put a file system with little room at a folder; yields what gives it more.

    Parameters
    ----------
    folder : Path
        An empty directory.
    room : int
        Bytes.
    """
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", folder], check=True)
    more = ["mount", "-o", "remount,size=1g", folder]
    try:
        yield lambda: (subprocess.run(more, check=True), None)[1]
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount(folder: Path) -> bool:
    """Return whether a file system may be mounted here: by root, mostly."""
    done = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False
    )
    return done.returncode == 0


def room_taken(folder: Path) -> int:
    """Return the bytes that all files below a folder take, in whole pages."""
    return sum(-(-p.stat().st_size // PAGE) * PAGE for p in folder.rglob("*") if p.is_file())
