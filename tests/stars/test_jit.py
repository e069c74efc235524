from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import anystar_batch
from anystar_batch.stars.jit import popcount, ready

COUNT = """
import json, sys
from numba.core.dispatcher import Dispatcher
hits = misses = 0
for name, module in list(sys.modules.items()):
    if name.startswith("anystar_batch.stars."):
        for value in vars(module).values():
            if isinstance(value, Dispatcher) and value.__module__ == name:
                hits += sum(value.stats.cache_hits.values())
                misses += sum(value.stats.cache_misses.values())
print(json.dumps([hits, misses]))
"""

EVERYTHING = """
import numpy as np
from anystar_batch.geometry import Box
from anystar_batch.stars import raster, rays, suppress
from anystar_batch.stars.candidates import Candidates

few = rays.golden_spiral(16)
two = Candidates(np.array([[5, 5, 5], [5, 5, 9]], np.int32), np.ones(2, np.float32),
                 np.full((2, 16), 4.0, np.float32))
suppress.suppress(two, few, 0.3)
out = np.zeros((12, 12, 12), np.uint32)
for scale in (1.0, 1.5):
    lattice = raster.LatticeMap((scale,) * 3, (0.0,) * 3)
    raster.paint(out, Box.of_shape(out.shape), two, np.ones(2, np.uint32), few, lattice)
    raster.owns_voxel(two, few, lattice, Box.of_shape(out.shape))
"""

A_TABLE = """
from anystar_batch.stars import gauge, rays
gauge.gauge(rays.golden_spiral(16), 1)
"""


def hits_and_misses(code: str, root: Path, **environment: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", code + COUNT],
        env=os.environ | {"PYTHONPATH": str(root)} | environment,
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    hits, misses = json.loads(done.stdout)
    return hits, misses


def test_a_second_process_compiles_nothing():
    root = Path(anystar_batch.__file__).parent.parent
    hits_and_misses(EVERYTHING, root)
    hits, misses = hits_and_misses(EVERYTHING, root)
    assert misses == 0
    assert hits > 5


def test_a_change_in_any_file_of_the_room_makes_all_kernels_stale(tmp_path):
    # Numba compares the kernel's own file only; a callee may live in another.
    package, source = tmp_path / "root" / "anystar_batch", Path(anystar_batch.__file__).parent
    package.mkdir(parents=True)
    for file in source.glob("*.py"):
        shutil.copy(file, package)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "stars", package / "stars", ignore=skip)
    root, cache = tmp_path / "root", str(tmp_path / "cache")

    _, compiled = hits_and_misses(A_TABLE, root, NUMBA_CACHE_DIR=cache)
    assert compiled > 0
    assert hits_and_misses(A_TABLE, root, NUMBA_CACHE_DIR=cache)[1] == 0
    with (package / "stars" / "overlap.py").open("a") as file:
        file.write("# changed\n")
    assert hits_and_misses(A_TABLE, root, NUMBA_CACHE_DIR=cache)[1] == compiled


def test_bits_are_counted():
    words = np.random.default_rng(0).integers(0, 2**63, 500, dtype=np.uint64) * np.uint64(2)
    words = np.concatenate([words, np.array([0, 1, 2**63, 2**64 - 1], np.uint64)])
    assert [int(popcount(w)) for w in words] == [int(w).bit_count() for w in words]


def test_arrays_are_copied_only_if_they_must_be():
    plain = np.zeros((4, 4), np.float32)
    assert ready(plain, np.float32) is plain
    frozen = plain.copy()
    frozen.flags.writeable = False
    for odd in (frozen, plain[:, ::2], plain.astype(np.float64)):
        fit = ready(odd, np.float32)
        assert fit.flags.c_contiguous
        assert fit.flags.writeable
        assert fit.dtype == np.float32
