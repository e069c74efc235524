"""One long run, disturbed: `python -m bench giant OUT --edge 2720` (20 gigavoxels).

The image lies nowhere (`bench.virtual_image`): its chunks are made when the command reads them, and
its objects are known. The real command with the real network runs over it in a process of its own,
is killed with all its workers (SIGKILL) in the middle of the network's stage and again while labels
are painted, and goes on with other blocks each time. Then everything is counted::

    OUT/giant.json     every number
    OUT/giant.png      memory of all processes, reads, and pieces done over time
    OUT/results        label, table, run record, report

The same command goes on where an earlier one was stopped; what was counted before a stop is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.storage.atomic_write import write_json_atomic
from anystar_batch.geometry import ZYX, Box, as_zyx
from bench.virtual_image import Torus, VirtualImage, torus

KILLS = (("predict", 0.4), ("paint", 0.5))
"""Stage, and share of its pieces after which everything is killed."""

BLOCKS = ((), (512, 768, 640), (384, 384, 1024))
"""`--block-shape` of the first run and after each kill, (z, y, x); the first is its own."""

DIAMETER, WORKING, TILE = 20.0, 7.0, 256
"""Of the objects, micrometres and working voxels; edge of a tile, working voxels."""

EVERY = 2.0
"""Seconds between two looks at memory and progress."""

NEAR = 0.5
"""Distance to a true centre, over the radius, within which an instance is that object."""

SHOWN = ("predict", "suppress", "refine", "paint")
"""Stages whose pieces are drawn."""

BOXES, EDGE = 24, 192
"""Boxes of labels that are read back and compared with the table, and their edge, voxels."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, disturb, count."""
    parser = argparse.ArgumentParser(prog="python -m bench giant", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--edge", type=int, default=2720, help="voxels, a multiple of 4")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    block = torus()
    shape = as_zyx((options.edge,) * 3)
    with VirtualImage(block, shape) as image:
        journey = run(image, options.out, options.workers)
        found = count(block, image.shape, options.out) | journey
    found["edge"], found["gigavoxels"] = options.edge, float(np.prod(shape) / 1e9)
    write_json_atomic(options.out / "giant.json", found)
    draw(options.out / "giant.png", found["seen"])
    print(json.dumps({k: v for k, v in found.items() if k != "seen"}, indent=1))
    if found["problems"]:
        sys.exit(1)


@dataclass(frozen=True, slots=True)
class Leg:
    """From one start of the command to its end or its death.

    Parameters
    ----------
    blocks : tuple of int
        `--block-shape`, (z, y, x); empty is the command's own.
    kill : (stage, share) or None
    """

    blocks: tuple[int, ...]
    kill: tuple[str, float] | None


def run(image: VirtualImage, out: Path, workers: int) -> dict[str, Any]:
    """Segment, killed and resumed; return seconds, memory over time and what was read."""
    began, seen, legs = time.monotonic(), list[dict[str, float]](), []
    todo = [Leg(b, k) for b, k in zip(BLOCKS, [*KILLS, None], strict=True)]
    for leg in todo:
        started = time.monotonic()
        code, killed = _leg(image, out, workers, leg, began, seen)
        legs.append({"blocks": leg.blocks, "seconds": round(time.monotonic() - started, 1),
                     "killed": killed, "code": code})  # fmt: skip
        print(legs[-1], file=sys.stderr, flush=True)
        if code not in {0, -signal.SIGKILL}:
            sys.exit(f"the command failed with {code}: see {out / 'log.txt'}")
        if code == 0:
            break
    seconds = time.monotonic() - began
    written = sum(p.stat().st_size for p in (out / "results").rglob("*") if p.is_file())
    return {
        "legs": legs,
        "seconds": round(seconds, 1),
        "seconds_per_gigavoxel": round(seconds / (np.prod(image.shape) / 1e9), 1),
        "read_bytes": image.counts["bytes"],
        "requests": image.counts["requests"],
        "result_bytes": written,
        "peak_memory": max(s["memory"] for s in seen),
        "seen": seen,
    }


def _leg(
    image: VirtualImage,
    out: Path,
    workers: int,
    leg: Leg,
    began: float,
    seen: list[dict[str, float]],
) -> tuple[int, str]:
    """Start the command, watch it, kill it when its time has come."""
    words = [sys.executable, "-m", "anystar_batch", "segment", image.url, "--diameter",
             f"{DIAMETER:g}um", "--tile", str(TILE), "--output", str(out / "results"),
             "--stats", str(out / "results" / "giant.parquet"), "--work-dir", str(out / "work"),
             "--workers", str(workers)]  # fmt: skip
    words += ["--block-shape", *map(str, leg.blocks)] if leg.blocks else []
    with (out / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        while process.poll() is None:
            time.sleep(EVERY)
            done, total = progress(out), pieces(out, image.shape)
            row = {"second": round(time.monotonic() - began, 1), "memory": _memory(process.pid)}
            seen.append(row | {"bytes": float(image.counts["bytes"])} | done)
            if leg.kill is None:
                continue
            stage, share = leg.kill
            if 0 < share * total.get(stage, 0) <= done.get(stage, 0.0):
                # Workers are in the group: nobody says goodbye.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return -signal.SIGKILL, f"{stage} after {done[stage]:.0f} of {total[stage]}"
    return process.returncode, ""


def progress(out: Path) -> dict[str, float]:
    """Return how many pieces of each stage the ledger of the work directory has."""
    done: dict[str, float] = {}
    for ledger in (out / "work").glob("*/ledger.jsonl"):
        with ledger.open("rb") as lines:
            for line in lines:
                if line.startswith(b'{"stage": "'):
                    stage = line[11 : line.index(b'"', 11)].decode()
                    done[stage] = done.get(stage, 0.0) + 1
    return done


def pieces(out: Path, shape: ZYX) -> dict[str, int]:
    """Return how many tiles are predicted, and how many units painted, once there is a label."""
    found = {"predict": math.prod(-(-round(n * WORKING / DIAMETER) // TILE) for n in shape)}
    for path in (out / "results").glob(".*/0/zarr.json"):
        unit = json.loads(path.read_text())["chunk_grid"]["configuration"]["chunk_shape"]
        found["paint"] = math.prod(-(-n // u) for n, u in zip(shape, unit, strict=True))
    return found


def _memory(pid: int) -> float:
    """Bytes that a process and all below it hold to themselves."""
    total = 0
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in [top, *top.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss - process.memory_info().shared
    return float(total)


def count(block: Torus, shape: ZYX, out: Path) -> dict[str, Any]:
    """Compare the table with the truth, and the label with the table.

    Parameters
    ----------
    block : Torus
    shape : (z, y, x)
        Of the image.
    out : Path

    Returns
    -------
    dict
        Counts, and `problems`: what must not be.
    """
    table = pyarrow.parquet.read_table(out / "results" / "giant.parquet")
    columns = {name: np.asarray(table[name]) for name in ("label", "num_voxels")}
    centroid = np.stack([np.asarray(table[f"centroid_{a}"]) for a in "zyx"], axis=1)
    truth = _truth(block, shape)
    matched = _match(block, shape, centroid)
    problems = []
    numbers = columns["label"]
    if not np.array_equal(np.sort(numbers), np.arange(1, len(numbers) + 1)):
        problems.append("labels are not 1 to n")
    boxes = _boxes(out, shape, numbers, columns["num_voxels"], centroid)
    problems += boxes.pop("problems")
    balls = 4 / 3 * np.pi * block.radii[np.maximum(matched.object, 0)] ** 3
    sizes = columns["num_voxels"] / balls
    return {
        "found": len(numbers),
        "true": truth["all"],
        "true_whole": truth["whole"],
        "true_whole_found": matched.whole_found,
        "false": int(np.sum(matched.object < 0)),
        "twice": matched.twice,
        "median_volume_ratio": round(float(np.median(sizes[matched.object >= 0])), 4),
        "boxes": boxes,
        "problems": problems,
    }


def _margin(block: Torus) -> float:
    """Distance from the image's border at which an object is whole, voxels."""
    return float(1.2 * block.radii.max())


def _copies(block: Torus, shape: ZYX) -> Iterator[NDArray[np.float64]]:
    """Yield the centres of every repetition of the block that begins inside the image."""
    period = block.levels[0].shape[0]
    for index in itertools.product(*(range(-(-n // period)) for n in shape)):
        yield block.centres + np.array(index) * period


def _truth(block: Torus, shape: ZYX) -> dict[str, int]:
    """Objects whose centre is in the image, and those of them that no border cuts."""
    counts, margin, extent = Counter[str](), _margin(block), np.array(shape)
    for centres in _copies(block, shape):
        counts["all"] += int(np.all(centres < extent, axis=1).sum())
        inside = (centres >= margin) & (centres < extent - margin)
        counts["whole"] += int(inside.all(axis=1).sum())
    return dict(counts)


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Instances and the objects that they are.

    Parameters
    ----------
    object : int64 [n]
        Number of the object in the block; -1 of a false instance.
    whole_found : int
        Objects inside that at least one instance is.
    twice : int
        Instances beyond the first of an object.
    """

    object: NDArray[np.int64]
    whole_found: int
    twice: int


def _match(block: Torus, shape: ZYX, centroid: NDArray[np.float64]) -> Matched:
    """Find the nearest true centre of every instance, around the torus."""
    period = block.levels[0].shape[0]
    tree = cKDTree(block.centres % period, boxsize=period)
    far, nearest = (np.asarray(found) for found in tree.query(centroid % period))
    true = far <= NEAR * block.radii[nearest]
    centres = block.centres[nearest] % period
    copy = np.rint((centroid - centres) / period).astype(np.int64)
    named = np.concatenate([copy, nearest[:, None]], axis=1)[true]
    where = (copy * period + centres)[true]
    margin, extent = _margin(block), np.array(shape)
    is_whole = ((where >= margin) & (where < extent - margin)).all(axis=1)
    return Matched(
        object=np.where(true, nearest, -1),
        whole_found=len(np.unique(named[is_whole], axis=0)),
        twice=len(named) - len(np.unique(named, axis=0)),
    )


def _boxes(
    out: Path,
    shape: ZYX,
    numbers: NDArray[np.int64],
    voxels: NDArray[np.int64],
    centroid: NDArray[np.float64],
) -> dict[str, Any]:
    """Read boxes of the label back: whoever lies inside one has the table's voxels and centroid."""
    reader = ImageReader(read_image(str(next((out / "results").glob("*.ome.zarr")))))
    rng = np.random.default_rng(5)
    size = np.zeros(len(numbers) + 1, np.int64)
    size[numbers] = voxels
    middle = np.zeros((len(numbers) + 1, 3))
    middle[numbers] = centroid
    checked, problems = 0, list[str]()
    for _ in range(BOXES):
        start = [int(rng.integers(0, max(1, n - EDGE))) for n in shape]
        box = Box.of_shape(as_zyx(min(EDGE, n) for n in shape)).shift(as_zyx(start))
        labels = reader.read_box(0, 0, 0, box)
        counts: NDArray[np.int64] = np.bincount(labels.ravel())
        if len(counts) > len(size):
            problems.append(f"{box}: label {len(counts) - 1} is not in the table")
            continue
        for number, found in enumerate(ndimage.find_objects(labels.astype(np.int64)), start=1):
            cut = found is None or any(
                s.start == 0 or s.stop == n for s, n in zip(found, labels.shape, strict=True)
            )
            if cut:
                continue
            checked += 1
            at = np.argwhere(labels[found] == number).mean(axis=0)
            at += [s.start + a for s, a in zip(found, start, strict=True)]
            if counts[number] != size[number] or np.abs(at - middle[number]).max() > 0.01:
                problems.append(f"label {number}: {counts[number]} voxels, table {size[number]}")
    return {"instances": checked, "problems": problems}


def draw(path: Path, seen: Sequence[dict[str, float]]) -> None:
    """Draw memory, bytes read and pieces done against time."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    memory, read, done = figure.subplots(3, sharex=True)
    minutes = [row["second"] / 60 for row in seen]
    memory.plot(minutes, [row["memory"] / 1e9 for row in seen])
    memory.set(ylabel="memory, GB", ylim=(0, None))
    read.plot(minutes, [row["bytes"] / 1e9 for row in seen])
    read.set(ylabel="read, GB", ylim=(0, None))
    stages = dict.fromkeys(k for row in seen for k in row if k in SHOWN)
    for stage in stages:
        total = max(row.get(stage, 0.0) for row in seen)
        done.plot(minutes, [row.get(stage, math.nan) / total for row in seen], label=stage)
    done.set(ylabel="share of pieces done", xlabel="minutes", ylim=(0, None))
    done.legend()
    figure.savefig(path, dpi=120)
