"""Is a table of ten million instances written in bounded memory? `python -m bench tables OUT`.

Sums of painted blocks are made up as a run would leave them (a file a block, objects on borders in
two files), then the last stage merges them and writes the table. Memory is this process's.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from anystar_batch.measure.partials import INTEGER, SHAPE, Partials
from anystar_batch.measure.table import Frame, batches
from anystar_batch.measure.table_files import open_table
from anystar_batch.stages import workdir
from anystar_batch.stages.table import statistics
from anystar_batch.stages.workdir import Sums

A_FILE = 20_000
"""Labels of a block."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench tables", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--instances", type=int, nargs="*", default=[100_000, 10_000_000])
    parser.add_argument("--kind", default="csv", choices=["csv", "parquet"])
    options = parser.parse_args(arguments)
    for count in options.instances:  # ascending: the peak of a process never falls
        folder = options.out / f"work-{count}"
        if not folder.exists():
            sums(folder, count)
        print(json.dumps(measure(folder, count, options.kind)), flush=True)


def sums(folder: Path, count: int) -> None:
    """Write the files and the ledger's entries."""
    (folder / workdir.PARTIALS).mkdir(parents=True)
    rng = np.random.default_rng(0)
    entries: dict[str, Any] = {}
    for number, start in enumerate(range(1, count + 1, A_FILE)):
        stop = min(start + A_FILE + A_FILE // 5, count + 1)  # a fifth is in the next block too
        shape = np.zeros(stop - start, SHAPE)
        shape["label"], shape["chunk"] = np.arange(start, stop), number
        shape["num_voxels"] = 8
        shape["low"] = rng.integers(0, 10_000, (len(shape), 3))
        shape["high"] = shape["low"] + 2
        shape["sums"] = 8 * shape["low"] + 4
        for column, (a, b) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
            low = shape["low"]
            about = 4 if a == b else 2
            shape["moments"][:, column] = (
                8 * low[:, a] * low[:, b] + 4 * (low[:, a] + low[:, b]) + about
            )
        intensity = np.zeros((len(shape), 1), INTEGER)
        intensity["sum"], intensity["squares_low"] = 80, 880
        intensity["min"], intensity["max"] = 5, 20
        unit = (number, 0, 0)
        noted = workdir.save_sums(
            folder, f"{number}.npy", [unit], [(unit, Partials(shape, intensity))]
        )
        entries[str(number)] = noted[unit]
    (folder / "entries.json").write_text(json.dumps(entries))


def measure(folder: Path, count: int, kind: str) -> dict[str, Any]:
    """Write the table; return what it cost."""
    began, cpu = time.perf_counter(), time.process_time()
    source = SimpleNamespace(dtype=np.dtype(np.uint16), num_channels=1)
    run: Any = SimpleNamespace(plan=SimpleNamespace(source=source, course=()), folder=folder)
    found = Sums(folder, json.loads((folder / "entries.json").read_text()))
    frame = Frame((20_000,) * 3, (1.0, 0.5, 0.5), (0.0, 0.0, 0.0), ("0",))
    prob = np.full(count, 0.5, np.float32)
    path = folder.with_suffix(f".{kind}")
    with open_table(path) as table:
        for piece in statistics(run, found, count):
            for batch in batches(piece, frame, prob, None):
                table.write(batch)
    return {
        "instances": count,
        "kind": kind,
        "wall": round(time.perf_counter() - began, 1),
        "cpu": round(time.process_time() - cpu, 1),
        "sums_bytes": sum(f.stat().st_size for f in (folder / workdir.PARTIALS).iterdir()),
        "table_bytes": path.stat().st_size,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
