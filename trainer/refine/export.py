"""Write a refiner: plain arrays and what they are, byte for byte the same for the same arrays.

::

    refiner.npz     float32 arrays, no pickles: an uncompressed zip with fixed dates
    refiner.json    format, digest of the arrays, the cut, config, scores
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anystar_batch.network.refiner import FORMAT, SMALL, Refiner, from_arrays
from anystar_batch.network.refiner_kernel import NAMES
from trainer.refine.config import RefineConfig

ARRAYS, DESCRIPTION, LARGE = "refiner.npz", "refiner.json", "large.json"


def npz_bytes(arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return an .npz of the refiner's arrays whose bytes depend on the arrays alone.

    Parameters
    ----------
    arrays : mapping
        With `refiner.NAMES`.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in (*NAMES, *(SMALL + name for name in NAMES)):
            if name not in arrays:  # of the network for small objects, which there may be
                continue
            content = io.BytesIO()
            np.lib.format.write_array(
                content, np.ascontiguousarray(arrays[name], "<f4"), (1, 0), allow_pickle=False
            )
            # np.savez would write the present time.
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue()
            )
    return packed.getvalue()


def read_arrays(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the arrays of an .npz."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def joined(
    large: Refiner, small: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a refiner whose small objects another network looks at.

    Parameters
    ----------
    large : Refiner
        Its own network for small objects, if it has one, is left out.
    small : mapping
        With `NAMES`.
    """
    kept = dataclasses.replace(large, small=None).named()
    return kept | {SMALL + name: small[name] for name in NAMES}


def export(
    arrays: Mapping[str, NDArray[np.float32]],
    config: RefineConfig,
    cut: float,
    scores: Mapping[str, object],
    folder: Path,
    large: object = None,
) -> Refiner:
    """Write a refiner into a model's folder.

    Parameters
    ----------
    arrays : mapping
        From `network.weights`.
    config : RefineConfig
    cut : float
        Quality below which a find is texture.
    scores : mapping
        JSON-able, for whoever reads the file.
    folder : Path
    large : JSON-able, optional
        What was written of the network for large objects, if the config is that of the small ones'.

    Returns
    -------
    Refiner
        What was written.
    """
    refiner = from_arrays(arrays, cut)
    document: dict[str, object] = {
        "format": FORMAT,
        "arrays_sha256": refiner.sha256,
        "quality_cut": cut,
        "parameters": int(sum(a.size for a in refiner.named().values())),
        "config": dataclasses.asdict(config),
        "scores": dict(scores),
    }
    if large is not None:
        document["large"] = large
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2) + "\n"
    for name, content in ((ARRAYS, npz_bytes(arrays)), (DESCRIPTION, text.encode())):
        temporary = folder / f".{name}.partial"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    return refiner
