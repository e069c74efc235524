"""Published stars in figures: their size beside the label's; do meshes agree with the table.

::

    python -m bench.exports              a phantom, and the volumes of ANYSTAR_BATCH_DATA
    python -m bench.exports million      a million stars of chance: seconds and memory

Each volume is segmented by the command with `--stars --measure surface`, and exported as PLY. The
PLY is read here by its header alone. Volumes are compared with the table's count of voxels for
objects that touch nobody and no border; areas with the table's column, for all.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import tifffile
import zarr
from scipy import ndimage

from anystar_batch.archive.star_group import StarFrame, StarWriter
from anystar_batch.pipeline.export import ExportConfig, export
from anystar_batch.stars.candidates import quantise
from anystar_batch.stars.polyhedra import LatticeMap
from anystar_batch.stars.rays import golden_spiral
from bench.digests import write

LARGE = 4000
"""Voxels from which on an object is large."""


MILLION = 1_000_000
"""Stars of chance."""


def main() -> None:
    """Segment, export, compare, print."""
    if sys.argv[1:] == ["million"]:
        million()
        return
    for name, (image, voxel_um, diameter) in images().items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder, "a.ome.zarr"), image, voxel_um)
            options = ["--diameter", diameter, "--stars", "--measure", "surface", "--no-report"]
            command(folder, "segment", "a.ome.zarr", *options)
            started = time.perf_counter()
            command(folder, "export", "a.ome.zarr", "a.ply")
            print(f"{name}: {figures(Path(folder))}, PLY in {time.perf_counter() - started:.1f} s")


def images() -> dict[str, tuple[np.ndarray, tuple[float, float, float], str]]:
    """Return the volumes by name, with voxel sizes (z, y, x), micrometres, and a diameter."""
    found = {"phantom, 40 voxels wide": (phantom(), (1.0, 1.0, 1.0), "40um")}
    data = os.environ.get("ANYSTAR_BATCH_DATA")
    if data:
        cells = tifffile.imread(next(Path(data, "nogt_xbrain_microct_mouse").glob("*image.tif")))
        embryo = tifffile.imread(Path(data, "bbbc050_train", "Emb02_t451_image.tif"))
        found["mouse brain, micro-CT, 200^3"] = (cells, (1.0, 1.0, 1.0), "7um")
        found["mouse embryo, BBBC050"] = (embryo, (1.75, 0.8, 0.8), "11um")
    return found


def phantom() -> np.ndarray:
    """Return smooth bright ellipsoids apart from each other, uint16 (z, y, x)."""
    rng = np.random.default_rng(5)
    image = rng.normal(300, 20, (180, 240, 240))
    z, y, x = np.ogrid[:180, :240, :240]
    for centre in np.ndindex(3, 4, 4):
        c = np.asarray(centre) * 60 + 30 + rng.uniform(-4, 4, 3)
        r = rng.uniform(15, 23, 3)
        q = ((z - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 + ((x - c[2]) / r[2]) ** 2
        image += 900 * (q <= 1)
    image = ndimage.gaussian_filter(image, 1.5)
    return np.clip(image, 0, 65535).astype(np.uint16)


def command(folder: str, *words: str) -> None:
    """Run a command in a folder."""
    line = [sys.executable, "-m", "anystar_batch", *words, "--quiet"]
    subprocess.run(line, check=True, cwd=folder, stdout=subprocess.DEVNULL)


def figures(folder: Path) -> str:
    """Return what there is to say of one volume."""
    label = folder / "a.ome.zarr/labels/anystar"
    voxels = zarr.open_array(str(label / "0"), mode="r")[...]
    rows = list(csv.DictReader((folder / "a.anystar.csv").open()))
    stored, stars = size(label / "0"), size(label / "stars")
    volumes, areas = meshes(folder / "a.ply", len(rows))
    per_voxel = float(rows[0]["volume_um3"]) / int(rows[0]["num_voxels"])
    counts = np.array([int(row["num_voxels"]) for row in rows])
    alone = isolated(voxels)
    ratio = volumes / (counts * per_voxel)
    table = np.array([float(row["surface_area_um2"]) for row in rows])
    worst_area = np.abs(areas / table - 1).max()
    text = (
        f"{len(rows)} stars of {np.median(counts):.0f} voxels (median), {stars / 1e3:.1f} kB "
        f"({stars / len(rows):.0f} bytes a star); level 0 {voxels.nbytes / 1e6:.1f} MB, stored "
        f"{stored / 1e3:.0f} kB: stars are 1/{voxels.nbytes / stars:.0f} of the voxels, "
        f"{stars / stored:.2f} of what is stored; "
        f"areas within {100 * worst_area:.4f} %"
    )
    for what, some in (
        ("alone", alone),
        (f"alone, {LARGE} voxels or more", alone & (counts >= LARGE)),
    ):
        if some.any():
            off = 100 * np.abs(ratio[some] - 1)
            text += (
                f"; volumes of {some.sum()} {what}: median {np.median(off):.2f} %, worst "
                f"{off.max():.2f} %"
            )
    return text


def size(folder: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def isolated(voxels: np.ndarray) -> np.ndarray:
    """Return which labels 1..n touch no other label and no border."""
    alone = np.ones(int(voxels.max()), bool)
    low = ndimage.minimum_filter(np.where(voxels == 0, np.iinfo(np.uint32).max, voxels), 3)
    high = ndimage.maximum_filter(voxels, 3)
    inside = voxels > 0
    alone[np.unique(voxels[inside & ((low != voxels) | (high != voxels))]) - 1] = False
    for axis in range(3):
        for end in (0, -1):
            touched = np.unique(voxels.take(end, axis))
            alone[touched[touched > 0] - 1] = False
    return alone


def meshes(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return volume and area of every label's mesh, micrometres."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    words = header.decode().split()
    vertices, faces = (int(words[words.index(w) + 1]) for w in ("vertex", "face"))
    places = np.frombuffer(body, "<f8", vertices * 3).reshape(-1, 3)
    kind = np.dtype([("n", "u1"), ("corners", "<i4", 3), ("label", "<u4")])
    rows = np.frombuffer(body, kind, faces, vertices * 24)
    origin = places.reshape(count, -1, 3)[:, 0]
    a, b, c = (places[rows["corners"][:, k]] - origin[rows["label"] - 1] for k in range(3))
    normals = np.cross(b - a, c - a)
    volume = np.einsum("ij,ij->i", a, normals) / 6
    area = np.linalg.norm(normals, axis=1) / 2
    at = rows["label"].astype(np.int64) - 1
    return np.bincount(at, volume, count), np.bincount(at, area, count)


def million() -> None:
    """Write many stars, and export them in some formats, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        label = f"{folder}/label.zarr"
        print("written:", measured(write_stars, label))
        print("size:", f"{size(Path(label)) / 1e6:.0f} MB")
        for name, options in (("ply", {}), ("geff", {}), ("parquet", {"shape": "spheres"})):
            out = f"{folder}/out.{name}"
            print(f"{name}:", measured(run_export, label, out, options))
            print("  size:", f"{size(Path(out)) / 1e6:.0f} MB")
            shutil.rmtree(out, ignore_errors=True)
            Path(out).unlink(missing_ok=True)


def measured(function: Callable[..., None], *arguments: object) -> str:
    """Run a function in a new process; return its seconds and its largest memory."""
    context = multiprocessing.get_context("spawn")
    pipe, inner = context.Pipe()
    process = context.Process(target=_watched, args=(inner, function, arguments))
    process.start()
    seconds, peak = pipe.recv()
    process.join()
    return f"{seconds:.0f} s, {peak:.2f} GB"


def _watched(
    pipe: Connection, function: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    started = time.perf_counter()
    function(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pipe.send((time.perf_counter() - started, peak))


def write_stars(label: str) -> None:
    """Write stars of chance, in the order of planes, into a label without levels."""
    zarr.open_group(label, mode="w").attrs["ome"] = {"version": "0.5", "image-label": {}}
    unit, zero = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    frame = StarFrame(
        "f" * 64, MILLION, (1000, 2000, 2000), unit, zero, LatticeMap(unit, zero), unit, None, 0.0,
        has_quality=True,
    )  # fmt: skip
    writer = StarWriter(label, 3, frame, golden_spiral(96))
    rng, batch = np.random.default_rng(1), 1 << 14
    for start in range(0, MILLION, batch):
        count = min(batch, MILLION - start)
        points = rng.integers(0, 1000, (count, 3)).astype(np.float64)
        points[:, 0] = start / 1000
        columns = {
            "label": np.arange(start + 1, start + count + 1, dtype=np.uint32),
            "time": np.zeros(count, np.int32),
            "points": points,
            "distances": quantise(8 + rng.normal(0, 1, (count, 96)), 30.0),
            "prob": rng.random(count, np.float32),
            "quality": rng.random(count, np.float32),
        }
        writer.append(columns)
    writer.close()


def run_export(label: str, out: str, options: dict[str, str]) -> None:
    """Export all of them."""
    export(ExportConfig(label, out, **options))


if __name__ == "__main__":
    main()
