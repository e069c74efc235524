"""The second look: distances refined from the image around a survivor, and how good they will be.

A small network, as plain arrays, run by numba: one object at a time, every sum in one fixed order
of float32 additions, no TensorFlow. So an object's answer depends on the object, the voxels around
it and the arrays, and never on who else is asked about.

The rays of an object lie side by side on the fast axis: what the compiler does eight at a time are
eight rays, never eight terms of one sum.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ImageError, ModelError
from anystar_batch.geometry import ZYX, Box, ZYXFloat
from anystar_batch.network.outline import fall_factors
from anystar_batch.network.profiles import (
    CHANNELS,
    SAMPLES,
    SCALARS,
    centres,
    neighbours,
    profiles,
    window,
)
from anystar_batch.network.refiner_kernel import (
    NAMES,
    SECOND,
    TOGETHER_ROWS,
    WIDTHS,
    Arrays,
    answer,
    ray_voxels,
)
from anystar_batch.network.row_products import EIGHT

FORMAT = 1
"""Of the arrays and what they mean."""

ACROSS = 20.0
"""Voxels across an object's diameter from which finer ones add nothing."""

SMALL = "small_"
"""What the names of the arrays of the network for small objects begin with."""

SMALL_VOXELS = 5.0
"""Mean length of an object's rays, voxels of the image, from which it is not small."""

TOGETHER = 16
"""Objects whose profiles are held at once: memory, never the result, depends on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Refiner:
    """A trained second look.

    Parameters
    ----------
    arrays : tuple of float32
        In the order of `NAMES`, matrices as [outputs, inputs].
    small : tuple of float32 or None
        The same of a narrower network for objects whose rays the image shows with less than
        `SMALL_VOXELS` voxels: many, with little to see. None: one network for all.
    sha256 : str
        Digest of the arrays: the refiner's identity.
    quality_cut : float
        Quality below which a find is texture, chosen on synthetic scenes.
    """

    arrays: Arrays
    small: Arrays | None
    sha256: str
    quality_cut: float

    def named(self) -> dict[str, NDArray[np.float32]]:
        """Return all arrays by name, as `from_arrays` takes them."""
        found = dict(zip(NAMES, self.arrays, strict=True))
        for name, array in zip(NAMES, self.small or (), strict=self.small is not None):
            found[SMALL + name] = array
        return found

    def refine(  # noqa: PLR0913
        self,
        image: NDArray[np.float32],
        box: Box,
        shape: ZYX,
        points: NDArray[np.floating],
        dist: NDArray[np.float32],
        step: ZYXFloat,
        directions: NDArray[np.float64],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return refined distances and qualities: `outline` without the third."""
        return self.outline(image, box, shape, points, dist, step, directions)[:2]

    def outline(  # noqa: PLR0913
        self,
        image: NDArray[np.float32],
        box: Box,
        shape: ZYX,
        points: NDArray[np.floating],
        dist: NDArray[np.float32],
        step: ZYXFloat,
        directions: NDArray[np.float64],
        share: float | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Look once more at some survivors.

        Parameters
        ----------
        image : float32 (z, y, x)
            The box, intensities in any unit, finite (see `intensity.raised`).
        box : Box
            What `image` shows, voxels of the level; at least `window_of` these survivors.
        shape : (z, y, x)
            The whole volume, voxels of the level.
        points : [n, 3]
            Centres, axes (z, y, x), voxels of the level; fractions are those of 1/2**24 voxel.
        dist : float32 [n, n_rays]
            Distances of the first look, working voxels, positive.
        step : (z, y, x)
            Voxels of the level per working voxel: as on the image's own scale, so an object in an
            anisotropic volume is looked at in its true shape.
        directions : float64 [n_rays, 3]
            Unit vectors of the rays, axes (z, y, x), working voxels.
        share : float, optional
            Of the fall of the mean profile at which surfaces are asked for, see `outline`.

        Returns
        -------
        dist : float32 [n, n_rays]
            Working voxels, not yet quantised; 0.3 to 3.3 times those given.
        quality : float32 [n]
            IoU that the refined outline is expected to reach, 0 to 1; 0 where the image around the
            survivor is constant, whose distances stay.
        fall : float32 [n]
            Factor on all distances that takes the visible surface to that share; 1 without.

        Raises
        ------
        ImageError
            If the image is not the box's, or the box lacks voxels that are needed.
        """
        whole, fraction = centres(points)
        needed = window(points, dist, step, shape)
        if image.shape != box.shape or (len(points) and box.intersect(needed) != needed):
            message = (
                f"refine: got an image of {image.shape} for the box {box.start} to {box.stop}; "
                f"expected one that holds {needed.start} to {needed.stop}: read window_of"
            )
            raise ImageError(message)
        near, spokes = neighbours(directions), np.ascontiguousarray(directions * np.asarray(step))
        pixels = np.require(image, np.float32, ["C", "W"])
        given = np.require(dist, np.float32, ["C", "W"])
        refined, quality = np.empty_like(given), np.empty(len(given), np.float32)
        fall = np.ones(len(given), np.float32)
        n_rays = given.shape[1]
        values = np.empty((TOGETHER, SAMPLES, CHANNELS, n_rays), np.float32)
        scalars = np.empty((TOGETHER, SCALARS, n_rays), np.float32)
        origin, extent = np.array(box.start, np.int64), np.array(shape, np.int64)
        for arrays, index in self._networks(given, step, directions):
            for first in range(0, len(index), TOGETHER):
                some = index[first : first + TOGETHER]
                n, mine = len(some), given[some]
                found, judged = np.empty_like(mine), np.empty(n, np.float32)
                profiles(
                    pixels, origin, extent, whole[some], fraction[some], mine, spokes, near,
                    values[:n], scalars[:n],
                )  # fmt: skip
                answer(values[:n], scalars[:n], near, arrays, mine, found, judged)
                refined[some], quality[some] = found, judged
                if share is not None:
                    factors = np.ones(n, np.float32)
                    fall_factors(values[:n], mine, found, share, factors)
                    fall[some] = factors
        return refined, quality, fall

    def _networks(
        self, dist: NDArray[np.float32], step: ZYXFloat, directions: NDArray[np.float64]
    ) -> list[tuple[Arrays, NDArray[np.intp]]]:
        """Return the networks, and the numbers of those that each looks at."""
        if self.small is None:
            return [(self.arrays, np.arange(len(dist)))]
        steps = np.tile(np.asarray(step, np.float64), (len(dist), 1))
        is_small = ray_voxels(dist, steps, directions) < SMALL_VOXELS
        return [(self.small, np.flatnonzero(is_small)), (self.arrays, np.flatnonzero(~is_small))]


def window_of(
    points: NDArray[np.floating], dist: NDArray[np.float32], step: ZYXFloat, shape: ZYX
) -> Box:
    """Return the box that `Refiner.refine` reads for these survivors; see `profiles.window`."""
    return window(points, dist, step, shape)


def level_to_read(diameter_um: float, scales_um: Sequence[ZYXFloat]) -> int:
    """Return the coarsest level that shows all that the second look can use.

    Parameters
    ----------
    diameter_um : float
        Of the objects, micrometres.
    scales_um : sequence of (z, y, x)
        Voxel size of every level, micrometres.

    Returns
    -------
    int
        The coarsest level with `ACROSS` voxels across a diameter on every axis, or, on an axis
        where level 0 has fewer, as many as level 0; else 0.

    Examples
    --------
    >>> level_to_read(30.0, [(1.0, 0.3, 0.3), (1.0, 0.6, 0.6), (1.0, 1.2, 1.2), (2.0, 2.4, 2.4)])
    2
    >>> level_to_read(8.0, [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
    0
    """
    level = 0
    for k, scale in enumerate(scales_um):
        pairs = zip(scale, scales_um[0], strict=True)
        if all(s * ACROSS <= diameter_um or s <= finest * 1.001 for s, finest in pairs):
            level = max(level, k)
    return level


def from_arrays(arrays: Mapping[str, NDArray[Any]], quality_cut: float = 0.0) -> Refiner:
    """Return a refiner of named arrays.

    Parameters
    ----------
    arrays : mapping
        As from `trainer.refine.network.weights`.
    quality_cut : float

    Raises
    ------
    ModelError
        If one is missing or has another shape than the others ask for.
    """
    has_small = any(name.startswith(SMALL) for name in arrays)
    ready = _network(arrays, "")
    small = _network(arrays, SMALL) if has_small else None
    found, digest = Refiner(ready, small, "", quality_cut), hashlib.sha256()
    for name, array in found.named().items():
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.astype("<f4").tobytes())
    return replace(found, sha256=digest.hexdigest())


def _network(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Arrays:
    """Return the arrays of one network, checked.

    Raises
    ------
    ModelError
        As `from_arrays`.
    """
    missing = [prefix + name for name in NAMES if prefix + name not in arrays]
    if missing:
        message = f"refiner: no array {missing[0]!r}; expected {', '.join(NAMES)}"
        raise ModelError(message)
    ready = tuple(np.require(arrays[prefix + name], np.float32, ["C", "W"]) for name in NAMES)
    biases = tuple(len(arrays[prefix + name]) for name in NAMES if name.endswith("_bias"))[:6]
    if any(width % TOGETHER_ROWS for width in biases[:5]):
        message = f"refiner: layers of {biases[:5]} channels; expected multiples of {TOGETHER_ROWS}"
        raise ModelError(message)
    if biases[1] % EIGHT:
        message = f"refiner: {biases[1]} channels of conv2; expected a multiple of {EIGHT}"
        raise ModelError(message)
    expected = shapes_of(biases)
    for name, array in zip(NAMES, ready, strict=True):
        if array.shape != expected[name]:
            message = (
                f"refiner: {prefix}{name} has the shape {array.shape}; expected {expected[name]}: "
                "the file is damaged or of another version"
            )
            raise ModelError(message)
    return ready


def shapes_of(biases: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array.

    Parameters
    ----------
    biases : sequence of int
        Outputs of conv1, conv2, conv3, own and second; more are not looked at.
    """
    a, b, c, d, e = biases[:5]
    judged = WIDTHS[5]
    return {
        "conv1_kernel": (a, 5 * CHANNELS), "conv1_bias": (a,),
        "conv2_kernel": (b, 3 * a), "conv2_bias": (b,),
        "conv3_kernel": (c, 3 * 2 * b), "conv3_bias": (c,),
        "own_kernel": (d, SECOND * c + SCALARS), "own_bias": (d,),
        "whole_kernel": (d, SECOND * c),
        "second_kernel": (e, d), "second_bias": (e,),
        "factor_kernel": (1, e), "factor_bias": (1,),
        "judged_kernel": (judged, d + e), "judged_bias": (judged,),
        "quality_kernel": (1, judged), "quality_bias": (1,),
    }  # fmt: skip


def load_refiner(folder: Path) -> Refiner | None:
    """Read the refiner beside a model's weights.

    Parameters
    ----------
    folder : Path
        A model folder.

    Returns
    -------
    Refiner or None
        None if the folder has none: a foreign StarDist model.

    Raises
    ------
    ModelError
        If it is damaged, or its metadata speaks of another one.
    """
    path, described = folder / "refiner.npz", folder / "refiner.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(described.read_text(encoding="utf-8"))
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            refiner = from_arrays(dict(file), float(document["quality_cut"]))
        sha256, expected = refiner.sha256, document["arrays_sha256"]
        version = document["format"]
    except ModelError:
        raise
    except Exception as error:
        message = (
            f"refiner: {path} cannot be read ({type(error).__name__}: {error}); expected the files "
            "that `python -m trainer refine export` writes: install the model again"
        )
        raise ModelError(message) from error
    if version != FORMAT or sha256 != expected:
        message = (
            f"refiner: {path} has format {version} and SHA-256 {sha256[:12]}; expected format "
            f"{FORMAT} and {str(expected)[:12]}, as refiner.json says: install the model again"
        )
        raise ModelError(message)
    return refiner
