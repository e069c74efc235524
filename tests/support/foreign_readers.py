"""Independent validators and readers, run on what the pipeline publishes."""

import json
import logging
import subprocess
import warnings
from itertools import product
from pathlib import Path

import numcodecs
import numpy as np
import zarr


def validate(path):
    """Run yaozarrs and ome-zarr-models; each raises on what it finds."""
    import ome_zarr_models
    import yaozarrs
    from ome_zarr_models.exceptions import ValidationWarning

    yaozarrs.validate_zarr_store(path)
    with warnings.catch_warnings(action="error", category=ValidationWarning):
        ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))


def ome_zarr_nodes(path):
    """Return the label nodes that ome-zarr's reader shows with an image."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Label, Reader

    return [n for n in Reader(parse_url(path))() if Label.matches(n.zarr)]


def napari_layers(path):
    """Return the layers that napari-ome-zarr's reader makes of a path."""
    from napari_ome_zarr import napari_get_reader

    logging.disable(logging.WARNING)
    try:
        return napari_get_reader(path)(path)
    finally:
        logging.disable(logging.NOTSET)


def tensorstore_voxels(path):
    """Return all voxels of an array as TensorStore reads them."""
    import tensorstore

    driver = "zarr" if Path(path, ".zarray").exists() else "zarr3"
    store = {"driver": "file", "path": f"{path}/"}
    return tensorstore.open({"driver": driver, "kvstore": store}).result().read().result()


def bioio_image(path):
    """Return voxels and voxel size (z, y, x) as bioio reads a group."""
    from bioio_ome_zarr import Reader

    reader = Reader(str(path))
    return np.asarray(reader.data), tuple(reader.physical_pixel_sizes)


def ngio_label(path, name):
    """Return names, voxels and voxel size (z, y, x) of a label as ngio reads them."""
    import ngio

    container = ngio.open_ome_zarr_container(path)
    label = container.get_label(name)
    size = label.pixel_size
    return container.list_labels(), label.get_as_numpy(), (size.z, size.y, size.x)


def zarrita_sums(path, modules):
    """Return shape, sum and maximum of an array as zarrita reads it under Node.

    `modules` is a `node_modules` folder that holds `zarrita` and `@zarrita/storage`.
    """
    script = f"""
        import * as zarr from "{modules}/zarrita/dist/src/index.js";
        import FileSystemStore from "{modules}/@zarrita/storage/dist/src/fs.js";
        const node = await zarr.open(zarr.root(new FileSystemStore("{path}")), {{kind: "array"}});
        const {{data, shape}} = await zarr.get(node);
        let sum = 0, most = 0;
        for (const v of data) {{ sum += Number(v); most = Math.max(most, Number(v)); }}
        console.log(JSON.stringify([shape, sum, most]));
    """
    words = ["node", "--input-type=module", "-e", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def voxels(path):
    """Return all voxels of an array by its metadata and numcodecs alone, without zarr-python."""
    root = Path(path)
    if (root / ".zarray").exists():
        document = json.loads((root / ".zarray").read_text())
        assert document["dimension_separator"] == "/"
        codec, chunks = numcodecs.get_codec(document["compressor"]), document["chunks"]
        kind = np.dtype(document["dtype"])
    else:
        document = json.loads((root / "zarr.json").read_text())
        assert document["chunk_key_encoding"]["configuration"] == {"separator": "/"}
        assert [c["name"] for c in document["codecs"]] == ["bytes", "blosc"]
        assert document["codecs"][0]["configuration"] == {"endian": "little"}
        codec, root = numcodecs.Blosc(), root / "c"
        chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
        kind = np.dtype(document["data_type"]).newbyteorder("<")
    shape = document["shape"]
    out = np.full(shape, document["fill_value"], kind)
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    for index in product(*map(range, counts)):
        file = root.joinpath(*map(str, index))
        if file.exists():
            chunk = np.frombuffer(codec.decode(file.read_bytes()), kind).reshape(chunks)
            start = [i * c for i, c in zip(index, chunks, strict=True)]
            room = [min(c, n - a) for a, c, n in zip(start, chunks, shape, strict=True)]
            where = tuple(slice(a, a + r) for a, r in zip(start, room, strict=True))
            out[where] = chunk[tuple(slice(0, r) for r in room)]
    return out
