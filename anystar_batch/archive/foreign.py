"""What is no OME-Zarr: what it is by its name, and what makes an OME-Zarr of it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

MICROSCOPES = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".btf": "TIFF",
    ".czi": "Zeiss CZI",
    ".lsm": "Zeiss LSM",
    ".nd2": "Nikon ND2",
    ".lif": "Leica LIF",
    ".ims": "Imaris",
    ".oib": "Olympus OIB",
    ".oif": "Olympus OIF",
    ".oir": "Olympus OIR",
    ".vsi": "Olympus VSI",
    ".dv": "DeltaVision",
    ".mrc": "MRC",
    ".klb": "KLB",
}
"""Files of microscopes, by suffix: Bio-Formats reads them."""

ARRAYS = {".h5": "HDF5", ".hdf5": "HDF5", ".n5": "N5", ".npy": "NumPy", ".nrrd": "NRRD"}
"""Files of bare arrays, by suffix: they do not say what their axes and voxels are."""

WRITE = "write the array as OME-Zarr with its voxel size: ome_zarr.writer.write_image of ome-zarr"
"""The cure for a bare array."""


def what_else(path: str) -> str | None:
    """Return what a path is instead of an OME-Zarr, and the cure; None if its name says nothing.

    Parameters
    ----------
    path : str
        File, directory or address.

    Examples
    --------
    >>> what_else("s3://bucket/e.czi")
    'Zeiss CZI, not OME-Zarr; convert it: bioformats2raw e.czi e.ome.zarr, or bioio-conversion'
    """
    name = PurePosixPath(path)
    suffix = name.suffix.lower()
    if suffix in MICROSCOPES:
        stem = name.name.removesuffix(name.suffix).removesuffix(".ome")
        return (
            f"{MICROSCOPES[suffix]}, not OME-Zarr; convert it: bioformats2raw {name.name} "
            f"{stem}.ome.zarr, or bioio-conversion"
        )
    if suffix in ARRAYS or _is_n5(path):
        return f"{ARRAYS.get(suffix, 'N5')}, not OME-Zarr; {WRITE}"
    return None


def _is_n5(path: str) -> bool:
    """Whether a local directory says that it is an N5 container, which has any name."""
    try:
        return "n5" in json.loads(Path(path, "attributes.json").read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False
