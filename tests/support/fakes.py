"""Phantoms with known truth, and a predictor that answers from it, without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from anystar_batch.network.model import Model
from anystar_batch.network.unet import UNetConfig
from anystar_batch.stars.rays import golden_spiral

RAYS_JSON = '{"name": "Rays_GoldenSpiral", "kwargs": {"n": 96, "anisotropy": null}}'


def make_model(*, tile=32, context=8, diameter=12.0, max_radius=24.0, grid=(2, 2, 2), nms=0.3):
    """A model of which only the description exists."""
    return Model(
        name="fake",
        version="1",
        folder="nowhere",
        sha256="0" * 64,
        unet=UNetConfig(n_rays=96, grid=grid, unet_n_depth=1, unet_n_filter_base=2),
        rays_json=RAYS_JSON,
        prob_thresh=0.5,
        nms_thresh=nms,
        diameter=diameter,
        max_radius=max_radius,
        tile=tile,
        context=context,
        low_percentile=1.0,
        high_percentile=99.9,
    )


@dataclass(frozen=True)
class Ellipsoids:
    """Axis-aligned ellipsoids in level-0 voxels.

    `centres` and `radii` are tuples of (z, y, x), so that the whole is hashable and picklable.
    """

    shape: tuple[int, int, int]
    centres: tuple[tuple[float, float, float], ...]
    radii: tuple[tuple[float, float, float], ...]

    def labels(self):
        """Rasterise by the equation of the ellipsoid: code that shares nothing with ours."""
        out = np.zeros(self.shape, np.uint32)
        z, y, x = np.ogrid[tuple(slice(0, n) for n in self.shape)]
        for n, (c, r) in enumerate(zip(self.centres, self.radii, strict=True)):
            inside = (
                ((z - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 + ((x - c[2]) / r[2]) ** 2
            ) <= 1
            out[inside & (out == 0)] = n + 1
        return out

    def image(self, dtype=np.uint16):
        """Bright objects on a dark ramp, so that no tile is constant."""
        labels = self.labels()
        ramp = np.add.outer(
            np.add.outer(np.arange(self.shape[0]), np.arange(self.shape[1])),
            np.arange(self.shape[2]),
        )
        values = 100.0 + ramp % 17 + np.where(labels > 0, 1000.0 + 13.0 * (labels % 29), 0.0)
        return values.astype(dtype)


def random_ellipsoids(shape, count, seed, radius=(4.0, 7.0), gap=0.0, scale=(1.0, 1.0, 1.0)):
    """Ellipsoids at random positions; `gap` > 0 keeps them apart, 0 lets them overlap."""
    rng = np.random.default_rng(seed)
    centres, radii = [], []
    tries = 0
    while len(centres) < count and tries < 100 * count:
        tries += 1
        r = rng.uniform(*radius, 3) / np.asarray(scale)
        c = rng.uniform(r + 1.5, np.asarray(shape) - 2.5 - r) if gap else rng.uniform(0, shape)
        far = all(
            np.linalg.norm((c - k) * scale) > (max(r * scale) + max(q * np.asarray(scale))) + gap
            for k, q in zip(centres, radii, strict=True)
        )
        if not gap or far:
            centres.append(c)
            radii.append(r)
    return Ellipsoids(
        tuple(shape),
        tuple(tuple(map(float, c)) for c in centres),
        tuple(tuple(map(float, r)) for r in radii),
    )


@lru_cache(maxsize=1)
def _vertices():
    return golden_spiral(96).vertices


@dataclass(frozen=True)
class TruthPredictor:
    """Finds the ellipsoids whatever the image shows: dense, overlapping, exact candidates.

    Parameters
    ----------
    truth : Ellipsoids
        In level-0 voxels.
    scale, offset : (z, y, x)
        Level-0 coordinate = working coordinate * scale + offset.
    grid : (z, y, x)
        Candidates lie on multiples of it.
    core : float
        Share of the radius within which points are candidates.
    wobble : float
        Relative error of the distances, a function of the position.
    ties : bool
        Round probabilities, so that many candidates are equal.
    """

    truth: Ellipsoids
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    grid: tuple[int, int, int] = (2, 2, 2)
    core: float = 0.6
    wobble: float = 0.0
    ties: bool = False

    def __call__(self, model, threads):
        return self

    def find(self, image, window, core, prob_thresh):
        assert image.shape == window.shape
        axes = [
            np.arange(-(-a // g) * g, b, g)
            for a, b, g in zip(core.start, core.stop, self.grid, strict=True)
        ]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        at = points * np.asarray(self.scale) + np.asarray(self.offset)
        found, probs, dists = [], [], []
        for centre, radii in zip(self.truth.centres, self.truth.radii, strict=True):
            q = (at - centre) / radii
            rho = np.sqrt((q**2).sum(1))
            chosen = np.flatnonzero(rho < self.core)
            if len(chosen) == 0:
                continue
            # |q + s u| = 1 along every ray, u = ray * scale / radii
            u = _vertices() * np.asarray(self.scale) / radii
            b = q[chosen] @ u.T
            a = (u**2).sum(1)[None]
            c = (rho[chosen] ** 2 - 1)[:, None]
            dist = (-b + np.sqrt(b**2 - a * c)) / a
            noise = _hash(points[chosen])
            dist = dist * (1 + self.wobble * (noise[:, None] - 0.5))
            prob = 0.55 + 0.4 * (1 - rho[chosen]) + (0 if self.ties else 0.02) * noise
            if self.ties:
                prob = np.round(prob, 1)
            found.append(points[chosen])
            probs.append(prob)
            dists.append(dist)
        if not found:
            return (
                np.empty((0, 3), np.int32),
                np.empty(0, np.float32),
                np.empty((0, 96), np.float32),
            )
        points, first = np.unique(np.concatenate(found), axis=0, return_index=True)
        prob, dist = np.concatenate(probs)[first], np.concatenate(dists)[first]
        keep = prob > prob_thresh
        return (
            points[keep].astype(np.int32),
            prob[keep].astype(np.float32),
            dist[keep].astype(np.float32),
        )


@dataclass(frozen=True)
class NoNetwork:
    """Stands where nobody may ask the network."""

    def __call__(self, *_):
        message = "the network was asked"
        raise AssertionError(message)


def _hash(points):
    """A number in [0, 1) that only depends on the position."""
    z, y, x = points.astype(np.uint64).T
    mixed = (z * np.uint64(73856093)) ^ (y * np.uint64(19349663)) ^ (x * np.uint64(83492791))
    return (mixed % np.uint64(10007)).astype(np.float64) / 10007


def write_image(path, levels, *, version="0.5", scale=(1.0, 1.0, 1.0), unit="micrometer", **more):
    """Write a pyramid as OME-Zarr by hand: zarr-python and dictionaries.

    `levels` are arrays with axes `more["axes"]` (default zyx); `translations` declares one a level.
    """
    import zarr

    axes = more.get("axes", "zyx")
    chunks = more.get("chunks")
    shards = more.get("shards")
    translations = more.get("translations")
    kinds = {"t": "time", "c": "channel"}
    axes_json = []
    for a in axes:
        axis = {"name": a, "type": kinds.get(a, "space")}
        if axis["type"] == "space" and unit:
            axis["unit"] = unit
        axes_json.append(axis)
    by_axis = dict(zip("zyx", scale, strict=True))
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for k, data in enumerate(levels):
        chunk = tuple(min(c, n) for c, n in zip(chunks or data.shape, data.shape, strict=True))
        options = {"dimension_names": list(axes)} if version != "0.4" else {}
        if version == "0.4":
            options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
        if shards and all(s % c == 0 for s, c in zip(shards, chunk, strict=True)):
            options["shards"] = shards
        array = group.create_array(
            str(k), shape=data.shape, dtype=data.dtype, chunks=chunk, **options
        )
        array[...] = data
        ratio = [
            levels[0].shape[i] / data.shape[i] if more.get("ratio") is None else more["ratio"] ** k
            for i in range(len(axes))
        ]
        transforms = [
            {
                "type": "scale",
                "scale": [
                    by_axis.get(a, 1.0) * (r if a in by_axis else 1.0)
                    for a, r in zip(axes, ratio, strict=True)
                ],
            }
        ]
        if translations is not None:
            transforms.append({"type": "translation", "translation": list(translations[k])})
        datasets.append({"path": str(k), "coordinateTransformations": transforms})
    entry = {"name": "phantom", "axes": axes_json, "datasets": datasets}
    if version == "0.4":
        attributes = {"multiscales": [{"version": "0.4", **entry}]}
    else:
        attributes = {"ome": {"version": version, "multiscales": [entry]}}
    group.attrs.update(attributes | more.get("attributes", {}))
    return str(path)


def mean_level(data, factors):
    """Area average by whole factors; what does not fill a window is left out."""
    z, y, x = (n // f for n, f in zip(data.shape, factors, strict=True))
    cut = data[: z * factors[0], : y * factors[1], : x * factors[2]].astype(np.float64)
    blocks = cut.reshape(z, factors[0], y, factors[1], x, factors[2])
    return np.round(blocks.mean(axis=(1, 3, 5))).astype(data.dtype)
