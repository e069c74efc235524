"""The whole command against the bare network, in one run: `python -m bench run OUT`.

On each phantom (`--density`) and each mosaic of a real volume (`--mosaics`) the command is run with
its network loaded, and the bare network is run on the very same tiles (window, context, precision),
already read and normalised; in turn, several times. Useful voxels are those of the cores.
A phantom of twice the radius, whose objects the network sees smaller, shows what the second look
costs (`--looks`). Start-up (loading the backend, compiling) is timed apart; small images, one and
several, in processes of their own (`--no-processes` leaves them out).
The command works in this process: as it does for a user, with several blocks at once, for its speed
and memory; then one block at a time, so that CPU seconds are told part by part.

    OUT/run.json   every number         OUT/run.png   seconds per part, bare network beside

`--small` is what `python -m bench check` compares: 256^3, dense, sparse and with a second look,
three times, and the processes.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.engine.engines import InlineEngine, block_threads, threads_per_worker
from anystar_batch.geometry import iter_grid
from anystar_batch.network.devices import natural_precision
from anystar_batch.network.model import load_model
from anystar_batch.network.predictor import KerasFactory, KerasPredictor
from anystar_batch.parsing import Quantity, parse_diameter
from anystar_batch.pipeline import segment
from anystar_batch.stages.plan import Plan, make_plan
from anystar_batch.stages.preprocess import tile_image
from anystar_batch.stages.sampling import all_limits
from bench.clock import timed
from bench.fresh import processes
from bench.mosaic import SETS, mosaic
from trainer.synthesis.phantom import Phantom
from trainer.synthesis.phantom_zarr import write

AFTER = ("suppress", "second look", "store candidates", "paint", "statistics", "write", "pyramid")
"""Parts that come after the network."""


class Loaded:
    """A factory that always gives the predictor that is loaded already."""

    def __init__(self, predictor: KerasPredictor) -> None:
        self.predictor = predictor

    def __call__(self, _model: object, _threads: int) -> KerasPredictor:
        """Return it."""
        return self.predictor


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench run", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="one size, for bench check")
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--radius", type=float, default=3.5, help="of the objects, voxels")
    parser.add_argument("--density", nargs="*", default=["dense", "sparse"])
    parser.add_argument("--looks", nargs="*", default=["dense"], help="densities, twice as large")
    parser.add_argument("--no-processes", action="store_true")
    parser.add_argument("--mosaics", nargs="*", default=[], choices=list(SETS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="anystar-mix")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--tile", type=int)
    options = parser.parse_args(arguments)
    sizes = options.sizes or ([256] if options.small else [256, 512])
    options.out.mkdir(parents=True, exist_ok=True)
    precision = options.precision
    precision = natural_precision("tensorflow") if precision == "auto" else precision
    model, began = load_model(options.model), time.perf_counter()
    predictor = KerasFactory(precision)(model, threads_per_worker(1))
    started = time.perf_counter() - began
    document: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "threads": threads_per_worker(1),
        "model": {"name": model.name, "version": model.version},
        "precision": precision,
        "start_up_seconds": round(started, 2),
        "images": [],
    }
    radius = options.radius
    kinds = [(name, radius) for name in (*options.density, *options.mosaics)]
    for name, each in [*kinds, *((name, 2 * radius) for name in options.looks)]:
        for size in sizes:
            image, diameter = source(options.out, name, size, each)
            config = SegmentConfig(
                image=str(image),
                result=ResultConfig(diameter=diameter, precision=precision, tile=options.tile),
                run=RunConfig(overwrite=True, report=False),
            )
            found = measure(config, predictor, options.repeats)
            document["images"].append({"size": size, "density": name, "radius": each, **found})
            print(line(document["images"][-1]), flush=True)
            (options.out / "run.json").write_text(json.dumps(document, indent=1))
    if not options.no_processes:
        document["processes"] = processes(options.out, options.repeats, precision)
        for one in document["processes"]:
            print(f"{one['name']}: CPU {spread(one['cpu'])} s, wall {spread(one['wall'])} s")
    (options.out / "run.json").write_text(json.dumps(document, indent=1))
    figure(options.out / "run.png", document)


def source(out: Path, name: str, size: int, radius: float) -> tuple[Path, Quantity]:
    """Return a phantom or a mosaic, made if it is not there, and its objects' diameter."""
    if name in SETS:
        path = out / f"{name}-{size}.ome.zarr"
        return path, Quantity(mosaic(name, size, path), "um")
    return phantom(out, size, radius, name), parse_diameter(f"{2 * radius:g}px")


def phantom(out: Path, size: int, radius: float, density: str) -> Path:
    """Return a phantom, made if it is not there."""
    path = out / f"{density}-{size}-r{radius:g}.ome.zarr"
    if not path.exists():
        write(Phantom((size, size, size), radius, density), path)
    return path


def plan_of(config: SegmentConfig) -> tuple[Plan, ImageReader]:
    """Return what the command decides."""
    model = load_model(config.model)
    reader = ImageReader(read_image(config.image))
    limits = all_limits(reader, model, 0, (0,))
    given = config.result.diameter
    diameter = None if given is None else given.in_um(reader.source.scale_um(0))
    return make_plan(reader, model, config.result, diameter, limits), reader


def measure(config: SegmentConfig, predictor: KerasPredictor, repeats: int) -> dict[str, Any]:
    """Run bare network and command in turn; medians."""
    plan, reader = plan_of(config)
    tiles = list(iter_grid(plan.tiles.counts))
    useful = int(np.prod(plan.working.shape))
    computed = sum(plan.tiles.window_box(t).size for t in tiles)

    def bare(count: int) -> tuple[float, float]:
        wall = cpu = 0.0
        for tile in tiles[:count]:
            image = tile_image(plan, reader, 0, tile)
            if image is None:
                continue
            box, core = plan.tiles.window_box(tile), plan.tiles.core_box(tile)
            a, b = time.perf_counter(), time.process_time()
            predictor.find(image, box, core, 2.0)
            wall, cpu = wall + time.perf_counter() - a, cpu + time.process_time() - b
        return wall, cpu

    for tile in tiles:  # every shape of a window is compiled once
        predictor.find(
            np.zeros(plan.tiles.window_box(tile).shape, np.float32),
            plan.tiles.window_box(tile),
            plan.tiles.core_box(tile),
            2.0,
        )
    runs = []
    for _ in range(repeats):
        network_wall, network_cpu = bare(len(tiles))
        a, b = time.perf_counter(), time.process_time()
        engine = InlineEngine(block_threads(1))
        summary = segment.segment(config, engine=engine, factory=Loaded(predictor))
        wall, cpu = time.perf_counter() - a, time.process_time() - b
        a, b = time.perf_counter(), time.process_time()
        with timed() as clock:
            segment.segment(config, engine=InlineEngine(1), factory=Loaded(predictor))
        single_wall, single_cpu = time.perf_counter() - a, time.process_time() - b
        parts = {name: asdict(spent) for name, spent in clock.parts.items()}
        parts["rest"] = {
            "wall": single_wall - sum(p["wall"] for p in parts.values()),
            "cpu": single_cpu - sum(p["cpu"] for p in parts.values()),
        }
        after = sum(parts[name]["cpu"] for name in AFTER if name in parts)
        runs.append(
            {
                "bare_wall": network_wall,
                "bare_cpu": network_cpu,
                "wall": wall,
                "cpu": cpu,
                "wall_single": single_wall,
                "cpu_single": single_cpu,
                "seconds": summary.seconds,
                "ratio_wall": network_wall / wall,
                "ratio_cpu": network_cpu / cpu,
                "after_over_network_cpu": after / parts["network"]["cpu"],
                "instances": summary.instances,
                "peak_memory": summary.peak_memory,
                "parts": parts,
            }
        )
    shutil.rmtree(Path(config.image) / "labels" / config.label, ignore_errors=True)
    return {
        "useful_voxels": useful,
        "computed_over_useful": computed / useful,
        "bare_voxels_per_second": useful / statistics.median(r["bare_wall"] for r in runs),
        "voxels_per_second": useful / statistics.median(r["wall"] for r in runs),
        "ratio_wall": spread([r["ratio_wall"] for r in runs]),
        "ratio_cpu": spread([r["ratio_cpu"] for r in runs]),
        "after_over_network_cpu": spread([r["after_over_network_cpu"] for r in runs]),
        "runs": runs,
    }


def spread(values: Sequence[float]) -> list[float]:
    """Return median, smallest and largest."""
    return [round(v, 4) for v in (statistics.median(values), min(values), max(values))]


def line(found: dict[str, Any]) -> str:
    """Return one image's result as text."""
    run = found["runs"][-1]
    parts = sorted(run["parts"].items(), key=lambda item: -item[1]["cpu"])
    each = ", ".join(f"{name} {spent['cpu']:.2f}" for name, spent in parts)
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in run["seconds"].items())
    return (
        f"{found['density']} {found['size']}^3 r{found['radius']:g}: {run['instances']} instances, "
        f"computed / useful {found['computed_over_useful']:.2f}, "
        f"{found['voxels_per_second'] / 1e6:.2f} of {found['bare_voxels_per_second'] / 1e6:.2f} "
        f"Mvoxel/s, ratio wall {found['ratio_wall']}, CPU {found['ratio_cpu']}, after the network "
        f"{found['after_over_network_cpu']} of its CPU, {run['peak_memory'] / 1e9:.2f} GB\n"
        f"  CPU seconds: {each}\n  wall seconds by stage: {stages}"
    )


def figure(path: Path, document: dict[str, Any]) -> None:
    """Draw CPU seconds per part, one bar an image."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    images = document["images"]
    names = list(dict.fromkeys(n for image in images for n in image["runs"][-1]["parts"]))
    drawing, axis = pyplot.subplots(figsize=(8, 1.2 + 0.6 * len(images)))
    for row, image in enumerate(images):
        total, left = image["runs"][-1]["cpu_single"], 0.0
        for k, name in enumerate(names):
            spent = image["runs"][-1]["parts"].get(name, {"cpu": 0.0})["cpu"] / total
            axis.barh(row, spent, left=left, color=f"C{k % 10}", label=name if row == 0 else None)
            left += spent
    axis.set_yticks(
        range(len(images)), [f"{i['density']} {i['size']}^3 r{i['radius']:g}" for i in images]
    )
    axis.set_xlabel("share of the command's CPU time")
    axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)
