"""What a whole process costs, from the shell: a small image, and many of them in one command.

CPU seconds are those of the process and all that it started, from the operating system. Of a small
image nearly all of it is start-up: interpreter, imports, network, its compilation.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trainer.synthesis.phantom import Phantom
from trainer.synthesis.phantom_zarr import write

EDGE = 64
"""Voxels of a small image along each axis."""

BATCH = 8
"""Images of the batch."""


def processes(out: Path, repeats: int, precision: str) -> list[dict[str, Any]]:
    """Segment one small image and a batch of them, each in a fresh process.

    Parameters
    ----------
    out : Path
        Where the images are made and the results go.
    repeats : int
        How often.
    precision : str
        As `--precision`.

    Returns
    -------
    list of dict
        `name`, and for every repeat its `cpu` and `wall` seconds.
    """
    images = []
    for number in range(BATCH):
        images.append(out / f"small-{EDGE}-{number}.ome.zarr")
        if not images[-1].exists():
            write(Phantom((EDGE,) * 3, 3.5, "sparse", seed=number), images[-1])
    found = []
    for name, some in ((f"one image of {EDGE}^3", images[:1]), (f"{BATCH} of {EDGE}^3", images)):
        runs = [_run(some, precision) for _ in range(repeats)]
        found.append({"name": name, "cpu": [c for c, _ in runs], "wall": [w for _, w in runs]})
    return found


def _run(images: list[Path], precision: str) -> tuple[float, float]:
    """CPU and wall seconds of `segment` in a process of its own."""
    words = ["segment", *map(str, images), "--diameter", "7px", "--overwrite", "--no-report"]
    words += ["--precision", precision, "--quiet"]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "anystar_batch", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode != 0:
        sys.exit(f"anystar-batch {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    spent = after.children_user - before.children_user
    return spent + after.children_system - before.children_system, wall
