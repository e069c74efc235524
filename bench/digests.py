"""Every published byte of a checkout, as digests: shows that a change of the code changed none.

::

    python -m bench.digests CHECKOUT OUT.json     once for each checkout, then compare the files

A synthetic phantom and, where ANYSTAR_BATCH_DATA names them, two real volumes are segmented by the
command of the checkout, in a process of its own, with and without options that reach every stage.
What is digested: each file of label and table, the table beside the image, the page, the options
file, and of the run record all but times, memory, versions and places.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import zarr

OPTIONS = {
    "plain": ["--diameter", "12um"],
    "probed": [],
    "filtered": [
        "--diameter",
        "12um",
        "--scales",
        "1,2",
        "--min-volume",
        "100",
        "--min-contrast",
        "0.5",
        "--min-regularity",
        "0.2",
        "--measure",
        "solidity,surface",
        "--table",
        "--label",
        "other",
    ],
}
"""Runs of every image, by name."""

PASSING = {"started", "finished", "seconds", "peak_memory", "versions", "host", "command", "at"}
"""Keys of the run record that differ from run to run."""


def write(path: Path, image: np.ndarray, voxel_um: tuple[float, float, float]) -> None:
    """Write an OME-Zarr 0.4 with two levels, without any code of the project."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    levels = [image, image[:, ::2, ::2]]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    datasets = []
    for n, level in enumerate(levels):
        array = root.create_array(str(n), shape=level.shape, dtype=level.dtype, chunks=(32,) * 3)
        array[...] = level
        scale = [voxel_um[0], voxel_um[1] * 2**n, voxel_um[2] * 2**n]
        transform = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(n), "coordinateTransformations": transform})
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def phantom() -> np.ndarray:
    """Return 300 bright balls of radius 5 to 7 in noise, uint16 (z, y, x)."""
    rng = np.random.default_rng(11)
    image = rng.normal(300, 30, (64, 160, 160))
    grid = np.stack(np.indices((17, 17, 17)), -1) - 8
    for _ in range(300):
        centre, radius = rng.integers(0, image.shape), rng.uniform(5, 7)
        ball = grid[np.linalg.norm(grid, axis=-1) <= radius] + centre
        ball = ball[((ball >= 0) & (ball < image.shape)).all(axis=1)]
        image[tuple(ball.T)] += rng.uniform(300, 900) / 2
    return np.clip(image, 0, 65535).astype(np.uint16)


def images() -> dict[str, tuple[np.ndarray, tuple[float, float, float]]]:
    """Return the volumes by name, with their voxel sizes (z, y, x), micrometres."""
    found = {"phantom": (phantom(), (1.0, 1.0, 1.0))}
    data = os.environ.get("ANYSTAR_BATCH_DATA")
    if data:
        embryo = Path(data, "bbbc050_train", "Emb02_t451_image.tif")
        ovule = Path(data, "gonuclear_1135_mini", "image.tif")
        found["embryo"] = (tifffile.imread(embryo), (1.75, 0.8, 0.8))
        found["ovule"] = (tifffile.imread(ovule), (0.284, 0.127, 0.127))
    return found


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder; of run records without what passes."""
    made = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes().replace(str(folder).encode(), b"")
        if path.name.endswith(".run.json"):
            content = json.dumps(_lasting(json.loads(content)), sort_keys=True).encode()
        if path.suffix == ".html":
            content = re.sub(rb"<time .*?</time>", b"", content)
            content = re.sub(rb'<section id="times">.*?</section>', b"", content, flags=re.DOTALL)
        made[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return made


def _lasting(value: object) -> object:
    """A JSON value without what passes."""
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if k not in PASSING}
    return [_lasting(v) for v in value] if isinstance(value, list) else value


def main() -> None:
    """Segment, digest, write."""
    checkout, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    made: dict[str, dict[str, str]] = {}
    for name, (image, voxel_um) in images().items():
        for run, typed in OPTIONS.items():
            small = {"12um": "2.5um", "100": "1"} if name == "ovule" else {}
            options = [small.get(word, word) for word in typed]
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder, "a.ome.zarr"), image, voxel_um)
                command = [sys.executable, "-m", "anystar_batch", "segment", "a.ome.zarr"]
                subprocess.run(
                    [*command, *options, "--workers", "1", "--quiet"],
                    check=True,
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": str(checkout)},
                    stdout=subprocess.DEVNULL,
                )
                made[f"{name}, {run}"] = digests(Path(folder))
            print(name, run, len(made[f"{name}, {run}"]), "files", flush=True)
    out.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
