"""An image of any size that lies nowhere: a server that makes each chunk when it is read.

One block of tissue is made whole, on a torus, and repeated along every axis: what crosses a border
of the block goes on at its other side, so no seam is in the image. Chunks are uncompressed, so a
read is a copy; the levels of the pyramid are means of 2 x 2 x 2 voxels of the torus, as those of
the whole image would be. The truth is known without any volume: centres of the block, repeated.

::

    http://127.0.0.1:PORT/image.ome.zarr      OME-Zarr 0.5, uint8, one micrometre a voxel
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from anystar_batch.geometry import ZYX

PERIOD = 500
"""Edge of the torus, voxels of level 0; with three levels a multiple of 4."""

PITCH = 25
"""Voxels from cell to cell of the lattice of objects; divides the period."""

CHUNK = 128
"""Edge of a chunk, every level."""

LEVELS = 3

NAME = "image.ome.zarr"


@dataclass(frozen=True, slots=True, eq=False)
class Torus:
    """A block that continues itself.

    Parameters
    ----------
    levels : list of uint8 (z, y, x)
        Intensities; level n has the period over 2^n.
    centres : float64 [n, 3]
        Of the objects, level-0 voxels, 0 to the period.
    radii : float64 [n]
        Mean radius, voxels.
    """

    levels: list[NDArray[np.uint8]]
    centres: NDArray[np.float64]
    radii: NDArray[np.float64]


def torus(seed: int = 21, period: int = PERIOD) -> Torus:
    """Make a block: ellipsoids of 17 to 22 voxels across on a jittered lattice, a fifth left out.

    Parameters
    ----------
    seed : int
    period : int
        A multiple of `PITCH` and of 4.
    """
    rng = np.random.default_rng(seed)
    n = period // PITCH
    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cells = cells[rng.random(len(cells)) >= 0.2]
    centres = (cells + 0.5) * PITCH + rng.uniform(-2.0, 2.0, (len(cells), 3))
    radii = rng.uniform(8.5, 11.0, len(cells))
    stretch = np.exp(rng.uniform(-0.12, 0.12, (len(cells), 3)))
    axes = radii[:, None] * stretch / np.cbrt(stretch.prod(axis=1))[:, None]
    light = rng.uniform(90.0, 170.0, len(cells)).astype(np.float32)
    image = np.full((period,) * 3, 25.0, np.float32)
    _ellipsoids(image, centres, axes, light)
    image = ndimage.gaussian_filter(image, 1.2, mode="wrap")
    image += 8.0 * rng.standard_normal(image.shape, np.float32)
    levels = [image]
    for _ in range(1, LEVELS):
        half = levels[-1].shape[0] // 2
        levels.append(levels[-1].reshape(half, 2, half, 2, half, 2).mean(axis=(1, 3, 5)))
    whole = [np.clip(np.rint(level), 0, 255).astype(np.uint8) for level in levels]
    return Torus(whole, centres, radii)


@njit(cache=True)
def _ellipsoids(
    image: NDArray[np.float32],
    centres: NDArray[np.float64],
    axes: NDArray[np.float64],
    light: NDArray[np.float32],
) -> None:
    """Paint every ellipsoid, around the torus."""
    n = image.shape[0]
    for k in range(len(centres)):
        r = int(np.ceil(axes[k].max()))
        z0, y0, x0 = (int(np.floor(centres[k, 0])), int(np.floor(centres[k, 1])),
                      int(np.floor(centres[k, 2])))  # fmt: skip
        for z in range(z0 - r, z0 + r + 2):
            for y in range(y0 - r, y0 + r + 2):
                for x in range(x0 - r, x0 + r + 2):
                    far = (
                        ((z - centres[k, 0]) / axes[k, 0]) ** 2
                        + ((y - centres[k, 1]) / axes[k, 1]) ** 2
                        + ((x - centres[k, 2]) / axes[k, 2]) ** 2
                    )
                    if far <= 1.0:
                        image[z % n, y % n, x % n] = light[k]


@dataclass(slots=True, eq=False)
class VirtualImage:
    """A torus repeated to a shape, served on loopback while the block runs.

    Parameters
    ----------
    torus : Torus
    shape : (z, y, x)
        Of level 0; multiples of 4.
    counts : Counter
        Requests and bytes that were sent.
    url : str
        Address of the image, while it is served.
    """

    torus: Torus
    shape: ZYX
    counts: Counter[str] = field(default_factory=Counter)
    url: str = ""
    _stop: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> VirtualImage:
        """Serve."""
        image = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                body = image.read(self.path.removeprefix(f"/{NAME}/"))
                image.counts["requests"] += 1
                self.send_response(404 if body is None else 200)
                body = body or b""
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"1"')
                self.end_headers()
                if with_body:
                    image.counts["bytes"] += len(body)
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._stop.callback(server.server_close)
        self._stop.callback(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.close()

    def read(self, key: str) -> bytes | None:
        """Return what lies at a key below the image, None where there is nothing."""
        if key == "zarr.json":
            return json.dumps(self._group()).encode()
        level, _, rest = key.partition("/")
        if not level.isdecimal() or int(level) >= LEVELS:
            return None
        if rest == "zarr.json":
            return json.dumps(self._array(int(level))).encode()
        parts = rest.split("/")
        if parts[0] != "c" or len(parts) != 4 or not all(p.isdecimal() for p in parts[1:]):
            return None
        index = [int(p) for p in parts[1:]]
        extent = self._extent(int(level))
        if any(i * CHUNK >= n for i, n in zip(index, extent, strict=True)):
            return None
        source = self.torus.levels[int(level)]
        at = [(np.arange(CHUNK) + i * CHUNK) % source.shape[0] for i in index]
        chunk = source[at[0][:, None, None], at[1][:, None], at[2]]
        return bytes(chunk.tobytes())

    def _extent(self, level: int) -> tuple[int, ...]:
        return tuple(n >> level for n in self.shape)

    def _group(self) -> dict[str, Any]:
        axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
        datasets = [
            {
                "path": str(n),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [2.0**n] * 3},
                    {"type": "translation", "translation": [(2.0**n - 1) / 2] * 3},
                ],
            }
            for n in range(LEVELS)
        ]
        scales = [{"name": "image", "axes": axes, "datasets": datasets}]
        ome = {"version": "0.5", "multiscales": scales}
        return {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}

    def _array(self, level: int) -> dict[str, Any]:
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self._extent(level)),
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [CHUNK] * 3}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes"}],
            "attributes": {},
            "dimension_names": list("zyx"),
        }
