"""Is a table of ten million instances written in bounded memory? `python -m bench tables OUT`.

Sums of painted blocks are made up as a run would leave them (a file a block, objects on borders in
two files), then the last stage merges them and writes the table: in this process, or on workers
(`--workers`). Memory and CPU time are this process's.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.config import ResultConfig, SegmentConfig
from anystar_batch.engine.engines import open_engine
from anystar_batch.events import ignore
from anystar_batch.measure.partials import INTEGER, SHAPE, Partials
from anystar_batch.network.predictor import KerasFactory
from anystar_batch.parsing import parse_diameter
from anystar_batch.stages import workdir
from anystar_batch.stages.label_sums import save_sums
from anystar_batch.stages.ledger import Ledger
from anystar_batch.stages.plan import Plan
from anystar_batch.stages.run import Run
from anystar_batch.stages.star_scores import score_type
from anystar_batch.stages.table import table_run
from anystar_batch.stages.task import Work
from bench.run import phantom, plan_of

A_FILE = 20_000
"""Labels of a block."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench tables", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--instances", type=int, nargs="*", default=[100_000, 10_000_000])
    parser.add_argument("--kind", default="csv", choices=["csv", "parquet"])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    image = phantom(options.out, 64, 3.5, "sparse")
    config = SegmentConfig(image=str(image), result=ResultConfig(diameter=parse_diameter("7px")))
    plan, _ = plan_of(config)
    for count in options.instances:  # ascending: the peak of a process never falls
        folder = options.out / f"work-{count}"
        if not folder.exists():
            sums(folder, count, plan)
        print(json.dumps(measure(folder, count, options.kind, plan, options.workers)), flush=True)


def sums(folder: Path, count: int, plan: Plan) -> None:
    """Write the files and the ledger's entries."""
    for name in (workdir.PARTIALS, workdir.ROWS):
        (folder / name).mkdir(parents=True)
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
        known = np.zeros(len(shape), score_type(plan))
        known["prob"] = 0.5
        part = Partials(shape, intensity)
        scores = (shape["label"], known)
        noted = save_sums(folder, f"{number}.npy", [unit], [(unit, part)], scores)
        entries[str(number)] = noted[unit]
    (folder / "entries.json").write_text(json.dumps(entries))


def measure(folder: Path, count: int, kind: str, plan: Plan, workers: int) -> dict[str, Any]:
    """Write the table; return what it cost."""
    painted = json.loads((folder / "entries.json").read_text())
    for piece in (folder / workdir.ROWS).iterdir():
        piece.unlink()
    (folder / "ledger.jsonl").unlink(missing_ok=True)
    factory = KerasFactory("float32")
    path = folder.with_suffix(f".{kind}")
    with open_engine(workers, 4 * 10**9) as engine, Ledger(folder, "bench", {}) as ledger:
        ledger.done("number", {"0": {"count": count}})
        ledger.done("paint", painted)
        work = Work(plan, str(folder), str(folder), factory, 1)
        began, cpu = time.perf_counter(), time.process_time()
        table_run(Run(work, ledger, engine, ignore, (64, 64, 64)), path)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "instances": count,
        "kind": kind,
        "workers": workers,
        "wall": round(wall, 1),
        "cpu": round(cpu, 1),
        "sums_bytes": sum(f.stat().st_size for f in (folder / workdir.PARTIALS).iterdir()),
        "table_bytes": path.stat().st_size,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
