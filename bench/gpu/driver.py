"""What a GPU does, in ten minutes: `python -m bench gpu OUT`.

Measured under every backend that is installed (those that drive a GPU, if any does): the bare
network by window and precision, the whole command on phantoms and mosaics and whether its bytes
depend on blocks or process, the command from the shell, a training step by batch.

Each part is a process of its own with a share of `--minutes`; what one leaves goes to the next.
Start, compilation and the making of images count, and are told apart; a case for which time is
too short is left out and named, and a part that goes on beyond its time is ended. Everything
measured is on disk at once:

    OUT/gpu.json   every number        OUT/gpu.md   tables        OUT/gpu-*.log   what parts print

Exit code 1 if anything failed: a part or a case (no memory for a batch is a finding), label bytes
that depend on blocks or on the process, or a GPU that the backend does not use. The rest is
measured all the same. `--quick` tries all of it in sizes that say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anystar_batch.engine.machine import usable_cores
from anystar_batch.network.devices import driver_lines, gpu_names, natural_precision
from bench.gpu.page import line, page

Document = dict[str, Any]

BACKENDS = ("jax", "tensorflow")

SHARES = (
    ("network", True, 0.20),
    ("command", True, 0.37),
    ("again", True, 0.06),
    ("shell", True, 0.07),
    ("training", True, 0.15),
    ("network", False, 0.08),
    ("training", False, 0.07),
)
"""Parts in order of worth, whether in the precision that `auto` takes, share of the time."""

QUICK_SHARES = (
    ("network", True, 0.17),
    ("command", True, 0.33),
    ("again", True, 0.14),
    ("shell", True, 0.14),
    ("training", False, 0.22),
)
"""The same with every kind once: loading a backend is most of it."""

MANY_CORES = 8
"""From so many on, making images does not hold up whoever feeds a GPU."""

ENDING = 0.01
"""Share of the time that is left for writing and for ending a process."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    Parameters
    ----------
    name : str
        One of `bench.gpu.child.PARTS`.
    backend, precision : str
    until : float
        When it has to be over, share of the whole time.
    """

    name: str
    backend: str
    precision: str
    until: float

    @property
    def title(self) -> str:
        """What tables and logs call it."""
        return f"{self.name}-{self.backend}-{self.precision}"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    minutes = options.minutes or (5.0 if options.quick else 10.0)
    backends = options.backends or natural_backends()
    if not backends:
        sys.exit("gpu: neither JAX nor TensorFlow is installed; install the extra jax-gpu or gpu")
    options.out.mkdir(parents=True, exist_ok=True)
    document: Document = {
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "minutes": minutes,
        "quick": options.quick,
        "machine": machine(),
        "parts": [],
        "failures": [],
        "seconds": 0.0,
        "ended": False,
    }
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with images_ahead(options):
        for part in parts(backends, is_quick=options.quick):
            seconds = part.until * minutes * 60.0 - (time.monotonic() - began)
            for found in run(part, seconds, options):
                document["parts"] = [p for p in document["parts"] if p["title"] != part.title]
                document["parts"].append(found)
                document["seconds"] = round(time.monotonic() - began, 1)
                judge(document)
                save(options.out, document)
    document["ended"] = True
    save(options.out, document)
    print(f"\n{options.out / 'gpu.md'}: {document['seconds']:.0f} s", flush=True)
    if document["failures"]:
        print("failed:", *document["failures"], sep="\n  ", file=sys.stderr)
        sys.exit(1)


def natural_backends() -> list[str]:
    """Return the backends that drive a GPU here; if none does, those that are installed."""
    installed = [b for b in BACKENDS if importlib.util.find_spec(b) and _has_keras()]
    return [b for b in installed if gpu_names(b)] or installed


def parts(backends: Sequence[str], *, is_quick: bool = False) -> list[Part]:
    """Return what is run, in its order; every backend has as much of the time."""
    made = []
    for number, backend in enumerate(backends):
        natural, spent = natural_precision(backend), 0.0
        other = "float32" if natural == "bfloat16" else "bfloat16"
        for name, is_natural, share in QUICK_SHARES if is_quick else SHARES:
            spent += share
            until = (number + spent) / len(backends) * (1.0 - ENDING)
            made.append(Part(name, backend, natural if is_natural else other, until))
    return made


def words(part: Part, seconds: float, pipe: int, options: argparse.Namespace) -> list[str]:
    """Return the command of a part's process."""
    told = [f"--backend={part.backend}", f"--precision={part.precision}", f"--pipe={pipe}"]
    told += [f"--seconds={seconds:.1f}", f"--model={options.model}"]
    told += ["--quick"] if options.quick else []
    return [sys.executable, "-m", "bench.gpu.child", part.name, str(options.out), *told]


@contextlib.contextmanager
def images_ahead(options: argparse.Namespace) -> Iterator[None]:
    """Make the images in a process beside the first part, where there are cores enough.

    Whoever wants one waits for it, and makes it should this process fail.
    """
    if usable_cores() < MANY_CORES:
        yield
        return
    part = Part("images", "none", "none", 1.0)
    with (options.out / "gpu-images.log").open("w") as log, Path(os.devnull).open("wb") as nowhere:
        command = words(part, 0.0, nowhere.fileno(), options)
        child = subprocess.Popen(
            ["nice", *command], pass_fds=(nowhere.fileno(),), stdout=log, stderr=log
        )
        try:
            yield
        finally:
            # Interrupted, it ends the processes that it has started.
            child.send_signal(signal.SIGINT)
            try:
                child.wait(3.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def run(part: Part, seconds: float, options: argparse.Namespace) -> Iterator[Document]:
    """Run a part; yield what is known of it whenever that is more, and once at the end.

    Parameters
    ----------
    part : Part
    seconds : float
        After which it is ended.
    options : Namespace
        Of the command line.

    Yields
    ------
    dict
        Always the same one.
    """
    found: Document = {
        "title": part.title,
        "name": part.name,
        "backend": part.backend,
        "precision": part.precision,
        "budget_seconds": round(seconds, 1),
        "rows": [],
        "left_out": [],
    }
    if seconds < 1.0:
        yield found | {"left_out": [{"left_out": "everything", "why": "no time"}]}
        return
    began, case, is_done, before = time.monotonic(), "its start", False, os.times()
    read, write = os.pipe()
    log = options.out / f"gpu-{part.title}.log"
    with log.open("w") as printed:
        child = subprocess.Popen(
            words(part, 0.97 * seconds, write, options),
            pass_fds=(write,),
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        os.close(write)
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        try:
            with os.fdopen(read) as pipe:
                for text in pipe:
                    message = _parsed(text)
                    case = message.get("begun", case)
                    is_done = is_done or "done" in message
                    if "device" in message:
                        found |= message
                    elif "row" in message:
                        found["rows"].append(message["row"])
                        print(line(part.title, message["row"]), flush=True)
                    elif "left_out" in message:
                        found["left_out"].append(message)
                    found["seconds"] = round(time.monotonic() - began, 1)
                    yield found
            code = child.wait()
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()
    found["seconds"], spent = round(time.monotonic() - began, 1), os.times()
    user, system = spent.children_user, spent.children_system
    found["cpu_seconds"] = round(user + system - before.children_user - before.children_system, 1)
    if not is_done and code == -signal.SIGKILL and found["seconds"] >= seconds - 1.0:
        found["ended_in"] = case
        if not found["rows"]:
            found["error"] = f"nothing measured within {seconds:.0f} s: ended in {case}"
    elif not is_done or code:
        tail = log.read_text(errors="replace").strip()[-600:]
        found["error"] = f"exit {code} in {case}: {tail}"
    elif not found["rows"]:
        found["error"] = "nothing measured: no time"
    yield found


def judge(document: Document) -> None:
    """Note everything that failed so far."""
    failures, digests = [], {}
    for part in document["parts"]:
        title, device = part["title"], part.get("device", "")
        if "error" in part:
            failures.append(f"{title}: {part['error']}")
        if device.startswith("cpu") and document["machine"]["gpus"]:
            failures.append(f"{title}: computed on the processor, though there is a GPU")
        for row in part["rows"]:
            if "error" in row:
                failures.append(f"{title}: {row['case']}: {row['error']}")
            for blocks, digest in row.get("digests", {}).items():
                first = digests.setdefault((part["backend"], blocks), digest)
                if part["name"] == "again":
                    row["same_bytes"] = first == digest
            if row.get("same_bytes") is False:
                failures.append(f"{title}: {row['case']}: the label's bytes differ")
    document["failures"] = failures


def save(out: Path, document: Document) -> None:
    """Write numbers and tables, each whole or not at all."""
    for name, text in (("gpu.json", json.dumps(document, indent=1)), ("gpu.md", page(document))):
        draft = out / f".{name}.partial"
        draft.write_text(text + "\n")
        draft.replace(out / name)


def machine() -> Document:
    """Return what this machine is."""
    names = ("jax", "tensorflow", "keras", "numpy", "numba", "zarr")
    return {
        "gpus": driver_lines("name,driver_version,memory.total"),
        "processor": platform.machine(),
        "cores": usable_cores(),
        "python": platform.python_version(),
        "versions": {name: version for name in names if (version := _version(name))},
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("JAX_", "XLA_"))},
    }


def _version(name: str) -> str | None:
    for distribution in (name, f"{name}-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


def _has_keras() -> bool:
    return importlib.util.find_spec("keras") is not None


def _parsed(text: str) -> Document:
    """A message; nothing if the process was ended while it wrote."""
    try:
        message: Document = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return message


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, help="for everything; default 10, 5 with --quick")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--backends", nargs="*", choices=BACKENDS)
    parser.add_argument("--model", default="anystar-mix")
    return parser
