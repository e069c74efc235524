"""What a block costs the engine, and many the client: `python -m bench blocks OUT`.

The network is replaced by one that waits and finds nothing, so that everything else is the engine:
making tasks, sending them, noting what is done, opening files.

    --counts 1000 10000   blocks of a run on two workers: milliseconds of wall time a block and
                          stage, CPU milliseconds and growth of this process (client and scheduler)
    --workers 1 2 4       wall time of blocks that wait `--seconds` each, over what they must take
    --ledger 1000000      seconds to open a ledger with so many entries

    OUT/blocks.json   every number
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from numpy.typing import NDArray

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.engine.engines import open_engine
from anystar_batch.events import BlockDone, Event
from anystar_batch.geometry import Box
from anystar_batch.network.model import Model, load_model
from anystar_batch.parsing import parse_diameter
from anystar_batch.pipeline import segment
from anystar_batch.stages.ledger import Ledger

EDGE = 16
"""Edge of a block, voxels: the smallest tile, so that a plan of many blocks is a small image."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A network that takes its time and finds nothing; and its own factory.

    Parameters
    ----------
    seconds : float
        For every tile.
    """

    seconds: float

    def __call__(self, _model: Model, _threads: int) -> Waiting:
        """Return itself."""
        return self

    def find(
        self, _image: NDArray[np.float32], _window: Box, _core: Box, _prob_thresh: float
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Wait; return no points, probabilities and distances."""
        time.sleep(self.seconds)
        return np.empty((0, 3), np.int32), np.empty(0, np.float32), np.empty((0, 96), np.float32)


class Growth:
    """Largest memory of this process while open, over what it was."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Growth:
        self.before = self.peak = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(0.05):
            self.peak = max(self.peak, self._process.memory_info().rss)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench blocks", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--counts", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=0.5, help="a block's network takes")
    parser.add_argument("--ledger", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"blocks": [], "workers": []}
    for count in options.counts:
        edge = round(count ** (1 / 3))
        found["blocks"].append(run((edge,) * 3, workers=2, seconds=0.0))
        print(json.dumps(found["blocks"][-1]), flush=True)
    for workers in options.workers:
        row = run((5, 5, 8), workers=workers, seconds=options.seconds)
        least = 200 * options.seconds / workers
        row |= {"efficiency": round(least / row["seconds"]["predict"], 3)}
        found["workers"].append(row)
        print(json.dumps(row), flush=True)
    if options.ledger:
        found["ledger"] = open_ledger(options.ledger)
        print(json.dumps(found["ledger"]), flush=True)
    (options.out / "blocks.json").write_text(json.dumps(found, indent=1))


def run(counts: tuple[int, int, int], workers: int, seconds: float) -> dict[str, Any]:
    """Segment noise in so many blocks per axis; return what it cost."""
    noted: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, BlockDone):
            noted.append(event.stage)

    with tempfile.TemporaryDirectory() as folder:
        image = noise(Path(folder) / "noise.ome.zarr", counts)
        config = SegmentConfig(
            image=str(image),
            result=ResultConfig(diameter=parse_diameter("7px"), tile=EDGE, precision="float32"),
            run=RunConfig(block_shape=(EDGE,) * 3, workers=workers, report=False),
        )
        model = replace(load_model("anystar-mix"), context=0)  # as little to read as can be
        with Growth() as growth, open_engine(workers, 8_000_000_000) as engine:
            ready, began, cpu = growth.peak, time.perf_counter(), time.process_time()
            summary = segment.segment(
                config, note, engine=engine, factory=Waiting(seconds), model=model
            )
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    each = {stage: noted.count(stage) for stage in dict.fromkeys(noted)}
    return {
        "blocks": int(np.prod(counts)),
        "workers": workers,
        "wall": round(wall, 2),
        "client_cpu_ms_per_task": round(1e3 * cpu / len(noted), 3),
        "seconds": summary.seconds,
        "done": each,
        "ms_per_block": {s: round(1e3 * summary.seconds[s] / n, 3) for s, n in each.items()},
        "client_growth": growth.peak - ready,
        "client": growth.peak,
    }


def noise(path: Path, counts: tuple[int, int, int]) -> Path:
    """Write an image whose chunks are blocks: one real chunk's worth of noise, repeated."""
    shape = tuple(EDGE * n for n in counts)
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}],
                }
            ],
        }
    ]
    array = group.create_array("0", shape=shape, chunks=(EDGE,) * 3, dtype="uint8")
    slab = np.random.default_rng(0).integers(0, 255, (EDGE, *shape[1:]), np.uint8)
    for z in range(0, shape[0], EDGE):
        array[z : z + EDGE] = slab
    return path


def open_ledger(count: int) -> dict[str, Any]:
    """Write a ledger with so many entries as a run would; return how long opening it takes."""
    folder = Path(tempfile.mkdtemp())
    entry = {"file": "0-10.20.30.npy", "start": 0, "stop": 512, "content": "0" * 64, "reach": 4.5}
    with Ledger(folder, "f", {}) as ledger:
        for first in range(0, count, 1000):
            keys = [
                f"0/{k // 10_000}.{k // 100 % 100}.{k % 100}" for k in range(first, first + 1000)
            ]
            ledger.done("predict", {key: dict(entry) for key in keys})
    size = ledger.path.stat().st_size
    del ledger
    with Growth() as growth:
        began = time.perf_counter()
        with Ledger(folder, "f", {}):
            took = time.perf_counter() - began
    files = len(list(folder.iterdir()))
    shutil.rmtree(folder)
    return {
        "entries": count,
        "bytes": size,
        "files": files,
        "open_seconds": round(took, 2),
        "memory": growth.peak - growth.before,
    }


if __name__ == "__main__":
    main()
