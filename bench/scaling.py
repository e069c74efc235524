"""Does a voxel cost the same in a large volume? `python -m bench scaling OUT`.

The network is replaced by one that answers from the phantom's truth and whose own CPU seconds are
taken off, so that everything else shows: reading, suppression, painting, pyramid, statistics. One
process, tiles and blocks of 128^3 voxels (`--tile`), the same `--memory` for every volume.

    OUT/scaling.json   every number          OUT/scaling.png   CPU seconds, memory
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.engine.engines import InlineEngine
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.network.model import Model, load_model
from anystar_batch.parsing import parse_diameter, parse_memory
from anystar_batch.pipeline import segment
from anystar_batch.stars.rays import rays_from_config
from bench.run import phantom as phantom_image
from trainer.synthesis.phantom import SPREAD, STRETCH, Phantom
from trainer.synthesis.targets import targets

BLOCK = 128
"""Edge of tiles and blocks, voxels."""


@dataclass(slots=True, eq=False)
class TruthPredictor:
    """Answers what a perfect network would, and counts the CPU seconds that takes.

    Parameters
    ----------
    phantom : Phantom
        Its voxels are the working voxels.
    model : Model
        For rays and grid.
    cpu : float
        Seconds so far.
    """

    phantom: Phantom
    model: Model
    cpu: float = 0.0

    def __call__(self, _model: Model, _threads: int) -> TruthPredictor:
        """Return itself: it is the factory too."""
        return self

    def find(
        self, _image: NDArray[np.float32], _window: Box, core: Box, prob_thresh: float
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """Return points, probabilities and distances of the grid points of a core."""
        began = time.process_time()
        grid = self.model.grid
        reach = 2 * int(np.ceil(self.phantom.radius * SPREAD[1] * STRETCH))
        start = as_zyx((a - reach) // g * g for a, g in zip(core.start, grid, strict=True))
        seen = Box(start, as_zyx(b + reach for b in core.stop))
        labels = self.phantom.labels(seen)
        _, numbered = np.unique(labels, return_inverse=True)
        small = numbered.reshape(labels.shape).astype(np.int32)
        small += int(labels.min() > 0)
        prob, dist = targets(small, rays_from_config(json.loads(self.model.rays_json)), grid)
        at = np.argwhere(prob >= prob_thresh)
        points = at * np.asarray(grid) + np.asarray(start)
        inside = ((points >= core.start) & (points < core.stop)).all(axis=1)
        at, points = at[inside], points[inside]
        where = tuple(at.T)
        found = points.astype(np.int32), prob[where], np.abs(dist[where])
        self.cpu += time.process_time() - began
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench scaling", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512, 1024])
    parser.add_argument("--radius", type=float, default=3.5, help="of the objects, voxels")
    parser.add_argument("--density", default="dense")
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--tile", type=int, default=BLOCK, help="edge of tiles and blocks, voxels")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in [128, *options.sizes]:  # the first compiles, and is not counted
        image = phantom_image(options.out, size, options.radius, options.density)
        phantom = Phantom((size,) * 3, options.radius, options.density)
        row = measure(image, phantom, options.memory, options.tile)
        if size != 128:
            rows.append(row)
            print(json.dumps(row), flush=True)
            (options.out / "scaling.json").write_text(json.dumps(rows, indent=1))
    figure(options.out / "scaling.png", rows)


def measure(image: Path, phantom: Phantom, memory: str, tile: int) -> dict[str, Any]:
    """Segment one phantom; return what it cost."""
    model = load_model("anystar-mix")
    predictor = TruthPredictor(phantom, model)
    config = SegmentConfig(
        image=str(image),
        result=ResultConfig(
            diameter=parse_diameter(f"{model.diameter or 1:g}px"), tile=tile, precision="float32"
        ),
        run=RunConfig(
            overwrite=True,
            restart=True,
            keep_work=True,
            report=False,
            block_shape=(tile,) * 3,
            memory=parse_memory(memory),
        ),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    summary = segment.segment(config, engine=InlineEngine(1), factory=predictor)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu - predictor.cpu
    work = image.with_name(image.name.replace(".ome.zarr", ".anystar.work"))
    stored = {
        stage: sum(file.stat().st_size for file in (work / stage).iterdir())
        for stage in ("candidates", "survivors", "partials")
    }
    shutil.rmtree(work)
    shutil.rmtree(image / "labels" / config.label)
    voxels = int(np.prod(phantom.shape))
    pixel = ImageReader(read_image(str(image))).source.dtype.itemsize
    return {
        "size": phantom.shape[0],
        "instances": summary.instances,
        "wall": round(wall, 1),
        "cpu": round(cpu, 2),
        "predictor_cpu": round(predictor.cpu, 1),
        "cpu_us_per_voxel": round(1e6 * cpu / voxels, 4),
        "peak_memory": summary.peak_memory,
        "stored_over_image": {k: round(v / (voxels * pixel), 4) for k, v in stored.items()},
        "seconds": summary.seconds,
    }


def figure(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw CPU seconds a voxel and peak memory over the volume."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, 2, figsize=(8, 3))
    voxels = [row["size"] ** 3 for row in rows]
    for axis, values, name in (
        (axes[0], [row["cpu_us_per_voxel"] for row in rows], "CPU us a voxel, network apart"),
        (axes[1], [row["peak_memory"] / 1e9 for row in rows], "peak memory, GB"),
    ):
        axis.semilogx(voxels, values, "o-")
        axis.set_ylim(0, 1.2 * max(values))
        axis.set_xlabel("voxels")
        axis.set_ylabel(name)
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


if __name__ == "__main__":
    main()
