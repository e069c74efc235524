"""GeoParquet 1.1: outlines of stars, a polygon a plane of level 0, or a sphere a star.

::

    label, time, z, z_um, prob, geometry     outlines: (Multi)Polygon in (x, y), micrometres
    label, time, radius, prob, geometry      spheres: Point Z (x, y, z) and radius, micrometres

An outline is the section of the polyhedron with the plane through the voxel centres of plane `z`;
it may have several parts, and holes. Geometries are WKB. The format: geoparquet.org, 1.1.0.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystar_batch.errors import ConfigError
from anystar_batch.export.selection import Selection, StarBatch, corners_voxels, in_um, radii_um
from anystar_batch.stars.sections import across, section

Loop = NDArray[np.float64]
"""Points (x, y), the first not repeated, [m, 2]."""

_LITTLE, _POINT_Z, _POLYGON, _MULTIPOLYGON = b"\x01", 1001, 3, 6


def write_outlines(chosen: Selection, path: Path) -> None:
    """Write a polygon for every star and every plane of level 0 that it meets.

    Parameters
    ----------
    chosen : Selection
    path : Path
        File, not there yet.

    Raises
    ------
    ConfigError
        If pyarrow is not installed.
    """
    pa = import_pyarrow()
    schema = _schema([("z", pa.int32()), ("z_um", pa.float64())], ["Polygon", "MultiPolygon"], pa)
    beyond = across(chosen.rays)
    with pa.parquet.ParquetWriter(str(path), schema, compression="zstd") as writer:
        for stars in chosen.batches():
            rows = list(_plane_rows(stars, chosen, beyond))
            writer.write_table(pa.Table.from_pylist(rows, schema))


def write_spheres(chosen: Selection, path: Path) -> None:
    """Write a point and a radius for every star: the ball of its volume around its centre of mass.

    Parameters
    ----------
    chosen : Selection
    path : Path
        File, not there yet.

    Raises
    ------
    ConfigError
        If pyarrow is not installed.
    """
    pa = import_pyarrow()
    schema = _schema([("radius", pa.float64())], ["Point Z"], pa)
    with pa.parquet.ParquetWriter(str(path), schema, compression="zstd") as writer:
        for stars in chosen.batches():
            xyz = in_um(centroids_voxels(stars, chosen), chosen.frame)[:, ::-1]
            radii = radii_um(stars, chosen.frame, chosen.rays)
            rows = [
                {
                    **_common(stars, n),
                    "radius": float(radii[n]),
                    "geometry": _LITTLE + struct.pack("<I3d", _POINT_Z, *xyz[n]),
                }
                for n in range(len(stars))
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def import_pyarrow() -> Any:  # noqa: ANN401
    """Return pyarrow, an extra.

    Raises
    ------
    ConfigError
        If it is not.
    """
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.parquet  # noqa: F401, PLC0415
    except ImportError as error:
        message = (
            "--to geoparquet: pyarrow is not installed, which writes it; install the package with "
            "the extra parquet"
        )
        raise ConfigError(message) from error
    return pyarrow


def centroids_voxels(stars: StarBatch, chosen: Selection) -> NDArray[np.float64]:
    """Return the centres of mass of stars, float64 [n, 3], axes (z, y, x), voxels of level 0."""
    corners = corners_voxels(stars, chosen.frame, chosen.rays) - stars.points[:, None, :]
    a, b, c = (corners[:, chosen.rays.faces[:, k]] for k in range(3))
    weights = np.einsum("nfi,nfi->nf", a, np.cross(b, c))
    means = np.einsum("nf,nfi->ni", weights, a + b + c) / 4.0
    centres: NDArray[np.float64] = stars.points + means / weights.sum(axis=1, keepdims=True)
    return centres


def _schema(fields: list[tuple[str, Any]], kinds: list[str], pa: Any) -> Any:  # noqa: ANN401
    columns = [
        ("label", pa.uint32()),
        ("time", pa.int32()),
        *fields,
        ("prob", pa.float32()),
        ("geometry", pa.binary()),
    ]
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": kinds, "crs": None}},
    }
    return pa.schema(columns, metadata={"geo": json.dumps(geo)})


def _common(stars: StarBatch, n: int) -> dict[str, Any]:
    return {
        "label": int(stars.labels[n]),
        "time": int(stars.times[n]),
        "prob": float(stars.prob[n]),
    }


def _plane_rows(
    stars: StarBatch, chosen: Selection, beyond: NDArray[np.int64]
) -> Iterator[dict[str, Any]]:
    """Yield a row for every star and plane."""
    frame, rays = chosen.frame, chosen.rays
    corners = corners_voxels(stars, frame, rays)
    size, shift = np.asarray(frame.voxel_um[:0:-1]), np.asarray(frame.translation_um[:0:-1])
    for n in range(len(stars)):
        low, high = corners[n, :, 0].min(), corners[n, :, 0].max()
        first, last = max(0, int(np.ceil(low))), min(frame.shape[0] - 1, int(np.floor(high)))
        for z in range(first, last + 1):
            loops = section(corners[n], float(z), rays, beyond)
            geometry = _polygons_wkb([loop * size + shift for loop in loops])
            if geometry is not None:
                z_um = z * frame.voxel_um[0] + frame.translation_um[0]
                yield {**_common(stars, n), "z": z, "z_um": z_um, "geometry": geometry}


def _polygons_wkb(loops: list[Loop]) -> bytes | None:
    """Return loops as a polygon, or as several; None where the plane only touches."""
    areas = [_area(loop) for loop in loops]
    outer = [[loop] for loop, area in zip(loops, areas, strict=True) if area > 0]
    for hole in (loop for loop, area in zip(loops, areas, strict=True) if area < 0):
        around = [rings for rings in outer if _holds(rings[0], hole[0])]
        if around:
            min(around, key=lambda rings: _area(rings[0])).append(hole)
    if not outer:
        return None
    polygons = [_polygon_wkb(rings) for rings in outer]
    if len(polygons) == 1:
        return polygons[0]
    return _LITTLE + struct.pack("<II", _MULTIPOLYGON, len(polygons)) + b"".join(polygons)


def _polygon_wkb(rings: list[Loop]) -> bytes:
    parts = [_LITTLE, struct.pack("<II", _POLYGON, len(rings))]
    for ring in rings:
        closed = np.concatenate([ring, ring[:1]])
        parts += [struct.pack("<I", len(closed)), np.ascontiguousarray(closed, "<f8").tobytes()]
    return b"".join(parts)


def _area(loop: Loop) -> float:
    """Area that a loop goes around anticlockwise; negative for clockwise."""
    if len(loop) < 3:
        return 0.0
    x, y = (loop - loop[0]).T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _holds(loop: Loop, point: NDArray[np.float64]) -> bool:
    """Whether a point lies inside a loop: a ray to the right crosses it an odd number of times."""
    x, y = (loop - point).T
    following_x, following_y = np.roll(x, -1), np.roll(y, -1)
    crosses = (y > 0) != (following_y > 0)
    steps = np.where(crosses, following_y - y, 1.0)
    return bool(np.sum(crosses & (x - y * (following_x - x) / steps > 0)) % 2)
