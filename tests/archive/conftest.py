"""Tiny OME-Zarr images of every kind that the specification allows, made with zarr alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}

Maker = Callable[..., str]


def metadata(
    axes: str, shapes: list[tuple[int, ...]], version: str, unit: str | None = "micrometer"
) -> dict[str, Any]:
    """Return root attributes whose scales follow from the shapes: 2 x 0.5 x 0.5 at level 0."""
    base = {"t": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.5}
    datasets = []
    for n, shape in enumerate(shapes):
        scale = [base[a] * s0 / s for a, s0, s in zip(axes, shapes[0], shape, strict=True)]
        datasets.append(
            {
                "path": str(n),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    entry: dict[str, Any] = {
        "name": "tiny",
        "axes": [
            {"name": a, "type": TYPES[a]} | ({"unit": unit} if unit and TYPES[a] == "space" else {})
            for a in axes
        ],
        "datasets": datasets,
    }
    if version == "0.4":
        return {"multiscales": [{"version": "0.4", **entry}]}
    return {"ome": {"version": "0.5", "multiscales": [entry]}}


@pytest.fixture
def make_image(tmp_path: Path) -> Maker:
    """Return a function that writes an image and returns its path."""

    def make(
        data: np.ndarray,
        axes: str = "zyx",
        version: str = "0.5",
        *,
        name: str = "tiny.ome.zarr",
        steps: tuple[int, ...] = (1, 2),
        chunks: tuple[int, ...] | None = None,
        shards: tuple[int, ...] | None = None,
        separator: str = "/",
        unit: str | None = "micrometer",
        change: Callable[[dict[str, Any]], None] | None = None,
        is_consolidated: bool = False,
    ) -> str:
        path = tmp_path / name
        zarr_format = 2 if version == "0.4" else 3
        group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
        shapes = []
        for n, step in enumerate(steps):
            index = tuple(slice(None, None, step if a in "zyx" else None) for a in axes)
            level = data[index]
            shapes.append(level.shape)
            extra: dict[str, Any] = {}
            if zarr_format == 3:
                extra["dimension_names"] = list(axes)
                extra["chunk_key_encoding"] = {"name": "default", "separator": separator}
                extra["shards"] = shards
            else:
                extra["chunk_key_encoding"] = {"name": "v2", "separator": separator}
            clipped = chunks or tuple(8 if a in "zyx" else 1 for a in axes)
            array = group.create_array(
                str(n), shape=level.shape, dtype=level.dtype, chunks=clipped, fill_value=0, **extra
            )
            array[...] = level
        attributes = metadata(axes, shapes, version, unit)
        if change:
            change(attributes)
        group.attrs.update(attributes)
        if is_consolidated:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                zarr.consolidate_metadata(str(path), zarr_format=zarr_format)
        return str(path)

    return make


@pytest.fixture
def edit_attributes() -> Callable[[str, Callable[[dict[str, Any]], None]], None]:
    """Return a function that changes the root attributes of an image in place."""

    def edit(path: str, change: Callable[[dict[str, Any]], None]) -> None:
        file = Path(path, "zarr.json")
        if file.exists():
            document = json.loads(file.read_text())
            change(document["attributes"])
            file.write_text(json.dumps(document))
        else:
            file = Path(path, ".zattrs")
            document = json.loads(file.read_text())
            change(document)
            file.write_text(json.dumps(document))

    return edit
