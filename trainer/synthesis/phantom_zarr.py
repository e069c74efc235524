"""A phantom on disk: OME-Zarr 0.5 with its truth as a label, block by block, level by level.

A block is a whole number of storage units of image and label, so that no unit has two writers, and
is computed from nothing but its position: processes share no memory. Level n of the image is the
mean of 2 x 2 x 2 voxels, of the truth the most frequent label, as the package's own pyramids.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.archive import arrays, images, nodes
from anystar_batch.archive.label_image import (
    MAX_FILES,
    SHARD_EDGE,
    LabelSpec,
    LabelWriter,
    label_spec,
)
from anystar_batch.archive.label_place import in_image
from anystar_batch.archive.labels import create_label, publish
from anystar_batch.archive.ngff import JSON, ArrayInfo
from anystar_batch.archive.storage import files
from anystar_batch.errors import ConfigError, OutputError
from anystar_batch.geometry import ZYX, Box, as_zyx, grid_box, grid_shape, iter_grid
from anystar_batch.pyramid import downsample_mode, level_factors, source_box
from trainer.synthesis.phantom import Phantom

LABEL = "truth"
"""Name of the label."""

CHUNKS = (16, 32, 64, 128, 256)
"""Edges a chunk may have: powers of two, so that image and label fall into common blocks."""

SMALLEST = 64
"""The pyramid ends with the first level that has at most this many voxels on every axis."""

_TOKEN = "phantom"
_AXES = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class Job:
    """What every process is told.

    Parameters
    ----------
    phantom : Phantom
    path : str
        The image.
    label : str
        The label's group while it is being made.
    spec : LabelSpec
        Its arrays.
    image : tuple of ArrayInfo
        The image's levels.
    """

    phantom: Phantom
    path: str
    label: str
    spec: LabelSpec
    image: tuple[ArrayInfo, ...]

    def block(self, level: int) -> ZYX:
        """Return the edges of a block, voxels of the level."""
        info = self.image[level]
        units = zip(info.shards or info.chunks, self.spec.write_unit_zyx(level), strict=True)
        # At least 128: the margin that a block computes in vain goes with its surface.
        return as_zyx(max(a, b, 128) for a, b in units)


def write(phantom: Phantom, path: Path, chunks: int = 64, workers: int = 1) -> float:
    """Write a phantom as OME-Zarr 0.5.

    Parameters
    ----------
    phantom : Phantom
    path : Path
        New; a directory that exists is refused.
    chunks : int
        Edge of a chunk, one of `CHUNKS`.
    workers : int
        Processes.

    Returns
    -------
    float
        Voxels of level 0 per second, its pyramid and label included.

    Raises
    ------
    ConfigError
        If the chunk's edge or the number of workers cannot be used.
    OutputError
        If the path exists or cannot be written.

    Notes
    -----
    Memory: about 40 bytes for each voxel of a block with its margin, per process; a block has 128
    voxels an axis, or a chunk's or shard's.
    """
    if chunks not in CHUNKS:
        message = f"--chunks: got {chunks}; expected one of {', '.join(map(str, CHUNKS))}"
        raise ConfigError(message)
    if workers < 1:
        message = f"--workers: got {workers}; expected 1 or more"
        raise ConfigError(message)
    if path.exists():
        message = f"{path} exists; expected a new path; delete it or name another one"
        raise OutputError(message)
    started = time.monotonic()
    files.check_writable(str(path.absolute().parent))
    draft = path.absolute().with_name(f".{path.name}.partial")
    if draft.exists():
        shutil.rmtree(draft)
    infos = levels(phantom.shape, chunks)
    nodes.write_attributes(str(draft), 3, {"ome": document(path.name, infos)})
    for k, info in enumerate(infos):
        arrays.create_array(f"{draft}/{k}", 3, info, _AXES)
    source = images.read_image(str(draft))
    spec = label_spec(source)
    place = in_image(str(draft), LABEL)
    job = Job(phantom, str(draft), create_label(place, spec, _TOKEN), spec, infos)
    with _mapper(workers) as run:
        for level, info in enumerate(infos):
            shape = as_zyx(info.shape)
            block = job.block(level)
            boxes = (grid_box(i, block, shape) for i in iter_grid(grid_shape(shape, block)))
            # Level n reads level n-1: all of a level is written before the next is begun.
            for _ in run(partial(_write_block, job, level), boxes):
                pass
    publish(place, spec, _TOKEN, {"phantom": _described(phantom)})
    draft.rename(path)
    return float(np.prod(phantom.shape, dtype=np.float64) / (time.monotonic() - started))


def levels(shape: ZYX, chunks: int) -> tuple[ArrayInfo, ...]:
    """Return the arrays of the image's levels, each half of the one before, rounded up."""
    infos = []
    while True:
        edges = as_zyx(min(chunks, n) for n in shape)
        shards = None
        if np.prod(grid_shape(shape, edges), dtype=np.float64) > MAX_FILES:
            shards = as_zyx(
                e * min(max(1, SHARD_EDGE // e), -(-n // e))
                for e, n in zip(edges, shape, strict=True)
            )
        infos.append(ArrayInfo(shape, edges, shards, "uint16"))
        if max(shape) <= SMALLEST:
            return tuple(infos)
        shape = as_zyx(-(-n // 2) if n > 2 else n for n in shape)


def document(name: str, infos: tuple[ArrayInfo, ...]) -> JSON:
    """Return the NGFF 0.5 metadata of the image, one micrometre a voxel."""
    full = infos[0].shape
    datasets = []
    for k, info in enumerate(infos):
        factors = [float(2 ** round(np.log2(a / b))) for a, b in zip(full, info.shape, strict=True)]
        datasets.append(
            {
                "path": str(k),
                "coordinateTransformations": [
                    {"type": "scale", "scale": factors},
                    {"type": "translation", "translation": [(f - 1.0) / 2.0 for f in factors]},
                ],
            }
        )
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in _AXES]
    entry = {"name": name, "axes": axes, "datasets": datasets, "type": "mean"}
    return {"version": "0.5", "multiscales": [entry]}


def mean(values: NDArray[np.uint16], box: Box, shape_from: ZYX) -> NDArray[np.uint16]:
    """Return the rounded means of 2 x 2 x 2 voxels; an odd last voxel is its own window's all.

    Parameters
    ----------
    values : (z, y, x)
        Level n-1 in the windows of `box`.
    box : Box
        Voxels of level n.
    shape_from : (z, y, x)
        Voxels of the whole level n-1; an axis of 2 or fewer is not halved.

    Raises
    ------
    ValueError
        If `values` are not the windows of `box`.
    """
    total = values.astype(np.uint32)
    count = np.ones((1, 1, 1), np.uint32)
    for axis, n in enumerate(shape_from):
        if n <= 2:
            continue
        moved = np.moveaxis(total, axis, 0)
        summed = moved[0::2].copy()
        second = moved[1::2]
        summed[: len(second)] += second
        windows = np.ones(len(summed), np.uint32)
        windows[: len(second)] = 2
        total = np.moveaxis(summed, 0, axis)
        count = count * windows.reshape([-1 if k == axis else 1 for k in range(3)])
    if total.shape != box.shape:
        message = f"got {values.shape} voxels for {box}; expected its windows"
        raise ValueError(message)
    return ((2 * total + count) // (2 * count)).astype(np.uint16)


def _write_block(job: Job, level: int, box: Box) -> None:
    """Compute and write one block of image and label."""
    writer = LabelWriter(job.label, job.spec)
    array: Any = arrays.open_array(f"{job.path}/{level}", 3, "r+")
    if level == 0:
        image, labels = job.phantom.both(box)
    else:
        before = as_zyx(job.image[level - 1].shape)
        factors = level_factors(before, as_zyx(job.image[level].shape))
        read = source_box(box, factors, before)
        finer: Any = arrays.open_array(f"{job.path}/{level - 1}", 3, "r")
        image = mean(np.asarray(finer[read.slices]), box, before)
        labels = downsample_mode(writer.read_box(level - 1, 0, read), box, factors, before)
    try:
        array[box.slices] = image
    except OSError as error:
        raise files.output_error(job.path, error) from error
    writer.write_box(level, 0, box, labels)


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Callable[[Box], None], Iterable[Box]], Any]]:
    """Yield a `map`: of this process, or of several with a bounded number of blocks waiting."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:

        def run(call: Callable[[Box], None], boxes: Iterable[Box]) -> Iterator[None]:
            waiting = []
            for box in boxes:
                waiting.append(pool.submit(call, box))
                if len(waiting) >= 2 * workers:
                    yield waiting.pop(0).result()
            for one in waiting:
                yield one.result()

        yield run


def _described(phantom: Phantom) -> JSON:
    """What made the voxels."""
    return {
        "shape": list(phantom.shape),
        "radius": phantom.radius,
        "density": phantom.density,
        "seed": phantom.seed,
    }
