"""The command as a shell runs it: its own process, with the workers that it chooses itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from anystar_batch.engine.engines import natural_workers
from anystar_batch.engine.machine import available_memory
from anystar_batch.network.devices import gpu_names
from bench.gpu import scenes
from bench.gpu.network import Message
from bench.gpu.sizes import Sizes


def rows(
    sizes: Sizes, folder: Path, backend: str, precision: str, left: Callable[[], float]
) -> Iterator[Message]:
    """Segment one image, start and compilation included; one worker where Dask is not installed.

    Parameters
    ----------
    sizes : Sizes
    folder : Path
        Where images are made.
    backend, precision : str
    left : callable
        Seconds left to this part.

    Yields
    ------
    dict
    """
    scene = sizes.shell
    image, diameter, making = scenes.make(scene, folder)
    words = ["segment", str(image), "--diameter", str(diameter), "--backend", backend]
    words += ["--precision", precision, "--overwrite", "--restart", "--no-report", "--quiet"]
    several = natural_workers(available_memory(), len(gpu_names(backend)))
    cases = [("one worker", ["--workers", "1"])]
    if several > 1 and has_dask():
        cases.insert(0, (f"its own {several} workers", []))
    for name, more in cases:
        case = f"shell, {scene.name}, {name}"
        yield {"begun": case}
        began = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "anystar_batch", *words, *more],
                capture_output=True,
                text=True,
                check=False,
                timeout=max(1.0, left()),
            )
        except subprocess.TimeoutExpired:
            yield {"left_out": case, "why": "not done in the time left"}
            return
        wall = time.monotonic() - began
        row = {"case": case, "voxels": scene.size**3, "making_seconds": making}
        if done.returncode:
            row["error"] = f"exit {done.returncode}: {done.stderr.strip()[-600:]}"
        else:
            row |= {"wall": round(wall, 2), "mvoxels": round(scene.size**3 / wall / 1e6, 3)}
        yield {"row": row}
    if several > 1 and len(cases) == 1:
        yield {"left_out": f"shell, {scene.name}, {several} workers", "why": "no distributed"}


def has_dask() -> bool:
    """Whether several workers can be started."""
    return importlib.util.find_spec("distributed") is not None
