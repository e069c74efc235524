"""The whole command in this process against the bare network, and whether its bytes depend on it.

Of an image the bare network is run on the very tiles that the command computes, already read and
normalised, and the command with its network loaded, in turn. The device's share is the time within
the network's calls, which return when the device is done, over the command's. Then the command
runs once more, one block at a time, and its parts are told one by one: the second look runs on the
processor whatever the device is.

Bytes: one phantom of several tiles, in two block shapes. The driver has another process repeat the
first of them, as a process may choose other kernels.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.engine.engines import InlineEngine, block_threads
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.network.predictor import Found, Predictor
from anystar_batch.pipeline import segment
from anystar_batch.stages.preprocess import tile_image
from bench.clock import timed
from bench.gpu import scenes
from bench.gpu.device import Clock, Device, Utilisation
from bench.gpu.network import Message, failure
from bench.gpu.sizes import Scene, Sizes
from bench.run import Loaded, plan_of

FORMAT = 1000.0
"""Seconds are written as whole milliseconds."""


@dataclass(slots=True, eq=False)
class Counted:
    """A predictor whose time is summed; one call at a time, as the command calls it.

    Parameters
    ----------
    predictor : Predictor
    clock : callable
    seconds : float
        So far.
    calls : int
        So far.
    """

    predictor: Predictor
    clock: Clock = time.perf_counter
    seconds: float = 0.0
    calls: int = 0

    def find(self, image: Any, window: Box, core: Box, prob_thresh: float) -> Found:  # noqa: ANN401
        """Ask the predictor; see `Predictor.find`."""
        began = self.clock()
        try:
            return self.predictor.find(image, window, core, prob_thresh)
        finally:
            self.seconds += self.clock() - began
            self.calls += 1


@dataclass(slots=True)
class Bench:
    """What all cases of this part share.

    Parameters
    ----------
    sizes : Sizes
    folder : Path
        Where images are made.
    predictor : Predictor
    device : Device
    precision : str
    left : callable
        Seconds left to this part.
    clock : callable
    """

    sizes: Sizes
    folder: Path
    predictor: Predictor
    device: Device
    precision: str
    left: Callable[[], float]
    clock: Clock = time.perf_counter

    def config(self, image: Path, diameter: Any, **more: Any) -> SegmentConfig:  # noqa: ANN401
        """Return what the command is asked."""
        blocks = more.pop("block_shape", None)
        asked = {"backend": self.device.backend, "precision": self.precision} | more
        return SegmentConfig(
            image=str(image),
            result=ResultConfig(diameter=diameter, **asked),
            run=RunConfig(overwrite=True, restart=True, report=False, block_shape=blocks),
        )


def rows(bench: Bench) -> Iterator[Message]:
    """Compare bytes, then measure every image; what fails is told, and the next one begins."""
    yield from bytes_rows(bench, (1, 2))
    cost = 0.0
    with Utilisation() as utilisation:
        for scene in map(scenes.real_scene, bench.sizes.scenes):
            # An image of eight times the voxels costs no less than eight times the seconds, less
            # what does not grow: half of that is a fair guess.
            if bench.left() < cost * scene.size**3 / 2:
                yield {"left_out": scene.name, "why": "no time"}
                continue
            yield {"begun": scene.name}
            began = time.monotonic()
            try:
                row = measured(bench, scene, utilisation)
            except Exception as error:  # noqa: BLE001  (told, and the next image begins)
                row = failure(error)
            cost = max(cost, (time.monotonic() - began) / scene.size**3)
            yield {"row": {"case": scene.name, **row}}


def bytes_rows(bench: Bench, sides: tuple[int, ...]) -> Iterator[Message]:
    """Segment one phantom in block shapes of so many tiles along each axis; tell the digests."""
    edge, tile = bench.sizes.bytes_edge, bench.sizes.bytes_tile
    case = f"bytes, dense {edge}^3, tiles of {tile}"
    yield {"begun": case}
    try:
        image, diameter, _ = scenes.make(Scene("dense", edge), bench.folder)
        found = {}
        for side in sides:
            config = bench.config(image, diameter, tile=tile, block_shape=(side * tile,) * 3)
            engine, factory = InlineEngine(block_threads(1)), Loaded(bench.predictor)
            summary = segment.segment(config, engine=engine, factory=factory)
            found[f"blocks of {side * tile}"] = digest(image / "labels" / config.label)
            shutil.rmtree(image / "labels" / config.label)
    except Exception as error:  # noqa: BLE001  (told, and images are measured all the same)
        yield {"row": {"case": case, **failure(error)}}
        return
    same = len(set(found.values())) == 1
    told = {"same_bytes": same} if len(sides) > 1 else {}
    yield {"row": {"case": case, "instances": summary.instances, "digests": found, **told}}


def digest(folder: Path) -> str:
    """Return the SHA-256 of every file of a label, its metadata too."""
    made = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        made.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        made.update(path.read_bytes())
    return made.hexdigest()


def measured(bench: Bench, scene: Scene, utilisation: Utilisation) -> dict[str, Any]:
    """Measure one image.

    Parameters
    ----------
    bench : Bench
    scene : Scene
    utilisation : Utilisation
        Open.
    """
    image, diameter, making = scenes.make(scene, bench.folder)
    config = bench.config(image, diameter, refine=scene.refine)
    plan, reader = plan_of(config)
    tiles = list(iter_grid(plan.tiles.counts))
    useful = int(np.prod(plan.working.shape))
    images = {tile: tile_image(plan, reader, 0, tile) for tile in tiles}
    clock, walls, bares, shares, busy = bench.clock, [], [], [], []

    def bare(some: list[Any]) -> float:
        spent = 0.0
        for tile in some:
            given = images[tile]
            if given is not None:
                began = clock()
                box, core = plan.tiles.window_box(tile), plan.tiles.core_box(tile)
                bench.predictor.find(given, box, core, 2.0)
                spent += clock() - began
        return spent

    shapes = {plan.tiles.window_box(t).shape: t for t in tiles}
    first = bare(list(shapes.values()))
    for _ in range(1 + bench.sizes.repeats):
        bares.append(bare(tiles))
        counted = Counted(bench.predictor, clock)
        began, at = clock(), time.perf_counter()
        engine = InlineEngine(block_threads(1))
        summary = segment.segment(config, engine=engine, factory=Loaded(counted))
        walls.append(clock() - began)
        shares.append(counted.seconds / walls[-1])
        busy.append(utilisation.mean(at, time.perf_counter()))
        if bench.left() < 3 * walls[-1]:
            break
    later = slice(min(1, len(walls) - 1), None)  # the first one compiles for the distances
    wall, alone = statistics.median(walls[later]), statistics.median(bares[later])
    row = {
        "voxels": scene.size**3,
        "useful_voxels": useful,
        "computed_over_useful": round(computed(plan, tiles) / useful, 3),
        "instances": summary.instances,
        "making_seconds": making,
        "first_seconds": milli(first),
        "bare_seconds": milli(alone),
        "walls": [milli(w) for w in walls],
        "wall": milli(wall),
        "bare_mvoxels": round(useful / alone / 1e6, 3),
        "mvoxels": round(useful / wall / 1e6, 3),
        "ratio": round(alone / wall, 4),
        "device_share": round(statistics.median(shares[later]), 4),
        "gpu_percent": busy[-1],
        "stages": {k: milli(v) for k, v in summary.seconds.items()},
        "peak_host_bytes": summary.peak_memory,
        "peak_device_bytes": bench.device.risen(),
        **one_by_one(bench, config),
    }
    shutil.rmtree(image / "labels" / config.label, ignore_errors=True)
    return row


def computed(plan: Any, tiles: list[Any]) -> int:  # noqa: ANN401
    """Return the voxels of all windows."""
    return sum(plan.tiles.window_box(t).size for t in tiles)


def one_by_one(bench: Bench, config: SegmentConfig) -> dict[str, Any]:
    """Run the command one block at a time; return seconds part by part."""
    began, cpu = bench.clock(), time.process_time()
    with timed() as clock:
        segment.segment(config, engine=InlineEngine(1), factory=Loaded(bench.predictor))
    wall, cpu = bench.clock() - began, time.process_time() - cpu
    parts = {
        name: {kind: milli(seconds) for kind, seconds in asdict(spent).items()}
        for name, spent in clock.parts.items()
    }
    look = clock.parts.get("second look")
    return {
        "single_wall": milli(wall),
        "single_cpu": milli(cpu),
        "parts": parts,
        "second_look_share": round(look.wall / wall, 4) if look else 0.0,
    }


def milli(seconds: float) -> float:
    """Return seconds to the millisecond."""
    return round(seconds * FORMAT) / FORMAT
