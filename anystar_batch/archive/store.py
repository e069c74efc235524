"""The one door to images in Zarr: describe, read box by box, make arrays.

Behind it: `arrays` opens and makes, `reader` reads boxes, `nodes` reads metadata documents as
files, `files` writes whole or not at all.
"""

from __future__ import annotations

import json
import warnings
from typing import Literal

import zarr

from anystar_batch.address import normal
from anystar_batch.archive import documents
from anystar_batch.archive.arrays import (
    array_info,
    axis_index,
    create_array,
    from_zyx,
    open_array,
    store_of,
    to_zyx,
)
from anystar_batch.archive.ngff import JSON, ImageSource
from anystar_batch.archive.nodes import (
    Node,
    find_images,
    is_consolidated,
    local_path,
    read_node,
    read_root,
    write_attributes,
)
from anystar_batch.archive.reader import ImageReader
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.files import (
    PARTIAL,
    check_writable,
    output_error,
    sync_directory,
    write_bytes_atomic,
    write_json_atomic,
)

__all__ = [
    "PARTIAL",
    "ImageReader",
    "Node",
    "array_info",
    "axis_index",
    "check_writable",
    "consolidate",
    "create_array",
    "find_images",
    "from_zyx",
    "is_consolidated",
    "local_path",
    "metadata_fingerprint",
    "open_array",
    "output_error",
    "read_image",
    "read_node",
    "sync_directory",
    "to_zyx",
    "write_attributes",
    "write_bytes_atomic",
    "write_json_atomic",
]


def read_image(path: str) -> ImageSource:
    """Read and check the description of one image.

    Parameters
    ----------
    path : str
        Path or address of an image: one of `find_images`.

    Returns
    -------
    ImageSource

    Raises
    ------
    ImageError
        If it is not an image that can be segmented.
    """
    path = normal(path)
    node = read_root(path)
    _, multiscales = documents.multiscales_of(path, node.attributes, node.zarr_format)
    arrays = [
        array_info(path, relative, node.zarr_format)
        for relative in documents.dataset_paths(path, multiscales)
    ]
    return documents.image_source(
        path,
        node.attributes,
        node.zarr_format,
        arrays,
        was_consolidated=node.was_consolidated,
    )


def metadata_fingerprint(source: ImageSource) -> JSON:
    """Return what the result depends on of an image's metadata: not its place, name or version.

    Parameters
    ----------
    source : ImageSource
        The image.

    Returns
    -------
    dict
        JSON-able: axes, channels (they name columns), and of every level shape, type, chunking and
        transforms.
    """
    return {
        "axes": [[a.name, a.type, a.unit] for a in source.axes],
        "channels": list(source.channels),
        "levels": [
            {
                "path": level.path,
                "shape": list(level.shape),
                "dtype": level.dtype,
                "chunks": list(level.chunks),
                "shards": None if level.shards is None else list(level.shards),
                "scale": list(level.scale),
                "translation": list(level.translation),
                "has_translation": level.has_translation,
            }
            for level in source.levels
        ],
    }


def consolidate(path: str, zarr_format: Literal[2, 3]) -> None:
    """Rewrite the consolidated metadata of a group, so that readers who trust it see new labels.

    Hidden groups of runs that are not finished are left out, as they are from every other list.

    Parameters
    ----------
    path : str
        The group.
    zarr_format : {2, 3}
        Its format.
    """
    with warnings.catch_warnings():
        # Consolidated metadata is outside the v3 specification; here it was there already.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store_of(path, read_only=False), zarr_format=zarr_format)
    file = f"{path}/{'.zmetadata' if zarr_format == 2 else 'zarr.json'}"
    document = json.loads(files.read_bytes(file) or b"{}")
    holder = document if zarr_format == 2 else document["consolidated_metadata"]
    shown = {
        key: value
        for key, value in holder["metadata"].items()
        if not any(
            part.startswith(".") for part in key.split("/")[: -1 if zarr_format == 2 else None]
        )
    }
    if shown != holder["metadata"]:
        holder["metadata"] = shown
        write_json_atomic(file, document)
